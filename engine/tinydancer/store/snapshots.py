"""The snapshot that a scan reads: the one in memory while nobody has committed a change since."""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import Queue
from threading import Lock, Thread
from time import monotonic

import psycopg

from tinydancer.embeddings.base import Embedder
from tinydancer.errors import TinyDancerError
from tinydancer.store.database import Connection, Database
from tinydancer.store.freshness import EVERYTHING, PERFORMANCE, Freshness, Question, Seen
from tinydancer.store.settings import Settings, read_settings
from tinydancer.store.snapshot import Snapshot, claim_space, read_snapshot, remeasured
from tinydancer.store.vectors import Unsaved
from tinydancer.store.write_back import write_back

logger = logging.getLogger(__name__)

# After so many readings an engine removes old rows from the table of changes.
READINGS_BETWEEN_PRUNINGS = 64
CHEAP_READING_S = 0.05

PRUNE = "SELECT tinydancer.prune_changes()"


class Snapshots:
    """Gives each scan a snapshot with all that was committed before the scan began. Thread-safe.

    `open_embedder` makes the embedder that settings name; it is asked again only when the
    settings about the embedder have changed.
    """

    def __init__(self, database: Database, open_embedder: Callable[[Settings], Embedder]) -> None:
        self._database = database
        self._open_embedder = open_embedder
        self._freshness = Freshness(database)
        self._reading = Lock()
        self._snapshot: Snapshot | None = None
        self._readings = 0
        self._performance_took = 0.0
        self._unsaved: Queue[tuple[Embedder, tuple[Unsaved, ...]] | None] = Queue()
        self._writer = Thread(target=self._write, name="write-back", daemon=True)
        self._writer.start()

    def begin(self, commits: str = "") -> Question:
        """Ask whether the snapshot in memory is fresh; `finish` takes the answer.

        `commits` is how far the server has come, as far as a front door knows.
        """
        snapshot = self._snapshot
        if snapshot is None:
            return Question(Seen("", 0), stale=EVERYTHING)
        return self._freshness.ask(snapshot.seen, commits)

    def finish(self, question: Question) -> Snapshot:
        """The snapshot for the scan that began with `question`.

        Raises Unavailable where the database can't be reached, NotReady where it has no schema
        of ours or vectors of another space.
        """
        stale = self._freshness.answer(question)
        snapshot = self._snapshot
        if snapshot is not None and (not stale or self._may_wait(stale, snapshot)):
            return snapshot
        with self._reading:
            snapshot = self._snapshot
            # Another scan may have read it since this one asked.
            if snapshot is not None and snapshot.read_at >= question.asked_at:
                return snapshot
            self._snapshot = read = self._renewed(snapshot, stale)
            if self._readings % READINGS_BETWEEN_PRUNINGS == 0:
                self._prune()
            self._readings += 1
            return read

    def current(self) -> Snapshot:
        """The snapshot of this moment."""
        return self.finish(self.begin())

    @property
    def latest(self) -> Snapshot | None:
        """The snapshot in memory, fresh or not: for figures about the engine, not decisions."""
        return self._snapshot

    def close(self) -> None:
        """Stop the writer, after what it has begun, and close the connection for questions."""
        self._unsaved.put(None)
        self._writer.join(timeout=5)
        self._freshness.close()

    def _renewed(self, previous: Snapshot | None, stale: frozenset[str]) -> Snapshot:
        # After a reconnect nothing is known of the past, not even that it is the same.
        if previous is None or stale == EVERYTHING:
            return self._read(None)
        if stale != PERFORMANCE:
            return self._read(previous)
        started = monotonic()
        snapshot = self._database.run(lambda conn: remeasured(conn, previous))
        if snapshot is None:
            snapshot = self._read(previous)
        self._performance_took = monotonic() - started
        return snapshot

    def _read(self, previous: Snapshot | None) -> Snapshot:
        self._freshness.connect()
        snapshot, unsaved = self._database.run(lambda conn: self._read_on(conn, previous))
        if unsaved:
            self._unsaved.put((snapshot.embedder, unsaved))
        return snapshot

    def _prune(self) -> None:
        """Remove old rows of the table of changes: that may wait, and no scan fails of it."""
        try:
            self._database.run(lambda conn: conn.execute(PRUNE))
        except (TinyDancerError, psycopg.Error) as error:
            why = error.reason if isinstance(error, TinyDancerError) else error
            logger.warning("old changes not removed yet: %s", why)

    def _read_on(
        self, conn: Connection, previous: Snapshot | None
    ) -> tuple[Snapshot, tuple[Unsaved, ...]]:
        settings = read_settings(conn)
        embedder = self._embedder(settings)
        if settings.embedding_space is None and embedder.dimension == settings.dimension:
            claim_space(conn, embedder)
        return read_snapshot(conn, embedder, previous)

    def _may_wait(self, stale: frozenset[str], snapshot: Snapshot) -> bool:
        """Whether only measured performance has changed, and reading it again is dear.

        Outcomes come all the time: where there are so many agents that reading them takes
        longer than CHEAP_READING_S, it takes at most a tenth of the time.
        """
        if stale != PERFORMANCE or self._performance_took < CHEAP_READING_S:
            return False
        return monotonic() - snapshot.read_at < 10 * self._performance_took

    def _embedder(self, settings: Settings) -> Embedder:
        present = self._snapshot
        if (
            present is not None
            and _embedding(present.settings) == _embedding(settings)
            # A model of the same name may have been trained further, and the tables re-embedded.
            and settings.embedding_space in (None, present.embedder.space)
        ):
            return present.embedder
        return self._open_embedder(settings)

    def _write(self) -> None:
        while (work := self._unsaved.get()) is not None:
            embedder, unsaved = work
            rows = sum(len(part.keys) for part in unsaved)
            try:
                written = write_back(self._database, embedder, unsaved)
            except TinyDancerError as error:
                logger.warning("%d embeddings not written back yet: %s", rows, error.reason)
            except Exception:
                # The vectors are served from memory all the same, and made again at need.
                logger.exception("%d embeddings not written back", rows)
            else:
                logger.info("wrote %d of %d embeddings back", written, rows)


def _embedding(settings: Settings) -> tuple[object, ...]:
    return (
        settings.embedder,
        settings.embedder_model,
        settings.embedder_url,
        settings.dimension,
        settings.cascade_threshold,
    )
