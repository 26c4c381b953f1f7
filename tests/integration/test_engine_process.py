"""Server and engine as two processes: one may die, and service goes on when it is back."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from ..conftest import Installation

QUESTION = "SELECT agent_name FROM route_decisions WHERE request = 'Say hello'"


def register(db: psycopg.Connection, name: str) -> None:
    db.execute("INSERT INTO agents (name) VALUES (%s)", [name])


def test_an_agent_inserted_by_sql_is_chosen_at_once(db: psycopg.Connection) -> None:
    register(db, "first")
    assert db.execute(QUESTION).fetchall() == [("first",)]


def test_each_test_begins_with_no_agents(db: psycopg.Connection) -> None:
    assert db.execute("SELECT count(*) FROM agents").fetchone() == (0,)
    assert db.execute(QUESTION).fetchall() == [(None,)]


def test_the_engine_tells_the_front_door_it_is_asked_through(
    db: psycopg.Connection, front_door: str
) -> None:
    assert db.execute("SELECT front_door FROM engine_status").fetchone() == (front_door,)


def test_a_killed_engine_is_an_error_and_a_new_one_serves_the_same_connection(
    db: psycopg.Connection, installation: Installation
) -> None:
    register(db, "survivor")
    assert db.execute(QUESTION).fetchall() == [("survivor",)]
    pid = installation.engine.daemon.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert installation.engine.daemon.ends_within(5)
    began = time.monotonic()
    with pytest.raises(psycopg.Error) as caught:
        db.execute(QUESTION)
    assert time.monotonic() - began < 5
    assert str(installation.engine.socket) in str(caught.value)
    assert "tinydancer up" in (caught.value.diag.message_hint or "")
    installation.start_engine()
    assert db.execute(QUESTION).fetchall() == [("survivor",)]


def test_an_engine_that_is_told_to_stop_does_so_within_two_seconds(
    installation: Installation,
) -> None:
    began = time.monotonic()
    installation.engine.daemon.stop([(signal.SIGTERM, 2.0)])
    assert time.monotonic() - began < 2
    installation.start_engine()


def test_a_killed_backend_takes_neither_server_nor_engine_with_it(
    db: psycopg.Connection, installation: Installation
) -> None:
    register(db, "still there")
    with installation.connect() as other:
        other.execute(QUESTION)
        backend = other.info.backend_pid
        db.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
        with pytest.raises(psycopg.OperationalError):
            other.execute(QUESTION)
    assert db.execute(QUESTION).fetchall() == [("still there",)]
