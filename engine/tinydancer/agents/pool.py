"""Which agents may be called right now: concurrency limits, circuit breakers, fallbacks.

Any number of engines serve one database, so nothing here is remembered by a process: the state of
a breaker is a function of the outcomes in the ledger and of the clock, and every engine that reads
the same rows comes to the same state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import isfinite

from tinydancer.errors import NumberOutOfRange


class BreakerState(str, Enum):
    """closed: called as usual; open: not called; half_open: a few probes may try it."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True)
class BreakerPolicy:
    """When a breaker opens and how it closes. Times in seconds.

    A failure weighs 1 when it happens and half as much each `half_life` later; a success likewise.
    The breaker opens when the failures weigh at least `threshold` and are at least `share` of all.
    After `cooldown` it lets up to `probes` calls at once try the agent; `successes` of them in a
    row close it, one failure opens it again, twice as long each time up to `longest_cooldown`.
    """

    threshold: float = 5.0
    share: float = 0.5
    half_life: float = 60.0
    cooldown: float = 30.0
    longest_cooldown: float = 600.0
    probes: int = 1
    successes: int = 2

    def __post_init__(self) -> None:
        for name in ("threshold", "half_life", "cooldown", "longest_cooldown"):
            value = getattr(self, name)
            if not (isfinite(value) and value > 0):
                raise NumberOutOfRange(f"{name} of a circuit breaker must be above 0, not {value}")
        if not 0 < self.share <= 1:
            raise NumberOutOfRange(f"share must be above 0 and at most 1, not {self.share}")
        if self.probes < 1 or self.successes < 1:
            raise NumberOutOfRange("probes and successes must be at least 1")


@dataclass(frozen=True)
class Outcome:
    """One finished call. at: seconds, on the database's clock."""

    at: float
    success: bool


@dataclass(frozen=True)
class Breaker:
    """A breaker as of `at`.

    failures and calls: decayed weights. opened_at and cooldown: of the last opening, None and 0
    while closed. proven: successes in a row since it became half open. openings: in a row, without
    a closing between.
    """

    state: BreakerState
    at: float
    failures: float = 0.0
    calls: float = 0.0
    opened_at: float | None = None
    cooldown: float = 0.0
    proven: int = 0
    openings: int = 0

    @property
    def retry_at(self) -> float | None:
        """When an open breaker lets a probe through; None in the other states."""
        if self.state is not BreakerState.OPEN or self.opened_at is None:
            return None
        return self.opened_at + self.cooldown


def breaker(outcomes: Iterable[Outcome], now: float, policy: BreakerPolicy) -> Breaker:
    """The state that these outcomes lead to at `now`.

    Outcomes may come in any order; those later than `now` are not counted. The order in which rows
    were written does not matter, only the times in them; at one time failures count first.
    """
    past = sorted(
        (outcome for outcome in outcomes if outcome.at <= now),
        key=lambda outcome: (outcome.at, outcome.success),
    )
    state = Breaker(BreakerState.CLOSED, past[0].at if past else now)
    for outcome in past:
        state = after(advance(state, outcome.at, policy), outcome, policy)
    return advance(state, now, policy)


def advance(state: Breaker, now: float, policy: BreakerPolicy) -> Breaker:
    """The same breaker later: weights decay, and an open one becomes half open in time."""
    decay = 0.5 ** ((now - state.at) / policy.half_life)
    retry_at = state.retry_at
    ready = retry_at is not None and now >= retry_at
    later = replace(state, at=now, failures=state.failures * decay, calls=state.calls * decay)
    return replace(later, state=BreakerState.HALF_OPEN, proven=0) if ready else later


def after(state: Breaker, outcome: Outcome, policy: BreakerPolicy) -> Breaker:
    """The breaker after one more outcome, which happened at `state.at`."""
    failures = state.failures + (not outcome.success)
    calls = state.calls + 1
    counted = replace(state, failures=failures, calls=calls)
    if state.state is BreakerState.OPEN:
        # A call that was under way when it opened: counted, but it proves nothing.
        return counted
    if state.state is BreakerState.HALF_OPEN:
        if not outcome.success:
            return _opened(counted, policy)
        if state.proven + 1 >= policy.successes:
            return Breaker(BreakerState.CLOSED, state.at)
        return replace(counted, proven=state.proven + 1)
    if failures >= policy.threshold and failures >= policy.share * calls:
        return _opened(counted, policy)
    return counted


@dataclass(frozen=True)
class Availability:
    """Whether an agent may be called now, and if not, why ('' where it may)."""

    agent: str
    available: bool
    reason: str


def availability(
    agent: str,
    state: Breaker,
    in_flight: int,
    limit: int | None,
    policy: BreakerPolicy,
) -> Availability:
    """in_flight: calls decided and not yet finished; limit: most at once, None for no limit."""
    if state.state is BreakerState.OPEN:
        wait = (state.retry_at or state.at) - state.at
        reason = (
            f"circuit breaker open after {state.failures:.1f} recent failures; "
            f"a probe may try it in {wait:.0f} s"
        )
        return Availability(agent, False, reason)
    if limit is not None and in_flight >= limit:
        return Availability(agent, False, f"{in_flight} calls in flight, at most {limit} at once")
    if state.state is BreakerState.HALF_OPEN and in_flight >= policy.probes:
        reason = f"circuit breaker half open with {in_flight} of {policy.probes} probes in flight"
        return Availability(agent, False, reason)
    return Availability(agent, True, "")


def fallback_chain(ranked: Sequence[str], available: Mapping[str, Availability]) -> tuple[str, ...]:
    """The agents to try, in the order of the decision; those that may not be called are left out.

    An agent with a half-open breaker keeps its place for as many calls as it has probes: were it
    put last it would never be tried, and never come back. The next in the chain serves the request
    if the probe fails.
    """
    return tuple(agent for agent in ranked if available[agent].available)


def _opened(state: Breaker, policy: BreakerPolicy) -> Breaker:
    openings = state.openings + 1
    cooldown = min(policy.cooldown * 2.0 ** min(openings - 1, 60), policy.longest_cooldown)
    return replace(
        state,
        state=BreakerState.OPEN,
        opened_at=state.at,
        cooldown=cooldown,
        proven=0,
        openings=openings,
    )
