"""Keeping decisions: at once, in batches, or not at all.

'sync' commits a decision before its answer goes out. 'async' hands it to a thread that writes
batches by COPY: an engine that is killed loses what was decided in the last FLUSH_SECONDS and the
batch under way; while the database can't take them at most MOST_WAITING decisions wait, and the
oldest are dropped first and counted.

The category of a request is found when its decision is written: after its answer where that is
async, and for a whole batch at once.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha256
from threading import Condition, Thread
from time import monotonic, sleep
from traceback import format_tb

import psycopg
from psycopg.types.json import Jsonb

from tinydancer.decisions import Decision, decision_time
from tinydancer.errors import TinyDancerError
from tinydancer.store.database import Connection, Database

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.5
MOST_AT_ONCE = 2_000
MOST_WAITING = 100_000
RETRY_SECONDS = 1.0
# The thread that writes rests after so many rows, so that scans get the interpreter's lock: to one
# that keeps it they would lose whole milliseconds each.
ROWS_BETWEEN_RESTS = 4
REST_SECONDS = 1e-5

# Columns and types of what is written, in the order of a row.
_COLUMNS = {
    "id": "uuid",
    "tenant": "text",
    "decided_at": "timestamptz",
    "request": "text",
    "request_hash": "bytea",
    "embedding": "vector",
    "embedding_model": "text",
    "embedding_space": "text",
    "agent": "text",
    "route": "text",
    "category": "text",
    "user_tier": "text",
    "session_key": "text",
    "optimize_for": "text",
    "constraints": "jsonb",
    "candidates": "jsonb",
    "propensity": "float8",
    "confidence": "float8",
    "estimated_cost": "numeric",
    "estimated_latency_ms": "float8",
    "expected_quality": "float8",
    "models": "jsonb",
    "team": "uuid",
}
COPY = f"COPY tinydancer.decisions ({', '.join(_COLUMNS)}) FROM STDIN (FORMAT BINARY)"
PARTITIONS = "SELECT tinydancer.ensure_partitions(%s, %s)"


# A decision, and whether its text is kept.
Row = tuple[Decision, bool]
# Decisions with what is found out about them when they are written.
Complete = Callable[[Sequence[Decision]], Sequence[Decision]]
# Errors of the database's state, not of a row: no connection, no room, no right, read only ...
_OF_ITS_STATE = (
    TinyDancerError,
    psycopg.OperationalError,
    psycopg.ProgrammingError,
    psycopg.InternalError,
)
# ... but for these two, a limit that a row is over, and a trigger that refuses it.
_OF_A_ROW = (psycopg.errors.ProgramLimitExceeded, psycopg.errors.RaiseException)


class DecisionLog:
    """Takes decisions from every scan of an engine. Thread-safe."""

    def __init__(
        self, database: Database, complete: Complete = lambda decisions: decisions
    ) -> None:
        self._database = database
        self._complete = complete
        self._waiting: deque[Row] = deque()
        self._wake = Condition()
        self._writing = False
        self._stopping = False
        self._interrupted = False
        self.written = 0
        self.dropped = 0
        self._writer = Thread(target=self._write, name="decision-log", daemon=True)
        self._writer.start()

    def keep(self, decisions: Sequence[Decision], *, mode: str, text: bool) -> None:
        """Keep decisions by the settings decision_log and decision_log_text.

        With mode 'sync' they are committed on return; raises Unavailable where they can't be.
        """
        if mode == "off" or not decisions:
            return
        if mode == "sync":
            self._write_rows([(decision, text) for decision in decisions])
            return
        rows = [(decision, text) for decision in decisions]
        with self._wake:
            self._waiting.extend(rows)
            surplus = len(self._waiting) - MOST_WAITING
            for _ in range(surplus):
                self._waiting.popleft()
            self.dropped += max(0, surplus)
            if len(self._waiting) >= MOST_AT_ONCE:
                self._wake.notify()

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until all that was handed over is written; whether it was in time."""
        deadline = monotonic() + timeout
        with self._wake:
            self._wake.notify()
            while (self._waiting or self._writing) and monotonic() < deadline:
                self._wake.notify_all()
                self._wake.wait(0.02)
            return not self._waiting and not self._writing

    def close(self, timeout: float = 5.0) -> None:
        """Write what waits, within some seconds, and stop. What is lost then is counted."""
        self.flush(timeout)
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._writer.join(timeout=5)
        if lost := len(self._waiting):
            self._waiting.clear()
            self.dropped += lost
            logger.error("%d decisions are lost: the database has not taken them in time", lost)

    def _write(self) -> None:
        while True:
            with self._wake:
                self._wake.wait(FLUSH_SECONDS)
                if self._stopping:
                    return
                batch = [
                    self._waiting.popleft() for _ in range(min(MOST_AT_ONCE, len(self._waiting)))
                ]
                self._writing = bool(batch)
            if not batch:
                continue
            waiting = self._write_batch(batch)
            if self._interrupted and not waiting:
                logger.info("decisions are written again")
                self._interrupted = False
            with self._wake:
                self._put_back(waiting)
                self._writing = False
                self._wake.notify_all()
                if waiting and not self._stopping:
                    self._wake.wait(RETRY_SECONDS)

    def _write_batch(self, batch: list[Row]) -> list[Row]:
        """Write decisions; those that have to wait, as the database can't take any right now."""
        try:
            self._write_rows(batch)
        except Exception as error:
            if isinstance(error, _OF_ITS_STATE) and not isinstance(error, _OF_A_ROW):
                # Once: a database may be away all night.
                if not self._interrupted:
                    logger.warning("decisions wait for the database: %s", _said(error))
                self._interrupted = True
                return batch
            if len(batch) > 1:
                # One that the table refuses must not hold up the others, nor take them along.
                half = len(batch) // 2
                return self._write_batch(batch[:half]) + self._write_batch(batch[half:])
            logger.error("decision %s can't be kept: %s", batch[0][0].id, _said(error))  # noqa: TRY400
            with self._wake:
                self.dropped += 1
        return []

    def _write_rows(self, rows: Sequence[Row]) -> None:
        """Write decisions, complete, in one transaction."""
        whole = self._complete([decision for decision, _ in rows])
        kept = [(decision, text) for decision, (_, text) in zip(whole, rows, strict=True)]
        self._database.run(lambda conn: _copy(conn, kept))
        with self._wake:
            self.written += len(kept)

    def _put_back(self, batch: list[Row]) -> None:
        """Have decisions wait before all others, the latest of them where not all have room."""
        room = max(0, MOST_WAITING - len(self._waiting))
        kept = batch[len(batch) - min(room, len(batch)) :]
        self.dropped += len(batch) - len(kept)
        self._waiting.extendleft(reversed(kept))


def _said(error: Exception) -> str:
    """What went wrong, without the detail that quotes a row, and so what people asked."""
    if isinstance(error, psycopg.Error):
        return f"{error.sqlstate}: {error.diag.message_primary}"
    if isinstance(error, TinyDancerError):
        return error.reason
    return "".join([type(error).__name__, "\n", *format_tb(error.__traceback__)])


def _copy(conn: Connection, rows: Sequence[Row]) -> None:
    """Write decisions in one transaction, and their partitions first where they are missing."""
    try:
        _copy_rows(conn, rows)
    except psycopg.errors.CheckViolation as error:
        if error.diag.constraint_name is not None:
            raise
        times = [decision_time(decision.id) for decision, _ in rows]
        conn.execute(PARTITIONS, (min(times), max(times)))
        _copy_rows(conn, rows)


def _copy_rows(conn: Connection, rows: Sequence[Row]) -> None:
    with conn.transaction(), conn.cursor() as cursor, cursor.copy(COPY.encode()) as copy:
        copy.set_types(list(_COLUMNS.values()))
        for number, (decision, text) in enumerate(rows, 1):
            if number % ROWS_BETWEEN_RESTS == 0:
                sleep(REST_SECONDS)
            copy.write_row(
                (
                    decision.id,
                    decision.tenant,
                    decision_time(decision.id),
                    decision.request if text else None,
                    sha256(decision.request.encode()).digest(),
                    decision.embedding,
                    decision.embedding_model,
                    decision.embedding_space,
                    decision.agent,
                    decision.route,
                    decision.category,
                    decision.user_tier,
                    decision.session_key,
                    decision.optimize_for,
                    Jsonb(decision.constraints),
                    Jsonb(list(decision.candidates)),
                    decision.propensity,
                    decision.confidence,
                    decision.estimated_cost,
                    decision.estimated_latency_ms,
                    decision.expected_quality,
                    Jsonb(decision.models),
                    decision.team,
                )
            )
