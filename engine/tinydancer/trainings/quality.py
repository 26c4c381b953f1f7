"""A quality model from the outcomes of a ledger, and whether it is better than the one in use."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime

import numpy as np

from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.learning.outcomes import Outcomes
from tinydancer.learning.quality import MOST_ROWS, QualityModel, fit_quality
from tinydancer.learning.quality_file import pack
from tinydancer.learning.refresh import LEAST_HELD_OUT, Verdict, compare
from tinydancer.learning.requests import Requests, describe
from tinydancer.neural.model_file import to_bytes
from tinydancer.store import training_queue
from tinydancer.store.database import Connection
from tinydancer.store.models import read_quality
from tinydancer.store.rewards import Judged, latest_outcomes, outcomes_of_decisions
from tinydancer.store.settings import open_embedder, read_settings
from tinydancer.store.training_queue import Training
from tinydancer.trainings.heartbeat import beating

logger = logging.getLogger(__name__)


def read_ledger(judged: Sequence[Judged], embedder: Embedder) -> tuple[Requests, Outcomes]:
    """The requests and what each agent earned on each."""
    agents = tuple(sorted({agent for one in judged for agent in one.rewards}))
    columns = {agent: column for column, agent in enumerate(agents)}
    rewards = np.full((len(judged), len(agents)), np.nan)
    for row, one in enumerate(judged):
        for agent, reward in one.rewards.items():
            rewards[row, columns[agent]] = reward
    propensities = [np.nan if one.propensity is None else one.propensity for one in judged]
    requests = describe([one.request for one in judged], _vectors(judged, embedder))
    return requests, Outcomes(agents, rewards, np.array(propensities))


def fit_ledger(judged: Sequence[Judged], embedder: Embedder, seed: int) -> QualityModel:
    """The guarded model of outcomes. Raises NotReady where there are none."""
    return fit_quality(*read_ledger(judged, embedder), seed)


def against(
    current: QualityModel, until: datetime, judged: Sequence[Judged], embedder: Embedder, seed: int
) -> Verdict | None:
    """How a model fitted as the new one does beside the one in use, on outcomes new to both.

    `current` has seen decisions up to `until`. Held out is the newer half of the later ones, in
    the order of time; None where those are fewer than LEAST_HELD_OUT.
    """
    unseen = sum(one.decided_at > until for one in judged)
    first = len(judged) - unseen // 2
    if len(judged) - first < LEAST_HELD_OUT:
        return None
    requests, outcomes = read_ledger(judged, embedder)
    before, after = np.arange(first), np.arange(first, len(judged))
    candidate = fit_quality(requests.take(before), outcomes.take(before), seed)
    return compare(current, candidate, requests.take(after), outcomes.take(after))


@dataclass(frozen=True)
class Refresh:
    """Whether a model should take the place of the one in use, if any, and what to say of it.

    `current` is None where there is none, or one that reads vectors of another space.
    """

    instead_of: int | None
    until: datetime | None
    current: QualityModel | None
    better: bool = False
    message: str = ""
    verdict: Verdict | None = None

    @classmethod
    def of(cls, conn: Connection, embedder: Embedder) -> Refresh:
        """The model in use. Raises InvalidInput where it can't be read."""
        in_use = training_queue.quality_in_use(conn)
        stored = read_quality(conn, embedder.space, None)
        number, until = (None, None) if in_use is None else in_use
        return cls(number, until, None if stored is None else stored.model)

    def judged(
        self, model: QualityModel, judged: Sequence[Judged], embedder: Embedder, seed: int
    ) -> Refresh:
        """With the verdict on a new model."""
        if self.current is None or self.until is None:
            better = model.evidence.estimates.holds
            how = "switched on" if better else "kept back"
            return replace(self, better=better, message=f"{how}: {model.evidence.sentence}")
        verdict = against(self.current, self.until, judged, embedder, seed)
        if verdict is None:
            return replace(
                self,
                message="kept back: too few decisions were made since the model in use to compare "
                f"the two on {LEAST_HELD_OUT}",
            )
        how = "switched on" if verdict.better else "kept back"
        message = f"{how}: {verdict.sentence} (model {self.instead_of})"
        return replace(self, better=verdict.better, message=message, verdict=verdict)


def train_quality(conn: Connection, training: Training) -> None:
    """Do a training of quality, and switch on a refreshed model that proves better."""
    embedder = open_embedder(read_settings(conn))
    decided = outcomes_of_decisions(conn)
    judged = latest_outcomes(conn, embedder.space, MOST_ROWS)
    refresh = Refresh.of(conn, embedder) if training.asked.get("refresh") else None
    with beating(conn, training, "fitting", 0.5):
        model = fit_ledger(judged, embedder, training.seed)
        if refresh is not None:
            refresh = refresh.judged(model, judged, embedder, training.seed)
    about = {
        "rows": len(judged),
        "agents": list(model.agents),
        "embedder": embedder.model,
        "until": judged[-1].decided_at.isoformat(),
        "decided": decided,
    }
    metrics: dict[str, object] = {
        **asdict(model.evidence),
        "sentence": model.evidence.sentence,
    }
    weights = to_bytes(pack(model, embedder.space))
    message = None
    if refresh is not None:
        message = refresh.message
        if refresh.verdict is not None:
            metrics["against_the_model_in_use"] = asdict(refresh.verdict)
    training_queue.finish(conn, training, weights, embedder.space, about, metrics, message)
    if refresh is not None and refresh.better:
        training_queue.switch_on(conn, training.model, refresh.instead_of, refresh.message)
    if message is not None:
        logger.info("model %d of quality: %s", training.model, message)


def _vectors(judged: Sequence[Judged], embedder: Embedder) -> Vectors:
    """(n, dimension) those that were kept, and new ones of the texts that lack theirs."""
    vectors = np.empty((len(judged), embedder.dimension), np.float32)
    missing = [row for row, one in enumerate(judged) if one.embedding is None]
    for row, one in enumerate(judged):
        if one.embedding is not None:
            vectors[row] = one.embedding
    if missing:
        vectors[missing] = embedder.embed([judged[row].request for row in missing])
    return vectors
