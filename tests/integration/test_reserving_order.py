"""A batch reserves what its claims would have reserved one after the other, to the letter."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import psycopg
import pytest

RESERVE = (
    "SELECT refusing, limits FROM reserve_calls(%s::uuid[], %s::text[], %s::text[], %s::text[],"
    " %s::text[], %s::numeric[])"
)
STATE = [
    "SELECT budget, spent, reserved FROM budget_periods WHERE reserved > 0 ORDER BY 1",
    "SELECT decision_id, budget, amount FROM budget_reservations ORDER BY 1, 2",
    "SELECT decision_id, agent, probe FROM calls_in_flight ORDER BY 1",
]
UNTIL = "2999-01-01 00:00:00+00:00"
Claim = tuple[uuid.UUID, str, str, str | None, str | None, Decimal]
Answer = tuple[str | None, str | None]


@dataclass
class Budget:
    """What a budget is for, and has left."""

    scope: str
    subject: str | None
    tenant: str | None
    limit: Decimal
    used: Decimal

    def covers(self, tenant: str, agent: str, route: str | None, tier: str | None) -> bool:
        whose = {"all": None, "agent": agent, "route": route, "tenant": tenant, "user_tier": tier}
        return self.tenant in (None, tenant) and self.subject == whose[self.scope]


@dataclass
class Guard:
    """A limit of calls, and the circuit: closed, open, or half open with so many probes."""

    most: int | None
    circuit: str
    calls: int = 0
    probes: int = 0

    def refusal(self) -> Answer | None:
        if self.circuit == "open":
            return ("circuit_breaker", f"open until {UNTIL}")
        if self.most is not None and self.calls >= self.most:
            return ("concurrency_limit", str(self.most))
        if self.circuit == "half_open" and self.probes >= 2:
            return ("circuit_breaker", f"half open with {self.probes} of 2 probes under way")
        return None


@dataclass
class World:
    """The rules as plain code, claim by claim."""

    budgets: dict[str, Budget] = field(default_factory=dict)
    guards: dict[str, Guard] = field(default_factory=dict)

    def reserve(self, claim: Claim) -> Answer:
        _, tenant, agent, route, tier, amount = claim
        guard = self.guards.get(agent)
        if guard and (refusal := guard.refusal()):
            return refusal
        under = [name for name, one in sorted(self.budgets.items())
                 if one.covers(tenant, agent, route, tier)]  # fmt: skip
        for name in under:
            budget = self.budgets[name]
            if amount > 0 and budget.used + amount > budget.limit:
                return ("budget", name)
        for name in under:
            self.budgets[name].used += amount
        if guard:
            guard.calls += 1
            guard.probes += 1
        return (None, None)


AGENTS = ["a", "b", "c", "d"]


def a_world(chance: random.Random) -> World:
    world = World()
    for number in range(chance.randint(0, 5)):
        scope, subject = chance.choice(
            [("all", None), ("agent", "a"), ("agent", "b"), ("route", "r"), ("user_tier", "gold"),
             ("tenant", "t")]
        )  # fmt: skip
        limit, used = Decimal(chance.randint(0, 60)) / 10, Decimal(chance.randint(0, 20)) / 10
        tenant = chance.choice([None, None, "t"])
        world.budgets[f"b{number}"] = Budget(scope, subject, tenant, limit, used)
    for agent in AGENTS[: chance.randint(0, 3)]:
        circuit = chance.choice(["closed", "closed", "open", "half_open"])
        most = chance.choice([None, 1, 3, 10]) if circuit != "closed" else chance.randint(1, 10)
        world.guards[agent] = Guard(most, circuit)
    return world


def install(conn: psycopg.Connection[Any], world: World) -> None:
    conn.execute("UPDATE settings SET breaker_probes = 2")
    for agent in AGENTS:
        guard = world.guards.get(agent, Guard(None, "closed"))
        conn.execute(
            "SELECT ruvector_register_agent(%s, concurrency_limit := %s)", (agent, guard.most)
        )
        if guard.circuit != "closed":
            retry_at = UNTIL if guard.circuit == "open" else "2001-01-01Z"
            conn.execute(
                "INSERT INTO agent_breakers (agent, is_open, opened_at, retry_at)"
                " VALUES (%s, true, '2001-01-01Z', %s)",
                (agent, retry_at),
            )
    for name, budget in world.budgets.items():
        values = (name, budget.limit, budget.scope, budget.subject, budget.tenant, budget.used)
        conn.execute(
            "WITH made AS (SELECT ruvector_set_budget(%s, %s, %s, %s, tenant := %s)) SELECT * FROM"
            " made",
            values[:5],
        )
        # What was spent may be over the limit.
        conn.execute(
            "INSERT INTO budget_periods (budget, period_start, spent)"
            " VALUES (%s, period_start('month', now()), %s)",
            (name, budget.used),
        )


def claims(chance: random.Random, number: int) -> list[Claim]:
    return [
        (
            uuid.UUID(int=chance.getrandbits(128)),
            chance.choice(["t", "u"]),
            chance.choice(AGENTS),
            chance.choice([None, "r", "s"]),
            chance.choice([None, "gold"]),
            Decimal(chance.choice([0, 1, 1, 2, 5, 9, 30])) / 10,
        )
        for _ in range(number)
    ]


@pytest.mark.parametrize("seed", range(40))
def test_a_batch_is_answered_as_its_claims_one_after_the_other(conn, seed):
    chance = random.Random(seed)
    world = a_world(chance)
    install(conn, world)
    asked = claims(chance, chance.choice([1, 2, 40]))

    def reserve(batches: list[list[Claim]]) -> tuple[list[Answer], list[Any]]:
        """The answers, and what is in the tables then; nothing is kept."""
        answers: list[Answer] = []
        with conn.transaction(force_rollback=True):
            for batch in batches:
                columns = [list(column) for column in zip(*batch, strict=True)]
                refusing, limits = conn.execute(RESERVE, columns).fetchone()
                answers += zip(refusing, limits, strict=True)
            return answers, [conn.execute(statement).fetchall() for statement in STATE]

    whole = reserve([asked])
    assert whole == reserve([[claim] for claim in asked])
    assert whole == reserve([asked[:7], asked[7:]] if asked[7:] else [asked])
    assert whole[0] == [world.reserve(claim) for claim in asked]


def test_no_claims_reserve_nothing(conn):
    conn.execute("SELECT ruvector_set_budget('all', 1)")
    assert conn.execute(RESERVE, [[]] * 6).fetchone() == ([], [])


def test_one_amount_that_makes_no_sense_reserves_nothing_at_all(conn):
    conn.execute("SELECT ruvector_set_budget('all', 10)")
    batch = [(uuid.uuid4(), "t", "a", None, None, Decimal(amount)) for amount in ("1", "NaN")]
    with pytest.raises(psycopg.errors.NumericValueOutOfRange, match="amount is NaN"):
        conn.execute(RESERVE, [list(column) for column in zip(*batch, strict=True)])
    assert conn.execute("SELECT count(*) FROM budget_reservations").fetchone() == (0,)
