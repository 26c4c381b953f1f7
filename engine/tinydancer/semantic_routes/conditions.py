"""When and for whom a route may be taken."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from tinydancer.errors import NotReady


@dataclass(frozen=True)
class Conditions:
    """When and for whom a route may be taken.

    The window runs from `time_from` up to, not including, `time_to`, on the clocks of `time_zone`
    (an IANA name); it may run over midnight, a missing end is midnight, and equal ends mean the
    whole day. `user_tiers` empty means everybody. `rate_limit_per_minute` is how many requests
    may take the route in a minute.
    """

    time_from: time | None = None
    time_to: time | None = None
    time_zone: str = "UTC"
    user_tiers: tuple[str, ...] = ()
    rate_limit_per_minute: int | None = None

    def permit(self, user_tier: str | None, now: datetime) -> bool:
        """Whether tier and time allow it; `now` must know its zone. Rates are the store's.

        Raises NotReady where this machine does not know the time zone.
        """
        if self.user_tiers and user_tier not in self.user_tiers:
            return False
        if self.time_from is None and self.time_to is None:
            return True
        clock = now.astimezone(_zone(self.time_zone)).time()
        start, end = self.time_from or time.min, self.time_to or time.min
        if start < end:
            return start <= clock < end
        return clock >= start or clock < end


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        # PostgreSQL, which has checked the name, looks at no capitals.
        for known in available_timezones():
            if known.lower() == name.lower():
                return ZoneInfo(known)
        raise NotReady(
            f"the engine's machine does not know the time zone {name!r} of a route",
            hint="Use an IANA name such as 'Europe/Vienna', or install the package tzdata.",
        ) from None


UNCONDITIONAL = Conditions()
