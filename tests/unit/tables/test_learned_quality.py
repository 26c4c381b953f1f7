"""Decisions by a quality model: what it knows of each agent on this request."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tinydancer.agents.model import Agent, Performance, Prices
from tinydancer.learning.outcomes import Outcomes
from tinydancer.learning.quality import QualityModel, fit_quality
from tinydancer.learning.requests import describe

if TYPE_CHECKING:
    from .conftest import Engine, Watched

RATES = {"logician": (0.95, 0.2), "poet": (0.2, 0.9)}
QUALITIES = ("expected_quality", "confidence")


@dataclass(frozen=True)
class ActiveQuality:
    name: str
    model: QualityModel


def texts(count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Sums and poems by turns, and which of the two each is."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(count) % 2
    things = ("rain", "the sea", "an old friend", "autumn", "a lost key")
    return [
        f"Compute {rng.integers(99)} + {rng.integers(99)}"
        if kind == 0
        else f"Write a poem about {things[rng.integers(len(things))]}"
        for kind in kinds
    ], kinds


def model(watched: Watched, rates: dict[str, tuple[float, float]]) -> ActiveQuality:
    asked, kinds = texts(300, 0)
    rng = np.random.default_rng(1)
    chances = np.array([[rates[name][kind] for name in rates] for kind in kinds])
    rewards = (rng.random(chances.shape) < chances).astype(np.float64)
    requests = describe(asked, watched.embed(asked))
    return ActiveQuality("learned-1", fit_quality(requests, Outcomes(tuple(rates), rewards)))


@pytest.fixture(scope="module")
def good(watched: Watched) -> ActiveQuality:
    return model(watched, RATES)


@pytest.fixture(scope="module")
def useless(watched: Watched) -> ActiveQuality:
    return model(watched, {"logician": (0.5, 0.5), "poet": (0.8, 0.8)})


def learn(engine: Engine, active: ActiveQuality) -> None:
    engine.agents = tuple(
        Agent(name, "llm", ("writing",), Prices(per_call=0.01), Performance(100.0, 0.6))
        for name in ("logician", "newcomer", "poet")
    )
    context = replace(engine.context(), quality=active)
    engine.context = lambda: context  # type: ignore[method-assign]


def test_each_request_goes_to_the_agent_that_is_good_at_it(
    engine: Engine, good: ActiveQuality
) -> None:
    learn(engine, good)
    asked, kinds = texts(40, 7)
    rows = engine.ask("route_decisions", request=list(dict.fromkeys(asked)), optimize_for="quality")
    wanted = {text: ("logician", "poet")[kind] for text, kind in zip(asked, kinds, strict=True)}
    assert {row["request"]: row["agent_name"] for row in rows} == wanted
    for row in rows:
        assert float(row["expected_quality"] or "") > 0.6
        assert 0 <= float(row["confidence"] or "") <= 1


def test_an_agent_that_the_model_does_not_know_keeps_its_own_figure_and_says_so(
    engine: Engine, good: ActiveQuality
) -> None:
    learn(engine, good)
    (row,) = engine.ask("route_decisions", request="Compute 3 + 4", optimize_for="quality")
    whole = json.loads(row["explanation"] or "")
    standing = {found["agent"]: found["quality_is"] for found in whole["candidates"]}
    assert standing == {"logician": "learned", "newcomer": "prior", "poet": "learned"}
    newcomer = next(found for found in whole["candidates"] if found["agent"] == "newcomer")
    assert newcomer["expected_quality"] == newcomer["confidence"] == 0.6
    assert whole["models"]["quality"] == "learned-1"
    assert whole["quality_evidence"] == good.model.evidence.sentence


@pytest.mark.parametrize(
    "arguments",
    [
        {"optimize_for": "cost", "min_quality": "0.7"},
        {"optimize_for": "quality_per_dollar"},
        {"optimize_for": "balanced"},
    ],
)
def test_quality_counts_as_it_is_on_this_request_though_it_is_not_shown(
    engine: Engine, good: ActiveQuality, arguments: dict[str, str]
) -> None:
    learn(engine, good)
    for request, agent in (("Compute 3 + 4", "logician"), ("Write a poem about rain", "poet")):
        (row,) = engine.ask("route_decisions", request=request, columns=["agent_name"], **arguments)
        assert row["agent_name"] == agent


def test_where_outcomes_say_nothing_by_request_the_best_single_agent_is_kept(
    engine: Engine, useless: ActiveQuality
) -> None:
    learn(engine, useless)
    asked, _ = texts(40, 9)
    rows = engine.ask("route_decisions", request=asked, optimize_for="quality")
    assert not useless.model.evidence.choices.holds
    assert {row["agent_name"] for row in rows} == {"poet"}
    assert len({row["expected_quality"] for row in rows}) == 1


def test_a_decision_by_cost_asks_the_model_only_where_quality_is_shown(
    engine: Engine, good: ActiveQuality
) -> None:
    learn(engine, good)
    engine.embedder.embedded.clear()
    engine.ask("route_decisions", request="x", optimize_for="cost", columns=["agent_name"])
    assert engine.embedder.embedded == []
    (row,) = engine.ask(
        "route_decisions", request="Compute 3 + 4", optimize_for="cost", columns=QUALITIES
    )
    assert float(row["expected_quality"] or "") > 0.8


def test_a_request_gets_the_same_estimate_alone_and_in_a_batch(
    engine: Engine, good: ActiveQuality
) -> None:
    learn(engine, good)
    asked = list(dict.fromkeys(texts(30, 11)[0]))
    columns = ["request", "agent_name", *QUALITIES]
    together = engine.ask("route_decisions", request=asked, columns=columns)
    alone = [engine.ask("route_decisions", request=text, columns=columns)[0] for text in asked]
    assert together == alone
