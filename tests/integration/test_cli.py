"""The command `tinydancer` as people and scripts use it: up, status, dsn, psql, down, errors."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tinydancer import __version__
from tinydancer.embedded.instance import open_instance

VERSION = os.environ.get("POSTGRES", "18")


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tinydancer", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )


def succeed(*arguments: str | Path, **environment: str) -> str:
    done = run(*arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def runs(pid: int) -> bool:
    """Whether a process is there, and more than an exit code that nobody has asked for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """A directory that `up` has made, with spaces in its path."""
    with tempfile.TemporaryDirectory(prefix="tiny dancer ") as place:
        Path(place).chmod(0o711)
        directory = Path(place) / "my data"
        try:
            succeed("up", "--data", directory, "--postgres", VERSION)
            yield directory
        finally:
            run("down", "--data", directory)


def test_up_prints_a_dsn_that_answers(data: Path) -> None:
    dsn = succeed("up", "--data", data).strip()
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT version FROM tinydancer.engine_status").fetchone()
    assert row is not None
    assert dsn == succeed("dsn", "--data", data).strip()


def test_up_again_changes_nothing(data: Path) -> None:
    before = json.loads(succeed("status", "--data", data, "--json"))
    succeed("up", "--data", data)
    after = json.loads(succeed("status", "--data", data, "--json"))
    assert after["server"]["pid"] == before["server"]["pid"]
    assert after["engine"]["pid"] == before["engine"]["pid"]


def test_up_starts_an_engine_that_was_killed(data: Path) -> None:
    before = json.loads(succeed("status", "--data", data, "--json"))
    os.kill(before["engine"]["pid"], signal.SIGKILL)
    while run("status", "--data", data).returncode == 0:
        time.sleep(0.05)
    succeed("up", "--data", data)
    after = json.loads(succeed("status", "--data", data, "--json"))
    assert after["running"] is True
    assert after["engine"]["pid"] != before["engine"]["pid"]
    assert after["server"]["pid"] == before["server"]["pid"]


def test_two_ups_at_once_make_one_server(data: Path) -> None:
    succeed("down", "--data", data)
    program = [sys.executable, "-m", "tinydancer", "up", "--data", str(data)]
    both = [
        subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]


def test_psql_shows_an_error_without_the_statements_it_came_through(data: Path) -> None:
    wrong = "SELECT * FROM ruvector_route('hi', optimize_for := 'cheap')"
    shown = run("psql", "--data", data, "--", "-Xc", wrong)
    assert shown.stderr.splitlines() == [
        "ERROR:  optimize_for is 'cheap', which is not known",
        "HINT:  Allowed are: cost, latency, quality, balanced, quality_per_dollar, total_cost.",
    ]


def test_psql_gets_the_arguments_after_the_dashes(data: Path) -> None:
    assert succeed("psql", "--data", data, "--", "-AtXc", "SELECT 6 * 7") == "42\n"


# What an engine says that speaks in frames of protocol 1 only.
ENGINE_OF_OLD = """
import os, socket, struct, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
listener.listen()
while True:
    with listener.accept()[0] as door:
        door.recv(4096)
        door.sendall(struct.pack(">2sBBI", b"TD", 1, 6, 0))
"""


def test_up_replaces_an_engine_whose_frames_are_of_another_version(data: Path) -> None:
    engine = open_instance(data).engine
    engine.stop()
    engine.socket.unlink(missing_ok=True)
    engine.daemon.start(
        [sys.executable, "-c", ENGINE_OF_OLD, str(engine.socket)],
        account=engine.account,
        environment=dict(os.environ),
    )
    engine.daemon.wait_until(engine.socket.exists, seconds=10)
    shown = json.loads(succeed("up", "--data", data, "--json"))
    assert shown["engine"]["version"] == __version__


@pytest.mark.parametrize(
    ("process", "send", "said"),
    [
        ("engine", os.killpg, "not answered"),  # its workers too
        ("server", os.kill, "timeout"),
    ],
)
def test_status_of_what_does_not_answer_says_so_within_seconds(
    data: Path, process: str, send: Callable[[int, int], None], said: str
) -> None:
    pid = json.loads(succeed("status", "--data", data, "--json"))[process]["pid"]
    send(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        shown = run("status", "--data", data, "--json")
        assert time.monotonic() - began < 15
    finally:
        send(pid, signal.SIGCONT)
    assert shown.returncode == 3
    assert said in json.loads(shown.stdout)["engine"]["error"]


def test_status_shows_what_runs(data: Path) -> None:
    shown = succeed("status", "--data", data)
    assert shown.count("running") == 2
    assert str(data.name) in shown


def test_the_engine_connects_as_its_own_role(data: Path) -> None:
    with psycopg.connect(succeed("dsn", "--data", data).strip()) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'tinydancer_engine'"
        assert connection.execute(query).fetchone() != (0,)
        query = "SELECT rolsuper FROM pg_roles WHERE rolname = 'tinydancer_engine'"
        assert connection.execute(query).fetchone() == (False,)


def test_ping_asks_the_engine_directly(data: Path) -> None:
    socket = json.loads(succeed("status", "--data", data, "--json"))["engine"]["socket"]
    answer = succeed("ping", "--socket", socket)
    assert re.fullmatch(rf"Engine {re.escape(__version__)}, up for \d+:\d\d:\d\d\.\n", answer)
    failed = run("ping", "--socket", socket + ".gone")
    assert failed.returncode == 1
    assert f"{socket}.gone" in failed.stderr


def test_a_change_of_embedder_embeds_what_is_stored(data: Path) -> None:
    insert = "INSERT INTO tinydancer.agents (name) VALUES ('one'), ('two') ON CONFLICT DO NOTHING"
    succeed("psql", "--data", data, "--", "-c", insert)
    told = succeed("reembed", "--data", data, "--embedder", "static")
    assert told.startswith("Embedded 2 texts. The embedder is now static-")
    embedded = "SELECT count(*) FROM tinydancer.agents WHERE embedding_source IS NOT NULL"
    assert succeed("psql", "--data", data, "--", "-AtXc", embedded) == "2\n"


def test_an_embedder_without_what_it_needs_is_refused_and_nothing_changes(data: Path) -> None:
    failed = run("reembed", "--data", data, "--embedder", "openai", "--model", "m")
    assert failed.returncode == 1
    assert "needs a url" in failed.stderr
    query = "SELECT embedder FROM tinydancer.settings"
    assert succeed("psql", "--data", data, "--", "-AtXc", query) == "static\n"


def test_status_says_where_to_read_why_the_engine_ended(data: Path) -> None:
    engine = json.loads(succeed("status", "--data", data, "--json"))["engine"]
    os.kill(engine["pid"], signal.SIGKILL)
    ended = run("status", "--data", data, "--json")
    assert ended.returncode == 3
    found = json.loads(ended.stdout)["engine"]
    assert found == {"running": False, "log": str(data / "engine.log"), "socket": engine["socket"]}
    succeed("up", "--data", data)


def test_an_engine_that_can_t_start_leaves_the_server_in_which_to_mend_it(data: Path) -> None:
    # given an embedder that this machine has not
    gone = "SET embedder = 'sentence-transformers', embedder_model = '/nowhere/model'"
    succeed("psql", "--data", data, "--", "-c", f"UPDATE tinydancer.settings {gone}")
    succeed("down", "--data", data)
    # when both are to be started
    failed = run("up", "--data", data)
    # then the error says why, and where another embedder can be chosen
    assert failed.returncode == 1
    assert "the engine ends as it starts" in failed.stderr
    assert "PostgreSQL runs, so that psql and reembed can mend" in failed.stderr
    succeed("reembed", "--data", data, "--embedder", "static")
    succeed("up", "--data", data)
    status = json.loads(succeed("status", "--data", data, "--json"))
    assert status["engine"]["embedder"].startswith("static-")


def test_up_after_one_that_failed_finds_the_engine_that_ran_all_the_time(data: Path) -> None:
    # given an engine whose server was killed and can't start
    before = json.loads(succeed("status", "--data", data, "--json"))
    os.kill(before["server"]["pid"], signal.SIGKILL)
    configuration = data / "cluster/postgresql.conf"
    sound = configuration.read_text()
    configuration.write_text(sound + "no_such_setting = 1\n")
    failed = run("up", "--data", data)
    assert failed.returncode == 1
    assert "no_such_setting" in failed.stderr
    shown = json.loads(run("status", "--data", data, "--json").stdout)
    assert (shown["server"]["running"], shown["engine"]["running"]) == (False, True)
    # when what was wrong is mended
    configuration.write_text(sound)
    succeed("up", "--data", data)
    # then the same engine answers
    after = json.loads(succeed("status", "--data", data, "--json"))
    assert after["engine"]["pid"] == before["engine"]["pid"]


def test_up_replaces_an_engine_whose_socket_is_gone(data: Path) -> None:
    before = json.loads(succeed("status", "--data", data, "--json"))["engine"]
    Path(before["socket"]).unlink()
    shown = run("status", "--data", data, "--json")
    assert shown.returncode == 3
    assert "could not connect" in json.loads(shown.stdout)["engine"]["error"]
    succeed("up", "--data", data)
    after = json.loads(succeed("status", "--data", data, "--json"))["engine"]
    assert after["pid"] != before["pid"]
    assert not runs(before["pid"])


def test_an_engine_is_seen_and_stopped_where_the_directory_of_its_socket_is_gone(
    data: Path,
) -> None:
    # given an engine, and nothing else of what it ran beside
    before = json.loads(succeed("status", "--data", data, "--json"))
    os.kill(before["server"]["pid"], signal.SIGKILL)
    link = data / "run"
    shutil.rmtree(link.readlink())
    link.unlink()
    # when it is asked for, and stopped
    shown = json.loads(run("status", "--data", data, "--json").stdout)
    assert shown["engine"]["pid"] == before["engine"]["pid"]
    assert succeed("down", "--data", data) == "Stopped.\n"
    # then it is gone
    assert not runs(before["engine"]["pid"])
    succeed("up", "--data", data)


def test_down_stops_both_and_the_data_stays(data: Path) -> None:
    succeed("psql", "--data", data, "--", "-c", "CREATE TABLE IF NOT EXISTS public.kept (n int)")
    pids = json.loads(succeed("status", "--data", data, "--json"))
    assert succeed("down", "--data", data) == "Stopped.\n"
    assert not any(runs(pids[part]["pid"]) for part in ("server", "engine"))
    stopped = run("status", "--data", data)
    assert stopped.returncode == 3
    assert "stopped" in stopped.stdout
    assert f"tinydancer up --data {shlex.quote(str(data))}\n" in stopped.stderr
    assert succeed("down", "--data", data) == "Nothing was running.\n"
    refused = run("psql", "--data", data)
    assert refused.returncode == 1
    assert f"tinydancer up --data {shlex.quote(str(data))}\n" in refused.stderr
    succeed("up", "--data", data)
    assert "kept" in succeed("psql", "--data", data, "--", "-AtXc", r"\dt public.*")


def test_another_version_than_the_datas_is_refused(data: Path) -> None:
    other = "16" if VERSION == "18" else "18"
    refused = run("up", "--data", data, "--postgres", other)
    assert refused.returncode == 1
    assert f"has data of PostgreSQL {VERSION}, not {other}" in refused.stderr


def test_an_error_is_a_message_and_a_hint_without_a_traceback(tmp_path: Path) -> None:
    failed = run("status", "--data", tmp_path / "nothing")
    assert failed.returncode == 1
    assert "Error: there is no data in" in failed.stderr
    assert "Hint: Make it and start it: tinydancer up --data" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "nothing").exists()


def test_a_database_that_does_not_answer_is_an_error_with_its_reason() -> None:
    failed = run("install", "--dsn", "postgresql://nobody@localhost:1/nothing")
    assert failed.returncode == 1
    assert "port 1 failed" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("up", "--postgres", "12"), "'12' is not one of '16', '18'"),
        (("install",), "Missing option '--dsn'"),
        (("serve", "--dsn", "x"), "give --socket or --listen"),
        (("serve", "--dsn", "x", "--socket", "a", "--listen", "b:1"), "--socket or --listen"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...], complaint: str) -> None:
    failed = run(*arguments)
    assert failed.returncode == 2
    assert complaint in failed.stderr


def test_help_names_every_command() -> None:
    shown = succeed("--help")
    from tinydancer.cli import COMMANDS

    for command in COMMANDS:
        assert f"\n  {command} " in shown
        assert succeed(command, "--help").startswith("Usage: tinydancer")


def test_the_default_directory_does_not_need_home() -> None:
    program = (
        "from tinydancer.embedded.directories import default_directory; print(default_directory())"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": os.environ["PATH"], "HOME": ""},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert Path(shown).is_absolute()
    assert len(Path(shown).parts) > 3


def test_the_default_classifiers_figures_are_printed() -> None:
    figures = json.loads(succeed("eval", "requests", "--json"))
    assert {"dataset", "setting", "tier", "head", "metric", "value"} == set(figures[0])
    assert "static" in {figure["tier"] for figure in figures}


def test_an_evaluation_of_intents_says_what_its_data_lacks(tmp_path: Path) -> None:
    assert "there is no data set under" in run("eval", "intents", "--data", tmp_path).stderr


def test_an_evaluation_prints_its_figures_as_a_table_or_as_json(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "scores.jsonl.gz", "wt") as file:
        for number in range(60):
            easy = number % 2
            scores = {"small": float(easy), "large": 1.0}
            file.write(json.dumps({"prompt": f"question {number}", "scores": scores}) + "\n")
    figures = json.loads(succeed("eval", "routing", "--data", tmp_path, "--json"))
    assert {"random", "oracle"} <= {figure["router"] for figure in figures}
    assert {"table", "router", "metric", "value"} == set(figures[0])
    shown = succeed("eval", "routing", "--data", tmp_path)
    assert "prompt length" in shown
    assert "APGR" in shown


def test_intents_are_evaluated_by_a_command(tmp_path: Path) -> None:
    words = {"refund": "money back order", "weather": "rain sun forecast"}
    for part, count in (("train", 12), ("test", 4)):
        (tmp_path / "tiny").mkdir(exist_ok=True)
        with gzip.open(tmp_path / f"tiny/{part}.jsonl.gz", "wt") as file:
            for label, text in words.items():
                for number in range(count):
                    row = {"text": f"{text} {number}", "label": label}
                    file.write(json.dumps(row) + "\n")
    figures = json.loads(succeed("eval", "intents", "--data", tmp_path, "--json"))
    assert {"dataset", "metric", "value"} <= set(figures[0])
    missing = run("eval", "intents", "--data", tmp_path / "tiny")
    assert missing.returncode == 1
    assert "there is no data set" in missing.stderr
