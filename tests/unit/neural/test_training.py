"""Training: it learns, repeats, stops, restores, and refuses what it can't learn from."""

from __future__ import annotations

import numpy as np
import pytest

from tinydancer.errors import InvalidInput, NumberOutOfRange
from tinydancer.neural.fastgrnn import CellShape, FastGRNN, initialise
from tinydancer.neural.heads import binary_cross_entropy, cross_entropy, softmax
from tinydancer.neural.quantized import ByteMatrix, QuantizedCell
from tinydancer.neural.ragged import Ragged
from tinydancer.neural.sparsity import INTERVAL, Thresholding, support
from tinydancer.neural.training import Epoch, Examples, TrainingOptions, evaluate, train

OPTIONS = TrainingOptions(hidden=16, groups=2, epochs=30, batch=32, rate=5e-3, dropout=0.0)


def blobs(rows: int = 300, classes: int = 4, seed: int = 0, noise: float = 0.7) -> Examples:
    """Noisy points around a centre a class; capability j is called for by classes 0 to j."""
    centres = np.random.default_rng(99).normal(size=(classes, 12))
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    values = (centres[labels] + noise * rng.normal(size=(rows, 12))).astype(np.float32)
    capabilities = (labels[:, None] <= np.arange(2)).astype(np.int64)
    return Examples(Ragged.of_vectors(values), labels, capabilities)


def first_or_last(rows: int = 400, seed: int = 0) -> Examples:
    """Sequences with a mark in their first step (class 0) or their last (class 1).

    The sum over steps is the same for both: only a cell that remembers can tell them apart.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    sequences = []
    for label in labels:
        sequence = np.zeros((rng.integers(3, 7), 3), np.float32)
        sequence[:, 1] = rng.normal(size=len(sequence)) * 0.1
        sequence[-1 if label else 0, 0] = 1
        sequences.append(sequence)
    return Examples(Ragged.of_sequences(sequences), labels, np.zeros((rows, 0), np.int64))


def test_training_learns_categories_and_capabilities_together() -> None:
    trained = train(blobs(), 4, OPTIONS, held_out=blobs(seed=1))
    test = blobs(seed=2)
    state = trained.network.state(test.inputs)
    assert np.mean(trained.network.logits(state).argmax(axis=1) == test.labels) > 0.9
    many = trained.network.capability_logits(state) > 0
    assert np.mean(many == test.capabilities) > 0.9


@pytest.mark.parametrize(
    "changes",
    [{}, {"tied": False}, {"rank_w": 2, "rank_u": 4}, {"nonlinearity": "piecewise"}],
    ids=str,
)
def test_training_learns_what_only_a_recurrent_network_can(changes: dict) -> None:
    options = TrainingOptions(
        **(
            {"hidden": 12, "groups": 2, "epochs": 40, "batch": 32, "rate": 1e-2, "dropout": 0.0}
            | changes
        )
    )
    trained = train(first_or_last(), 2, options, held_out=first_or_last(seed=1))
    assert evaluate(trained.network, first_or_last(seed=2))[1] > 0.95


def test_training_again_gives_the_same_weights() -> None:
    first = train(blobs(), 4, OPTIONS, held_out=blobs(seed=1)).network
    again = train(blobs(), 4, OPTIONS, held_out=blobs(seed=1)).network
    for name, array in first.cell.parameters.items():
        assert np.array_equal(array, again.cell.parameters[name])


def test_training_moves_every_parameter() -> None:
    data = first_or_last()
    options = TrainingOptions(hidden=16, groups=2, epochs=1)
    start = initialise(CellShape(3, 16), options.seed).parameters
    for name, array in train(data, 2, options).network.cell.parameters.items():
        assert not np.array_equal(array, start[name]), name


def test_another_seed_gives_other_weights() -> None:
    options = TrainingOptions(hidden=16, groups=2, epochs=1, seed=1)
    first = train(blobs(), 4, TrainingOptions(hidden=16, groups=2, epochs=1)).network
    other = train(blobs(), 4, options).network
    assert not np.array_equal(first.heads["V"], other.heads["V"])


def test_early_stopping_returns_the_weights_of_the_best_epoch() -> None:
    options = TrainingOptions(
        hidden=16, groups=2, epochs=60, batch=16, rate=2e-2, patience=3, dropout=0.0
    )
    seen: list[Epoch] = []
    held_out = blobs(80, seed=1, noise=2)
    trained = train(blobs(60, noise=2), 4, options, held_out=held_out, progress=seen.append)

    assert tuple(seen) == trained.epochs
    assert len(seen) < 60
    best = trained.epochs[trained.best - 1]
    assert all(e.held_out_accuracy <= best.held_out_accuracy for e in trained.epochs)
    loss, accuracy = evaluate(trained.network, held_out)
    assert loss == pytest.approx(best.held_out_loss, rel=1e-5)
    assert accuracy == best.held_out_accuracy


def test_balanced_weights_find_a_rare_class() -> None:
    data = blobs(400)
    rows = np.flatnonzero((data.labels < 2) & ((data.labels == 0) | (np.arange(400) < 16)))
    noise = np.random.default_rng(5).normal(size=(400, 12)).astype(np.float32) * 2
    data = Examples(
        Ragged.of_vectors(data.inputs.values + noise), data.labels, data.capabilities[:, :0]
    )
    options = {"hidden": 8, "groups": 1, "epochs": 15, "dropout": 0.0, "rate": 3e-3}

    def recall(balanced: bool) -> float:
        network = train(data.take(rows), 2, TrainingOptions(**options, balanced=balanced)).network
        rare = data.take(np.flatnonzero(data.labels == 1))
        return evaluate(network, rare)[1]

    assert recall(balanced=True) > recall(balanced=False) + 0.05


@pytest.mark.parametrize("rank", [0, 6])
def test_thresholding_leaves_the_share_of_weights_asked_for(rank: int) -> None:
    options = TrainingOptions(
        hidden=16, groups=2, rank_w=rank, epochs=30, batch=32, rate=5e-3, dropout=0.0, keep=0.25
    )
    trained = train(blobs(), 4, options, held_out=blobs(seed=1))
    for name, array in trained.network.cell.parameters.items():
        if array.ndim == 2:
            assert np.count_nonzero(array) <= np.ceil(0.25 * array.size), name
    assert evaluate(trained.network, blobs(seed=2))[1] > 0.85


def test_the_support_moves_while_thresholding_and_is_fixed_afterwards() -> None:
    rng = np.random.default_rng(0)
    thresholding = Thresholding(("W",), keep=0.2, steps=300)
    supports = []
    parameters = {"W": rng.normal(size=(6, 6)).astype(np.float32)}
    for step in range(1, 301):
        parameters["W"] += rng.normal(size=(6, 6)).astype(np.float32)
        thresholding.apply(parameters, step)
        supports.append(frozenset(zip(*np.nonzero(parameters["W"]), strict=True)))

    assert all(len(places) == 36 for places in supports[:100])
    thresholded = [places for places in supports[100:200] if len(places) == 8]
    assert 100 // INTERVAL <= len(thresholded) <= 100 // INTERVAL + 1
    assert len(set(thresholded)) > 1
    assert len(set(supports[200:])) == 1
    assert len(supports[-1]) == 8


def test_a_support_keeps_the_largest_magnitudes() -> None:
    matrix = np.array([[0.1, -3.0], [2.0, 0.0]], np.float32)
    assert support(matrix, 0.5).tolist() == [[False, True], [True, False]]


def test_bytes_give_nearly_the_states_of_floats() -> None:
    options = TrainingOptions(
        hidden=12, groups=1, epochs=20, batch=32, rate=1e-2, dropout=0.0, nonlinearity="piecewise"
    )
    data = first_or_last()
    network = train(data, 2, options).network
    cell = QuantizedCell.of(network.cell)
    sequences = np.split(data.inputs.values, np.cumsum(data.inputs.lengths)[:-1])
    states = np.array([cell.forward(sequence) for sequence in sequences])
    exact = network.state(data.inputs)

    assert 0 < np.abs(states - exact).max() < 0.1
    same = network.logits(states).argmax(axis=1) == network.logits(exact).argmax(axis=1)
    assert same.mean() > 0.98
    assert cell.size < 0.5 * sum(array.nbytes for array in network.cell.parameters.values())


def test_integer_products_are_exact() -> None:
    rng = np.random.default_rng(0)
    for columns in (768, 4000):
        matrix = ByteMatrix.of(np.full((3, columns), 1.0, np.float32))
        vector = rng.choice([-1.0, 1.0], columns).astype(np.float32)
        assert np.allclose(matrix.dot(vector), vector.sum(), rtol=1e-6)


def test_a_cell_with_smooth_curves_can_not_be_quantised() -> None:
    with pytest.raises(InvalidInput, match="only a tied cell with piecewise"):
        QuantizedCell.of(initialise(CellShape(3, 2), seed=0))


def test_the_losses_agree_with_their_definitions() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 3)).astype(np.float32) * 3
    targets = softmax(rng.normal(size=(5, 3)).astype(np.float32))
    weights = rng.uniform(0.5, 2, 5).astype(np.float32)
    loss, gradient = cross_entropy(logits, targets, weights)
    rows = -(targets * np.log(softmax(logits))).sum(axis=1)
    assert loss == pytest.approx(np.average(rows, weights=weights), rel=1e-5)
    for place in np.ndindex(logits.shape):
        moved = logits.astype(np.float64)
        moved[place] += 1e-4
        slope = (cross_entropy(moved, targets, weights)[0] - loss) / 1e-4
        assert gradient[place] == pytest.approx(slope, abs=5e-3)

    many = (rng.random((5, 3)) < 0.5).astype(np.float32)
    loss, gradient = binary_cross_entropy(logits, many)
    shares = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = -(many * np.log(shares) + (1 - many) * np.log(1 - shares)).sum() / 5
    assert loss == pytest.approx(expected, rel=1e-5)
    assert np.allclose(gradient, (shares - many) / 5, atol=1e-6)


def test_inputs_that_are_not_finite_are_refused() -> None:
    data = blobs(8)
    values = data.inputs.values.copy()
    values[5, 2] = np.nan
    broken = Examples(Ragged.of_vectors(values), data.labels, data.capabilities)
    with pytest.raises(NumberOutOfRange, match="vector 5 has a value that is not finite"):
        train(broken, 4, OPTIONS)


def test_a_label_without_an_example_is_refused() -> None:
    with pytest.raises(InvalidInput, match="label number 4 has no training example"):
        train(blobs(), 5, OPTIONS)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidInput, match="training option rate is nan"):
        TrainingOptions(rate=float("nan"))
    with pytest.raises(InvalidInput, match="training option keep is 0"):
        TrainingOptions(keep=0.0)
    with pytest.raises(InvalidInput, match="10 hidden units can't be split in 4 groups"):
        TrainingOptions(hidden=10, groups=4)


def test_the_trained_cell_takes_raw_inputs() -> None:
    """Inputs are centred and scaled in training; the weights that come out have that in them."""
    data = blobs()
    shifted = Examples(
        Ragged.of_vectors(data.inputs.values * 0.01 + 3), data.labels, data.capabilities
    )
    trained = train(shifted, 4, OPTIONS)
    assert isinstance(trained.network.cell, FastGRNN)
    assert evaluate(trained.network, shifted)[1] > 0.95
