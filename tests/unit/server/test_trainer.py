"""The thread that waits for trainings, while the database is away."""

from __future__ import annotations

import logging
import threading

import pytest

from tinydancer.errors import Unavailable
from tinydancer.server import trainer
from tinydancer.server.trainer import Trainer


class Away:
    """A database that can't be reached; `tried` is set once it has been asked five times."""

    def __init__(self) -> None:
        self.asked = 0
        self.tried = threading.Event()

    def connect(self) -> None:
        self.asked += 1
        if self.asked == 5:
            self.tried.set()
        raise Unavailable("the engine can't reach its database", detail="connection refused")


def test_a_database_that_is_away_all_night_is_said_once_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trainer, "_RETRY_SECONDS", 0.001)
    database = Away()
    with caplog.at_level(logging.INFO, logger="tinydancer"):
        waiting = Trainer("", database)  # type: ignore[arg-type]
        waiting.start()
        assert database.tried.wait(10)
        waiting.stop()
    assert [record.getMessage() for record in caplog.records] == [
        "waiting for trainings is interrupted: connection refused"
    ]
