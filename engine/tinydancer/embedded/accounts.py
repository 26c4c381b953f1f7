"""Who runs what: the accounts of server and engine.

A user who is not root runs both. PostgreSQL refuses to run as root, so root's server runs as the
system user `tinydancer`, and root's engine as `tinydancer-engine`, who may not touch the data.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinydancer.errors import NotReady

SERVER_USER = "tinydancer"
ENGINE_USER = "tinydancer-engine"


@dataclass(frozen=True)
class Account:
    """A user of the operating system, whom a process runs as."""

    name: str
    uid: int
    gid: int

    @classmethod
    def current(cls) -> Account:
        """The account of this process."""
        uid = os.geteuid()
        return cls(account_name(uid), uid, os.getegid())

    @classmethod
    def named(cls, name: str) -> Account | None:
        """The account of that name, or None where there is none."""
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return None
        return cls(name, entry.pw_uid, entry.pw_gid)

    def popen_options(self) -> dict[str, Any]:
        """What subprocess needs to run a program as this account."""
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can(self, test: str, path: Path) -> bool:
        """Whether the kernel lets this account read (-r) or enter (-x) a path."""
        done = subprocess.run(
            ["test", test, str(path)], cwd="/", check=False, **self.popen_options()
        )
        return done.returncode == 0


def account_name(uid: int) -> str:
    """The name that belongs to a user id, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def server_account() -> Account:
    """Whom the server runs as: the invoking user, or for root the system user `tinydancer`."""
    return Account.current() if os.geteuid() else system_account(SERVER_USER)


def engine_account() -> Account:
    """Whom the engine runs as: the invoking user; for root a system user where that can be.

    Python, this package or what it imports may lie under root's closed home, where the system user
    can't read them: then the engine stays root's.
    """
    if os.geteuid():
        return Account.current()
    account = system_account(ENGINE_USER)
    numpy = importlib.util.find_spec("numpy")
    needed = [Path(sys.executable), Path(os.__file__), Path(__file__)]
    needed += [Path(numpy.origin)] if numpy and numpy.origin else []
    return account if all(account.can("-r", path) for path in needed) else Account.current()


def system_account(name: str) -> Account:
    """A system user without login or home, made where there is none. For root only."""
    account = Account.named(name)
    if account is None:
        program = shutil.which("useradd") or "/usr/sbin/useradd"
        with suppress(FileNotFoundError):
            # Another copy may be quicker: what counts is that the user is there in the end.
            subprocess.run(
                [program, "--system", "--user-group", "--no-create-home", "--home-dir",
                 "/nonexistent", "--shell", "/usr/sbin/nologin", name],
                check=False,
                capture_output=True,
            )  # fmt: skip
        account = Account.named(name)
    if account is None:
        raise NotReady(
            f"root needs a system user {name}, and can't make one",
            hint=f"Install the package passwd, or make the user: useradd --system {name}. "
            "Or run tinydancer as a user who is not root.",
        )
    return account
