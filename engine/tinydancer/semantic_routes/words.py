"""The routes that a request shares words with: what hybrid matching adds to likeness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

Words = frozenset[str]
# The words of a query whose words were not asked for.
NO_WORDS: Words = frozenset()
# For each request its words, as the database's full text search makes them.
RequestWords = Callable[[Sequence[str]], Sequence[Words]]
# Routes by name, and how many words are shared with each.
SharedWords = Mapping[str, int]


@dataclass(frozen=True, eq=False)
class WordIndex:
    """The texts of routes by their words.

    `texts` has the route and the words of each; `by_rarest` those by the one of their words that
    the fewest texts have: who lacks that word lacks the text; `by_word` those by each word.
    """

    texts: tuple[tuple[str, Words], ...]
    by_rarest: Mapping[str, tuple[int, ...]]
    by_word: Mapping[str, frozenset[int]]

    @classmethod
    def build(cls, texts: Iterable[tuple[str, Words]]) -> WordIndex:
        """The index of texts, each with its route; those without words are left out."""
        kept = tuple((route, words) for route, words in texts if words)
        counts = Counter(word for _, words in kept for word in words)
        by_rarest: dict[str, list[int]] = {}
        by_word: dict[str, list[int]] = {}
        for at, (_, words) in enumerate(kept):
            by_rarest.setdefault(min(words, key=lambda word: (counts[word], word)), []).append(at)
            for word in words:
                by_word.setdefault(word, []).append(at)
        return cls(
            kept,
            {word: tuple(places) for word, places in by_rarest.items()},
            {word: frozenset(places) for word, places in by_word.items()},
        )

    def shared(self, request: Words) -> SharedWords:
        """The routes that have a text whose words the request has all of, or the other way round.

        Each with the number of words shared, the greatest where several of its texts are.
        """
        found: dict[str, int] = {}
        for word in request:
            for at in self.by_rarest.get(word, ()):
                route, words = self.texts[at]
                if words <= request:
                    found[route] = max(found.get(route, 0), len(words))
        for at in self._containing(request):
            route, _ = self.texts[at]
            found[route] = max(found.get(route, 0), len(request))
        return found

    def _containing(self, request: Words) -> frozenset[int]:
        """The texts that have all words of a request."""
        if not request or not all(word in self.by_word for word in request):
            return frozenset()
        first, *others = sorted((self.by_word[word] for word in request), key=len)
        return first.intersection(*others)
