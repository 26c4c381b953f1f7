"""A circuit breaker as a function of outcomes and the clock: the reference for the one in SQL."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Policy:
    """The settings of a breaker. Times in seconds."""

    failures: float = 4.5
    share: float = 0.6
    half_life: float = 60.0
    cooldown: float = 30.0
    longest_cooldown: float = 600.0
    successes: int = 2


@dataclass(frozen=True)
class Breaker:
    """A breaker as of `at`: failures and calls are decayed weights."""

    at: float = 0.0
    failures: float = 0.0
    calls: float = 0.0
    retry_at: float | None = None
    proven: int = 0
    openings: int = 0

    @property
    def state(self) -> str:
        """closed, open or half_open."""
        if self.retry_at is None:
            return "closed"
        return "open" if self.at < self.retry_at else "half_open"


def advance(breaker: Breaker, now: float, policy: Policy) -> Breaker:
    """The same breaker later."""
    decay = 0.5 ** ((now - breaker.at) / policy.half_life)
    return replace(breaker, at=now, failures=breaker.failures * decay, calls=breaker.calls * decay)


def after(breaker: Breaker, success: bool, policy: Policy) -> Breaker:
    """The breaker after one more outcome, at its own time."""
    counted = replace(breaker, failures=breaker.failures + (not success), calls=breaker.calls + 1)
    if breaker.state == "open":
        return counted  # a call that was under way when it opened proves nothing
    if breaker.state == "half_open":
        if not success:
            return _opened(counted, policy)
        if breaker.proven + 1 >= policy.successes:
            return Breaker(breaker.at)
        return replace(counted, proven=breaker.proven + 1)
    enough = counted.failures >= policy.failures
    if not success and enough and counted.failures >= policy.share * counted.calls:
        return _opened(counted, policy)
    return counted


def _opened(breaker: Breaker, policy: Policy) -> Breaker:
    wait = min(policy.cooldown * 2.0**breaker.openings, policy.longest_cooldown)
    return replace(breaker, retry_at=breaker.at + wait, proven=0, openings=breaker.openings + 1)
