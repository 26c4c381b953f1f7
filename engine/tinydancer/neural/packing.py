"""A classifier as the contents of a model file, and back, checked on the way in."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydancer.errors import InvalidInput
from tinydancer.neural import model_file
from tinydancer.neural.calibration import Conformal, ScopeRule
from tinydancer.neural.classifier import Calibration, RouteClassifier
from tinydancer.neural.fastgrnn import CellShape, FastGRNN, check_parameters
from tinydancer.neural.lexical import LexicalModel
from tinydancer.neural.model_file import Contents
from tinydancer.neural.quantized import ByteMatrix
from tinydancer.neural.ragged import Floats
from tinydancer.neural.training import Network

KIND = "classifier"
_BYTES, _SCALES = ".levels", ".scales"


def to_bytes(classifier: RouteClassifier, *, compact: bool = False) -> bytes:
    """The classifier as a model file. compact: matrices as bytes, a quarter of the size.

    What a compact file gives differs a little from the classifier it was made of: read it back
    and measure that one.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for prefix, parameters in (
        ("cell.", classifier.network.cell.parameters),
        ("head.", classifier.network.heads),
        ("words.", classifier.lexical.parameters if classifier.lexical else {}),
        ("", {"prototypes": classifier.prototypes}),
    ):
        for name, array in parameters.items():
            if compact and array.ndim == 2:
                matrix = ByteMatrix.of(array)
                arrays[f"{prefix}{name}{_BYTES}"] = matrix.levels
                arrays[f"{prefix}{name}{_SCALES}"] = matrix.scales
            else:
                arrays[prefix + name] = array
    if classifier.lexical:
        arrays["features"] = np.frombuffer("\n".join(classifier.lexical.names).encode(), np.uint8)
    about = {
        "kind": KIND,
        "space": classifier.space,
        "names": list(classifier.names),
        "capability_names": list(classifier.capability_names),
        "cell": asdict(classifier.network.cell.shape),
        "vector_only": asdict(classifier.vector_only),
        "with_words": asdict(classifier.with_words) if classifier.with_words else None,
    }
    return model_file.to_bytes(Contents(arrays, about))


def from_bytes(data: bytes, source: str = "the model") -> RouteClassifier:
    """The classifier of a model file. Raises InvalidInput, naming `source`, for one that is
    truncated, of another kind, or whose parts do not fit each other; NumberOutOfRange for NaN.
    """
    contents = model_file.from_bytes(data, source)
    about = contents.about
    if about.get("kind") != KIND:
        raise InvalidInput(f"{source} is a {about.get('kind')!r}, not a {KIND!r}")
    try:
        return _build(_widened(contents.arrays), about)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(
            f"{source} lacks a part of a classifier, or has one of another kind",
            detail=f"{type(error).__name__}: {error}",
            hint="Train it again, or take it from its source again.",
        ) from error
    except InvalidInput as error:
        raise type(error)(f"{source}: {error.message}", hint=error.hint) from error


def _build(arrays: dict[str, Floats], about: Any) -> RouteClassifier:
    names, capability_names = tuple(about["names"]), tuple(about["capability_names"])
    cell = FastGRNN(CellShape(**about["cell"]), _section(arrays, "cell."))
    heads = _section(arrays, "head.")
    hidden = cell.shape.hidden
    shapes: dict[str, tuple[int, ...]] = {"V": (len(names), hidden), "c": (len(names),)}
    if capability_names:
        count = len(capability_names)
        shapes |= {"V_many": (count, hidden), "c_many": (count,)}
    check_parameters(heads, shapes, "head")
    lexical = None
    if "features" in arrays:
        features = tuple(arrays["features"].tobytes().decode().split("\n"))
        lexical = LexicalModel(features, _section(arrays, "words."))
    return RouteClassifier(
        names=names,
        capability_names=capability_names,
        space=about["space"],
        network=Network(cell, heads),
        prototypes=arrays["prototypes"],
        vector_only=_calibration(about["vector_only"]),
        lexical=lexical,
        with_words=_calibration(about["with_words"]) if about["with_words"] else None,
    )


def _calibration(about: Any) -> Calibration:
    scope = {**about["scope"], "weights": tuple(about["scope"]["weights"])}
    return Calibration(
        weights=tuple(about["weights"]),
        conformal=Conformal(**about["conformal"]),
        scope=ScopeRule(**scope),
        margins=tuple(about["margins"]),
    )


def _section(arrays: dict[str, Floats], prefix: str) -> dict[str, Floats]:
    return {name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}


def _widened(arrays: Any) -> dict[str, Floats]:
    """Matrices of bytes as float32 again; the rest as it is."""
    wide = {n: a for n, a in arrays.items() if not n.endswith((_BYTES, _SCALES))}
    for name, levels in arrays.items():
        if name.endswith(_BYTES):
            stem = name.removesuffix(_BYTES)
            wide[stem] = levels.astype(np.float32) * arrays[stem + _SCALES][:, None]
    return wide
