"""A batch decided as a whole: batch_decisions."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tinydancer.errors import (
    BudgetExceeded,
    InvalidInput,
    MissingInput,
    NotFound,
    NotReady,
    NumberOutOfRange,
    TooLarge,
)

if TYPE_CHECKING:
    from .conftest import Engine

TEXTS = ["Say hello", "Fix this bug", "Say hello", "Write a poem"]


def decisions(row: dict[str, str | None]) -> list[dict[str, Any]]:
    return json.loads(row["decisions"] or "")


def agents(row: dict[str, str | None]) -> Counter[str]:
    return Counter(decision["agent_name"] for decision in decisions(row))


def test_without_limits_each_request_goes_to_the_cheapest_agent(engine: Engine) -> None:
    (row,) = engine.ask("batch_decisions", requests=TEXTS)
    alone = engine.ask("route_decisions", request=list(dict.fromkeys(TEXTS)), optimize_for="cost")
    cheapest = {found["request"]: found for found in alone}
    for text, decision in zip(TEXTS, decisions(row), strict=True):
        assert decision["agent_name"] == cheapest[text]["agent_name"]
        assert decision["estimated_cost"] == float(cheapest[text]["estimated_cost"] or "")
        assert decision["score"] == float(cheapest[text]["score"] or "")
        assert decision["similarity"] == pytest.approx(float(cheapest[text]["similarity"] or ""))
    total = sum(decision["estimated_cost"] for decision in decisions(row))
    assert float(row["total_cost"] or "") == pytest.approx(total, abs=1e-9)
    assert row["total_cost"] == row["least_cost"]
    assert row["unserved"] == "0"


def test_a_text_that_occurs_twice_counts_twice_against_capacity(engine: Engine) -> None:
    (row,) = engine.ask(
        "batch_decisions",
        requests=["Say hello"] * 4,
        agent_capacity=["claude-3-haiku=3", "code-specialist=0"],
    )
    assert agents(row) == {"claude-3-haiku": 3, "gpt-4": 1}
    moved = next(d for d in decisions(row) if d["agent_name"] == "gpt-4")
    cheap = next(d for d in decisions(row) if d["agent_name"] == "claude-3-haiku")
    saved = round(moved["estimated_cost"] - cheap["estimated_cost"], 9)
    prices = json.loads(row["capacity_prices"] or "")
    assert prices == {"claude-3-haiku": saved, "code-specialist": None}
    assert "it has no more than 3 places" in moved["reasoning"]


def test_the_floor_on_mean_quality_is_met_at_less_than_the_same_floor_for_each(
    engine: Engine,
) -> None:
    (batch,) = engine.ask("batch_decisions", requests=TEXTS, min_batch_quality="0.85")
    (each,) = engine.ask("batch_decisions", requests=TEXTS, min_quality="0.85")
    assert float(batch["mean_quality"] or "") >= 0.85
    assert float(batch["total_cost"] or "") < float(each["total_cost"] or "")
    assert float(batch["quality_price"] or "") > 0
    dearer = next(d for d in decisions(batch) if d["agent_name"] != "claude-3-haiku")
    assert "the batch's quality floor" in dearer["reasoning"]


def test_a_request_that_nobody_may_serve_says_why_and_is_in_no_sum(engine: Engine) -> None:
    (row,) = engine.ask("batch_decisions", requests=TEXTS, min_quality="1", total_budget="0")
    assert agents(row) == {None: 4}
    assert "quality" in decisions(row)[0]["reasoning"]
    assert (row["unserved"], row["total_cost"], row["mean_quality"]) == ("4", "0", None)


def test_without_agents_every_request_says_so(engine: Engine) -> None:
    engine.agents = ()
    (row,) = engine.ask("batch_decisions", requests=TEXTS)
    assert all("no active agent" in decision["reasoning"] for decision in decisions(row))


def test_a_batch_of_nothing_costs_nothing(engine: Engine) -> None:
    (row,) = engine.ask("batch_decisions", requests=[], min_batch_quality="0.9")
    assert (row["decisions"], row["total_cost"], row["requests"]) == ("[]", "0", "{}")


def test_a_batch_longer_than_a_piece_is_one_batch(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"agent_capacity": ["claude-3-haiku=2"], "min_batch_quality": "0.85"}
    (whole,) = engine.ask("batch_decisions", requests=TEXTS, **asked)
    monkeypatch.setattr("tinydancer.tables.route_decisions.CHUNK", 3)
    (pieces,) = engine.ask("batch_decisions", requests=TEXTS, **asked)
    assert pieces == whole


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"total_budget": "0.000001"}, BudgetExceeded, "budget of 1e-06 is too small"),
        ({"min_batch_quality": "0.96"}, NotReady, "the best assignment has a mean quality of 0.95"),
        (
            {"agent_capacity": ["gpt-4=1", "claude-3-haiku=1", "code-specialist=1"]},
            NotReady,
            "capacity binds: 3 places in all for 4 requests",
        ),
        ({"agent_capacity": ["gpt-5=1"]}, NotFound, "'gpt-5', which is no active agent"),
        ({"agent_capacity": ["gpt-4=-1"]}, InvalidInput, "'gpt-4=-1'"),
        ({"agent_capacity": ["gpt-4"]}, InvalidInput, "'gpt-4'"),
        ({"min_batch_quality": "1.5"}, NumberOutOfRange, "min_batch_quality = 1.5"),
        ({"total_budget": "NaN"}, NumberOutOfRange, "total_budget = NaN"),
    ],
)
def test_a_batch_that_can_not_be_says_which_limit_is_in_the_way(
    engine: Engine, inputs: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        engine.ask("batch_decisions", requests=TEXTS, **inputs)


@pytest.mark.parametrize(
    ("requests", "error", "message"),
    [
        (["a", " "], InvalidInput, r"requests\[2\] is empty"),
        (["a", None], InvalidInput, "requests has a NULL"),
        ([["a"], ["b"]], InvalidInput, "more than one dimension"),
        (["a"] * 10_001, TooLarge, "10001 requests"),
        (["x" * 1001], TooLarge, r"requests\[1\] has 1001 bytes"),
    ],
)
def test_texts_are_checked_each_by_its_place(
    engine: Engine, requests: list[Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        engine.ask("batch_decisions", requests=requests)


def test_a_batch_is_required(engine: Engine) -> None:
    with pytest.raises(MissingInput, match="batch_decisions needs a value for requests"):
        engine.ask("batch_decisions")
