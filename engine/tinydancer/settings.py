"""Settings of an engine's process: where it listens, whom it lets in, how much it takes.

What routing itself goes by (embedder, thresholds, limits on texts) is in the database's table
`settings`, so that every engine of a database goes by the same.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from tinydancer.errors import InvalidInput, NotFound

TOKEN_VARIABLE = "TINYDANCER_TOKEN"  # noqa: S105 - the name of a variable, not a token
MOST_WORKERS = 64
_MOST_TOKEN_BYTES = 4096


@dataclass(frozen=True)
class TLS:
    """The server's certificate chain and its private key, as PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class EngineSettings:
    """What `tinydancer serve` is told.

    One of `socket` (a path) and `listen` (host and port) is set. `group` is given the socket.
    A `token` is asked of every front door where it is set, and has to be on TCP; TCP beyond this
    machine needs `tls` as well. Times are in seconds: `hello_timeout` bounds the time to the end of
    HELLO, `drain` that which scans have to finish when the engine is told to stop.
    `workers` are the processes that answer, of which each has an interpreter of its own.
    `metrics_port` serves Prometheus text on this machine's loopback. `log_texts` lets texts that
    users send into the log: error messages may quote them.
    """

    dsn: str = field(repr=False)
    socket: Path | None = None
    listen: tuple[str, int] | None = None
    group: str | None = None
    token: str = field(default="", repr=False)
    tls: TLS | None = None
    workers: int = 1
    max_connections: int = 256
    hello_timeout: float = 5.0
    drain: float = 2.0
    metrics_port: int | None = None
    log_texts: bool = False

    def __post_init__(self) -> None:
        if (self.socket is None) == (self.listen is None):
            raise InvalidInput("an engine listens on a socket or on a TCP address, one of them")
        if not 1 <= self.workers <= MOST_WORKERS:
            raise InvalidInput(f"workers is {self.workers}, not from 1 to {MOST_WORKERS}")
        if self.max_connections < 1:
            raise InvalidInput(f"max_connections is {self.max_connections}, not at least 1")


def default_workers() -> int:
    """Two where there are processors for them: one alone keeps its sessions waiting for each other,
    and each takes some 90 MB.
    """
    return min(2, len(os.sched_getaffinity(0)))


def read_token(path: Path | None) -> str:
    """The token from a file (its first line), else from the environment, else "".

    Raises NotFound where the file can't be read, InvalidInput where it holds no token.
    """
    if path is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip()
    try:
        with path.open("rb") as file:
            lines = file.read(_MOST_TOKEN_BYTES).decode().splitlines()
    except OSError as error:
        raise NotFound(f"the token file {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"the token file {path} is not text") from None
    token = lines[0].strip() if lines else ""
    if not token:
        raise InvalidInput(f"the token file {path} has no token in its first line")
    return token


def parse_listen(address: str) -> tuple[str, int]:
    """Host and port of "HOST:PORT" or "[IPV6]:PORT". Raises InvalidInput."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise InvalidInput(
            f"{address!r} is no TCP address", hint="write HOST:PORT, such as 127.0.0.1:7432"
        )
    return host, int(port)
