"""A Gaussian process over a search space: what a point that was not run would measure, and how sure that is.

Matern 5/2 kernel, one length scale an axis (Rasmussen and Williams 2006, chapters 2, 4 and 5). Length scales and noise
are those of highest posterior probability.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SQRT5: Final = 5.0**0.5
MEAN_LOG_LENGTH: Final = float(np.log(0.7))
"""Before anything is known: a function changes over about the width of an axis, within a factor of 2.7."""
SPREAD_LOG_LENGTH: Final = 1.0
MEAN_LOG_NOISE: Final = float(np.log(1e-3))
"""Variance, of values of variance 1: runs under the same seed differ smoothly, but not perfectly so."""
SPREAD_LOG_NOISE: Final = 1.5
BOUNDS_LOG_LENGTH: Final = (-3.0, 3.0)
BOUNDS_LOG_NOISE: Final = (float(np.log(1e-6)), 0.0)
MOST_STEPS: Final = 60


@dataclass(frozen=True, eq=False, slots=True)
class Surrogate:
    """A process fitted to values at points."""

    features: Floats
    """[num_points, num_features]."""
    groups: Ints
    """[num_features]: the length scale that each has."""
    lengths: Floats
    noise: float
    mean: float
    scale: float
    """Of the values: the process is of (value - mean) / scale."""
    cholesky: Floats
    weights: Floats

    def at(self, features: Floats) -> tuple[Floats, Floats]:
        """Expected values at other points, and their standard deviations without noise."""
        shared = _matern(_squares(features, self.features, self.groups, len(self.lengths)), self.lengths)
        solved = np.linalg.solve(self.cholesky, shared.T)
        variance = np.maximum(1.0 - (solved**2).sum(axis=0), 1e-12)
        return self.mean + self.scale * (shared @ self.weights), self.scale * np.sqrt(variance)

    def believing(self, features: Floats) -> Surrogate:
        """As if these points had measured what is expected of them: surer there, no wiser elsewhere."""
        values = (self.at(features)[0] - self.mean) / self.scale
        known = self.cholesky @ (self.cholesky.T @ self.weights)
        return _process(
            np.vstack([self.features, features]), np.append(known, values), self.groups, self.lengths, self.noise,
            self.mean, self.scale,
        )  # fmt: skip


def fitted(features: Floats, values: Floats, groups: Ints) -> Surrogate:
    """The process through values [num_points] at features [num_points, num_features]."""
    from scipy.optimize import minimize

    mean, scale = float(values.mean()), float(values.std()) or 1.0
    targets = (values - mean) / scale
    num_lengths = int(groups.max()) + 1
    squares = _squares(features, features, groups, num_lengths)
    start = np.array([*[MEAN_LOG_LENGTH] * num_lengths, MEAN_LOG_NOISE])
    bounds = [*[BOUNDS_LOG_LENGTH] * num_lengths, BOUNDS_LOG_NOISE]
    found = minimize(
        _loss, start, args=(squares, targets), jac=True, method="L-BFGS-B", bounds=bounds,
        options={"maxiter": MOST_STEPS},
    )  # fmt: skip
    lengths, noise = np.exp(found.x[:-1]), float(np.exp(found.x[-1]))
    return _process(features, targets, groups, lengths, noise, mean, scale)


def _process(
    features: Floats, targets: Floats, groups: Ints, lengths: Floats, noise: float, mean: float, scale: float
) -> Surrogate:
    kernel = _matern(_squares(features, features, groups, len(lengths)), lengths)
    cholesky = np.asarray(np.linalg.cholesky(kernel + noise * np.eye(len(targets))), dtype=np.float64)
    weights = np.asarray(np.linalg.solve(cholesky.T, np.linalg.solve(cholesky, targets)), dtype=np.float64)
    return Surrogate(features, groups, lengths, noise, mean, scale, cholesky, weights)


def _squares(some: Floats, others: Floats, groups: Ints, num_groups: int) -> Floats:
    """Squared distances along each group of features: [num_groups, num_some, num_others]."""
    squares = np.zeros((num_groups, len(some), len(others)))
    for column, group in enumerate(groups):
        squares[group] += np.subtract.outer(some[:, column], others[:, column]) ** 2
    return squares


def _matern(squares: Floats, lengths: Floats) -> Floats:
    distance = np.sqrt(np.tensordot(lengths**-2.0, squares, axes=1))
    return np.asarray((1.0 + SQRT5 * distance + 5.0 / 3.0 * distance**2) * np.exp(-SQRT5 * distance))


def _loss(logs: Floats, squares: Floats, targets: Floats) -> tuple[float, Floats]:
    """Negative log posterior of the logarithms of length scales and noise, and its gradient."""
    lengths, noise = np.exp(logs[:-1]), np.exp(logs[-1])
    distance = np.sqrt(np.tensordot(lengths**-2.0, squares, axes=1))
    decay = np.exp(-SQRT5 * distance)
    kernel = (1.0 + SQRT5 * distance + 5.0 / 3.0 * distance**2) * decay
    covariance = kernel + noise * np.eye(len(targets))
    cholesky = np.linalg.cholesky(covariance)
    inverse = np.linalg.inv(covariance)
    weights = inverse @ targets
    loss = 0.5 * targets @ weights + np.log(np.diag(cholesky)).sum()
    pull = 0.5 * (inverse - np.outer(weights, weights))
    slope = 5.0 / 3.0 * (1.0 + SQRT5 * distance) * decay  # times squares / length**2: by the logarithm of a length
    by_length = np.tensordot(squares, pull * slope, axes=2) * lengths**-2.0
    by_noise = noise * np.trace(pull)
    means = np.array([*[MEAN_LOG_LENGTH] * len(lengths), MEAN_LOG_NOISE])
    spreads = np.array([*[SPREAD_LOG_LENGTH] * len(lengths), SPREAD_LOG_NOISE])
    prior = (logs - means) / spreads
    return float(loss + 0.5 * (prior**2).sum()), np.array([*by_length, by_noise]) + prior / spreads
