"""What the wrapper reads of the PostgreSQL process that it runs in. Standard library only.

Inside Python a backend does not act on a cancel or on statement_timeout: its signal handlers only
set flags, which are read here. (multicorn.utils.check_interrupts would act on them by a longjmp
over Python's own C frames, and leave the interpreter with pointers into a stack that is gone.)
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from tinydancer_fdw.frames import Place

_FLAGS = ("QueryCancelPending", "ProcDiePending")
# In PostgreSQL's structure of transaction counters (access/transam.h), on 64-bit machines: where
# the next transaction's number is, and the count of ended ones. They have not moved from 14 to 18.
_KNOWN_VERSIONS = range(14, 19)
_NEXT_XID = 8
_ENDED = 56


class _Counter(NamedTuple):
    """What tells how far the server has come, where it is not in recovery, as standbys are.

    When it was started, and where it counts the transactions that have ended since then.
    """

    started: str
    ended: ctypes.c_uint64
    in_recovery: Callable[[], bool]


class Backend:
    """The symbols of the running server's program that concern a scan.

    Where the program does not show them (a platform that strips them), nothing is ever
    interrupted and no statement is known.
    """

    def __init__(self) -> None:
        program = ctypes.CDLL(None)
        self._flags: tuple[ctypes.c_int, ...] = ()
        self._started: Callable[[], int] | None = None
        self._database = _database(program)
        self._counter = _counter(program)
        with suppress(AttributeError, ValueError):
            self._flags = tuple(ctypes.c_int.in_dll(program, flag) for flag in _FLAGS)
            self._started = _function(program, "GetCurrentStatementStartTimestamp", ctypes.c_int64)

    def interrupted(self) -> bool:
        """Whether PostgreSQL wants to end the statement or the process."""
        return any(flag.value for flag in self._flags)

    def statement_started(self) -> int | None:
        """When the client's statement began, in PostgreSQL's microseconds; None if unknown."""
        return None if self._started is None else self._started()

    def place(self, engine_database: str) -> str:
        """Where this process is, and how far its server has come, as a scan says it.

        Read without PostgreSQL's lock. A commit counts before it is acknowledged and before anyone
        sees it, so that whoever has heard of one finds it counted.
        """
        server, database = self._database
        started, ended = "", ""
        if self._counter is not None and not self._counter.in_recovery():
            started, ended = self._counter.started, str(self._counter.ended.value)
        return str(Place(server, started, ended, database, engine_database))


def _function(program: ctypes.CDLL, name: str, returns: Any, *takes: Any) -> Callable[..., Any]:
    """A function of the program by its C types. Raises AttributeError where it is not shown."""
    found = program[name]
    found.restype = returns
    found.argtypes = takes
    return found


def _database(program: ctypes.CDLL) -> tuple[str, str]:
    """The server's identifier and the database's OID; "" for both where the program hides them."""
    try:
        server = _function(program, "GetSystemIdentifier", ctypes.c_int64)()
        return str(server), str(ctypes.c_uint32.in_dll(program, "MyDatabaseId").value)
    except (AttributeError, ValueError):
        return "", ""


def _counter(program: ctypes.CDLL) -> _Counter | None:
    """How far the server has come.

    None in a version where that is not known, or where what stands beside it is not what it should
    be: the number of the next transaction, for which PostgreSQL has a function.
    """
    try:
        setting = _function(
            program,
            "GetConfigOption",
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.c_bool,
            ctypes.c_bool,
        )
        next_xid = _function(program, "ReadNextFullTransactionId", ctypes.c_uint64)
        in_recovery = _function(program, "RecoveryInProgress", ctypes.c_bool)
        started = ctypes.c_int64.in_dll(program, "PgStartTime").value
        version = int(setting(b"server_version_num", True, False) or 0) // 10_000
        if version not in _KNOWN_VERSIONS or ctypes.sizeof(ctypes.c_void_p) != 8:
            return None
        name = "TransamVariables" if version >= 17 else "ShmemVariableCache"
        counters = ctypes.c_void_p.in_dll(program, name).value
    except (AttributeError, ValueError):
        return None
    if counters is None:
        return None
    there = ctypes.c_uint64.from_address(counters + _NEXT_XID)
    before, said, after = there.value, next_xid(), there.value
    if not before <= said <= after:
        return None
    ended = ctypes.c_uint64.from_address(counters + _ENDED)
    return _Counter(str(started), ended, in_recovery)
