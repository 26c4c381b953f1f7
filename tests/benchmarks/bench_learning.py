"""Learning and optimising, timed on made-up data: python tests/benchmarks/bench_learning.py

Median and 95th percentile of processor time, and what matters beside it: how far a batch is from
its bound. Processor time, because the wall clock of a busy machine says little.
"""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

import numpy as np

from tinydancer.cost_optimizer.allocation import Market, allocate_budget
from tinydancer.cost_optimizer.batch import optimise_batch
from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.learning.exploration import Beliefs, thompson
from tinydancer.learning.outcomes import Outcomes
from tinydancer.learning.quality import fit_quality
from tinydancer.learning.requests import describe
from tinydancer.teams.decomposition import split_request

WORDS = ("sum", "list", "poem", "proof", "court", "river", "loan", "cell", "verb", "tax", "root")
TEXT = "Write a Python function that parses the log and returns the three most frequent errors"


def timed(name: str, work: Callable[[], object], repeats: int) -> None:
    """Prints median and p95."""
    taken = []
    for _ in range(repeats):
        start = process_time()
        work()
        taken.append(1000 * (process_time() - start))
    print(f"{name:58s} {np.median(taken):10.3f} ms {np.quantile(taken, 0.95):10.3f} ms")


def learning() -> None:
    """Training on 2,000 requests, and estimating with the model."""
    rng = np.random.default_rng(0)
    texts = [
        " ".join(rng.choice(WORDS, rng.integers(5, 30))) + f" {rng.integers(1000)}?"
        for _ in range(2000)
    ]
    embedder = StaticEmbedder.builtin()
    requests = describe(texts, embedder.embed(texts))
    hard = requests.surface[:, 0] - requests.surface[:, 0].mean()
    rates = 1 / (1 + np.exp(np.outer(hard, np.linspace(3, -3, 10))))
    rewards = (rng.random(rates.shape) < rates).astype(np.float64)
    outcomes = Outcomes(tuple("abcdefghij"), rewards)
    timed("train, 2,000 requests x 10 agents", lambda: fit_quality(requests, outcomes), 1)
    model = fit_quality(requests, outcomes)
    one = describe([TEXT], embedder.embed([TEXT]))
    vector = embedder.embed([TEXT])
    timed("surface and terms of a 14-word request", lambda: describe([TEXT], vector), 300)
    timed(
        f"estimate, one request ({len(model.estimator.parts)} parts)",
        lambda: model.estimate(one),
        300,
    )
    timed("estimate, 2,000 requests", lambda: model.estimate(requests), 3)


def batches() -> None:
    """10,000 requests by 20 agents: total cost, with and without limits."""
    rng = np.random.default_rng(1)
    n, m = 10_000, 20
    price = np.exp(rng.normal(0, 1.5, m)) * 1e-3
    costs = price * np.exp(rng.normal(0, 0.8, n))[:, None]
    better = 0.5 + 0.04 * np.log(price / price.min())
    quality = np.clip(better + rng.normal(0, 0.1, (n, m)), 0, 1)
    capacity = np.full(m, 650, dtype=np.int64)
    for name, limits in (
        ("no limit", {}),
        ("quality floor", {"min_mean_quality": 0.7}),
        ("capacities", {"capacity": capacity}),
        ("capacities and quality floor", {"capacity": capacity, "min_mean_quality": 0.66}),
    ):
        plan = optimise_batch(costs, quality, **limits)
        gap = 100 * (plan.total_cost / plan.bound - 1)
        timed(
            f"batch 10,000 x 20, {name} (gap {gap:.5f}%)",
            lambda limits=limits: optimise_batch(costs, quality, **limits),  # type: ignore[misc]
            2,
        )


def rest() -> None:
    """The small ones."""
    rng = np.random.default_rng(2)
    market = Market(
        agents=tuple(f"agent{i:02d}" for i in range(50)),
        categories=tuple(f"category{i}" for i in range(20)),
        cost=rng.lognormal(-6, 1, (20, 50)),
        quality=rng.uniform(0.4, 1, (20, 50)),
        latency_ms=rng.uniform(100, 3000, 50),
        capacity=np.full(50, 5000.0),
    )
    demand = rng.uniform(100, 5000, 20)
    timed(
        "budget, 20 categories x 50 agents", lambda: allocate_budget(market, 200, demand=demand), 5
    )
    alpha, beta = rng.uniform(1, 50, 10), rng.uniform(1, 50, 10)
    timed("Thompson, 10 agents", lambda: thompson(Beliefs(alpha, beta), np.zeros(10)), 100)
    timed("take a request apart", lambda: split_request("Build and deploy a web application"), 300)


if __name__ == "__main__":
    print(f"{'':58s} {'median':>13s} {'p95':>13s}")
    learning()
    batches()
    rest()
