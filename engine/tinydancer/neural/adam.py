"""Adam with decoupled weight decay, in place, float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tinydancer.neural.fastgrnn import Parameters
from tinydancer.neural.ragged import Floats


@dataclass
class Adam:
    """Kingma & Ba 2015, algorithm 1, with the decay of Loshchilov & Hutter 2019 on matrices.

    State is kept by parameter name; `update` writes to the arrays of the parameters it is given.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    decay: float = 0.0
    steps: int = 0
    _mean: Parameters = field(default_factory=dict, repr=False)
    _square: Parameters = field(default_factory=dict, repr=False)

    def update(self, parameters: Parameters, gradients: Mapping[str, Floats], rate: float) -> None:
        """One step down the gradients at this learning rate."""
        self.steps += 1
        unbias_1 = 1 - self.beta_1**self.steps
        unbias_2 = 1 - self.beta_2**self.steps
        for name, gradient in gradients.items():
            if name not in self._mean:
                self._mean[name] = np.zeros_like(gradient)
                self._square[name] = np.zeros_like(gradient)
            mean, square = self._mean[name], self._square[name]
            parameter = parameters[name]
            # Few temporaries: this is half of the time of a training step.
            work = np.asarray(gradient * np.float32(1 - self.beta_1))
            mean *= self.beta_1
            mean += work
            np.multiply(gradient, gradient, out=work)
            work *= 1 - self.beta_2
            square *= self.beta_2
            square += work
            np.sqrt(square, out=work)
            work *= unbias_2**-0.5
            work += self.epsilon
            np.divide(mean, work, out=work)
            work *= rate / unbias_1
            if self.decay and parameter.ndim == 2:
                parameter *= 1 - rate * self.decay
            parameter -= work
