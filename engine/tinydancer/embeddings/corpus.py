"""The texts that the static table is fitted on: requests, sentences, and variants of requests."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinydancer.errors import InvalidInput

MIN_CHARACTERS, MAX_CHARACTERS = 3, 400
MAX_SENTENCES = 100_000
"""Sentences that are taken, at random, of more: each costs the encoder that is copied some ms."""
WORDNET_FILES = ("data.noun", "data.verb", "data.adj", "data.adv")


@dataclass(frozen=True)
class Corpus:
    """Texts without labels. `requests` are what people ask of software; they are what a router
    sees, so they weigh more and are varied. `sentences` are any others, for the rest of the words.
    """

    requests: tuple[str, ...]
    sentences: tuple[str, ...]


def read_corpus(requests: Sequence[Path], wordnet: Path | None) -> Corpus:
    """Read request files and, where given, WordNet's database directory.

    A request file has one text a line, or, named .jsonl or .jsonl.gz, one object with a `text` a
    line. Raises InvalidInput for a file of test data: it has no place in a table that is shipped.
    """
    texts = _distinct([text for path in requests for text in _read_requests(path)])
    if not texts:
        raise InvalidInput("the static table needs requests to be fitted on, and there are none")
    sentences = sorted(_distinct(_read_wordnet(wordnet))) if wordnet else []
    if len(sentences) > MAX_SENTENCES:
        sentences = random.Random(0).sample(sentences, MAX_SENTENCES)  # noqa: S311
    return Corpus(texts, tuple(sentences))


def vary(requests: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` new texts made of the requests: parts, gaps, splices of two, words swapped in.

    The encoder that is copied says what each means, so a variant need not be good English: it
    shows what a word adds in other company.
    """
    chance = random.Random(seed)  # noqa: S311  (reproducible, and nothing secret)
    return [_variant(requests, chance) for _ in range(count)]


def _variant(requests: Sequence[str], chance: random.Random) -> str:
    words = chance.choice(requests).split()
    kind = chance.random()
    if kind < 0.4:
        length = chance.randint(2, max(2, min(len(words), 8)))
        start = chance.randint(0, max(0, len(words) - length))
        return " ".join(words[start : start + length])
    if kind < 0.6:
        return " ".join(word for word in words if chance.random() > 0.25) or words[0]
    other = chance.choice(requests).split()
    if kind < 0.8:
        cut, start = chance.randint(1, len(words)), chance.randint(0, len(other) - 1)
        return " ".join(words[:cut] + other[start:])
    words[chance.randrange(len(words))] = chance.choice(other)
    return " ".join(words)


def _read_requests(path: Path) -> list[str]:
    if re.search(r"(^|_)test($|[._])", path.name):
        raise InvalidInput(
            f"{path} is test data, which must not go into a table",
            hint="give training texts only",
        )
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        lines = [line.strip() for line in content.decode().splitlines()]
        if ".jsonl" not in path.suffixes:
            return lines
        return [str(json.loads(line)["text"]) for line in lines if line]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{path} is not a text a line, nor (.jsonl) an object with a `text` a line: {error!r}"
        ) from error


def _read_wordnet(directory: Path) -> list[str]:
    """The definitions and example sentences of WordNet's data files (wndb(5WN))."""
    found = []
    for name in WORDNET_FILES:
        path = directory / name
        if not path.is_file():
            raise InvalidInput(
                f"{directory} has no {name}: it is not WordNet's database",
                hint="give the directory of data.noun, such as /usr/share/wordnet",
            )
        for line in path.read_text("utf-8", errors="replace").splitlines():
            if line.startswith("  ") or "|" not in line:
                continue  # the licence, which stands at the head of each file
            gloss = line.split("|", 1)[1]
            found += re.findall(r'"([^"]+)"', gloss)
            found.append(re.split(r';\s*"', gloss)[0].strip(" ;"))
    return found


def _distinct(texts: Sequence[str]) -> tuple[str, ...]:
    fitting = (text for text in texts if MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS)
    return tuple(dict.fromkeys(fitting))
