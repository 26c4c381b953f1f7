"""The threshold of a cascade, by the share of requests that it is to escalate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np

from tinydancer.agents import fit
from tinydancer.agents.registry import Floats
from tinydancer.embeddings.base import Embedder
from tinydancer.embeddings.cascade import CascadeEmbedder, threshold_for_share
from tinydancer.errors import NotReady
from tinydancer.store.database import Connection, Database
from tinydancer.store.snapshot import Snapshot, read_snapshot

MOST_REQUESTS = 10_000
REQUESTS = """
SELECT request FROM tinydancer.decisions WHERE request IS NOT NULL
GROUP BY request ORDER BY max(decided_at) DESC LIMIT %s
"""
SET_THRESHOLD = "UPDATE tinydancer.settings SET cascade_threshold = %s"
# The largest that the table takes: twice the range of a cosine's sign.
_MOST = 2.0


@dataclass(frozen=True)
class FittedShare:
    """The threshold, the requests that it was fitted on, and the share of them below it."""

    threshold: float
    requests: int
    share: float


def fit_cascade(database: Database, embedder: Embedder, share: float) -> FittedShare:
    """Set the threshold under which at most `share` of the latest kept requests are escalated.

    Raises NotReady where the embedder is no cascade or there is nothing to fit on, InvalidInput
    for a share outside 0 to 1.
    """
    if not isinstance(embedder, CascadeEmbedder):
        raise NotReady(
            f"the embedder {embedder.model} is no cascade",
            hint="Make it one: tinydancer reembed --embedder cascade",
        )
    snapshot, texts = database.run(lambda conn: _read(conn, embedder))
    margins = _margins(snapshot, embedder.quick, texts) if texts else np.empty(0)
    margins = margins[np.isfinite(margins)]
    if not len(margins):
        raise NotReady(
            f"{len(texts)} kept requests and {len(snapshot.agents)} active agents leave no choice "
            "to be in doubt of",
            hint="Let it decide for a while: requests are kept with decision_log_text, where "
            "decision_id is asked for.",
        )
    threshold = min(threshold_for_share(margins, share), _MOST)
    database.run(lambda conn: conn.execute(SET_THRESHOLD, (threshold,)))
    return FittedShare(threshold, len(margins), float((margins < threshold).mean()))


def _read(conn: Connection, embedder: Embedder) -> tuple[Snapshot, list[str]]:
    snapshot, _ = read_snapshot(conn, embedder, None)
    return snapshot, [text for (text,) in conn.execute(REQUESTS, (MOST_REQUESTS,)).fetchall()]


def _margins(snapshot: Snapshot, quick: Embedder, texts: Sequence[str]) -> Floats:
    """(n,) the margins by which decisions on the texts escalate: of the agents' fits."""
    vectors = quick.embed(texts)
    lifts = fit.lifts(
        vectors,
        snapshot.agents,
        snapshot.routes,
        user_tier=None,
        now=datetime.now(timezone.utc),
        default_threshold=snapshot.settings.route_threshold,
    )
    return fit.margins(fit.similarity(vectors, snapshot.agents), lifts)
