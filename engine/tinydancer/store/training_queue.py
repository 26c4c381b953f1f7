"""The queue of trainings: models that nobody trains yet, and how theirs goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from tinydancer.errors import NotReady
from tinydancer.store.database import Connection

CHANNEL = "tinydancer_trainings"
# A worker that has not been heard of for two minutes is taken to be dead.

OPEN = """
SELECT EXISTS (
    SELECT FROM tinydancer.models
    WHERE state = 'training'
        AND (worker IS NULL OR heartbeat_at < now() - interval '2 minutes'))
"""
CLAIM = """
UPDATE tinydancer.models SET worker = %(worker)s, heartbeat_at = now(), progress = 0,
    message = 'starting',
    parents = ARRAY(
        SELECT used.id FROM tinydancer.models AS used
        WHERE used.active AND used.kind = tinydancer.models.kind)
WHERE id = (
    SELECT id FROM tinydancer.models
    WHERE state = 'training'
        AND (worker IS NULL OR heartbeat_at < now() - interval '2 minutes')
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, kind, seed, training
"""
ROWS = """
SELECT id, request, category, capabilities, split
FROM tinydancer.labelled_requests ORDER BY id
"""
# Each of these touches nothing once the training is somebody else's.
BEAT = """
UPDATE tinydancer.models SET heartbeat_at = now(), message = %(stage)s, progress = %(progress)s
WHERE id = %(id)s AND worker = %(worker)s AND state = 'training'
"""
FAIL = """
UPDATE tinydancer.models SET state = 'failed', message = %(error)s, finished_at = now()
WHERE id = %(id)s AND worker = %(worker)s AND state = 'training'
"""
FINISH = """
UPDATE tinydancer.models SET state = 'ready', progress = 1, message = %(message)s,
    weights = %(weights)s, embedding_space = %(space)s,
    training = training || %(about)s, metrics = %(metrics)s,
    finished_at = now(), heartbeat_at = now()
WHERE id = %(id)s AND worker = %(worker)s AND state = 'training'
"""
REFRESH = "SELECT tinydancer.refresh_quality()"
IN_USE = """
SELECT id, coalesce((training ->> 'until')::timestamptz, finished_at, created_at)
FROM tinydancer.models WHERE kind = 'quality' AND active
"""
ACTIVATE = "SELECT tinydancer.activate_refreshed(%s, %s)"
SAY = "UPDATE tinydancer.models SET message = %s WHERE id = %s"


@dataclass(frozen=True)
class Training:
    """A model whose training is ours to do; `asked` is what SQL asked for beside the seed."""

    worker: UUID
    model: int
    kind: str
    seed: int
    asked: Mapping[str, Any]


@dataclass(frozen=True)
class LabelledRequest:
    """A row of labelled_requests; `split` is train, valid, test or out_of_scope."""

    id: int
    request: str
    category: str
    capabilities: tuple[str, ...]
    split: str


def trainings_open(conn: Connection) -> bool:
    """Whether there is a training that nobody is doing."""
    row = conn.execute(OPEN).fetchone()
    return row is not None and bool(row[0])


def claim(conn: Connection, worker: UUID) -> Training | None:
    """The oldest training that nobody is doing, now ours; None where there is none."""
    row = conn.execute(CLAIM, {"worker": worker}).fetchone()
    return None if row is None else Training(worker, *row)


def read_rows(conn: Connection) -> list[LabelledRequest]:
    """The labelled requests, in the order they were added."""
    rows = conn.execute(ROWS).fetchall()
    return [
        LabelledRequest(number, request, category, tuple(capabilities), split)
        for number, request, category, capabilities, split in rows
    ]


def beat(conn: Connection, training: Training, stage: str, progress: float) -> None:
    """Say that the work goes on. Raises NotReady where it was taken over by another worker."""
    _ours(conn, training, BEAT, {"stage": stage, "progress": progress})


def fail(conn: Connection, training: Training, error: str) -> None:
    """Record why a training failed."""
    _ours(conn, training, FAIL, {"error": error})


def finish(
    conn: Connection,
    training: Training,
    weights: bytes,
    space: str,
    about: dict[str, object],
    metrics: dict[str, object],
    message: str | None = None,
) -> None:
    """Store the model: what it was taught and what was measured go with it."""
    values = {"weights": weights, "space": space, "message": message}
    _ours(conn, training, FINISH, {**values, "about": Jsonb(about), "metrics": Jsonb(metrics)})


def refresh(conn: Connection) -> int | None:
    """Queue a training of quality where settings say that it is time; its number."""
    row = conn.execute(REFRESH).fetchone()
    return None if row is None else row[0]


def quality_in_use(conn: Connection) -> tuple[int, datetime] | None:
    """The active model of quality, and when the last decision was made that it has seen."""
    row = conn.execute(IN_USE).fetchone()
    return None if row is None else (row[0], row[1])


def switch_on(conn: Connection, model: int, instead_of: int | None, message: str) -> None:
    """Put a refreshed model to use in place of another; where that is no more in use, say so."""
    row = conn.execute(ACTIVATE, (model, instead_of)).fetchone()
    if row is None or not row[0]:
        message = "kept back: meanwhile another was switched on, or quality_refresh off"
    conn.execute(SAY, (message, model))


def _ours(conn: Connection, training: Training, statement: str, values: dict[str, Any]) -> None:
    cursor = conn.execute(statement, {"id": training.model, "worker": training.worker, **values})
    if cursor.rowcount != 1:
        raise NotReady(
            f"the training of model {training.model} is no longer this worker's",
            detail="Another took it over after two minutes of silence, or its row was deleted.",
        )
