"""An embedded server with its engine beside it, in one directory: up, down, status."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from tinydancer import __version__
from tinydancer.embedded.accounts import Account, engine_account
from tinydancer.embedded.directories import default_directory
from tinydancer.embedded.processes import Daemon
from tinydancer.embedded.server import (
    ENGINE_ROLE,
    EmbeddedServer,
    open_server,
    sweep_leftovers,
    throwaway_directory,
)
from tinydancer.errors import NotReady
from tinydancer.settings import default_workers

if TYPE_CHECKING:
    import psycopg

DIMENSION = 384
"""Length of the default embedder's vectors."""

Report = Callable[[str], None]
"""Told of each step that may take a while."""

_START_SECONDS = 120.0  # an embedder may be gigabytes, and torch alone takes seconds to import
_STOP_SIGNALS = ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))


@dataclass(frozen=True)
class Engine:
    """The engine of one database, as a process that listens on a Unix socket.

    `dsn` is how it reaches the database; it holds no password. Its pid file and log are in
    `directory`. It answers in so many `workers`, processes of their own.
    """

    dsn: str
    socket: Path
    account: Account
    directory: Path
    throwaway: bool = False
    workers: int = 1

    @property
    def daemon(self) -> Daemon:
        """The engine's process."""
        return _engine_daemon(self.directory)

    def start(self) -> None:
        """Start it, where it does not run, and return when it answers.

        Raises NotReady where it ends as it starts, or takes over two minutes.
        """
        if not self.daemon.alive():
            self.socket.unlink(missing_ok=True)
            self.daemon.start(
                [sys.executable, "-m", "tinydancer", "serve", "--dsn", self.dsn,
                 "--socket", str(self.socket), "--workers", str(self.workers)],
                account=self.account,
                environment=_environment(),
                dies_with_us=self.throwaway,
            )  # fmt: skip
        self.daemon.wait_until(self._answers, seconds=_START_SECONDS)

    def stop(self) -> None:
        """Stop it; a no-op where it does not run."""
        self.daemon.stop(_STOP_SIGNALS)

    def _answers(self) -> bool:
        """Whether it answers. Several workers have a socket before the first of them does: until
        then this waits.
        """
        from tinydancer_fdw.client import Address, Client, EngineError, Unreachable
        from tinydancer_fdw.frames import Scan

        client = Client(Address(str(self.socket), connect_timeout=_START_SECONDS), "up")
        try:
            list(client.scan(Scan("engine_status", ("version",), ())))
        except Unreachable:
            return False
        except EngineError:
            return True  # whoever asks through the database is told the same
        finally:
            client.close()
        return True


@dataclass(frozen=True)
class Instance:
    """A server, its engine, and the schema in between."""

    server: EmbeddedServer

    @property
    def engine(self) -> Engine:
        """The engine of this server's database."""
        server = self.server
        return Engine(
            server.dsn(user=ENGINE_ROLE),
            server.runtime / "engine" / "engine.sock",
            engine_account(),
            server.directory,
            server.throwaway,
            default_workers(),
        )

    @property
    def engine_daemon(self) -> Daemon:
        """Its process, which may outlive the server and the directory of its socket."""
        return _engine_daemon(self.server.directory)

    def up(self, version: int | None = None, report: Report = lambda step: None) -> None:
        """Start what does not run, and install or upgrade the schema; returns when both answer.

        What this call has started it stops again where it fails or is interrupted. But where it is
        the engine that can't start, the server stays: what it lacks is mended in the database.
        """
        server = self.server
        sweep_leftovers()
        with self._alone(), ExitStack() as undo:
            if not server.cluster.exists():
                report("Making a data directory")
            server.initialize(version)
            install_native_front_door(server, report)
            if not server.daemon.alive():
                report(f"Starting PostgreSQL {server.version}")
                # One that runs already finds the server again as long as its socket stays.
                undo.callback(server.end if self.engine_daemon.alive() else server.stop)
                server.start()
            share_engine_directory(server)
            engine = self.engine
            with server.connect() as connection:
                install_schema(server, connection, engine.socket, report)
                if engine.daemon.alive() and not engine.socket.exists():
                    report("Stopping an engine whose socket is gone")
                    engine.stop()
                if engine.daemon.alive() and not _is_of_this_version(connection):
                    report("Stopping an engine of another version")
                    engine.stop()
                if not engine.daemon.alive():
                    report("Starting the engine")
                    undo.callback(engine.stop)
                    try:
                        engine.start()
                    except NotReady as error:
                        engine.stop()
                        undo.pop_all()
                        raise NotReady(
                            error.message,
                            detail=error.detail,
                            hint=f"{error.hint} PostgreSQL runs, so that psql and reembed can mend "
                            f"what the engine lacks; then: {up_command(server.directory)}",
                        ) from None
                    _engine_version(connection)
            undo.pop_all()

    def down(self) -> bool:
        """Stop engine and server; False where neither ran."""
        sweep_leftovers()
        with self._alone():
            running = self.server.daemon.alive() or self.engine_daemon.alive()
            self.engine_daemon.stop(_STOP_SIGNALS)
            self.server.stop()
            return running

    def status(self) -> dict[str, object]:
        """What runs, as plain values: data, dsn, server and engine, each with running and pid."""
        sweep_leftovers()
        server = self.server
        status: dict[str, object] = {
            "data": str(server.directory),
            "running": False,
            "server": _process(server.daemon, server.account) | {"postgres": server.version},
        }
        engine = _process(self.engine_daemon, engine_account())
        if not (server.directory / "run").is_symlink():
            return status | {"engine": engine}
        engine["socket"] = str(self.engine.socket)
        if server.daemon.alive():
            status["dsn"] = server.dsn()
            if engine["running"]:
                engine |= _engine_status(server)
                status["running"] = "error" not in engine
        return status | {"engine": engine}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else brings this directory up or down meanwhile."""
        with (self.server.directory / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _engine_daemon(directory: Path) -> Daemon:
    return Daemon("the engine", directory / "engine.pid", directory / "engine.log")


def open_instance(directory: Path) -> Instance:
    """The instance of a directory, which is made where it does not exist. Starts nothing."""
    return Instance(open_server(directory))


def existing_instance(directory: Path) -> Instance:
    """The instance of a directory that `up` has made. Raises NotReady where it has not."""
    if not (directory / "cluster").is_dir() and not (directory / "lock").exists():
        raise NotReady(
            f"there is no data in {directory}",
            hint=f"Make it and start it: {up_command(directory)}",
        )
    return open_instance(directory)


def up_command(directory: Path) -> str:
    """What to type to start the instance of a directory."""
    named = "" if directory == default_directory() else f" --data {shlex.quote(str(directory))}"
    return f"tinydancer up{named}"


def share_engine_directory(server: EmbeddedServer) -> None:
    """Let the engine write to the directory of its socket, and the server's group enter it."""
    directory = server.runtime / "engine"
    account = engine_account()
    if account.uid != server.account.uid:
        # The setgid bit gives the server's group to the socket that the engine makes there.
        os.chown(directory, account.uid, server.account.gid)
        directory.chmod(0o2750)


def install_native_front_door(server: EmbeddedServer, report: Report = lambda step: None) -> None:
    """Put the native front door, built from the present sources, among the server's programs."""
    from tinydancer_fdw.native import build

    key = f"{build.source_digest()[:20]}-{server.version}"
    library = server.pkglibdir() / build.LIBRARY
    mark = library.with_suffix(".digest")
    with suppress(FileNotFoundError):
        if library.exists() and mark.read_text() == key:
            return
    built = _built_libraries(server) / key
    if not (built / build.LIBRARY).exists():
        report("Building the native front door")
        built.mkdir(parents=True, exist_ok=True)
        build_native_front_door(server.pg_config(), built)
    (library.parent / build.TLS_LIBRARY).unlink(missing_ok=True)
    for each in built.glob("*.so"):
        _replace(each, library.parent / each.name)
    mark.write_text(key)


def build_native_front_door(pg_config: Path, directory: Path) -> list[Path]:
    """Build the native front door with a server's headers; returns its libraries in `directory`.

    A server that has an old library open keeps it until its next connection.
    """
    from tinydancer_fdw.native import build

    with tempfile.TemporaryDirectory() as scratch:
        try:
            built = build.build(pg_config, Path(scratch))
        except build.BuildFailed as error:
            raise NotReady(
                "the native front door can't be built",
                detail=str(error),
                hint="It needs a C compiler and the server's headers. On Debian: "
                "apt-get install gcc libc6-dev, and postgresql-server-dev-17 for a server of "
                "Debian's own.",
            ) from error
        # The front door itself comes last: where it is, all of it is.
        return [_replace(each, directory / each.name) for each in reversed(built)]


def _built_libraries(server: EmbeddedServer) -> Path:
    """Where libraries are kept once built: with the virtual environment, or else with the data."""
    own = Path(sys.prefix) if sys.prefix != sys.base_prefix else server.directory
    place = own if os.access(own, os.W_OK) else server.directory
    return place / "share/tinydancer/native"


def _replace(source: Path, target: Path) -> Path:
    """Copy a file over another in one step, so that whoever has the old one open keeps it whole."""
    part = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, part)
    part.chmod(0o755)
    return part.replace(target)


def install_schema(
    server: EmbeddedServer, connection: psycopg.Connection, socket: Path, report: Report
) -> None:
    """Install the schema or bring it up to date, with every front door that the server has.

    Nothing happens where it is as this version would make it: a mark in the directory tells, so
    that `up` takes no lock in a database that is at work.
    """
    from tinydancer.store import schema
    from tinydancer.store.front_doors import EngineAddress, available_front_doors

    installed = schema.version(connection)
    mark = server.directory / "schema.digest"
    digest = _schema_digest(socket)
    with suppress(FileNotFoundError):
        if installed and mark.read_text() == digest:
            return
    report("Upgrading the schema" if installed else "Installing the schema")
    schema.install(
        connection,
        dimension=installed.dimension if installed else DIMENSION,
        front_doors=available_front_doors(connection),
        engine_address=EngineAddress(socket=str(socket)),
    )
    connection.execute(f"ALTER ROLE {ENGINE_ROLE} LOGIN")
    mark.write_text(digest)


def _schema_digest(socket: Path) -> str:
    """Changes when the schema that this version installs does, or the engine's address."""
    from tinydancer_fdw import contract

    digest = hashlib.sha256(f"{__version__} {socket} {contract.TABLES}".encode())
    for file in sorted(Path(str(files("tinydancer.sql"))).rglob("*.sql")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


@contextmanager
def throwaway_instance(
    version: int | None = None, report: Report = lambda step: None
) -> Iterator[Instance]:
    """A running instance in a directory of its own; nothing of it is left afterwards."""
    with throwaway_directory() as directory:
        instance = Instance(open_server(directory, throwaway=True))
        try:
            instance.up(version, report)
            yield instance
        finally:
            instance.down()
            instance.server.remove()


def _engine_version(connection: psycopg.Connection) -> str | None:
    """The version of the engine that answers. Raises psycopg.Error where none does."""
    row = connection.execute("SELECT version FROM tinydancer.engine_status").fetchone()
    return row[0] if row else None


def _is_of_this_version(connection: psycopg.Connection) -> bool:
    """Whether the engine that answers is of our version. Raises psycopg.Error where none does."""
    import psycopg

    try:
        return _engine_version(connection) == __version__
    except psycopg.errors.ProtocolViolation:
        return False  # it speaks in the frames of another version


def _process(daemon: Daemon, account: Account) -> dict[str, object]:
    pid = daemon.pid()
    # Of one that has stopped, the log says why.
    log: dict[str, object] = {"log": str(daemon.log)} if daemon.log.exists() else {}
    if pid is None:
        return {"running": False} | log
    return {"running": True, "pid": pid, "user": account.name} | log


def _engine_status(server: EmbeddedServer) -> dict[str, object]:
    """The engine's word about itself, through the database."""
    import psycopg
    from psycopg.rows import dict_row

    try:
        asked = server.connect()
    except psycopg.Error as error:
        return {"error": f"the server does not let it be asked: {str(error).strip()}"}
    try:
        with asked as connection:
            cursor = connection.cursor(row_factory=dict_row)
            cursor.execute("SET statement_timeout = '5s'")
            row = cursor.execute("SELECT * FROM tinydancer.engine_status").fetchone()
    except psycopg.errors.QueryCanceled:
        return {"error": "it has not answered within 5 seconds"}
    except psycopg.Error as error:
        return {"error": str(error).strip()}
    return {name: value for name, value in (row or {}).items() if name != "pid"}


def _environment() -> dict[str, str]:
    """Ours, less what would lead the engine to another database."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
