"""Where an engine listens: who can reach the socket, and that it is the only engine there."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tinydancer.errors import AlreadyExists, InvalidInput, NotFound, NotReady
from tinydancer.server.listener import listen
from tinydancer.settings import TLS, EngineSettings, parse_listen, read_token
from tinydancer_fdw.client import Unreachable
from tinydancer_fdw.frames import Scan

from .conftest import echo, running

SCAN = Scan("engine_status", ("version",), ())


def settings_of(path: Path) -> EngineSettings:
    return EngineSettings(dsn="", socket=path)


def test_the_socket_is_open_to_its_owner_and_group_only(path: Path) -> None:
    listener = listen(settings_of(path))
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    finally:
        listener.close()
    assert not path.exists()


def test_a_missing_directory_is_made_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "run" / "engine.sock"
    listen(settings_of(path)).close()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


def test_a_directory_that_anybody_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(InvalidInput, match="anybody may write") as caught:
        listen(settings_of(tmp_path / "engine.sock"))
    assert f"chmod o-w {tmp_path}" in caught.value.hint


def test_a_second_engine_on_one_socket_is_refused_and_the_first_goes_on(path: Path) -> None:
    with running(settings_of(path), echo) as first:
        with pytest.raises(AlreadyExists, match=f"pid {os.getpid()}"):
            listen(settings_of(path))
        assert list(first.client().scan(SCAN)) == [("version",)]


def test_the_socket_of_a_killed_engine_is_replaced(path: Path) -> None:
    dead = (
        "import os, sys; from pathlib import Path\n"
        "from tinydancer.server.listener import listen\n"
        "from tinydancer.settings import EngineSettings\n"
        "listen(EngineSettings(dsn='', socket=Path(sys.argv[1])))\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", dead, str(path)], check=False)
    assert path.is_socket()
    with running(settings_of(path), echo) as server:
        assert list(server.client().scan(SCAN)) == [("version",)]


def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("somebody's")
    with pytest.raises(AlreadyExists, match="is no socket"):
        listen(settings_of(path))
    assert path.read_text() == "somebody's"


def test_the_socket_of_another_engine_that_took_the_path_is_not_removed(path: Path) -> None:
    listener = listen(settings_of(path))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        listener.close()
        assert path.is_socket()


def test_a_path_too_long_for_a_socket_is_refused_with_the_limit(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="103 bytes"):
        listen(settings_of(tmp_path / ("x" * 100)))


def test_an_unknown_group_is_refused_by_name(path: Path) -> None:
    with pytest.raises(NotFound, match="no-such-group"):
        listen(replace(settings_of(path), group="no-such-group"))


def test_tcp_without_a_token_is_refused() -> None:
    with pytest.raises(InvalidInput, match="needs a token"):
        listen(EngineSettings(dsn="", listen=("127.0.0.1", 0)))


def test_tcp_that_other_machines_reach_is_refused_without_tls() -> None:
    with pytest.raises(InvalidInput, match="needs TLS"):
        listen(EngineSettings(dsn="", listen=("0.0.0.0", 0), token="t"))  # noqa: S104


def test_a_certificate_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    tls = TLS(tmp_path / "no.pem", tmp_path / "no.key")
    with pytest.raises(NotReady, match=r"no\.pem"):
        listen(EngineSettings(dsn="", listen=("127.0.0.1", 0), token="t", tls=tls))


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def test_a_scan_by_tcp_on_loopback_needs_the_token() -> None:
    settings = EngineSettings(dsn="", listen=("127.0.0.1", 0), token="secret")
    with running(settings, echo, host="127.0.0.1", token="secret") as server:
        server.address = replace(server.address, port=port_of(server.server.address))
        assert list(server.client().scan(SCAN)) == [("version",)]


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TLS:
    """A certificate for localhost, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    made = TLS(folder / "server.pem", folder / "server.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(made.key), "-out", str(made.certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return made


def test_a_scan_by_tls_brings_a_large_answer_whole(tls: TLS) -> None:
    rows = [(str(number) * 500,) for number in range(2000)]

    def answer(scan: Scan) -> Iterator[Sequence[str | None]]:
        yield from rows

    settings = EngineSettings(dsn="", listen=("127.0.0.1", 0), token="secret", tls=tls)
    trusted = {"host": "localhost", "token": "secret", "sslrootcert": str(tls.certificate)}
    with running(settings, answer, **trusted) as server:
        server.address = replace(server.address, port=port_of(server.server.address))
        client = server.client()
        assert list(client.scan(SCAN)) == rows
        assert list(client.scan(SCAN)) == rows
        assert server.metrics.read().connections == 1


def test_a_certificate_that_is_not_trusted_is_refused(tls: TLS, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=other", "-keyout", str(tmp_path / "other.key"),
         "-out", str(other)],
        check=True, capture_output=True,
    )  # fmt: skip
    settings = EngineSettings(dsn="", listen=("127.0.0.1", 0), token="secret", tls=tls)
    strange = {"host": "localhost", "token": "secret", "sslrootcert": str(other)}
    with running(settings, echo, **strange) as server:
        server.address = replace(server.address, port=port_of(server.server.address))
        with pytest.raises(Unreachable, match="certificate verify failed"):
            list(server.client().scan(SCAN))


def test_a_token_comes_from_the_first_line_of_its_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("abc \n# a comment\n")
    assert read_token(file) == "abc"
    monkeypatch.setenv("TINYDANCER_TOKEN", "xyz")
    assert read_token(None) == "xyz"
    file.write_text("\n")
    with pytest.raises(InvalidInput, match="no token"):
        read_token(file)


def test_the_settings_do_not_show_their_secrets() -> None:
    settings = EngineSettings(dsn="password=hush", listen=("127.0.0.1", 1), token="hush")
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("written", "read"),
    [("127.0.0.1:7432", ("127.0.0.1", 7432)), ("[::1]:7432", ("::1", 7432))],
)
def test_a_tcp_address_is_host_and_port(written: str, read: tuple[str, int]) -> None:
    assert parse_listen(written) == read


@pytest.mark.parametrize("written", ["7432", "host:", ":7432", "host:99999", "host:x"])
def test_an_address_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(InvalidInput):
        parse_listen(written)
