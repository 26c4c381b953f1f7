"""Named routes: which of them a text means, by the likeness of their vectors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import inf

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.base import Vectors
from tinydancer.embeddings.cascade import margins_of
from tinydancer.embeddings.cosine import cosines
from tinydancer.semantic_routes.ranking import Match, Matching, best_matches
from tinydancer.semantic_routes.route import DIGITS, UNRELATED, Hit, Route
from tinydancer.semantic_routes.words import NO_WORDS, SharedWords, WordIndex, Words

Positions = NDArray[np.intp]
Similarities = NDArray[np.float32]

# Vectors whose nearest neighbour is looked for, to tell how close the routes are to each other.
CLOSENESS_SAMPLE = 64


@dataclass(frozen=True, eq=False)
class RouteTable:
    """The active routes, sorted by name, with their vectors.

    A route has a vector of its own and one for each utterance; its similarity to a query is the
    greatest cosine among them. Of m vectors in all, `vectors` is (m, d) with unit rows, those of
    one route side by side, and `starts` (r,) is where each route's begin. `thresholds` (r,) has
    the routes' own, NaN where none. A table without vectors (m = 0) holds routes that are
    searched in the database.
    """

    routes: tuple[Route, ...]
    vectors: Vectors
    starts: Positions
    thresholds: Similarities

    @classmethod
    def build(
        cls, routes: Sequence[Route], vectors: Vectors, owners: NDArray[np.int64]
    ) -> RouteTable:
        """The table of the active ones among `routes`; row i of `vectors` is of `owners[i]`.

        Raises ValueError where the lengths differ, or a route has no vector while others have.
        """
        owners = np.asarray(owners, np.intp)
        if len(owners) != len(vectors):
            raise ValueError(f"{len(vectors)} vectors but {len(owners)} owners")
        order = sorted(
            (row for row, route in enumerate(routes) if route.active),
            key=lambda row: routes[row].name,
        )
        active = tuple(routes[row] for row in order)
        thresholds = np.array(
            [
                np.nan if route.threshold is None else round(route.threshold, DIGITS)
                for route in active
            ],
            np.float32,
        )
        if not len(vectors):
            return cls(active, _float32(vectors), np.zeros(0, np.intp), thresholds)
        position = np.full(len(routes), -1, np.intp)
        position[order] = np.arange(len(order))
        places = position[owners]
        kept = np.flatnonzero(places >= 0)
        kept = kept[np.argsort(places[kept], kind="stable")]
        found, starts = np.unique(places[kept], return_index=True)
        if len(found) != len(active):
            bare = active[int(np.setdiff1d(np.arange(len(active)), found)[0])].name
            raise ValueError(f"route {bare!r} has no vector")
        return cls(active, _float32(vectors[kept]), starts, thresholds)

    def replaced(
        self,
        gone: Collection[str],
        routes: Sequence[Route],
        vectors: Vectors,
        owners: NDArray[np.int64],
    ) -> RouteTable:
        """This table without the routes named in `gone`, and with others, as `build` takes them."""
        if not self.routes:
            return self.build(routes, vectors, owners)
        stays = np.array([route.name not in gone for route in self.routes], np.bool_)
        kept = [
            route for route, it_stays in zip(self.routes, stays.tolist(), strict=True) if it_stays
        ]
        if not len(self.vectors):
            return self.build([*kept, *routes], vectors, owners)
        counts = np.diff(self.starts, append=len(self.vectors))
        return self.build(
            [*kept, *routes],
            np.concatenate([self.vectors[np.repeat(stays, counts)], vectors]),
            np.concatenate([np.repeat(np.arange(len(kept)), counts[stays]), owners + len(kept)]),
        )

    def __len__(self) -> int:
        return len(self.routes)

    @property
    def searched_elsewhere(self) -> bool:
        """Whether there are routes but no vectors of them here."""
        return len(self.routes) > 0 and len(self.vectors) == 0

    def similarities(self, queries: Vectors) -> Similarities:
        """(n, r) the similarity of each query (unit rows) and each route."""
        found = cosines(queries, self.vectors)
        if len(self.vectors) == len(self.routes):
            return found
        return np.maximum.reduceat(found, self.starts, axis=1)

    def least(self, default_threshold: float) -> Similarities:
        """(r,) what a similarity must reach, after rounding, to pass each route's threshold."""
        return _least(self, default_threshold)

    @cached_property
    def word_index(self) -> WordIndex | None:
        """The texts of the routes that are matched by their words as well; None without any."""
        texts = [(route.name, words) for route in self.routes for words in route.words]
        return WordIndex.build(texts) if texts else None

    @cached_property
    def conditional(self) -> NDArray[np.bool_]:
        """(r,) whether a route's conditions ask for a tier or a time of day."""
        asked = (route.conditions for route in self.routes)
        return np.fromiter(
            (bool(c.user_tiers) or c.time_from is not None or c.time_to is not None for c in asked),
            np.bool_,
            len(self.routes),
        )

    @cached_property
    def closeness(self) -> float:
        """How close the routes are: the mean cosine of a vector and the nearest of another route.

        Taken over CLOSENESS_SAMPLE vectors at even distances; 0 of a single route.
        """
        if len(self.routes) < 2:
            return UNRELATED
        step = max(1, len(self.vectors) // CLOSENESS_SAMPLE)
        sample = np.arange(0, len(self.vectors), step)
        found = self.similarities(self.vectors[sample])
        found[np.arange(len(sample)), np.searchsorted(self.starts, sample, side="right") - 1] = -1.0
        return float(found.max(axis=1).mean())

    def margins(self, queries: Vectors, default_threshold: float) -> Similarities:
        """(n,) how clear each query's match is: how far the best similarity is from the next one,
        and from the threshold that parts it from no match at all; the smaller of the two.
        """
        similarities = self.similarities(queries)
        from_threshold = np.abs((similarities - self.least(default_threshold)).max(axis=1))
        return np.asarray(np.minimum(margins_of(similarities), from_threshold))

    def match(
        self, queries: Vectors, matching: Matching, words: Sequence[Words] | None = None
    ) -> list[list[Match]]:
        """For each query (unit rows) the routes it means, best first; none where none fits.

        A route fits where its similarity reaches its threshold or, by the queries' `words`, the
        word index finds it.
        """
        if not len(self.routes):
            return [[] for _ in queries]
        least = self.least(matching.default_threshold)
        words = [NO_WORDS] * len(queries) if words is None else words
        return [
            self._match(row, least, matching, self._shared(has))
            for row, has in zip(self.similarities(queries), words, strict=True)
        ]

    def _match(
        self,
        similarities: Similarities,
        least: Similarities,
        matching: Matching,
        shared: SharedWords,
    ) -> list[Match]:
        passes = similarities >= least
        for name in shared:
            passes[self._positions[name]] = True
        if not passes.any():
            return []
        order = _best_first(np.where(passes, similarities, _NEVER), _FEW + matching.top_k)
        pairs = ((self.routes[at], round(similarities.item(at), DIGITS)) for at in order)
        runner_up = round(float(np.where(passes, -1.0, similarities).max()), DIGITS)
        return best_matches(pairs, lambda: runner_up, self.closeness, matching, shared)

    def match_found(
        self, found: Iterable[Hit], matching: Matching, words: Words = NO_WORDS
    ) -> list[Match]:
        """The routes that a query means among `found`, all routes best first.

        Reads no more of them than it needs: a search in the database finds them page by page. Of
        those that share the query's `words` it needs the similarity, however low.
        """
        shared = self._shared(words)
        awaited = set(shared)
        lowest = self.least(matching.default_threshold).min().item()
        runner_up = -1.0

        def passing() -> Iterator[Hit]:
            nonlocal runner_up
            for route, similarity in found:
                least = matching.default_threshold if route.threshold is None else route.threshold
                value = round(similarity, DIGITS)
                awaited.discard(route.name)
                if value >= round(least, DIGITS) or route.name in shared:
                    yield route, value
                else:
                    runner_up = max(runner_up, value)
                if value < lowest and not awaited:
                    return

        return best_matches(passing(), lambda: runner_up, None, matching, shared)

    def _shared(self, words: Words) -> SharedWords:
        return self.word_index.shared(words) if words and self.word_index is not None else {}

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {route.name: at for at, route in enumerate(self.routes)}


@lru_cache(maxsize=2)
def _least(table: RouteTable, default_threshold: float) -> Similarities:
    unset = np.isnan(table.thresholds)
    # Half a digit less, so that what is rounded up to a threshold passes it.
    least = np.where(unset, np.float32(default_threshold), table.thresholds) - _HALF_DIGIT
    least.flags.writeable = False  # it is the same for all who ask
    return np.asarray(least)


def _best_first(similarities: Similarities, few: int) -> Iterator[int]:
    """Positions by falling similarity, equals in their order, _NEVER left out.

    Of many that pass, usually only a few are looked at: the rest are sorted only where not.
    """
    kept = _NEVER
    if few < len(similarities):
        kept = np.partition(similarities, -few)[-few]
    if kept > _NEVER:
        yield from _falling(similarities, similarities >= kept)
        yield from _falling(similarities, (similarities > _NEVER) & (similarities < kept))
    else:
        yield from _falling(similarities, similarities > _NEVER)


def _falling(similarities: Similarities, these: NDArray[np.bool_]) -> list[int]:
    (positions,) = these.nonzero()
    found: list[int] = positions[np.argsort(-similarities[positions], kind="stable")].tolist()
    return found


# Routes sorted at first beyond those asked for: equals of the last one, and those that may not be
# taken.
_FEW = 32
# The similarity of a route that does not pass: less than any cosine.
_NEVER = np.float32(-2.0)
_HALF_DIGIT = np.float32(0.5 * 10.0**-DIGITS)


def _float32(vectors: Vectors) -> Vectors:
    return np.ascontiguousarray(vectors, np.float32)


def margin_of(best: Sequence[Hit], default_threshold: float) -> float:
    """How clear a match is by its best two routes, as RouteTable.margins says; infinite of none."""
    thresholds = (default_threshold if r.threshold is None else r.threshold for r, _ in best)
    above = [value - least for (_, value), least in zip(best, thresholds, strict=True)]
    apart = best[0][1] - best[1][1] if len(best) > 1 else inf
    return min(apart, abs(max(above))) if best else inf
