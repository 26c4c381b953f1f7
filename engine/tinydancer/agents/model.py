"""An agent: an LLM, a tool, an API, a person or an ensemble that can serve requests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prices:
    """What an agent costs; an unset price is 0. Money, in the currency of the installation."""

    per_1k_input_tokens: float = 0.0
    per_1k_output_tokens: float = 0.0
    per_call: float = 0.0
    per_second: float = 0.0


@dataclass(frozen=True)
class Performance:
    """How an agent does: as registered (a prior), until outcomes say otherwise.

    `avg_latency_ms` is in milliseconds, `quality` 0 to 1, `output_tokens` the mean of its answers
    so far, None without any. `outcomes` is how many outcomes stand behind these figures: 0 marks a
    prior.
    """

    avg_latency_ms: float
    quality: float
    output_tokens: float | None = None
    outcomes: int = 0


@dataclass(frozen=True)
class Agent:
    """One row of the table `agents`; `concurrency_limit` is the most calls at once, or None."""

    name: str
    type: str
    capabilities: tuple[str, ...]
    prices: Prices
    performance: Performance
    active: bool = True
    concurrency_limit: int | None = None

    @property
    def text(self) -> str:
        """What its embedding is made from: its capabilities, or its name where it lists none."""
        return ", ".join(self.capabilities) or self.name
