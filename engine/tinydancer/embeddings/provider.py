"""An embedding service that speaks OpenAI's /v1/embeddings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.base import Vectors
from tinydancer.embeddings.http_client import HttpClient, PostFailed
from tinydancer.embeddings.static_table import builtin_vocabulary
from tinydancer.embeddings.tokens import WordPieces
from tinydancer.errors import InvalidInput, InvalidText, ProviderFailed

SHOWN_OF_AN_ERROR = 300
CHECK = "check the service's address, key and model in the settings"


@dataclass(frozen=True)
class ProviderSettings:
    """Where the service is and how it is asked.

    `url` is the base before /embeddings ("https://api.openai.com/v1"). `dimension` is what every
    vector must have. `batch` is texts a call, `timeout` seconds for one attempt, `retries` the
    attempts after the first. The key is sent as a bearer token and shown nowhere.
    """

    url: str
    model: str
    dimension: int
    api_key: str = field(default="", repr=False)
    batch: int = 256
    timeout: float = 30.0
    retries: int = 4


class OpenAIEmbedder:
    """Vectors of an OpenAI-compatible service, at unit length. Thread-safe; blocks while it waits.

    Tokens are counted by the built-in WordPiece vocabulary: an estimate of the service's count.
    """

    def __init__(self, settings: ProviderSettings) -> None:
        if settings.dimension < 1 or settings.batch < 1 or settings.retries < 0:
            raise InvalidInput(
                "dimension and batch must be at least 1, and retries at least 0, not "
                f"{settings.dimension}, {settings.batch} and {settings.retries}"
            )
        if not settings.timeout > 0:
            raise InvalidInput(f"the timeout must be more than 0 seconds, not {settings.timeout}")
        if not settings.model:
            raise InvalidInput("the embedding service's model has no name")
        headers = {"Content-Type": "application/json", "User-Agent": "tinydancer"}
        if settings.api_key:
            headers["Authorization"] = f"Bearer {settings.api_key}"
        self._settings = settings
        self._client = HttpClient(settings.url, headers, settings.timeout, settings.retries)
        self._pieces = WordPieces(builtin_vocabulary())

    @property
    def model(self) -> str:
        """Name of the service's model."""
        return self._settings.model

    @property
    def space(self) -> str:
        """The model's own space: its vectors are compared with no other's."""
        return f"{self._settings.model}/{self._settings.dimension}"

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        return self._settings.dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32, rows of unit length.

        Raises ProviderFailed where the service does not answer as it should, after the retries.
        """
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        for first in range(0, len(texts), self._settings.batch):
            batch = texts[first : first + self._settings.batch]
            vectors[first : first + len(batch)] = self._ask(batch)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not lengths.all():
            raise self._failed(f"gave a vector of zeros for text {int(np.argmin(lengths))}")
        unit: Vectors = vectors / lengths
        return unit

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,) tokens of each text by the built-in vocabulary."""
        return self._pieces.counts(texts)

    def _ask(self, batch: Sequence[str]) -> Vectors:
        content: dict[str, Any] = {
            "model": self._settings.model,
            # An empty input is an error to these services; a space is not.
            "input": [text or " " for text in batch],
            "encoding_format": "float",
        }
        try:
            body = json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise InvalidText("a text has a character that is not valid Unicode") from error
        try:
            answer = self._client.post("/embeddings", body)
        except PostFailed as error:
            said = f": {self._shown(error.answer)}" if error.answer else ""
            raise self._failed(f"{error}{said}") from error
        return self._vectors(answer, len(batch))

    def _vectors(self, answer: bytes, count: int) -> Vectors:
        """The vectors of one answer in the order of the texts, whatever order they came in."""
        try:
            rows = json.loads(answer)["data"]
            by_index = {int(row["index"]): row["embedding"] for row in rows}
            lengths = {len(vector) for vector in by_index.values()}
        except (ValueError, KeyError, TypeError) as error:
            raise self._failed(f"gave an answer that is no list of embeddings: {error!r}") from None
        if len(rows) != count or by_index.keys() != set(range(count)):
            raise self._failed(
                f"gave {len(rows)} vectors for {count} texts, or their numbers are not 0 to "
                f"{count - 1}"
            )
        if lengths != {self.dimension}:
            raise self._failed(
                f"gives vectors of {', '.join(map(str, sorted(lengths)))} dimensions, "
                f"not the {self.dimension} of this installation",
                hint="choose a model of that dimension, or re-embed with another",
            )
        try:
            vectors = np.array([by_index[index] for index in range(count)], dtype=np.float32)
        except (ValueError, TypeError):
            raise self._failed("gave a vector with something that is not a number") from None
        if not np.isfinite(vectors).all():
            raise self._failed("gave a vector with a value that is not a finite number")
        return vectors

    def _shown(self, answer: bytes) -> str:
        """The start of an error's body, without the key, which some services repeat in it."""
        text = answer[: 1 << 16].decode("utf-8", errors="replace")
        if self._settings.api_key:
            text = text.replace(self._settings.api_key, "…")
        return " ".join(text.split())[:SHOWN_OF_AN_ERROR]

    def _failed(self, what: str, hint: str = CHECK) -> ProviderFailed:
        return ProviderFailed(
            f"the embedding service at {self._client.address} (model {self.model}) {what}",
            hint=hint,
        )
