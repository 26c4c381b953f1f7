"""Any model of the sentence-transformers package, where that is installed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.base import Vectors
from tinydancer.embeddings.static_table import builtin_vocabulary
from tinydancer.embeddings.tokens import WordPieces
from tinydancer.errors import InvalidInput, InvalidText, NotReady

INSTALL = "pip install 'tinydancer-router[sentence-transformers]'"
OLDEST = 6
"""First version of the package that runs code out of a model's directory only when told to."""
ORGANIZATION = "sentence-transformers"
"""Whose model a name without a slash is, as the package itself has it."""
BATCH = 32
BLOCK_TOKENS = 16_384
"""Tokens that go through the network at one time, at most: bounds its memory."""
PROBES = ("refund my order", "is it late")
"""Two texts of as many words, which every model tells apart that knows words."""
READ_BYTES = 1 << 20


class SentenceTransformersEmbedder:
    """A sentence-transformers model on the CPU, in float32 and at unit length. Thread-safe.

    `name` is the absolute path of a model's directory, or a model of the Hugging Face hub that is
    in this machine's cache; nothing is downloaded. The weights must be safetensors, and code that
    comes with a model is not run. What a text has beyond the model's limit is left out. torch gets
    one thread, in the whole process. Tokens are counted by the built-in WordPiece vocabulary.

    Raises NotReady where the package is missing, or the model is missing, damaged or useless;
    InvalidInput where it has another dimension.
    """

    def __init__(self, name: str, dimension: int) -> None:
        _check_package()
        import torch

        torch.set_num_threads(1)
        directory = _directory(name)
        self._name = name
        self._transformer = _load(name, directory)
        # This first call also settles the tokenizer's options, which threads then only read.
        probe = _encode(self._transformer, PROBES)
        if not np.isfinite(probe).all():
            raise _unusable(name, "it gives vectors that are not finite numbers")
        if np.allclose(probe[0], probe[1], atol=1e-6):
            raise _unusable(name, "it gives every text the same vector; is its tokenizer there?")
        self._dimension = int(probe.shape[1])
        if self._dimension != dimension:
            raise InvalidInput(
                f"the sentence-transformers model {name!r} gives vectors of {self._dimension} "
                f"dimensions, not the {dimension} of this installation",
                hint="choose a model of that dimension, or install into another database with "
                f"--dimension {self._dimension}",
            )
        self._version = _digest(directory)
        self._pieces = WordPieces(builtin_vocabulary())

    @property
    def model(self) -> str:
        """Name of the model, with a digest of its weights: they may be trained further."""
        return f"{self._name}@{self._version}"

    @property
    def space(self) -> str:
        """The space of these weights, wherever they lie: compared with no other's."""
        return f"sentence-transformers/{self._version}"

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        return self._dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32, rows of unit length.

        Raises InvalidText, InvalidInput where the model has no vector for a text (it knows none of
        its words), NotReady where it fails.
        """
        if not texts:
            return np.empty((0, self._dimension), dtype=np.float32)
        for text in texts:
            if not text.isascii():
                _check_unicode(text)
        try:
            vectors = _encode(self._transformer, texts)
        except (RuntimeError, IndexError) as error:  # what torch raises
            raise _unusable(self._name, f"it fails on these texts: {error}") from error
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            row = int(np.argmin(np.isfinite(lengths) & (lengths > 0)))
            raise InvalidInput(
                f"the sentence-transformers model {self._name!r} has no vector for text {row} of "
                f"{len(texts)}, which has {len(texts[row])} characters",
                hint="send a text with words that the model knows, or choose another model",
            )
        unit: Vectors = vectors / lengths
        return unit

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,) tokens of each text by the built-in vocabulary."""
        return self._pieces.counts(texts)


def _check_package() -> None:
    try:
        import sentence_transformers
    except (ImportError, OSError) as error:  # torch's libraries raise either
        if isinstance(error, ModuleNotFoundError) and error.name == "sentence_transformers":
            raise NotReady("sentence-transformers is not installed", hint=INSTALL) from None
        raise NotReady(
            "sentence-transformers can't be imported", detail=str(error), hint=INSTALL
        ) from error
    version = sentence_transformers.__version__
    if int(version.split(".")[0]) < OLDEST:
        raise NotReady(
            f"sentence-transformers {version} is installed, and {OLDEST}.0 or later is needed: "
            "older ones run code that lies in a model's directory",
            hint=INSTALL,
        )


def _directory(name: str) -> Path:
    """Where a model lies."""
    path = Path(name)
    if path.is_absolute():
        try:
            list(path.iterdir())
        except PermissionError as error:
            raise NotReady(
                f"the directory {name} can't be read by user {os.geteuid()}",
                detail=str(error),
                hint="let the account that the engine runs as read it, and enter the directories "
                "above it",
            ) from None
        except OSError as error:
            raise NotReady(
                f"there is no directory {name} with a sentence-transformers model",
                detail=str(error),
                hint="name the directory of a model on the engine's machine",
            ) from None
        return path
    from huggingface_hub import snapshot_download

    repository = name if "/" in name else f"{ORGANIZATION}/{name}"
    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (OSError, ValueError) as error:
        raise NotReady(
            f"{name!r} is no absolute path, and no model in this machine's Hugging Face cache",
            detail=str(error),
            hint=f"name the absolute path of its directory, or download it there first: "
            f"hf download {repository} --local-dir DIR",
        ) from None


def _load(name: str, directory: Path) -> Any:
    transformer, made_up = _loaded(name, directory, seed=0)
    if made_up:
        # The package makes up at random what the file of weights has not. That is no harm in a part
        # that sentence vectors don't use, such as BERT's pooler.
        other, _ = _loaded(name, directory, seed=1)
        probe = _encode(transformer, PROBES)
        if not np.allclose(probe, _encode(other, PROBES), atol=1e-5, equal_nan=True):
            raise _unusable(name, "weights are missing that its vectors depend on")
    return transformer


def _loaded(name: str, directory: Path, seed: int) -> tuple[Any, bool]:
    """The model, and whether some of its weights are random numbers of that seed."""
    import torch
    from sentence_transformers import SentenceTransformer

    with _without_progress_bar(), torch.random.fork_rng(devices=[]):
        before = torch.manual_seed(seed).get_state()
        try:
            transformer = SentenceTransformer(
                str(directory),
                device="cpu",
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
            ).float()
        except Exception as error:  # what is raised for a damaged model shares no base class
            raise _unusable(name, f"{type(error).__name__}: {error}") from error
        return transformer, not torch.equal(before, torch.get_rng_state())


def _encode(transformer: Any, texts: Sequence[str]) -> Vectors:
    """(n, dimension) float32, of any length."""
    longest = transformer.max_seq_length or BLOCK_TOKENS // BATCH
    vectors: Vectors = transformer.encode(
        list(texts),
        batch_size=int(max(1, min(BATCH, BLOCK_TOKENS / longest))),
        show_progress_bar=False,
    ).astype(np.float32, copy=False)
    return vectors


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _digest(directory: Path) -> str:
    """12 hexadecimal digits that change with the weights."""
    digest = hashlib.sha256()
    for file in sorted(directory.rglob("*.safetensors")):
        with file.open("rb") as content:
            while block := content.read(READ_BYTES):
                digest.update(block)
    return digest.hexdigest()[:12]


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidText(
            f"the text has a character that is not valid Unicode: {text[error.start]!a}",
            hint="send text that can be encoded as UTF-8",
        ) from None


def _unusable(name: str, why: str) -> NotReady:
    return NotReady(
        f"the sentence-transformers model {name!r} can't be used",
        detail=why,
        hint="save or download it again, its weights as safetensors, or name another",
    )
