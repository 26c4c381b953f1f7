"""An engine that is down, slow, or sends what it should not: an error each time, and the backend
that got it serves the next query."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.errors import (
    ConnectionFailure,
    InvalidParameterValue,
    ProtocolViolation,
    QueryCanceled,
    SqlclientUnableToEstablishSqlconnection,
)

from tinydancer_fdw import frames
from tinydancer_fdw.native import build

from .conftest import ScriptedEngine, answer_rows, echo, encode_answer

Connection = psycopg.Connection

Reply = Callable[[frames.Scan], Iterator[bytes | None]]

QUERY = "SELECT request, agent_name FROM route_decisions WHERE request = 'x'"
ROW = ("x", "gpt-4")


def replying(*pieces: bytes | None) -> Reply:
    def reply(scan: frames.Scan) -> Iterator[bytes | None]:
        yield from pieces

    return reply


def silent(scan: frames.Scan) -> Iterator[bytes]:
    time.sleep(3)
    yield from echo(scan)


def test_an_engine_that_is_down_is_an_error_that_names_the_socket_and_the_command(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    engine.stop()
    with pytest.raises(SqlclientUnableToEstablishSqlconnection) as caught:
        survivor.execute(QUERY)
    assert str(engine.path) in str(caught.value.diag.message_primary)
    assert "tinydancer up" in str(caught.value.diag.message_hint)
    engine.start()
    assert survivor.execute(QUERY).fetchall() == [ROW]


def test_an_engine_that_the_server_may_not_open_is_an_error_that_names_the_option(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    engine.path.chmod(0)
    with pytest.raises(
        SqlclientUnableToEstablishSqlconnection, match="Permission denied"
    ) as caught:
        survivor.execute(QUERY)
    assert "tinydancer serve --group" in str(caught.value.diag.message_hint)


def test_an_engine_that_was_restarted_between_scans_goes_unnoticed(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    assert survivor.execute(QUERY).fetchall() == [ROW]
    engine.stop()
    engine.start()
    assert survivor.execute(QUERY).fetchall() == [ROW]
    assert engine.connections == 2


def test_an_engine_killed_in_the_middle_of_an_answer_is_an_error_then_served_again(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    whole = encode_answer([("x", "gpt-4")] * 100, 2)
    engine.reply = replying(whole[: len(whole) // 2], None)
    with pytest.raises(ConnectionFailure, match="before its answer was whole"):
        survivor.execute(QUERY)
    engine.reply = echo
    assert survivor.execute(QUERY).fetchall() == [ROW]


def test_a_kept_connection_that_dies_again_is_not_tried_for_ever(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    survivor.execute(QUERY)
    engine.reply = replying(None)
    with pytest.raises(ConnectionFailure):
        survivor.execute(QUERY)
    assert len(engine.scans) == 3


def test_the_engines_error_arrives_with_all_its_parts(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    engine.reply = replying(frames.encode_error("22023", "no such objective: ä", "why", "try cost"))
    with pytest.raises(InvalidParameterValue) as caught:
        survivor.execute(QUERY)
    diag = caught.value.diag
    assert (diag.message_primary, diag.message_detail, diag.message_hint) == (
        "no such objective: ä", "why", "try cost",
    )  # fmt: skip
    engine.reply = echo
    assert survivor.execute(QUERY).fetchall() == [ROW]
    assert engine.connections == 1


@pytest.mark.parametrize("sqlstate", ["00000", "01000", "02000", "2202", "22o23", "", "éé"])
def test_an_error_can_not_pass_for_a_success(
    survivor: Connection, engine: ScriptedEngine, sqlstate: str
) -> None:
    engine.reply = replying(frames.encode_error(sqlstate, "odd"))
    with pytest.raises(psycopg.errors.FdwError, match="odd"):
        survivor.execute(QUERY)


def test_an_error_in_the_middle_of_an_answer_is_the_statements_error(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    rows = frames.encode_rows([ROW], 2)
    engine.reply = replying(rows, frames.encode_error("53400", "budget spent"))
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match="budget spent"):
        survivor.execute(QUERY)


def test_a_refused_token_is_an_error_that_does_not_show_it(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    engine.welcome = frames.encode_error("28000", "the token is wrong")
    survivor.execute("CREATE USER MAPPING FOR PUBLIC SERVER engine OPTIONS (token 's3cret')")
    try:
        with pytest.raises(psycopg.errors.InvalidAuthorizationSpecification) as caught:
            survivor.execute(QUERY)
    finally:
        survivor.execute("DROP USER MAPPING FOR PUBLIC SERVER engine")
    assert engine.tokens == ["s3cret"]
    assert "s3cret" not in str(caught.value)


GOOD = encode_answer([ROW], 2)
CELL = struct.pack(">i", 1) + b"x"
WRONG = {
    "no frame": b"HTTP/1.1 200 OK\r\n\r\n",
    "another protocol": b"TD\x09" + GOOD[3:],
    "a frame that claims 4 GB": struct.pack(
        ">2sBBI", b"TD", frames.PROTOCOL, frames.ROWS, 0xFFFFFFFF
    ),
    "a kind that there is not": frames.frame(99, b""),
    "a scan": frames.frame(frames.SCAN, b""),
    "too few columns": encode_answer([("x",)], 1),
    "too many columns": encode_answer([("x", "y", "z")], 3),
    "more rows than bytes": frames.frame(frames.ROWS, struct.pack(">IH", 2**31, 2)),
    "a cell longer than its frame": frames.frame(
        frames.ROWS, struct.pack(">IH", 1, 2) + CELL + struct.pack(">i", 100) + b"abc"
    ),
    "bytes after the rows": frames.frame(frames.ROWS, struct.pack(">IH", 1, 2) + CELL * 3),
    "an end of another number of rows": frames.encode_rows([ROW], 2) + frames.encode_end(2),
    "an end with too few bytes": frames.frame(frames.END, b"\0"),
    "an end with too many bytes": frames.frame(frames.END, b"\0" * 9),
    "an error without strings": frames.frame(frames.ERROR, b"\0\0"),
    "an error whose text has a NUL": frames.encode_error("22023", "\0" + "x" * 1_000_000),
    "an error that is not UTF-8": frames.frame(
        frames.ERROR, (struct.pack(">I", 5) + b"22023" + (struct.pack(">I", 1) + b"\xff") * 3)
    ),
    "a cell that is not UTF-8": frames.frame(
        frames.ROWS, struct.pack(">IH", 1, 2) + CELL + struct.pack(">i", 2) + b"\xc3\x28"
    ),
    "a cell with a NUL": frames.frame(
        frames.ROWS, struct.pack(">IH", 1, 2) + CELL + struct.pack(">i", 3) + b"a\0b"
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_frame_is_a_protocol_violation(
    survivor: Connection, engine: ScriptedEngine, what: str
) -> None:
    engine.reply = replying(WRONG[what])
    with pytest.raises(ProtocolViolation):
        survivor.execute(QUERY)
    engine.reply = echo
    assert survivor.execute(QUERY).fetchall() == [ROW]


def test_a_wrong_welcome_is_a_protocol_violation(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    engine.welcome = frames.encode_end(0)
    with pytest.raises(ProtocolViolation, match="WELCOME"):
        survivor.execute(QUERY)


def test_bytes_after_an_answer_cost_the_engine_its_connection_and_nobody_a_row(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    engine.reply = replying(GOOD + GOOD)
    for _ in range(3):
        assert survivor.execute(QUERY).fetchall() == [ROW]
    assert engine.connections == 3


def test_bytes_that_come_after_an_answer_was_read_are_no_answer_to_the_next_question(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    ended, sent = threading.Event(), threading.Event()

    def more_than_asked(scan: frames.Scan) -> Iterator[bytes]:
        yield from echo(scan)
        assert ended.wait(5)
        yield encode_answer([("x", "an answer that nobody asked for")], 2)
        sent.set()

    engine.reply = more_than_asked
    assert survivor.execute(QUERY).fetchall() == [ROW]
    engine.reply = echo
    ended.set()
    assert sent.wait(5)
    assert survivor.execute(QUERY).fetchall() == [ROW]
    assert (len(engine.scans), engine.connections) == (2, 2)


def test_a_frame_that_ends_no_answer_does_not_free_a_connection_that_is_left(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    engine.reply = replying(frames.encode_rows([ROW] * 2, 2) + frames.encode_welcome("again"))
    assert survivor.execute(f"{QUERY} LIMIT 1").fetchall() == [ROW]
    engine.reply = echo
    assert survivor.execute(QUERY).fetchall() == [ROW]
    assert engine.connections == 2


def test_a_value_that_the_columns_type_refuses_is_an_error(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    engine.reply = replying(encode_answer([("x", "many")], 2))
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        survivor.execute("SELECT request, rank FROM route_decisions WHERE request = 'x'")
    engine.reply = echo
    assert survivor.execute(QUERY).fetchall() == [ROW]


def test_frames_changed_at_random_never_hurt_the_backend(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    dice = random.Random(14)
    honest = encode_answer([("x", "gpt-4"), ("x", None), ("x", "ä" * 50)], 2)

    def changed(scan: frames.Scan) -> Iterator[bytes | None]:
        data = bytearray(honest if dice.random() < 0.7 else dice.randbytes(dice.randrange(200)))
        for _ in range(dice.randrange(1, 6)):
            if data:
                data[dice.randrange(len(data))] = dice.choice((0, 1, 4, 0x7F, 0x80, 0xFF))
        yield bytes(data[: dice.randrange(len(data) + 1)] if dice.random() < 0.3 else data)
        yield None

    engine.reply = changed
    outcomes = set()
    for _ in range(400):
        try:
            survivor.execute(QUERY).fetchall()
            outcomes.add("rows")
        except psycopg.Error as error:
            outcomes.add(str(error.sqlstate)[:2])
    assert {"08"} <= outcomes
    engine.reply = echo
    assert survivor.execute(QUERY).fetchall() == [ROW]


def test_statement_timeout_ends_a_wait_for_the_engine(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    engine.reply = silent
    survivor.execute("SET statement_timeout = '50ms'")
    began = time.monotonic()
    with pytest.raises(QueryCanceled):
        survivor.execute(QUERY)
    assert time.monotonic() - began < 1.5
    survivor.execute("RESET statement_timeout")
    engine.reply = echo
    assert survivor.execute(QUERY).fetchall() == [ROW]


def test_a_cancel_ends_a_wait_for_the_engine(survivor: Connection, engine: ScriptedEngine) -> None:
    engine.reply = silent
    cancel = threading.Timer(0.1, survivor.cancel_safe)
    cancel.start()
    began = time.monotonic()
    with pytest.raises(QueryCanceled):
        survivor.execute(QUERY)
    assert time.monotonic() - began < 1.5
    cancel.join()  # PostgreSQL signals a backend twice: the second must not end the next query
    engine.reply = echo
    assert survivor.execute(QUERY).fetchall() == [ROW]


def test_a_cancel_ends_an_answer_without_end(survivor: Connection, engine: ScriptedEngine) -> None:
    def endless(scan: frames.Scan) -> Iterator[bytes]:
        while True:
            yield frames.encode_rows([], 2) * 1000

    engine.reply = endless
    survivor.execute("SET statement_timeout = '100ms'")
    with pytest.raises(QueryCanceled):
        survivor.execute(QUERY)
    survivor.execute("RESET statement_timeout")


def test_an_engine_that_does_not_answer_in_time_is_an_error(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    engine.reply = silent
    with survivor.transaction(force_rollback=True):
        survivor.execute("ALTER FOREIGN TABLE route_decisions OPTIONS (ADD timeout '100')")
        with pytest.raises(ConnectionFailure, match="sent nothing for 100 ms"):
            survivor.execute(QUERY)


def test_a_long_request_goes_whole_and_comes_back_whole(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    rows = survivor.execute(
        "SELECT length(request) FROM route_decisions WHERE request = repeat('äb', 5000000)"
    )
    assert rows.fetchall() == [(10_000_000,)]


def test_inputs_beyond_the_largest_frame_are_refused(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="over the limit of 67108864"):
        survivor.execute("SELECT 1 FROM route_decisions WHERE request = repeat('x', 70000000)")
    assert engine.scans == []


def test_the_engines_refusal_is_read_though_it_closes_before_all_is_sent(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    # The engine answers the HELLO of a new connection by an error, and hangs up.
    engine.welcome = frames.encode_error("54000", "too many connections")
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="too many connections"):
        survivor.execute("SELECT 1 FROM route_decisions WHERE request = repeat('x', 20000000)")


def test_an_engine_too_busy_to_take_connections_is_an_error_in_time(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    path = engine.path.with_name("busy.sock")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as waiting:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(0)
        for _ in range(2):  # nobody accepts them: the queue is full
            client = waiting.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(str(path))
        with survivor.transaction(force_rollback=True):
            survivor.execute(
                f"ALTER SERVER engine OPTIONS (SET socket '{path}', ADD connect_timeout '100')"
            )
            with pytest.raises(SqlclientUnableToEstablishSqlconnection, match="timed out"):
                survivor.execute(QUERY)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_engine_on_a_port_of_this_machine_is_reached(
    survivor: Connection, engine: ScriptedEngine, host: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lambda: engine.serve(listener.accept()[0]), daemon=True).start()
        with survivor.transaction(force_rollback=True):
            survivor.execute(
                f"ALTER SERVER engine OPTIONS (DROP socket, ADD host '{host}', "
                f"ADD port '{listener.getsockname()[1]}')"
            )
            assert survivor.execute(QUERY).fetchall() == [ROW]
    assert len(engine.scans) == 1


def test_a_front_door_built_without_tls_says_so_where_it_is_asked_for(
    server: Any, door_database: str
) -> None:
    if server.embedded is None:
        pytest.skip("the libraries of this server are not ours to move")
    library = server.embedded.pkglibdir() / build.TLS_LIBRARY
    aside = library.with_suffix(".aside")
    if there := library.exists():
        library.rename(aside)
    try:
        with psycopg.connect(door_database, autocommit=True) as connection:
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="without TLS") as caught:
                connection.execute(
                    "ALTER SERVER engine OPTIONS (DROP socket, ADD host 'localhost', "
                    "ADD port '7432', ADD sslrootcert '/ca.pem')"
                )
            assert "libssl-dev" in str(caught.value.diag.message_hint)
    finally:
        if there:
            aside.rename(library)


def test_another_engine_is_reached_as_soon_as_the_server_names_it(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    assert survivor.execute(QUERY).fetchall() == [ROW]
    other = ScriptedEngine(engine.path.with_name("other.sock"))
    other.start()
    try:
        with survivor.transaction(force_rollback=True):
            survivor.execute(f"ALTER SERVER engine OPTIONS (SET socket '{other.path}')")
            assert survivor.execute(QUERY).fetchall() == [ROW]
            assert len(other.scans) == 1
        assert survivor.execute(QUERY).fetchall() == [ROW]
        assert len(other.scans) == 1
    finally:
        other.stop()


def test_many_backends_are_all_answered(door_database: str, engine: ScriptedEngine) -> None:
    failures: list[BaseException] = []

    def ask(number: int) -> None:
        try:
            with psycopg.connect(door_database, autocommit=True) as connection:
                for turn in range(5):
                    request = f"request {number}.{turn}"
                    rows = connection.execute(
                        "SELECT request FROM route_decisions WHERE request = %s", (request,)
                    )
                    assert rows.fetchall() == [(request,)]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(engine.scans) == 250


def test_an_open_cursor_survives_the_error_of_another_query(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    def in_two(scan: frames.Scan) -> Iterator[bytes]:
        rows = answer_rows(scan)
        for row in rows:
            yield frames.encode_rows([row], len(scan.columns))
        yield frames.encode_end(len(rows))

    engine.reply = in_two
    with survivor.transaction():
        survivor.execute(
            "DECLARE c CURSOR FOR SELECT rank FROM route_decisions "
            "WHERE request = 'x' AND top_k = 3"
        )
        assert survivor.execute("FETCH 1 FROM c").fetchall() == [(1,)]
        with pytest.raises(psycopg.errors.DivisionByZero), survivor.transaction():
            survivor.execute("SELECT 1 / (rank - 1) FROM route_decisions WHERE request = 'y'")
        assert survivor.execute("FETCH 2 FROM c").fetchall() == [(2,), (3,)]
