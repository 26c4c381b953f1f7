"""How a database routes: the one row of the table `settings`."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tinydancer.embeddings.base import Embedder
from tinydancer.embeddings.select import EmbedderSettings, embedder_for, read_api_key
from tinydancer.errors import NotReady
from tinydancer.store.database import Connection


@dataclass(frozen=True)
class Settings:
    """The row of `settings`; its columns carry comments that say what each is for.

    `embedding_model` and `embedding_space` are those of the stored vectors, None before the
    first engine has run.
    """

    dimension: int = 384
    embedder: str = "static"
    embedder_model: str | None = None
    embedder_url: str | None = None
    cascade_threshold: float = 0.06
    embedding_model: str | None = None
    embedding_space: str | None = None
    default_output_tokens: int = 256
    route_threshold: float = 0.125
    category_share: float = 0.65
    route_index: str = "auto"
    route_index_from: int = 50_000
    route_index_ef_search: int = 200
    max_text_bytes: int = 1_048_576
    max_batch: int = 10_000
    decision_log: str = "async"
    decision_log_text: bool = True
    exploration: str = "none"
    exploration_rate: float = 0.05
    exploration_seed: int | None = None
    prior_weight: float = 10.0

    def indexed_routes(self, vectors: int) -> bool:
        """Whether that many route vectors are searched in the database, by their index."""
        if self.route_index == "auto":
            return vectors >= self.route_index_from
        return self.route_index == "hnsw"


_COLUMNS = ", ".join(column.name for column in fields(Settings))
READ = f"SELECT {_COLUMNS} FROM tinydancer.settings"  # noqa: S608 - our own names


def read_settings(conn: Connection) -> Settings:
    """The settings that `conn` sees. Raises NotReady where the row was deleted."""
    row = conn.execute(READ).fetchone()
    if row is None:
        raise NotReady(
            "the table tinydancer.settings has no row",
            hint="Bring the defaults back: INSERT INTO tinydancer.settings DEFAULT VALUES;",
        )
    return Settings(*row)


def open_embedder(settings: Settings) -> Embedder:
    """The embedder that a database's settings name."""
    return embedder_for(
        EmbedderSettings(
            kind=settings.embedder,
            model=settings.embedder_model,
            url=settings.embedder_url,
            dimension=settings.dimension,
            cascade_threshold=settings.cascade_threshold,
            api_key=read_api_key(),
        )
    )
