"""What can go wrong, as PostgreSQL will report it.

TinyDancerError              XX000  the base of all
├── InvalidInput             22023  an argument has a value that is not allowed
│   ├── InvalidText          22021  text is not valid UTF-8 or has a NUL in it
│   └── NumberOutOfRange     22003  NaN, infinity, negative money, beyond a limit
├── MissingInput             22004  a required input column has no value
├── TooLarge                 54000  a text, a list or a frame is over its limit
├── NotFound                 42704  a named agent, route, model or table does not exist
├── AlreadyExists            42710  a name is taken
├── NotReady                 55000  the state does not allow it (no agents, wrong dimension)
├── OtherDatabase            3D000  the engine serves another database than the one that asks
├── BudgetExceeded           53400  a budget or rate limit refuses it
├── Held                     55P03  another transaction holds what it has to write
├── ProviderFailed           58030  an embedding provider did not answer as it should
├── Unwritable               25006  the database is read only, or (53100 and the like) has no room
└── Unavailable              08006  the database can't be reached

What ends a connection is no error of a scan: 08P01 (no frame), 28000 (the token) and 53300 (too
many connections) are answered where frames are read, in server/connection.py.
"""

from __future__ import annotations


class TinyDancerError(Exception):
    """An error with what PostgreSQL shows of one: SQLSTATE, message, detail and hint.

    The message says what was wrong and with which value; the hint says what to do.
    """

    sqlstate = "XX000"

    def __init__(self, message: str, *, detail: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint

    @property
    def reason(self) -> str:
        """What the log has of it."""
        return self.message


class InvalidInput(TinyDancerError):
    """An argument has a value that is not allowed."""

    sqlstate = "22023"


class InvalidText(InvalidInput):
    """Text that is not valid UTF-8, or has a NUL in it."""

    sqlstate = "22021"


class NumberOutOfRange(InvalidInput):
    """NaN, an infinity, negative money, or a number beyond its limit."""

    sqlstate = "22003"


class MissingInput(TinyDancerError):
    """A required input column has no value."""

    sqlstate = "22004"


class TooLarge(TinyDancerError):
    """A text, a list or a frame is over its limit."""

    sqlstate = "54000"


class NotFound(TinyDancerError):
    """A named agent, route, model or table does not exist."""

    sqlstate = "42704"


class AlreadyExists(TinyDancerError):
    """A name is taken."""

    sqlstate = "42710"


class NotReady(TinyDancerError):
    """The state of the system does not allow it."""

    sqlstate = "55000"


class OtherDatabase(TinyDancerError):
    """The engine serves another database than the one that asks."""

    sqlstate = "3D000"


class BudgetExceeded(TinyDancerError):
    """A budget or a rate limit refuses it."""

    sqlstate = "53400"


class Held(TinyDancerError):
    """Another transaction holds rows that it has to write, and has not let go in time."""

    sqlstate = "55P03"


class ProviderFailed(TinyDancerError):
    """An embedding provider did not answer as it should."""

    sqlstate = "58030"


class Unwritable(TinyDancerError):
    """The database takes nothing: it is read only, or `sqlstate` says what it has none left of."""

    sqlstate = "25006"

    @property
    def reason(self) -> str:
        """The server's own words."""
        return self.detail or self.message


class Unavailable(TinyDancerError):
    """The database can't be reached."""

    sqlstate = "08006"

    @property
    def reason(self) -> str:
        """The server's own words, or those of who looked for it."""
        return self.detail or self.message
