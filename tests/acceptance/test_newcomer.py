"""What a newcomer is promised: `make demo` shows decisions and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinydancer.embedded import leftovers
from tinydancer.embedded.server import sweep_leftovers

DEMO = [sys.executable, "-m", "tinydancer", "demo"]


@pytest.fixture
def place() -> Iterator[Path]:
    """Where a demonstration may write, with a space in its path."""
    with tempfile.TemporaryDirectory(prefix="new comer ") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def start_demo(place: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        DEMO,
        env={**os.environ, "TMPDIR": str(place), "HOME": "", "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell has what runs in its background ignore an interrupt, and that is handed down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def processes_of(place: Path) -> list[str]:
    """Command lines of what was started in a directory, as they or their environment name it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if os.fsencode(place) in command + environment:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def assert_nothing_is_left(place: Path) -> None:
    assert processes_of(place) == []
    assert list(place.iterdir()) == []


def test_the_demo_shows_decisions_and_leaves_nothing_behind(place: Path) -> None:
    with start_demo(place) as demo:
        output = demo.communicate(timeout=120)[0]
    assert demo.returncode == 0, output
    for seen in ("ruvector_route", "agent_name", "estimated_cost", "claude-3-haiku", "EXPLAIN",
                 "customer_support", "tickets"):  # fmt: skip
        assert seen in output
    assert "Error" not in output
    assert max(map(len, output.splitlines())) <= 80
    assert_nothing_is_left(place)


def test_two_demos_run_at_once(place: Path) -> None:
    both = [start_demo(place) for _ in range(2)]
    outputs = [demo.communicate(timeout=120)[0] for demo in both]
    assert [demo.returncode for demo in both] == [0, 0], outputs
    assert_nothing_is_left(place)


@pytest.mark.parametrize(
    ("number", "when"),
    [(signal.SIGINT, "early"), (signal.SIGINT, "late"), (signal.SIGTERM, "late")],
)
def test_an_interrupted_demo_leaves_nothing_running(
    place: Path, number: signal.Signals, when: str
) -> None:
    with start_demo(place) as demo:
        if when == "late":
            assert demo.stdout is not None
            next(line for line in demo.stdout if "agent_name" in line)
        else:
            while not any("/bin/postgres -D" in command for command in processes_of(place)):
                time.sleep(0.01)
        demo.send_signal(number)
        demo.communicate(timeout=30)
    assert demo.returncode != 0
    assert_nothing_is_left(place)


def test_a_demo_that_is_killed_takes_its_processes_with_it_and_the_next_its_files(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_demo(place) as demo:
        assert demo.stdout is not None
        next(line for line in demo.stdout if "agent_name" in line)
        (link,) = place.glob("tinydancer-*/data/run")
        runtime = link.readlink()
        sweep_leftovers()
        assert runtime.exists()
        demo.kill()
    deadline = time.monotonic() + 10
    while processes_of(place) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(place) == []
    monkeypatch.setattr(leftovers, "_YOUNG_SECONDS", 0.0)
    sweep_leftovers()
    assert_nothing_is_left(place)
    assert not runtime.exists()
