"""The socket that an engine listens on: whose it is, who may connect, and that it is the only one.

A Unix socket is bound under another name, given its mode and group, and then renamed, so that it
is never open to anybody else. A lock beside it is held as long as the engine lives: a socket file
whose lock is free is a dead engine's, and is replaced.
"""

from __future__ import annotations

import fcntl
import grp
import ipaddress
import os
import socket
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from tinydancer.errors import AlreadyExists, InvalidInput, NotFound, NotReady
from tinydancer.settings import TLS, EngineSettings

_BACKLOG = 1024
_LONGEST_PATH = 107  # sun_path, less its NUL
_SOCKET_MODE = 0o660
_DIRECTORY_MODE = 0o750


@dataclass
class Listener:
    """A listening socket, and what has to be held or removed with it."""

    socket: socket.socket
    address: str
    tls: ssl.SSLContext | None = None
    path: Path | None = None
    lock: int | None = None
    inode: int | None = None

    def share(self) -> Listener:
        """The same socket for a process forked from the engine's: file and lock stay the engine's,
        so that the next one can have them as soon as this one has died.
        """
        if self.lock is not None:
            os.close(self.lock)
        return Listener(self.socket, self.address, self.tls)

    def close(self) -> None:
        """Stops listening; removes the socket file where it is still this engine's own."""
        self.socket.close()
        if self.path is not None and self.lock is not None:
            try:
                if self.path.stat().st_ino == self.inode:
                    self.path.unlink()
            except FileNotFoundError:
                pass
            os.close(self.lock)
            self.lock = None


def listen(settings: EngineSettings) -> Listener:
    """Listens where the settings say.

    Raises AlreadyExists where another engine does, NotReady or NotFound where it can't,
    InvalidInput where it would not be safe.
    """
    if settings.socket is not None:
        return _listen_unix(settings.socket, settings.group)
    host, port = settings.listen or ("", 0)  # one of the two is set
    return _listen_tcp(host, port, settings.token, settings.tls)


def _listen_unix(path: Path, group: str | None) -> Listener:
    path = path.absolute()
    # Bound as "<name>.new" first, which must fit as well.
    if len(os.fsencode(path)) + len(".new") > _LONGEST_PATH:
        raise InvalidInput(
            f"the socket path {path} is longer than {_LONGEST_PATH - len('.new')} bytes",
            hint="choose a shorter directory",
        )
    gid = _group_id(group)
    _check_directory(path.parent, gid)
    if path.exists() and not path.is_socket():
        raise AlreadyExists(f"{path} is there already, and is no socket: it is left as it is")
    lock = _lock(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            listener.bind(str(new))
        finally:
            os.umask(mask)
        if gid is not None:
            os.chown(new, -1, gid)
        new.chmod(_SOCKET_MODE)
        listener.listen(_BACKLOG)
        new.rename(path)
    except OSError as error:
        listener.close()
        os.close(lock)
        raise NotReady(f"can't listen on {path}: {error.strerror}") from error
    inode = path.stat().st_ino
    return Listener(listener, f'socket "{path}"', path=path, lock=lock, inode=inode)


def _group_id(group: str | None) -> int | None:
    if group is None:
        return None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise NotFound(
            f"there is no group {group!r} on this machine",
            hint="Give that of PostgreSQL's account, mostly postgres, or leave --group out.",
        ) from None


def _check_directory(directory: Path, gid: int | None) -> None:
    """The directory of a socket: made where missing, refused where anybody could swap files."""
    if not directory.exists():
        try:
            directory.mkdir(mode=_DIRECTORY_MODE, parents=True)
            if gid is not None:
                os.chown(directory, -1, gid)
        except OSError as error:
            raise NotReady(f"can't make the directory {directory}: {error.strerror}") from error
    state = directory.stat()
    if state.st_mode & stat.S_IWOTH and not state.st_mode & stat.S_ISVTX:
        raise InvalidInput(
            f"anybody may write to {directory}, and so put another socket in this one's place",
            hint=f"chmod o-w {directory}",
        )


def _lock(path: Path) -> int:
    """Holds the lock beside the socket. Raises AlreadyExists where another engine does."""
    name = path.with_name(f"{path.name}.lock")
    try:
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise NotReady(f"can't open the lock {name}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode(errors="replace").strip()
        os.close(lock)
        raise AlreadyExists(
            f"another engine (pid {holder}) listens on {path}",
            hint="stop it, or choose another socket",
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _listen_tcp(host: str, port: int, token: str, tls: TLS | None) -> Listener:
    if not token:
        raise InvalidInput(
            f"an engine on TCP ({host}:{port}) needs a token",
            hint="give --token-file, or set TINYDANCER_TOKEN",
        )
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise NotFound(f"the host {host!r} has no address: {error.strerror}") from None
    if tls is None and not ipaddress.ip_address(where[0]).is_loopback:
        raise InvalidInput(
            f"an engine on {host}:{port} can be reached from other machines and needs TLS",
            hint="give --tls-certificate and --tls-key, or listen on 127.0.0.1",
        )
    context = _context(tls) if tls else None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise NotReady(f"can't listen on {host}:{port}: {error.strerror}") from error
    return Listener(listener, f"{host}:{listener.getsockname()[1]}", tls=context)


def _context(tls: TLS) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise NotReady(
            f"the certificate {tls.certificate} and the key {tls.key} can't be used: {error}"
        ) from error
    return context
