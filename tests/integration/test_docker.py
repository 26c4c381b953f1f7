"""The container's entrypoint, run with the embedded server's programs instead of an image's."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from ..conftest import Server

ENTRYPOINT = Path(__file__).resolve().parents[2] / "docker/postgres-entrypoint"
PASSWORD = "a password's 'quotes'"


@pytest.fixture
def volume(server: Server) -> Iterator[Path]:
    """An empty volume that belongs to the server's user, with the secret beside it."""
    if not server.embedded:
        pytest.skip("the embedded server's programs are not there")
    if server.embedded.version == 16:
        pytest.skip("the image has PostgreSQL 17, which knows the builtin locale")
    account = server.embedded.account
    with tempfile.TemporaryDirectory(prefix="td-") as name:
        place = Path(name)
        (place / "password").write_text(PASSWORD + "\n")
        (place / "entrypoint").write_bytes(ENTRYPOINT.read_bytes())
        for path in (place, place / "password"):
            if os.geteuid() == 0:
                os.chown(path, account.uid, account.gid)
        yield place


def command(server: Server, volume: Path, *arguments: str) -> dict[str, object]:
    assert server.embedded is not None
    return {
        "args": ["sh", str(volume / "entrypoint"), *arguments],
        "cwd": "/",
        "env": {
            "PATH": f"{server.embedded.program('postgres').parent}:{os.environ['PATH']}",
            "PGDATA": str(volume / "data"),
            "POSTGRES_PASSWORD_FILE": str(volume / "password"),
            "LC_ALL": "C.UTF-8",
        },
        **server.embedded.account.popen_options(),
    }


def is_ready(lock_file: Path) -> bool:
    """Whether a server says in its lock file that it takes connections."""
    try:
        return lock_file.read_text().rstrip().endswith("ready")
    except FileNotFoundError:
        return False


@contextmanager
def running(server: Server, volume: Path) -> Iterator[str]:
    """The container's process; yields the superuser's connection string without a password."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        **command(server, volume, "postgres", "-p", str(port), "-k", str(volume)),  # type: ignore[call-overload]
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            deadline = time.monotonic() + 60
            while not is_ready(volume / "data/postmaster.pid"):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield f"host=127.0.0.1 port={port} user=postgres dbname=tinydancer"
        finally:
            process.terminate()


def test_the_first_start_makes_a_database_behind_the_secrets_password(
    server: Server, volume: Path
) -> None:
    with running(server, volume) as dsn:
        with psycopg.connect(dsn, password=PASSWORD) as connection:
            assert connection.execute("SHOW data_checksums").fetchone() == ("on",)
            # As `tinydancer up` has it: functions are found without a schema's name.
            path = ('"$user", public, tinydancer',)
            assert connection.execute("SHOW search_path").fetchone() == path
            # In PostgreSQL 17 full-text search goes by LC_CTYPE, whatever the locale's provider is:
            # with C, "Ünal" and "ünal" would be two words.
            ctype = "SELECT datctype FROM pg_database WHERE datname = 'tinydancer'"
            assert connection.execute(ctype).fetchone() == ("C.UTF-8",)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(dsn, password="another")
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(dsn)
    # The second start finds the data, and needs no secret.
    (volume / "password").unlink()
    with running(server, volume) as dsn, psycopg.connect(dsn, password=PASSWORD) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_first_start_that_was_cut_off_is_begun_again(server: Server, volume: Path) -> None:
    assert server.embedded is not None
    part = volume / "data.part"
    part.mkdir()
    (part / "PG_VERSION").write_text("17\n")
    if os.geteuid() == 0:
        os.chown(part, server.embedded.account.uid, server.embedded.account.gid)
        os.chown(part / "PG_VERSION", server.embedded.account.uid, server.embedded.account.gid)
    with running(server, volume) as dsn, psycopg.connect(dsn, password=PASSWORD) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not part.exists()


def test_a_first_start_that_fails_to_make_the_database_leaves_no_data(
    server: Server, volume: Path
) -> None:
    script = volume / "entrypoint"
    text = script.read_text()
    script.write_text(text.replace("CREATE DATABASE tinydancer;", "CREATE DATABASE template1;"))
    assert script.read_text() != text
    done = subprocess.run(
        **command(server, volume, "true"),  # type: ignore[call-overload]
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert 'database "template1" already exists' in done.stderr
    assert not (volume / "data").exists()


def test_a_start_without_the_secret_is_refused_and_leaves_nothing(
    server: Server, volume: Path
) -> None:
    (volume / "password").unlink()
    done = subprocess.run(
        **command(server, volume, "postgres"),  # type: ignore[call-overload]
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "no password in" in done.stderr
    assert not (volume / "data").exists()
