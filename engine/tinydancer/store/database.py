"""Connections to the database: few, reused, and replaced when they break."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock
from typing import Any, TypeVar

import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tinydancer.errors import Held, NotReady, Unavailable, Unwritable

Connection = psycopg.Connection[Any]
T = TypeVar("T")

# What a DSN leaves open. A server that is gone must show within seconds.
DEFAULTS: dict[str, Any] = {
    "connect_timeout": 3,
    "application_name": "tinydancer",
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
}
MAX_CONNECTIONS = 8
# Read only; no room on its disk, none in its memory.
_TAKES_NOTHING = ("25006", "53100", "53200")
# What a role, a database or a server may have set against its other clients would end the engine's
# connections, which are kept, and its longer statements. It bounds its waiting itself.
_UNBOUNDED = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
)
_UNBOUNDED_FROM_17 = ("transaction_timeout",)


class Database:
    """The database that holds the truth. Thread-safe; connections are made when needed.

    Errors of the connection become Unavailable; the next use connects anew. With `patience_s`
    whoever waits longer for a lock, or three times as long for a connection, gets Held instead.
    """

    def __init__(
        self, dsn: str, *, max_connections: int = MAX_CONNECTIONS, patience_s: float | None = None
    ) -> None:
        self._conninfo = make_conninfo(**(DEFAULTS | conninfo_to_dict(dsn)))
        self._patience_s = patience_s
        self._slots = BoundedSemaphore(max_connections)
        self._lock = Lock()
        self._idle: list[Connection] = []
        self._closed = False

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """An autocommit connection of one's own for a while.

        Raises Unavailable where the database can't be reached or goes away meanwhile, Unwritable
        where it takes nothing, Held where somebody holds a lock for longer than `patience_s` or
        waits for this connection as well.
        """
        patience_s = self._patience_s
        if not self._slots.acquire(timeout=None if patience_s is None else 3 * patience_s):
            raise held("All connections of the engine for such decisions wait already.")
        try:
            conn = self._take()
            try:
                yield conn
            except psycopg.errors.LockNotAvailable as error:
                raise held(error.diag.context or "") from error
            except psycopg.errors.DeadlockDetected as error:
                raise Held(
                    "another transaction and the decision wait for each other",
                    detail=(error.diag.message_detail or "").strip(),
                    hint="Ask again: nothing was reserved. It happens where budgets change, or come"
                    " to hold for more, while decisions wait for them.",
                ) from error
            except psycopg.Error as error:
                if conn.closed or conn.broken:
                    raise unavailable(error) from error
                if error.sqlstate in _TAKES_NOTHING:
                    raise _unwritable(error) from error
                raise
            finally:
                self._give_back(conn)
        finally:
            self._slots.release()

    def run(self, work: Callable[[Connection], T]) -> T:
        """The result of `work`, which may safely be done twice: a broken connection is replaced.

        Raises Unavailable where a new connection breaks as well.
        """
        try:
            with self.connection() as conn:
                return work(conn)
        except Unavailable:
            # A server that restarted has ended the idle ones all at once.
            self._drop_idle()
        with self.connection() as conn:
            return work(conn)

    def connect(self) -> Connection:
        """A new connection that finds our tables and pgvector whatever the role's search path."""
        if self._closed:
            raise Unavailable("the engine is shutting down")
        try:
            conn = psycopg.connect(self._conninfo, autocommit=True)
        except psycopg.OperationalError as error:
            raise unavailable(error) from error
        try:
            _prepare(conn)
            if self._patience_s is not None:
                conn.execute(f"SET lock_timeout = {round(1000 * self._patience_s)}".encode())
        except psycopg.OperationalError as error:
            conn.close()
            raise unavailable(error) from error
        except BaseException:
            conn.close()
            raise
        return conn

    def is_there(self) -> bool:
        """Whether a server answers that takes connections, or the DSN is none: who gets no
        connection then is refused, by its role, its password or its database.
        """
        # libpq gives the SQLSTATE of a connection that failed to nobody, but goes by it here.
        ping = psycopg.pq.PGconn.ping(self._conninfo.encode())
        return ping in (psycopg.pq.Ping.OK, psycopg.pq.Ping.NO_ATTEMPT)

    def close(self) -> None:
        """Close the idle connections, and the busy ones as they come back."""
        with self._lock:
            self._closed = True
        self._drop_idle()

    def _drop_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for conn in idle:
            conn.close()

    def _take(self) -> Connection:
        while True:
            with self._lock:
                conn = self._idle.pop() if self._idle else None
            if conn is None:
                return self.connect()
            if _alive(conn):
                return conn
            conn.close()

    def _give_back(self, conn: Connection) -> None:
        usable = not conn.closed and conn.info.transaction_status == 0
        with self._lock:
            if usable and not self._closed:
                self._idle.append(conn)
                return
        conn.close()


def unavailable(error: psycopg.Error) -> Unavailable:
    """The engine's error for a connection that failed, with the server's words as detail."""
    return Unavailable(
        "the engine can't reach its database",
        detail=str(error).strip(),
        hint="Start the server, or give the engine a DSN that works: tinydancer serve --dsn ...",
    )


def _unwritable(error: psycopg.Error) -> Unwritable:
    refusal = Unwritable(
        "the engine's database does not take what has to be written",
        detail=error.diag.message_primary or "",
        hint="Make room on the server. On a standby, or where it is read only, what takes budgets,"
        " places or sessions can't be decided: ask the primary.",
    )
    refusal.sqlstate = error.sqlstate or refusal.sqlstate
    return refusal


def held(detail: str) -> Held:
    """The engine's error for a lock that was not to be had in time."""
    return Held(
        "another transaction holds budgets, places or sessions that the decision needs",
        detail=detail.strip(),
        hint="Commit an outcome, a fallback or a change of budgets before asking for the next"
        " decision: they hold their budgets to the end of their transaction.",
    )


def _alive(conn: Connection) -> bool:
    """Whether the server has left an idle connection open.

    One that it ends gets its reason first: the end itself is not to be seen until that is read.
    """
    poll = select.poll()
    try:
        poll.register(conn.pgconn.socket, select.POLLIN)
        while poll.poll(0):
            conn.pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    return not conn.closed


def _prepare(conn: Connection) -> None:
    newer = _UNBOUNDED_FROM_17 if conn.info.server_version >= 170000 else ()
    conn.execute("; ".join(f"SET {name} = 0" for name in (*_UNBOUNDED, *newer)).encode())
    row = conn.execute(
        "SELECT nspname FROM pg_catalog.pg_extension JOIN pg_catalog.pg_namespace"
        " ON pg_namespace.oid = extnamespace WHERE extname = 'vector'"
    ).fetchone()
    installed = conn.execute("SELECT pg_catalog.to_regclass('tinydancer.settings')").fetchone()
    if row is None or installed == (None,):
        raise NotReady(
            f"Tiny Dancer is not installed in database {conn.info.dbname!r}",
            hint="Install it: tinydancer install --dsn ...",
        )
    conn.execute(
        sql.SQL("SET search_path = pg_catalog, tinydancer, {}, pg_temp").format(
            sql.Identifier(row[0])
        )
    )
    register_vector(conn)
    # Whoever waited for a lock has to see what the other has left.
    conn.execute("SET default_transaction_isolation = 'read committed'")
    conn.execute("SET jit = off")
    conn.execute("SET TimeZone = 'UTC'")
