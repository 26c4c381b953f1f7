"""A classifier in the table `models` classifies from the commit on, in every session."""

from __future__ import annotations

import struct

import psycopg
import pytest
from tests.conftest import Installation, sqlstate

from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.neural import packing
from tinydancer.neural.dataset import LabelledText, prepare
from tinydancer.neural.fitting import FitOptions, fit
from tinydancer.neural.training import TrainingOptions

OPTIONS = FitOptions(network=TrainingOptions(hidden=16, groups=2, epochs=30, batch=8, rate=5e-3))
THINGS = ("the parser", "my script", "the login page", "this function", "an old module")
CATEGORY = """
SELECT classification->>'top_category', model FROM request_classifications WHERE content = %s
"""


def trained(first: str, second: str, dimension: int = 384) -> bytes:
    """A small model that tells debugging and cooking apart, under these names."""
    rows = [
        *(LabelledText(f"{verb} {thing}", first) for verb in ("debug", "fix") for thing in THINGS),
        *(LabelledText(f"{verb} {thing} soup", second) for verb in ("cook", "eat")
          for thing in THINGS),
    ]  # fmt: skip
    embedder = StaticEmbedder.builtin()
    data = prepare(rows)
    return packing.to_bytes(
        fit(data, embedder.embed(data.texts)[:, :dimension], embedder.space, OPTIONS).classifier
    )


def insert(db: psycopg.Connection, name: str, weights: bytes) -> int:
    row = db.execute(
        "INSERT INTO models (kind, name, weights) VALUES ('classifier', %s, %s) RETURNING id",
        (name, weights),
    ).fetchone()
    assert row is not None
    db.execute("SELECT ruvector_activate_model(%s)", row)
    return int(row[0])


def test_a_model_classifies_from_the_commit_of_its_switch_on_and_back(
    db: psycopg.Connection,
) -> None:
    insert(db, "first", trained("code", "food"))
    assert db.execute(CATEGORY, ("debug the parser",)).fetchone() == ("code", "first")
    insert(db, "second", trained("software", "kitchen"))
    assert db.execute(CATEGORY, ("debug the parser",)).fetchone() == ("software", "second")
    db.execute("SELECT ruvector_rollback_model('classifier')")
    assert db.execute(CATEGORY, ("cook this function soup",)).fetchone() == ("food", "first")


def test_a_damaged_model_is_named_and_decisions_go_on(db: psycopg.Connection) -> None:
    number = insert(db, "broken", trained("code", "food")[:1000])
    with pytest.raises(psycopg.Error, match=rf"model {number} \('broken'\)") as caught:
        db.execute(CATEGORY, ("debug the parser",))
    assert sqlstate(caught.value) == "22023"
    decided = db.execute("SELECT count(*) FROM route_decisions WHERE request = 'x'").fetchone()
    assert decided == (1,)


def test_a_model_of_another_dimension_is_refused_and_can_be_rolled_back(
    db: psycopg.Connection,
) -> None:
    # Given a sound model, and one that was trained on vectors half as long
    insert(db, "sound", trained("code", "food"))
    insert(db, "short", trained("code", "food", dimension=192))
    # When it is asked, then it says so
    with pytest.raises(psycopg.Error, match="384 dimensions, the classifier takes 192") as caught:
        db.execute(CATEGORY, ("debug the parser",))
    assert sqlstate(caught.value) == "22023"
    # and the sound one is a rollback away
    db.execute("SELECT ruvector_rollback_model('classifier')")
    assert db.execute(CATEGORY, ("debug the parser",)).fetchone() == ("code", "sound")


def test_weights_that_are_no_numbers_are_refused(db: psycopg.Connection) -> None:
    weights = trained("code", "food")
    number = float(packing.from_bytes(weights).network.cell.parameters["W"][0, 0])
    at = weights.index(struct.pack("<f", number))
    insert(db, "nan", weights[:at] + struct.pack("<f", float("nan")) + weights[at + 4 :])
    with pytest.raises(psycopg.Error, match="NaN or infinity"):
        db.execute(CATEGORY, ("debug the parser",))
    decided = db.execute("SELECT count(*) FROM route_decisions WHERE request = 'hi'").fetchone()
    assert decided is not None


def test_a_select_list_gives_what_the_table_gives(
    db: psycopg.Connection, installation: Installation
) -> None:
    db.execute("CREATE TEMP TABLE pending_requests (request_id integer, content text)")
    db.execute(
        "INSERT INTO pending_requests SELECT n, nullif('translate page ' || n, 'translate page 3') "
        "FROM generate_series(1, 200) n"
    )
    query = "SELECT request_id, ruvector_classify_request(content) ->> 'top_category'"
    query += " FROM pending_requests"
    rows = db.execute(query).fetchall()
    joined = db.execute(
        "SELECT request_id, c.classification ->> 'top_category' FROM pending_requests p "
        "LEFT JOIN request_classifications c ON c.content = p.content ORDER BY request_id"
    ).fetchall()
    assert rows == joined
    plan = str(db.execute(f"EXPLAIN {query}").fetchall())
    assert ("Tiny Dancer Batched Calls" in plan) == (installation.front_door == "native")
