"""The frames between a front door and the engine. Standard library only.

A frame is an 8-byte header and a payload; all integers are big-endian:

    "TD"  u8 protocol version  u8 kind  u32 length of the payload

    string   u32 length, then that many bytes of UTF-8
    value    u8 tag: 0 NULL | 1 text: string | 2 array: u32 n, then n values
             (a value is PostgreSQL's text form of it; a text[] is an array of texts)

    kind          from   payload
    1 HELLO       door   string token ("" for none), string name of the front door
    2 WELCOME     engine string version of the engine
    3 SCAN        door   string table, u64 statement, i64 limit (-1: none), string place,
                         u16 n, n strings: the columns wanted,
                         u16 n, n times: string input column, u8 match, value
                         match 0: equals the value; 1: equals any element of the array
    4 ROWS        engine u32 rows, u16 columns, then row by row each cell:
                         i32 length (-1: NULL), then that many bytes of its text form
    5 END         engine u64 rows sent in all
    6 ERROR       engine strings: SQLSTATE, message, detail, hint

A connection starts with HELLO and WELCOME, then has any number of SCANs, one at a time, each
answered by ROWS frames and an END, or by an ERROR. A door that has had enough closes the
connection. Scans of one `statement` (any number but 0, unique in its connection) see one
snapshot; a scan with statement 0 sees all that was committed before it. `place` says where the
door is and how far its server has come: a `Place`, its parts in order with slashes between them,
"" for one that the door can't tell. An older door leaves the last two out, and an older engine
takes no notice of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Union

PROTOCOL = 2
MAGIC = b"TD"
HEADER = struct.Struct(">2sBBI")
# The largest payload either side takes: a batch of 10,000 long requests fits with room to spare.
MAX_PAYLOAD = 64 * 1024 * 1024
# The most values in one frame: each takes a hundred times its one byte (NULL) once it is read.
MAX_VALUES = 1_000_000

HELLO, WELCOME, SCAN, ROWS, END, ERROR = 1, 2, 3, 4, 5, 6
EQUALS, ANY = 0, 1

# The hint where one side can't read the other.
SAME_VERSION = "Front door and engine must be of the same version."

# A value on the wire: NULL, PostgreSQL's text form, or an array of values.
Value = Union[None, str, list["Value"]]  # noqa: UP007 - recursive, and read at run time on 3.10


class FrameError(ValueError):
    """Bytes that are no frame of this protocol, or a frame over its limit."""


class LimitError(FrameError):
    """A frame with more values than an engine takes at a time."""


class TextError(FrameError):
    """A string in a frame that is not valid UTF-8."""


@dataclass(frozen=True)
class Input:
    """A qual on an input column: equals a value, or equals any of a list."""

    column: str
    match: int
    value: Value


class Place(NamedTuple):
    """The server and the database that a front door is in, and how far that server has come.

    `server` is its system identifier, `started` its start in microseconds since 2000, and `ended`
    the number of transactions with changes that have ended since then. A standby, whose commits are
    another server's, says neither of these two. `database` is the OID, and `engine_database` the
    name of the database whose engine is to answer, where the foreign server's option says that this
    is another on purpose.
    """

    server: str = ""
    started: str = ""
    ended: str = ""
    database: str = ""
    engine_database: str = ""

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, text: str) -> Place:
        """The place that a SCAN frame says; the name comes last, since it may have slashes."""
        return cls(*text.split("/", len(cls._fields) - 1))

    def __str__(self) -> str:
        return "/".join(self)

    @property
    def commits(self) -> str:
        """The same for two scans where nothing was committed in between; "" where not known."""
        return f"{self.server}/{self.started}/{self.ended}" if self.ended else ""


@dataclass(frozen=True)
class Scan:
    """What a front door asks: a table, the inputs and the columns wanted."""

    table: str
    columns: tuple[str, ...]
    inputs: tuple[Input, ...]
    statement: int = 0
    limit: int = -1
    place: str = ""


Row = Sequence["str | None"]


def frame(kind: int, payload: bytes) -> bytes:
    """A whole frame. Raises FrameError where the payload is over MAX_PAYLOAD."""
    if len(payload) > MAX_PAYLOAD:
        raise FrameError(f"a frame of {len(payload)} bytes is over the limit of {MAX_PAYLOAD}")
    return HEADER.pack(MAGIC, PROTOCOL, kind, len(payload)) + payload


def read_header(header: bytes) -> tuple[int, int]:
    """The kind and the payload's length. Raises FrameError for anything else than a header."""
    magic, protocol, kind, length = HEADER.unpack(header)
    if magic != MAGIC:
        raise FrameError(f"not a frame: it begins with {header[:2]!r}, not {MAGIC!r}")
    if protocol != PROTOCOL:
        raise FrameError(f"protocol {protocol} is not spoken here, only {PROTOCOL}")
    if length > MAX_PAYLOAD:
        raise FrameError(f"a frame of {length} bytes is over the limit of {MAX_PAYLOAD}")
    return kind, length


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">I", len(data)) + data


def _value(value: Value) -> bytes:
    if value is None:
        return b"\0"
    if isinstance(value, str):
        return b"\1" + _string(value)
    return b"\2" + struct.pack(">I", len(value)) + b"".join(map(_value, value))


def encode_hello(token: str, front_door: str) -> bytes:
    """A HELLO frame."""
    return frame(HELLO, _string(token) + _string(front_door))


def encode_welcome(version: str) -> bytes:
    """A WELCOME frame."""
    return frame(WELCOME, _string(version))


@lru_cache(maxsize=256)
def _strings(texts: tuple[str, ...]) -> bytes:
    return struct.pack(">H", len(texts)) + b"".join(map(_string, texts))


def encode_scan(scan: Scan) -> bytes:
    """A SCAN frame. Raises FrameError where it is over MAX_PAYLOAD."""
    parts = [_string(scan.table), struct.pack(">Qq", scan.statement, scan.limit)]
    parts += (_string(scan.place), _strings(scan.columns))
    parts.append(struct.pack(">H", len(scan.inputs)))
    for item in scan.inputs:
        parts += (_string(item.column), bytes((item.match,)), _value(item.value))
    return frame(SCAN, b"".join(parts))


def encode_rows(rows: Sequence[Row], columns: int) -> bytes:
    """A ROWS frame. Raises FrameError where it is over MAX_PAYLOAD."""
    parts = [struct.pack(">IH", len(rows), columns)]
    pack = struct.Struct(">i").pack
    null = pack(-1)
    for row in rows:
        for cell in row:
            if cell is None:
                parts.append(null)
            else:
                data = cell.encode()
                parts.append(pack(len(data)))
                parts.append(data)
    return frame(ROWS, b"".join(parts))


def encode_end(rows: int) -> bytes:
    """An END frame."""
    return frame(END, struct.pack(">Q", rows))


def encode_error(sqlstate: str, message: str, detail: str = "", hint: str = "") -> bytes:
    """An ERROR frame."""
    return frame(ERROR, b"".join(map(_string, (sqlstate, message, detail, hint))))


_NUMBERS = {layout: struct.Struct(f">{layout}") for layout in "BHIQiq"}


class Reader:
    """Reads a payload from its start; every read checks that the bytes are there."""

    def __init__(self, payload: bytes) -> None:
        self._data = payload
        self._at = 0
        self._values = 0

    def number(self, layout: str) -> int:
        """One big-endian integer of a struct layout such as 'I'."""
        number = _NUMBERS[layout]
        at = self._at
        self._at = at + number.size
        try:
            value: int = number.unpack_from(self._data, at)[0]
        except struct.error:
            raise self._too_short() from None
        return value

    def string(self) -> str:
        """One string: its length, then its text."""
        return self.text(self.number("I"))

    def text(self, length: int) -> str:
        """The next `length` bytes as text. Raises FrameError where they are not UTF-8."""
        at = self._at
        self._at = end = at + length
        if end > len(self._data):
            raise self._too_short()
        try:
            return self._data[at:end].decode()
        except UnicodeDecodeError as error:
            raise TextError(f"a string is not valid UTF-8 at byte {error.start}") from None

    def cells(self, count: int) -> tuple[str | None, ...]:
        """As many cells of a row. Raises FrameError, TextError.

        It is what a scan spends its time on, so it does what `number` and `text` do by itself.
        """
        data, size, length_at = self._data, len(self._data), _NUMBERS["i"].unpack_from
        found: list[str | None] = []
        at = self._at
        try:
            for _ in range(count):
                (length,) = length_at(data, at)
                at += 4
                if length < 0:
                    found.append(None)
                    continue
                begin, at = at, at + length
                if at > size:
                    break
                found.append(data[begin:at].decode())
        except struct.error:
            at += 4
        except UnicodeDecodeError as error:
            raise TextError(f"a string is not valid UTF-8 at byte {error.start}") from None
        self._at = at
        if at > size:
            raise self._too_short()
        return tuple(found)

    def _too_short(self) -> FrameError:
        return FrameError(f"a frame ends {self._at - len(self._data)} bytes too early")

    def value(self, depth: int = 0) -> Value:
        """One value; arrays nest at most twice. Raises FrameError, LimitError."""
        tag = self.number("B")
        if tag == 0:
            return None
        if tag == 1:
            return self.string()
        if tag != 2 or depth > 1:
            raise FrameError(f"a value has tag {tag} at depth {depth}")
        count = self.number("I")
        if count > len(self._data) - self._at:
            raise FrameError(f"an array claims {count} values, more than the frame has bytes")
        self._values += count
        if self._values > MAX_VALUES:
            raise LimitError(f"a scan of more than {MAX_VALUES:,} values at a time")
        return [self.value(depth + 1) for _ in range(count)]

    def end(self) -> None:
        """Raises FrameError where bytes are left over."""
        if self._at != len(self._data):
            raise FrameError(f"a frame has {len(self._data) - self._at} bytes too many")


def decode_hello(payload: bytes) -> tuple[str, str]:
    """The token and the name of the front door."""
    reader = Reader(payload)
    hello = reader.string(), reader.string()
    reader.end()
    return hello


def decode_welcome(payload: bytes) -> str:
    """The version of the engine."""
    reader = Reader(payload)
    version = reader.string()
    reader.end()
    return version


def decode_scan(payload: bytes) -> Scan:
    """The scan that a SCAN frame asks for."""
    reader = Reader(payload)
    table = reader.string()
    statement, limit, place = reader.number("Q"), reader.number("q"), reader.string()
    columns = tuple(reader.string() for _ in range(reader.number("H")))
    inputs = tuple(
        Input(reader.string(), reader.number("B"), reader.value())
        for _ in range(reader.number("H"))
    )
    reader.end()
    for item in inputs:
        if item.match not in (EQUALS, ANY):
            raise FrameError(f"input {item.column!r} has match {item.match}, not 0 or 1")
        if item.match == ANY and not isinstance(item.value, list):
            raise FrameError(f"input {item.column!r} matches any of a list, but has none")
    return Scan(table, columns, inputs, statement, limit, place)


def count_rows(payload: bytes) -> int:
    """How many rows a ROWS frame says that it has."""
    return Reader(payload).number("I")


def decode_rows(payload: bytes, columns: int) -> Iterator[tuple[str | None, ...]]:
    """The rows of a ROWS frame. Raises FrameError where they have another number of columns."""
    reader = Reader(payload)
    rows, width = reader.number("I"), reader.number("H")
    if width != columns:
        raise FrameError(f"its rows have {width} columns, and {columns} were asked for")
    for _ in range(rows):
        yield reader.cells(columns)
    reader.end()


def decode_end(payload: bytes) -> int:
    """The number of rows that an answer had."""
    reader = Reader(payload)
    rows = reader.number("Q")
    reader.end()
    return rows


def decode_error(payload: bytes) -> tuple[str, str, str, str]:
    """SQLSTATE, message, detail and hint."""
    reader = Reader(payload)
    error = reader.string(), reader.string(), reader.string(), reader.string()
    reader.end()
    return error
