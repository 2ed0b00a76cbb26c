"""The space of a search: which points there are, drawn, listed, and as coordinates that near points share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from hermes_sim.scenario.axis import Axis

if TYPE_CHECKING:
    from optuna import Trial

Parameter = int | float | str
Parameters = Mapping[str, Parameter]
"""Axis -> what is drawn of it: the index of a number among its listed ones, the name of another listed value, or how
far along a range that takes any number, in [0, 1]. Without the axes that the point does not have (`when`)."""

MOST_LISTED: Final = 20_000
"""Points of a space that are gone through one by one; a larger space is sampled."""
LOG_FROM: Final = 4.0
"""Numbers whose largest is that many times the smallest stand on a logarithmic scale."""
ABSENT: Final = 0.5
"""Coordinate of an axis that a point does not have."""

Fits = Callable[[Mapping[str, str]], bool]


@dataclass(frozen=True)
class SearchSpace:
    """All points of some axes that the constraints let through."""

    axes: tuple[Axis, ...]
    fits: Fits = lambda _: True
    """Of a point (axis -> name of its value): whether it may be proposed at all."""

    def drawn(self, trial: Trial) -> Parameters:
        """One more point as Optuna's sampler draws it, axis by axis."""
        parameters: dict[str, Parameter] = {}
        for axis in self._there(parameters):
            if _is_open(axis):
                parameters[axis.name] = trial.suggest_float(axis.name, 0.0, 1.0)
            elif axis.is_numeric:
                parameters[axis.name] = trial.suggest_int(axis.name, 0, len(axis.names) - 1)
            else:
                parameters[axis.name] = trial.suggest_categorical(axis.name, axis.names)
        return parameters

    def random(self, chance: np.random.Generator) -> Parameters:
        """A point of which every value is equally likely; not all of them fit."""
        parameters: dict[str, Parameter] = {}
        for axis in self._there(parameters):
            if _is_open(axis):
                parameters[axis.name] = float(chance.random())
            else:
                parameters[axis.name] = _parameters(axis)[int(chance.integers(len(axis.names)))]
        return parameters

    def changed(self, parameters: Parameters, chance: np.random.Generator) -> Parameters:
        """A neighbour: one axis anew, and what depends on it."""
        other = self.random(chance)
        name = self.axes[int(chance.integers(len(self.axes)))].name
        mixed = {**parameters, **({name: other[name]} if name in other else {})}
        if isinstance(mixed.get(name), float):
            mixed[name] = min(1.0, max(0.0, float(parameters.get(name, 0.5)) + 0.1 * float(chance.standard_normal())))
        whole: dict[str, Parameter] = {}
        for axis in self._there(whole):
            whole[axis.name] = mixed.get(axis.name, other.get(axis.name, _first(axis)))
        return whole

    def point(self, parameters: Parameters) -> dict[str, str]:
        """Axis -> name of its value."""
        return {axis.name: _name(axis, parameters[axis.name]) for axis in self.axes if axis.name in parameters}

    @cached_property
    def listed(self) -> tuple[Parameters, ...] | None:
        """Every point that fits, the last axis fastest; None where there are too many to list."""
        if self.num_points is None:
            return None
        return tuple(parameters for parameters in self._all({}, 0) if self.fits(self.point(parameters)))

    @cached_property
    def num_points(self) -> int | None:
        """Of them all, whether they fit or not; None where there are more than can be gone through."""
        if any(_is_open(axis) for axis in self.axes):
            return None
        most = math.prod(len(axis.names) for axis in self.axes)  # without those that `when` leaves out
        if most <= MOST_LISTED:
            return sum(1 for _ in self._all({}, 0))
        return None

    def _all(self, parameters: dict[str, Parameter], place: int) -> Iterator[Parameters]:
        if place == len(self.axes):
            yield dict(parameters)
            return
        axis = self.axes[place]
        if not axis.exists_at(self.point(parameters)):
            yield from self._all(parameters, place + 1)
            return
        for parameter in _parameters(axis):
            yield from self._all({**parameters, axis.name: parameter}, place + 1)

    def _there(self, parameters: Mapping[str, Parameter]) -> Iterator[Axis]:
        """The axes that a point has, while it is being drawn."""
        for axis in self.axes:
            if axis.exists_at(self.point(parameters)):
                yield axis

    def features(self, points: Sequence[Parameters]) -> npt.NDArray[np.float64]:
        """Coordinates [num_points, num_features]: numbers between 0 and 1, other values one column each."""
        rows = [[value for scale in self._scales for value in scale.features(one)] for one in points]
        return np.array(rows, dtype=np.float64).reshape(len(points), len(self.groups))

    @cached_property
    def _scales(self) -> list[_Scale]:
        return [_scale_of(axis) for axis in self.axes]

    @cached_property
    def groups(self) -> npt.NDArray[np.int64]:
        """Of each feature: its axis."""
        widths = [len(scale.names) or 1 for scale in self._scales]
        return np.repeat(np.arange(len(self.axes)), widths)


def _is_open(axis: Axis) -> bool:
    return not axis.choices


def _parameters(axis: Axis) -> Sequence[Parameter]:
    """Of all listed values."""
    return range(len(axis.names)) if axis.is_numeric else axis.names


def _first(axis: Axis) -> Parameter:
    return 0.0 if _is_open(axis) else _parameters(axis)[0]


def _name(axis: Axis, parameter: Parameter) -> str:
    if isinstance(parameter, str):
        return parameter
    if not _is_open(axis):
        return axis.names[int(parameter)]
    assert axis.range is not None
    return axis.range.text(axis.range.number_at(float(parameter)))


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where the values of an axis stand."""

    axis: str
    names: tuple[str, ...] = ()
    """Of values that are no numbers."""
    places: tuple[float, ...] = ()
    """Of listed numbers."""

    def features(self, parameters: Parameters) -> list[float]:
        parameter = parameters.get(self.axis)
        if self.names:
            return [math.sqrt(0.5) if name == parameter else 0.0 for name in self.names]  # two values are 1 apart
        if parameter is None:
            return [ABSENT]
        return [self.places[int(parameter)] if self.places else float(parameter)]


def _scale_of(axis: Axis) -> _Scale:
    if not axis.is_numeric:
        return _Scale(axis.name, names=axis.names)
    return _Scale(axis.name, places=() if _is_open(axis) else tuple(_places(axis)))


def _places(axis: Axis) -> list[float]:
    """Of the listed numbers, from 0 to 1."""
    numbers = np.array(axis.numbers, dtype=np.float64)
    if numbers.min() > 0 and numbers.max() >= LOG_FROM * numbers.min():
        numbers = np.log(numbers)
    width = numbers.max() - numbers.min()
    return [float(number) for number in (numbers - numbers.min()) / (width or 1.0)]
