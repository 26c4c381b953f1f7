from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tinydancer.embeddings.base import Vectors
from tinydancer.errors import InvalidInput, NotFound, TooLarge
from tinydancer.semantic_routes.conditions import Conditions
from tinydancer.semantic_routes.route import Hit, Route
from tinydancer.semantic_routes.table import RouteTable
from tinydancer.tables import SCANS, answer
from tinydancer_fdw.contract import TABLES
from tinydancer_fdw.frames import Scan

if TYPE_CHECKING:
    from .conftest import Engine

SUPPORT = "I need help from customer support"


def test_there_is_a_scan_for_every_table_of_the_contract() -> None:
    assert set(SCANS) == set(TABLES)


def test_an_unknown_table_is_named_with_those_there_are(engine: Engine) -> None:
    with pytest.raises(NotFound, match="there is no foreign table 'route_decision'") as error:
        answer(engine.context(), Scan("route_decision", (), ()))
    assert "semantic_matches" in error.value.hint


def test_an_unknown_column_is_named(engine: Engine) -> None:
    with pytest.raises(InvalidInput, match="engine_status has no column 'colour'"):
        engine.ask("engine_status", columns=["colour"])


def test_a_text_over_the_limit_of_the_settings_is_refused(engine: Engine) -> None:
    engine.settings = replace(engine.settings, max_text_bytes=10)
    with pytest.raises(TooLarge, match="query has 11 bytes, over the limit of 10"):
        engine.ask("semantic_matches", query="x" * 11)


def test_a_text_is_matched_to_the_route_it_means(engine: Engine) -> None:
    (row,) = engine.ask("semantic_matches", query=SUPPORT)
    assert row["query"] == SUPPORT
    assert (row["rank"], row["route_name"]) == ("1", "customer_support")
    assert (row["target_agent"], row["priority"]) == ("support-agent", "1")
    assert 0.7 <= float(row["similarity"] or "") <= 1.0
    assert 0.0 <= float(row["confidence"] or "") <= 1.0


def test_a_text_that_means_no_route_has_no_row(engine: Engine) -> None:
    assert engine.ask("semantic_matches", query="bananas are yellow") == []
    engine.routes = ()
    assert engine.ask("semantic_matches", query=SUPPORT) == []


def test_top_k_bounds_the_matches_of_each_query(engine: Engine) -> None:
    engine.routes = tuple(Route(f"r{at}", "customer support", "x", at) for at in range(5))
    rows = engine.ask("semantic_matches", query=[SUPPORT, "support for customers"], top_k="2")
    assert [(row["query"], row["rank"], row["route_name"]) for row in rows] == [
        (SUPPORT, "1", "r4"),
        (SUPPORT, "2", "r3"),
        ("support for customers", "1", "r4"),
        ("support for customers", "2", "r3"),
    ]
    assert len(engine.ask("semantic_matches", query=SUPPORT)) == 3


def test_the_tier_of_the_user_opens_the_routes_kept_for_it(engine: Engine) -> None:
    gold = Conditions(user_tiers=("gold",))
    engine.routes = (replace(engine.routes[0], conditions=gold),)
    assert engine.ask("semantic_matches", query=SUPPORT) == []
    (row,) = engine.ask("semantic_matches", query=SUPPORT, user_tier="gold")
    assert row["user_tier"] == "gold"


def test_routes_without_vectors_here_are_searched_where_the_context_says(engine: Engine) -> None:
    def search(queries: Vectors) -> Sequence[list[Hit]]:
        return [[(engine.routes[1], 0.9), (engine.routes[0], 0.2)] for _ in queries]

    context = engine.context()
    bare = RouteTable.build(engine.routes, np.zeros((0, 384), np.float32), np.zeros(0, int))
    snapshot = replace(context.snapshot, routes=bare)  # type: ignore[type-var]
    engine.context = lambda: replace(  # type: ignore[method-assign]
        context, snapshot=snapshot, route_search=search
    )
    (row,) = engine.ask("semantic_matches", query="anything")
    assert (row["route_name"], row["similarity"]) == ("technical_docs", "0.9")


def test_capabilities_are_matched_exactly_first_and_then_by_meaning(engine: Engine) -> None:
    rows = engine.ask("capability_matches", capability="Code", top_k="2")
    assert [(row["agent_name"], row["exact"]) for row in rows] == [
        ("gpt-4", "t"),
        ("code-specialist", "f"),
    ]
    assert rows[0]["similarity"] == "1.0"
    assert 0.0 < float(rows[1]["similarity"] or "") < 1.0


def test_the_vector_of_a_text_is_the_embedders(engine: Engine) -> None:
    rows = engine.ask("request_embeddings", content=["hello", "world"])
    assert [row["content"] for row in rows] == ["hello", "world"]
    assert {row["model"] for row in rows} == {engine.embedder.model}
    for row in rows:
        vector = np.array(json.loads(row["embedding"] or ""), np.float32)
        (expected,) = engine.embedder.embed([row["content"] or ""])
        assert vector.tolist() == expected.tolist()


def test_the_status_shows_what_the_engine_is_holds_and_did(engine: Engine) -> None:
    (row,) = engine.ask("engine_status")
    assert row == {
        "version": "1.2.3",
        "protocol": "1",
        "front_door": "native",
        "pid": "42",
        "uptime": "90.000000 seconds",
        "embedder": engine.embedder.model,
        "agents": "3",
        "routes": "3",
        "scans": "7",
        "errors": "1",
        "latency_p50_ms": "0.5",
        "latency_p95_ms": "1.5",
        "latency_p99_ms": "2.5",
        "cache_hits": "3",
        "cache_misses": "4",
        "escalated": "5",
        "decisions_kept": "6",
        "decisions_lost": "7",
    }
