"""What an engine logs: lines of one form, whichever room they come from."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tinydancer import log


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
        'level=warning event=decision_log message="5 decisions wait"',
        'level=info event=snapshots message="wrote 3 of 3 embeddings back"',
        "level=info event=started pid=1",
    ]


def test_what_a_terminal_would_obey_is_quoted(loggers, capsys):
    log.start()
    log.event(logging.INFO, "refused", door="\x1b]0;owned\x07", route="größe", line="a\u2028b")
    line = capsys.readouterr().err.rstrip("\n")
    assert line.endswith(r'door="\u001b]0;owned\u0007" route=größe line="a\u2028b"')


def test_a_traceback_of_the_stores_has_no_text_of_a_users(loggers, capsys):
    log.start()
    asked = " ".join(["my", "salary"])  # not in the line of source that a traceback shows
    try:
        float(asked)
    except ValueError:
        logging.getLogger("tinydancer.store.maintenance").exception("maintenance failed")
    shown = capsys.readouterr().err
    assert "test_log.py" in shown
    assert shown.endswith("builtins.ValueError\n")
    assert "salary" not in shown
