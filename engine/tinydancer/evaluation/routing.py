"""`tinydancer eval routing`: the learned quality model on tables of per-model scores.

Every figure comes from the fold left out; nothing about a fold's prompts or scores reaches the
model that predicts it. Beside the learned routers stand random, prompt length alone, the best
single model and the oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.base import Embedder
from tinydancer.evaluation import routing_metrics as metrics
from tinydancer.evaluation.score_tables import (
    FOLDS,
    Doubles,
    ScoreTable,
    fold_numbers,
    read_tables,
)
from tinydancer.evaluation.tiers import installed_tiers
from tinydancer.learning.outcomes import Outcomes
from tinydancer.learning.quality import best_columns, fit_quality
from tinydancer.learning.requests import Requests, describe_with

COST_SHARES = (25, 50, 75)
"""Where accuracies are compared at equal cost: percent of the way from cheapest to dearest."""


@dataclass(frozen=True)
class Result:
    """One figure. value is None where it is not defined (no gap between weak and strong)."""

    table: str
    router: str
    metric: str
    value: float | None


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What the folds left out were given. All of shape (n, m) or (n,).

    estimates: by request; chosen: the column for quality alone, under the guard; single: the
    column that was best on the training folds; costs: the models' mean costs there. fallbacks:
    folds in which the means were used, and in which the best single model was kept.
    """

    estimates: Doubles
    chosen: NDArray[np.int64]
    single: NDArray[np.int64]
    costs: Doubles
    fallbacks: tuple[int, int]


def run(
    data: Path,
    embedders: Mapping[str, Embedder] | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Result]:
    """Figures for every *.jsonl.gz in `data`, by table, router and metric.

    embedders: tier name → embedder; those that are installed where none is given. Raises
    InvalidInput for a table that can't be read (score_tables.read_table).
    """
    tiers = embedders if embedders is not None else installed_tiers()
    results: list[Result] = []
    for table in read_tables(data):
        results += baselines(table)
        for tier, embedder in tiers.items():
            progress(f"{table.name}, {tier}: encoding {len(table.prompts):,} prompts")
            requests = describe_with(table.prompts, embedder)
            steps = [f"{table.name}, {tier}: fold {fold + 1} of {FOLDS}" for fold in range(FOLDS)]
            held_out = predict_folds(table, requests, lambda fold: progress(steps[fold]))  # noqa: B023
            results += learned(table, f"learned/{tier}", held_out)
    return results


def predict_folds(
    table: ScoreTable, requests: Requests, progress: Callable[[int], None] = lambda _: None
) -> HeldOut:
    """Train on four folds, predict the fifth, for each of the five; told of each as it begins."""
    folds = fold_numbers(len(table.prompts))
    estimates = np.empty_like(table.scores)
    costs = np.empty_like(table.scores)
    chosen = np.empty(len(folds), dtype=np.int64)
    single = np.empty(len(folds), dtype=np.int64)
    no_estimates = no_choices = 0
    for fold in range(FOLDS):
        progress(fold)
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        model = fit_quality(requests.take(train), Outcomes(table.models, table.scores[train]))
        estimates[test] = model.estimate(requests.take(test))
        chosen[test] = model.choose(estimates[test])
        single[test] = table.models.index(model.evidence.best_single)
        costs[test] = table.costs[train].mean(axis=0)
        no_estimates += not model.evidence.estimates.holds
        no_choices += not model.evidence.choices.holds
    return HeldOut(estimates, chosen, single, costs, (no_estimates, no_choices))


def baselines(table: ScoreTable) -> list[Result]:
    """Random, prompt length alone, best single and oracle."""
    n = len(table.prompts)
    weak, strong = weak_and_strong(table)
    lengths = np.array([float(len(prompt)) for prompt in table.prompts])
    means, costs = table.scores.mean(axis=0), table.costs.mean(axis=0)
    singles = metrics.hull(np.stack([costs, means], axis=1))
    folds = fold_numbers(n)
    single = np.empty(n, dtype=np.int64)
    for fold in range(FOLDS):
        single[folds == fold] = best_columns(
            table.scores[folds != fold].mean(axis=0)[None], table.models
        )[0]
    rows = np.arange(n)
    best = int(np.argmax(means))
    cheapest = int(np.lexsort((-means, costs))[0])
    gap = table.scores[:, strong] - table.scores[:, weak]
    results = _pair_figures(table, "random", np.zeros(n))
    results += _cost_figures(table, "random", singles)
    results += [Result(table.name, "random", "accuracy", float(means.mean()))]
    results += _pair_figures(table, "prompt length", lengths)
    results += _cost_figures(table, "prompt length", _length_curve(table, lengths))
    # One model spends less only by leaving requests, at random, to the cheapest.
    results += _pair_figures(table, "best single", np.zeros(n))
    results += _cost_figures(
        table,
        "best single",
        metrics.hull(np.array([[costs[c], means[c]] for c in (cheapest, best)])),
    )
    achieved = float(table.scores[rows, single].mean())
    results += [Result(table.name, "best single", "accuracy", achieved)]
    results += _pair_figures(table, "oracle", gap)
    path = metrics.price_path(table.scores, table.costs, table.scores, table.costs)
    ideal = metrics.hull(np.stack([path.x, path.y], axis=1))
    results += _cost_figures(table, "oracle", ideal)
    results += [Result(table.name, "oracle", "accuracy", float(table.scores.max(axis=1).mean()))]
    return results


def learned(table: ScoreTable, router: str, held_out: HeldOut) -> list[Result]:
    """The learned router's figures, its accuracy against the best single model's among them."""
    weak, strong = weak_and_strong(table)
    rows = np.arange(len(table.prompts))
    folds = fold_numbers(len(rows))
    preference = held_out.estimates[:, strong] - held_out.estimates[:, weak]
    # By rank within the fold: that one fold's model is more sanguine than another's says nothing
    # of its requests, and where it knows nothing all its requests are equal.
    for fold in range(FOLDS):
        preference[folds == fold] = metrics.percentiles(preference[folds == fold])
    achieved = table.scores[rows, held_out.chosen]
    gains = achieved - table.scores[rows, held_out.single]
    error = float(gains.std(ddof=1) / np.sqrt(len(gains)))
    curve = _learned_curve(table, held_out)
    figures = {
        "accuracy": float(achieved.mean()),
        "accuracy_over_best_single": float(gains.mean()),
        "accuracy_over_best_single_se": error,
        "folds_on_means": float(held_out.fallbacks[0]),
        "folds_on_best_single": float(held_out.fallbacks[1]),
    }
    return [
        *_pair_figures(table, router, preference),
        *_cost_figures(table, router, curve),
        *(Result(table.name, router, metric, value) for metric, value in figures.items()),
    ]


def _learned_curve(table: ScoreTable, held_out: HeldOut) -> metrics.Curve:
    """Score against cost, every fold spending the same on a request."""
    folds = fold_numbers(len(table.prompts))
    paths = []
    for fold in range(FOLDS):
        rows = folds == fold
        paths.append(
            metrics.price_path(
                held_out.estimates[rows],
                held_out.costs[rows],
                table.scores[rows],
                table.costs[rows],
            )
        )
    means = table.costs.mean(axis=0)
    shares = np.bincount(folds, minlength=FOLDS) / len(folds)
    return metrics.mean_path(paths, shares, float(means.min()), float(means.max()))


def weak_and_strong(table: ScoreTable) -> tuple[int, int]:
    """The columns between which APGR is measured: the cheapest, or the worst, and the best.

    With given costs the weak model is the cheapest of those that are not the best; without, the
    one with the lowest mean score.
    """
    means, costs = table.scores.mean(axis=0), table.costs.mean(axis=0)
    strong = int(np.argmax(means))
    others = [column for column in range(len(means)) if column != strong]
    return min(others, key=lambda column: (costs[column], means[column])), strong


def _pair_figures(table: ScoreTable, router: str, preference: Doubles) -> list[Result]:
    weak, strong = weak_and_strong(table)
    curve = metrics.strong_call_curve(preference, table.scores[:, weak], table.scores[:, strong])
    return [
        Result(table.name, router, "APGR", metrics.average_gap_recovered(curve)),
        Result(table.name, router, "CPT(50%)", metrics.call_performance_threshold(curve, 0.5)),
        Result(table.name, router, "CPT(80%)", metrics.call_performance_threshold(curve, 0.8)),
    ]


def _cost_figures(table: ScoreTable, router: str, curve: metrics.Curve) -> list[Result]:
    costs = table.costs.mean(axis=0)
    low, high = float(costs.min()), float(costs.max())
    area = metrics.average_improvement(curve, low, high)
    return [
        Result(table.name, router, "AIQ", area),
        *(
            Result(
                table.name,
                router,
                f"accuracy_at_{share}pct_cost",
                curve.at(low + (high - low) * share / 100),
            )
            for share in COST_SHARES
        ),
    ]


def _length_curve(table: ScoreTable, lengths: Doubles) -> metrics.Curve:
    """The longest prompts to the strong model, the others to the weak one, for every threshold."""
    weak, strong = weak_and_strong(table)
    order = np.argsort(-lengths, kind="stable")
    points = []
    for column in (table.costs, table.scores):
        moved = np.cumsum((column[:, strong] - column[:, weak])[order])
        points.append((column[:, weak].sum() + np.concatenate([[0.0], moved])) / len(lengths))
    return metrics.hull(np.stack(points, axis=1))
