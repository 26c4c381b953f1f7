"""A sentence-transformers model as the embedder of a database, where that package is installed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psycopg
import pytest
from tests.conftest import Installation, Server, empty_tables, running_installation, sqlstate
from tests.tiny_model import save_tiny_model

from tinydancer.embedded.instance import DIMENSION
from tinydancer.embeddings.select import EmbedderSettings, embedder_for
from tinydancer.errors import NotReady
from tinydancer.store.database import Database
from tinydancer.store.reembed import Choice, reembed

from .test_cli_database import run, value
from .test_training import classify, train, use

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")

KIND = "sentence-transformers"
TEXTS = [" ".join(["late"] * (i % 40) + ["refund"] * (i // 40)) for i in range(1, 1001)]
EMBEDDINGS = "SELECT embedding::real[] FROM request_embeddings WHERE content = ANY(%s)"


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that the engine's account can read, whoever that is."""
    directory = Path(tempfile.mkdtemp(prefix="td-model-", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def own(
    server: Server, front_door: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """An installation that only these tests use: a change of embedder is for good."""
    with running_installation(server, front_door, tmp_path_factory.mktemp("engine")) as there:
        yield there


def embed_with(dsn: str, model: Path) -> None:
    database = Database(dsn)
    try:
        new = embedder_for(EmbedderSettings(kind=KIND, model=str(model)))
        reembed(database, new, Choice(KIND, str(model)))
    finally:
        database.close()


@pytest.fixture
def model(place: Path) -> Path:
    shutil.rmtree(place / "model", ignore_errors=True)
    return save_tiny_model(place / "model", dimension=DIMENSION)


@pytest.fixture
def conn(own: Installation, model: Path) -> Iterator[psycopg.Connection]:
    """Two agents and two routes, embedded by the model."""
    with own.connect() as connection:
        empty_tables(connection)
        connection.execute(
            "INSERT INTO agents (name, capabilities) VALUES"
            " ('support', '{refund my order}'), ('parcels', '{order is late}')"
        )
        connection.execute(
            "INSERT INTO routes (name, target_agent) VALUES"
            " ('refunds', 'support'), ('delays', 'parcels')"
        )
        connection.execute(
            "INSERT INTO route_utterances VALUES"
            " ('refunds', 'refund my order'), ('delays', 'my order is late')"
        )
        embed_with(own.dsn, model)
        yield connection


def vectors_of(model: Path, texts: list[str]) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(str(model), device="cpu")
    vectors: np.ndarray = loaded.encode(texts, normalize_embeddings=True)
    return vectors


def embeddings(conn: psycopg.Connection, texts: list[str]) -> np.ndarray:
    return np.array([vector for (vector,) in conn.execute(EMBEDDINGS, (texts,)).fetchall()])


def test_the_command_takes_a_directory_by_any_path_and_names_it_by_its_absolute_one(
    own: Installation, conn: psycopg.Connection, model: Path
) -> None:
    found = run("reembed", "--dsn", own.dsn, "--embedder", KIND, "--model", os.path.relpath(model))
    assert found.returncode == 0, found.stderr
    assert f"The embedder is now {model}@" in found.stdout
    assert value(own.dsn, "SELECT embedder_model FROM tinydancer.settings") == str(model)


def test_requests_are_decided_and_matched_by_the_models_vectors(
    conn: psycopg.Connection, model: Path
) -> None:
    text = "is my order late"
    ours, utterance = vectors_of(model, [text, "my order is late"])
    [(agent,)] = conn.execute(
        "SELECT agent_name FROM route_decisions WHERE request = 'order is late'"
    ).fetchall()
    assert agent == "parcels"
    matches = conn.execute(
        "SELECT route_name, similarity FROM semantic_matches WHERE query = %s", (text,)
    )
    assert dict(matches.fetchall())["delays"] == pytest.approx(float(ours @ utterance), abs=1e-4)
    [(vector, name)] = conn.execute(
        "SELECT embedding::real[], model FROM request_embeddings WHERE content = %s", (text,)
    ).fetchall()
    np.testing.assert_allclose(vector, ours, atol=1e-6)
    assert conn.execute("SELECT embedder FROM engine_status").fetchall() == [(name,)]
    assert name.startswith(f"{model}@")


def test_a_statement_may_embed_a_thousand_texts_or_none(
    conn: psycopg.Connection, model: Path
) -> None:
    np.testing.assert_allclose(embeddings(conn, TEXTS), vectors_of(model, TEXTS), atol=1e-6)
    assert len(embeddings(conn, [])) == 0


def test_requests_are_classified_once_a_classifier_is_trained_on_the_models_vectors(
    conn: psycopg.Connection,
) -> None:
    # given labelled requests, and a shipped classifier of another space
    with pytest.raises(psycopg.Error, match="reads vectors of 'all-MiniLM-L6-v2'"):
        classify(conn, "refund")
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO labelled_requests (request, category) VALUES (%s, %s)",
            [("refund " * i + "my order", "refund") for i in range(1, 7)]
            + [("late " * i + "is it", "delay") for i in range(1, 7)],
        )
    # when one is trained and switched on
    use(conn, train(conn, "own"))
    # then it answers
    assert classify(conn, "refund refund my order")["top_category"] == "refund"
    assert classify(conn, "late late is it")["top_category"] == "delay"


def test_connections_at_once_get_their_own_vectors(
    own: Installation, conn: psycopg.Connection, model: Path
) -> None:
    expected = vectors_of(model, TEXTS)

    def some(seed: int) -> float:
        generator = np.random.default_rng(seed)
        worst = 0.0
        with own.connect() as connection:
            for _ in range(20):
                rows = generator.choice(len(TEXTS), 3, replace=False)
                vectors = embeddings(connection, [TEXTS[row] for row in rows])
                worst = max(worst, float(np.abs(vectors - expected[rows]).max()))
        return worst

    with ThreadPoolExecutor(6) as threads:
        assert max(threads.map(some, range(6))) < 1e-6


def test_a_model_of_another_dimension_is_refused_and_nothing_changes(
    own: Installation, conn: psycopg.Connection, place: Path, model: Path
) -> None:
    small = save_tiny_model(place / "small", dimension=32)
    found = run("reembed", "--dsn", own.dsn, "--embedder", KIND, "--model", small)
    assert found.returncode == 1
    assert "vectors of 32 dimensions, not the 384" in found.stderr
    # and the engine refuses it too, where the setting is written past the command
    conn.execute("UPDATE settings SET embedder_model = %s", (str(small),))
    with pytest.raises(psycopg.Error, match="vectors of 32 dimensions") as caught:
        embeddings(conn, ["refund"])
    assert sqlstate(caught.value) == "22023"
    conn.execute("UPDATE settings SET embedder_model = %s", (str(model),))
    assert embeddings(conn, ["refund"]).shape == (1, DIMENSION)


def test_a_model_that_is_not_there_is_an_error_that_says_what_to_do(
    conn: psycopg.Connection, model: Path
) -> None:
    for name, hint in (("/nowhere/model", "on the engine's machine"), ("no/such", "hf download")):
        conn.execute("UPDATE settings SET embedder_model = %s", (name,))
        with pytest.raises(psycopg.Error, match=name) as caught:
            embeddings(conn, ["refund"])
        assert sqlstate(caught.value) == "55000"
        assert hint in (caught.value.diag.message_hint or caught.value.diag.message_detail or "")
    conn.execute("UPDATE settings SET embedder_model = %s", (str(model),))
    assert embeddings(conn, ["refund"]).shape == (1, DIMENSION)


def test_a_model_trained_further_in_place_serves_once_the_tables_are_re_embedded(
    own: Installation, conn: psycopg.Connection, model: Path
) -> None:
    # given an engine that has loaded the model, whose weights then change
    before = embeddings(conn, ["refund my order"])
    save_tiny_model(model, dimension=DIMENSION, seed=1)
    # when the tables are re-embedded
    embed_with(own.dsn, model)
    # then the same engine goes by the new weights
    after = embeddings(conn, ["refund my order"])
    assert not np.allclose(after, before, atol=1e-2)
    np.testing.assert_allclose(after, vectors_of(model, ["refund my order"]), atol=1e-6)


def test_an_engine_never_mixes_vectors_of_the_weights_before_with_those_of_now(
    own: Installation, conn: psycopg.Connection, model: Path
) -> None:
    embeddings(conn, ["refund"])
    save_tiny_model(model, dimension=DIMENSION, seed=1)
    own.engine.stop()
    with pytest.raises(NotReady) as caught:
        own.start_engine()
    assert "can't be compared" in caught.value.detail
    embed_with(own.dsn, model)
    own.start_engine()
    assert embeddings(conn, ["refund"]).shape == (1, DIMENSION)
