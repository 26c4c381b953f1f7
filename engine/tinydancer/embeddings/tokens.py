"""Text to WordPiece ids, as BERT's lower-case tokenizer does it, at dictionary speed."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from tinydancer.errors import InvalidText, NotReady

UNKNOWN = "[UNK]"
INNER = "##"
MAX_WORDS = 100_000
"""Words that the cache holds, those of the vocabulary among them."""
MAX_CACHED_LENGTH = 40
"""Longer words are taken apart or tokenized each time: the cache is bounded in bytes as well."""
MAX_WORD_LENGTH = 100
"""Longer words are unknown, as in BERT's own tokenizer."""

# BERT's tokenizer cuts at white space, and before and after each ASCII punctuation mark.
_PARTS = re.compile(r"[!-/:-@\[-`{-~]|[^\t\n\r!-/:-@\[-`{-~]+")


def reached_tokens(vocabulary: Sequence[str]) -> list[int]:
    """The numbers of [UNK] and of all tokens that BERT's tokenizer finds in some text.

    BERT's vocabulary has others as well: names of special tokens, and inner pieces of what is
    never inside a word, since the tokenizer cuts before and after it (a Chinese character, a
    punctuation mark).
    """
    normaliser, cutter = BertNormalizer(lowercase=True), BertPreTokenizer()

    def is_reached(token: str) -> bool:
        if token == UNKNOWN:
            return True
        # An inner piece stands after something.
        word = "a" + token[2:] if token.startswith(INNER) and token != INNER else token
        parts = cutter.pre_tokenize_str(normaliser.normalize_str(word))
        return [part for part, _ in parts] == [word]

    return [number for number, token in enumerate(vocabulary) if is_reached(token)]


class WordPieces:
    """BERT's lower-case WordPiece over one vocabulary. Thread-safe.

    The tokenizer treats what stands between two spaces on its own (it normalises character by
    character and never joins across a space), so the ids of a text are those of its words in
    order, and the ids of a word can be remembered. Most words of a request were seen before:
    that makes a sentence some microseconds instead of some tens. What looks like a special
    token ("[SEP]") is plain text here.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        ids = {token: number for number, token in enumerate(vocabulary)}
        if UNKNOWN not in ids:
            raise NotReady(
                f"the vocabulary of {len(ids)} tokens has no {UNKNOWN}",
                hint="fetch or build the model again",
            )
        if len(ids) != len(vocabulary):
            raise NotReady(
                f"the vocabulary has {len(vocabulary) - len(ids)} tokens twice",
                hint="fetch or build the model again",
            )
        self.vocabulary = tuple(vocabulary)
        self.unknown = ids[UNKNOWN]
        self._model = WordPiece(ids, unk_token=UNKNOWN, max_input_chars_per_word=MAX_WORD_LENGTH)
        self._tokenizer = Tokenizer(self._model)
        self._tokenizer.normalizer = BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = BertPreTokenizer()
        # A lower-case ASCII word of the vocabulary is its own only piece: nothing to tokenize.
        self._whole: dict[str, tuple[int, ...]] = {
            token: (number,)
            for token, number in ids.items()
            if token.isascii() and token.isalnum() and token == token.lower()
        }
        self._words = dict(self._whole)

    def ids(self, text: str) -> list[int]:
        """The text's token ids in order, special tokens left out; empty where it has no words.

        Raises InvalidText where the text can't be written as UTF-8 (a lone surrogate).
        """
        words = self._words
        found: list[int] = []
        for word in text.split(" "):
            pieces = words.get(word)
            if pieces is not None:
                found += pieces
            elif len(word) <= MAX_CACHED_LENGTH:
                found += self._tokenize(word)
            else:
                found += self._cut(word)
        return found

    def counts(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,) how many ids each text has. Raises InvalidText."""
        return np.fromiter((len(self.ids(text)) for text in texts), np.int64, count=len(texts))

    def _cut(self, word: str) -> list[int]:
        """The ids of a long word by its parts: code, addresses and tables have few spaces."""
        found: list[int] = []
        for match in _PARTS.finditer(word):
            part = match.group()
            if len(part) > MAX_WORD_LENGTH and part.isascii() and part.isalnum():
                found.append(self.unknown)
            else:
                found += self._words.get(part) or self._tokenize(part)
        return found

    def _tokenize(self, word: str) -> tuple[int, ...]:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise InvalidText(
                f"the text has a character that is not valid Unicode: {word[error.start]!a}",
                hint="send text that can be encoded as UTF-8",
            ) from None
        if word.isascii() and word.isprintable():
            # All that the normaliser would do is lower the case: the model alone is six times
            # as quick.
            parts = _PARTS.findall(word.lower())
            pieces = tuple(token.id for part in parts for token in self._model.tokenize(part))
        else:
            pieces = tuple(self._tokenizer.encode(word, add_special_tokens=False).ids)
        if len(word) <= MAX_CACHED_LENGTH:
            if len(self._words) >= MAX_WORDS:
                # A fresh dictionary, not clear(): another thread may be reading the old one.
                self._words = dict(self._whole)
            self._words[word] = pieces
        return pieces
