"""Log lines of an engine: one event a line, `key=value`, to standard error.

No secret and no text of a user's goes into them; see `EngineSettings.log_texts`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback

logger = logging.getLogger("tinydancer.engine")


class _Lines(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        at = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        said, error = record.getMessage(), record.exc_info
        if record.name != logger.name:
            # Of another room, which knows nothing of events, or of what may be in the log.
            said = f"event={record.name.rpartition('.')[2]} message={_plain(said)}"
        line = f"{at}.{int(record.msecs):03d}Z level={record.levelname.lower()} {said}"
        if error and error[1] is not None:
            own = record.name == logger.name
            line += f"\n{self.formatException(error) if own else where(error[1])}"
        return line


def start() -> None:
    """Sends the log lines of the engine, and of all that it calls, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    package = logging.getLogger("tinydancer")
    package.handlers[:] = [handler]
    package.setLevel(logging.INFO)
    package.propagate = False


def event(level: int, name: str, **values: object) -> None:
    """One line: the event's name and its values; one with blanks or quotes in it is quoted, and so
    is one with a character that a terminal would obey.
    """
    if logger.isEnabledFor(level):
        parts = [f"event={name}", *(f"{key}={_plain(value)}" for key, value in values.items())]
        logger.log(level, "%s", " ".join(parts))


def where(error: BaseException) -> str:
    """The traceback of an error without its message, which may quote a user's text."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{frames}{type(error).__module__}.{type(error).__qualname__}"


def _plain(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    simple = text.isprintable() and not any(character in ' "=' for character in text)
    return text if text and simple else json.dumps(text)
