"""How likely a matched route is the right one."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import lru_cache
from math import exp
from pathlib import Path


@dataclass(frozen=True)
class Calibration:
    """How likely the best route is the right one: a logistic, as Platt's (1999), in three figures.

    P = 1 / (1 + exp(-(intercept + similarity * s + margin * m + closeness * c
    + margin_by_closeness * m * c))), where m is s less the similarity of the next best route, and c
    how close the routes are to each other: 0.6 says little among 77 intents of one bank, and much
    between support and documentation; a margin says the more the closer they are. `usual`
    is the closeness to assume where it is not known; `source` says what all this was fitted on.
    """

    intercept: float
    similarity: float
    margin: float
    closeness: float
    margin_by_closeness: float
    usual: float
    source: str

    def confidence(self, similarity: float, margin: float, closeness: float | None) -> float:
        """The probability, 0 to 1."""
        closeness = self.usual if closeness is None else closeness
        logit = (
            self.intercept
            + self.similarity * similarity
            + self.margin * margin
            + self.closeness * closeness
            + self.margin_by_closeness * margin * closeness
        )
        return 1.0 / (1.0 + exp(-max(-700.0, min(700.0, logit))))


# By embedder; `python -m tinydancer.evaluation.route_confidence` fits and writes them.
CALIBRATIONS = Path(__file__).parent / "confidence.json"
# What an embedder that nobody has fitted is taken to be like.
MODEL_FITTED = "static-minilm-v2"


@lru_cache(maxsize=64)
def calibration(model: str) -> Calibration:
    """The calibration of an embedder's matches; that of MODEL_FITTED where it has none."""
    known = json.loads(CALIBRATIONS.read_text())
    found = known.get(model, known[MODEL_FITTED])
    return Calibration(**{field.name: found[field.name] for field in fields(Calibration)})
