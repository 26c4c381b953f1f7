"""One pinned file from the package index that pip is set up for, resumed where it was cut off.

The simple repository API (PEP 503, PEP 691) lists a project's files. The pin's checksum decides
what is accepted; the index is only asked where the file is.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from tinydancer.errors import NotReady

DEFAULT_INDEX = "https://pypi.org/simple"
TIMEOUT_SECONDS = 30.0
MAX_LISTING_BYTES = 16 << 20
CHUNK = 1 << 18
ACCEPT_LISTING = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"


@dataclass(frozen=True)
class PinnedFile:
    """A file of a project on a package index, known by its checksum. `size` in bytes."""

    project: str
    name: str
    sha256: str
    size: int


def download(pin: PinnedFile, part: Path, progress: Callable[[int, int], None] | None) -> None:
    """Download the file to `part`, going on from what is there. Raises NotReady.

    After a cut `part` stays, for the next call to go on from; after a wrong checksum it is gone.
    """
    done = part.stat().st_size if part.exists() else 0
    if done > pin.size:
        part.unlink()
        done = 0
    if done < pin.size:
        _transfer(_find(pin), pin, part, done, progress)
    digest = hashlib.sha256()
    with part.open("rb") as handle:
        while chunk := handle.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != pin.sha256:
        part.unlink()
        raise NotReady(
            f"{pin.name} has the checksum {digest.hexdigest()}, not {pin.sha256}: "
            "it was damaged on the way or replaced, and is not used",
            hint="run the command again; if it stays so, ask whoever runs your package index",
        )


def _transfer(
    url: str,
    pin: PinnedFile,
    part: Path,
    done: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    try:
        with _open(url, {"Range": f"bytes={done}-"} if done else {}) as response:
            if response.status != 206:  # the server starts from the beginning, and so do we
                done = 0
            with part.open("ab" if done else "wb") as file:
                while done < pin.size and (chunk := response.read(min(CHUNK, pin.size - done))):
                    file.write(chunk)
                    done += len(chunk)
                    if progress:
                        progress(done, pin.size)
    except (OSError, HTTPException) as error:
        raise NotReady(
            f"{pin.name} could not be downloaded: {_why(error)}",
            detail=f"{_public(url)}; {part.stat().st_size if part.exists() else 0} bytes are kept",
            hint="run the command again: it goes on where it stopped",
        ) from error
    if done < pin.size:
        raise NotReady(
            f"{pin.name} was cut off after {done:,} of {pin.size:,} bytes",
            hint="run the command again: it goes on where it stopped",
        )


def _find(pin: PinnedFile) -> str:
    """The address of the file, by the listing of the first index that has it."""
    tried = []
    for index in _indexes():
        listing = f"{index.rstrip('/')}/{pin.project}/"
        try:
            with _open(listing, {"Accept": ACCEPT_LISTING}) as response:
                kind = response.headers.get_content_type()
                body = response.read(MAX_LISTING_BYTES)
            address = _links(kind, body).get(pin.name)
        except (OSError, HTTPException, ValueError) as error:
            tried.append(f"{_public(listing)}: {_why(error)}")
            continue
        if address:
            return _with_login(urljoin(listing, address), listing)
        tried.append(f"{_public(listing)}: does not list {pin.name}")
    raise NotReady(
        f"no package index has {pin.name} to offer",
        detail="; ".join(tried),
        hint="set PIP_INDEX_URL to an index that has it, or bring the file and name it by --file",
    )


def _links(kind: str, body: bytes) -> dict[str, str]:
    """File name → address, of a listing in JSON (PEP 691) or HTML (PEP 503)."""
    if kind.endswith("+json"):
        return {file["filename"]: file["url"] for file in json.loads(body)["files"]}
    parser = _LinkParser()
    parser.feed(body.decode("utf-8", errors="replace"))
    return {unquote(urlsplit(link).path.rpartition("/")[2]): link for link in parser.links}


class _LinkParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for key, value in attrs if tag == "a" and key == "href" and value]


def _indexes() -> list[str]:
    """The index addresses that pip would ask, local directories aside."""
    found = [_pip_option("index-url") or DEFAULT_INDEX]
    found += (_pip_option("extra-index-url") or "").split()
    return [index for index in found if urlsplit(index).scheme in ("http", "https")]


def _pip_option(name: str) -> str | None:
    """A setting of pip's, from the environment or its configuration files."""
    if value := os.environ.get(f"PIP_{name.replace('-', '_').upper()}"):
        return value
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", f"global.{name}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or None if asked.returncode == 0 else None


def _open(url: str, headers: dict[str, str]) -> HTTPResponse:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise OSError(f"{parts.scheme}: is not an address to download from")
    context = ssl.create_default_context(cafile=_pip_option("cert"))
    request = urllib.request.Request(_public(url), headers=headers)  # noqa: S310
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        token = base64.b64encode(login.encode()).decode()
        # Unredirected: a login goes to the index itself, not where it may point on to.
        request.add_unredirected_header("Authorization", f"Basic {token}")
    response: HTTPResponse = urllib.request.urlopen(  # noqa: S310
        request, timeout=TIMEOUT_SECONDS, context=context
    )
    return response


def _public(url: str) -> str:
    """The address without a login, to send and to show."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _with_login(url: str, listing: str) -> str:
    """The login of the index goes along to files on its own host, and to no other."""
    ours, theirs = urlsplit(listing), urlsplit(url)
    if ours.username is None or theirs.netloc != ours.netloc.rpartition("@")[2]:
        return url
    return urlunsplit(theirs._replace(netloc=ours.netloc))


def _why(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
