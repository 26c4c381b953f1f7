"""One training, from the queue to a model: a process of its own, at low priority.

    TINYDANCER_DSN=... python -m tinydancer.trainings

does the oldest training that nobody is doing, and ends. Engines start it; a person may.
"""

from __future__ import annotations

import logging
import os
import sys
from uuid import uuid4

from tinydancer import log
from tinydancer.errors import TinyDancerError
from tinydancer.store import training_queue
from tinydancer.store.database import Connection, Database
from tinydancer.trainings.classifier import train_classifier
from tinydancer.trainings.quality import train_quality

DSN_VARIABLE = "TINYDANCER_DSN"
_NICENESS = 10

logger = logging.getLogger(__name__)


def main() -> None:
    """Do one training of the database that the environment names."""
    log.start()
    os.nice(_NICENESS)
    database = Database(os.environ[DSN_VARIABLE])
    try:
        with database.connection() as conn:
            train_next(conn)
    except Exception:
        # Python itself would print the error's message, which may quote a user's text.
        logger.exception("a training broke off")
        sys.exit(1)
    finally:
        database.close()


def train_next(conn: Connection) -> bool:
    """Do the oldest training that nobody is doing; False where there is none.

    What is wrong with its rows is recorded with the training; the active model is untouched.
    """
    training = training_queue.claim(conn, uuid4())
    if training is None:
        return False
    try:
        if training.kind == "quality":
            train_quality(conn, training)
        else:
            train_classifier(conn, training)
    except TinyDancerError as error:
        logger.warning("the training of model %d failed, as its message says", training.model)
        text = " ".join(filter(None, (error.message, error.detail, error.hint)))
        training_queue.fail(conn, training, text)
    except Exception as error:
        training_queue.fail(
            conn, training, f"{type(error).__name__}: the engine's log has the traceback"
        )
        raise
    return True
