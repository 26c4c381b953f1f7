"""Does the trainings that SQL asks for, and those of quality that are due: one at a time, each in
a process of its own.

A training would take the interpreter's lock from the scans, so it gets its own interpreter. Any
engine of a database may do it; one that dies leaves it to another.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading

import psycopg

from tinydancer.errors import TinyDancerError
from tinydancer.store import training_queue
from tinydancer.store.database import Connection, Database
from tinydancer.trainings.run import DSN_VARIABLE

logger = logging.getLogger(__name__)

# How long it waits to be told before it looks by itself, and before it tries again after an error.
_LOOK_SECONDS = 30.0
_RETRY_SECONDS = 5.0
_STOP_SECONDS = 1.0
# Its matrices are small: threads that wait for each other on busy cores make it many times slower.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Trainer:
    """The thread that waits for trainings, and the process that does one."""

    def __init__(self, dsn: str, database: Database) -> None:
        self._dsn = dsn
        self._database = database
        self._stopping = threading.Event()
        self._interrupted = False
        self._worker: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="trainer", daemon=True)

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def stop(self) -> None:
        """End the training under way, if any: another engine, or the next start, takes it over."""
        self._stopping.set()
        with self._lock:
            if self._worker is not None and self._worker.poll() is None:
                self._worker.terminate()
        self._thread.join(timeout=_STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                conn = self._database.connect()
                try:
                    self._wait_and_train(conn)
                finally:
                    conn.close()
            except (TinyDancerError, psycopg.Error) as error:
                # Once: a database may be away all night.
                if not (self._interrupted or self._stopping.is_set()):
                    why = error.reason if isinstance(error, TinyDancerError) else error
                    logger.warning("waiting for trainings is interrupted: %s", why)
                self._interrupted = True
                self._stopping.wait(_RETRY_SECONDS)

    def _wait_and_train(self, conn: Connection) -> None:
        conn.execute(f"LISTEN {training_queue.CHANNEL}")
        while not self._stopping.is_set():
            if (due := training_queue.refresh(conn)) is not None:
                logger.info("quality is learned anew, as model %d", due)
            while training_queue.trainings_open(conn) and not self._stopping.is_set():
                self._train()
            if self._interrupted:
                logger.info("trainings are waited for again")
                self._interrupted = False
            for _ in range(int(_LOOK_SECONDS)):
                if self._stopping.is_set() or any(conn.notifies(timeout=1.0, stop_after=1)):
                    break

    def _train(self) -> None:
        environment = {**os.environ, **_ONE_THREAD, DSN_VARIABLE: self._dsn}
        with self._lock:
            if self._stopping.is_set():
                return
            self._worker = subprocess.Popen(
                [sys.executable, "-m", "tinydancer.trainings"],
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        if self._worker.wait() and not self._stopping.is_set():
            logger.error("the process of a training ended with code %d", self._worker.returncode)
            self._stopping.wait(_RETRY_SECONDS)
