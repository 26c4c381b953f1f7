"""An engine by TLS: a real engine, and certificates made for the test.

What must not be trusted is refused before the token is sent; what must wait can be cancelled.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import QueryCanceled
from tests.conftest import Installation, sqlstate
from tests.integration.test_faults import engine_by_tcp

from tinydancer_fdw.client import Address, Client, Unreachable
from tinydancer_fdw.frames import Scan

QUERY = "SELECT agent_name FROM by_tls.route_decisions WHERE request = 'a request'"


class Authority:
    """A certificate authority in a directory that the server can read."""

    def __init__(self, directory: Path, name: str) -> None:
        self.certificate = directory / f"{name}.pem"
        self._key = directory / f"{name}.key"
        self._directory = directory
        _openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-days", "2", "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.certificate,
        )  # fmt: skip
        self.certificate.chmod(0o644)

    def signs(self, subject: str, days: int = 2) -> tuple[str, ...]:
        """Options of an engine with a certificate for a subject, such as DNS:localhost."""
        stem = self._directory / f"{self.certificate.stem}-{abs(hash((subject, days)))}"
        certificate, key, request = (stem.with_suffix(s) for s in (".crt", ".key", ".csr"))
        extensions = stem.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={subject}\nbasicConstraints=CA:FALSE\n")
        _openssl(
            "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", "/CN=engine", "-keyout", key, "-out", request,
        )  # fmt: skip
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key,
            "-CAcreateserial", "-days", days, "-extfile", extensions, "-out", certificate,
        )  # fmt: skip
        return ("--tls-certificate", str(certificate), "--tls-key", str(key))


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A directory that the server's system user can enter."""
    with tempfile.TemporaryDirectory(prefix="td-tls-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    """The one that the server trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    return Authority(directory, "authority")


@contextmanager
def foreign_tables(db: psycopg.Connection, door: str, **options: object) -> Iterator[None]:
    """The tables of an engine in schema by_tls, asked with its token."""
    wrapper = "multicorn" if door == "multicorn" else "tinydancer_native"
    if door == "multicorn":
        options["wrapper"] = "tinydancer_fdw.wrapper.TinyDancer"
    named = [
        sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(str(value)))
        for name, value in options.items()
    ]
    create = sql.SQL(
        """CREATE SERVER by_tls FOREIGN DATA WRAPPER {} OPTIONS ({});
           CREATE USER MAPPING FOR CURRENT_USER SERVER by_tls OPTIONS (token 'the token');
           CREATE SCHEMA by_tls;
           IMPORT FOREIGN SCHEMA tinydancer LIMIT TO (route_decisions)
             FROM SERVER by_tls INTO by_tls"""
    ).format(sql.Identifier(wrapper), sql.SQL(", ").join(named))
    try:
        db.execute(create)
    except psycopg.errors.FeatureNotSupported as error:
        assert "built without TLS" in str(error)
        pytest.skip("OpenSSL's headers were not there when the native front door was built")
    try:
        yield
    finally:
        db.execute("DROP SERVER by_tls CASCADE; DROP SCHEMA by_tls CASCADE")


@pytest.fixture(scope="module")
def port(installation: Installation, authority: Authority) -> Iterator[int]:
    """That of a real engine by TLS on this machine."""
    options = authority.signs("DNS:localhost,IP:127.0.0.1")
    with engine_by_tcp(installation.engine.dsn, *options) as port:
        yield port


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_an_engine_whose_certificate_is_vouched_for_answers(
    db: psycopg.Connection, front_door: str, authority: Authority, port: int, host: str
) -> None:
    with foreign_tables(db, front_door, host=host, port=port, sslrootcert=authority.certificate):
        assert db.execute(QUERY).fetchall() == [(None,)]
        texts = ["x" * 1000 + str(number) for number in range(1000)]  # many records of TLS
        many = "SELECT request FROM by_tls.route_decisions WHERE request = ANY (%s)"
        assert len(db.execute(many, (texts,)).fetchall()) == 1000
        with db.transaction(), db.cursor("portal") as cursor:
            cursor.execute(many, (texts,))
            assert len(cursor.fetchmany(3)) == 3
        assert db.execute(QUERY).fetchall() == [(None,)]


def test_a_certificate_of_another_authority_is_refused(
    db: psycopg.Connection, front_door: str, authority: Authority, directory: Path, port: int
) -> None:
    strange = Authority(directory, "strange")
    with (
        foreign_tables(
            db, front_door, host="localhost", port=port, sslrootcert=strange.certificate
        ),
        pytest.raises(psycopg.Error, match="certificate verify failed") as caught,
    ):
        db.execute(QUERY)
    assert sqlstate(caught.value) == "08001"
    assert caught.value.diag.message_hint


def test_certificates_that_can_not_be_read_are_an_error_that_names_the_file(
    db: psycopg.Connection, front_door: str, directory: Path, port: int
) -> None:
    missing = directory / "none.pem"
    with (
        foreign_tables(db, front_door, host="localhost", port=port, sslrootcert=missing),
        pytest.raises(psycopg.Error, match="No such file") as caught,
    ):
        db.execute(QUERY)
    assert sqlstate(caught.value) == "08001"
    assert "none.pem" in f"{caught.value.diag.message_primary}{caught.value.diag.message_hint}"


# ---- the far end alone: what it shows, and what it hears ----


class FarEnd:
    """A port of this machine that takes one connection, and remembers what came of it."""

    def __init__(self, context: ssl.SSLContext | None, reply: bytes | None) -> None:
        self.heard = b""
        self.refused = False
        self._context = context
        self._reply = reply
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            stream, _ = self._listener.accept()
        except OSError:
            return
        with stream:
            try:
                if self._context is not None:
                    stream = self._context.wrap_socket(stream, server_side=True)
                if self._reply is None:
                    self._done.wait()  # says nothing
                else:
                    self.heard = stream.recv(65536)
                    stream.sendall(self._reply)
            except OSError:
                self.refused = True
            finally:
                stream.close()

    def close(self) -> None:
        """End the wait, and the thread."""
        self._done.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@contextmanager
def far_end(
    options: tuple[str, ...] | None, reply: bytes | None = b"", oldest: bool = False
) -> Iterator[FarEnd]:
    """One by TLS where it has options of an engine; it is silent where it has no reply."""
    context = None
    if options is not None:
        _, certificate, _, key = options
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if oldest:
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.load_cert_chain(certificate, key)
    end = FarEnd(context, reply)
    try:
        yield end
    finally:
        end.close()


@pytest.mark.parametrize(
    ("subject", "days", "reason"),
    [
        ("DNS:engine.example", 2, "(?i)hostname mismatch"),
        ("IP:127.0.0.1", 2, "(?i)hostname mismatch"),
        ("DNS:local*", 2, "(?i)hostname mismatch"),
        ("DNS:localhost", -1, "certificate has expired"),
    ],
)
def test_a_certificate_that_does_not_fit_is_refused_before_the_token_is_sent(
    db: psycopg.Connection,
    front_door: str,
    authority: Authority,
    subject: str,
    days: int,
    reason: str,
) -> None:
    with (
        far_end(authority.signs(subject, days)) as end,
        foreign_tables(
            db, front_door, host="localhost", port=end.port, sslrootcert=authority.certificate
        ),
    ):
        with pytest.raises(psycopg.Error, match=reason) as caught:
            db.execute(QUERY)
        assert sqlstate(caught.value) == "08001"
        assert caught.value.diag.message_hint
    assert end.heard == b""


def test_the_client_says_what_the_certificate_has_to_be(authority: Authority) -> None:
    with far_end(authority.signs("DNS:engine.example")) as end:
        client = Client(
            Address(host="localhost", port=end.port, sslrootcert=str(authority.certificate)), "test"
        )
        with pytest.raises(Unreachable, match=r"is not trusted: .*Hostname mismatch") as caught:
            next(client.scan(Scan("engine_status", ("version",), ())))
    assert 'has to be for "localhost"' in caught.value.hint
    assert str(authority.certificate) in caught.value.hint


def test_an_engine_without_tls_is_refused_before_the_token_is_sent(
    db: psycopg.Connection, front_door: str, authority: Authority
) -> None:
    a_frame = b"TD\x02\x06\0\0\0\0"
    with (
        far_end(None, a_frame) as end,
        foreign_tables(
            db, front_door, host="127.0.0.1", port=end.port, sslrootcert=authority.certificate
        ),
        pytest.raises(psycopg.Error, match=r"(?i)wrong.version.number|packet length") as caught,
    ):
        db.execute(QUERY)
    assert sqlstate(caught.value) == "08001"
    assert b"the token" not in end.heard
    assert end.heard[:1] == b"\x16"  # a TLS handshake, and no frame


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_old_version_of_tls_is_refused(
    db: psycopg.Connection, front_door: str, authority: Authority
) -> None:
    with (
        far_end(authority.signs("DNS:localhost"), oldest=True) as end,
        foreign_tables(
            db, front_door, host="localhost", port=end.port, sslrootcert=authority.certificate
        ),
        pytest.raises(psycopg.Error) as caught,
    ):
        db.execute(QUERY)
    assert sqlstate(caught.value) == "08001"
    assert end.refused


def test_an_engine_that_goes_away_under_tls_is_an_error(
    db: psycopg.Connection, front_door: str, authority: Authority
) -> None:
    with (
        far_end(authority.signs("DNS:localhost")) as end,
        foreign_tables(
            db, front_door, host="localhost", port=end.port, sslrootcert=authority.certificate
        ),
        pytest.raises(psycopg.Error) as caught,
    ):
        db.execute(QUERY)
    assert (sqlstate(caught.value) or "")[:2] == "08"
    assert b"the token" in end.heard


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_another_host_is_never_asked_in_the_clear(
    db: psycopg.Connection, front_door: str, host: str
) -> None:
    # Kept for documentation: nobody is there, and nobody is asked.
    with (
        foreign_tables(db, front_door, host=host, port=7432),
        pytest.raises(psycopg.Error, match="by TLS only") as caught,
    ):
        db.execute(QUERY)
    assert sqlstate(caught.value) == "0A000"
    assert "sslrootcert" in f"{caught.value.diag.message_hint}"


@pytest.mark.parametrize("during", ["the handshake", "the answer"])
def test_statement_timeout_ends_a_wait(
    db: psycopg.Connection, front_door: str, authority: Authority, during: str
) -> None:
    options = authority.signs("DNS:localhost") if during == "the answer" else None
    with (
        far_end(options, reply=None) as end,
        foreign_tables(
            db,
            front_door,
            host="localhost",
            port=end.port,
            sslrootcert=authority.certificate,
            connect_timeout=20000,
        ),
        db.transaction(force_rollback=True),
    ):
        db.execute("SET LOCAL statement_timeout = 300")
        began = time.monotonic()
        with pytest.raises(QueryCanceled), db.transaction():
            db.execute(QUERY)
        # 0.3 s, at most 0.1 s to act on it, and what a busy machine takes.
        assert time.monotonic() - began < 1.5


def test_a_handshake_that_never_ends_is_an_error_in_time(
    db: psycopg.Connection, front_door: str, authority: Authority
) -> None:
    with (
        far_end(None, reply=None) as end,
        foreign_tables(
            db,
            front_door,
            host="localhost",
            port=end.port,
            sslrootcert=authority.certificate,
            connect_timeout=300,
        ),
    ):
        began = time.monotonic()
        with pytest.raises(psycopg.Error) as caught:
            db.execute(QUERY)
        assert sqlstate(caught.value) == "08001"
        assert time.monotonic() - began < 3
