"""Processes that outlive the command that started them: start, liveness, stop.

A process is alive as long as somebody holds the lock on its pid file. The child inherits the
lock, so it ends with the process however that dies, and a recycled pid is never mistaken for it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tinydancer.embedded.accounts import Account
from tinydancer.errors import NotReady

_LOG_TAIL_BYTES = 2_000
_POLL_SECONDS = 0.01
_LOCK_SECONDS = 0.5

# Children that this process started: kept, so that they are reaped and not warned about.
_children: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Daemon:
    """A process in a session of its own, known by its pid file and its log."""

    name: str
    pid_file: Path
    log: Path

    def alive(self) -> bool:
        """Whether the process, or a child that it left behind, runs."""
        try:
            with self.pid_file.open("rb") as file:
                return not _lock(file.fileno(), fcntl.LOCK_SH)
        except FileNotFoundError:
            return False

    def pid(self) -> int | None:
        """Its process id, or None where it does not run."""
        return self.last_pid() if self.alive() else None

    def last_pid(self) -> int | None:
        """The process id that it has, or had when it last ran; None where it never did."""
        with suppress(FileNotFoundError):
            lines = self.pid_file.read_text().split()
            return int(lines[0]) if lines else None
        return None

    def start(
        self,
        argv: Sequence[str],
        *,
        account: Account,
        environment: Mapping[str, str],
        dies_with_us: bool = False,
    ) -> None:
        """Start it. `dies_with_us` has the kernel end it when this thread ends, by kill -9 too."""
        ours = os.open(self.pid_file, os.O_RDWR | os.O_CREAT, 0o644)
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        begins = os.fstat(log).st_size
        try:
            # Somebody who asks whether it is alive holds the lock for an instant: try again.
            if not _within(_LOCK_SECONDS, lambda: _lock(ours, fcntl.LOCK_EX)):
                raise NotReady(f"{self.name} runs already, says {self.pid_file}")
            if dies_with_us and (setpriv := shutil.which("setpriv")):
                argv = [setpriv, "--pdeathsig", "INT", "--", *argv]
            child = subprocess.Popen(
                argv,
                cwd="/",
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[ours],
                **account.popen_options(),
            )
            _children.append(child)
            os.ftruncate(ours, 0)
            # Where its log begins, too: what earlier ones said is none of its last words.
            os.write(ours, f"{child.pid}\n{begins}\n".encode())
        finally:
            os.close(ours)
            os.close(log)

    def wait_until(self, condition: Callable[[], bool], *, seconds: float) -> None:
        """Wait until the process is ready, as `condition` tells. Raises NotReady."""
        ready = _within(seconds, lambda: condition() or not self.alive())
        if ready and self.alive():
            return
        state = f"is not ready after {seconds:.0f} s" if self.alive() else "ends as it starts"
        raise NotReady(
            f"{self.name} {state}",
            detail=self._last_words(),
            hint=f"Its log is {self.log}.",
        )

    def ends_within(self, seconds: float) -> bool:
        """Wait for its end; False where it is still alive then."""
        return _within(seconds, lambda: not self.alive())

    def stop(self, signals: Sequence[tuple[signal.Signals, float]]) -> None:
        """Send each signal in turn, and wait its seconds for the end. No-op where it is over."""
        for number, seconds in signals:
            pid = self.pid()
            if pid is None:
                break
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                _end_session(pid)
            if self.ends_within(seconds):
                break
        else:
            raise NotReady(
                f"{self.name} (pid {self.pid()}) does not stop", hint=f"Its log is {self.log}."
            )
        _reap()

    def _last_words(self) -> str:
        """The end of its log since it was started last, for an error message."""
        try:
            _, *begins = self.pid_file.read_text().split()  # none by 0.4.0, which may still run
            said = self.log.read_bytes()[int(begins[0]) if begins else 0 :]
        except FileNotFoundError:
            return ""
        return said[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()


def _lock(descriptor: int, kind: int) -> bool:
    """Take the lock of an open file; False where somebody has it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Wait for a condition; False where it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _end_session(pid: int) -> None:
    """End what a process that is gone has left of its session."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _reap() -> None:
    """Collect the children that have ended, so that no zombie stays."""
    for child in list(_children):
        if child.poll() is not None:
            _children.remove(child)
