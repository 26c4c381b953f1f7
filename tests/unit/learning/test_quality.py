"""Quality learned from outcomes: what it finds, and what it refuses to believe."""

from __future__ import annotations

import numpy as np
import pytest

from tinydancer.errors import InvalidInput, NotReady, NumberOutOfRange
from tinydancer.learning import quality
from tinydancer.learning.outcomes import Outcomes
from tinydancer.learning.quality import fit_quality
from tinydancer.learning.quality_file import pack, unpack
from tinydancer.learning.requests import Requests, describe
from tinydancer.neural.model_file import Contents, from_bytes, to_bytes

AGENTS = ("logician", "poet")
RATES = np.array([[0.9, 0.3], [0.3, 0.9]])


def topics(rows: int, seed: int) -> tuple[Requests, np.ndarray]:
    """Requests of two kinds, apart in text and in vector, and the kind of each."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 2, rows)
    texts = [
        f"Compute {rng.integers(99)} + {rng.integers(99)}" if kind == 0 else "A poem about rain"
        for kind in kinds
    ]
    vectors = rng.normal(0, 0.5, (rows, 16)).astype(np.float32)
    vectors[np.arange(rows), kinds] += 2
    return describe(texts, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)), kinds


def full(kinds: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rewards: np.ndarray = (rng.random((len(kinds), 2)) < RATES[kinds]).astype(np.float64)
    return rewards


def logged(rewards: np.ndarray, seed: int) -> np.ndarray:
    """The same with only one agent's outcome a row, chosen by a coin."""
    rng = np.random.default_rng(seed)
    seen = rng.integers(0, 2, len(rewards))
    partial = np.full_like(rewards, np.nan)
    rows = np.arange(len(rewards))
    partial[rows, seen] = rewards[rows, seen]
    return partial


def test_agents_good_at_different_things_are_each_chosen_for_theirs() -> None:
    requests, kinds = topics(300, 0)
    model = fit_quality(requests, Outcomes(AGENTS, full(kinds, 1)))
    new, new_kinds = topics(200, 2)
    chosen = model.choose(model.estimate(new))
    assert model.evidence.choices.holds
    assert (chosen == new_kinds).mean() > 0.95
    assert "choosing by request gains" in model.evidence.sentence


@pytest.mark.parametrize("recorded", [True, False])
def test_a_log_with_one_outcome_a_row_is_enough(recorded: bool) -> None:
    requests, kinds = topics(600, 3)
    rewards = logged(full(kinds, 4), 5)
    propensities = np.full(600, 0.5) if recorded else None
    model = fit_quality(requests, Outcomes(AGENTS, rewards, propensities))
    new, new_kinds = topics(200, 6)
    assert model.evidence.propensities == ("recorded" if recorded else "estimated")
    assert (model.choose(model.estimate(new)) == new_kinds).mean() > 0.95


def test_outcomes_that_say_nothing_by_request_leave_the_means() -> None:
    requests, kinds = topics(300, 7)
    rng = np.random.default_rng(8)
    rewards = (rng.random((300, 2)) < [0.5, 0.6]).astype(np.float64)
    model = fit_quality(requests, Outcomes(AGENTS, rewards))
    estimates = model.estimate(requests)
    assert not model.evidence.estimates.holds
    assert np.ptp(estimates, axis=0).max() == 0
    assert (model.choose(estimates) == AGENTS.index(model.evidence.best_single)).all()
    assert "no estimate by request beats it" in model.evidence.sentence
    del kinds


def test_a_dozen_outcomes_are_no_evidence() -> None:
    requests, kinds = topics(12, 9)
    model = fit_quality(requests, Outcomes(AGENTS, full(kinds, 10)))
    assert not model.evidence.estimates.holds


def test_no_outcome_at_all_is_an_error_that_says_what_to_do() -> None:
    requests, _ = topics(5, 11)
    with pytest.raises(NotReady, match="no outcomes") as caught:
        fit_quality(requests, Outcomes(AGENTS, np.full((5, 2), np.nan)))
    assert "ruvector_record_usage" in caught.value.hint


def test_an_agent_never_seen_gets_the_mean_of_all() -> None:
    requests, kinds = topics(100, 12)
    rewards = np.column_stack([full(kinds, 13), np.full(100, np.nan)])
    model = fit_quality(requests, Outcomes((*AGENTS, "new"), rewards))
    estimate = model.estimate(requests)[:, 2]
    assert estimate == pytest.approx(np.nanmean(rewards[:, :2]), abs=1e-9)


def test_probabilities_are_calibrated_on_new_requests() -> None:
    requests, kinds = topics(1000, 14)
    model = fit_quality(requests, Outcomes(AGENTS, full(kinds, 15)))
    new, new_kinds = topics(2000, 16)
    rewards = full(new_kinds, 17)
    estimates = model.estimate(new)
    chosen = model.choose(estimates)
    rows = np.arange(2000)
    probabilities = model.probabilities(estimates)[rows, chosen]
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert probabilities.mean() == pytest.approx(rewards[rows, chosen].mean(), abs=0.04)


def test_of_very_many_outcomes_the_last_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "MOST_ROWS", 100)
    requests, kinds = topics(250, 25)
    outcomes = Outcomes(AGENTS, full(kinds, 26))
    last = np.arange(150, 250)
    expected = fit_quality(requests.take(last), outcomes.take(last))
    model = fit_quality(requests, outcomes)
    assert model.evidence.outcomes == 200
    assert np.array_equal(model.estimate(requests), expected.estimate(requests))


def test_the_same_outcomes_give_the_same_model() -> None:
    requests, kinds = topics(150, 18)
    outcomes = Outcomes(AGENTS, full(kinds, 19))
    first, second = (fit_quality(requests, outcomes).estimate(requests) for _ in range(2))
    assert np.array_equal(first, second)


def test_bad_outcomes_are_refused() -> None:
    with pytest.raises(InvalidInput, match="named twice"):
        Outcomes(("a", "a"), np.zeros((1, 2)))
    with pytest.raises(NumberOutOfRange, match="infinite"):
        Outcomes(AGENTS, np.array([[0.0, np.inf]]))
    with pytest.raises(NumberOutOfRange, match="propensities"):
        Outcomes(AGENTS, np.zeros((1, 2)), np.array([0.0]))


def test_a_model_read_back_estimates_the_same_and_says_the_same() -> None:
    requests, kinds = topics(300, 20)
    model = fit_quality(requests, Outcomes(AGENTS, full(kinds, 21)))
    again = unpack(from_bytes(to_bytes(pack(model, "space"))), "space")
    new, _ = topics(50, 22)
    assert model.estimator.parts
    assert np.array_equal(again.estimate(new), model.estimate(new))
    estimates = model.estimate(new)
    assert np.array_equal(again.probabilities(estimates), model.probabilities(estimates))
    assert again.evidence == model.evidence


def test_a_model_of_another_space_or_with_a_part_missing_is_refused() -> None:
    requests, kinds = topics(60, 23)
    contents = pack(fit_quality(requests, Outcomes(AGENTS, full(kinds, 24))), "space")
    with pytest.raises(InvalidInput, match="'other'"):
        unpack(contents, "other")
    less = {name: array for name, array in contents.arrays.items() if name != "means"}
    with pytest.raises(InvalidInput, match="lacks a part"):
        unpack(Contents(less, contents.about), "space")
    with pytest.raises(InvalidInput, match="kind"):
        unpack(Contents(contents.arrays, {"kind": "classifier"}), "space")
