"""How long embedding takes.

    python -m tests.benchmarks.bench_embeddings [--models DIR] [--json]

Times are microseconds a text on one thread, by the clock; `processor` is the median of processor
time, which other processes disturb less. Texts are random words, each text new: only words repeat,
as they do in requests. The ratio is to the tokenizer alone on the same sentence, in processor time,
which varies least from machine to machine. MiniLM is measured where --models has it: the directory
above the one that `tinydancer models fetch minilm` prints, /var/cache/tinydancer for root.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from tinydancer.embeddings.cache import CachedEmbedder
from tinydancer.embeddings.fetch import default_cache_dir, minilm_directory
from tinydancer.embeddings.minilm import MiniLMEmbedder
from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.embeddings.static_table import builtin_vocabulary

Row = dict[str, object]


def sentences(count: int, tokens: int, seed: int) -> list[str]:
    """New texts of that many tokens, their words drawn by Zipf's law from the vocabulary."""
    vocabulary = builtin_vocabulary()
    words = [w for w in vocabulary[vocabulary.index("the") :] if w.isascii() and w.isalpha()]
    chance = random.Random(seed)
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    drawn = chance.choices(words, weights, k=count * tokens)
    return [" ".join(drawn[at : at + tokens]) for at in range(0, len(drawn), tokens)]


def times(work: Callable[[list[str]], object], batches: list[list[str]]) -> np.ndarray:
    """(batches, 2) microseconds a text: by the clock, and of this thread's processor time."""
    taken = []
    for batch in batches:
        began = time.perf_counter(), time.thread_time()
        work(batch)
        ended = time.perf_counter(), time.thread_time()
        taken.append([(e - b) / len(batch) * 1e6 for b, e in zip(began, ended, strict=True)])
    return np.array(taken)


def speeds(static: StaticEmbedder, minilm: MiniLMEmbedder | None) -> list[Row]:
    vocabulary = {token: number for number, token in enumerate(builtin_vocabulary())}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    single = [[text] for text in sentences(2000, 14, 1)]
    hundreds = [sentences(100, 14, seed) for seed in range(40)]
    thousands = [sentences(1000, 14, seed) for seed in range(100, 110)]
    cached = CachedEmbedder(static, 10_000)
    cached.embed([batch[0] for batch in single])
    works: list[tuple[str, Callable[[list[str]], object], list[list[str]]]] = [
        ("tokenizer alone, one sentence", lambda b: tokenizer.encode(b[0]).ids, single),
        ("static, one sentence", static.embed, single),
        ("static, 100 sentences", static.embed, hundreds),
        ("static, 1,000 sentences", static.embed, thousands),
        ("static, one text of 10,000 tokens", static.embed, [sentences(1, 10_000, 7)] * 20),
        ("cache, one sentence seen before", cached.embed, single),
    ]
    if minilm:
        works.append(("MiniLM, one sentence", minilm.embed, single[:200]))
        works.append(("MiniLM, 100 sentences", minilm.embed, hundreds[:3]))
    rows: list[Row] = []
    for name, work, batches in works:
        work(batches[0])
        taken = times(work, batches)
        p50, p90, p99 = np.percentile(taken[:, 0], [50, 90, 99])
        processor = float(np.median(taken[:, 1]))
        rows.append({"what": name, "p50": p50, "p90": p90, "p99": p99, "processor": processor})
    alone = float(rows[0]["processor"])  # type: ignore[arg-type]
    for row in rows:
        row["ratio"] = float(row["processor"]) / alone  # type: ignore[arg-type]
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=default_cache_dir())
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    static = StaticEmbedder.builtin()
    directory = minilm_directory(asked.models)
    minilm = MiniLMEmbedder(directory) if directory.is_dir() else None
    rows = speeds(static, minilm)
    if asked.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        shown = [f"{k} {v:,.1f}" if isinstance(v, float) else str(v) for k, v in row.items()]
        print(" · ".join(shown))


if __name__ == "__main__":
    main()
