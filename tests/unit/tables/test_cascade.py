"""A cascade behind the tables: the accurate encoder serves the requests that are in doubt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tinydancer.embeddings.cascade import CascadeEmbedder
from tinydancer.embeddings.static import StaticEmbedder


class Accurate:
    """The built-in embedder, and a record of what it was asked for."""

    def __init__(self) -> None:
        self._embedder = StaticEmbedder.builtin()
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedder, name)

    def embed(self, texts: list[str]) -> Any:
        self.asked += texts
        return self._embedder.embed(texts)


class Cascade(CascadeEmbedder):
    def __init__(self, threshold: float) -> None:
        self.own = Accurate()
        super().__init__(StaticEmbedder.builtin(), self.own, threshold)
        self.embedded = self.own.asked


@pytest.mark.parametrize(
    ("table", "column"), [("semantic_matches", "query"), ("route_decisions", "request")]
)
def test_a_clear_request_costs_no_accurate_encoding_and_one_in_doubt_does(
    engine: Any, table: str, column: str
) -> None:
    # given a route whose description the first request repeats, and a request that means nothing
    engine.embedder = Cascade(0.06)
    clear, doubtful = "Write a poem", "qwertz"
    # when both are asked in one scan
    rows = engine.ask(table, **{column: [clear, doubtful]})
    # then the accurate encoder saw the doubtful one only
    assert engine.embedder.own.asked == [doubtful]
    assert (engine.embedder.total, engine.embedder.escalated) == (2, 1)
    assert rows[0][column] == clear


def test_a_request_near_the_threshold_of_the_only_route_is_in_doubt(engine: Any) -> None:
    # given one route, and a request as near to it as its threshold
    engine.embedder = Cascade(0.06)
    poems = engine.routes[2]
    vectors = StaticEmbedder.builtin().embed([poems.description, "Write a song"])
    near = float(vectors[0] @ vectors[1])
    # when it is asked, and asked again of a route whose threshold is far from it
    for threshold, expected in ((near + 0.01, 1), (near - 0.3, 1)):
        engine.routes = (replace(poems, threshold=threshold),)
        engine.ask("semantic_matches", query="Write a song")
        # then the accurate encoder took over the first time only
        assert engine.embedder.escalated == expected
