"""The cell in 8-bit integers, with the paper's piecewise-linear non-linearities.

Weights are int8 with one scale a row; inputs and states are int8 with one scale a vector, found
when they come in. Products are exact integers: they are added up in float32 as long as every sum
stays below 2²⁴, and in float64 beyond.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tinydancer.errors import InvalidInput
from tinydancer.neural.fastgrnn import FastGRNN, piecewise_sigmoid, piecewise_tanh
from tinydancer.neural.ragged import Floats

Bytes = NDArray[np.int8]
_LEVELS = 127
_EXACT_COLUMNS = (1 << 24) // (_LEVELS * _LEVELS)


@dataclass(frozen=True, eq=False)
class ByteMatrix:
    """levels: (rows, columns) int8. scales: (rows,) float32; a weight is level × scale."""

    levels: Bytes
    scales: Floats

    @staticmethod
    def of(matrix: Floats) -> ByteMatrix:
        """The nearest levels, each row scaled so that its largest magnitude is 127."""
        levels, scales = to_levels(matrix)
        return ByteMatrix(levels, scales)

    @cached_property
    def _exact(self) -> NDArray[np.floating]:
        columns = self.levels.shape[1]
        return self.levels.astype(np.float32 if columns <= _EXACT_COLUMNS else np.float64)

    def dot(self, vector: Floats) -> Floats:
        """(rows,) or, for (n, columns), (n, rows): matrix × vector in integers, then scaled."""
        levels, scale = to_levels(vector)
        sums = levels.astype(self._exact.dtype) @ self._exact.T
        result: Floats = (sums * self.scales * scale[..., None]).astype(np.float32)
        return result


def to_levels(values: Floats) -> tuple[Bytes, Floats]:
    """int8 levels in -127 to 127 along the last axis, and the scale of each row (… without it)."""
    scales = np.abs(values).max(axis=-1) / np.float32(_LEVELS)
    scales = np.where(scales > 0, scales, np.float32(1)).astype(np.float32)
    return np.rint(values / scales[..., None]).astype(np.int8), scales


@dataclass(frozen=True, eq=False)
class QuantizedCell:
    """A tied cell of bytes. W and U are multiplied out first, where they were of low rank."""

    weights: ByteMatrix = field(repr=False)
    state_weights: ByteMatrix = field(repr=False)
    b_z: Floats = field(repr=False)
    b_h: Floats = field(repr=False)
    zeta: float
    nu: float

    @staticmethod
    def of(cell: FastGRNN) -> QuantizedCell:
        """The bytes of a cell that was trained with the piecewise non-linearities, and is tied."""
        if not cell.shape.tied or cell.shape.nonlinearity != "piecewise":
            raise InvalidInput(
                "only a tied cell with piecewise non-linearities can be quantised, this one is "
                f"{'tied' if cell.shape.tied else 'untied'} and {cell.shape.nonlinearity}",
                hint="Train it with tied=True and nonlinearity='piecewise'.",
            )
        return QuantizedCell(
            ByteMatrix.of(cell.input_weights),
            ByteMatrix.of(cell.state_weights),
            cell.parameters["b_z"],
            cell.parameters["b_h"],
            cell.zeta,
            cell.nu,
        )

    @property
    def size(self) -> int:
        """Bytes that the parameters take."""
        matrices = (self.weights, self.state_weights)
        small = self.b_z.nbytes + self.b_h.nbytes + 8
        return sum(matrix.levels.nbytes + matrix.scales.nbytes for matrix in matrices) + small

    def step(self, x: Floats, h: Floats) -> Floats:
        """h_t from x_t (…, inputs) and h_(t-1) (…, hidden)."""
        pre = self.weights.dot(x) + self.state_weights.dot(h)
        gate = piecewise_sigmoid(pre + self.b_z)
        update = piecewise_tanh(pre + self.b_h)
        blended: Floats = (self.zeta * (1 - gate) + self.nu) * update + gate * h
        return blended

    def forward(self, sequence: Floats) -> Floats:
        """The last state (hidden,) of one sequence (steps, inputs)."""
        h = np.zeros(len(self.b_z), np.float32)
        for x in sequence:
            h = self.step(x, h)
        return h
