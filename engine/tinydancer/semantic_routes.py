"""Named routes: which of them a text means, by the likeness of their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.base import Vectors
from tinydancer.errors import NotReady

Positions = NDArray[np.intp]


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
        raise NotReady(
            f"the engine's machine does not know the time zone {name!r} of a route",
            hint="Use an IANA name such as 'Europe/Vienna', or install the package tzdata.",
        ) from None


UNCONDITIONAL = Conditions()


@dataclass(frozen=True)
class Route:
    """A named route to an agent. `threshold` None means the default of the settings."""

    name: str
    description: str
    target_agent: str
    priority: int = 0
    threshold: float | None = None
    active: bool = True
    conditions: Conditions = UNCONDITIONAL
    utterances: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class RouteTable:
    """The active routes, sorted by name, with their vectors.

    A route has a vector of its own and one for each utterance; its similarity to a query is the
    greatest cosine among them. Of m vectors in all, `vectors` is (m, d) with unit rows, those of
    one route side by side, and `starts` (r,) is where each route's begin. A table without vectors
    (m = 0) holds routes that are searched in the database.
    """

    routes: tuple[Route, ...]
    vectors: Vectors
    starts: Positions

    @classmethod
    def build(
        cls, routes: Sequence[Route], vectors: Vectors, owners: NDArray[np.int64]
    ) -> RouteTable:
        """The table of the active ones among `routes`; row i of `vectors` is of `owners[i]`.

        Raises ValueError where the lengths differ, or a route has no vector while others have.
        """
        owners = np.asarray(owners, np.intp)
        if len(owners) != len(vectors):
            raise ValueError(f"{len(vectors)} vectors but {len(owners)} owners")
        order = sorted(
            (row for row, route in enumerate(routes) if route.active),
            key=lambda row: routes[row].name,
        )
        active = tuple(routes[row] for row in order)
        if not len(vectors):
            return cls(active, np.ascontiguousarray(vectors, np.float32), np.zeros(0, np.intp))
        position = np.full(len(routes), -1, np.intp)
        position[order] = np.arange(len(order))
        places = position[owners]
        kept = np.flatnonzero(places >= 0)
        kept = kept[np.argsort(places[kept], kind="stable")]
        found, starts = np.unique(places[kept], return_index=True)
        if len(found) != len(active):
            bare = active[int(np.setdiff1d(np.arange(len(active)), found)[0])].name
            raise ValueError(f"route {bare!r} has no vector")
        return cls(active, np.ascontiguousarray(vectors[kept], np.float32), starts)

    def __len__(self) -> int:
        return len(self.routes)
