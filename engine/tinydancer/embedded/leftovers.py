"""What servers that were killed leave behind, swept by whoever runs a server next.

A directory of sockets says in OWNER whose it is: a data directory, whose link `run` leads back to
it. Where it does not, nobody will ever use it again. A throwaway server's files are nobody's once
the process has ended that made them: as long as it lives it holds a lock, which the kernel drops
however it dies.

Nothing is touched that is not ours, that is young, that somebody brings up right now, or where a
server answers. Whatever can't be looked at or removed stays.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tinydancer.embedded.directories import is_ours

OWNER = "owner"
"""In a directory of sockets: the data directory that it belongs to."""

HELD = "held"
"""Beside a throwaway server's data: locked by the process that made it."""

_SOCKETS = ("postgres/.s.PGSQL.5432", "engine/engine.sock")
# Between a directory of sockets and the link to it there is an instant.
_YOUNG_SECONDS = 10.0
# One without an owner's name, of a version before this one, is left alone for as long.
_UNNAMED_SECONDS = 3600.0


def sweep(bases: Iterable[Path]) -> list[Path]:
    """Remove what was left in these directories of runtime directories; what it removed."""
    removed: list[Path] = []
    for base in bases:
        with suppress(OSError):
            for runtime in sorted(base.glob("td-*")):
                with suppress(OSError):
                    removed += _sweep(runtime)
    return removed


@contextmanager
def holding(place: Path) -> Iterator[None]:
    """Say of a throwaway server's place that its owner lives, until this ends."""
    with (place / HELD).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sweep(runtime: Path) -> Iterator[Path]:
    if not is_ours(runtime) or _age(runtime) < _YOUNG_SECONDS or _answers(runtime):
        return
    try:
        directory = Path(os.fsdecode((runtime / OWNER).read_bytes()))
    except FileNotFoundError:
        if _age(runtime) > _UNNAMED_SECONDS:
            shutil.rmtree(runtime)
            yield runtime
        return
    with _nobody_else(directory / "lock") as alone:
        if not alone:
            return
        place = directory.parent
        if is_ours(place) and (place / HELD).is_file():
            with _nobody_else(place / HELD) as abandoned:
                if abandoned:
                    shutil.rmtree(place)
                    yield place
        if not _leads_to(directory / "run", runtime):
            shutil.rmtree(runtime)
            yield runtime


def _age(runtime: Path) -> float:
    """Seconds since anything in it came or went."""
    places = (runtime, *(path for path in runtime.iterdir() if path.is_dir()))
    return time.time() - max(path.lstat().st_mtime for path in places)


def _answers(runtime: Path) -> bool:
    """Whether a server or an engine listens there."""
    for name in _SOCKETS:
        with socket.socket(socket.AF_UNIX) as client, suppress(FileNotFoundError):
            try:
                client.connect(str(runtime / name))
            except ConnectionRefusedError:
                continue
            return True
    return False


def _leads_to(link: Path, runtime: Path) -> bool:
    return link.is_symlink() and link.readlink() == runtime


@contextmanager
def _nobody_else(path: Path) -> Iterator[bool]:
    """Whether nobody holds the lock on a file, or there is none; it is held meanwhile."""
    try:
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        yield True
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
