"""From a scan to its rows: the snapshot it reads, its embedding, the table that answers it."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from time import monotonic, sleep
from types import TracebackType

from tinydancer import __version__, log
from tinydancer.decision_categories import with_categories
from tinydancer.decisions import Decision
from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.embeddings.select import Usage, usage
from tinydancer.embeddings.wrapper import EmbedderWrapper
from tinydancer.errors import NotReady, TinyDancerError, Unavailable
from tinydancer.neural.active import DefaultClassifier
from tinydancer.semantic_routes.route import RouteSearch
from tinydancer.server.metrics import Figures, Metrics
from tinydancer.server.trainer import Trainer
from tinydancer.store import schema
from tinydancer.store.analytics import routing_analytics
from tinydancer.store.correlations import ErrorCorrelations
from tinydancer.store.database import Database
from tinydancer.store.decision_log import DecisionLog
from tinydancer.store.demand import past_demand
from tinydancer.store.maintenance import Maintenance
from tinydancer.store.outcomes import outcomes_of_decisions
from tinydancer.store.rates import RouteRates
from tinydancer.store.request_words import request_words
from tinydancer.store.reservations import Reservations
from tinydancer.store.route_search import ranked_routes
from tinydancer.store.sessions import Sessions
from tinydancer.store.settings import open_embedder
from tinydancer.store.snapshot import Snapshot
from tinydancer.store.snapshots import Snapshots
from tinydancer.tables import answer
from tinydancer.tables.context import Context, Keep, Status
from tinydancer_fdw.contract import TABLES
from tinydancer_fdw.frames import EQUALS, PROTOCOL, Input, Place, Row, Scan

# Embedded while the question of freshness travels: no more than fits into that time.
_AHEAD_TEXTS = 16
_AHEAD_CHARACTERS = 4096
# Texts that cost money to embed are not embedded before the scan has been checked; a cascade
# needs to know what a text is compared with.
_NOT_AHEAD = frozenset({"openai", "cascade"})
# Collections by Python's cycle collector cost a scan milliseconds where they walk a large heap:
# what a snapshot holds is taken out of its sight, and it looks at the rest less often.
_GC_THRESHOLDS = (20_000, 20, 50)
# Locks are held for milliseconds, by a batch of ten thousand for a few seconds, and for ever by a
# transaction that somebody leaves open. Doors give up after 30 seconds, and so must we before.
_PATIENCE_S = 5.0
# A server that refuses an engine as it starts may have no connection left for a moment. An engine
# that ended at once would be started again so often that systemd gives up.
_REFUSED_SECONDS = 5.0
_ASK_AGAIN_SECONDS = 1.0
_DEFAULT_CLASSIFIER = DefaultClassifier()


class Engine:
    """What the sessions of one engine share: the database, the snapshot, the metrics.

    With `upkeep` it also does what some engine of the database has to do: trainings, maintenance.
    """

    def __init__(self, dsn: str, metrics: Metrics, *, upkeep: bool = True) -> None:
        self._metrics = metrics
        self._upkeep = upkeep
        self._database = Database(dsn)
        self._snapshots = Snapshots(self._database, open_embedder)
        self._trainer = Trainer(dsn, self._database)
        self._log = DecisionLog(self._database, self._with_categories)
        self._unreadable: str | None = None
        # What a user's transaction may hold is waited for on connections of its own, and not long:
        # one that stays open must not stop the scans that need nothing of it.
        self._contended = Database(dsn, patience_s=_PATIENCE_S)
        self.rates = RouteRates(self._contended)
        self.reservations = Reservations(self._database, self._contended)
        self.sessions = Sessions(self._contended)
        self.request_words = partial(request_words, self._database)
        self.analytics = partial(routing_analytics, self._database)
        self.outcomes = partial(outcomes_of_decisions, self._database)
        self.past_demand = partial(past_demand, self._database)
        self.correlations = ErrorCorrelations(self._database).of
        self._maintenance = Maintenance(self._database)
        self._settled: Snapshot | None = None
        self._settling = threading.Lock()

    def __enter__(self) -> Engine:
        """Reads the first snapshot, so that the first scan need not.

        Raises NotReady where the database is not ours to use, or goes on to refuse an engine that
        has not answered yet. One that can't be reached may come later.
        """
        gc.set_threshold(*_GC_THRESHOLDS)
        try:
            self.settle(self._first_snapshot())
        except Unavailable as error:
            log.event(logging.WARNING, "database_unavailable", reason=error.reason)
        else:
            self._warm_up()
            if self._upkeep:
                self._compare_schema()
        if self._upkeep:
            self._trainer.start()
            self._maintenance.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._upkeep:
            self._maintenance.close()
            self._trainer.stop()
        self._log.close()
        self._snapshots.close()
        self._contended.close()
        self._database.close()

    def open_session(self, front_door: str) -> EngineSession:
        """What answers the scans of a new connection."""
        return EngineSession(self, front_door)

    def status(self) -> Status:
        """The engine as engine_status shows it."""
        figures = self.figures()
        return Status(
            version=__version__,
            protocol=PROTOCOL,
            pid=self._metrics.board.pid,
            uptime=timedelta(seconds=figures.uptime),
            scans=figures.scans,
            errors=figures.errors,
            latency_p50_ms=figures.latency_p50_ms,
            latency_p95_ms=figures.latency_p95_ms,
            latency_p99_ms=figures.latency_p99_ms,
            cache_hits=figures.usage.cache_hits,
            cache_misses=figures.usage.cache_misses,
            escalated=figures.usage.escalated,
            decisions_kept=figures.decisions_kept,
            decisions_lost=figures.decisions_lost,
        )

    def figures(self) -> Figures:
        """What it has done, all its workers together; this one's counts are of this moment."""
        self.note()
        return self._metrics.read()

    def note(self) -> None:
        """Let the other workers see what this one's embedder and log have counted."""
        snapshot = self._snapshots.latest
        used = usage(snapshot.embedder) if snapshot is not None else Usage()
        self._metrics.note(used, (self._log.written, self._log.dropped))

    def snapshot_and_embedder(self, texts: list[str], place: Place) -> tuple[Snapshot, Embedder]:
        """A snapshot with all that is committed by now, and its embedder.

        `place` is where the front door is, and how far its server has come. The question whether
        the one in memory will do travels while `texts` are embedded: the embedder that is returned
        has their vectors already. Raises OtherDatabase where the door is in another database.
        """
        question = self._snapshots.begin(place.commits)
        ahead = _embed_ahead(self._snapshots.latest, texts)
        snapshot = self._snapshots.finish(question)
        if snapshot is not self._settled:
            self.settle(snapshot)
        if not snapshot.served.answers(place):
            raise self._database.run(lambda conn: snapshot.served.refusal(place, conn))
        if ahead is not None and ahead.is_of(snapshot.embedder):
            return snapshot, ahead
        return snapshot, snapshot.embedder

    def keep(self, snapshot: Snapshot) -> Keep | None:
        """What keeps decisions, by the settings; None where it is off."""
        settings = snapshot.settings
        mode = settings.decision_log
        if mode == "off":
            if not _reserves(snapshot):
                return None
            mode = "async"  # what a decision has reserved is settled by its outcome, which names it
        return partial(self._log.keep, mode=mode, text=settings.decision_log_text)

    def _with_categories(self, decisions: Sequence[Decision]) -> Sequence[Decision]:
        """Decisions with their categories; as they are where the classifier can't be read."""
        snapshot = self._snapshots.latest
        active = (snapshot and snapshot.classifier) or _DEFAULT_CLASSIFIER
        try:
            return with_categories(decisions, active.classifier, active.name)
        except TinyDancerError as error:
            if active.name != self._unreadable:
                self._unreadable = active.name
                log.event(logging.WARNING, "decisions_without_category", reason=error.reason)
            return decisions

    def route_search(self, snapshot: Snapshot) -> RouteSearch:
        """The search by the database's index, for a snapshot whose routes have no vectors."""
        return partial(ranked_routes, self._database, snapshot)

    def _first_snapshot(self) -> Snapshot:
        """The snapshot that it begins with. Raises Unavailable, and NotReady as __enter__ does."""
        deadline = monotonic() + _REFUSED_SECONDS
        while True:
            try:
                return self._snapshots.current()
            except Unavailable as error:
                # A worker that takes the place of another one waits as that did.
                if self._metrics.board.is_one_ready() or not self._database.is_there():
                    raise
                if monotonic() > deadline:
                    raise NotReady(
                        "the engine gets no connection to its database by this DSN",
                        detail=error.detail,
                        hint="See the role, the password and the database of --dsn, and the"
                        " server's pg_hba.conf. tinydancer install --engine-password-file lets"
                        " the engine's role log in.",
                    ) from error
            sleep(_ASK_AGAIN_SECONDS)

    def _compare_schema(self) -> None:
        """Says that the schema is of another version, where it is: either may be upgraded first."""
        installed = self._database.run(schema.version)
        if installed is not None and installed.version != __version__:
            older = installed.version is None or _order(installed.version) < _order(__version__)
            log.event(
                logging.WARNING,
                "schema_of_another_version",
                schema=installed.version or "before 0.5.0",
                engine=__version__,
                hint="tinydancer upgrade --dsn ..." if older else "upgrade the engine",
            )

    def _warm_up(self) -> None:
        """Answers one of each kind for nobody: libraries load and allocate at their first use."""
        session = self.open_session("warm-up")
        for table in TABLES.values():
            inputs = tuple(
                Input(column.name, EQUALS, ["warm-up"] if column.type == "text[]" else "warm-up")
                for column in table.inputs
                if column.required
            )
            columns = tuple(column.name for column in table.columns)
            scan = Scan(table.name, columns, inputs)
            try:
                # Nobody's request counts towards no route's rate, and is not kept.
                context = replace(session.context(scan), rates=None, keep=None, reservations=None)
                for _ in answer(context, scan):
                    pass
            except TinyDancerError:
                pass  # what can't be answered yet says so to whoever asks
            except Exception as error:
                # An engine that answers all other questions is better than none.
                log.event(
                    logging.ERROR, "warm_up_failed", table=table.name, reason=str(error)[:200]
                )

    def settle(self, snapshot: Snapshot) -> None:
        """Takes a new snapshot's many objects out of the cycle collector's sight."""
        with self._settling:
            if snapshot is not self._settled:
                gc.collect(1)
                gc.freeze()
                self._settled = snapshot
                log.event(
                    logging.INFO,
                    "snapshot",
                    agents=len(snapshot.agents.names),
                    routes=len(snapshot.routes.routes),
                    model=snapshot.embedder.model,
                )


class EngineSession:
    """The scans of one connection: those of one statement read one snapshot."""

    def __init__(self, engine: Engine, front_door: str) -> None:
        self._engine = engine
        self._front_door = front_door
        self._statement = 0
        self._snapshot: Snapshot | None = None

    def scan(self, scan: Scan) -> Iterator[Row]:
        """The rows of a scan. Raises TinyDancerError, some of them not before the first row."""
        return answer(self.context(scan), scan)

    def context(self, scan: Scan) -> Context:
        """What a scan goes by. Raises Unavailable where the database can't be reached."""
        snapshot, embedder = self._read(scan)
        return Context(
            snapshot=snapshot,
            embedder=embedder,
            now=datetime.now(timezone.utc),
            front_door=self._front_door,
            status=self._engine.status,
            classifier=snapshot.classifier or _DEFAULT_CLASSIFIER,
            quality=snapshot.quality,
            route_search=self._engine.route_search(snapshot),
            request_words=self._engine.request_words,
            rates=self._engine.rates,
            analytics=self._engine.analytics,
            outcomes=self._engine.outcomes,
            past_demand=self._engine.past_demand,
            correlations=self._engine.correlations,
            keep=self._engine.keep(snapshot),
            reservations=self._engine.reservations if _reserves(snapshot) else None,
            sessions=self._engine.sessions,
        )

    def _read(self, scan: Scan) -> tuple[Snapshot, Embedder]:
        if scan.statement and scan.statement == self._statement and self._snapshot is not None:
            return self._snapshot, self._snapshot.embedder
        snapshot, embedder = self._engine.snapshot_and_embedder(_texts(scan), Place.of(scan.place))
        self._statement, self._snapshot = scan.statement, snapshot
        return snapshot, embedder


class Ahead(EmbedderWrapper):
    """An embedder that has the vectors of some texts already."""

    def __init__(self, embedder: Embedder, texts: list[str], vectors: Vectors) -> None:
        super().__init__(embedder)
        self._texts = texts
        self._vectors = vectors

    def is_of(self, embedder: Embedder) -> bool:
        """Whether the vectors are this embedder's."""
        return self._embedder is embedder

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32, rows of unit length."""
        if list(texts) == self._texts:
            return self._vectors
        return self._embedder.embed(texts)


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def _reserves(snapshot: Snapshot) -> bool:
    """Whether decisions may have anything to reserve."""
    return bool(snapshot.budgets or snapshot.pool.guarded)


def _embed_ahead(snapshot: Snapshot | None, texts: list[str]) -> Ahead | None:
    if (
        snapshot is None
        or not 0 < len(texts) <= _AHEAD_TEXTS
        or max(map(len, texts)) > _AHEAD_CHARACTERS
        or snapshot.settings.embedder in _NOT_AHEAD
    ):
        return None
    try:
        return Ahead(snapshot.embedder, texts, snapshot.embedder.embed(texts))
    except TinyDancerError:
        return None  # the table checks its inputs, and says what is wrong with them


def _texts(scan: Scan) -> list[str]:
    """The texts that a scan will embed, as far as can be told before its inputs are checked."""
    table = TABLES.get(scan.table)
    key = table.column(table.key) if table is not None and table.key is not None else None
    for item in scan.inputs:
        if key is not None and key.type == "text" and item.column == key.name:
            values = item.value if isinstance(item.value, list) else [item.value]
            return [value for value in values if isinstance(value, str)]
    return []
