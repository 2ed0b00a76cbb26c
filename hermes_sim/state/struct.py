"""The one argument of compiled functions: a Numba structref over the arrays of state/arrays.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba import types
from numba.experimental import structref

from hermes_sim.core.compiled import compiled
from hermes_sim.state.arrays import FIELDS


@structref.register
class EngineStateType(types.StructRef):
    """Numba's type of the struct."""

    def preprocess_fields(self, fields: Any) -> Any:
        return tuple((name, types.unliteral(field_type)) for name, field_type in fields)


class EngineState(structref.StructRefProxy):
    """Python's side of the struct; made by `make_struct`, since Numba does not cache its own constructor."""


structref.define_proxy(EngineState, EngineStateType, list(FIELDS))


@compiled
def _construct(arrays: Any) -> Any:
    return EngineState(*arrays)


def make_struct(arrays: Sequence[Any]) -> Any:
    """The struct over arrays in the order of FIELDS."""
    return _construct(tuple(arrays))
