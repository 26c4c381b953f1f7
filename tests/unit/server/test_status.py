"""What engine_status shows of an engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from tinydancer.embeddings.select import Usage
from tinydancer.server.engine import Engine
from tinydancer.server.metrics import Metrics


def test_what_the_embedder_and_the_log_have_counted_is_shown() -> None:
    # given an engine whose cascade has handed requests over
    metrics = Metrics()
    metrics.note(Usage(cache_hits=1, cache_misses=2, cascaded=9, escalated=4), (5, 6))
    engine = SimpleNamespace(_metrics=metrics, figures=metrics.read)
    # when its status is read
    status = Engine.status(cast(Any, engine))
    # then every count is there
    assert (status.cache_hits, status.cache_misses, status.escalated) == (1, 2, 4)
    assert (status.decisions_kept, status.decisions_lost) == (5, 6)
