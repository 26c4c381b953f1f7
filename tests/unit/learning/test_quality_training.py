"""Outcomes of the ledger to a quality model."""

from __future__ import annotations

import numpy as np
import pytest

from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.errors import NotReady
from tinydancer.quality_training import fit_ledger
from tinydancer.store.rewards import Outcome


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

    outcomes = [Outcome("a poem", kept, 1.0, "b", 1.0), Outcome("a sum", None, None, "a", 0.0)]
    model = fit_ledger(outcomes, Watched(), 0)
    assert asked == ["a sum"]
    assert model.agents == ("a", "b")
    assert model.evidence.outcomes == 2
    assert model.evidence.best_single == "b"


def test_few_outcomes_give_each_agents_mean() -> None:
    rng = np.random.default_rng(0)
    outcomes = [
        Outcome(f"request {n}", None, 0.5, "ab"[n % 2], float(rng.random() < 0.5))
        for n in range(30)
    ]
    model = fit_ledger(outcomes, StaticEmbedder.builtin(), 0)
    assert not model.evidence.estimates.holds


def test_no_outcomes_are_nothing_to_learn_from() -> None:
    with pytest.raises(NotReady, match="no outcomes"):
        fit_ledger([], StaticEmbedder.builtin(), 0)
