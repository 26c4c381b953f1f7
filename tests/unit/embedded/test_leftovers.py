"""What killed servers left is swept; whatever may be in use stays."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinydancer.embedded.leftovers import HELD, OWNER, sweep

HOUR = 3600.0


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Where directories of sockets are; short, for the paths of sockets are."""
    base = tmp_path / "run"
    base.mkdir()
    return base


def runtime_of(base: Path, data: Path | None, *, age: float = HOUR, name: str = "td-1") -> Path:
    runtime = base / name
    for part in ("postgres", "engine"):
        (runtime / part).mkdir(parents=True)
    if data is not None:
        (runtime / OWNER).write_bytes(os.fsencode(data))
    aged(runtime, age)
    return runtime


def aged(runtime: Path, age: float) -> None:
    then = time.time() - age
    for path in (runtime / "postgres", runtime / "engine", runtime):
        os.utime(path, (then, then))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory that is not in use."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "lock").touch()
    return data


def test_sockets_of_a_data_directory_that_is_gone_are_removed(base: Path, tmp_path: Path) -> None:
    runtime = runtime_of(base, tmp_path / "gone")
    assert sweep([base]) == [runtime]
    assert list(base.iterdir()) == []


def test_sockets_go_where_the_place_of_the_data_is_gone_too(base: Path, tmp_path: Path) -> None:
    runtime = runtime_of(base, tmp_path / "gone" / "data")
    assert sweep([base]) == [runtime]


def test_sockets_that_a_data_directory_leads_to_stay(base: Path, data: Path) -> None:
    runtime = runtime_of(base, data)
    (data / "run").symlink_to(runtime)
    assert sweep([base]) == []
    (data / "run").unlink()
    (data / "run").symlink_to(base / "td-another")
    assert sweep([base]) == [runtime]


def test_what_somebody_brings_up_right_now_stays(base: Path, data: Path) -> None:
    runtime = runtime_of(base, data)
    with (data / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert sweep([base]) == []
    aged(runtime, 1.0)
    assert sweep([base]) == []
    aged(runtime, HOUR)
    assert sweep([base]) == [runtime]


def test_where_something_answers_all_stays(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = runtime_of(base, tmp_path / "gone")
    monkeypatch.chdir(runtime / "engine")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("engine.sock")
        server.listen()
        aged(runtime, HOUR)
        monkeypatch.chdir(tmp_path)
        assert sweep([Path("run")]) == []
    assert sweep([Path("run")]) == [Path("run/td-1")]


def test_what_others_can_write_to_or_a_link_stays(base: Path, tmp_path: Path) -> None:
    runtime = runtime_of(base, tmp_path / "gone")
    runtime.chmod(0o777)
    (base / "td-2").symlink_to(tmp_path)
    assert sweep([base]) == []


def test_one_that_names_no_owner_stays_for_an_hour(base: Path) -> None:
    runtime = runtime_of(base, None, age=HOUR / 2)
    assert sweep([base]) == []
    aged(runtime, 2 * HOUR)
    assert sweep([base]) == [runtime]


@pytest.fixture
def throwaway(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A place that a living process holds."""
    place = tmp_path / "tinydancer-x"
    place.mkdir()
    program = (
        "import sys, time; from pathlib import Path\n"
        "from tinydancer.embedded.leftovers import holding\n"
        "with holding(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program, place], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    with owner, owner.stdout:
        assert owner.stdout.readline() == "held\n"
        yield place, owner
        owner.kill()


def test_a_throwaway_servers_data_goes_when_its_owner_was_killed(
    base: Path, throwaway: tuple[Path, subprocess.Popen[str]]
) -> None:
    place, owner = throwaway
    data = place / "data"
    data.mkdir()
    runtime = runtime_of(base, data)
    (data / "run").symlink_to(runtime)
    assert sweep([base]) == []
    owner.kill()
    owner.wait()
    assert sweep([base]) == [place, runtime]
    assert not place.exists()


def test_the_place_of_data_that_nobody_threw_away_is_never_removed(base: Path, data: Path) -> None:
    assert not (data.parent / HELD).exists()
    runtime_of(base, data)
    sweep([base])
    assert data.exists()
