"""The OpenAI-compatible embedder against a real HTTP server that behaves and misbehaves."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from tinydancer.embeddings import http_client, provider
from tinydancer.embeddings.http_client import retry_after_seconds
from tinydancer.embeddings.provider import OpenAIEmbedder, ProviderSettings
from tinydancer.errors import InvalidInput, InvalidText, ProviderFailed

Answer = tuple[int, dict[str, str], bytes]
KEY = "sk-very-secret"


class Service:
    """A local embedding service. `answers` are given first, one a request; then proper ones."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.connections: set[Any] = set()
        self.answers: list[Answer | Callable[[BaseHTTPRequestHandler], None]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.requests.append(body | {"path": self.path})
                service.headers.append(dict(self.headers))
                service.connections.add(self.client_address)
                answer = service.answers.pop(0) if service.answers else proper(body)
                if callable(answer):
                    answer(self)
                    return
                status, headers, content = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def vector_of(text: str) -> list[float]:
    return [float(len(text)), 1.0, float(text.count("e"))]


def proper(body: dict[str, Any]) -> Answer:
    """What the service should say, the last text's vector first."""
    rows = [{"index": i, "embedding": vector_of(text)} for i, text in enumerate(body["input"])]
    return 200, {}, json.dumps({"data": rows[::-1]}).encode()


def rows(*vectors: Any, indices: list[int] | None = None) -> Answer:
    numbers = indices or list(range(len(vectors)))
    data = [{"index": i, "embedding": v} for i, v in zip(numbers, vectors, strict=True)]
    return 200, {}, json.dumps({"data": data}).encode()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(http_client, "FIRST_DELAY_SECONDS", 0.01)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = Service()
    yield running
    running.stop()


def embedder(service: Service, **changes: Any) -> OpenAIEmbedder:
    fields = {"url": service.url, "model": "small", "dimension": 3, "api_key": KEY, "retries": 2}
    return OpenAIEmbedder(ProviderSettings(**(fields | changes)))


def unit(text: str) -> np.ndarray[Any, Any]:
    vector = np.array(vector_of(text))
    return vector / np.linalg.norm(vector)


def test_vectors_come_in_the_order_of_the_texts_at_unit_length(service: Service) -> None:
    # given a service that answers in reverse order
    texts = ["one", "three", "seventeen"]
    # when three texts are embedded
    vectors = embedder(service).embed(texts)
    # then each has its own vector
    np.testing.assert_allclose(vectors, [unit(text) for text in texts], rtol=1e-6)
    assert vectors.dtype == np.float32


def test_a_request_is_what_the_service_expects(service: Service) -> None:
    embedder(service).embed(["hello"])
    assert service.requests == [
        {
            "path": "/v1/embeddings",
            "model": "small",
            "input": ["hello"],
            "encoding_format": "float",
        }
    ]
    assert service.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_many_texts_go_in_batches_over_one_connection(service: Service) -> None:
    texts = [f"text {'e' * n}" for n in range(10)]
    vectors = embedder(service, batch=4).embed(texts)
    assert [len(request["input"]) for request in service.requests] == [4, 4, 2]
    assert len(service.connections) == 1
    np.testing.assert_allclose(vectors, [unit(text) for text in texts], rtol=1e-6)


def test_an_empty_text_is_sent_as_a_space(service: Service) -> None:
    embedder(service).embed([""])
    assert service.requests[0]["input"] == [" "]


def test_no_texts_ask_nothing(service: Service) -> None:
    assert embedder(service).embed([]).shape == (0, 3)
    assert service.requests == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_by_itself_is_tried_again(service: Service, status: int) -> None:
    service.answers = [(status, {}, b"later"), (status, {}, b"later")]
    assert embedder(service).embed(["hello"]).shape == (1, 3)
    assert len(service.requests) == 3


def test_the_wait_that_the_service_asks_for_is_kept(service: Service) -> None:
    service.answers = [(429, {"Retry-After": "1"}, b"slow down")]
    began = time.monotonic()
    embedder(service).embed(["hello"])
    assert time.monotonic() - began >= 1


def test_a_lost_connection_is_tried_again(service: Service) -> None:
    service.answers = [lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)]
    assert embedder(service).embed(["hello"]).shape == (1, 3)


def test_an_answer_that_is_cut_off_is_tried_again(service: Service) -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"data": ')
        handler.connection.shutdown(socket.SHUT_RDWR)

    service.answers = [cut]
    assert embedder(service).embed(["hello"]).shape == (1, 3)


def test_a_connection_that_was_closed_while_idle_is_replaced_without_a_retry(
    service: Service,
) -> None:
    # given an embedder with a kept connection, and a service that closes it after its answer
    def answer_and_close(handler: BaseHTTPRequestHandler) -> None:
        _, _, content = rows([1.0, 2.0, 3.0])
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content))
        handler.wfile.write(content)
        handler.close_connection = True

    service.answers = [answer_and_close]
    patient = embedder(service, retries=0)
    patient.embed(["first"])
    # when it is used again, then it answers, with no retries to spend
    assert patient.embed(["second"]).shape == (1, 3)


def test_after_the_last_retry_the_error_names_service_model_and_answer(service: Service) -> None:
    service.answers = [(503, {}, b"overloaded")] * 3
    with pytest.raises(ProviderFailed, match=r"127\.0\.0\.1:\d+ \(model small\) answered HTTP 503"):
        embedder(service).embed(["hello"])
    assert len(service.requests) == 3


def test_a_refusal_is_not_tried_again_and_shows_no_key(service: Service) -> None:
    service.answers = [(401, {}, f"Incorrect API key provided: {KEY}".encode())]
    refused = embedder(service)
    with pytest.raises(ProviderFailed, match="HTTP 401: Incorrect API key") as caught:
        refused.embed(["hello"])
    assert len(service.requests) == 1
    assert KEY not in str(caught.value) + caught.value.hint + repr(refused._settings)


def test_a_redirect_is_not_followed(service: Service) -> None:
    service.answers = [(302, {"Location": "http://127.0.0.1:9/elsewhere"}, b"")]
    with pytest.raises(ProviderFailed, match="HTTP 302"):
        embedder(service).embed(["hello"])


def test_a_service_that_is_not_there_is_named(service: Service) -> None:
    service.stop()
    with pytest.raises(ProviderFailed, match="can't be reached"):
        embedder(service, retries=1).embed(["hello"])
    service.__init__()  # type: ignore[misc]


def test_a_service_that_hangs_is_an_error_within_the_timeout(service: Service) -> None:
    service.answers = [lambda handler: time.sleep(1)]
    began = time.monotonic()
    with pytest.raises(ProviderFailed, match="timed out"):
        embedder(service, timeout=0.2, retries=0).embed(["hello"])
    assert time.monotonic() - began < 0.9


def test_a_service_that_trickles_is_an_error_within_the_timeout(service: Service) -> None:
    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _ in range(20):
            handler.wfile.write(b" ")
            time.sleep(0.05)

    service.answers = [trickle]
    with pytest.raises(ProviderFailed, match=r"no whole answer within 0\.2 s"):
        embedder(service, timeout=0.2, retries=0).embed(["hello"])


def test_an_answer_over_the_limit_is_refused(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "MAX_RESPONSE_BYTES", 20)
    with pytest.raises(ProviderFailed, match="more than 20 bytes"):
        embedder(service).embed(["hello"])


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ((200, {}, b"<html>"), "no list of embeddings"),
        ((200, {}, b'{"data": 3}'), "no list of embeddings"),
        ((200, {}, b'{"data": [{"index": 0}]}'), "no list of embeddings"),
        (rows([1, 2, 3]), "gave 1 vectors for 2 texts"),
        (rows([1, 2, 3], [1, 2, 3], indices=[1, 1]), "their numbers are not 0 to 1"),
        (rows([1, 2, 3], [1, 2, 3], indices=[1, 2]), "their numbers are not 0 to 1"),
        (rows([1, 2], [1, 2]), "vectors of 2 dimensions, not the 3"),
        (rows([1, 2, 3], [1, 2, 3, 4]), "vectors of 3, 4 dimensions, not the 3"),
        (rows([1, 2, "x"], [1, 2, 3]), "something that is not a number"),
        (rows([1, 2, None], [1, 2, 3]), "not a"),
        (rows([1, 2, float("nan")], [1, 2, 3]), "not a finite number"),
        (rows([1, 2, 3], [0, 0, 0]), "vector of zeros for text 1"),
    ],
)
def test_an_answer_that_is_none_is_refused(
    service: Service, answer: Answer, complaint: str
) -> None:
    service.answers = [answer]
    with pytest.raises(ProviderFailed, match=complaint):
        embedder(service).embed(["one", "two"])


def test_text_that_is_not_unicode_is_refused_before_it_is_sent(service: Service) -> None:
    with pytest.raises(InvalidText):
        embedder(service).embed(["\ud800"])
    assert service.requests == []


def test_threads_share_an_embedder(service: Service) -> None:
    shared = embedder(service)
    found: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: shared.embed(["e" * n])}))
        for n in range(1, 9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, vectors in found.items():
        np.testing.assert_allclose(vectors[0], unit("e" * n), rtol=1e-6)
    assert len(found) == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "ftp://somewhere/v1"},
        {"url": "api.openai.com"},
        {"url": "https://name:secret@somewhere/v1"},
        {"model": ""},
        {"dimension": 0},
        {"batch": 0},
        {"retries": -1},
        {"timeout": 0},
        {"timeout": float("nan")},
    ],
)
def test_settings_that_can_not_be_are_refused(changes: dict[str, Any]) -> None:
    fields = {"url": "http://localhost/v1", "model": "small", "dimension": 3}
    with pytest.raises(InvalidInput) as caught:
        OpenAIEmbedder(ProviderSettings(**(fields | changes)))
    assert "secret" not in str(caught.value)


def test_two_models_or_dimensions_are_two_spaces() -> None:
    def space(model: str, dimension: int) -> str:
        return OpenAIEmbedder(provider.ProviderSettings("http://h/v1", model, dimension)).space

    assert len({space("a", 3), space("a", 4), space("b", 3)}) == 3


def test_a_wait_may_be_a_number_or_a_date() -> None:
    assert retry_after_seconds("7") == 7
    assert retry_after_seconds("soon") is None
    assert retry_after_seconds("²") is None
    in_a_minute = retry_after_seconds(formatdate(time.time() + 60, usegmt=True))
    assert in_a_minute is not None
    assert 55 < in_a_minute <= 60


def test_a_key_is_not_sent_to_another_host_in_the_clear() -> None:
    def embedder(url: str, key: str) -> OpenAIEmbedder:
        return OpenAIEmbedder(ProviderSettings(url=url, model="m", dimension=8, api_key=key))

    with pytest.raises(InvalidInput, match=r"to embeddings\.example in the clear") as caught:
        embedder("http://embeddings.example/v1", "sk-secret")
    assert "https" in caught.value.hint
    assert "sk-secret" not in f"{caught.value!r} {caught.value.hint}"
    # nor to one whose name looks like an address of this machine
    with pytest.raises(InvalidInput, match="in the clear"):
        embedder("http://127.embeddings.example/v1", "sk-secret")
    # without a key, by TLS, or within the machine there is nothing to read
    embedder("http://embeddings.example/v1", "")
    embedder("https://embeddings.example/v1", "sk-secret")
    embedder("http://127.0.0.1:8080/v1", "sk-secret")
