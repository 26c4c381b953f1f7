"""Whether a scan comes from the database that an engine serves, as far as the two can tell."""

from __future__ import annotations

import pytest

from tinydancer.store.served import Served
from tinydancer_fdw.frames import Place

OURS = Served("app", database="16384", server="7001", started="55")
SECRETIVE = Served("app", database="16384")


@pytest.mark.parametrize(
    ("place", "answered"),
    [
        (Place("7001", "55", "9", "16384"), True),
        # a standby
        (Place("7001", "", "", "16384"), True),
        # a copy on the same server, or on a copy of it; a database of another server
        (Place("7001", "55", "9", "16385"), False),
        (Place("7001", "77", "9", "16384"), False),
        (Place("7002", "55", "9", "16384"), False),
        (Place("7002", "55", "9", "16385"), False),
        # a door that can't tell, or is of an older version: by what it tells
        (Place(), True),
        (Place("7001", "77", "9"), True),
        (Place("7002", "55", "9"), False),
        (Place(database="16385"), False),
        # on purpose
        (Place("7002", "55", "9", "16385", "app"), True),
        (Place("7001", "55", "9", "16384", "shared"), False),
    ],
)
def test_an_engine_answers_for_its_own_database(place: Place, answered: bool) -> None:
    assert OURS.answers(place) == answered


def test_where_the_identifier_is_kept_from_an_engine_the_oid_tells() -> None:
    assert SECRETIVE.answers(Place("7001", "55", "9", "16384"))
    assert not SECRETIVE.answers(Place("7001", "55", "9", "16385"))
    assert SECRETIVE.commits == ""


def test_an_engine_at_a_standby_answers_for_it_and_its_primary() -> None:
    standby = Served("app", database="16384", server="7001")
    assert standby.answers(Place("7001", "", "", "16384"))
    assert standby.answers(Place("7001", "55", "9", "16384"))
    assert not standby.answers(Place("7002", "55", "9", "16384"))
    assert standby.commits == ""


def test_commits_of_its_own_server_begin_as_a_front_door_says_them() -> None:
    assert Place("7001", "55", "9", "16384").commits.startswith(OURS.commits)
    assert not Place("7001", "5", "59", "16384").commits.startswith(OURS.commits)
