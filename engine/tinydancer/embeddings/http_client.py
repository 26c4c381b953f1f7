"""HTTP POST with what a remote service needs: kept connections, deadlines, retries with backoff."""

from __future__ import annotations

import base64
import ipaddress
import random
import threading
import time
import weakref
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection, IncompleteRead
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from tinydancer.errors import InvalidInput

RETRIED_STATUS = frozenset({408, 409, 429, 500, 502, 503, 504})
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 20.0
MAX_RESPONSE_BYTES = 256 << 20
CHUNK = 1 << 16
MAX_IDLE = 8


class PostFailed(Exception):
    """A POST did not succeed, after the retries. `status` is 0 where there was no answer."""

    def __init__(self, reason: str, status: int = 0, answer: bytes = b"") -> None:
        super().__init__(reason)
        self.status = status
        self.answer = answer


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: of all, only this one is known to lead nowhere else
        return host == "localhost"


class HttpClient:
    """Posts to one address. Thread-safe: each call has a connection of its own, kept for the next.

    What may pass by itself (a lost connection, 408, 409, 429, 5xx) is tried again with exponential
    backoff and full jitter (Brooker 2015), or after the service's own Retry-After. `timeout` is
    seconds for one whole attempt, however slowly the bytes trickle. Redirects are not followed, so
    a key goes to no other host, nor to one by plain http. The proxies of the environment are used.
    """

    def __init__(self, url: str, headers: Mapping[str, str], timeout: float, retries: int) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise InvalidInput(
                "the embedding service's address is no plain http(s) address: "
                f"{parts.scheme}://{parts.hostname or ''}{parts.path}",
                hint="give the part before /embeddings, such as https://api.openai.com/v1, "
                "and the key by itself",
            )
        if parts.scheme == "http" and "Authorization" in headers and not _is_here(parts.hostname):
            raise InvalidInput(
                f"the key would cross the network to {parts.hostname} in the clear",
                hint="give an https address; where the service needs no key, take it out of the "
                "environment",
            )
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._secure else 80)
        self._base = parts.path.rstrip("/")
        self._headers = dict(headers)
        self._timeout = timeout
        self._retries = retries
        self._idle: list[HTTPConnection] = []
        weakref.finalize(self, _close, self._idle)
        self._lock = threading.Lock()
        self._random = random.Random()  # noqa: S311  (spreads retries; nothing secret)

    @property
    def address(self) -> str:
        """Host and port, as errors show them."""
        return f"{self._host}:{self._port}"

    def post(self, path: str, body: bytes) -> bytes:
        """The body of the answer with status 200. Raises PostFailed."""
        for attempt in range(self._retries + 1):
            try:
                status, retry_after, answer = self._attempt(path, body)
                if status == 200:
                    return answer
                failure = PostFailed(f"answered HTTP {status}", status, answer)
            except (OSError, HTTPException) as error:
                status, retry_after = 0, None
                failure = PostFailed(f"can't be reached: {error or type(error).__name__}")
            if attempt == self._retries or (status and status not in RETRIED_STATUS):
                break
            time.sleep(self._delay(attempt, retry_after))
        raise failure

    def _attempt(self, path: str, body: bytes) -> tuple[int, str | None, bytes]:
        """Status, Retry-After and body of one answer."""
        deadline = time.monotonic() + self._timeout
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                return self._exchange(connection, path, body, deadline)
            except (ConnectionError, HTTPException):
                pass  # the service closed it while it was idle: that is no failure yet
        return self._exchange(self._connect(), path, body, deadline)

    def _exchange(
        self, connection: HTTPConnection, path: str, body: bytes, deadline: float
    ) -> tuple[int, str | None, bytes]:
        keep = False
        try:
            connection.request("POST", self._base + path, body, self._headers)
            response = connection.getresponse()
            parts, size = [], 0
            while chunk := response.read1(CHUNK):
                parts.append(chunk)
                size += len(chunk)
                if size > MAX_RESPONSE_BYTES:
                    raise PostFailed(f"answered with more than {MAX_RESPONSE_BYTES:,} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no whole answer within {self._timeout:g} s")
            if response.length:
                raise IncompleteRead(b"", response.length)
            keep = not response.will_close
            response.close()
            return response.status, response.getheader("Retry-After"), b"".join(parts)
        finally:
            with self._lock:
                keep = keep and len(self._idle) < MAX_IDLE
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    def _connect(self) -> HTTPConnection:
        kind = HTTPSConnection if self._secure else HTTPConnection
        proxy = getproxies().get("https" if self._secure else "http")
        if not proxy or proxy_bypass(self._host):
            return kind(self._host, self._port, timeout=self._timeout)
        through = urlsplit(proxy)
        connection = kind(through.hostname or "", through.port, timeout=self._timeout)
        login = {}
        if through.username is not None:
            pair = f"{unquote(through.username)}:{unquote(through.password or '')}"
            login["Proxy-Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        connection.set_tunnel(self._host, self._port, login)
        return connection

    def _delay(self, attempt: int, retry_after: str | None) -> float:
        asked = retry_after_seconds(retry_after) if retry_after else None
        if asked is not None:
            return min(asked, LONGEST_DELAY_SECONDS)
        return self._random.uniform(0, min(FIRST_DELAY_SECONDS * 2**attempt, LONGEST_DELAY_SECONDS))


def retry_after_seconds(value: str) -> float | None:
    """Seconds of a Retry-After header: a number or a date (RFC 9110, section 10.2.3), else None."""
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _close(connections: list[HTTPConnection]) -> None:
    while connections:
        connections.pop().close()
