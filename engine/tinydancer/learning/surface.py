"""What the surface of a text says about how hard it is: lengths, numbers, operators, options.

A sentence vector knows the topic of a request and little of its size: how many steps a sum has,
how many numbers it juggles, how long its options are. These figures are cheap (tens of
microseconds) and, on public tables of model scores, worth more than the vector (docs/learning.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import log1p, sqrt

import numpy as np
from numpy.typing import NDArray

MOST_CHARACTERS = 20_000
"""Characters of a text that are looked at; the length itself is counted whole."""
LARGEST_NUMBER = 1e9

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_OPTION = re.compile(r"^[ \t]*\(?[A-Z][.):][ \t]+(.*)$", re.MULTILINE)
_SENTENCE = re.compile(r"[.!?]+(?:\s|$)")
_FRACTION = re.compile(r"\d\s*/\s*\d")
_MONEY = re.compile(r"[$€£¥]\s?\d")
_OPERATOR = re.compile(r"[=+*/^<>×÷±−∈∑√≤≥]")
_LATEX = re.compile(r"\\[a-z]+|\$[^$\n]+\$|[_^]\{")
_CODE = re.compile(r"[{}\[\];`#]|\w\(")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+")
_BLANK = re.compile(r"__+|\.\.\.")
_STATEMENT = re.compile(r"[Ss]tatement|\bI{1,3}\b")
_HOW_MANY = re.compile(r"\bhow (?:many|much)\b", re.IGNORECASE)

_LEXICON = {
    "number_words": "one two three four five six seven eight nine ten eleven twelve twenty thirty "
    "forty fifty hundred thousand million dozen",
    "fraction_words": "half halves third thirds quarter quarters fourth fifth twice double doubled "
    "triple tripled thrice",
    "rate_words": "per each every",
    "comparisons": "more less fewer than times greater older younger taller longer remaining left "
    "rest total altogether average",
    "negations": "not except never no none neither nor without incorrect false",
    "conditions": "if unless suppose assume given when then however but although because",
    "quantifiers": "all some any every both either must always",
    "time_words": "day days week weeks month months year years hour hours minute minutes second "
    "seconds today yesterday tomorrow",
    "first_and_second_person": "i my we our you your",
}
_CLASSES_OF: dict[str, tuple[int, ...]] = {}
for _number, _words in enumerate(_LEXICON.values()):
    for _word in _words.split():
        _CLASSES_OF[_word] = (*_CLASSES_OF.get(_word, ()), _number)
_QUESTIONS = ("what", "which", "who", "how", "why", "when", "where")

SURFACE_FEATURES = (
    *("characters", "words", "stem_characters", "word_length", "longest_word", "word_length_sd"),
    *("long_words", "type_token_ratio", "sentences", "sentence_words", "longest_sentence", "lines"),
    *("numbers", "number_density", "distinct_numbers", "repeated_numbers", "largest_number"),
    *("smallest_number", "mean_log_number", "decimals", "large_numbers", "unround_numbers"),
    *("fractions", "percentages", "money"),
    *_LEXICON,
    *("operators", "latex", "code", "digit_share", "punctuation", "parentheses", "quotes"),
    *("upper_share", "non_ascii", "names", "name_density", "question_marks", "blanks"),
    *("options", "option_length", "option_length_sd", "longest_option", "numeric_options"),
    *("one_word_options", "statements", "ends_in_colon", "ends_in_question"),
    *(f"asks_{word}" for word in _QUESTIONS),
    "asks_how_many",
)
"""Names of the features, in the order of the columns."""


def surface_features(texts: Sequence[str]) -> NDArray[np.float32]:
    """(n, len(SURFACE_FEATURES)) float32, all finite. Counts are log(1 + count)."""
    rows = np.array([_features(text) for text in texts], dtype=np.float32)
    return rows.reshape(len(texts), len(SURFACE_FEATURES))


def _features(whole: str) -> list[float]:
    text = whole[:MOST_CHARACTERS]
    size = max(len(text), 1)
    first_option = _OPTION.search(text)
    stem = text[: first_option.start()] if first_option else text
    words = [word.lower() for word in _WORD.findall(text)]
    return [
        log1p(len(whole)),
        *_of_words(words, stem),
        log1p(text.count("\n")),
        *_of_numbers(text, words),
        *_of_lexicon(words),
        *_of_signs(text, size, max(len(words), 1)),
        *_of_options(text, first_option is not None),
        float(len(_STATEMENT.findall(text)) > 1),
        float(stem.rstrip().endswith(":")),
        float(stem.rstrip().endswith("?")),
        *_of_questions(text, words),
    ]


def _of_words(words: list[str], stem: str) -> list[float]:
    count = max(len(words), 1)
    lengths = [len(word) for word in words] or [0]
    mean, deviation = _mean_and_deviation(lengths)
    sentences = [len(part.split()) for part in _SENTENCE.split(stem) if part.strip()] or [0]
    return [
        log1p(count),
        log1p(len(stem)),
        mean,
        float(min(max(lengths), 100)),
        min(deviation, 100.0),
        sum(length >= 8 for length in lengths) / count,
        len(set(words)) / sqrt(count),
        log1p(len(sentences)),
        log1p(sum(sentences) / len(sentences)),
        log1p(max(sentences)),
    ]


def _of_numbers(text: str, words: list[str]) -> list[float]:
    found = _NUMBER.findall(text)
    values = [min(float(number.replace(",", "")), LARGEST_NUMBER) for number in found]
    distinct = len(set(values))
    return [
        log1p(len(found)),
        len(found) / max(len(words), 1),
        log1p(distinct),
        log1p(len(values) - distinct),
        log1p(max(values, default=0)),
        log1p(min(values, default=0)),
        sum(map(log1p, values)) / max(len(values), 1),
        log1p(sum("." in number for number in found)),
        log1p(sum(value >= 100 for value in values)),
        log1p(sum(value >= 10 and value % 10 != 0 for value in values)),
        log1p(len(_FRACTION.findall(text))),
        log1p(text.count("%") + words.count("percent")),
        log1p(len(_MONEY.findall(text))),
    ]


def _of_lexicon(words: list[str]) -> list[float]:
    counts = [0] * len(_LEXICON)
    for word in words:
        for number in _CLASSES_OF.get(word, ()):
            counts[number] += 1
    return [log1p(count) for count in counts]


def _of_signs(text: str, size: int, words: int) -> list[float]:
    names = len(_NAME.findall(text))
    return [
        log1p(len(_OPERATOR.findall(text))),
        log1p(len(_LATEX.findall(text))),
        log1p(len(_CODE.findall(text))),
        sum(map(str.isdigit, text)) / size,
        (text.count(",") + text.count(";") + text.count(":")) / words,
        log1p(text.count("(")),
        log1p(sum(map(text.count, '"“‘'))),
        sum(map(str.isupper, text)) / size,
        log1p(0 if text.isascii() else sum(character > "\x7f" for character in text)),
        log1p(names),
        names / words,
        log1p(text.count("?")),
        log1p(len(_BLANK.findall(text))),
    ]


def _of_options(text: str, has_options: bool) -> list[float]:
    options = _OPTION.findall(text) if has_options else []
    if not options:
        return [0.0] * 6
    lengths = [len(option) for option in options]
    mean, deviation = _mean_and_deviation(lengths)
    return [
        float(min(len(options), 26)),
        log1p(mean),
        log1p(deviation),
        log1p(max(lengths)),
        sum(any(map(str.isdigit, option)) for option in options) / len(options),
        sum(len(option.split()) <= 1 for option in options) / len(options),
    ]


def _of_questions(text: str, words: list[str]) -> list[float]:
    present = set(words)
    asks = [float(word in present) for word in _QUESTIONS]
    return [*asks, float(_HOW_MANY.search(text) is not None)]


def _mean_and_deviation(values: list[int]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, sqrt(sum((value - mean) ** 2 for value in values) / len(values))
