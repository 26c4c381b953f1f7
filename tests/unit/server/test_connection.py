"""What a client may send, and what comes of it: an answer, or an ERROR and the end of it alone."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tinydancer.errors import InvalidInput
from tinydancer.settings import EngineSettings
from tinydancer_fdw import frames
from tinydancer_fdw.client import EngineError
from tinydancer_fdw.frames import EQUALS, Input, Scan

from .conftest import Running, greeted, read_frame, running, wait_for

SCAN = Scan("route_decisions", ("request", "rank"), (Input("request", EQUALS, "x"),))


def error_of(stream: object) -> tuple[str, str, str, str]:
    kind, payload = read_frame(stream)  # type: ignore[arg-type]
    assert kind == frames.ERROR
    return frames.decode_error(payload)


def test_a_scan_is_answered_by_its_rows(echoing: Running) -> None:
    assert list(echoing.client().scan(SCAN)) == [("request", "rank")]


def test_a_connection_answers_one_scan_after_the_other(echoing: Running) -> None:
    stream = greeted(echoing.connect())
    with stream:
        for _ in range(3):
            stream.sendall(frames.encode_scan(SCAN))
            assert [read_frame(stream)[0] for _ in range(2)] == [frames.ROWS, frames.END]


@pytest.mark.parametrize(
    ("bytes_sent", "sqlstate", "named"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "08P01", "not a frame"),
        (struct.pack(">2sBBI", b"TD", 9, frames.SCAN, 0), "08P01", "protocol 9"),
        (
            struct.pack(">2sBBI", b"TD", frames.PROTOCOL, frames.SCAN, 2**32 - 1),
            "08P01",
            "4294967295 bytes",
        ),
        (frames.frame(frames.SCAN, b"\0\0\0\5abc"), "08P01", "too early"),
        (frames.frame(frames.SCAN, b"\0\0\0\2\xff\xfe"), "22021", "UTF-8"),
        (frames.encode_hello("", "again"), "08P01", "kind 1"),
    ],
    ids=["http", "protocol", "4 GB", "short payload", "not UTF-8", "wrong kind"],
)
def test_bytes_that_are_no_scan_get_an_error_and_end_this_connection_alone(
    echoing: Running, bytes_sent: bytes, sqlstate: str, named: str
) -> None:
    with greeted(echoing.connect()) as stream, greeted(echoing.connect()) as bystander:
        stream.sendall(bytes_sent)
        error = error_of(stream)
        assert error[0] == sqlstate
        assert named in error[1]
        assert stream.recv(1) == b""
        bystander.sendall(frames.encode_scan(SCAN))
        assert read_frame(bystander)[0] == frames.ROWS


def test_a_frame_cut_short_gets_an_error(echoing: Running) -> None:
    with greeted(echoing.connect()) as stream:
        stream.sendall(frames.encode_scan(SCAN)[:-1])
        stream.shutdown(1)
        assert error_of(stream)[:2] == ("08P01", "the connection ends in the middle of a frame")


def test_a_stranger_gets_no_large_frame_through_before_hello(echoing: Running) -> None:
    with echoing.connect() as stream:
        stream.sendall(struct.pack(">2sBBI", b"TD", frames.PROTOCOL, frames.HELLO, 1024 * 1024))
        assert "over the limit" in error_of(stream)[1]


def test_a_connection_without_hello_is_ended(path: Path) -> None:
    settings = EngineSettings(dsn="", socket=path, hello_timeout=0.05)
    with running(settings, lambda scan: iter(())) as server, server.connect() as stream:
        assert error_of(stream)[0] == "08P01"
        assert stream.recv(1) == b""


@pytest.mark.parametrize("over", [False, True], ids=["one of few", "one too many"])
def test_a_hello_that_comes_byte_by_byte_is_ended_in_time(path: Path, over: bool) -> None:
    settings = EngineSettings(dsn="", socket=path, hello_timeout=0.2, max_connections=1)
    with running(settings, lambda scan: iter(())) as server, ExitStack() as stack:
        if over:
            stack.enter_context(greeted(server.connect()))
        stream = stack.enter_context(server.connect())
        started = time.monotonic()
        with suppress(OSError):  # it has hung up
            for byte in frames.encode_hello("x" * 200, "test"):
                stream.sendall(bytes([byte]))
                time.sleep(0.01)
        assert time.monotonic() < started + 1


def test_an_error_of_ours_comes_with_its_sqlstate_and_leaves_the_connection_usable(
    path: Path,
) -> None:
    def answer(scan: Scan) -> Iterator[Sequence[str | None]]:
        if scan.columns == ("rank",):
            raise InvalidInput("top_k = 0 is out of range", detail="d", hint="h")
        yield ("fine", None)

    with running(EngineSettings(dsn="", socket=path), answer) as server:
        client = server.client()
        with pytest.raises(EngineError) as caught:
            list(client.scan(Scan("route_decisions", ("rank",), ())))
        error = caught.value
        assert (error.sqlstate, error.message, error.detail, error.hint) == (
            "22023",
            "top_k = 0 is out of range",
            "d",
            "h",
        )
        assert list(client.scan(SCAN)) == [("fine", None)]
        wait_for(lambda: server.metrics.read().scans == 2)
        figures = server.metrics.read()
        assert (figures.errors, figures.connections) == (1, 1)


def test_a_defect_of_the_engine_is_an_error_of_one_scan_without_its_inside(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(scan: Scan) -> Iterator[Sequence[str | None]]:
        raise KeyError(scan.inputs[0].value)

    with (
        running(EngineSettings(dsn="", socket=path), answer) as server,
        pytest.raises(EngineError, match="KeyError") as caught,
    ):
        text = Input("request", EQUALS, "a user's text")
        list(server.client().scan(Scan("route_decisions", ("rank",), (text,))))
    assert caught.value.sqlstate == "XX000"
    assert "a user's text" not in caught.value.detail + caught.value.message
    number = caught.value.hint.split()[-1].rstrip(".")
    assert number in caplog.text
    assert "test_connection.py" in caplog.text
    assert "a user's text" not in caplog.text


def test_an_answer_of_many_rows_comes_in_several_frames(path: Path) -> None:
    rows = [(str(number), "x" * 1000) for number in range(5000)]

    settings = EngineSettings(dsn="", socket=path)
    with running(settings, lambda _: iter(rows)) as server, greeted(server.connect()) as stream:
        stream.sendall(frames.encode_scan(SCAN))
        sizes, got = [], []
        while (frame := read_frame(stream))[0] == frames.ROWS:
            sizes.append(len(frame[1]))
            got += frames.decode_rows(frame[1], 2)
    assert got == rows
    assert frame == (frames.END, struct.pack(">Q", 5000))
    assert len(sizes) > 10
    assert max(sizes) < 512 * 1024


def test_a_client_that_leaves_stops_the_work(path: Path) -> None:
    taken = 0

    def answer(scan: Scan) -> Iterator[Sequence[str | None]]:
        nonlocal taken
        while True:
            taken += 1
            time.sleep(0.0001)
            yield ("x" * 10_000, None)

    with running(EngineSettings(dsn="", socket=path), answer) as server:
        rows = server.client().scan(SCAN)
        next(rows)
        rows.close()  # type: ignore[attr-defined]
        wait_for(lambda: server.metrics.read().connections == 0)
        before = taken
        time.sleep(0.05)
        assert taken == before


def test_a_wrong_token_is_refused_and_a_right_one_is_not(path: Path) -> None:
    settings = EngineSettings(dsn="", socket=path, token="right")
    with running(settings, lambda scan: iter([("a", "b")])) as server:
        for token, sqlstate in (("", "28000"), ("wrong", "28000"), ("ünknown", "28000")):
            with server.connect() as stream:
                stream.sendall(frames.encode_hello(token, "test"))
                assert error_of(stream)[0] == sqlstate
        with server.connect() as stream:
            stream.sendall(frames.encode_hello("right", "test"))
            assert read_frame(stream)[0] == frames.WELCOME
        assert server.metrics.read().refused == 3


def test_one_connection_too_many_is_told_so(path: Path) -> None:
    settings = EngineSettings(dsn="", socket=path, max_connections=2)
    with running(settings, lambda scan: iter([("a", "b")])) as server:
        first, second = server.client(), server.client()
        assert list(first.scan(SCAN)) == list(second.scan(SCAN))
        with pytest.raises(EngineError, match="2 connections already") as caught:
            list(server.client().scan(SCAN))
        assert caught.value.sqlstate == "53300"
        first.close()
        wait_for(lambda: server.metrics.read().connections == 1)
        assert list(server.client().scan(SCAN)) == [("a", "b")]


def test_fifty_clients_at_once_are_all_answered(echoing: Running) -> None:
    answers: list[object] = []

    def ask() -> None:
        client = echoing.client()
        for _ in range(20):
            answers.extend(client.scan(SCAN))
        client.close()

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [("request", "rank")] * 1000
