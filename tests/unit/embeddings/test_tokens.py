"""WordPiece ids by the cache are those of the tokenizer itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from tinydancer.embeddings import tokens
from tinydancer.embeddings.static import BUILTIN_TABLE, read_static_table
from tinydancer.embeddings.tokens import WordPieces, reached_tokens
from tinydancer.errors import InvalidText, NotReady

VOCABULARY = read_static_table(BUILTIN_TABLE).vocabulary
PIECES = WordPieces(VOCABULARY)


def reference(vocabulary: tuple[str, ...]) -> Tokenizer:
    ids = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


REFERENCE = reference(VOCABULARY)
# All single characters, but few words.
FEW = VOCABULARY[: VOCABULARY.index("the") + 200]
SMALL = reference(FEW)
WORDS = st.sampled_from(
    ["Refund", "my", "café", "e\u0301", "don't", "日本", "a\tb", "\x1f", "[SEP]"]
)
LONG = st.lists(WORDS | st.sampled_from("[](){}=<>.,_\n\t0aZ"), min_size=20, max_size=60).map(
    "".join
)
TEXTS = LONG | st.text() | st.lists(WORDS | st.text(max_size=8), max_size=12).map(" ".join)


@given(TEXTS)
def test_a_text_has_the_ids_that_the_tokenizer_gives_it_as_a_whole(text: str) -> None:
    assert PIECES.ids(text) == REFERENCE.encode(text, add_special_tokens=False).ids


ASCII = st.text(st.characters(max_codepoint=126), max_size=12)


@given(ASCII.filter(lambda word: " " not in word))
def test_a_new_word_of_plain_letters_has_the_ids_that_the_tokenizer_gives_it(word: str) -> None:
    # given a vocabulary in which few words are whole, and some letters unknown
    assert WordPieces(FEW).ids(word) == SMALL.encode(word).ids


@pytest.mark.parametrize(
    "text",
    [
        "a" * 100,
        "a" * 101,
        "é" * 101,
        "a" * 99 + "-" + "b" * 101 + "c",
        "x" * 60 + "\x00" + "y" * 60,
        "日本" * 80,
        'SELECT(a.b,c)\tFROM\n"t";' * 20,
        ",\u0301" * 40,
        "\x1c" * 50 + "order" + "\x85" * 50 + "refund",
    ],
)
def test_a_long_word_has_the_ids_that_the_tokenizer_gives_it(text: str) -> None:
    assert PIECES.ids(text) == REFERENCE.encode(text, add_special_tokens=False).ids


def test_every_word_that_skips_the_tokenizer_is_its_own_only_piece() -> None:
    words = [w for w in VOCABULARY if w.isascii() and w.isalnum() and w == w.lower()]
    assert len(words) > 20_000
    encoded = REFERENCE.encode_batch(words, add_special_tokens=False)
    assert [PIECES.ids(word) for word in words] == [one.ids for one in encoded]


def test_the_name_of_a_special_token_in_a_text_is_plain_text() -> None:
    assert [VOCABULARY[i] for i in PIECES.ids("[SEP]")] == ["[", "sep", "]"]


def test_the_cache_stays_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a cache with room for three words beyond the vocabulary's own
    pieces = WordPieces(["[UNK]", "a", "##b"])
    monkeypatch.setattr(tokens, "MAX_WORDS", 4)
    # when more words than that arrive
    seen = [pieces.ids("a" + "b" * n) for n in range(10)]
    # then every one of them is right, and the cache holds no more than its bound
    assert seen == [[1] + [2] * n for n in range(10)]
    assert len(pieces._words) <= 4


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(InvalidText, match=r"not valid Unicode: '\\ud800'"):
        PIECES.ids("refund \ud800 please")


def test_a_vocabulary_without_the_unknown_token_is_refused() -> None:
    with pytest.raises(NotReady, match=r"no \[UNK\]"):
        WordPieces(["a", "b"])


def test_a_vocabulary_with_a_token_twice_is_refused() -> None:
    with pytest.raises(NotReady, match="1 tokens twice"):
        WordPieces(["[UNK]", "b", "b"])


def test_tokens_that_no_text_has_are_told_from_those_that_some_has() -> None:
    vocabulary = [
        "[PAD]",
        "[unused3]",
        "[UNK]",
        "[SEP]",
        "the",
        "##ing",
        "Ω",
        "日",
        "##日",
        ".",
        "##.",
    ]
    reached = [vocabulary[number] for number in reached_tokens(vocabulary)]
    # "Ω" is written small first; "日" and "." are cut off from what stands before them.
    assert reached == ["[UNK]", "the", "##ing", "日", "."]


@given(TEXTS)
def test_a_text_has_no_token_that_is_said_to_be_unreached(text: str) -> None:
    # given a vocabulary with pieces of every kind
    vocabulary = ("[UNK]", "a", "##a", "é", "##é", "日", "##日", "[", "##[", "Q", "##]", "#", "##0")
    reached = set(reached_tokens(vocabulary))
    # when a text is cut, then all that it has was foreseen
    assert reached.issuperset(WordPieces(vocabulary).ids(text))
