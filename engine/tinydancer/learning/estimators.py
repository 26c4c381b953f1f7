"""Estimates of the reward of every agent on a request: nearest neighbours, ridge, kernel ridge.

A family is one such method in several settings. It comes with what each setting predicts for rows
that it has not seen (in closed form for the ridges), and builds the estimator of any weighted sum
of its settings over all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tinydancer.learning.feature_map import FeatureMap, fit_feature_map
from tinydancer.learning.outcomes import Doubles, Outcomes
from tinydancer.learning.requests import Floats, Requests, Rows
from tinydancer.learning.ridge import RidgePath
from tinydancer.learning.search import nearest

LEAST_ROWS = 20
"""Outcomes an agent needs before its estimate may depend on the request."""
NEIGHBOURS = (10, 50, 200)
NEIGHBOUR_PRIOR = 5.0
"""Weight of an agent's mean among its neighbours, in neighbours."""
LINEAR_STRENGTHS = (1.0, 10.0, 100.0)
KERNEL_STRENGTHS = (3.0, 10.0, 30.0, 100.0)
SURFACE_WEIGHT = np.float32(0.1)
SURFACE_CLIP = 4.0


class Estimator(Protocol):
    """Estimates rewards."""

    def estimate(self, requests: Requests) -> Doubles:
        """(n, m): the expected reward of each agent on each request."""


@dataclass(frozen=True, eq=False)
class Family:
    """settings: what each is called; held_out: for each, (n, m) predictions of unseen rows.

    `build(weights)` is the weighted sum of the settings, fitted to all rows.
    """

    settings: tuple[str, ...]
    held_out: tuple[Doubles, ...]
    build: Callable[[tuple[float, ...]], Estimator]


@dataclass(frozen=True, eq=False)
class Served:
    """Requests that some agents have all served. columns: (c,) agents; rewards: (rows, c)."""

    columns: Rows
    embeddings: Floats
    rewards: Doubles


@dataclass(frozen=True, eq=False)
class NeighbourEstimator:
    """Mean reward over the k most similar requests that an agent has served, shrunk to its mean.

    weights: one a setting of NEIGHBOURS; means: (m,).
    """

    weights: tuple[float, ...]
    means: Doubles
    served: tuple[Served, ...]

    def estimate(self, requests: Requests) -> Doubles:
        """(n, m)."""
        prior = np.tile(self.means, (len(requests), 1))
        estimates = sum(self.weights) * prior
        for group in self.served:
            near = nearest(requests.embeddings, group.embeddings, max(NEIGHBOURS))
            means = neighbour_means(group.rewards, near, prior[:, group.columns])
            estimates[:, group.columns] = sum(
                weight * mean for weight, mean in zip(self.weights, means, strict=True)
            )
        return np.asarray(estimates)


@dataclass(frozen=True, eq=False)
class LinearEstimator:
    """Linear in the embedding and the standardised surface features.

    mean and factor: (k,) of the surface; weights: (d + k, m); intercepts: (m,).
    """

    mean: Floats
    factor: Floats
    weights: Doubles
    intercepts: Doubles

    def estimate(self, requests: Requests) -> Doubles:
        """(n, m)."""
        return linear_features(requests, self.mean, self.factor) @ self.weights + self.intercepts


@dataclass(frozen=True, eq=False)
class KernelEstimator:
    """Linear in the coordinates of a feature map, folded into weights on its kernel values.

    weights: (a + b + v, m); intercepts: (m,).
    """

    map: FeatureMap
    weights: Doubles
    intercepts: Doubles

    def estimate(self, requests: Requests) -> Doubles:
        """(n, m)."""
        return self.map.kernels(requests) @ self.weights + self.intercepts


def families(requests: Requests, outcomes: Outcomes, seed: int = 0) -> Iterator[Family]:
    """Every family over these rows; none where no agent has LEAST_ROWS outcomes. O(n² d) time."""
    if not any(True for _ in outcomes.groups(LEAST_ROWS)):
        return
    yield _neighbours(requests, outcomes)
    yield _linear(requests, outcomes)
    yield _kernel(requests, outcomes, seed)


def neighbour_means(rewards: Doubles, near: Rows, prior: Doubles) -> list[Doubles]:
    """For each setting of NEIGHBOURS the (n, c) shrunk mean.

    rewards: (rows, c); near: (n, k) rows, nearest first; prior: (n, c).
    """
    sums = np.stack([np.cumsum(column[near], axis=1) for column in rewards.T], axis=2)
    means = []
    for k in NEIGHBOURS:
        count = min(k, near.shape[1])
        means.append((sums[:, count - 1] + NEIGHBOUR_PRIOR * prior) / (count + NEIGHBOUR_PRIOR))
    return means


def linear_features(requests: Requests, mean: Floats, factor: Floats) -> Floats:
    """(n, d + k): the embedding beside the standardised surface, so weighted that both count."""
    surface = np.clip((requests.surface - mean) * factor, -SURFACE_CLIP, SURFACE_CLIP)
    return np.hstack([requests.embeddings, surface * SURFACE_WEIGHT])


def _neighbours(requests: Requests, outcomes: Outcomes) -> Family:
    prior = outcomes.held_out_means()
    held_out = [prior.copy() for _ in NEIGHBOURS]
    for columns, rows in outcomes.groups(LEAST_ROWS):
        stored, rewards = requests.embeddings[rows], outcomes.rewards[np.ix_(rows, columns)]
        others = np.setdiff1d(np.arange(len(requests)), rows)
        for targets, near in (
            (rows, nearest(stored, stored, max(NEIGHBOURS), leave_self_out=True)),
            (others, nearest(requests.embeddings[others], stored, max(NEIGHBOURS))),
        ):
            cells = np.ix_(targets, columns)
            for setting, means in enumerate(neighbour_means(rewards, near, prior[cells])):
                held_out[setting][cells] = means
    served = tuple(
        Served(columns, requests.embeddings[rows], outcomes.rewards[np.ix_(rows, columns)])
        for columns, rows in outcomes.groups(LEAST_ROWS)
    )
    return Family(
        tuple(f"nearest neighbours (k = {k})" for k in NEIGHBOURS),
        tuple(held_out),
        lambda weights: NeighbourEstimator(weights, outcomes.means(), served),
    )


def _linear(requests: Requests, outcomes: Outcomes) -> Family:
    mean, spread = requests.surface.mean(axis=0), requests.surface.std(axis=0)
    # A constant column says nothing: a factor of 0 takes it out.
    factor = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0.0).astype(np.float32)
    ridges = _Ridges(linear_features(requests, mean, factor), outcomes, LINEAR_STRENGTHS)
    return Family(
        tuple(f"ridge (strength {strength:g})" for strength in LINEAR_STRENGTHS),
        ridges.held_out(),
        lambda weights: LinearEstimator(mean, factor, *ridges.fit(weights)),
    )


def _kernel(requests: Requests, outcomes: Outcomes, seed: int) -> Family:
    feature_map = fit_feature_map(requests, seed)
    features = feature_map.whiten(feature_map.kernels(requests))
    ridges = _Ridges(features, outcomes, KERNEL_STRENGTHS)

    def build(setting_weights: tuple[float, ...]) -> Estimator:
        weights, intercepts = ridges.fit(setting_weights)
        return KernelEstimator(feature_map, feature_map.unwhiten(weights), intercepts)

    return Family(
        tuple(f"kernel ridge (strength {strength:g})" for strength in KERNEL_STRENGTHS),
        ridges.held_out(),
        build,
    )


class _Ridges:
    """The ridges of every group of agents over one design, for several strengths."""

    def __init__(self, features: Floats, outcomes: Outcomes, strengths: tuple[float, ...]) -> None:
        self._features = features
        self._outcomes = outcomes
        self._strengths = strengths
        self._paths = [
            (columns, rows, RidgePath(features[rows], outcomes.rewards[np.ix_(rows, columns)]))
            for columns, rows in outcomes.groups(LEAST_ROWS)
        ]

    def fit(self, setting_weights: tuple[float, ...]) -> tuple[Doubles, Doubles]:
        """(D, m) weights and (m,) intercepts of the weighted sum of all strengths."""
        agents = len(self._outcomes.agents)
        weights = np.zeros((self._features.shape[1], agents))
        intercepts = sum(setting_weights) * self._outcomes.means()
        for columns, _, path in self._paths:
            intercepts[columns] = 0.0
            for share, strength in zip(setting_weights, self._strengths, strict=True):
                ridge = path.fit(strength)
                weights[:, columns] += share * ridge.weights
                intercepts[columns] += share * ridge.intercepts
        return weights, intercepts

    def held_out(self) -> tuple[Doubles, ...]:
        """For each strength the (n, m) predictions of rows left out."""
        return tuple(self._held_out(strength) for strength in self._strengths)

    def _held_out(self, strength: float) -> Doubles:
        predictions = self._outcomes.held_out_means()
        for columns, rows, path in self._paths:
            others = np.setdiff1d(np.arange(len(self._features)), rows)
            predictions[np.ix_(rows, columns)] = path.leave_one_out(strength)
            if len(others):
                unseen = path.fit(strength).predict(self._features[others])
                predictions[np.ix_(others, columns)] = unseen
        return predictions
