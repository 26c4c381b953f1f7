"""Sequences of different lengths, laid end to end: the input of the cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinydancer.errors import InvalidInput, NumberOutOfRange

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ragged:
    """n sequences of vectors. A sentence vector is a sequence of length 1.

    values: (sum of lengths, inputs) float32, the sequences one after another.
    lengths: (n,) int64, each at least 1.
    """

    values: Floats
    lengths: Integers

    def __post_init__(self) -> None:
        if self.values.ndim != 2:
            raise InvalidInput(f"sequences have {self.values.ndim} axes, not (steps, inputs)")
        if self.lengths.ndim != 1 or int(self.lengths.sum()) != len(self.values):
            raise InvalidInput(
                f"lengths add up to {int(self.lengths.sum())}, there are {len(self.values)} steps"
            )
        if len(self.lengths) and int(self.lengths.min()) < 1:
            raise InvalidInput("a sequence is empty; each needs at least one vector")

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def inputs(self) -> int:
        """Length of each vector."""
        return int(self.values.shape[1])

    @staticmethod
    def of_vectors(vectors: Floats) -> Ragged:
        """Each row of (n, inputs) as a sequence of its own."""
        values = np.ascontiguousarray(vectors, np.float32)
        return Ragged(values, np.ones(len(values), np.int64))

    @staticmethod
    def of_sequences(sequences: Sequence[Floats]) -> Ragged:
        """A list of (length, inputs) arrays. Raises InvalidInput when there is none."""
        if not sequences:
            raise InvalidInput("no sequences were given")
        lengths = np.array([len(sequence) for sequence in sequences], np.int64)
        return Ragged(np.concatenate(sequences).astype(np.float32, copy=False), lengths)

    def take(self, rows: Integers) -> Ragged:
        """The sequences at `rows`, in that order."""
        if len(self.values) == len(self.lengths):
            return Ragged(self.values[rows], self.lengths[rows])
        starts = np.cumsum(self.lengths) - self.lengths
        return Ragged(self.values[ranges(starts[rows], self.lengths[rows])], self.lengths[rows])

    def check_finite(self) -> None:
        """Raises NumberOutOfRange, naming the sequence, when a value is NaN or infinite."""
        bad = ~np.isfinite(self.values).all(axis=1)
        if bad.any():
            step = int(np.argmax(bad))
            row = int(np.searchsorted(np.cumsum(self.lengths), step, side="right"))
            raise NumberOutOfRange(f"vector {row} has a value that is not finite")


@dataclass(frozen=True, eq=False)
class Schedule:
    """The order in which a batch of ragged sequences goes through a cell, step by step.

    order: (n,) the sequences, longest first (ties by row, so that runs repeat).
    alive: (longest,) how many of them are still running at each step.
    source: (sum of lengths,) row of `Ragged.values` for each place of the step-major layout.
    """

    order: Integers
    alive: Integers
    source: Integers

    @staticmethod
    def of(lengths: Integers) -> Schedule:
        """The schedule of sequences of these lengths."""
        order = np.argsort(-lengths, kind="stable")
        ordered = lengths[order]
        steps = np.arange(int(ordered[0]) if len(ordered) else 0)
        alive = np.searchsorted(-ordered, -steps, side="left")
        starts = (np.cumsum(lengths) - lengths)[order]
        source = [starts[:count] + step for step, count in zip(steps, alive, strict=True)]
        return Schedule(order, alive, np.concatenate(source) if source else starts[:0])


def ranges(starts: Integers, lengths: Integers) -> Integers:
    """start, start + 1 … of each pair, one after another."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - ends + lengths, lengths)
