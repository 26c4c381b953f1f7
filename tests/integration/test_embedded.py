"""The embedded PostgreSQL: made, started, reached by its owner only, stopped, removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tinydancer.cli.database import SOCKET
from tinydancer.embedded import directories
from tinydancer.embedded.server import EmbeddedServer, open_server
from tinydancer.errors import InvalidInput, NotReady

ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory with a space in its path that other users can enter."""
    with tempfile.TemporaryDirectory(prefix="tiny dancer ") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(scope="module")
def running(place: Path) -> Iterator[EmbeddedServer]:
    server = open_server(place / "shared data", throwaway=True)
    try:
        server.initialize()
        server.start()
        yield server
    finally:
        server.remove()


def value(server: EmbeddedServer, query: str, **options: str) -> object:
    with server.connect(**options) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_it_has_pgvector(running: EmbeddedServer) -> None:
    with running.connect() as connection:
        connection.execute("CREATE EXTENSION vector")
    assert value(running, "SELECT '[1,0]'::vector <=> '[0,1]'::vector") == 1.0


def test_it_listens_on_no_tcp_port(running: EmbeddedServer) -> None:
    assert value(running, "SHOW listen_addresses") == ""


def test_its_text_is_utf8_and_sorts_the_same_everywhere(running: EmbeddedServer) -> None:
    assert value(running, "SHOW server_encoding") == "UTF8"
    assert value(running, "SELECT 'B' < 'a'") is True
    assert value(running, "SELECT upper('é')") == "É"


def test_it_never_runs_as_root(running: EmbeddedServer) -> None:
    pid = running.daemon.pid()
    assert pid is not None
    assert Path(f"/proc/{pid}").stat().st_uid != 0


def test_starting_it_again_changes_nothing(running: EmbeddedServer) -> None:
    before = running.daemon.pid()
    again = open_server(running.directory)
    again.initialize()
    again.start()
    assert again.daemon.pid() == before


def test_its_sockets_have_short_paths_that_nobody_else_can_write_to(
    running: EmbeddedServer,
) -> None:
    assert len(str(running.socket_directory / directories._LONGEST_SOCKET_NAME)) < 107
    assert not running.runtime.stat().st_mode & 0o022
    assert not running.socket_directory.stat().st_mode & 0o022


def test_its_sockets_lie_apart_from_those_of_an_engine_for_another_server(
    running: EmbeddedServer,
) -> None:
    # Which may close its directory to this server's user, as `serve --group postgres` does.
    assert SOCKET.parent not in running.runtime.resolve().parents


@pytest.mark.skipif(not ROOT, reason="only root can be somebody else")
@pytest.mark.parametrize("role", ["postgres", "tinydancer_engine", "nobody"])
def test_another_user_of_the_system_is_refused(running: EmbeddedServer, role: str) -> None:
    done = subprocess.run(
        [running.program("psql"), running.dsn(user=role), "-c", "SELECT 1"],
        user="nobody",
        group="nogroup",
        extra_groups=[],
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode != 0
    assert "Peer authentication failed" in done.stderr


@pytest.mark.skipif(not ROOT, reason="only root can be somebody else")
def test_the_user_who_runs_the_server_may_not_log_in(running: EmbeddedServer) -> None:
    done = subprocess.run(
        [running.program("psql"), running.dsn(), "-c", "SELECT 1"],
        **running.account.popen_options(),
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert "Peer authentication failed" in done.stderr


def test_the_data_outlives_a_stop_and_a_start(place: Path) -> None:
    server = open_server(place / "kept", throwaway=True)
    try:
        server.initialize(16)
        server.start()
        with server.connect() as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        server.stop()
        assert not server.daemon.alive()
        server.start()
        assert value(server, "SELECT answer FROM kept") == 42
        assert str(value(server, "SHOW server_version")).startswith("16.")
        # Another version than the data's is refused, and says what to do.
        with pytest.raises(InvalidInput, match="has data of PostgreSQL 16, not 18"):
            server.initialize(18)
    finally:
        server.remove()
    assert not server.directory.exists()


def test_its_sockets_are_gone_with_it_and_back_at_the_same_path(place: Path) -> None:
    server = open_server(place / "steady", throwaway=True)
    try:
        server.initialize()
        server.start()
        before = server.dsn()
        runtime = server.runtime
        server.stop()
        assert not runtime.exists()
        server.start()
        assert server.dsn() == before
    finally:
        server.remove()


def test_a_server_that_was_killed_starts_again_though_nobody_has_reaped_it(place: Path) -> None:
    server = open_server(place / "killed", throwaway=True)
    try:
        # given a server that was killed, and whose parent (this process) leaves it a zombie
        server.initialize()
        server.start()
        with server.connect() as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
            connection.execute("CHECKPOINT")
        pid = server.daemon.pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert server.daemon.ends_within(10)
        os.kill(pid, 0)  # PostgreSQL takes it for a server that runs
        # when it is started again
        server.start()
        # then it has its data
        assert value(server, "SELECT answer FROM kept") == 42
    finally:
        server.remove()


@pytest.mark.skipif(ROOT, reason="root has a place of the system's own")
def test_a_runtime_directory_of_the_users_own_may_have_spaces(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    server = open_server(place / "spaced", throwaway=True)
    try:
        server.initialize()
        server.start()
        assert place in server.runtime.parents
        assert value(server, "SELECT 1") == 1
    finally:
        server.remove()


def test_a_version_that_there_is_not_is_refused(place: Path) -> None:
    server = open_server(place / "unknown")
    with pytest.raises(InvalidInput, match="no embedded PostgreSQL 12") as caught:
        server.initialize(12)
    assert "16 and 18" in caught.value.hint


@pytest.mark.skipif(not ROOT, reason="only root has a second user for the server")
def test_a_directory_under_a_closed_home_leads_to_the_systems_place(place: Path) -> None:
    home = place / "home"
    home.mkdir(mode=0o700)
    server = open_server(home / "data", throwaway=True)
    try:
        assert (home / "data").is_symlink()
        assert server.directory.parent == directories.SYSTEM_STATE
        assert home.stat().st_mode & 0o777 == 0o700
        assert open_server(home / "data").directory == server.directory
        server.initialize()
        server.start()
        assert value(server, "SELECT 1") == 1
    finally:
        server.remove()


@pytest.mark.skipif(not ROOT, reason="only root can make somebody else's directory")
def test_a_directory_of_somebody_else_is_refused(place: Path) -> None:
    theirs = place / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    with pytest.raises(InvalidInput, match="belongs to nobody"):
        open_server(theirs)


def test_a_directory_that_anybody_may_write_to_is_refused(place: Path) -> None:
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    with pytest.raises(InvalidInput, match="anybody may write"):
        open_server(place / "open")


def test_a_strict_umask_shuts_nobody_out(place: Path) -> None:
    before = os.umask(0o077)
    try:
        server = open_server(place / "strict", throwaway=True)
        try:
            server.initialize()
            server.start()
            assert value(server, "SELECT 1") == 1
        finally:
            server.remove()
    finally:
        os.umask(before)


def test_a_server_that_fails_to_start_says_why(place: Path) -> None:
    server = open_server(place / "broken", throwaway=True)
    try:
        server.initialize()
        with (server.cluster / "postgresql.conf").open("a") as file:
            file.write("no_such_setting = 1\n")
        with pytest.raises(NotReady, match="PostgreSQL ends as it starts") as caught:
            server.start()
        assert "no_such_setting" in caught.value.detail
    finally:
        server.remove()


def test_a_throwaway_server_ends_with_its_owner_however_that_dies(place: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from tinydancer.embedded.server import open_server\n"
        "server = open_server(Path(sys.argv[1]), throwaway=True)\n"
        "server.initialize(); server.start(); print('up', flush=True); time.sleep(60)"
    )
    directory = place / "orphan"
    owner = subprocess.Popen(
        [sys.executable, "-c", program, directory], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    with owner, owner.stdout as output:
        assert output.readline() == "up\n"
        owner.send_signal(signal.SIGKILL)
    server = open_server(directory)
    try:
        assert server.daemon.ends_within(10)
        with pytest.raises(psycopg.OperationalError):
            server.connect()
    finally:
        server.remove()
