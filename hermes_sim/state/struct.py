"""The one argument of compiled functions: a Numba structref over the arrays of state/arrays.py.

Numba's own constructor of a struct of two hundred arrays takes longer to compile than the engine. The memory behind a
struct is the arrays' descriptors one after the other, all of eight-byte words, so it is written here directly.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import from_dtype, types
from numba.core.datamodel.models import StructPayloadModel
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys
from numba.experimental import structref
from numba.extending import register_model

from hermes_sim.state.arrays import FIELDS


class EnginePayload(types.StructRefPayload):
    """Numba's type of the memory behind the struct."""

    def __init__(self, typename: str, fields: Any) -> None:
        super().__init__(typename, fields)
        self.name = f"{typename}Payload{_digest(fields)}"
        self._field_dict = MappingProxyType(dict(fields))

    @property
    def field_dict(self) -> Any:
        return self._field_dict


register_model(EnginePayload)(StructPayloadModel)


@structref.register
class EngineStateType(types.StructRef):
    """Numba's type of the struct.

    By default its name spells out all fields, and stands in the name of every function that takes one: megabytes of
    text for the compiler to read. And it makes its dictionary of fields anew each time one is looked up.
    """

    def __init__(self, fields: Any) -> None:
        super().__init__(fields)
        self.name = f"EngineState{_digest(self._fields)}"
        self._field_dict = MappingProxyType(dict(self._fields))
        self._payload = EnginePayload("EngineState", self._fields)

    @property
    def field_dict(self) -> Any:
        return self._field_dict

    def get_data_type(self) -> Any:
        return self._payload


def _digest(fields: Any) -> str:
    return hashlib.sha256(str(fields).encode()).hexdigest()[:12]


class EngineState(structref.StructRefProxy):
    """Python's side of the struct. It keeps the arrays alive."""

    arrays: Sequence[Any]


structref.define_boxing(EngineStateType, EngineState)


@functools.cache
def _struct_type() -> EngineStateType:
    """The type of every state: arrays of FIELDS, each in C order."""
    fields = FIELDS.items()
    return EngineStateType(
        [(name, types.Array(from_dtype(np.dtype(dtype)), len(shape), "C")) for name, (dtype, shape, _) in fields]
    )


def make_struct(arrays: Sequence[npt.NDArray[Any]]) -> Any:
    """The struct over arrays in the order of FIELDS."""
    struct_type = _struct_type()
    words = np.array([word for array in arrays for word in _descriptor(array)], np.int64)
    rtsys.initialize(cpu_target.target_context)
    memory = rtsys.meminfo_alloc(words.nbytes)
    ctypes.memmove(memory.data, words.ctypes.data, words.nbytes)
    struct = EngineState._numba_box_(struct_type, memory)
    struct.arrays = arrays
    return struct


def _descriptor(array: npt.NDArray[Any]) -> tuple[int, ...]:
    """An array as Numba lays it out: owner and parent (none: Python owns it), size, item size, data, shape, strides."""
    address = array.__array_interface__["data"][0]
    return (0, 0, array.size, array.itemsize, address, *array.shape, *array.strides)
