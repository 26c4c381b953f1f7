"""Learning and optimising, timed on made-up data.

    python -m tests.benchmarks.bench_learning [--requests N]

Median and 95th percentile of processor time, and what matters beside it: how far a batch is from
its bound. Processor time, because the wall clock of a busy machine says little. A batch has N
requests, and the model is trained on a fifth of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
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


def learning(number: int) -> None:
    """Training on so many requests, and estimating with the model."""
    rng = np.random.default_rng(0)
    texts = [
        " ".join(rng.choice(WORDS, rng.integers(5, 30))) + f" {rng.integers(1000)}?"
        for _ in range(number)
    ]
    embedder = StaticEmbedder.builtin()
    requests = describe(texts, embedder.embed(texts))
    hard = requests.surface[:, 0] - requests.surface[:, 0].mean()
    rates = 1 / (1 + np.exp(np.outer(hard, np.linspace(3, -3, 10))))
    rewards = (rng.random(rates.shape) < rates).astype(np.float64)
    outcomes = Outcomes(tuple("abcdefghij"), rewards)
    timed(f"train, {number:,} requests x 10 agents", lambda: fit_quality(requests, outcomes), 1)
    model = fit_quality(requests, outcomes)
    one = describe([TEXT], embedder.embed([TEXT]))
    vector = embedder.embed([TEXT])
    timed("surface and terms of a 14-word request", lambda: describe([TEXT], vector), 300)
    timed(
        f"estimate, one request ({len(model.estimator.parts)} parts)",
        lambda: model.estimate(one),
        300,
    )
    timed(f"estimate, {number:,} requests", lambda: model.estimate(requests), 3)


def batches(n: int) -> None:
    """So many requests by 20 agents: total cost, with and without limits."""
    rng = np.random.default_rng(1)
    m = 20
    price = np.exp(rng.normal(0, 1.5, m)) * 1e-3
    costs = price * np.exp(rng.normal(0, 0.8, n))[:, None]
    better = 0.5 + 0.04 * np.log(price / price.min())
    quality = np.clip(better + rng.normal(0, 0.1, (n, m)), 0, 1)
    capacity = np.full(m, np.ceil(1.3 * n / m), dtype=np.int64)
    for name, limits in (
        ("no limit", {}),
        ("quality floor", {"min_mean_quality": 0.7}),
        ("capacities", {"capacity": capacity}),
        ("capacities and quality floor", {"capacity": capacity, "min_mean_quality": 0.66}),
    ):
        plan = optimise_batch(costs, quality, **limits)
        gap = 100 * (plan.total_cost / plan.bound - 1)
        timed(
            f"batch {n:,} x 20, {name} (gap {gap:.5f}%)",
            partial(optimise_batch, costs, quality, **limits),
            2,
        )


def small_batches() -> None:
    """A thousand of up to 6 requests by 3 agents, with a floor: how many are the optimum."""
    rng = np.random.default_rng(0)
    excesses = []
    for _ in range(1000):
        n, m = int(rng.integers(1, 7)), 3
        costs = rng.random((n, m))
        quality = (costs + rng.random((n, m))) / 2
        floor = quality.max(axis=1).mean() * rng.uniform(0.6, 1)
        choices = np.array(list(product(range(m), repeat=n)))
        rows = np.arange(n)
        reached = quality[rows, choices].mean(axis=1) >= floor - 1e-9
        best = costs[rows, choices].sum(axis=1)[reached].min()
        excesses.append(
            optimise_batch(costs, quality, min_mean_quality=floor).total_cost / best - 1
        )
    missed = np.array([excess for excess in excesses if excess > 1e-9])
    print(
        f"batches of up to 6 x 3 with a floor: {1 - len(missed) / len(excesses):.1%} are the "
        f"optimum, the others {missed.mean():.1%} above it on average, {missed.max():.1%} at most"
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args(arguments)
    print(f"{'':58s} {'median':>13s} {'p95':>13s}")
    learning(options.requests // 5)
    batches(options.requests)
    small_batches()
    rest()


if __name__ == "__main__":
    main()
