"""Searching routes by the index gives what comparing all of them gives."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from tinydancer.store.route_search import ranked_routes
from tinydancer.store.snapshots import Snapshots

TEXTS = [
    f"{verb} my {thing}"
    for verb in ("cancel", "change", "print", "refund", "explain")
    for thing in ("order", "flight", "invoice", "password", "insurance", "visa", "recipe", "router")
]


@pytest.fixture
def many(conn):
    for number, text in enumerate(TEXTS):
        conn.execute(
            "INSERT INTO routes (name, description, target_agent) VALUES (%s, %s, 'a')",
            (f"r{number:02}", text),
        )
    conn.execute(
        "INSERT INTO route_utterances VALUES ('r00', 'I do not want these shoes any more')"
    )
    conn.execute("UPDATE settings SET route_index = 'hnsw'")


def similarities(snapshot, embedder, query):
    found = {}
    (vector,) = embedder.embed([query])
    for route in snapshot.routes.routes:
        texts = [route.description or route.name, *route.utterances]
        found[route.name] = float(np.max(embedder.embed(texts) @ vector))
    return found


@pytest.mark.parametrize("written_back", [False, True])
def test_the_index_and_the_vectors_still_on_their_way_to_it_rank_as_exact_search_does(
    conn, many, database, embedder, written_back
):
    snapshots = Snapshots(database, lambda settings: embedder)
    snapshot = snapshots.current()
    if written_back:
        snapshots.close()
        snapshots = Snapshots(database, lambda settings: embedder)
        snapshot = snapshots.current()
        assert len(snapshot.indexed.pending) == 0
    assert len(snapshot.routes.vectors) == 0
    for query in ("please cancel my flight", "these shoes do not fit", "a question of law"):
        exact = similarities(snapshot, embedder, query)
        (ranked,) = ranked_routes(database, snapshot, embedder.embed([query]))
        found = [(route.name, similarity) for route, similarity in islice(ranked, 10)]
        best = sorted(exact.items(), key=lambda item: -item[1])[:10]
        assert [similarity for _, similarity in found] == pytest.approx(
            [similarity for _, similarity in best], abs=1e-5
        )
    snapshots.close()


def test_all_routes_come_in_the_end_each_once(conn, many, database, embedder, snapshots):
    snapshot = snapshots.current()
    (ranked,) = ranked_routes(database, snapshot, embedder.embed(["cancel my order"]))
    names = [route.name for route, _ in ranked]
    assert len(names) == len(set(names)) == len(TEXTS)


def test_a_route_that_was_dropped_or_switched_off_is_not_found(
    conn, many, database, snapshots, embedder
):
    conn.execute("DELETE FROM routes WHERE name = 'r00'")
    conn.execute("UPDATE routes SET active = false WHERE name = 'r01'")
    (ranked,) = ranked_routes(database, snapshots.current(), embedder.embed([TEXTS[0]]))
    assert not {"r00", "r01"} & {route.name for route, _ in ranked}


def test_an_old_vector_of_a_changed_text_does_not_count(conn, many, database, embedder):
    first = Snapshots(database, lambda settings: embedder)
    first.current()
    first.close()
    conn.execute("UPDATE routes SET description = 'stars and planets' WHERE name = 'r00'")
    conn.execute("DELETE FROM route_utterances")
    second = Snapshots(database, lambda settings: embedder)
    (ranked,) = ranked_routes(database, second.current(), embedder.embed([TEXTS[0]]))
    found = {route.name: similarity for route, similarity in ranked}
    expected = float(embedder.embed(["stars and planets"])[0] @ embedder.embed([TEXTS[0]])[0])
    assert found["r00"] == pytest.approx(expected, abs=1e-5)
    second.close()
