"""The client against engines that misbehave: what a user of PostgreSQL gets to see."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tinydancer_fdw import frames, streams
from tinydancer_fdw.client import Address, Client, EngineError, Unreachable
from tinydancer_fdw.frames import Scan
from tinydancer_fdw.streams import Interrupted

SCAN = Scan("route_decisions", ("agent_name",), ())
ROW = frames.encode_rows([("a",)], 1)
Script = Callable[[socket.socket], None]


@contextmanager
def engine(path: Path, *scripts: Script) -> Iterator[Address]:
    """A far end that goes through one script a connection, in order, and then listens no more."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(5)  # a client that never comes fails its test

        def serve(stream: socket.socket, script: Script) -> None:
            with stream:
                script(stream)

        def accept() -> None:
            for script in scripts:
                threads.append(threading.Thread(target=serve, args=(listener.accept()[0], script)))
                threads[-1].start()

        threads = [threading.Thread(target=accept)]
        threads[0].start()
        yield Address(socket=str(path), timeout=0.3, connect_timeout=0.3)
        for thread in threads:
            thread.join()


def welcome(stream: socket.socket) -> None:
    stream.recv(65536)
    stream.sendall(frames.encode_welcome("1"))


def answer(*parts: bytes) -> Script:
    """Welcomes, and answers the first scan with these bytes; then the connection ends."""

    def script(stream: socket.socket) -> None:
        welcome(stream)
        stream.recv(65536)
        for part in parts:
            stream.sendall(part)
            time.sleep(0.02)

    return script


def silent(stream: socket.socket) -> None:
    """Says nothing to a scan until the client leaves."""
    welcome(stream)
    while stream.recv(65536):
        pass


@contextmanager
def client_of(address: Address, **options: Callable[[], bool]) -> Iterator[Client]:
    client = Client(address, "test", **options)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine.sock"


def test_an_engine_that_the_account_may_not_open_is_an_error_that_names_the_option(
    path: Path,
) -> None:
    account = os.geteuid()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0)
        if account == 0:
            os.seteuid(65534)  # root may open anything
        try:
            with (
                client_of(Address(socket=str(path))) as client,
                pytest.raises(Unreachable) as caught,
            ):
                list(client.scan(SCAN))
        finally:
            os.seteuid(account)
    assert f'socket "{path}": Permission denied' in caught.value.message
    assert "tinydancer serve --group" in caught.value.hint


def test_an_absent_engine_is_an_error_with_the_socket_and_the_command(path: Path) -> None:
    with client_of(Address(socket=str(path))) as client, pytest.raises(Unreachable) as caught:
        list(client.scan(SCAN))
    assert caught.value.sqlstate == "08001"
    assert f'socket "{path}": No such file or directory' in caught.value.message
    assert f"tinydancer serve --dsn DSN --socket {path}" in caught.value.hint


def test_a_tcp_port_without_an_engine_is_an_error_with_the_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with (
            client_of(Address(host="127.0.0.1", port=port, connect_timeout=1)) as client,
            pytest.raises(Unreachable, match=rf"127\.0\.0\.1:{port}: Connection refused"),
        ):
            list(client.scan(SCAN))


def test_rows_come_through_whatever_pieces_they_arrive_in(path: Path) -> None:
    whole = ROW + ROW + frames.encode_end(2)
    pieces = [whole[at : at + 7] for at in range(0, len(whole), 7)]
    with engine(path, answer(*pieces)) as address, client_of(address) as client:
        assert list(client.scan(SCAN)) == [("a",), ("a",)]


def test_an_engine_that_never_answers_is_an_error_after_the_timeout(path: Path) -> None:
    with (
        engine(path, silent) as address,
        client_of(address) as client,
        pytest.raises(Unreachable, match=r"no answer within 0\.3 s") as caught,
    ):
        list(client.scan(SCAN))
    assert caught.value.sqlstate == "08006"


def test_an_engine_that_says_no_welcome_is_an_error_after_the_timeout(path: Path) -> None:
    def script(stream: socket.socket) -> None:
        while stream.recv(65536):
            pass

    with (
        engine(path, script) as address,
        client_of(address) as client,
        pytest.raises(Unreachable, match="no answer within"),
    ):
        list(client.scan(SCAN))


def test_an_interrupt_ends_the_wait_and_closes_the_connection(path: Path) -> None:
    started = time.monotonic()
    with (
        engine(path, silent) as address,  # ends once the connection is closed
        client_of(address, interrupted=lambda: time.monotonic() > started + 0.02) as client,
        pytest.raises(Interrupted),
    ):
        list(client.scan(SCAN))
    assert streams.SLICE < 0.1  # seconds: how late an interrupt may be seen


def trickle(stream: socket.socket) -> None:
    """Sends an answer byte by byte."""
    welcome(stream)
    for byte in frames.encode_rows([("a" * 1000,)], 1):
        stream.sendall(bytes([byte]))
        time.sleep(0.001)


def endless(stream: socket.socket) -> None:
    """Sends frames without rows, for seconds where somebody reads them."""
    welcome(stream)
    for _ in range(5000):
        stream.sendall(frames.encode_rows([], 1) * 100)


def sip(stream: socket.socket) -> None:
    """Takes what it is sent in small pieces."""
    welcome(stream)
    while stream.recv(4096):
        time.sleep(0.001)


@pytest.mark.parametrize("busy", [trickle, endless, sip])
def test_an_interrupt_ends_a_scan_whose_bytes_never_stop(path: Path, busy: Script) -> None:
    def script(stream: socket.socket) -> None:
        with suppress(OSError):  # the client leaves
            busy(stream)

    started = time.monotonic()
    scan = replace(SCAN, inputs=(frames.Input("request", 0, "x" * 10_000_000),))
    with (
        engine(path, script) as address,
        client_of(address, interrupted=lambda: time.monotonic() > started + 0.2) as client,
        pytest.raises(Interrupted),
    ):
        list(client.scan(scan if busy is sip else SCAN))
    assert time.monotonic() < started + 0.8


@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        frames.encode_welcome("1"),
        ROW[:8] + b"\0" * (len(ROW) - 8),
        frames.encode_rows([("a", "b")], 2) + frames.encode_end(1),
        ROW + frames.encode_end(2),
        frames.frame(frames.END, b""),
    ],
    ids=["not a frame", "wrong kind", "nonsense", "columns", "count", "no count"],
)
def test_an_answer_that_is_none_is_an_error_not_a_wrong_answer(path: Path, part: bytes) -> None:
    with (
        engine(path, answer(part)) as address,
        client_of(address) as client,
        pytest.raises(EngineError, match="can't be read") as caught,
    ):
        list(client.scan(SCAN))
    assert caught.value.sqlstate == "08P01"


def test_an_engine_that_dies_amid_an_answer_is_an_error_and_the_next_scan_works(
    path: Path,
) -> None:
    whole = answer(ROW, frames.encode_end(1))
    with engine(path, answer(ROW), whole) as address, client_of(address) as client:
        rows = client.scan(SCAN)
        assert next(rows) == ("a",)
        with pytest.raises(Unreachable, match="it closed the connection"):
            next(rows)
        assert list(client.scan(SCAN)) == [("a",)]


def test_a_kept_connection_that_died_meanwhile_is_replaced_without_a_word(path: Path) -> None:
    once = answer(ROW + frames.encode_end(1))  # and then it closes
    with engine(path, once, once) as address, client_of(address) as client:
        assert list(client.scan(SCAN)) == [("a",)]
        time.sleep(0.05)
        assert list(client.scan(SCAN)) == [("a",)]


@pytest.mark.parametrize("seconds", [0, 0.05], ids=["at once", "later"])
def test_bytes_after_an_answer_are_no_answer_to_the_next_scan(path: Path, seconds: float) -> None:
    whole = ROW + frames.encode_end(1)
    stray = frames.encode_rows([("stray",)], 1) + frames.encode_end(1)
    parts = [whole + stray] if not seconds else [whole, stray]
    with engine(path, answer(*parts), answer(whole)) as address, client_of(address) as client:
        for _ in range(2):
            assert list(client.scan(SCAN)) == [("a",)]
            time.sleep(seconds)


def test_a_new_connection_that_breaks_is_not_tried_again(path: Path) -> None:
    with (
        engine(path, answer()) as address,
        client_of(address) as client,
        pytest.raises(Unreachable, match="left a scan unanswered"),
    ):
        list(client.scan(SCAN))


def test_a_scan_within_a_scan_has_a_connection_of_its_own(path: Path) -> None:
    def slow(stream: socket.socket) -> None:
        welcome(stream)
        stream.recv(65536)
        stream.sendall(ROW)
        stream.recv(65536)  # until the test closes it

    inner = answer(ROW + frames.encode_end(1))
    with engine(path, slow, inner) as address, client_of(address) as client:
        outer = client.scan(SCAN)
        next(outer)
        assert list(client.scan(SCAN)) == [("a",)]
        client.close_running()


def test_rows_that_nobody_finishes_do_not_keep_the_connection(path: Path) -> None:
    def script(stream: socket.socket) -> None:
        welcome(stream)
        for _ in range(2):
            stream.recv(65536)
            stream.sendall(frames.encode_rows([("a",), ("b",)], 1) + frames.encode_end(2))

    with engine(path, script) as address, client_of(address) as client:
        unfinished = client.scan(SCAN)
        assert next(unfinished) == ("a",)
        assert list(client.scan(SCAN)) == [("a",), ("b",)]
        assert next(unfinished) == ("b",)


def test_an_engine_that_refuses_the_token_says_why(path: Path) -> None:
    def script(stream: socket.socket) -> None:
        stream.recv(65536)
        stream.sendall(frames.encode_error("28000", "the engine does not know the token"))

    with (
        engine(path, script) as address,
        client_of(address) as client,
        pytest.raises(EngineError, match="does not know the token"),
    ):
        list(client.scan(SCAN))


def test_a_request_larger_than_a_frame_is_refused_before_it_is_sent(path: Path) -> None:
    huge = Scan("route_decisions", (), (frames.Input("request", 0, "x" * frames.MAX_PAYLOAD),))
    with (
        client_of(Address(socket=str(path))) as client,
        pytest.raises(frames.FrameError, match="over the limit"),
    ):
        list(client.scan(huge))
