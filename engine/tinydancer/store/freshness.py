"""Asking whether anybody has committed a change since a copy was read.

The question is sent when a scan starts and read when its text is embedded, so that a scan hardly
waits for it. Scans that ask at the same time share one question, as long as it was sent after
each of them had asked. Nothing is asked for a scan whose front door says how far the server has
come, where that is no further than when a question was asked last.
"""

from __future__ import annotations

import select
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import Any

import psycopg
from psycopg import pq

from tinydancer.errors import TinyDancerError, Unavailable
from tinydancer.store.database import Database, unavailable
from tinydancer.store.served import read_served

ANSWER_TIMEOUT_S = 5.0

# All parts: what an answer names after a reconnect, when nothing is known of the time between.
EVERYTHING = frozenset({"*"})
NOTHING: frozenset[str] = frozenset()
# What outcomes change, which come all the time.
PERFORMANCE = frozenset({"performance"})

# Rows at or above the copy's xmin which it did not see; a floor there may hide pruned ones. The
# table's own oid tells a schema that was dropped and restored meanwhile.
_QUESTION = """
SELECT part FROM tinydancer.changes
WHERE xid >= pg_snapshot_xmin({snapshot})
  AND (is_floor OR NOT pg_visible_in_snapshot(xid, {snapshot}))
UNION
SELECT '*' WHERE 'tinydancer.changes'::regclass::oid <> {changes}
"""
STALE_PARTS = _QUESTION.format(snapshot="%(snapshot)s::pg_snapshot", changes="%(changes)s::oid")

_NAME = b"freshness"
_PREPARED = _QUESTION.format(snapshot="$1", changes="$2").encode()


@dataclass(frozen=True)
class Seen:
    """What a copy was read under: its pg_snapshot, and the oid of the table of changes."""

    snapshot: str
    changes: int

    def parameters(self) -> dict[str, str | int]:
        """What STALE_PARTS asks with."""
        return {"snapshot": self.snapshot, "changes": self.changes}


@dataclass(eq=False)
class Question:
    """One question, shared by the scans that asked before it was sent."""

    seen: Seen
    commits: str = ""
    asked_at: float = field(default_factory=monotonic)
    stale: frozenset[str] | None = None
    error: TinyDancerError | None = None

    @property
    def answered(self) -> bool:
        """Whether an answer or an error is there."""
        return self.stale is not None or self.error is not None


class Freshness:
    """The connection on which questions travel. Thread-safe.

    A server that restarts after a crash counts its commits anew. It has closed our connection by
    then: what was found on one connection holds as long as this connection does.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = Lock()
        self._conn: psycopg.Connection[Any] | None = None
        self._sent: Question | None = None
        self._waiting: Question | None = None
        self._poll = select.poll()
        # What commits of our own server begin with, and the last ones that were found fresh.
        self._server = ""
        self._fresh: tuple[str, Seen] | None = None

    def connect(self) -> None:
        """Connect where there is no connection: what is read from now on can be asked about.

        Raises Unavailable where the database can't be reached.
        """
        with self._lock:
            if self._conn is None:
                self._conn = self._open()

    def ask(self, seen: Seen, commits: str = "") -> Question:
        """Send the question whether anything changed since `seen`, or join one not sent yet.

        `commits` is how far the server has come, "" where that is not known.
        """
        with self._lock:
            if self._sent is not None and self._arrived():
                self._finish()
            if self._sent is None:
                if self._fresh == (commits, seen) and not self._poll.poll(0):
                    return Question(seen, stale=NOTHING)
                question = self._waiting or Question(seen, commits)
                self._waiting = None
                self._send(question)
                return question
            if self._waiting is None:
                self._waiting = Question(seen, commits)
            return self._waiting

    def answer(self, question: Question) -> frozenset[str]:
        """The parts that have changed; empty where the copy is fresh.

        Raises Unavailable where the database can't be reached.
        """
        while not question.answered:
            with self._lock:
                if question.answered:
                    break
                if self._sent is not None:
                    self._finish()
                if self._waiting is not None and self._sent is None:
                    waiting, self._waiting = self._waiting, None
                    self._send(waiting)
        if question.error is not None:
            raise question.error
        assert question.stale is not None  # noqa: S101 - answered
        return question.stale

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def _send(self, question: Question) -> None:
        """Send, connecting where needed; what can't be sent is answered by an error."""
        self._sent = question
        if self._conn is not None:
            try:
                self._send_on(self._conn, question)
            except psycopg.OperationalError:
                self._drop()
            else:
                return
        self._reconnect(question)

    def _send_on(self, conn: psycopg.Connection[Any], question: Question) -> None:
        seen = question.seen
        parameters = [seen.snapshot.encode(), str(seen.changes).encode()]
        conn.pgconn.send_query_prepared(_NAME, parameters)
        conn.pgconn.flush()

    def _reconnect(self, question: Question) -> None:
        """Connect anew and answer: after a break nobody knows what was missed."""
        self._sent = None
        try:
            self._conn = self._open()
        except TinyDancerError as error:
            question.error = error
        else:
            question.stale = EVERYTHING

    def _open(self) -> psycopg.Connection[Any]:
        conn = self._database.connect()
        try:
            conn.execute("SET plan_cache_mode = force_generic_plan")
            result = conn.pgconn.prepare(_NAME, _PREPARED)
            _expect(result, pq.ExecStatus.COMMAND_OK)
            self._server = read_served(conn).commits
        except psycopg.OperationalError as error:
            conn.close()
            raise unavailable(error) from error
        self._poll = select.poll()
        self._poll.register(conn.pgconn.socket, select.POLLIN)
        return conn

    def _arrived(self) -> bool:
        """Whether the answer can be read without waiting."""
        assert self._conn is not None  # noqa: S101 - a question is out
        try:
            self._conn.pgconn.consume_input()
        except psycopg.OperationalError:
            return True
        return not self._conn.pgconn.is_busy()

    def _finish(self) -> None:
        """Read the answer to the question that is out."""
        question, self._sent = self._sent, None
        assert question is not None and self._conn is not None  # noqa: S101 - a question is out
        try:
            question.stale = _read(self._conn.pgconn)
            if not question.stale and self._server and question.commits.startswith(self._server):
                self._fresh = (question.commits, question.seen)
        except psycopg.OperationalError:
            self._drop()
            self._reconnect(question)
        except Unavailable as error:
            self._drop()
            question.error = error

    def _drop(self) -> None:
        self._fresh = None
        if self._conn is not None:
            self._conn.close()
            self._conn = None


def _read(pgconn: pq.abc.PGconn) -> frozenset[str]:
    """The parts named by the rows of one result."""
    deadline = monotonic() + ANSWER_TIMEOUT_S
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    parts: set[str] = set()
    while True:
        while pgconn.is_busy():
            left = deadline - monotonic()
            if left <= 0:
                raise Unavailable(
                    f"the database has not answered for {ANSWER_TIMEOUT_S:g} s",
                    hint="See what holds the server up, or restart it.",
                )
            poll.poll(left * 1000)
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            return frozenset(parts)
        _expect(result, pq.ExecStatus.TUPLES_OK)
        for row in range(result.ntuples):
            value = result.get_value(row, 0)
            parts.add(value.decode() if value else "*")


def _expect(result: pq.abc.PGresult, status: pq.ExecStatus) -> None:
    if result.status != status:
        raise psycopg.OperationalError(result.error_message.decode(errors="replace"))
