"""Sparse matrices by iterative hard thresholding (section 3.2.1 of the FastGRNN paper).

A third of the training is dense. In the second third only the largest weights of each matrix are
kept, every INTERVAL steps, so that others may grow back in between. In the last third the support
is fixed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tinydancer.neural.fastgrnn import Parameters
from tinydancer.neural.ragged import Floats

INTERVAL = 15
Mask = NDArray[np.bool_]


def support(matrix: Floats, keep: float) -> Mask:
    """Where the ⌈keep · size⌉ entries of greatest magnitude are; ties go to the first."""
    count = max(1, int(np.ceil(keep * matrix.size)))
    order = np.argsort(-np.abs(matrix).ravel(), kind="stable")
    mask = np.zeros(matrix.size, np.bool_)
    mask[order[:count]] = True
    return mask.reshape(matrix.shape)


@dataclass
class Thresholding:
    """Keeps the matrices `names` at a share `keep` of their weights while they are trained.

    steps: how many training steps there will be. `apply` is called after each, from 1 on.
    """

    names: tuple[str, ...]
    keep: float
    steps: int
    fixed: dict[str, Mask] = field(default_factory=dict)

    @property
    def is_fixed(self) -> bool:
        """Whether the support will not change any more."""
        return bool(self.fixed)

    def apply(self, parameters: Parameters, step: int) -> None:
        """Zeroes, in place, what is outside the support after training step `step`."""
        if self.keep >= 1 or step * 3 <= self.steps:
            return
        last_third = step * 3 > 2 * self.steps
        if not last_third and step % INTERVAL:
            return
        masks = self.fixed or {name: support(parameters[name], self.keep) for name in self.names}
        if last_third:
            self.fixed = masks
        for name, mask in masks.items():
            parameters[name] *= mask
