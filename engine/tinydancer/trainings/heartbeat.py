"""Signs of life: a training that gives none for two minutes is taken over by another worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from tinydancer.errors import TinyDancerError
from tinydancer.store import training_queue
from tinydancer.store.database import Connection
from tinydancer.store.training_queue import Training

_SECONDS_BETWEEN_SIGNS = 20.0


@contextmanager
def beating(conn: Connection, training: Training, stage: str, progress: float) -> Iterator[None]:
    """Says that the work goes on while it has no steps to say so itself; `progress` is 0 to 1."""
    done = threading.Event()

    def beat() -> None:
        # Where the training was taken over, storing its result says so.
        with suppress(TinyDancerError, psycopg.Error):
            while not done.wait(_SECONDS_BETWEEN_SIGNS):
                training_queue.beat(conn, training, stage, progress)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
