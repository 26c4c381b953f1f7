from datetime import datetime, time, timezone

import pytest

from tinydancer.errors import NotReady
from tinydancer.semantic_routes.conditions import Conditions


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 7, 1, hour, minute, tzinfo=timezone.utc)


def test_a_window_includes_its_start_and_excludes_its_end() -> None:
    window = Conditions(time_from=time(9), time_to=time(17))
    assert window.permit(None, at(9))
    assert window.permit(None, at(16, 59))
    assert not window.permit(None, at(17))
    assert not window.permit(None, at(8, 59))


def test_a_window_over_midnight_is_open_in_the_night() -> None:
    window = Conditions(time_from=time(22), time_to=time(6))
    assert window.permit(None, at(23))
    assert window.permit(None, at(0))
    assert not window.permit(None, at(6))
    assert not window.permit(None, at(12))


def test_a_window_is_read_on_the_clocks_of_its_time_zone() -> None:
    window = Conditions(time_from=time(9), time_to=time(17), time_zone="America/New_York")
    assert not window.permit(None, at(12))  # 08:00 there, in summer
    assert window.permit(None, at(13))
    assert window.permit(None, at(20, 59))
    assert not window.permit(None, at(21))


def test_a_missing_end_is_midnight_and_equal_ends_are_the_whole_day() -> None:
    assert Conditions(time_from=time(18)).permit(None, at(23, 59))
    assert not Conditions(time_from=time(18)).permit(None, at(0))
    assert Conditions(time_to=time(6)).permit(None, at(0))
    assert not Conditions(time_to=time(6)).permit(None, at(6))
    assert Conditions(time_from=time(8), time_to=time(8)).permit(None, at(3))


def test_a_route_kept_for_tiers_is_for_them_only() -> None:
    gold = Conditions(user_tiers=("gold", "platinum"))
    assert gold.permit("platinum", at(1))
    assert not gold.permit("free", at(1))
    assert not gold.permit(None, at(1))


def test_a_time_zone_is_known_whatever_its_capitals_as_in_postgresql() -> None:
    window = Conditions(time_from=time(9), time_to=time(17), time_zone="America/NEW_york")
    assert window.permit(None, at(15))
    assert not window.permit(None, at(10))


def test_an_unknown_time_zone_is_named() -> None:
    with pytest.raises(NotReady, match="'Mars/Olympus'"):
        Conditions(time_from=time(9), time_zone="Mars/Olympus").permit(None, at(1))
