"""What the wrapper reads of the PostgreSQL process that it runs in. Standard library only.

Inside Python a backend does not act on a cancel or on statement_timeout: its signal handlers only
set flags, which are read here. (multicorn.utils.check_interrupts would act on them by a longjmp
over Python's own C frames, and leave the interpreter with pointers into a stack that is gone.)
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress

_FLAGS = ("QueryCancelPending", "ProcDiePending")


class Backend:
    """The symbols of the running server's program that concern a scan.

    Where the program does not show them (a platform that strips them), nothing is ever
    interrupted and no statement is known.
    """

    def __init__(self) -> None:
        program = ctypes.CDLL(None)
        self._flags: tuple[ctypes.c_int, ...] = ()
        self._started: Callable[[], int] | None = None
        with suppress(AttributeError, ValueError):
            self._flags = tuple(ctypes.c_int.in_dll(program, flag) for flag in _FLAGS)
            started = program.GetCurrentStatementStartTimestamp
            started.restype = ctypes.c_int64
            started.argtypes = []
            self._started = started

    def interrupted(self) -> bool:
        """Whether PostgreSQL wants to end the statement or the process."""
        return any(flag.value for flag in self._flags)

    def statement_started(self) -> int | None:
        """When the client's statement began, in PostgreSQL's microseconds; None if unknown."""
        return None if self._started is None else self._started()
