"""Answers of any bytes: the native door makes of them what the Python reader does, or an error.

Frames are drawn whole, wrong in one place, or from nothing; the C reader is held against
tinydancer_fdw.frames, so that the two doors can't read one answer in two ways.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinydancer_fdw import frames

from .conftest import ScriptedEngine, echo

QUERY = "SELECT request, agent_name FROM route_decisions WHERE request = 'x'"
SETTINGS = settings(
    max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)

cells = st.one_of(
    st.none(),
    st.just(b"x"),
    st.text(max_size=20).map(str.encode),
    st.binary(max_size=8),
)


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """The payload of a ROWS frame whose counts and lengths may be lies."""
    rows = draw(st.lists(st.tuples(st.just(b"x"), cells) | st.tuples(cells, cells), max_size=4))
    lie = st.one_of(st.just(0), st.integers(-3, 3), st.sampled_from([2**31 - 1, -(2**31), 65536]))
    count, width = draw(lie), draw(st.sampled_from([0, 0, 0, 0, 1, -1, 65533]))
    data = bytearray(struct.pack(">IH", (len(rows) + count) % 2**32, (2 + width) % 65536))
    for cell in itertools.chain(*rows):
        length = -1 if cell is None else len(cell)
        # A length that lies is drawn in the last place of all, where it is the likeliest to hurt.
        data += struct.pack(">i", length) + (cell or b"")
    if rows and draw(st.integers(0, 5)) == 0:
        data[-4:] = struct.pack(">i", draw(st.integers(-(2**31), 2**31 - 1)))
    return bytes(data) + draw(st.sampled_from([b"", b"", b"", b"\0", b"left over"]))


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Frames of an answer; one byte of it all may be another."""
    sent = draw(st.lists(payloads(), max_size=3))
    rows = sum(struct.unpack(">I", payload[:4])[0] for payload in sent)
    data = b"".join(frames.frame(frames.ROWS, payload) for payload in sent)
    end = draw(st.sampled_from([rows, rows, rows, rows + 1, 2**64 - 1]))
    data += frames.frame(frames.END, struct.pack(">Q", end % 2**64))
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[at + 1 :]
    return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 4)) == 0 else data


def rows_of(data: bytes) -> list[frames.Row] | None:
    """What the Python reader makes of an answer to a question for two columns; None for a fault."""
    rows: list[frames.Row] = []
    try:
        while True:
            header, data = data[: frames.HEADER.size], data[frames.HEADER.size :]
            if len(header) < frames.HEADER.size:
                return None
            kind, length = frames.read_header(header)
            payload, data = data[:length], data[length:]
            if len(payload) < length:
                return None
            if kind == frames.END:
                return rows if payload == struct.pack(">Q", len(rows)) else None
            if kind != frames.ROWS:
                return None
            rows += frames.decode_rows(payload, 2)
            if any("\0" in (cell or "") for row in rows for cell in row):
                return None
    except (frames.FrameError, UnicodeDecodeError):
        return None


@SETTINGS
@given(answer=answers(), cut=st.integers(0, 400))
def test_an_answer_is_read_as_python_reads_it_or_is_an_error(
    survivor: psycopg.Connection, engine: ScriptedEngine, answer: bytes, cut: int
) -> None:
    def reply(scan: frames.Scan) -> Iterator[bytes | None]:
        yield answer[:cut]
        yield answer[cut:]
        yield None

    engine.reply = reply
    expected = rows_of(answer)
    try:
        found = survivor.execute(QUERY).fetchall()
    except psycopg.Error as error:
        assert (error.sqlstate or "")[:2] in {"08", "22", "HV"}
        assert expected is None
    else:
        assert expected is not None
        # PostgreSQL keeps the rows that echo the request.
        assert found == [row for row in expected if row[0] == "x"]
    engine.reply = echo
    assert survivor.execute(QUERY).fetchall() == [("x", "gpt-4")]


@SETTINGS
@given(welcome=st.binary(max_size=40) | st.binary(max_size=24).map(lambda b: frames.frame(2, b)))
def test_a_welcome_of_any_bytes_is_an_error_or_a_welcome(
    survivor: psycopg.Connection, engine: ScriptedEngine, welcome: bytes
) -> None:
    survivor.execute("ALTER SERVER engine OPTIONS (ADD connect_timeout '300')")
    try:
        honest, engine.welcome = engine.welcome, welcome
        engine.stop()  # the next scan opens a connection
        engine.start()
        try:
            survivor.execute(QUERY).fetchall()
        except psycopg.Error as error:
            assert (error.sqlstate or "")[:2] in {"08", "22", "HV"}
    finally:
        engine.welcome = honest
        survivor.execute("ALTER SERVER engine OPTIONS (DROP connect_timeout)")
    engine.stop()
    engine.start()
    assert survivor.execute(QUERY).fetchall() == [("x", "gpt-4")]
