"""Where an embedded server keeps its data, and where its sockets: who may enter, who may write.

A directory that root's server can't enter becomes a symbolic link to one under SYSTEM_STATE. The
sockets have a short directory of their own, since an address has 107 bytes at most.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from tinydancer.embedded.accounts import Account, account_name
from tinydancer.errors import InvalidInput, NotReady

SYSTEM_STATE = Path("/var/lib/tinydancer")
# Not /run/tinydancer: that is an engine's for a server of one's own, who closes it to others, and
# systemd removes it with all that it holds when that engine ends.
SYSTEM_RUN = Path("/run/tinydancer-up")

_MAX_SOCKET_PATH = 107
_LONGEST_SOCKET_NAME = "postgres/.s.PGSQL.5432.lock"


def default_directory() -> Path:
    """Where `tinydancer up` keeps its data unless it is told otherwise."""
    if directory := os.environ.get("TINYDANCER_DATA"):
        return Path(directory)
    if os.geteuid() == 0:
        return SYSTEM_STATE / "main"
    if data_home := os.environ.get("XDG_DATA_HOME"):
        return Path(data_home) / "tinydancer"
    # HOME may be empty; the system knows better.
    home = Path(os.environ.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir)
    return home / ".local/share/tinydancer"


def prepared(directory: Path, account: Account) -> Path:
    """Make the directory; returns where it really is, which `account` can enter."""
    if directory.exists():
        directory = directory.resolve()
        status = directory.stat()
        if status.st_mode & 0o002:
            raise InvalidInput(
                f"anybody may write to {directory}, and so put other files in the database's place",
                hint="Choose another directory by --data, or take that right away: chmod o-w.",
            )
        if status.st_uid != os.geteuid():
            raise InvalidInput(
                f"{directory} belongs to {account_name(status.st_uid)}",
                hint=f"Run tinydancer as {account_name(status.st_uid)}, or choose another "
                "directory by --data.",
            )
    else:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
        if os.geteuid() == 0:
            directory.chmod(0o755)
    if not directory.is_dir():
        raise InvalidInput(f"{directory} is not a directory")
    if account.can("-x", directory):
        return directory
    try:
        directory.rmdir()
    except OSError as error:
        raise InvalidInput(
            f"user {account.name}, who runs PostgreSQL for root, can't enter {directory}",
            hint=f"Choose a directory that does not exist yet, or one below {SYSTEM_STATE}.",
        ) from error
    _system_directory(SYSTEM_STATE)
    place = Path(tempfile.mkdtemp(prefix=f"{directory.name}-", dir=SYSTEM_STATE))
    place.chmod(0o755)
    directory.symlink_to(place)
    return place


def new_runtime_directory(directory: Path) -> Path:
    """A short one for the sockets of `directory`, of the same name each time where that is free."""
    if os.geteuid() == 0:
        _system_directory(SYSTEM_RUN)
    bases = runtime_bases()
    name = f"td-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]}"
    for base in bases:
        longest = len(os.fsencode(base / name / _LONGEST_SOCKET_NAME))
        if longest > _MAX_SOCKET_PATH or not os.access(base, os.W_OK | os.X_OK):
            continue
        with suppress(FileExistsError):
            (base / name).mkdir(mode=0o700)
            return base / name
        return Path(tempfile.mkdtemp(prefix="td-", dir=base))
    raise NotReady(f"can't make a directory for sockets in {' or '.join(map(str, bases))}")


def runtime_bases() -> list[Path]:
    """Where directories of sockets are made, in the order of preference."""
    if os.geteuid() == 0:
        return [SYSTEM_RUN]
    return [Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent"), Path("/tmp")]  # noqa: S108


def is_ours(directory: Path) -> bool:
    """Whether it is a directory of ours, no link, that nobody else can write to."""
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & 0o022
    )


def _system_directory(path: Path) -> None:
    """Have a directory of root's that everybody may enter, whatever root's umask is."""
    with suppress(FileExistsError):
        path.mkdir()
        path.chmod(0o755)
