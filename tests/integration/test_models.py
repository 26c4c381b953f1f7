"""Models in the database: never changed, one of a kind active, switched and rolled back."""

from __future__ import annotations

import hashlib

import psycopg
import pytest


@pytest.fixture
def models(conn) -> list[int]:
    return [
        conn.execute(
            "INSERT INTO models (kind, name, weights) VALUES ('classifier', %s, %s) RETURNING id",
            (name, name.encode()),
        ).fetchone()[0]
        for name in ("first", "second", "third")
    ]


def active(conn) -> list[str]:
    return [name for (name,) in conn.execute("SELECT name FROM models WHERE active")]


def test_a_model_is_switched_on_and_back_through_all_before_it(conn, models):
    first, second, third = models
    for model in (first, second, third):
        assert conn.execute("SELECT ruvector_activate_model(%s)", (model,)).fetchone() == (True,)
    assert active(conn) == ["third"]
    back = "SELECT ruvector_rollback_model('classifier')"
    assert conn.execute(back).fetchone() == (second,)
    assert active(conn) == ["second"]
    assert conn.execute(back).fetchone() == (first,)
    assert conn.execute(back).fetchone() == (None,)
    assert active(conn) == []
    with pytest.raises(
        psycopg.errors.ObjectNotInPrerequisiteState, match="no model of kind 'classifier' is active"
    ):
        conn.execute(back)


def test_a_switch_is_a_change_that_engines_see(conn, models):
    before = conn.execute("SELECT count(*) FROM changes WHERE part = 'models'").fetchone()[0]
    conn.execute("SELECT ruvector_activate_model(%s)", (models[0],))
    after = conn.execute("SELECT count(*) FROM changes WHERE part = 'models'").fetchone()[0]
    assert after == before + 1


def test_a_switch_to_a_model_that_is_missing_or_not_ready_leaves_the_active_one(conn, models):
    conn.execute("SELECT ruvector_activate_model(%s)", (models[0],))
    with pytest.raises(psycopg.errors.UndefinedObject, match="model 999 does not exist"):
        conn.execute("SELECT ruvector_activate_model(999)")
    training = conn.execute(
        "INSERT INTO models (kind, name, state) VALUES ('classifier', 'new', 'training')"
        " RETURNING id"
    ).fetchone()[0]
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is training"):
        conn.execute("SELECT ruvector_activate_model(%s)", (training,))
    assert active(conn) == ["first"]


def test_a_model_that_is_ready_never_changes(conn, models):
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="never changed"):
        conn.execute("UPDATE models SET weights = 'other' WHERE id = %s", (models[0],))
    conn.execute("UPDATE models SET name = 'renamed' WHERE id = %s", (models[0],))


def test_weights_carry_their_checksum_and_listing_leaves_them_out(conn, models):
    rows = conn.execute("SELECT name, bytes, checksum FROM ruvector_list_models('classifier')")
    assert rows.fetchall()[-1] == ("first", 5, hashlib.sha256(b"first").hexdigest())


def test_at_most_one_model_of_a_kind_is_active_by_plain_sql_too(conn, models):
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("UPDATE models SET active = true")


@pytest.mark.parametrize(
    "values",
    [
        "request = ''",
        "category = ' '",
        "capabilities = ARRAY[NULL]::text[]",
        "split = 'holdout'",
    ],
)
def test_a_labelled_request_with_a_bad_value_is_refused(conn, values):
    conn.execute("INSERT INTO labelled_requests (request, category) VALUES ('hi', 'conversation')")
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute(f"UPDATE labelled_requests SET {values}")
