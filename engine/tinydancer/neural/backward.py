"""Backpropagation through time for the FastGRNN cell."""

from __future__ import annotations

import numpy as np

from tinydancer.neural.fastgrnn import FastGRNN, Parameters, Trace
from tinydancer.neural.ragged import Floats


def backward(cell: FastGRNN, trace: Trace, d_final: Floats) -> Parameters:
    """Gradients of a loss with respect to every parameter of the cell.

    d_final: (n, hidden), the gradient with respect to each sequence's last state, rows in the
    order of the batch that `FastGRNN.trace` was given. With d the gradient at h_t:

        dz = d ⊙ (h_(t-1) - ζ h̃)          da_z = dz ⊙ σ'(a_z)
        dh̃ = d ⊙ (ζ (1 - z) + ν)          da_h = dh̃ ⊙ tanh'(a_h)
        d at h_(t-1) = d ⊙ z + Uᵀ(da)

    where da is da_z + da_h when tied, and their stack when not.
    """
    tied, hidden = cell.shape.tied, cell.shape.hidden
    zeta, nu = cell.zeta, cell.nu
    width = hidden if tied else 2 * hidden
    d_products = np.empty((len(trace.inputs), width), np.float32)
    bias_z, bias_h = np.zeros(hidden, np.float32), np.zeros(hidden, np.float32)
    d_zeta = d_nu = np.float32(0)
    d = d_final[trace.schedule.order].astype(np.float32, copy=True)

    stop = len(trace.inputs)
    for step in range(len(trace.schedule.alive) - 1, -1, -1):
        alive = int(trace.schedule.alive[step])
        here = slice(stop - alive, stop)
        stop -= alive
        gate, update, before = trace.gate[here], trace.update[here], trace.before[here]
        d_here = d[:alive]
        slope_z, slope_h = _slopes(cell, gate, update)
        da_z = d_here * (before - zeta * update) * slope_z
        da_h = d_here * (zeta * (1 - gate) + nu) * slope_h
        d_zeta += np.sum(d_here * (1 - gate) * update)
        d_nu += np.sum(d_here * update)
        bias_z += da_z.sum(axis=0)
        bias_h += da_h.sum(axis=0)
        d_products[here] = da_z + da_h if tied else np.concatenate([da_z, da_h], axis=1)
        if step:
            d[:alive] = d_here * gate + d_products[here] @ cell.state_weights

    gradients: Parameters = {"b_z": bias_z, "b_h": bias_h}
    gradients["zeta"] = np.asarray(d_zeta * zeta * (1 - zeta), np.float32)
    gradients["nu"] = np.asarray(d_nu * nu * (1 - nu), np.float32)
    gradients |= _matrices(cell, "W", d_products.T @ trace.inputs)
    if len(trace.schedule.alive) > 1:
        gradients |= _matrices(cell, "U", d_products.T @ trace.before)
    else:
        gradients |= {
            name: np.zeros_like(array)
            for name, array in cell.parameters.items()
            if name.startswith("U")
        }
    return gradients


def _slopes(cell: FastGRNN, gate: Floats, update: Floats) -> tuple[Floats, Floats]:
    """σ' and tanh', from the values that they took."""
    if cell.shape.nonlinearity == "smooth":
        return gate * (1 - gate), 1 - update * update
    inside_z = (gate > 0) & (gate < 1)
    inside_h = (update > -1) & (update < 1)
    return np.float32(0.5) * inside_z, inside_h.astype(np.float32)


def _matrices(cell: FastGRNN, letter: str, gradient: Floats) -> Parameters:
    """The gradient of the branches, one above the other, as those of the stored matrices."""
    gradients: Parameters = {}
    for branch, part in zip(
        cell.shape.branches, np.split(gradient, len(cell.shape.branches)), strict=True
    ):
        if f"{letter}{branch}" in cell.parameters:
            gradients[f"{letter}{branch}"] = part
        else:
            left, right = f"{letter}1{branch}", f"{letter}2{branch}"
            gradients[left] = part @ cell.parameters[right]
            gradients[right] = part.T @ cell.parameters[left]
    return gradients
