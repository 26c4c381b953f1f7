"""What an engine logs: lines of one form, whichever room they come from."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tinydancer.server import log


@pytest.fixture
def loggers() -> Iterator[None]:
    """The package's logger, set back after the test."""
    ours = logging.getLogger("tinydancer")
    before = ours.handlers[:], ours.level, ours.propagate
    yield
    ours.handlers[:], ours.level, ours.propagate = before


def test_what_the_store_logs_is_a_line_like_the_engines_own(loggers, capsys):
    log.start()
    logging.getLogger("tinydancer.store.decision_log").warning("5 decisions wait")
    logging.getLogger("tinydancer.store.snapshots").info("wrote 3 of 3 embeddings back")
    log.event(logging.INFO, "started", pid=1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("Z ")[2] for line in lines] == [
        "level=warning 5 decisions wait",
        "level=info wrote 3 of 3 embeddings back",
        "level=info event=started pid=1",
    ]
