"""A quality model as arrays and text, for the table `models`.

It holds vectors of the requests it was trained on (where nearest neighbours count) and hashes of
their terms, but none of their text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydancer.errors import InvalidInput
from tinydancer.learning.calibration import Calibration
from tinydancer.learning.estimators import (
    Estimator,
    KernelEstimator,
    LinearEstimator,
    NeighbourEstimator,
    Served,
)
from tinydancer.learning.feature_map import FeatureMap
from tinydancer.learning.quality import Comparison, Evidence, QualityModel, Trial
from tinydancer.learning.stacking import StackedEstimator
from tinydancer.learning.surface import SURFACE_FEATURES
from tinydancer.learning.terms import TermWeights
from tinydancer.neural.model_file import Contents

KIND = "quality"
Arrays = Mapping[str, NDArray[Any]]
_MAP = (
    *("surface_mean", "surface_factor", "surface_landmarks", "surface_whitening"),
    *("embedding_mean", "embedding_landmarks", "embedding_whitening"),
)


def pack(model: QualityModel, space: str) -> Contents:
    """The model's contents; `space` names the vector space it was trained in."""
    stack = model.estimator
    arrays: dict[str, NDArray[Any]] = {
        "means": stack.means,
        "calibration.estimates": model.calibration.estimates,
        "calibration.rates": model.calibration.rates,
    }
    parts: list[dict[str, Any]] = []
    for number, part in enumerate(stack.parts):
        about, own = _pack_part(part)
        parts.append(about)
        arrays |= {f"{number}.{name}": array for name, array in own.items()}
    return Contents(
        arrays,
        {
            "kind": KIND,
            "space": space,
            "surface_features": list(SURFACE_FEATURES),
            "agents": list(model.agents),
            "total": stack.total,
            "parts": parts,
            "evidence": asdict(model.evidence),
        },
    )


def unpack(contents: Contents, space: str, source: str = "the model") -> QualityModel:
    """The model again. Raises InvalidInput where it is of another kind, space or version."""
    about, arrays = contents.about, contents.arrays
    if about.get("kind") != KIND:
        raise InvalidInput(f"{source} is of kind {about.get('kind')!r}, not {KIND!r}")
    if about.get("space") != space:
        raise InvalidInput(
            f"{source} was trained on vectors of {about.get('space')!r}, the engine has {space!r}",
            hint="Train it again with the embedder in use.",
        )
    if tuple(about.get("surface_features", ())) != SURFACE_FEATURES:
        raise InvalidInput(
            f"{source} was trained with other surface features", hint="Train it again."
        )
    try:
        parts = tuple(
            _unpack_part(part, _under(arrays, f"{number}."))
            for number, part in enumerate(about["parts"])
        )
        return QualityModel(
            agents=tuple(about["agents"]),
            estimator=StackedEstimator(arrays["means"], parts, float(about["total"])),
            calibration=Calibration(arrays["calibration.estimates"], arrays["calibration.rates"]),
            evidence=_evidence(about["evidence"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"{source} lacks a part of a quality model",
            detail=f"{type(error).__name__}: {error}",
            hint="Train it again.",
        ) from error


def _pack_part(part: Estimator) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    if isinstance(part, NeighbourEstimator):
        arrays: dict[str, NDArray[Any]] = {"means": part.means}
        for number, group in enumerate(part.served):
            arrays[f"{number}.columns"] = group.columns
            arrays[f"{number}.embeddings"] = group.embeddings
            arrays[f"{number}.rewards"] = group.rewards
        about = {"kind": "neighbours", "weights": list(part.weights), "groups": len(part.served)}
        return about, arrays
    if isinstance(part, LinearEstimator):
        names = ("mean", "factor", "weights", "intercepts")
        return {"kind": "linear"}, {name: getattr(part, name) for name in names}
    if isinstance(part, KernelEstimator):
        arrays = {name: getattr(part.map, name) for name in _MAP}
        arrays |= {
            "buckets": part.map.terms.buckets,
            "inverse_frequency": part.map.terms.inverse_frequency,
            "weights": part.weights,
            "intercepts": part.intercepts,
        }
        return {"kind": "kernel"}, arrays
    raise TypeError(f"a {type(part).__name__} can't be stored")


def _unpack_part(about: Mapping[str, Any], arrays: Arrays) -> Estimator:
    kind = about["kind"]
    if kind == "neighbours":
        groups = [_under(arrays, f"{number}.") for number in range(about["groups"])]
        served = tuple(
            Served(group["columns"], group["embeddings"], group["rewards"]) for group in groups
        )
        return NeighbourEstimator(tuple(about["weights"]), arrays["means"], served)
    if kind == "linear":
        return LinearEstimator(
            arrays["mean"], arrays["factor"], arrays["weights"], arrays["intercepts"]
        )
    if kind == "kernel":
        terms = TermWeights(arrays["buckets"], arrays["inverse_frequency"])
        feature_map = FeatureMap(**{name: arrays[name] for name in _MAP}, terms=terms)
        return KernelEstimator(feature_map, arrays["weights"], arrays["intercepts"])
    raise ValueError(f"unknown kind of estimator {kind!r}")


def _under(arrays: Arrays, prefix: str) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(prefix): np.asarray(array)
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _evidence(about: Mapping[str, Any]) -> Evidence:
    return Evidence(
        **{
            **about,
            "trials": tuple(Trial(**trial) for trial in about["trials"]),
            "estimates": Comparison(**about["estimates"]),
            "choices": Comparison(**about["choices"]),
        }
    )
