"""How long the cell, a classification and training take.

    OPENBLAS_NUM_THREADS=1 python tests/benchmarks/bench_neural.py [--data DIR] [--json]

Times are of one thread: the median and the least by the clock, the median of processor time, which
other processes disturb less, and the first as a ratio to the matrix product that the work can't do
without, which varies less from machine to machine. --data is a directory
with banking77/train.jsonl.gz: with it a classifier is trained on all its rows and timed, alone and
with a thousand texts embedded and classified; without, one of random weights of the same size is.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.neural.calibration import Conformal, ScopeRule
from tinydancer.neural.classifier import Calibration, RouteClassifier
from tinydancer.neural.dataset import LabelledText, prepare
from tinydancer.neural.fastgrnn import CellShape, initialise
from tinydancer.neural.fitting import fit
from tinydancer.neural.quantized import QuantizedCell
from tinydancer.neural.training import Network

Row = dict[str, float | str]


def timed(
    name: str,
    unit: str,
    work: Callable[[], object],
    floor: Callable[[], object] | None,
    rounds: int = 2000,
) -> Row:
    """The figures of one piece of work, its floor timed in between."""
    scale = {"µs": 1e6, "ms": 1e3}[unit]
    taken: dict[Callable[[], object], list[float]] = {work: []}
    processor: list[float] = []
    if floor is not None:
        taken[floor] = []
    for _ in range(rounds):
        for each, times in taken.items():
            used = time.thread_time()
            began = time.perf_counter()
            each()
            times.append((time.perf_counter() - began) * scale)
            if each is work:
                processor.append((time.thread_time() - used) * scale)
    median = float(np.median(taken[work]))
    row: Row = {
        "what": name,
        "unit": unit,
        "p50": median,
        "least": min(taken[work]),
        "processor": float(np.median(processor)),
    }
    if floor is not None:
        row["ratio"] = median / float(np.median(taken[floor]))
    return row


def random_classifier(classes: int = 77) -> RouteClassifier:
    rng = np.random.default_rng(0)
    network = Network(
        initialise(CellShape(384, 384, rank_u=1), 0),
        {
            "V": rng.normal(size=(classes, 384)).astype(np.float32),
            "c": np.zeros(classes, np.float32),
        },
    )
    prototypes = rng.normal(size=(classes, 384)).astype(np.float32)
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    calibration = Calibration(
        (1.0,),
        Conformal(0.95, 0.1, 1000),
        ScopeRule((0.1, 0.1, 5.0), 1.0, 0.05, None, 0),
        tuple(np.linspace(0, 1, 21)),
    )
    names = tuple(f"category {i:03}" for i in range(classes))
    return RouteClassifier(names, (), "random", network, prototypes, calibration)


def steps() -> list[Row]:
    rng = np.random.default_rng(0)
    x, h = rng.normal(size=768).astype(np.float32), np.zeros(64, np.float32) + np.float32(0.1)
    smooth = initialise(CellShape(768, 64), 0)
    untied = initialise(CellShape(768, 64, tied=False), 0)
    small = initialise(CellShape(768, 64, rank_w=16, rank_u=16), 0)
    in_bytes = QuantizedCell.of(initialise(CellShape(768, 64, nonlinearity="piecewise"), 0))
    W = smooth.input_weights
    return [
        timed("step, 768 inputs, 64 hidden", "µs", lambda: smooth.step(x, h), lambda: W.dot(x)),
        timed("the same, untied", "µs", lambda: untied.step(x, h), lambda: W.dot(x)),
        timed("the same, rank 16", "µs", lambda: small.step(x, h), lambda: W.dot(x)),
        timed("the same, in bytes", "µs", lambda: in_bytes.step(x, h), lambda: W.dot(x)),
    ]


def classifications(classifier: RouteClassifier) -> list[Row]:
    x = np.random.default_rng(1).normal(size=(1, 384)).astype(np.float32)
    x /= np.linalg.norm(x)
    W = classifier.network.cell.input_weights
    return [
        timed("a vector classified", "µs", lambda: classifier.classify(x), lambda: W.dot(x[0])),
    ]


def trained(data: Path) -> list[Row]:
    path = data / "banking77" / "train.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    embedder = StaticEmbedder.builtin()
    checked = prepare(LabelledText(row["text"], row["label"]) for row in rows)
    vectors = embedder.embed(checked.texts)
    began, processor = time.perf_counter(), time.process_time()
    classifier = fit(checked, vectors, embedder.space).classifier
    seconds, used = time.perf_counter() - began, time.process_time() - processor
    texts = list(checked.texts[:1000])

    def thousand() -> object:
        return classifier.classify(embedder.embed(texts), texts)

    return [
        {
            "what": f"training on {len(checked)} rows, seconds",
            "unit": "s",
            "p50": seconds,
            "least": seconds,
            "processor": used,
        },
        *classifications(classifier),
        timed("1,000 texts embedded", "ms", lambda: embedder.embed(texts), None, 30),
        timed("1,000 texts embedded and classified", "ms", thousand, None, 30),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    rows = steps()
    rows += trained(given.data) if given.data else classifications(random_classifier())
    if given.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for row in rows:
        ratio = f"{row['ratio']:8.2f} × the product" if "ratio" in row else ""
        times = f"{row['p50']:9.1f} {row['unit']} p50{row['least']:9.1f} least"
        print(f"{row['what']:<42}{times}{row['processor']:9.1f} processor {ratio}")


if __name__ == "__main__":
    main()
