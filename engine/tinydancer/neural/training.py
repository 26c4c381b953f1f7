"""Training of a FastGRNN cell with its heads: Adam, early stopping, everything by seed.

The rows are split by the caller. The best epoch is the one with the most held-out rows right,
among equals the one with the lower loss: a network goes on gaining accuracy long after it has
become too sure of itself, and the temperature takes care of the latter (see calibration).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tinydancer.errors import InvalidInput, NumberOutOfRange
from tinydancer.neural.adam import Adam
from tinydancer.neural.backward import backward
from tinydancer.neural.fastgrnn import (
    CellShape,
    FastGRNN,
    Nonlinearity,
    Parameters,
    initialise,
)
from tinydancer.neural.heads import binary_cross_entropy, cross_entropy
from tinydancer.neural.ragged import Floats, Integers, Ragged
from tinydancer.neural.sparsity import Thresholding

OUTSIDE = -1


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is trained.

    hidden, tied, rank_w, rank_u, nonlinearity: the cell (see CellShape).
    groups: into how many equal groups the hidden units are split while training. Each group has to
    tell the label by itself, and the answer is the mean of theirs: an ensemble inside one cell,
    which costs nothing more to run.
    epochs, batch, rate, decay: passes at most, rows a step, Adam's rate (it falls along a cosine
    to a twentieth) and weight decay.
    smoothing: share of each target spread evenly over the labels.
    dropout: share of the state's units left out of each training step.
    patience: epochs without a better one before it stops.
    balanced: weigh each row by the inverse of its label's count.
    keep: share of the weights of W and U kept by iterative hard thresholding (1 keeps all).
    """

    hidden: int = 384
    groups: int = 4
    tied: bool = True
    rank_w: int = 0
    rank_u: int = 0
    nonlinearity: Nonlinearity = "smooth"
    epochs: int = 60
    batch: int = 64
    rate: float = 2e-3
    decay: float = 1e-2
    smoothing: float = 0.0
    dropout: float = 0.5
    patience: int = 12
    balanced: bool = False
    keep: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("epochs", 1, 10_000),
            ("batch", 1, 65_536),
            ("rate", 1e-8, 1.0),
            ("decay", 0.0, 10.0),
            ("smoothing", 0.0, 0.9),
            ("dropout", 0.0, 0.9),
            ("patience", 1, 10_000),
            ("keep", 0.001, 1.0),
            ("seed", 0, 2**32 - 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidInput(f"training option {name} is {value}, not in {low} to {high}")
        if self.groups < 1 or self.hidden % self.groups:
            raise InvalidInput(f"{self.hidden} hidden units can't be split in {self.groups} groups")


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs with what they should come out as.

    labels: (n,) int64 below `classes`, or OUTSIDE for a row of no category, from which the network
    learns to be unsure (outlier exposure, Hendrycks et al. 2019). capabilities: (n, number of
    capabilities) of 0 and 1, with no columns when there are none.
    """

    inputs: Ragged
    labels: Integers
    capabilities: Integers

    def __post_init__(self) -> None:
        if not len(self.inputs) == len(self.labels) == len(self.capabilities):
            raise InvalidInput(
                f"{len(self.inputs)} inputs, {len(self.labels)} labels and "
                f"{len(self.capabilities)} rows of capabilities do not match"
            )

    def take(self, rows: Integers) -> Examples:
        """The examples at `rows`, in that order."""
        return Examples(self.inputs.take(rows), self.labels[rows], self.capabilities[rows])


@dataclass(frozen=True)
class Epoch:
    """Progress after a pass: losses a row, and the share of held-out rows that came out right."""

    number: int
    loss: float
    held_out_loss: float
    held_out_accuracy: float


@dataclass(frozen=True, eq=False)
class Network:
    """A cell and its heads.

    heads: V (classes, hidden), c (classes,), and for capabilities V_many (labels, hidden),
    c_many (labels,).
    """

    cell: FastGRNN
    heads: Mapping[str, Floats] = field(repr=False)

    def state(self, inputs: Ragged) -> Floats:
        """(n, hidden) the cell's last states."""
        if len(inputs.values) == len(inputs):
            return self.cell.forward_vectors(inputs.values)
        return self.cell.forward_ragged(inputs)

    def logits(self, state: Floats) -> Floats:
        """(…, classes) before the softmax."""
        result: Floats = state @ self.heads["V"].T
        result += self.heads["c"]
        return result

    def capability_logits(self, state: Floats) -> Floats:
        """(…, capabilities) before the sigmoids."""
        result: Floats = state @ self.heads["V_many"].T + self.heads["c_many"]
        return result


@dataclass(frozen=True, eq=False)
class Trained:
    """A network and how it came about. best: the number of the epoch whose weights it has."""

    network: Network
    epochs: tuple[Epoch, ...]
    best: int


def train(
    examples: Examples,
    classes: int,
    options: TrainingOptions,
    *,
    held_out: Examples | None = None,
    progress: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Fits a network to `examples`.

    With `held_out`, it stops when it has not got better there for `patience` epochs and returns
    the weights of the best epoch (with `keep` below 1, of those with the final support). Without,
    it runs all epochs and returns the last.
    The same arguments give the same weights on the same machine. Raises NumberOutOfRange for
    inputs that are not finite, InvalidInput for a label that is out of range or has no example.
    """
    _check(examples, classes)
    shape = CellShape(
        examples.inputs.inputs,
        options.hidden,
        options.tied,
        options.rank_w,
        options.rank_u,
        options.nonlinearity,
    )
    rng = np.random.default_rng(options.seed)
    centre, scale = _spread(examples.inputs.values)
    scaled = Ragged((examples.inputs.values - centre) / scale, examples.inputs.lengths)
    examples = Examples(scaled, examples.labels, examples.capabilities)
    cell = initialise(shape, options.seed)
    many = examples.capabilities.shape[1]
    parameters = {name: array.copy() for name, array in cell.parameters.items()}
    parameters |= _initial_heads(classes, many, options, rng)
    weights = _weights(examples.labels, classes, options.balanced)
    optimiser = Adam(decay=options.decay)
    total = -(-len(examples.labels) // options.batch) * options.epochs
    matrices = tuple(name for name, array in cell.parameters.items() if array.ndim == 2)
    thresholding = Thresholding(matrices, options.keep, total)

    history: list[Epoch] = []
    best, best_score, best_parameters = 0, (-1.0, 0.0), parameters
    for number in range(1, options.epochs + 1):
        order = rng.permutation(len(examples.labels))
        loss = 0.0
        for start in range(0, len(order), options.batch):
            rows = order[start : start + options.batch]
            fall = 0.525 + 0.475 * np.cos(np.pi * optimiser.steps / total)
            part, gradients = _gradients(
                shape, parameters, examples.take(rows), weights[rows], options, rng
            )
            optimiser.update(parameters, gradients, options.rate * fall)
            thresholding.apply(parameters, optimiser.steps)
            loss += part * len(rows) / len(order)
        if not np.isfinite(loss):
            raise NumberOutOfRange(f"the loss is {loss} in epoch {number}; try a smaller rate")
        network = _network(cell.shape, parameters, options.groups, centre, scale)
        held_loss, accuracy = evaluate(network, held_out) if held_out else (loss, float("nan"))
        history.append(Epoch(number, loss, held_loss, accuracy))
        if progress:
            progress(history[-1])
        score = (accuracy, -held_loss)
        if options.keep < 1 and not thresholding.is_fixed:
            continue
        if held_out is None or score > best_score:
            best, best_score = number, score
            best_parameters = {name: array.copy() for name, array in parameters.items()}
        elif number - best >= options.patience:
            break
    return Trained(
        _network(cell.shape, best_parameters, options.groups, centre, scale), tuple(history), best
    )


def evaluate(network: Network, examples: Examples) -> tuple[float, float]:
    """The loss of both heads a row, and the share of rows whose category came out right."""
    state = network.state(examples.inputs)
    logits = network.logits(state)
    targets = _one_hot(examples.labels, logits.shape[1], 0.0)
    loss, _ = cross_entropy(logits, targets, np.ones(len(targets), np.float32))
    if examples.capabilities.shape[1]:
        targets = examples.capabilities.astype(np.float32)
        loss += binary_cross_entropy(network.capability_logits(state), targets)[0]
    return loss, float(np.mean(logits.argmax(axis=1) == examples.labels))


def _gradients(
    shape: CellShape,
    parameters: Parameters,
    examples: Examples,
    weights: Floats,
    options: TrainingOptions,
    rng: np.random.Generator,
) -> tuple[float, Parameters]:
    cell = FastGRNN(shape, {name: parameters[name] for name in shape.shapes()})
    state, trace = cell.trace(examples.inputs)
    mask = np.float32(1)
    if options.dropout:
        keep = np.float32(1 - options.dropout)
        mask = (rng.random(state.shape, np.float32) < keep) / keep
    seen = _grouped(state * mask, options.groups)
    targets = _one_hot(examples.labels, len(parameters["c"]), options.smoothing)
    loss, d_seen, gradients = _head(
        seen, parameters, "", lambda logits: cross_entropy(logits, targets, weights)
    )
    if examples.capabilities.shape[1]:
        wanted = examples.capabilities.astype(np.float32)
        more, d_more, others = _head(
            seen, parameters, "_many", lambda logits: binary_cross_entropy(logits, wanted)
        )
        loss += more
        d_seen += d_more
        gradients |= others
    d_state = d_seen.transpose(1, 0, 2).reshape(state.shape) * mask
    return loss, gradients | backward(cell, trace, d_state)


def _grouped(rows: Floats, groups: int) -> Floats:
    """(rows, hidden) as (groups, rows, hidden of a group)."""
    return np.ascontiguousarray(rows.reshape(len(rows), groups, -1).transpose(1, 0, 2))


def _head(
    seen: Floats,
    parameters: Parameters,
    suffix: str,
    loss_of: Callable[[Floats], tuple[float, Floats]],
) -> tuple[float, Floats, Parameters]:
    """The mean loss of the groups, its gradient at what they saw, and those of the head."""
    V = _grouped(parameters[f"V{suffix}"], len(seen))
    logits = seen @ V.transpose(0, 2, 1) + parameters[f"c{suffix}"]
    losses, slopes = zip(*map(loss_of, logits), strict=True)
    d_logits = np.stack(slopes) / np.float32(len(seen))
    d_V = (d_logits.transpose(0, 2, 1) @ seen).transpose(1, 0, 2)
    gradients = {
        f"V{suffix}": d_V.reshape(parameters[f"V{suffix}"].shape),
        f"c{suffix}": d_logits.sum(axis=(0, 1)),
    }
    return float(np.mean(losses)), d_logits @ V, gradients


def _network(
    shape: CellShape, parameters: Parameters, groups: int, centre: Floats, scale: Floats
) -> Network:
    """The network that takes raw inputs: W (x - m) / s + b is (W / s) x + (b - W m / s)."""
    cell = {name: parameters[name].copy() for name in shape.shapes()}
    for branch, biases in zip(
        shape.branches, (("b_z", "b_h"),) if shape.tied else (("b_z",), ("b_h",)), strict=True
    ):
        thin = f"W2{branch}"
        if shape.rank_w:
            cell[thin] /= scale[:, None]
            shift = cell[f"W1{branch}"] @ (cell[thin].T @ centre)
        else:
            cell[f"W{branch}"] /= scale
            shift = cell[f"W{branch}"] @ centre
        for bias in biases:
            cell[bias] -= shift
    heads = {
        name: array / np.float32(groups) if array.ndim == 2 else array.copy()
        for name, array in parameters.items()
        if name not in cell
    }
    return Network(FastGRNN(shape, cell), heads)


def _spread(values: Floats) -> tuple[Floats, Floats]:
    """Mean of each input, and the one scale that gives them unit variance on average."""
    centre: Floats = values.mean(axis=0)
    scale = np.sqrt(np.mean((values - centre) ** 2)) if len(values) > 1 else np.float32(1)
    return centre, np.full_like(centre, scale if scale > 0 else 1)


def _initial_heads(
    classes: int, many: int, options: TrainingOptions, rng: np.random.Generator
) -> Parameters:
    heads: Parameters = {}
    for suffix, rows in (("", classes), ("_many", many)):
        if rows:
            limit = np.sqrt(6 / (rows + options.hidden // options.groups))
            shape = (rows, options.hidden)
            heads[f"V{suffix}"] = rng.uniform(-limit, limit, shape).astype(np.float32)
            heads[f"c{suffix}"] = np.zeros(rows, np.float32)
    return heads


def _one_hot(labels: Integers, classes: int, smoothing: float) -> Floats:
    """Rows that add up to 1: the label, smoothed, or all labels alike for one that is OUTSIDE."""
    targets = np.full((len(labels), classes), smoothing / classes, np.float32)
    known = np.flatnonzero(labels != OUTSIDE)
    targets[known, labels[known]] += np.float32(1 - smoothing)
    targets[labels == OUTSIDE] = np.float32(1 / classes)
    return targets


def _weights(labels: Integers, classes: int, balanced: bool) -> Floats:
    if not balanced:
        return np.ones(len(labels), np.float32)
    known = labels != OUTSIDE
    counts = np.bincount(labels[known], minlength=classes)
    weights = known.sum() / (classes * counts[labels])
    return np.where(known, weights, 1).astype(np.float32)


def _check(examples: Examples, classes: int) -> None:
    examples.inputs.check_finite()
    labels = examples.labels
    if len(labels) == 0 or int(labels.min()) < OUTSIDE or int(labels.max()) >= classes:
        raise InvalidInput(f"labels are not all in 0 to {classes - 1}, or {OUTSIDE}")
    absent = np.flatnonzero(np.bincount(labels[labels != OUTSIDE], minlength=classes) == 0)
    if len(absent):
        raise InvalidInput(f"label number {int(absent[0])} has no training example")
