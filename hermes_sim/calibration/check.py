"""Whether the numbers of a library file are those that its fit gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hermes_sim.core.schema import Description
from hermes_sim.hardware.expert_residual import ExpertResidual
from hermes_sim.hardware.residual import ResidualTable

FloatArray = npt.NDArray[np.float64]

ROUNDING: Final = 1.5e-3
"""Residuals are kept in thousandths: nodes closer than that are the same."""


@dataclass(frozen=True, slots=True)
class Check:
    """One file beside its fit."""

    name: str
    num_numbers: int
    differences: tuple[str, ...]
    """`key: number in the file, number fitted`, four digits each."""

    def lines(self) -> Iterator[str]:
        """A verdict, and what differs."""
        count = f"{self.num_numbers:,} numbers"
        if not self.differences:
            yield f"{self.name}: reproduced ({count})"
            return
        yield f"{self.name}: {len(self.differences)} of {count} differ"
        for difference in self.differences:
            yield f"  {difference}"


def check(
    name: str,
    in_file: object,
    in_fit: object,
    file_tables: Mapping[str, ResidualTable | ExpertResidual] | None = None,
    fit_tables: Mapping[str, ResidualTable | ExpertResidual] | None = None,
) -> Check:
    """Numbers by key path, and residual tables by name."""
    stated, fitted = dict(_numbers(in_file)), dict(_numbers(in_fit))
    different = [
        f"{key}: {stated.get(key, 'nothing')} in the file, {fitted.get(key, 'nothing')} fitted"
        for key in sorted(stated.keys() | fitted.keys())
        if stated.get(key) != fitted.get(key)
    ]
    tables = {**(file_tables or {}), **(fit_tables or {})}
    for table in sorted(tables):
        found = _table_difference((file_tables or {}).get(table), (fit_tables or {}).get(table))
        if found:
            different.append(f"residuals.{table}: {found}")
    num_nodes = sum(_num_nodes(table) for table in tables.values())
    return Check(name, len(stated.keys() | fitted.keys()) + num_nodes, tuple(different))


def _numbers(part: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Key path as files spell it, number of four digits: quantities in base units, which a dump would turn to text."""
    if isinstance(part, Description):
        fields = type(part).model_fields
        part = {field.alias or name: getattr(part, name) for name, field in fields.items()}
    if isinstance(part, Mapping):
        for name, value in part.items():
            yield from _numbers(value, f"{key}.{name}" if key else str(name))
    elif isinstance(part, int | float):
        yield key, f"{part:.4g}"


def _num_nodes(table: ResidualTable | ExpertResidual) -> int:
    if isinstance(table, ExpertResidual):
        return table.curves(is_even=False).size + (table.curves(is_even=True).size if table.even else 0)
    return int(np.prod(table.shape))


def _table_difference(
    in_file: ResidualTable | ExpertResidual | None, in_fit: ResidualTable | ExpertResidual | None
) -> str:
    if in_file is None or in_fit is None:
        return "no table in the file, one fitted" if in_file is None else "a table in the file, none fitted"
    if isinstance(in_file, ExpertResidual) and isinstance(in_fit, ExpertResidual):
        return _curve_difference(in_file, in_fit)
    if isinstance(in_file, ExpertResidual) or isinstance(in_fit, ExpertResidual):
        return "another kind of table"
    if in_file.axes != in_fit.axes:
        shapes = (" x ".join(map(str, table.shape)) for table in (in_file, in_fit))
        return "other knots: {} in the file, {} fitted".format(*shapes)
    apart = np.abs(in_file.log_ratios - in_fit.log_ratios)
    apart[in_file.has_data != in_fit.has_data] = np.inf
    return _nodes_apart(apart)


def _curve_difference(in_file: ExpertResidual, in_fit: ExpertResidual) -> str:
    own = (in_file.tokens, in_file.layers, in_file.reach, in_file.noise, bool(in_file.even))
    if own != (in_fit.tokens, in_fit.layers, in_fit.reach, in_fit.noise, bool(in_fit.even)):
        return "other layers, knots, reach or noise"
    apart = [np.abs(in_file.curves(is_even=even) - in_fit.curves(is_even=even)) for even in (False, True)]
    return _nodes_apart(np.concatenate(apart) if in_file.even else apart[0])


def _nodes_apart(apart: FloatArray) -> str:
    num_different = int((apart > ROUNDING).sum())
    if num_different == 0:
        return ""
    largest = apart[np.isfinite(apart)].max()
    return f"{num_different:,} of {apart.size:,} nodes differ, by up to {largest:.1%}"
