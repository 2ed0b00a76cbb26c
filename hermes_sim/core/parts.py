"""Compiled functions as parts: optimised where Python enters them, not one by one.

Numba optimises a function together with all that it calls, and so the innermost code once for every level above it.
Here a function that is called from compiled code is only translated; the machine code is made for the function that
Python calls, with all its parts linked in. That cuts the first start to a third and keeps one cached object per entry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.core import types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.registry import CPUDispatcher


class _NoEnvironments:
    """A code generator that keeps no environments: they belong to functions with machine code of their own."""

    def __init__(self, codegen: Any) -> None:
        self._codegen = codegen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codegen, name)

    def set_env(self, env_name: str, env: Any) -> None:
        """Nothing to set."""


class _PartLibrary(JITCodeLibrary):
    """Translated code that waits to be linked into its callers."""

    @property
    def codegen(self) -> Any:
        return _NoEnvironments(self._codegen)

    def _optimize_final_module(self) -> None:
        """Left to the caller's."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """No machine code: nothing to call."""
        return 0


class _PartCompiler(Compiler):
    """Translates into a library of the kind above."""

    def _compile_core(self) -> Any:
        target = self.state.targetctx
        self.state.library = _PartLibrary(target.codegen(), self.state.func_id.func_qualname)
        return super()._compile_core()


class Part(CPUDispatcher):
    """A function as compiled callers see it; Python gets one of its own, made when it first calls."""

    def __init__(self, function: Callable[..., object], entry: Callable[[], Callable[..., object]]) -> None:
        options = {"nopython": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        super().__init__(function, targetoptions=options, pipeline_class=_PartCompiler)
        self._make_entry = entry
        self._entry: Callable[..., object] | None = None

    def __call__(self, *arguments: Any) -> Any:
        if self._entry is None:
            self._entry = self._make_entry()
        return self._entry(*arguments)

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """One translation for all callers: constants and narrow integers come as 64-bit ones."""
        wide = tuple(_widened(argument) for argument in args)
        return super().get_call_template(wide, {name: _widened(argument) for name, argument in kws.items()})


class Entry(Part):
    """A function that Python calls often, with arguments of the same types every time: the first call settles them.

    Numba looks up the type of each argument of each call, of a struct of arrays by way of Python; this is left out.
    """

    def __init__(self, function: Callable[..., object], entry: Callable[[], Callable[..., object]]) -> None:
        super().__init__(function, entry)
        self._machine_code: Callable[..., object] | None = None

    def __call__(self, *arguments: Any) -> Any:
        if self._machine_code is None:
            dispatcher: Any = self._make_entry()
            self._machine_code = dispatcher.compile(tuple(map(dispatcher.typeof_pyval, arguments)))
        return self._machine_code(*arguments)


def _widened(argument: Any) -> Any:
    plain = types.unliteral(argument)
    return types.int64 if plain in (types.int32, types.uint8) else plain
