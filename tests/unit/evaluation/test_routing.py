"""Tables of scores that were not seen before: what the learned router must and must not do."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.errors import InvalidInput, MissingInput
from tinydancer.evaluation import routing
from tinydancer.evaluation.routing import Result
from tinydancer.evaluation.score_tables import ScoreTable
from tinydancer.learning.requests import describe_with

TOPICS = (
    ("Prove that the integral of {} over the unit ball converges for {} > {}", 0),
    ("Compute {} + {} * {} and give the remainder modulo seven", 0),
    ("Write a short poem about the {} that met a {} in the {}", 1),
    ("What would you cook for {} guests who like {} and {}?", 1),
)
NOUNS = ("river", "stone", "lamp", "otter", "violin", "cloud", "teapot", "meadow", "ferry")

STATIC = {"static": StaticEmbedder.builtin()}

Scores = Callable[[np.random.Generator, int], dict[str, float]]


def write_table(
    folder: Path, scores: Scores, rows: int = 400, costs: dict[str, float] | None = None
) -> None:
    """A table whose prompts are of two kinds; `scores` gets the generator and the kind."""
    rng = np.random.default_rng(7)
    with gzip.open(folder / "made.jsonl.gz", "wt", encoding="utf-8") as stream:
        for _ in range(rows):
            template, kind = TOPICS[int(rng.integers(len(TOPICS)))]
            row = {
                "prompt": template.format(*rng.choice(NOUNS, 3)) + f" ({rng.integers(1000)})",
                "scores": scores(rng, kind),
            }
            if costs is not None:
                row["costs"] = costs
            stream.write(json.dumps(row) + "\n")


def run(folder: Path) -> list[Result]:
    return routing.run(folder, STATIC)


def value(results: list[Result], router: str, metric: str) -> float | None:
    found = [r.value for r in results if (r.router, r.metric) == (router, metric)]
    assert len(found) == 1, f"{router} {metric}: {found}"
    return found[0]


def number(results: list[Result], router: str, metric: str) -> float:
    found = value(results, router, metric)
    assert found is not None
    return found


def assert_never_worse(results: list[Result]) -> None:
    gain = number(results, "learned/static", "accuracy_over_best_single")
    error = number(results, "learned/static", "accuracy_over_best_single_se")
    assert gain >= -2.5 * error


def chance(rng: np.random.Generator, rate: float) -> float:
    return float(rng.random() < rate)


def test_agents_good_at_different_things_are_told_apart(tmp_path: Path) -> None:
    write_table(
        tmp_path,
        lambda rng, kind: {
            "logician": chance(rng, 0.9 if kind == 0 else 0.3),
            "poet": chance(rng, 0.3 if kind == 0 else 0.9),
        },
    )
    results = run(tmp_path)
    best = number(results, "best single", "accuracy")
    assert number(results, "learned/static", "accuracy") > best + 0.15
    assert number(results, "learned/static", "folds_on_best_single") == 0
    assert number(results, "oracle", "accuracy") >= number(results, "learned/static", "accuracy")


def test_without_any_signal_the_best_single_model_is_kept(tmp_path: Path) -> None:
    write_table(tmp_path, lambda rng, _: {"a": chance(rng, 0.5), "b": chance(rng, 0.6)})
    results = run(tmp_path)
    assert_never_worse(results)
    assert number(results, "learned/static", "folds_on_best_single") >= 4
    # Nothing is known of any request, so that all are equal: the diagonal, not the file's luck.
    assert number(results, "learned/static", "APGR") == pytest.approx(0.5)
    for share in (25, 50, 75):
        metric = f"accuracy_at_{share}pct_cost"
        expected = number(results, "random", metric)
        assert number(results, "learned/static", metric) == pytest.approx(expected, abs=0.01)


def test_a_model_that_always_wins_is_always_chosen(tmp_path: Path) -> None:
    write_table(tmp_path, lambda rng, _: {"strong": 1.0, "weak": chance(rng, 0.4)})
    results = run(tmp_path)
    assert number(results, "learned/static", "accuracy") == 1.0
    assert number(results, "learned/static", "accuracy_over_best_single") == 0.0


def test_five_models_with_real_scores_and_costs(tmp_path: Path) -> None:
    def scores(rng: np.random.Generator, kind: int) -> dict[str, float]:
        level = {"a": -3.0, "b": 1.5, "c": 2.0, "d": 4.0, "e": 4.5}
        bonus = {"c": 6.0} if kind == 0 else {"b": 5.0}
        return {
            name: mean + bonus.get(name, 0.0) + float(rng.normal(0, 2))
            for name, mean in level.items()
        }

    costs = {"a": 0.1, "b": 1.0, "c": 1.2, "d": 20.0, "e": 30.0}
    write_table(tmp_path, scores, costs=costs)
    results = run(tmp_path)
    assert_never_worse(results)
    best = number(results, "best single", "accuracy")
    assert number(results, "learned/static", "accuracy") > best
    assert number(results, "learned/static", "AIQ") > number(results, "random", "AIQ")
    for share in (25, 50, 75):
        metric = f"accuracy_at_{share}pct_cost"
        assert number(results, "oracle", metric) >= number(results, "learned/static", metric) - 1e-9


def test_the_unit_of_the_scores_changes_no_decision(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"

    def scores(scale: float) -> Scores:
        return lambda rng, kind: {
            "a": scale * chance(rng, 0.8 if kind else 0.4),
            "b": scale * chance(rng, 0.5),
        }

    for folder, scale in ((small, 1.0), (large, 1024.0)):
        folder.mkdir()
        write_table(folder, scores(scale))
    figures = [number(run(folder), "learned/static", "APGR") for folder in (small, large)]
    assert figures[0] == pytest.approx(figures[1], abs=1e-3)


def test_constant_scores_have_no_gap_to_recover(tmp_path: Path) -> None:
    write_table(tmp_path, lambda _rng, _kind: {"a": 0.5, "b": 0.5}, rows=60)
    results = run(tmp_path)
    assert value(results, "learned/static", "APGR") is None
    assert value(results, "random", "CPT(50%)") is None
    assert number(results, "learned/static", "accuracy") == 0.5


def test_a_tiny_table_falls_back_to_means(tmp_path: Path) -> None:
    write_table(tmp_path, lambda rng, _: {"a": chance(rng, 0.7), "b": chance(rng, 0.5)}, rows=12)
    results = run(tmp_path)
    assert number(results, "learned/static", "folds_on_means") == 5
    assert_never_worse(results)


def test_random_recovers_half_the_gap_and_oracle_the_most(tmp_path: Path) -> None:
    write_table(tmp_path, lambda rng, _: {"a": chance(rng, 0.4), "b": chance(rng, 0.7)})
    results = run(tmp_path)
    assert number(results, "random", "APGR") == pytest.approx(0.5)
    assert number(results, "random", "CPT(50%)") == pytest.approx(50)
    assert number(results, "random", "CPT(80%)") == pytest.approx(80)
    assert number(results, "oracle", "APGR") > 0.9


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ('{"scores": {"a": 1, "b": 0}}', "no `prompt`"),
        ('{"prompt": "x", "scores": {"a": 1, "c": 0}}', "line 1 has"),
        ('{"prompt": "x", "scores": {"a": 1, "b": NaN}}', "not a finite number"),
        ('{"prompt": "x", "scores": {"a": 1, "b": 0}, "costs": {"a": -1}}', "costs"),
    ],
)
def test_a_row_that_is_none_is_named(tmp_path: Path, line: str, says: str) -> None:
    good = '{"prompt": "x", "scores": {"a": 1, "b": 0}}'
    with gzip.open(tmp_path / "t.jsonl.gz", "wt") as stream:
        stream.write("\n".join([good] * 11 + [line]))
    with pytest.raises(InvalidInput, match=says) as caught:
        run(tmp_path)
    assert "line 12" in caught.value.message


def test_a_folder_without_tables_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"jsonl\.gz"):
        run(tmp_path)


def test_the_order_of_two_runs_does_not_matter(tmp_path: Path) -> None:
    write_table(tmp_path, lambda rng, k: {"a": chance(rng, 0.4 + 0.3 * k), "b": chance(rng, 0.6)})
    assert run(tmp_path) == run(tmp_path)


LABELS = ("noise", "one is always right", "constant columns", "heavy tails", "all the same")


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.sampled_from((5, 7, 12, 30, 60)),
    models=st.integers(2, 30),
    labels=st.sampled_from(LABELS),
    costly=st.booleans(),
)
def test_no_table_without_a_signal_makes_it_worse_than_the_best_single_model(
    seed: int, rows: int, models: int, labels: str, costly: bool
) -> None:
    rng = np.random.default_rng(seed)
    scores = (rng.random((rows, models)) < 0.6).astype(np.float64)
    if labels == "one is always right":
        scores[:, 0] = 1
    elif labels == "constant columns":
        scores[:, ::2] = 0.5
    elif labels == "heavy tails":
        scores = rng.standard_t(2, (rows, models))
    elif labels == "all the same":
        scores = np.repeat(rng.random((rows, 1)), models, axis=1)
    costs = rng.random(models) if costly else np.arange(models) / (models - 1)
    prompts = tuple(" ".join(rng.choice(NOUNS, rng.integers(2, 20))) for _ in range(rows))
    names = tuple(f"model {number:02}" for number in range(models))
    table = ScoreTable("made", prompts, names, scores, np.tile(costs, (rows, 1)))
    held_out = routing.predict_folds(table, describe_with(prompts, STATIC["static"]))
    results = [*routing.baselines(table), *routing.learned(table, "learned", held_out)]
    gain = number(results, "learned", "accuracy_over_best_single")
    error = number(results, "learned", "accuracy_over_best_single_se")
    assert gain >= -2 * error
    assert all(r.value is None or np.isfinite(r.value) for r in results)
