"""The FastGRNN cell: one step, a sequence, a batch of ragged sequences.

Kusupati, Singh, Bhatia, Kumar, Jain, Varma: "FastGRNN: A Fast, Accurate, Stable and Tiny
Kilobyte Sized Gated Recurrent Neural Network", NeurIPS 2018, equations 3 to 5:

    z_t  = σ(W x_t + U h_(t-1) + b_z)
    h̃_t  = tanh(W x_t + U h_(t-1) + b_h)
    h_t  = (ζ (1 - z_t) + ν) ⊙ h̃_t + z_t ⊙ h_(t-1)

W and U are shared by the gate and the update (`tied`); the untied form has a pair for each.
ζ and ν are scalars in (0, 1), kept as the logits that a sigmoid takes there (1 and -4 at the
start). Low rank: W = W1 W2ᵀ, U = U1 U2ᵀ (section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from tinydancer.errors import InvalidInput, NumberOutOfRange
from tinydancer.neural.ragged import Floats, Ragged, Schedule

Parameters = dict[str, Floats]
Nonlinearity = Literal["smooth", "piecewise"]

ZETA_START = 1.0
NU_START = -4.0
LARGEST = 1 << 14
"""Largest number of inputs or hidden units: a model file can't ask for more."""


@dataclass(frozen=True)
class CellShape:
    """What fixes the names and shapes of a cell's parameters.

    rank_w, rank_u: 0 is a full matrix. nonlinearity: σ and tanh ("smooth"), or the clipped lines
    that fixed-point arithmetic can follow ("piecewise", section 3.2.2 of the paper).
    """

    inputs: int
    hidden: int
    tied: bool = True
    rank_w: int = 0
    rank_u: int = 0
    nonlinearity: Nonlinearity = "smooth"

    def __post_init__(self) -> None:
        for name in ("inputs", "hidden"):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise InvalidInput(f"{name} is {getattr(self, name)}, not in 1 to {LARGEST}")
        for name, most in (("rank_w", min(self.inputs, self.hidden)), ("rank_u", self.hidden)):
            if not 0 <= getattr(self, name) <= most:
                raise InvalidInput(f"{name} is {getattr(self, name)}, not in 0 (full) to {most}")
        if self.nonlinearity not in ("smooth", "piecewise"):
            raise InvalidInput(f"nonlinearity is {self.nonlinearity!r}, not smooth or piecewise")

    @property
    def branches(self) -> tuple[str, ...]:
        """Suffixes of the matrices: one shared pair, or one for the gate and one for the update."""
        return ("",) if self.tied else ("_z", "_h")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter by its name."""
        shapes: dict[str, tuple[int, ...]] = {}
        for branch in self.branches:
            for letter, columns, rank in (
                ("W", self.inputs, self.rank_w),
                ("U", self.hidden, self.rank_u),
            ):
                if rank:
                    shapes[f"{letter}1{branch}"] = (self.hidden, rank)
                    shapes[f"{letter}2{branch}"] = (columns, rank)
                else:
                    shapes[f"{letter}{branch}"] = (self.hidden, columns)
        shapes |= {"b_z": (self.hidden,), "b_h": (self.hidden,), "zeta": (), "nu": ()}
        return shapes


@dataclass(frozen=True, eq=False)
class Trace:
    """What a forward pass leaves for the backward pass, in step-major order (see Schedule)."""

    schedule: Schedule
    inputs: Floats
    before: Floats
    gate: Floats
    update: Floats


@dataclass(frozen=True, eq=False)
class FastGRNN:
    """A cell: its shape and its parameters, which are never written to after construction.

    Raises InvalidInput for a parameter that is missing, unknown or of another shape, and
    NumberOutOfRange for one that is not finite.
    """

    shape: CellShape
    parameters: Mapping[str, Floats] = field(repr=False)

    def __post_init__(self) -> None:
        check_parameters(self.parameters, self.shape.shapes(), "cell")

    @cached_property
    def zeta(self) -> float:
        """ζ, in (0, 1)."""
        return float(sigmoid(self.parameters["zeta"]))

    @cached_property
    def nu(self) -> float:
        """ν, in (0, 1)."""
        return float(sigmoid(self.parameters["nu"]))

    @cached_property
    def input_weights(self) -> Floats:
        """W: (hidden, inputs) when tied; else the gate's rows above the update's."""
        return self._matrix("W")

    @cached_property
    def state_weights(self) -> Floats:
        """U: (hidden, hidden) when tied; else the gate's rows above the update's."""
        return self._matrix("U")

    def _matrix(self, letter: str) -> Floats:
        return np.concatenate(
            [full_matrix(self.parameters, letter, b) for b in self.shape.branches]
        )

    def step(self, x: Floats, h: Floats) -> Floats:
        """h_t from x_t (inputs,) and h_(t-1) (hidden,); float32 in and out."""
        pre = self.input_weights.dot(x)
        pre += self.state_weights.dot(h)
        return self._blend(pre, h)

    def _blend(self, pre: Floats, h: Floats) -> Floats:
        """One step after its matrix products, for one row or many.

        σ(a) is ½ + ½ tanh(a/2), so that gate and update cost one call of tanh.
        """
        if self.shape.nonlinearity == "piecewise" or pre.ndim > 1:
            gate, update = self._activate(pre)
            blended: Floats = (self.zeta * (1 - gate) + self.nu) * update + gate * h
            return blended
        halves, biases, slope, offset = self._constants
        both: Floats = (pre if self.shape.tied else pre.reshape(2, -1)) * halves
        both += biases
        np.tanh(both, both)
        gate, update = both
        kept = gate * h
        kept += h
        kept *= _HALF
        mixed: Floats = gate * slope
        mixed += offset
        mixed *= update
        mixed += kept
        return mixed

    @cached_property
    def _constants(self) -> tuple[Floats, Floats, float, float]:
        halves = np.array([[0.5], [1.0]], np.float32)
        biases = np.stack([self.parameters["b_z"], self.parameters["b_h"]]) * halves
        return halves, biases, -0.5 * self.zeta, 0.5 * self.zeta + self.nu

    def _activate(self, pre: Floats) -> tuple[Floats, Floats]:
        """z and h̃ from the matrix products (…, hidden) or, untied, (…, 2 hidden)."""
        squash, bend = NONLINEARITIES[self.shape.nonlinearity]
        hidden = self.shape.hidden
        left, right = (pre, pre) if self.shape.tied else (pre[..., :hidden], pre[..., hidden:])
        return squash(left + self.parameters["b_z"]), bend(right + self.parameters["b_h"])

    def forward(self, sequence: Floats) -> Floats:
        """The last state (hidden,) of one sequence (steps, inputs)."""
        self._check_inputs(sequence)
        products = np.asarray(sequence, np.float32) @ self.input_weights.T
        h = np.zeros(self.shape.hidden, np.float32)
        for pre in products:
            h = self._blend(pre + self.state_weights.dot(h), h)
        return h

    def forward_vectors(self, vectors: Floats) -> Floats:
        """(n, hidden) the states after one vector each, (n, inputs), from h = 0.

        U has no part in it, and h_1 is (ζ (1 - z) + ν) ⊙ h̃.
        """
        self._check_inputs(vectors)
        return self.first_states(vectors @ self.input_weights.T)

    def first_states(self, pre: Floats) -> Floats:
        """`forward_vectors` after its product with W: (n, hidden) or, untied, (n, 2 hidden)."""
        if self.shape.nonlinearity == "piecewise" or not self.shape.tied:
            gate, update = self._activate(pre)
            states: Floats = (self.zeta * (1 - gate) + self.nu) * update
            return states
        halves, biases, slope, offset = self._constants
        both: Floats = pre * halves[:, None]  # (2, n, hidden)
        both += biases[:, None]
        np.tanh(both, both)
        state: Floats = both[0]
        state *= slope
        state += offset
        state *= both[1]
        return state

    def forward_ragged(self, batch: Ragged) -> Floats:
        """The last state of each sequence: (n, hidden)."""
        return self.trace(batch)[0]

    def trace(self, batch: Ragged) -> tuple[Floats, Trace]:
        """The last states, and what the backward pass needs."""
        self._check_inputs(batch.values)
        schedule = Schedule.of(batch.lengths)
        hidden = self.shape.hidden
        inputs = batch.values[schedule.source]
        products = inputs @ self.input_weights.T
        before = np.zeros((len(inputs), hidden), np.float32)
        gates, updates = np.empty_like(before), np.empty_like(before)
        h = np.zeros((len(batch), hidden), np.float32)
        start = 0
        for step, alive in enumerate(schedule.alive.tolist()):
            here = slice(start, start + alive)
            pre = products[here]
            if step:
                before[here] = h[:alive]
                pre = pre + h[:alive] @ self.state_weights.T
            gate, update = self._activate(pre)
            gates[here], updates[here] = gate, update
            h[:alive] = (self.zeta * (1 - gate) + self.nu) * update + gate * h[:alive]
            start += alive
        final = np.empty_like(h)
        final[schedule.order] = h
        return final, Trace(schedule, inputs, before, gates, updates)

    def _check_inputs(self, values: Floats) -> None:
        if values.ndim != 2 or values.shape[1] != self.shape.inputs:
            raise InvalidInput(
                f"vectors have shape {values.shape}, the cell takes {self.shape.inputs} inputs"
            )


def initialise(shape: CellShape, seed: int) -> FastGRNN:
    """A cell with Glorot-uniform matrices, both biases 0, ζ and ν at the paper's start."""
    rng = np.random.default_rng(seed)
    parameters: Parameters = {}
    for name, size in shape.shapes().items():
        if len(size) == 2:
            limit = np.sqrt(6 / sum(size))
            parameters[name] = rng.uniform(-limit, limit, size).astype(np.float32)
        else:
            parameters[name] = np.zeros(size, np.float32)
    parameters["zeta"] = np.array(ZETA_START, np.float32)
    parameters["nu"] = np.array(NU_START, np.float32)
    return FastGRNN(shape, parameters)


def check_parameters(
    parameters: Mapping[str, Floats], shapes: Mapping[str, tuple[int, ...]], owner: str
) -> None:
    """Raises unless `parameters` has just the names and shapes given, float32 and finite."""
    if set(parameters) != set(shapes):
        missing = sorted(set(shapes) - set(parameters))
        unknown = sorted(set(parameters) - set(shapes))
        raise InvalidInput(f"the {owner} lacks parameters {missing} and has unknown {unknown}")
    for name, size in shapes.items():
        array = parameters[name]
        if array.shape != size or array.dtype != np.float32:
            raise InvalidInput(
                f"parameter {name} of the {owner} is {array.dtype} {array.shape}, "
                f"not float32 {size}"
            )
        if not np.isfinite(array).all():
            raise NumberOutOfRange(f"parameter {name} of the {owner} has NaN or infinity")


def full_matrix(parameters: Mapping[str, Floats], letter: str, branch: str = "") -> Floats:
    """W or U as one matrix, multiplied out where it is stored as two thin ones."""
    if f"{letter}{branch}" in parameters:
        return parameters[f"{letter}{branch}"]
    product: Floats = parameters[f"{letter}1{branch}"] @ parameters[f"{letter}2{branch}"].T
    return product


def sigmoid(a: Floats) -> Floats:
    """σ, without overflow at either end."""
    result: Floats = _HALF * np.tanh(_HALF * a) + _HALF
    return result


def piecewise_sigmoid(a: Floats) -> Floats:
    """The paper's line for σ: (a + 1) / 2, clipped to [0, 1]."""
    result: Floats = np.clip(_HALF * (a + np.float32(1)), 0, 1)
    return result


def piecewise_tanh(a: Floats) -> Floats:
    """The paper's line for tanh: a, clipped to [-1, 1]."""
    result: Floats = np.clip(a, -1, 1)
    return result


def _tanh(a: Floats) -> Floats:
    result: Floats = np.tanh(a)
    return result


_HALF = np.float32(0.5)
NONLINEARITIES: dict[
    Nonlinearity, tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]
] = {
    "smooth": (sigmoid, _tanh),
    "piecewise": (piecewise_sigmoid, piecewise_tanh),
}
