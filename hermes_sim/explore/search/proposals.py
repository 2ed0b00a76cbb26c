"""Which point a search tries next, by a Gaussian process over what it has seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hermes_sim.explore.search.space import Parameters, SearchSpace
from hermes_sim.explore.search.surrogate import Surrogate, fitted

Floats = npt.NDArray[np.float64]

NUM_CANDIDATES: Final = 1000
"""Of a space that is not listed: half by chance, half neighbours of the best points."""
NUM_DRAWS: Final = 128
"""Of what each candidate may measure."""
SLIGHT: Final = 0.05
"""Weight of the sum of all objectives beside the worst of them (Knowles 2006, section II.B)."""
MOST_SEEN: Final = 400
"""Latest measurements that the process is fitted to: its cost grows with their third power."""


@dataclass(frozen=True, eq=False, slots=True)
class Seen:
    """What a point measured with a share of its requests."""

    parameters: Parameters
    share: float
    losses: Sequence[float]
    """Objectives, less is better; infinite where the run failed."""
    excesses: Sequence[float]
    """For each limit: value / limit - 1, above 0 where it is outside; infinite where there is no value."""


def candidates_of(
    space: SearchSpace, tried: Callable[[Parameters], bool], chance: np.random.Generator, near: Sequence[Parameters]
) -> list[Parameters]:
    """Points that may be proposed, in an order by chance: all that are left of a listed space, else a sample."""
    if space.listed is not None:
        return [one for index in chance.permutation(len(space.listed)) if not tried(one := space.listed[index])]
    found: dict[tuple[tuple[str, str], ...], Parameters] = {}
    for index in range(NUM_CANDIDATES * 4):
        one = space.changed(near[index % len(near)], chance) if near and index % 2 else space.random(chance)
        point = space.point(one)
        if not tried(one) and space.fits(point):
            found.setdefault(tuple(point.items()), one)
        if len(found) >= NUM_CANDIDATES:
            break
    return list(found.values())


def farthest_first(
    space: SearchSpace, candidates: Sequence[Parameters], others: Sequence[Parameters]
) -> list[Parameters]:
    """The candidates by their distance from the nearest of the others."""
    if not others:
        return list(candidates)
    some, rest = space.features(candidates), space.features(others)
    distances = np.sqrt(((some[:, None, :] - rest[None, :, :]) ** 2).sum(axis=2)).min(axis=1)
    return [candidates[index] for index in np.argsort(-distances.round(9), kind="stable")]


def most_promising_first(
    space: SearchSpace,
    candidates: Sequence[Parameters],
    seen: Sequence[Seen],
    pending: Sequence[Parameters],
    chance: np.random.Generator,
) -> list[Parameters]:
    """The candidates by how much improvement is expected of them with all requests, times the probability that each
    limit is kept (ParEGO: Knowles 2006, IEEE Trans. Evol. Comput. 10(1)).

    Several objectives are weighted anew by chance for each proposal, so that all parts of the front have their turn.
    How large a share of its requests a point was run with is one more coordinate: what short runs have told counts, as
    far as it foretells what whole runs do. pending: points that are being run; they are taken to measure what is
    expected.
    """
    latest = seen[-MOST_SEEN:]
    data = _features(space, [one.parameters for one in latest], np.array([one.share for one in latest]))
    groups = np.append(space.groups, space.groups.max() + 1)
    asked = _features(space, candidates, np.ones(len(candidates)))
    waiting = _features(space, pending, np.ones(len(pending)))
    whole = np.array([one.share == 1.0 for one in latest])
    columns = _scaled(_finite(np.array([one.losses for one in latest], dtype=np.float64)))
    models = [_believing(fitted(data, column, groups), waiting) for column in columns.T]
    limits = _finite(np.array([one.excesses for one in latest], dtype=np.float64).reshape(len(latest), -1))
    kept = np.ones(len(candidates))
    for column in limits.T:
        kept *= _below(_believing(fitted(data, np.arcsinh(4.0 * column), groups), waiting), asked)
    within = (limits <= 0).all(axis=1) & np.isfinite(columns).all(axis=1)
    if (within & whole).any():
        reference = columns[within & whole]
    elif within.any():
        reference = columns[within]
    else:  # nothing keeps the limits yet: look for what does
        return _by(kept, candidates)
    draws = chance.standard_normal((NUM_DRAWS, 1, len(models)))
    means, spreads = (np.stack(part, axis=-1) for part in zip(*(model.at(asked) for model in models), strict=True))
    low, width = columns.min(axis=0), np.maximum(np.ptp(columns, axis=0), 1e-12)
    weights = chance.dirichlet(np.ones(len(models)))

    def scalar(values: Floats) -> Floats:
        """The worst of the weighted objectives, and slightly all of them."""
        weighted = weights * (values - low) / width
        return np.asarray(weighted.max(axis=-1) + SLIGHT * weighted.sum(axis=-1))

    gains = np.maximum(scalar(reference).min() - scalar(means + spreads * draws), 0.0).mean(axis=0)
    worth = gains * kept
    return _by(worth if worth.max() > 0 else kept - scalar(means), candidates)


def _by(worth: Floats, candidates: Sequence[Parameters]) -> list[Parameters]:
    return [candidates[index] for index in np.argsort(-worth, kind="stable")]


def _features(space: SearchSpace, points: Sequence[Parameters], shares: Floats) -> Floats:
    """Coordinates of the points, and how large a share of its requests each is run with: 0 for a 1/27, 1 for all."""
    places = 1.0 + np.log(shares) / np.log(27.0)
    return np.column_stack([space.features(points), places])


def _scaled(losses: Floats) -> Floats:
    """Times and costs on a logarithmic scale, where 10% more is as bad anywhere; what may be 0 or less as it is."""
    columns = losses.copy()
    for place in range(losses.shape[1]):
        column = losses[:, place]
        if (column > 0).all():
            columns[:, place] = np.log(column)
        elif (column < 0).all():
            columns[:, place] = -np.log(-column)
    return columns


def _finite(values: Floats) -> Floats:
    """What failed is as bad as the worst that did not."""
    known = np.where(np.isfinite(values), values, -np.inf)
    worst = known.max(axis=0, initial=-np.inf)
    return np.where(np.isfinite(values), values, np.where(np.isfinite(worst), worst, 1.0))


def _believing(model: Surrogate, waiting: Floats) -> Surrogate:
    return model.believing(waiting) if len(waiting) else model


def _below(model: Surrogate, asked: Floats) -> Floats:
    """Probability of being 0 or less."""
    from scipy.special import ndtr

    mean, spread = model.at(asked)
    return np.asarray(ndtr(-mean / spread))


def tried_by(parameters: Sequence[Parameters], space: SearchSpace) -> Callable[[Parameters], bool]:
    """Whether a point is one of these."""
    known = {_key(space.point(one)) for one in parameters}
    return lambda one: _key(space.point(one)) in known


def _key(point: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(point.items())
