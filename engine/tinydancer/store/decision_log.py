"""Keeping decisions: at once, in batches, or not at all.

'sync' commits a decision before its answer goes out. 'async' hands it to a thread that writes
batches by COPY: an engine that is killed loses what was decided in the last FLUSH_SECONDS and the
batch under way; while the database is away at most MOST_WAITING decisions wait, and the oldest are
dropped first and counted.

The category of a request is found when its decision is written: after its answer where that is
async, and for a whole batch at once.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha256
from threading import Condition, Thread
from time import monotonic

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


# Decisions with what is found out about them when they are written.
Complete = Callable[[Sequence[Decision]], Sequence[Decision]]


class DecisionLog:
    """Takes decisions from every scan of an engine. Thread-safe."""

    def __init__(
        self, database: Database, complete: Complete = lambda decisions: decisions
    ) -> None:
        self._database = database
        self._complete = complete
        self._waiting: deque[tuple[Decision, bool]] = deque()
        self._wake = Condition()
        self._writing = False
        self._stopping = False
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
            whole = [(decision, text) for decision in self._complete(decisions)]
            self._database.run(lambda conn: _copy(conn, whole))
            self.written += len(whole)
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
        """Write what waits, within some seconds, and stop."""
        self.flush(timeout)
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._writer.join(timeout=5)

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
            if batch:
                self._write_batch(batch)

    def _write_batch(self, batch: list[tuple[Decision, bool]]) -> None:
        try:
            whole = self._complete([decision for decision, _ in batch])
            rows = [(decision, text) for decision, (_, text) in zip(whole, batch, strict=True)]
            self._database.run(lambda conn: _copy(conn, rows))
        except TinyDancerError as error:
            logger.warning("%d decisions wait for the database: %s", len(batch), error.message)
            self._put_back(batch)
        except Exception:
            # One that the table refuses must not hold up the others for ever.
            logger.exception("%d decisions could not be kept", len(batch))
            with self._wake:
                self.dropped += len(batch)
                self._writing = False
        else:
            with self._wake:
                self.written += len(batch)
                self._writing = False
                self._wake.notify_all()

    def _put_back(self, batch: list[tuple[Decision, bool]]) -> None:
        with self._wake:
            room = max(0, MOST_WAITING - len(self._waiting))
            kept = batch[len(batch) - min(room, len(batch)) :]
            self.dropped += len(batch) - len(kept)
            self._waiting.extendleft(reversed(kept))
            self._writing = False
            if not self._stopping:
                self._wake.wait(RETRY_SECONDS)


def _copy(conn: Connection, rows: Sequence[tuple[Decision, bool]]) -> None:
    """Write decisions in one transaction, and their partitions first where they are missing."""
    try:
        _copy_rows(conn, rows)
    except psycopg.errors.CheckViolation as error:
        if error.diag.constraint_name is not None:
            raise
        times = [decision_time(decision.id) for decision, _ in rows]
        conn.execute(PARTITIONS, (min(times), max(times)))
        _copy_rows(conn, rows)


def _copy_rows(conn: Connection, rows: Sequence[tuple[Decision, bool]]) -> None:
    with conn.transaction(), conn.cursor() as cursor, cursor.copy(COPY.encode()) as copy:
        copy.set_types(list(_COLUMNS.values()))
        for decision, text in rows:
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
