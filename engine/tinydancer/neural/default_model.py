"""The classifier that is there out of the box, over a general taxonomy of requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from tinydancer.embeddings.base import Embedder
from tinydancer.errors import InvalidInput, NotReady
from tinydancer.neural import packing
from tinydancer.neural.classifier import RouteClassifier
from tinydancer.neural.dataset import prepare
from tinydancer.neural.default_data import Taught, outside, public, written
from tinydancer.neural.fitting import FitOptions, Metrics, fit
from tinydancer.neural.ragged import Floats
from tinydancer.neural.training import TrainingOptions

BUILTIN_MODEL = Path(__file__).parent / "data" / "default.safetensors"

_OPTIONS = FitOptions(
    network=TrainingOptions(hidden=256, groups=4, rank_u=1, epochs=20, balanced=True)
)


@dataclass(frozen=True, eq=False)
class Built:
    """The model file, what its reader gives, and the metrics of the examples, held out."""

    data: bytes
    classifier: RouteClassifier
    metrics: Metrics


@cache
def builtin() -> RouteClassifier:
    """The default model of this package. Raises NotReady where its file is missing or damaged."""
    try:
        data = BUILTIN_MODEL.read_bytes()
        return packing.from_bytes(data, BUILTIN_MODEL.name)
    except (FileNotFoundError, InvalidInput) as error:
        raise NotReady(
            f"the default model can't be read: {error}",
            hint="Reinstall tinydancer-router.",
        ) from error


def build(
    embedders: Sequence[Embedder],
    data: Path,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> Built:
    """Trains the default model on every row as each embedder sees it.

    embedders: of one space, so that one model serves the static table and MiniLM alike. data: the
    directory of the public data sets, of which the training files are read. The same embedders
    and data give the same bytes on the same machine.
    """
    spaces = {embedder.space for embedder in embedders}
    if len(spaces) != 1:
        raise InvalidInput(f"the embedders have the spaces {sorted(spaces)}, not one")
    taught = _without_repeats([*written(), *public(data)])
    copies = len(embedders)
    parts = np.array([each.part for each in taught])
    checked = prepare(each.row for each in taught)
    strange = tuple(outside())
    rows = np.tile(np.arange(len(checked)), copies)
    fitted = fit(
        checked.take(rows),
        _seen(embedders, checked.texts)[1],
        spaces.pop(),
        _OPTIONS,
        outside=_seen(embedders, strange[1::2]),
        taught_outside=_seen(embedders, strange[::2]),
        fold=parts[rows],
        progress=progress,
    )
    made = packing.to_bytes(fitted.classifier, compact=True)
    return Built(made, packing.from_bytes(made), fitted.metrics)


def _seen(embedders: Sequence[Embedder], texts: tuple[str, ...]) -> tuple[tuple[str, ...], Floats]:
    """The texts, as often as there are embedders, with the vectors of each."""
    return texts * len(embedders), np.concatenate([e.embed(texts) for e in embedders])


def _without_repeats(taught: Sequence[Taught]) -> list[Taught]:
    """The first of each text: what two sources say alike would be merged, and its part lost."""
    kept: dict[str, Taught] = {}
    for each in taught:
        kept.setdefault(" ".join(each.row.text.casefold().split()), each)
    return list(kept.values())
