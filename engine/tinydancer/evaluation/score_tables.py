"""Tables of per-model scores: one JSON object a line, gzipped."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinydancer.errors import InvalidInput, MissingInput

Doubles = NDArray[np.float64]
FOLDS = 5
LEAST_ROWS = 2 * FOLDS


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """n prompts, m models by name. scores: (n, m); costs: (n, m), money or whatever they are in.

    Where the rows had no costs, a model costs the rank of its mean score, from 0 for the worst to 1
    for the best: with two models, the share of strong calls.
    """

    name: str
    prompts: tuple[str, ...]
    models: tuple[str, ...]
    scores: Doubles
    costs: Doubles


def read_tables(folder: Path) -> list[ScoreTable]:
    """Every *.jsonl.gz of a folder, by name. Raises MissingInput where there is none."""
    files = sorted(folder.glob("*.jsonl.gz"))
    if not files:
        raise MissingInput(
            f"there is no *.jsonl.gz in {folder}",
            hint="Give the folder with the score tables: --data DIR.",
        )
    return [read_table(file) for file in files]


def read_table(file: Path) -> ScoreTable:
    """Read one table: rows with `prompt`, `scores` {model: number} and, at will, `costs`.

    Raises InvalidInput, naming file and line, for a row that is none, for models that differ from
    those of the first row, a score or cost that is no finite number, a negative cost, fewer than
    two models or LEAST_ROWS rows. A row without a model's cost takes the model's mean cost.
    """
    prompts: list[str] = []
    scores: list[list[float]] = []
    costs: list[list[float]] = []
    models: tuple[str, ...] = ()
    for number, line in enumerate(_lines(file), 1):
        place = f"{file.name}, line {number}"
        prompt, row_scores, row_costs = _row(line, place)
        models = models or tuple(sorted(row_scores))
        if tuple(sorted(row_scores)) != models:
            raise InvalidInput(f"{place}: scores {sorted(row_scores)}, but line 1 has {models}")
        prompts.append(prompt)
        scores.append([row_scores[model] for model in models])
        costs.append([row_costs.get(model, np.nan) for model in models])
    if len(prompts) < LEAST_ROWS:
        raise InvalidInput(
            f"{file.name} has {len(prompts)} rows; {FOLDS} folds need at least {LEAST_ROWS}"
        )
    if len(models) < 2:
        raise InvalidInput(f"{file.name} has one model, {models[0]}: there is nothing to route")
    score_array = np.array(scores)
    cost_array = np.array(costs)
    given = not np.isnan(cost_array).all(axis=0).any()
    return ScoreTable(
        name=file.name.removesuffix(".jsonl.gz"),
        prompts=tuple(prompts),
        models=models,
        scores=score_array,
        costs=_filled(cost_array) if given else _by_rank(score_array),
    )


def fold_numbers(rows: int) -> NDArray[np.int64]:
    """(rows,) row i of the shuffled order is in fold i % FOLDS; shuffled by random.Random(0)."""
    order = list(range(rows))
    random.Random(0).shuffle(order)  # noqa: S311 - a split that anyone can repeat, no secret
    folds = np.empty(rows, dtype=np.int64)
    folds[order] = np.arange(rows) % FOLDS
    return folds


def _lines(file: Path) -> list[str]:
    try:
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            return [line for line in stream if line.strip()]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} can't be read as gzipped UTF-8: {error}") from error


def _row(line: str, place: str) -> tuple[str, dict[str, float], dict[str, float]]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InvalidInput(f"{place} is not JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        raise InvalidInput(f"{place} has no `prompt` text")
    costs = row.get("costs") or {}
    return (
        row["prompt"],
        _numbers(row.get("scores"), f"{place}: scores"),
        _numbers(costs, f"{place}: costs", least=0.0),
    )


def _numbers(value: object, place: str, least: float = -np.inf) -> dict[str, float]:
    if not isinstance(value, dict):
        raise InvalidInput(f"{place} must be an object of model to number, not {value!r}")
    numbers: dict[str, float] = {}
    for model, number in value.items():
        if isinstance(number, bool):
            number = float(number)
        if not isinstance(number, int | float) or not isfinite(number) or number < least:
            raise InvalidInput(f"{place}: {model!r} has {number!r}, not a finite number >= {least}")
        numbers[model] = float(number)
    return numbers


def _filled(costs: Doubles) -> Doubles:
    return np.where(np.isnan(costs), np.nanmean(costs, axis=0), costs)


def _by_rank(scores: Doubles) -> Doubles:
    means = scores.mean(axis=0)
    # Equal means have equal rank: which of them is "better" is not known.
    ranks = np.searchsorted(np.unique(means), means) / max(len(np.unique(means)) - 1, 1)
    return np.tile(ranks, (len(scores), 1))
