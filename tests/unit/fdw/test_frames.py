"""The frames: what one side writes, the other reads; anything else is refused, never misread."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer_fdw import frames

# Text as PostgreSQL can hold it: any Unicode but surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
INPUTS = st.one_of(
    st.builds(frames.Input, TEXT, st.just(frames.EQUALS), st.none() | TEXT | st.lists(TEXT)),
    st.builds(frames.Input, TEXT, st.just(frames.ANY), st.lists(st.none() | TEXT)),
)
SCANS = st.builds(
    frames.Scan,
    TEXT,
    st.lists(TEXT, max_size=5).map(tuple),
    st.lists(INPUTS, max_size=4).map(tuple),
    st.integers(0, 2**64 - 1),
    st.integers(-1, 2**63 - 1),
    TEXT,
)


def payload_of(frame: bytes) -> tuple[int, bytes]:
    kind, length = frames.read_header(frame[: frames.HEADER.size])
    payload = frame[frames.HEADER.size :]
    assert len(payload) == length
    return kind, payload


@given(SCANS)
def test_a_scan_is_read_as_it_was_written(scan: frames.Scan) -> None:
    kind, payload = payload_of(frames.encode_scan(scan))
    assert kind == frames.SCAN
    assert frames.decode_scan(payload) == scan


@given(
    st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[st.none() | TEXT] * n), max_size=5))
)
def test_rows_are_read_as_they_were_written(rows: list[tuple[str | None, ...]]) -> None:
    columns = len(rows[0]) if rows else 1
    kind, payload = payload_of(frames.encode_rows(rows, columns))
    assert kind == frames.ROWS
    assert list(frames.decode_rows(payload, columns)) == rows


def test_an_error_keeps_its_four_parts() -> None:
    _, payload = payload_of(frames.encode_error("22023", "wrong", "in detail", "do this"))
    assert frames.decode_error(payload) == ("22023", "wrong", "in detail", "do this")


@given(st.builds(frames.Place, *[st.text("0123456789")] * 4, TEXT))
def test_a_place_is_read_as_it_was_written(place: frames.Place) -> None:
    assert frames.Place.of(str(place)) == place


def test_an_older_door_says_of_its_place_how_far_the_server_has_come() -> None:
    assert frames.Place.of("7/8/9") == ("7", "8", "9", "", "")
    assert frames.Place.of("") == frames.Place()


def test_two_databases_of_a_server_have_come_equally_far() -> None:
    assert frames.Place("7", "8", "9", "16384").commits == "7/8/9"
    assert frames.Place("7", "8", "9", "16385", "other").commits == "7/8/9"
    assert frames.Place("7", "", "", "16384").commits == ""


@given(SCANS, st.data())
def test_a_scan_cut_short_is_refused(scan: frames.Scan, data: st.DataObject) -> None:
    _, payload = payload_of(frames.encode_scan(scan))
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(frames.FrameError):
        frames.decode_scan(payload[:cut])


@given(SCANS)
def test_a_scan_with_bytes_left_over_is_refused(scan: frames.Scan) -> None:
    _, payload = payload_of(frames.encode_scan(scan))
    with pytest.raises(frames.FrameError, match="too many"):
        frames.decode_scan(payload + b"\0")


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_a_frame_error(payload: bytes) -> None:
    try:
        frames.decode_scan(payload)
    except frames.FrameError:
        return
    assert payload == frames.encode_scan(frames.decode_scan(payload))[frames.HEADER.size :]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (struct.pack(">2sBBI", b"GE", 1, 3, 0), "begins with b'GE'"),
        (struct.pack(">2sBBI", b"TD", 9, 3, 0), "protocol 9"),
        (
            struct.pack(">2sBBI", b"TD", frames.PROTOCOL, 3, 2**32 - 1),
            "4294967295 bytes is over the limit",
        ),
    ],
)
def test_a_header_that_is_none_says_what_was_wrong(header: bytes, message: str) -> None:
    with pytest.raises(frames.FrameError, match=message):
        frames.read_header(header)


def test_an_array_that_claims_more_values_than_bytes_is_refused_before_it_is_built() -> None:
    reader = frames.Reader(b"\2" + struct.pack(">I", 2**32 - 1))
    with pytest.raises(frames.FrameError, match="claims 4294967295 values"):
        reader.value()


def test_more_values_than_an_engine_takes_are_refused_before_they_are_built() -> None:
    # given as many as may be, in two arrays, and one more
    most = frames.MAX_VALUES
    inner = b"\2" + struct.pack(">I", most - 2) + b"\0" * (most - 2)
    assert len(frames.Reader(inner).value() or ()) == most - 2
    payload = b"\2" + struct.pack(">I", 2) + inner + b"\2" + struct.pack(">I", 1) + b"\0"
    with pytest.raises(frames.LimitError, match="more than 1,000,000 values"):
        frames.Reader(payload).value()


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(frames.FrameError, match="not valid UTF-8"):
        frames.Reader(struct.pack(">I", 2) + b"\xff\xfe").string()


@pytest.mark.parametrize(
    ("match", "value", "message"),
    [(frames.ANY, "x", "matches any of a list, but has none"), (7, ["x"], "match 7, not 0 or 1")],
)
def test_an_input_that_matches_nothing_is_refused(
    match: int, value: frames.Value, message: str
) -> None:
    scan = frames.Scan("t", (), (frames.Input("c", match, value),))
    _, payload = payload_of(frames.encode_scan(scan))
    with pytest.raises(frames.FrameError, match=message):
        frames.decode_scan(payload)
