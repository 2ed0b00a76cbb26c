"""Operators that depend on one count, spread over the device groups of an engine: seconds, work and energy of each.

Stands in for LoweredOperators: the same questions, asked of every part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from hermes_sim.models.operator import Operator
from hermes_sim.perf.lowered_operators import LoweredOperators
from hermes_sim.perf.operator_classes import Crossing
from hermes_sim.perf.operator_rows import NETWORK, NUM_RESOURCES
from hermes_sim.perf.unit import UnitLink, UnitPlacement
from hermes_sim.state.arrays import NUM_UNIT_COLUMNS, UNIT_J

FloatArray = npt.NDArray[np.float64]


class Part(Protocol):
    """Some operators on one unit; work is that of one of its devices."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def num_kernels(self) -> float: ...
    def table(self, max_count: int) -> FloatArray: ...
    def seconds(self, index: int, count: int) -> tuple[float, int]: ...
    def support_frac(self, index: int, count: int) -> float: ...
    def flops(self, num_counts: FloatArray) -> FloatArray: ...
    def bytes(self, num_steps: FloatArray, num_counts: FloatArray) -> FloatArray: ...


class CountsEnergy(Protocol):
    """A part that knows its energy by operation, beside the power of the unit."""

    def joules(self, max_count: int) -> FloatArray:
        """[max_count + 1] of all devices, above idle."""
        ...


@dataclass(frozen=True, slots=True)
class Crossings:
    """Activations on their way between units."""

    crossings: tuple[Crossing, ...]
    links: tuple[UnitLink, ...]
    """Of each crossing."""
    names: tuple[str, ...]
    """`gpu_to_cpu`"""

    def seconds_of(self, max_count: int) -> FloatArray:
        """[num_crossings, max_count + 1]: latency of every message, all bytes at the link's bandwidth; row 0: none."""
        counts = np.arange(max_count + 1, dtype=np.float64)
        out = np.zeros((len(self.crossings), max_count + 1))
        for place, (crossing, link) in enumerate(zip(self.crossings, self.links, strict=True)):
            out[place] = crossing.num_messages * link.latency_s
            out[place] += counts * crossing.bytes_per_token / link.bandwidth_bytes_per_s
        out[:, 0] = 0.0
        return out


class OperatorLine(NamedTuple):
    """One operator at one count, all devices of its unit."""

    name: str
    flops: float
    bytes: float
    seconds: float
    resource: int
    support_frac: float


@dataclass(frozen=True, slots=True)
class PlacedOperators:
    """Parts on units, and what goes between them."""

    placement: UnitPlacement
    parts: tuple[tuple[int, Part], ...]
    """(unit, operators there)"""
    crossings: Crossings
    tp: int
    """Callers count the work of a device of such a group, and multiply by it."""
    list_operators: Callable[[int, int], Sequence[Operator]]
    """(count, tp) -> operators of one device of a group of tp."""
    halves_from: int | None = None
    """Batches from so many tokens on run as two halves one after the other; None: none do."""

    def table(self, max_count: int) -> FloatArray:
        """[max_count + 1, NUM_RESOURCES] seconds by limiting resource; of two halves where halves take turns."""
        whole = np.zeros((max_count + 1, NUM_RESOURCES))
        for _, part in self.parts:
            whole += part.table(max_count)
        whole[:, NETWORK] += self.crossings.seconds_of(max_count).sum(axis=0)
        return self._in_turns(whole)

    def unit_table(self, max_count: int) -> FloatArray:
        """[max_count + 1, NUM_UNIT_COLUMNS] seconds at work of each unit, then joules above idle.

        Joules: what a part counts by operation, else seconds x power above idle by what limits. Activations on their
        way count for the unit that sends them, by the links' energy per bit.
        """
        out = np.zeros((max_count + 1, NUM_UNIT_COLUMNS))
        for unit, part in self.parts:
            seconds = part.table(max_count)
            out[:, unit] += seconds.sum(axis=1)
            counted = getattr(part, "joules", None)
            active_w = self.placement.units[unit].active_w
            out[:, UNIT_J + unit] += seconds @ active_w if counted is None else counted(max_count)
        counts = np.arange(max_count + 1, dtype=np.float64)
        for crossing, link in zip(self.crossings.crossings, self.crossings.links, strict=True):
            out[:, UNIT_J + crossing.source] += counts * crossing.bytes_per_token * link.energy_per_byte_j
        return self._in_turns(out)

    def _in_turns(self, table: FloatArray) -> FloatArray:
        """Row n as that of (n + 1) // 2 and of n // 2, where the engine runs halves of a batch in turns."""
        if self.halves_from is None:
            return table
        counts = np.arange(self.halves_from, len(table))
        halves = table.copy()
        halves[self.halves_from :] = table[(counts + 1) // 2] + table[counts // 2]
        return halves

    def lines(self, count: int, padded: int) -> Iterator[OperatorLine]:
        """Work of `count`, time of `padded`; the seconds add up to a row of `table`."""
        in_halves = self.halves_from is not None and padded >= self.halves_from
        halves = ((padded + 1) // 2, padded // 2) if in_halves else (padded,)
        for unit, part in self.parts:
            tp = self.placement.units[unit].tp
            by_name: dict[str, list[Operator]] = {}
            for operator in self.list_operators(count, tp):
                by_name.setdefault(operator.name, []).append(operator)
            for index, name in enumerate(part.names):
                timed = [part.seconds(index, half) for half in halves if half > 0]
                known = by_name.get(name, [])
                one = known.pop(0) if known else None
                yield OperatorLine(
                    name,
                    one.total_flops * tp if one is not None else 0.0,
                    one.total_bytes * tp if one is not None and one.kind != "collective" else 0.0,
                    sum(seconds for seconds, _ in timed),
                    timed[0][1],
                    part.support_frac(index, padded),
                )
        sent_s = self.crossings.seconds_of(padded)
        for place, name in enumerate(self.crossings.names):
            moved = count * self.crossings.crossings[place].bytes_per_token
            yield OperatorLine(name, 0.0, moved, sum(float(sent_s[place, half]) for half in halves), NETWORK, 0.0)

    def with_small_kernels(self, time_frac: float) -> PlacedOperators:
        """Norms, rotary embeddings, activations of kernels of GPUs: this much of their time."""
        parts = [
            (unit, part.with_small_kernels(time_frac) if isinstance(part, LoweredOperators) else part)
            for unit, part in self.parts
        ]
        return replace(self, parts=tuple(parts))

    @property
    def num_kernels(self) -> float:
        """Kernels launched per step."""
        return sum(part.num_kernels for _, part in self.parts)

    def flops(self, num_counts: FloatArray) -> FloatArray:
        """FLOPs of all units over tp."""
        total = np.zeros(np.shape(num_counts))
        for unit, part in self.parts:
            total = total + part.flops(num_counts) * (self.placement.units[unit].tp / self.tp)
        return total

    def bytes(self, num_steps: FloatArray, num_counts: FloatArray) -> FloatArray:
        """Bytes of all units' memories over tp."""
        total = np.zeros(np.shape(num_counts))
        for unit, part in self.parts:
            total = total + part.bytes(num_steps, num_counts) * (self.placement.units[unit].tp / self.tp)
        return total
