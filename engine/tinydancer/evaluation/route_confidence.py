"""Fits the confidence of a route match, and the default threshold, on public intents.

    python -m tinydancer.evaluation.route_confidence --data DIR [--embedder minilm] [--write]

DIR holds a folder a data set (clinc150, banking77) with train.jsonl.gz, and valid.jsonl.gz and
oos_valid.jsonl.gz where there are such; test files are not read. It plays many small
installations: some intents of a data set become routes, or some of CLINC150's domains, which are
broad as a department is; each with its name or a sentence as description, and half of the
installations with up to 20 utterances a route; half of the queries belong to one of the routes and
half to none. To the best match of each query, right or wrong, the logistic of
route_confidence.Calibration is fitted, by Newton's method. Two thresholds are printed: the one that
95% of the right matches pass, and the one of the greatest F1. With --write the figures go into the
package, beside those of other embedders.

Printed beside: the expected calibration error on the data set that was left out of the fit.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.embeddings.select import EmbedderSettings, embedder_for
from tinydancer.evaluation.departments import DEPARTMENTS, Department
from tinydancer.semantic_routes.confidence import CALIBRATIONS
from tinydancer.semantic_routes.route import UNRELATED, Route
from tinydancer.semantic_routes.table import RouteTable

Floats = NDArray[np.float64]

INSTALLATIONS = 300
ROUTES = (1, 60)
MOST_UTTERANCES = 20
QUERIES = 60
BINS = 15


@dataclass(frozen=True)
class Intents:
    """A data set: vectors of descriptions, utterances and queries by label, and of queries of none.

    A label may have several descriptions, of which an installation has one.
    """

    name: str
    descriptions: dict[str, Vectors]
    utterances: dict[str, Vectors]
    queries: dict[str, Vectors]
    strangers: Vectors


@dataclass(frozen=True)
class Matches:
    """The best match of each query, and whether it is right; see route_confidence.Calibration."""

    similarity: Floats
    margin: Floats
    closeness: Floats
    right: NDArray[np.bool_]
    in_scope: NDArray[np.bool_]


def read_intents(folder: Path, embedder: Embedder) -> Intents:
    """One data set; where it has no valid file, three tenths of train are its queries."""
    train = list(_rows(folder / "train.jsonl.gz"))
    if (folder / "valid.jsonl.gz").exists():
        held = list(_rows(folder / "valid.jsonl.gz"))
    else:
        random.Random(0).shuffle(train)  # noqa: S311 - a split that everyone can repeat
        cut = len(train) * 3 // 10
        train, held = train[cut:], train[:cut]
    oos = folder / "oos_valid.jsonl.gz"
    strangers = [text for text, _ in _rows(oos)] if oos.exists() else []
    labels = sorted({label for _, label in train})
    names = embedder.embed([label.replace("_", " ") for label in labels])
    return Intents(
        folder.name,
        {label: names[at : at + 1] for at, label in enumerate(labels)},
        _by_label(train, embedder),
        _by_label(held, embedder),
        embedder.embed(strangers),
    )


def departments(clinc: Intents, embedder: Embedder) -> Intents:
    """The domains of CLINC150, as if each were one label."""

    def of(vectors: dict[str, Vectors], department: Department) -> Vectors:
        return np.concatenate([vectors[label] for label in department.intents])

    return Intents(
        "departments",
        {each.name: embedder.embed([each.name, each.description]) for each in DEPARTMENTS},
        {each.name: of(clinc.utterances, each) for each in DEPARTMENTS},
        {each.name: of(clinc.queries, each) for each in DEPARTMENTS},
        clinc.strangers,
    )


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield row["text"], row["label"]


def _by_label(rows: list[tuple[str, str]], embedder: Embedder) -> dict[str, Vectors]:
    vectors = embedder.embed([text for text, _ in rows])
    places: dict[str, list[int]] = {}
    for at, (_, label) in enumerate(rows):
        places.setdefault(label, []).append(at)
    return {label: vectors[found] for label, found in places.items()}


def play(intents: Intents, installations: int) -> Matches:
    """The best matches of some queries in many installations, drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    labels = sorted(intents.utterances)
    parts = [_install(intents, labels, rng) for _ in range(installations)]
    return Matches(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _install(
    intents: Intents, labels: list[str], rng: np.random.Generator
) -> tuple[Floats, Floats, Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    order = [labels[at] for at in rng.permutation(len(labels))]
    count = int(rng.integers(ROUTES[0], min(ROUTES[1], len(labels)) + 1))
    chosen, others = order[:count], order[count:]
    utterances = 0 if rng.random() < 0.5 else int(rng.integers(MOST_UTTERANCES)) + 1
    vectors, owners = [], []
    for at, label in enumerate(chosen):
        known = intents.utterances[label]
        picked = rng.permutation(len(known))[:utterances]
        vectors += [_pick(intents.descriptions[label], rng)[None], known[picked]]
        owners += [at] * (1 + len(picked))
    # The names are numbers of one width, so that the table keeps the routes in their order.
    routes = [Route(f"{at:03}", label, "") for at, label in enumerate(chosen)]
    table = RouteTable.build(routes, np.concatenate(vectors), np.array(owners))
    inside = rng.integers(count, size=QUERIES // 2)
    queries = [_pick(intents.queries[chosen[at]], rng) for at in inside]
    for _ in range(QUERIES - len(queries)):
        stranger = not others or (len(intents.strangers) > 0 and rng.random() < 0.5)
        pool = intents.strangers if stranger else intents.queries[others[rng.integers(len(others))]]
        queries.append(_pick(pool, rng))
    found = table.similarities(np.array(queries)).astype(np.float64)
    best = found.max(axis=1)
    # Padded twice: a second is there of a lone route too, and is never below what is unrelated.
    padded = np.sort(np.pad(found, ((0, 0), (0, 2)), constant_values=UNRELATED), axis=1)
    margin = best - padded[:, -2]
    truth = np.concatenate([inside, np.full(QUERIES - len(inside), -1)])
    right = found.argmax(axis=1) == truth
    return best, margin, np.full(QUERIES, table.closeness), right, truth >= 0


def _pick(vectors: Vectors, rng: np.random.Generator) -> Vectors:
    picked: Vectors = vectors[rng.integers(len(vectors))]
    return picked


def fit_logistic(matches: Matches) -> Floats:
    """The weights of `_inputs`, by Newton's method from 0."""
    X = _inputs(matches)
    weights = np.zeros(X.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-X @ weights))
        # A touch of ridge keeps the step defined where the classes part cleanly.
        hessian = (X * (p * (1 - p))[:, None]).T @ X + 1e-6 * np.eye(len(weights))
        step = np.linalg.solve(hessian, X.T @ (matches.right - p))
        weights += step
        if np.abs(step).max() < 1e-10:
            break
    return weights


def _inputs(matches: Matches) -> Floats:
    ones, margin, closeness = np.ones_like(matches.margin), matches.margin, matches.closeness
    return np.stack([ones, matches.similarity, margin, closeness, margin * closeness], axis=1)


def calibration_error(weights: Floats, matches: Matches) -> float:
    """Expected calibration error over BINS equal bins (Naeini et al., 2015)."""
    p = 1 / (1 + np.exp(-_inputs(matches) @ weights))
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = [
        abs(matches.right[bins == at].mean() - p[bins == at].mean()) * (bins == at).mean()
        for at in range(BINS)
        if (bins == at).any()
    ]
    return float(sum(gaps))


def best_threshold(matches: Matches) -> tuple[float, float]:
    """The threshold of the greatest F1 and that F1: a match is right, or wrong, or missed."""
    thresholds = np.arange(0, 100) / 100
    scores = []
    for threshold in thresholds:
        accepted = matches.similarity >= threshold
        right = (accepted & matches.right).sum()
        scores.append(2 * right / max(1, accepted.sum() + matches.in_scope.sum()))
    best = int(np.argmax(scores))
    return float(thresholds[best]), float(scores[best])


def main() -> None:
    """Prints the fitted figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--embedder", default="static")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    embedder = embedder_for(EmbedderSettings(kind=options.embedder))
    sets = [read_intents(options.data / name, embedder) for name in ("clinc150", "banking77")]
    sets.insert(1, departments(sets[0], embedder))
    played = {intents.name: play(intents, INSTALLATIONS) for intents in sets}
    names = list(played)
    everything = _together(played.values())
    weights = fit_logistic(everything)
    threshold, f1 = best_threshold(everything)
    left_out = {
        name: {
            "calibration_error": round(calibration_error(_fit_without(name, played), found), 4),
            "threshold": best_threshold(found)[0],
            "f1_at_shared_threshold": round(_f1_at(found, threshold), 4),
        }
        for name, found in played.items()
    }
    found = {
        "intercept": round(float(weights[0]), 3),
        "similarity": round(float(weights[1]), 3),
        "margin": round(float(weights[2]), 3),
        "closeness": round(float(weights[3]), 3),
        "margin_by_closeness": round(float(weights[4]), 3),
        "usual": round(float(everything.closeness.mean()), 3),
        "threshold": round(float(np.quantile(everything.similarity[everything.right], 0.05)), 2),
        "f1_threshold": threshold,
        "f1": round(f1, 4),
        "calibration_error": round(calibration_error(weights, everything), 4),
        "left_out": left_out,
        "source": f"{len(everything.right)} matches of {' and '.join(names)}",
    }
    print(json.dumps({embedder.model: found}, indent=2))
    if options.write:
        known = json.loads(CALIBRATIONS.read_text())
        CALIBRATIONS.write_text(json.dumps(known | {embedder.model: found}, indent=2) + "\n")


def _together(parts: Iterable[Matches]) -> Matches:
    columns = zip(*(vars(matches).values() for matches in parts), strict=True)
    return Matches(*(np.concatenate(column) for column in columns))


def _fit_without(name: str, played: dict[str, Matches]) -> Floats:
    return fit_logistic(_together(found for other, found in played.items() if other != name))


def _f1_at(matches: Matches, threshold: float) -> float:
    accepted = matches.similarity >= threshold
    right = (accepted & matches.right).sum()
    return float(2 * right / max(1, accepted.sum() + matches.in_scope.sum()))


if __name__ == "__main__":
    main()
