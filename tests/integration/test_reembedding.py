"""A change of embedder: interruptible, resumable, and never a mixture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from tinydancer.embeddings.base import Embedder
from tinydancer.errors import NotReady
from tinydancer.store import reembed as reembedding
from tinydancer.store.reembed import Choice, reembed
from tinydancer.store.snapshots import Snapshots


@dataclass
class Mirrored:
    """The default embedder seen in a mirror: as good, and of another space."""

    inner: Embedder
    model: str = "mirrored-1"
    space: str = "mirrored"
    fail_after: int = 10**9
    texts: int = 0

    @property
    def dimension(self):
        return self.inner.dimension

    def embed(self, texts):
        self.texts += len(texts)
        if self.texts > self.fail_after:
            raise KeyboardInterrupt
        return -self.inner.embed(texts)

    def count_tokens(self, texts):
        return self.inner.count_tokens(texts)


@pytest.fixture
def rows(conn, database, embedder):
    conn.execute(
        "INSERT INTO agents (name, capabilities)"
        " SELECT 'a' || i, ARRAY['skill ' || i] FROM generate_series(1, 40) AS i"
    )
    conn.execute("INSERT INTO routes (name, target_agent) VALUES ('r', 'a1')")
    conn.execute("INSERT INTO route_utterances VALUES ('r', 'hello there')")
    snapshots = Snapshots(database, lambda settings: embedder)
    snapshots.current()
    snapshots.close()


SPACES = """
SELECT DISTINCT embedding_space FROM (
    SELECT embedding_space FROM agents UNION ALL SELECT embedding_space FROM routes
    UNION ALL SELECT embedding_space FROM route_utterances
    UNION ALL SELECT embedding_space FROM settings) AS every
"""


def test_every_vector_and_the_settings_change_at_once(conn, rows, database, embedder):
    told = []
    report = reembed(
        database,
        Mirrored(embedder),
        Choice("openai", "m", "http://localhost"),
        lambda *at: told.append(at),
    )
    assert report.embedded == 42
    assert told[-1] == (42, 42)
    assert conn.execute(SPACES).fetchall() == [("mirrored",)]
    assert conn.execute("SELECT count(*) FROM staged_embeddings").fetchone() == (0,)
    settings = conn.execute("SELECT embedder, embedder_model, embedder_url FROM settings")
    assert settings.fetchone() == ("openai", "m", "http://localhost")


def test_an_interrupted_change_leaves_the_old_vectors_and_resumes(
    conn, rows, database, embedder, monkeypatch
):
    monkeypatch.setattr(reembedding, "TEXTS_AT_ONCE", 10)
    with pytest.raises(KeyboardInterrupt):
        reembed(database, Mirrored(embedder, fail_after=25), Choice("openai"))
    assert conn.execute(SPACES).fetchall() == [(embedder.space,)]
    again = Mirrored(embedder)
    report = reembed(database, again, Choice("openai"))
    assert (report.embedded, again.texts) == (22, 22)
    assert conn.execute(SPACES).fetchall() == [("mirrored",)]


def test_a_running_engine_goes_over_to_the_new_embedder_with_the_next_scan(
    conn, rows, database, embedder
):
    new = Mirrored(embedder)
    snapshots = Snapshots(
        database, lambda settings: new if settings.embedder == "openai" else embedder
    )
    before = snapshots.current()
    assert before.embedder is embedder
    reembed(database, new, Choice("openai"))
    made = new.texts
    after = snapshots.current()
    assert after.embedder is new
    assert np.allclose(after.agents.embeddings, -before.agents.embeddings, atol=1e-6)
    assert new.texts == made, "the engine takes the stored vectors, it makes none"
    snapshots.close()


def test_an_engine_with_an_embedder_of_another_space_refuses_to_serve(rows, database, embedder):
    snapshots = Snapshots(database, lambda settings: Mirrored(embedder))
    with pytest.raises(NotReady, match="can't be compared"):
        snapshots.current()
    snapshots.close()


def test_an_embedder_of_another_dimension_is_refused(rows, database, embedder):
    class Short(Mirrored):
        dimension = 7

    with pytest.raises(NotReady, match="dimension 7"):
        reembed(database, Short(embedder), Choice("openai"))


def test_a_vector_that_was_given_is_replaced_by_that_of_the_rows_text_and_counted(
    conn, rows, database, embedder
):
    vector = str(embedder.embed(["given"])[0].tolist())
    conn.execute("UPDATE routes SET embedding = %s", (vector,))
    assert reembed(database, Mirrored(embedder), Choice("openai")).given_replaced == 1
    assert conn.execute("SELECT embedding_source = digest('r') FROM routes").fetchone() == (True,)


def test_two_changes_at_once_are_refused(rows, database, embedder):
    class Nested(Mirrored):
        def embed(self, texts):
            with pytest.raises(NotReady, match="another change of embedder"):
                reembed(database, Mirrored(self.inner), Choice("openai"))
            return super().embed(texts)

    reembed(database, Nested(embedder), Choice("openai"))
