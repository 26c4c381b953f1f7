"""A cascade behind the tables: the accurate encoder serves the requests that are in doubt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from tinydancer.embeddings.cascade import CascadeEmbedder
from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.neural.default_model import builtin
from tinydancer.semantic_routes.table import RouteTable


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


@dataclass(frozen=True)
class Default:
    name = "default"
    classifier = builtin()


CLEAR = "Translate this sentence into French"


def test_a_classification_that_is_clear_costs_no_accurate_encoding(engine: Any) -> None:
    # given the default classifier, one request of a plain category and one between two
    engine.embedder = Cascade(0.06)
    context = replace(engine.context(), classifier=Default())
    engine.context = lambda: context
    # when both are classified
    rows = engine.ask("request_classifications", content=[CLEAR, "qwertz"])
    # then the accurate encoder saw the doubtful one only, and both have a row
    assert engine.embedder.own.asked == ["qwertz"]
    assert (engine.embedder.total, engine.embedder.escalated) == (2, 1)
    assert [row["content"] for row in rows] == [CLEAR, "qwertz"]


def test_a_cascade_that_hands_nothing_over_classifies_by_the_table_alone(engine: Any) -> None:
    engine.embedder = Cascade(0.0)
    context = replace(engine.context(), classifier=Default())
    engine.context = lambda: context
    engine.ask("request_classifications", content=[CLEAR, "qwertz"])
    assert engine.embedder.own.asked == []


def test_routes_searched_elsewhere_are_searched_again_for_what_is_in_doubt(engine: Any) -> None:
    # given routes whose vectors are not in memory, and a search that counts its queries
    engine.embedder = Cascade(0.06)
    here = engine.context()
    routes = here.snapshot.routes
    searched = []

    def search(queries: Any) -> list[Any]:
        searched.append(len(queries))
        return [
            iter(sorted(zip(routes.routes, found.tolist(), strict=True), key=lambda hit: -hit[1]))
            for found in routes.similarities(queries)
        ]

    nothing = np.zeros((0, 384), np.float32)
    bare = RouteTable.build(engine.routes, nothing, np.zeros(0, np.int64))
    context = replace(here, snapshot=replace(here.snapshot, routes=bare), route_search=search)
    expected = engine.ask("semantic_matches", query=["Write a poem", "Write a song"])
    engine.embedder.own.asked.clear()
    engine.context = lambda: context
    # when a clear request and one in doubt are matched
    rows = engine.ask("semantic_matches", query=["Write a poem", "qwertz"])
    # then only the latter was encoded and searched again, and the former's match is as in memory
    assert searched == [2, 1]
    assert engine.embedder.own.asked == ["qwertz"]
    assert [row["route_name"] for row in rows] == [expected[0]["route_name"]] == ["poems"]
