"""What bounds the calls to agents, as a snapshot has it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from tinydancer.agents.model import Agent, Performance, Prices
from tinydancer.agents.pool import Pool

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def agent(name: str, limit: int | None = None) -> Agent:
    return Agent(name, "tool", (), Prices(), Performance(1.0, 0.5), concurrency_limit=limit)


def test_who_has_a_limit_or_a_circuit_that_is_not_closed_is_guarded() -> None:
    pool = Pool.of([agent("free"), agent("bound", 3)], {"failing": NOON})
    assert pool.limits == {"bound": 3}
    assert pool.guarded == {"bound", "failing"}
    assert Pool().guarded == frozenset()


def test_a_circuit_is_open_until_its_time_and_half_open_from_then_on() -> None:
    later = NOON + timedelta(seconds=1)
    pool = Pool.of([], {"b": later, "a": NOON})
    assert pool.open(NOON - later.resolution) == [("a", NOON), ("b", later)]
    assert pool.open(NOON) == [("b", later)]
    assert pool.open(later) == []
