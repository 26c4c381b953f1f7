"""The cell against the paper's equations, written out again in plain loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydancer.errors import InvalidInput, NumberOutOfRange
from tinydancer.neural.backward import backward
from tinydancer.neural.fastgrnn import CellShape, FastGRNN, initialise
from tinydancer.neural.ragged import Ragged

SHAPES = [
    CellShape(7, 5, tied, ranks[0], ranks[1], nonlinearity)
    for tied, ranks, nonlinearity in itertools.product(
        (True, False), ((0, 0), (3, 2)), ("smooth", "piecewise")
    )
]
LENGTHS = (3, 1, 5, 3)


def random_cell(shape: CellShape, seed: int = 0) -> FastGRNN:
    """A cell none of whose parameters is zero or at its start."""
    rng = np.random.default_rng(seed)
    parameters = {
        name: np.array(rng.normal(size=size) * 0.4, np.float32)
        for name, size in shape.shapes().items()
    }
    return FastGRNN(shape, parameters)


def random_sequences(seed: int = 0, inputs: int = 7) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, inputs)).astype(np.float32) for n in LENGTHS]


def reference(cell: FastGRNN, sequence: np.ndarray) -> list[float]:
    """Equations 3 to 5 of the paper, one number at a time, in Python's doubles."""
    p = {name: array.astype(float).tolist() for name, array in cell.parameters.items()}
    hidden, inputs, tied = cell.shape.hidden, cell.shape.inputs, cell.shape.tied

    def entry(letter: str, branch: str, i: int, j: int) -> float:
        if f"{letter}{branch}" in p:
            return p[f"{letter}{branch}"][i][j]
        left, right = p[f"{letter}1{branch}"], p[f"{letter}2{branch}"]
        return sum(left[i][r] * right[j][r] for r in range(len(left[i])))

    if cell.shape.nonlinearity == "smooth":
        squash, bend = (lambda a: 1 / (1 + math.exp(-a))), math.tanh
    else:
        squash = lambda a: min(1.0, max(0.0, (a + 1) / 2))  # noqa: E731
        bend = lambda a: min(1.0, max(-1.0, a))  # noqa: E731
    zeta, nu = (1 / (1 + math.exp(-p[name])) for name in ("zeta", "nu"))
    h = [0.0] * hidden
    for x in sequence.tolist():
        before = list(h)
        for i in range(hidden):
            sums = {
                branch: sum(entry("W", branch, i, j) * x[j] for j in range(inputs))
                + sum(entry("U", branch, i, j) * before[j] for j in range(hidden))
                for branch in ([""] if tied else ["_z", "_h"])
            }
            z = squash(sums["" if tied else "_z"] + p["b_z"][i])
            update = bend(sums["" if tied else "_h"] + p["b_h"][i])
            h[i] = (zeta * (1 - z) + nu) * update + z * before[i]
    return h


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_cell_follows_the_papers_equations(shape: CellShape) -> None:
    cell, sequences = random_cell(shape), random_sequences()
    expected = np.array([reference(cell, sequence) for sequence in sequences])

    assert np.allclose(cell.forward_ragged(Ragged.of_sequences(sequences)), expected, atol=2e-6)
    for sequence, h in zip(sequences, expected, strict=True):
        assert np.allclose(cell.forward(sequence), h, atol=2e-6)
        state = np.zeros(5, np.float32)
        for x in sequence:
            state = cell.step(x, state)
        assert np.allclose(state, h, atol=2e-6)
    firsts = np.array([sequence[0] for sequence in sequences])
    expected = np.array([reference(cell, sequence[:1]) for sequence in sequences])
    assert np.allclose(cell.forward_vectors(firsts), expected, atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_gradient_agrees_with_finite_differences(shape: CellShape) -> None:
    cell, batch = random_cell(shape, 1), Ragged.of_sequences(random_sequences(1))
    state, trace = cell.trace(batch)
    pull = np.random.default_rng(2).normal(size=state.shape).astype(np.float32)
    gradients = backward(cell, trace, pull)
    assert set(gradients) == set(cell.parameters)

    def loss(name: str, place: tuple[int, ...], change: float) -> float:
        moved = {key: array.copy() for key, array in cell.parameters.items()}
        moved[name][place] += change
        sequences = np.split(batch.values, np.cumsum(LENGTHS)[:-1])
        states = [reference(FastGRNN(shape, moved), sequence) for sequence in sequences]
        return float(np.sum(np.array(states) * pull))

    for name, gradient in gradients.items():
        assert gradient.shape == cell.parameters[name].shape
        for place in np.ndindex(gradient.shape):
            expected = (loss(name, place, 1e-3) - loss(name, place, -1e-3)) / 2e-3
            assert gradient[place] == pytest.approx(expected, abs=2e-3), (name, place)


@pytest.mark.parametrize("tied", [True, False])
def test_u_matters_on_a_sequence_and_not_on_one_vector(tied: bool) -> None:
    cell, sequence = random_cell(CellShape(7, 5, tied)), random_sequences()[0]
    zeroed = dict(cell.parameters)
    for name in zeroed:
        if name.startswith("U"):
            zeroed[name] = np.zeros_like(zeroed[name])
    without = FastGRNN(cell.shape, zeroed)

    assert np.abs(cell.forward(sequence) - without.forward(sequence)).max() > 0.01
    assert np.array_equal(cell.forward(sequence[:1]), without.forward(sequence[:1]))


def test_order_matters_on_a_sequence() -> None:
    cell, sequence = random_cell(CellShape(7, 5)), random_sequences()[2]
    assert np.abs(cell.forward(sequence) - cell.forward(sequence[::-1])).max() > 0.01


def test_outputs_move_with_every_input_from_the_start_of_training() -> None:
    cell = initialise(CellShape(7, 5), seed=0)
    x = random_sequences()[1][0]
    base = cell.forward(x[None])
    assert np.abs(base).max() > 0.01
    for i in range(7):
        moved = x.copy()
        moved[i] += 0.5
        assert np.abs(cell.forward(moved[None]) - base).max() > 1e-3


def test_zeta_and_nu_start_where_the_paper_has_them() -> None:
    cell = initialise(CellShape(3, 2), seed=0)
    assert cell.zeta == pytest.approx(1 / (1 + math.exp(-1)))
    assert cell.nu == pytest.approx(1 / (1 + math.exp(4)))


def test_the_shared_form_has_half_the_matrices() -> None:
    tied = sum(math.prod(s) for s in CellShape(8, 4).shapes().values())
    untied = sum(math.prod(s) for s in CellShape(8, 4, tied=False).shapes().values())
    assert tied == 4 * 8 + 4 * 4 + 4 + 4 + 2
    assert untied == tied + 4 * 8 + 4 * 4


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
)
def test_a_batch_gives_what_each_sequence_gives_alone(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    sequences = [rng.normal(size=(n, 7)).astype(np.float32) for n in lengths]
    cell = random_cell(CellShape(7, 5), seed)
    batch = cell.forward_ragged(Ragged.of_sequences(sequences))
    alone = np.array([cell.forward(sequence) for sequence in sequences])
    assert np.allclose(batch, alone, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=8), data=st.data())
def test_taking_rows_of_ragged_sequences_keeps_each_whole(
    lengths: list[int], data: st.DataObject
) -> None:
    sequences = [
        np.full((n, 2), i, np.float32) + np.arange(n)[:, None] for i, n in enumerate(lengths)
    ]
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=6))
    taken = Ragged.of_sequences(sequences).take(np.array(rows, np.int64))
    expected = np.concatenate([sequences[i] for i in rows]) if rows else np.zeros((0, 2))
    assert np.array_equal(taken.values, expected)
    assert taken.lengths.tolist() == [lengths[i] for i in rows]


def test_nan_weights_are_refused() -> None:
    cell = initialise(CellShape(3, 2), seed=0)
    broken = dict(cell.parameters)
    broken["W"] = np.full_like(broken["W"], np.nan)
    with pytest.raises(NumberOutOfRange, match="parameter W of the cell has NaN"):
        FastGRNN(cell.shape, broken)


def test_parameters_of_another_shape_or_name_are_refused() -> None:
    cell = initialise(CellShape(3, 2), seed=0)
    with pytest.raises(InvalidInput, match=r"parameter W of the cell is float32 \(2, 3\)"):
        FastGRNN(CellShape(4, 2), cell.parameters)
    with pytest.raises(InvalidInput, match="lacks parameters"):
        FastGRNN(CellShape(3, 2, tied=False), cell.parameters)


def test_vectors_of_another_dimension_are_refused() -> None:
    cell = initialise(CellShape(3, 2), seed=0)
    with pytest.raises(InvalidInput, match="the cell takes 3 inputs"):
        cell.forward_ragged(Ragged.of_vectors(np.zeros((1, 4), np.float32)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inputs": 0}, "inputs is 0"),
        ({"hidden": 1 << 20}, "hidden is 1048576"),
        ({"rank_w": 9}, "rank_w is 9"),
        ({"nonlinearity": "soft"}, "nonlinearity is 'soft'"),
    ],
)
def test_a_shape_out_of_range_is_refused(values: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        CellShape(**({"inputs": 4, "hidden": 3} | values))


def test_an_empty_sequence_is_refused() -> None:
    with pytest.raises(InvalidInput, match="a sequence is empty"):
        Ragged(np.zeros((2, 3), np.float32), np.array([2, 0]))
