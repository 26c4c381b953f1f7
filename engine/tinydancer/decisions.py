"""A decision as it is kept, and the id that its outcome names."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

from tinydancer.embeddings.base import Vectors

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, eq=False)
class Decision:
    """One decision as it is kept; `id` comes from `new_decision_id` and carries its time.

    `embedding` is (d,) float32 or None; `candidates` is what the explanation shows of each;
    `propensity` the probability with which this agent was chosen. The members of a team have a
    decision each, `team` being the id of the first one.
    """

    id: UUID
    request: str
    optimize_for: str
    agent: str | None
    tenant: str = "default"
    embedding: Vectors | None = None
    embedding_model: str | None = None
    embedding_space: str | None = None
    route: str | None = None
    category: str | None = None
    user_tier: str | None = None
    session_key: str | None = None
    constraints: Mapping[str, object] = field(default_factory=dict)
    candidates: Sequence[object] = ()
    propensity: float = 1.0
    confidence: float | None = None
    estimated_cost: Decimal | None = None
    estimated_latency_ms: float | None = None
    expected_quality: float | None = None
    models: Mapping[str, object] = field(default_factory=dict)
    team: UUID | None = None


def new_decision_id(now: datetime) -> UUID:
    """A UUID of version 7 (RFC 9562, section 5.7): milliseconds since 1970, then chance."""
    milliseconds = (now - _EPOCH) // timedelta(milliseconds=1)
    chance = secrets.randbits(74)
    return UUID(
        int=milliseconds << 80 | 0x7 << 76 | (chance >> 62) << 64 | 0b10 << 62 | chance % (1 << 62)
    )


def decision_time(id_: UUID) -> datetime:
    """The time in a decision's id."""
    return _EPOCH + timedelta(milliseconds=id_.int >> 80)
