"""Routes that ask for it are found by their words as well: codes and names that no model knows."""

from __future__ import annotations

import psycopg
import pytest

from tinydancer.store.request_words import request_words

ASK = "SELECT route_name, similarity FROM semantic_matches WHERE query = %s AND top_k = 5"
TICKET = "Good morning, since the update my kitchen lamp blinks ERR_4711 twice and goes dark"


def found(db: psycopg.Connection, query: str) -> list[str]:
    return [name for name, _ in db.execute(ASK, (query,)).fetchall()]


@pytest.fixture
def routes(db: psycopg.Connection) -> psycopg.Connection:
    """Two routes alike but for their matching, and one of something else; nothing is near."""
    for name, matching in (("by_words", "hybrid"), ("by_likeness", "dense")):
        db.execute(
            "SELECT ruvector_create_route(%s, 'Faults of the billing interface', 'desk',"
            " utterances := ARRAY['err_4711'], threshold := 0.95, matching := %s)",
            (name, matching),
        )
    db.execute("SELECT ruvector_create_route('poems', 'Write a poem', 'poet', threshold := 0.6)")
    return db


def test_a_rare_word_finds_the_hybrid_route_and_not_the_dense_one(routes):
    ((name, similarity),) = routes.execute(ASK, (TICKET,)).fetchall()
    assert name == "by_words"
    assert similarity < 0.95


def test_a_request_of_a_few_words_of_the_description_finds_it_too(routes):
    assert found(routes, "billing faults?") == ["by_words"]


def test_no_route_where_none_fits(routes):
    assert found(routes, "My lamp shows ERR_4712") == []
    assert found(routes, "billing by telephone") == []
    assert found(routes, "?!") == []


def test_each_query_of_a_join_has_its_own_words(routes):
    rows = routes.execute(
        "SELECT t.id, m.route_name FROM (VALUES (1, %s), (2, 'Hello'), (3, 'Write a poem'))"
        " AS t (id, body) LEFT JOIN semantic_matches AS m ON m.query = t.body ORDER BY 1",
        (TICKET,),
    ).fetchall()
    assert rows == [(1, "by_words"), (2, None), (3, "poems")]


def test_a_change_of_the_matching_holds_from_the_next_query_on(routes):
    routes.execute("UPDATE routes SET matching = 'dense'")
    assert found(routes, TICKET) == []
    routes.execute("UPDATE routes SET matching = 'hybrid' WHERE name = 'by_likeness'")
    assert found(routes, TICKET) == ["by_likeness"]


def test_a_route_searched_by_the_index_is_found_by_its_words_as_well(routes):
    routes.execute("UPDATE settings SET route_index = 'hnsw'")
    assert found(routes, TICKET) == ["by_words"]


def test_an_inactive_route_is_not_found_by_its_words(routes):
    routes.execute("UPDATE routes SET active = false WHERE name = 'by_words'")
    assert found(routes, TICKET) == []


def test_words_are_in_lower_case_each_once_and_codes_are_taken_apart(database):
    assert request_words(database, ["Reset the THE router!", "", "ERR_4711 für Ünal"]) == [
        {"reset", "the", "router"},
        set(),
        {"err", "4711", "für", "ünal"},
    ]


def test_a_request_of_the_greatest_length_is_no_error(database):
    longest = " ".join(f"w{at}-é" for at in range(100_000))
    (words,) = request_words(database, [longest])
    assert "w0" in words
    assert "w99999" not in words
