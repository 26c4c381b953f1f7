"""Training rows: what is refused, what is merged, and how they are split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tinydancer.errors import InvalidInput, TooLarge
from tinydancer.neural.ragged import Integers

LEAST_ROWS = 2
"""Distinct texts that each label needs: one to learn from and one to be held out."""
MOST_ROWS = 1_000_000
MOST_LABELS = 10_000


@dataclass(frozen=True)
class LabelledText:
    """A row of training data. capabilities: what a request like it calls for; may be empty.

    number: what a message calls the row by, since texts may be users'; else its place.
    """

    text: str
    label: str
    capabilities: tuple[str, ...] = ()
    number: int | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows that passed the checks.

    labels: (n,) int64 into `names`, which are sorted. capabilities: (n, len(capability_names))
    of 0 and 1. merged: how many rows said again what another row had said.
    """

    texts: tuple[str, ...]
    labels: Integers
    names: tuple[str, ...]
    capabilities: Integers
    capability_names: tuple[str, ...]
    merged: int

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Integers) -> Dataset:
        """The rows at these places, which may come more than once."""
        texts = tuple(self.texts[row] for row in rows)
        return replace(
            self, texts=texts, labels=self.labels[rows], capabilities=self.capabilities[rows]
        )


def prepare(rows: Iterable[LabelledText]) -> Dataset:
    """Checks rows and gives labels their numbers.

    Texts are compared without regard to case and spacing. A text that comes twice with one label
    is merged (the capabilities of both are kept) and counted. Raises InvalidInput for an empty
    text or label, a text under two labels, fewer than two labels, or a label with fewer than
    LEAST_ROWS texts; TooLarge for more rows or labels than the limits.
    """
    kept: dict[str, LabelledText] = {}
    merged = 0
    contradictions: list[str] = []
    for place, row in enumerate(rows, 1):
        number = place if row.number is None else row.number
        key = " ".join(row.text.casefold().split())
        if not key:
            raise InvalidInput(
                f"row {number} (label {row.label!r}) has an empty text",
                hint="Delete the row, or give it a text.",
            )
        if not row.label.strip():
            raise InvalidInput(
                f"row {number} has an empty label", hint="Delete the row, or give it a label."
            )
        if place > MOST_ROWS:
            raise TooLarge(f"there are more than {MOST_ROWS} training rows")
        before = kept.get(key)
        if before is None:
            kept[key] = replace(row, number=number)
        elif before.label != row.label:
            contradictions.append(
                f"{before.label!r} in row {before.number} and {row.label!r} in row {number}"
            )
        else:
            merged += 1
            both = tuple(dict.fromkeys(before.capabilities + row.capabilities))
            kept[key] = replace(before, capabilities=both)
    if contradictions:
        raise InvalidInput(
            f"{len(contradictions)} texts have two labels, first {contradictions[0]}",
            detail="; ".join(contradictions[:10]),
            hint="Keep one label for each text.",
        )
    return _number(list(kept.values()), merged)


def _number(rows: Sequence[LabelledText], merged: int) -> Dataset:
    names = tuple(sorted({row.label for row in rows}))
    if len(names) < 2:
        raise InvalidInput(
            f"the training rows have {len(names)} labels {list(names)}, at least 2 are needed",
            hint="Add rows of another label.",
        )
    if len(names) > MOST_LABELS:
        raise TooLarge(f"there are {len(names)} labels, at most {MOST_LABELS} are allowed")
    number = {name: i for i, name in enumerate(names)}
    labels = np.array([number[row.label] for row in rows], np.int64)
    counts = np.bincount(labels, minlength=len(names))
    few = [names[i] for i in np.flatnonzero(counts < LEAST_ROWS)]
    if few:
        raise InvalidInput(
            f"{len(few)} labels have fewer than {LEAST_ROWS} different texts, first {few[0]!r}",
            detail="; ".join(few[:20]),
            hint="Add rows of these labels, or leave the labels out.",
        )
    capability_names = tuple(sorted({name for row in rows for name in row.capabilities}))
    place = {name: i for i, name in enumerate(capability_names)}
    capabilities = np.zeros((len(rows), len(capability_names)), np.int64)
    for i, row in enumerate(rows):
        capabilities[i, [place[name] for name in row.capabilities]] = 1
    texts = tuple(row.text for row in rows)
    return Dataset(texts, labels, names, capabilities, capability_names, merged)


def folds(labels: Integers, count: int, seed: int) -> Integers:
    """(n,) the fold of each row, 0 to count - 1, every label spread as evenly as its rows allow.

    A label with at least two rows is never wholly in one fold, so it never vanishes from the
    rest. Raises InvalidInput for fewer than two folds, or a label with one row.
    """
    if count < 2:
        raise InvalidInput(f"{count} folds were asked for, at least 2 are needed")
    sizes = np.bincount(labels)
    if (sizes == 1).any():
        raise InvalidInput(f"label number {int(np.argmax(sizes == 1))} has one row, 2 are needed")
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    result = np.empty(len(labels), np.int64)
    result[by_label] = np.arange(len(labels)) % count
    return result
