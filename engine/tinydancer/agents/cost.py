"""What a request costs: the one formula, for filter, score, estimate and ledger alike."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tinydancer.agents.registry import AgentTable, Floats, Ints

# Money is compared, shown and booked to a billionth of its unit.
DECIMALS = 9


def cost(prices: Floats, tokens_in: Ints, tokens_out: Floats, latency_ms: Floats) -> Floats:
    """Money for requests of `tokens_in` answered in `tokens_out` after `latency_ms`.

    `prices` is (4, a): per 1,000 input tokens, per 1,000 output tokens, per call, per second.
    The others broadcast against its columns: (n, 1) for n requests, (a,) for a figure an agent.
    """
    per_1k_input, per_1k_output, per_call, per_second = prices
    fixed = tokens_out / 1000.0 * per_1k_output + per_call + latency_ms / 1000.0 * per_second
    total: Floats = (tokens_in / 1000.0 * per_1k_input + fixed).round(DECIMALS)
    return total


@lru_cache(maxsize=4)
def output_tokens(agents: AgentTable, expected: int | None, default: int) -> Floats:
    """(a,) tokens that each agent's answer will have: as the caller expects, else the mean of
    its answers so far, else the default of the settings. Not to be written to.
    """
    if expected is not None:
        tokens = np.full(len(agents), float(expected))
    else:
        tokens = np.where(np.isnan(agents.output_tokens), float(default), agents.output_tokens)
    tokens.flags.writeable = False  # it is the same for all who ask
    return tokens


@lru_cache(maxsize=4)
def output_tokens_sources(agents: AgentTable, expected: int | None) -> tuple[str, ...]:
    """Where the figure of `output_tokens` came from, agent by agent."""
    if expected is not None:
        return ("request",) * len(agents)
    unknown = np.isnan(agents.output_tokens).tolist()
    return tuple("default" if default else "history" for default in unknown)
