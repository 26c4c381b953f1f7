"""Several processes that answer as one engine: each has an interpreter's lock of its own.

They accept from one socket. The process that they are forked from answers nothing itself: it
starts another worker where one ends, and ends them all when it is told to, or dies.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

from tinydancer import log
from tinydancer.server.listener import Listener
from tinydancer.server.metrics import Board, Metrics

# Answers as one worker until it is told to end.
Answer = Callable[[Listener, Metrics], None]

_PR_SET_PDEATHSIG = 1
# The last comes from a terminal that closes.
_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LOOK_SECONDS = 0.05
_RESTART_SECONDS = 1.0
_TOGETHER_SECONDS = 10.0
_TOGETHER_LOOK_SECONDS = 0.001
# A worker drains its scans, writes the decisions that wait, and ends a training.
_STOP_SECONDS = 15.0


def told_to_end(*more: signal.Signals) -> socket.socket:
    """A socket that becomes readable when SIGTERM, SIGINT or SIGHUP comes (or another one that is
    named), to whichever thread; each is a byte, its number.
    """
    told, tell = socket.socketpair()
    tell.setblocking(False)
    signal.set_wakeup_fd(tell.detach())
    for number in (*_heeded(), *more):
        signal.signal(number, lambda *_: None)
    return told


def _heeded() -> list[signal.Signals]:
    """The signals that end an engine: not SIGHUP where nohup has it ignored."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in _ENDS if not (ignored and number == signal.SIGHUP)]


def run_workers(board: Board, listener: Listener, answer: Answer) -> None:
    """Runs as many workers as the board has rows until it is told to end; closes the listener.

    The first is started alone: where it can't begin to answer, it has said why, and this process
    ends with its exit code.
    """
    told = told_to_end(signal.SIGCHLD)
    workers = _Workers(board, listener, answer)
    log.event(logging.INFO, "workers", pid=board.pid, workers=board.workers)
    try:
        workers.start(0)
        while not board.is_ready(0):
            if _is_told(told, _LOOK_SECONDS):
                return
            if (code := workers.ended(0)) is not None:
                raise SystemExit(code)
        workers.keep()
        while not _is_told(told, _RESTART_SECONDS):
            workers.keep()
    finally:
        # What goes wrong in a worker unwinds through here as well.
        if os.getpid() == board.pid:
            workers.stop()


def wait_for_others(metrics: Metrics, told: socket.socket) -> None:
    """Says that a worker can answer, and waits until all can, or it is told to end, though not for
    ever: after a restart every backend connects at once, and stays with the worker that it finds.
    """
    metrics.ready()
    deadline = time.monotonic() + _TOGETHER_SECONDS
    while not metrics.board.are_ready() and time.monotonic() < deadline:
        # They begin together: the first to accept would take all that wait.
        if select.select([told], [], [], _TOGETHER_LOOK_SECONDS)[0]:
            return


def _is_told(told: socket.socket, seconds: float) -> bool:
    """Whether a signal comes within some seconds that is to end this process; others wake it."""
    if not select.select([told], [], [], seconds)[0]:
        return False
    return any(number in _ENDS for number in told.recv(4096))


class _Workers:
    """The processes, by their rows on the board."""

    def __init__(self, board: Board, listener: Listener, answer: Answer) -> None:
        self._board = board
        self._listener = listener
        self._answer = answer
        self._pids: dict[int, int] = {}
        self._may_start = dict.fromkeys(range(board.workers), 0.0)
        # What this process has loaded stays where it is: a collection would have each worker copy
        # the pages that it shares.
        gc.freeze()

    def start(self, worker: int) -> None:
        """Fork a worker. In it this call does not return."""
        # A signal that comes meanwhile is either process's own, not the other one's.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*_ENDS, signal.SIGCHLD})
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._pids[worker] = pid
            self._may_start[worker] = time.monotonic() + _RESTART_SECONDS
            return
        signal.set_wakeup_fd(-1)
        for number in (*_heeded(), signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # Where the process that watches over it is killed, the kernel kills it too: an engine runs
        # as a whole, or not at all.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self._board.pid:
            os._exit(1)
        self._answer(self._listener.share(), Metrics(self._board, worker))
        sys.stderr.flush()
        os._exit(0)

    def keep(self) -> None:
        """Start those that do not run, each at most once a second."""
        for worker in range(self._board.workers):
            if worker in self._pids and (code := self.ended(worker)) is not None:
                log.event(logging.ERROR, "worker_ended", worker=worker, code=code)
            if worker not in self._pids and time.monotonic() >= self._may_start[worker]:
                self.start(worker)

    def ended(self, worker: int) -> int | None:
        """The exit code of a worker that has ended, a signal as less than 0; None while it runs."""
        pid, status = os.waitpid(self._pids[worker], os.WNOHANG)
        if not pid:
            return None
        del self._pids[worker]
        self._board.gone(worker)
        return os.waitstatus_to_exitcode(status)

    def stop(self) -> None:
        """End them all: when they have drained, or some seconds later."""
        # Nobody finds the socket any more, before the last that would accept from it ends.
        self._listener.close()
        for number, seconds in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, _STOP_SECONDS)):
            for worker, pid in self._pids.items():
                if number == signal.SIGKILL:
                    log.event(logging.ERROR, "worker_killed", worker=worker, pid=pid)
                os.kill(pid, number)
            deadline = time.monotonic() + seconds
            while self._pids and time.monotonic() < deadline:
                for worker in list(self._pids):
                    self.ended(worker)
                time.sleep(_LOOK_SECONDS)
            if not self._pids:
                return
