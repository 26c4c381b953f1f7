"""Which agents may be called right now, as far as the tables said when they were read.

Circuits and calls under way are kept in the database, where outcomes move them: any number of
engines comes to the same answer, and a restart forgets nothing. What is read with the snapshot
spares a decision the question: an open circuit refuses its agent at once, and only who is guarded
(by a concurrency limit, or by a circuit that isn't closed) has its calls counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from tinydancer.agents.model import Agent


@dataclass(frozen=True)
class Pool:
    """What bounds the calls to agents.

    `limits` are the agents with a concurrency limit, and `retry_at` those whose circuit is not
    closed, each with the time until which it is open; from then on it is half open.
    """

    limits: Mapping[str, int] = field(default_factory=dict)
    retry_at: Mapping[str, datetime] = field(default_factory=dict)

    @classmethod
    def of(cls, agents: Sequence[Agent], retry_at: Mapping[str, datetime]) -> Pool:
        """The pool of some agents."""
        limits = {
            agent.name: agent.concurrency_limit
            for agent in agents
            if agent.concurrency_limit is not None
        }
        return cls(limits, retry_at)

    @cached_property
    def guarded(self) -> frozenset[str]:
        """The agents whose calls are counted."""
        return frozenset({*self.limits, *self.retry_at})

    def open(self, now: datetime) -> list[tuple[str, datetime]]:
        """The agents whose circuit is open at a time, by name, and until when."""
        return [(name, until) for name, until in sorted(self.retry_at.items()) if now < until]
