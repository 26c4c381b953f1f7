"""Outcomes of the ledger to a quality model."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.errors import NotReady
from tinydancer.store.rewards import Judged
from tinydancer.trainings.quality import against, fit_ledger, read_ledger

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def judged(request: str, propensity: float | None, at: int = 0, **rewards: float) -> Judged:
    return Judged(NOW + timedelta(seconds=at), request, None, propensity, rewards)


def test_vectors_that_were_kept_are_not_made_again() -> None:
    embedder = StaticEmbedder.builtin()
    kept = embedder.embed(["a poem"])[0].tolist()
    asked: list[str] = []

    class Watched:
        model, space, dimension = embedder.model, embedder.space, embedder.dimension
        count_tokens = staticmethod(embedder.count_tokens)

        @staticmethod
        def embed(texts):
            asked.extend(texts)
            return embedder.embed(texts)

    outcomes = [replace(judged("a poem", 1.0, b=1.0), embedding=kept), judged("a sum", None, a=0.0)]
    model = fit_ledger(outcomes, Watched(), 0)
    assert asked == ["a sum"]
    assert model.agents == ("a", "b")
    assert model.evidence.outcomes == 2
    assert model.evidence.best_single == "b"


def test_few_outcomes_give_each_agents_mean() -> None:
    rng = np.random.default_rng(0)
    outcomes = [
        judged(f"request {n}", 0.5, **{"ab"[n % 2]: float(rng.random() < 0.5)}) for n in range(30)
    ]
    model = fit_ledger(outcomes, StaticEmbedder.builtin(), 0)
    assert not model.evidence.estimates.holds


def test_no_outcomes_are_nothing_to_learn_from() -> None:
    with pytest.raises(NotReady, match="no outcomes"):
        fit_ledger([], StaticEmbedder.builtin(), 0)


def log(rows: int, poet: float, start: int = 0) -> list[Judged]:
    """Half poems, half sums, one agent each by chance; the poet serves poems as often as given."""
    dice = np.random.default_rng(start)
    found = []
    for at in range(start, start + rows):
        poem, agent = at % 2 == 0, dice.choice(["poet", "logician"])
        good = (poet if poem else 1 - poet) if agent == "poet" else (1 - poet if poem else poet)
        request = f"Write a poem about {at % 7} seas" if poem else f"Compute {at} + {at * 7 % 31}"
        found.append(judged(request, 0.5, at, **{agent: float(dice.random() < good)}))
    return found


def test_several_agents_on_one_request_are_one_row():
    requests, outcomes = read_ledger(
        [judged("x", None, a=1.0, b=0.0), judged("y", 0.5, b=1.0)], StaticEmbedder.builtin()
    )
    assert len(requests) == 2
    assert outcomes.seen.tolist() == [[True, True], [False, True]]


def test_a_model_is_replaced_where_the_world_has_turned_and_kept_where_it_has_not():
    embedder = StaticEmbedder.builtin()
    old = log(400, 0.9)
    current, until = fit_ledger(old, embedder, 0), old[-1].decided_at
    turned = against(current, until, old + log(1200, 0.1, 400), embedder, 0)
    assert turned.better
    assert turned.choices.gain > 0.3
    same = against(current, until, old + log(400, 0.9, 400), embedder, 0)
    assert not same.better
    assert abs(same.choices.gain) < 0.1
    assert same.errors.rows == 200


def test_too_few_new_decisions_decide_nothing():
    embedder = StaticEmbedder.builtin()
    old = log(100, 0.9)
    current = fit_ledger(old, embedder, 0)
    assert against(current, old[-1].decided_at, old + log(60, 0.1, 100), embedder, 0) is None


def test_a_model_of_other_agents_can_be_compared():
    embedder = StaticEmbedder.builtin()
    gone = [judged(f"request {n}", 0.5, n, gone=float(n % 2)) for n in range(60)]
    current = fit_ledger(gone, embedder, 0)
    verdict = against(current, gone[-1].decided_at, gone + log(800, 0.95, 60), embedder, 0)
    assert verdict.errors.gain > 0
    assert "neither has seen" in verdict.sentence
