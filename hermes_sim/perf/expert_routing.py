"""How many experts a step reads, and how many rows the busiest share of the experts gets.

The experts of a layer lie in `ep` shares of consecutive experts, the first shares one larger where ep does not divide
their number (vLLM's linear expert placement). A token chooses k different experts, expert e with chance q_e; the
chances of all experts add up to k. Tokens choose independently.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hermes_sim.core.compiled import compiled

FloatArray = npt.NDArray[np.float64]

MOST_ITERATIONS = 60
TOLERANCE = 1e-9
"""Relative, of the rows of the busiest share."""


def expert_rates(shares: FloatArray, num_experts_per_token: int, ep: int) -> FloatArray:
    """[ep, experts of the largest share] chance that a token chooses the expert; 0 fills up smaller shares of experts.

    shares: [num_experts] of the routed rows, adding up to one. The chance is k x share; what would exceed 1, since a
    token chooses an expert once, falls to the others in proportion.
    """
    chances = _chances(shares, num_experts_per_token)
    num_experts = len(shares)
    bounds = [share * (num_experts // ep) + min(share, num_experts % ep) for share in range(ep + 1)]
    rates = np.zeros((ep, -(-num_experts // ep)))
    for share in range(ep):
        rates[share, : bounds[share + 1] - bounds[share]] = chances[bounds[share] : bounds[share + 1]]
    return rates


def _chances(shares: FloatArray, num_experts_per_token: int) -> FloatArray:
    """Inclusion probabilities proportional to the shares, at most 1 (Sampford 1967: sampling without replacement)."""
    if np.count_nonzero(shares) < num_experts_per_token:
        raise ValueError(
            f"a token chooses {num_experts_per_token} experts, but only {np.count_nonzero(shares)} get any load"
        )
    chances = np.zeros(len(shares))
    certain = np.zeros(len(shares), bool)
    while True:
        left = num_experts_per_token - int(certain.sum())
        chances[~certain] = left * shares[~certain] / max(shares[~certain].sum(), 1e-300)
        chances[certain] = 1.0
        beyond = ~certain & (chances > 1.0)
        if not beyond.any():
            return chances
        certain |= beyond


@compiled
def busiest_rows(mean_rows: float, num_devices: float) -> float:
    """Expected rows on the busiest of p devices when rows fall on them at random: mean + sqrt(2 mean ln p).

    Source: Raab and Steger, "Balls into bins", RANDOM 1998, theorem 1 (heavily loaded case).
    """
    if num_devices <= 1.0:
        return mean_rows
    return min(mean_rows + math.sqrt(2.0 * mean_rows * math.log(num_devices)), mean_rows * num_devices)


@compiled
def distinct_experts(num_tokens: float, num_experts: float, num_experts_per_token: float) -> float:
    """Experts chosen by at least one token: E (1 - (1 - k / E)^T), as models/forward.py states it for whole models."""
    if num_experts_per_token >= num_experts:
        return num_experts
    return num_experts * (1.0 - math.exp(num_tokens * math.log1p(-num_experts_per_token / num_experts)))


@compiled
def mean_distinct_experts(rates: FloatArray, num_tokens: float) -> float:
    """Experts chosen by at least one token, on average over the shares: sum of 1 - (1 - q)^T over the shares."""
    total = 0.0
    for share in range(rates.shape[0]):
        total += _distinct(rates[share], num_tokens)
    return float(total / rates.shape[0])


@compiled
def skewed_experts(rates: FloatArray, num_tokens: float) -> tuple[float, float]:
    """Rows of the share that gets most, and experts read by the share that reads most; 0, 0 without rates.

    Means m of the shares follow from the chances. The number of rows that one share exceeds, x, is where the union
    bound on normal tails of variance m is one: sum over shares of exp(-(x - m)^2 / (2 m)) = 1. With equal means that
    is mean + sqrt(2 mean ln p), the formula of `busiest_rows`; with one share far above the rest it is that share's
    mean. No share gets more than each token's k, or its own number of experts.
    """
    if rates.size == 0:
        return 0.0, 0.0
    means = np.empty(rates.shape[0])
    largest_distinct = 0.0
    for share in range(rates.shape[0]):
        means[share] = num_tokens * rates[share].sum()
        largest_distinct = max(largest_distinct, _distinct(rates[share], num_tokens))
    return min(_exceeded_once(means), means.sum(), num_tokens * rates.shape[1]), largest_distinct


@compiled
def _exceeded_once(means: FloatArray) -> float:
    """Rows x with sum over shares of exp(-(x - m)^2 / (2 m)) = 1: Newton's method on its logarithm, in a bracket."""
    low: float = means.max()
    high = low + math.sqrt(2.0 * low * math.log(len(means)))
    rows = high
    for _ in range(MOST_ITERATIONS if high > low else 0):
        expected = 0.0
        slope = 0.0
        for mean in means:
            if mean > 0.0:
                chance = math.exp(-((rows - mean) ** 2) / (2.0 * mean))
                expected += chance
                slope -= chance * (rows - mean) / mean
        if expected > 1.0:
            low = rows
        else:
            high = rows
        better = rows - math.log(expected) * expected / slope
        if not low < better < high:
            better = 0.5 * (low + high)
        moved = abs(better - rows)
        rows = better
        if moved <= TOLERANCE * rows:
            break
    return rows


@compiled
def _distinct(rates: FloatArray, num_tokens: float) -> float:
    total = 0.0
    for expert in range(rates.shape[0]):
        if rates[expert] >= 1.0:
            total += 1.0
        elif rates[expert] > 0.0:
            total += 1.0 - math.exp(num_tokens * math.log1p(-rates[expert]))
    return total
