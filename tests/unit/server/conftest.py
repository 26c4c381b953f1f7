"""A real server on a real socket, whose session answers with what a test gives it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tinydancer.server.listener import listen
from tinydancer.server.metrics import Metrics
from tinydancer.server.threads import Server
from tinydancer.settings import EngineSettings
from tinydancer_fdw import frames
from tinydancer_fdw.client import Address, Client
from tinydancer_fdw.frames import Row, Scan

Answer = Callable[[Scan], Iterator[Sequence["str | None"]]]


@dataclass
class Answers:
    """A session that answers every scan by calling `answer`."""

    answer: Answer
    scans: list[Scan] = field(default_factory=list)

    def scan(self, scan: Scan) -> Iterator[Row]:
        self.scans.append(scan)
        return self.answer(scan)


def echo(scan: Scan) -> Iterator[Sequence[str | None]]:
    """One row: the names of the columns."""
    yield scan.columns


@dataclass
class Running:
    """A server, what it counts, and where it is."""

    server: Server
    metrics: Metrics
    settings: EngineSettings
    address: Address
    clients: list[Client] = field(default_factory=list)

    def client(self) -> Client:
        """A client of its own; it is closed with the server."""
        self.clients.append(Client(self.address, "test"))
        return self.clients[-1]

    def connect(self) -> socket.socket:
        """A raw connection, for bytes that no front door sends."""
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(10)
        stream.connect(self.address.socket)
        return stream


@contextmanager
def running(settings: EngineSettings, answer: Answer, **address: object) -> Iterator[Running]:
    """A server that runs for the length of the block."""
    metrics = Metrics()
    session = Answers(answer)
    server = Server(listen(settings), settings, metrics, lambda front_door: session)
    server.start()
    where = {"socket": str(settings.socket)} if settings.socket else {}
    it = Running(server, metrics, settings, Address(**{**where, **address}))
    try:
        yield it
    finally:
        for client in it.clients:
            client.close()
        server.stop()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine.sock"


@pytest.fixture
def echoing(path: Path) -> Iterator[Running]:
    with running(EngineSettings(dsn="", socket=path), echo) as server:
        yield server


def read_frame(stream: socket.socket) -> tuple[int, bytes]:
    """The next frame from a raw connection."""
    kind, length = frames.read_header(_read(stream, frames.HEADER.size))
    return kind, _read(stream, length)


def _read(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = stream.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def greeted(stream: socket.socket) -> socket.socket:
    """The connection after HELLO and WELCOME."""
    stream.sendall(frames.encode_hello("", "test"))
    assert read_frame(stream)[0] == frames.WELCOME
    return stream


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Waits until a condition holds."""
    done = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        done.wait(0.01)
    raise AssertionError("it did not come to hold")
