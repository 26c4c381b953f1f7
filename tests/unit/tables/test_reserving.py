"""What was reserved is given back, whatever goes wrong after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest
from tests.unit.tables.conftest import Engine

from tinydancer.budgets import Claim, Refusal
from tinydancer.tables import answer
from tinydancer_fdw.frames import ANY, Input, Scan

SCAN = Scan("route_decisions", ("decision_id",), (Input("request", ANY, ["hello", "code"]),))


class Purse:
    """Reserves for all but the first claim, and only once."""

    def __init__(self) -> None:
        self.held: list[UUID] = []

    def reserve(self, claims: Sequence[Claim]) -> Sequence[Refusal | None]:
        if self.held:
            raise RuntimeError("the statement was cancelled")
        self.held += [claim.decision for claim in claims[1:]]
        return [Refusal("budget", "b"), *([None] * (len(claims) - 1))]

    def remaining(self, *_: object) -> dict[str, object]:
        return {}

    def release(self, decisions: Sequence[UUID]) -> None:
        self.held = [held for held in self.held if held not in decisions]


def test_a_reservation_that_breaks_off_gives_back_what_it_had(engine: Engine) -> None:
    purse = Purse()
    snapshot = replace(engine.context().snapshot, budgets=frozenset({"all"}))
    context = replace(
        engine.context(), snapshot=snapshot, reservations=purse, keep=lambda decisions: None
    )
    with pytest.raises(RuntimeError, match="cancelled"):
        list(answer(context, SCAN))
    assert purse.held == []


class Willing(Purse):
    """Reserves for every claim."""

    def reserve(self, claims: Sequence[Claim]) -> Sequence[Refusal | None]:
        self.held += [claim.decision for claim in claims]
        return [None] * len(claims)


def test_decisions_that_can_not_be_kept_give_back_what_they_had(engine: Engine) -> None:
    def keep(decisions: object) -> None:
        raise RuntimeError("the disk is full")

    purse = Willing()
    snapshot = replace(engine.context().snapshot, budgets=frozenset({"all"}))
    context = replace(engine.context(), snapshot=snapshot, reservations=purse, keep=keep)
    with pytest.raises(RuntimeError, match="disk"):
        list(answer(context, SCAN))
    assert purse.held == []
