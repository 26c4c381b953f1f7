"""A dump of the database can be restored, into the same cluster or another."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest

from tinydancer.store import schema
from tinydancer.store.database import Database
from tinydancer.store.snapshots import Snapshots


@pytest.fixture
def programs(server, conn) -> Path:
    """The folder of the server's own pg_dump and psql, or of those on the path."""
    if server.embedded:
        return server.embedded.program("pg_dump").parent
    found = shutil.which("pg_dump")
    if found is None:
        pytest.skip("no pg_dump on the path")
    version = subprocess.run([found, "--version"], check=True, capture_output=True, text=True)
    if int(re.findall(r"\d+", version.stdout)[0]) < conn.info.server_version // 10000:
        pytest.skip(f"the pg_dump on the path is older than the server: {version.stdout.strip()}")
    return Path(found).parent


def test_a_restored_database_has_everything_and_goes_on(
    conn, schema_dsn, empty_database, programs, embedder
):
    # Given a database in use
    conn.execute("SELECT ruvector_register_agent('a', capabilities := ARRAY['code'])")
    conn.execute("SELECT ruvector_create_route('r', 'Questions', 'a', utterances := ARRAY['why'])")
    # When it is dumped and restored into an empty one
    dump = subprocess.run(
        [programs / "pg_dump", schema_dsn], check=True, capture_output=True, text=True
    ).stdout
    subprocess.run(
        [programs / "psql", "-v", "ON_ERROR_STOP=1", empty_database],
        check=True,
        input=dump,
        capture_output=True,
        text=True,
    )
    # Then the schema is the same, and an upgrade finds nothing to do
    with psycopg.connect(empty_database, autocommit=True) as restored:
        assert schema.version(restored) == schema.version(conn)
        schema.upgrade(restored)
        utterances = restored.execute("SELECT utterance FROM tinydancer.route_utterances")
        assert utterances.fetchall() == [("why",)]
        # And an engine serves it, and sees what changes
        database = Database(empty_database)
        snapshots = Snapshots(database, lambda settings: embedder)
        assert snapshots.current().agents.names == ("a",)
        restored.execute("SELECT tinydancer.ruvector_register_agent('b')")
        assert snapshots.current().agents.names == ("a", "b")
        assert snapshots.current() is snapshots.latest
        snapshots.close()
        database.close()
