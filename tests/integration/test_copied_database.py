"""A copied database brings its foreign servers along: the original's engine does not answer it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import conninfo, sql
from tests.conftest import Installation, Server, install, running_installation, sqlstate

from tinydancer.cli import tinydancer
from tinydancer.store.served import Served, read_served
from tinydancer_fdw.client import Address, Client, EngineError
from tinydancer_fdw.frames import EQUALS, Input, Place, Scan

ASK = "SELECT agent_name FROM route_decisions WHERE request = 'a request'"


@pytest.fixture(scope="module")
def original(
    server: Server, front_door: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """A database with an agent of its own, and its engine."""
    with running_installation(server, front_door, tmp_path_factory.mktemp("engine")) as there:
        with there.connect() as connection:
            connection.execute("SELECT ruvector_register_agent('of the original')")
        yield there


@pytest.fixture
def copied(original: Installation, tmp_path: Path) -> Iterator[Installation]:
    """A copy of it, with another agent; its engine is not started, and nothing leads to it."""
    server = original.server
    name = f"{original.database}_copy"
    copy(server, original.database, name)
    there = Installation(server, name, original.front_door, server.engine(name, tmp_path))
    try:
        with there.connect() as connection:
            connection.execute("UPDATE agents SET name = 'of the copy'")
        yield there
    finally:
        there.engine.stop()
        on_server(server, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


def on_server(server: Server, statement: str, *names: str) -> None:
    with psycopg.connect(server.superuser_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def keep_all_out(server: Server, name: str) -> None:
    """End all connections to a database, also those that an engine makes anew."""
    on_server(server, "ALTER DATABASE {} ALLOW_CONNECTIONS false", name)
    with psycopg.connect(server.superuser_dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
            (name,),
        )


def let_in(server: Server, name: str) -> None:
    on_server(server, "ALTER DATABASE {} ALLOW_CONNECTIONS true", name)


def copy(server: Server, name: str, new: str) -> None:
    """Copy a database as it is, whoever uses it."""
    keep_all_out(server, name)
    on_server(server, "CREATE DATABASE {} TEMPLATE {}", new, name)
    for each in (name, new):
        let_in(server, each)


def answer(there: Installation) -> str:
    with there.connect() as connection:
        [(name,)] = connection.execute(ASK).fetchall()
    return str(name)


def refusal(there: Installation, query: str = ASK) -> psycopg.Error:
    with there.connect() as connection, pytest.raises(psycopg.Error) as caught:
        connection.execute(query)
    assert sqlstate(caught.value) == "3D000"
    return caught.value


def set_database(there: Installation, action: str) -> None:
    foreign_server = sql.Identifier(f"tinydancer_{there.front_door}")
    with there.connect() as connection:
        connection.execute(
            sql.SQL("ALTER SERVER {} OPTIONS ({})").format(foreign_server, sql.SQL(action))
        )


def test_a_copy_is_refused_with_both_names_and_what_to_do(
    original: Installation, copied: Installation
) -> None:
    # When the copy asks the engine that its foreign server still leads to
    error = refusal(copied)
    # Then it hears which database that engine serves, which one asks, and what to do
    message = f'the engine serves database "{original.database}", not "{copied.database}"'
    assert error.diag.message_primary == message
    hint = error.diag.message_hint or ""
    assert "tinydancer serve" in hint and "tinydancer install" in hint
    assert f"OPTIONS (ADD database '{original.database}')" in hint
    # And the original is answered as before
    assert answer(original) == "of the original"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM ruvector_route('a request')",
        "SELECT decision_id FROM route_decisions WHERE request = 'a request'",
        "SELECT ruvector_batch_route(ARRAY['a request'])",
        "SELECT ruvector_classify_request(name) FROM agents",
        "SELECT * FROM engine_status",
    ],
)
def test_no_question_of_a_copy_is_answered_and_no_decision_kept(
    original: Installation, copied: Installation, query: str
) -> None:
    refusal(copied, query)
    with original.connect() as connection:
        assert connection.execute("SELECT count(*) FROM decisions").fetchone() == (0,)


def test_a_copy_with_an_engine_of_its_own_is_answered_by_it(
    original: Installation, copied: Installation
) -> None:
    # Given a copy whose installation is told of its own engine
    install(copied.dsn, copied.front_door, copied.engine)
    copied.start_engine()
    # Then each database of the server is answered by its own agents
    assert answer(copied) == "of the copy"
    assert answer(original) == "of the original"


def test_a_database_shares_the_engine_of_another_on_purpose(
    original: Installation, copied: Installation
) -> None:
    # Given a copy that has been asked, and then says whose engine it means
    refusal(copied)
    set_database(copied, f"ADD database '{original.database}'")
    assert answer(copied) == "of the original"
    # When it names one that this engine does not serve, or none any more, it is refused again
    set_database(copied, "SET database 'another/one'")
    error = refusal(copied)
    message = f'the engine serves database "{original.database}", not "another/one"'
    assert error.diag.message_primary == message
    assert "option" in (error.diag.message_hint or "")
    set_database(copied, "DROP database")
    refusal(copied)


def test_install_says_that_an_engine_is_shared(
    original: Installation, copied: Installation
) -> None:
    arguments = ["install", "--dsn", copied.dsn, "--socket", str(original.engine.socket),
                 "--front-door", copied.front_door]  # fmt: skip
    done = CliRunner().invoke(tinydancer, [*arguments, "--engine-database", original.database])
    assert done.exit_code == 0, done.output
    assert answer(copied) == "of the original"
    # Without it, the database is to have an engine of its own again
    assert CliRunner().invoke(tinydancer, arguments).exit_code == 0
    refusal(copied)


def test_a_database_that_is_made_anew_while_its_engine_runs_is_answered(
    original: Installation, copied: Installation
) -> None:
    server, pid = original.server, original.engine.daemon.pid()
    assert answer(original) == "of the original"
    # When the database is dropped and made anew, from a copy
    keep_all_out(server, original.database)
    on_server(server, "DROP DATABASE {}", original.database)
    copy(server, copied.database, original.database)
    # Then its engine answers from what it has now
    assert answer(original) == "of the copy"
    assert original.engine.daemon.pid() == pid
    refusal(copied)
    with original.connect() as connection:
        connection.execute("UPDATE agents SET name = 'of the original'")


def test_a_copy_that_takes_the_place_of_the_original_is_answered_in_its_stead(
    original: Installation, copied: Installation
) -> None:
    server, pid = original.server, original.engine.daemon.pid()
    assert answer(original) == "of the original"
    before = f"{original.database}_before"
    # When the two change names while the engine runs
    for name in (original.database, copied.database):
        keep_all_out(server, name)
    on_server(server, "ALTER DATABASE {} RENAME TO {}", original.database, before)
    on_server(server, "ALTER DATABASE {} RENAME TO {}", copied.database, original.database)
    on_server(server, "ALTER DATABASE {} RENAME TO {}", before, copied.database)
    for name in (original.database, copied.database):
        let_in(server, name)
    # Then the engine goes by the name that it was started with
    assert answer(original) == "of the copy"
    assert original.engine.daemon.pid() == pid
    refusal(copied)
    with original.connect() as connection:
        connection.execute("UPDATE agents SET name = 'of the original'")


def test_an_engine_that_was_started_before_its_database_was_there_knows_it(
    original: Installation, copied: Installation
) -> None:
    server = original.server
    there = conninfo.conninfo_to_dict(original.engine.dsn)["host"]
    if not str(there).startswith("/"):
        pytest.skip("this server is reached by TCP: it can't come to be at another place")
    original.engine.stop()
    # Given an engine of a server that is not there yet
    place = server.sockets / "later"
    late = replace(original.engine, dsn=conninfo.make_conninfo(original.engine.dsn, host=place))
    late.start()
    try:
        server.open_to_backends(late.socket)
        with copied.connect() as connection, pytest.raises(psycopg.Error) as caught:
            connection.execute(ASK)
        assert sqlstate(caught.value) == "08006"
        # When the server comes, it tells the two apart
        place.symlink_to(str(there))
        refusal(copied)
        assert answer(original) == "of the original"
    finally:
        late.stop()
        place.unlink(missing_ok=True)
        original.start_engine()


def test_a_database_of_another_server_is_refused_and_one_that_can_not_tell_is_answered(
    original: Installation,
) -> None:
    client = Client(Address(socket=str(original.engine.socket)), "test")
    with original.connect() as connection:
        here = read_served(connection)

    def ask(place: Place) -> list[tuple[str | None, ...]]:
        inputs = (Input("request", EQUALS, "a request"),)
        scan = Scan("route_decisions", ("agent_name",), inputs, place=str(place))
        return list(client.scan(scan))

    answered = [("of the original",)]
    assert ask(Place()) == answered
    assert ask(Place(here.server, here.started, "1", here.database)) == answered
    # a standby
    assert ask(Place(here.server, "", "", here.database)) == answered
    with pytest.raises(EngineError, match=r"not the one of another server \(identifier 42\)"):
        ask(Place("42", here.started, "1", here.database))
    with pytest.raises(EngineError, match="not the one of a copy of its server that asks"):
        ask(Place(here.server, "1", "1", here.database))
    with pytest.raises(EngineError, match="not the one with OID 4000000000, which asks"):
        ask(Place(here.server, here.started, "1", "4000000000"))
    client.close()


def test_an_engine_that_may_not_know_the_server_knows_the_database(new_schema_dsn: str) -> None:
    with psycopg.connect(new_schema_dsn, autocommit=True) as connection:
        whole = read_served(connection)
        connection.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
        connection.execute("SET ROLE tinydancer_engine")
        assert read_served(connection) == Served(whole.name, whole.database)
