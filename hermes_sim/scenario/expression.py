"""A small language of conditions: `tp * replicas <= 8 and model != 'llama_3_70b'`.

Numbers, text in quotes, true and false, names, paths of keys (`cluster.engines.llm.parallel.tp`), + - * / // % **,
comparisons (also in a row, and `in [..]`), and / or / not, and min, max, abs, ceil, floor, round, log2. Its syntax is
Python's, which only parses it: nothing else of Python is reachable.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hermes_sim.core.words import did_you_mean, listed, shown

Value = bool | int | float | str
Lookup = Callable[[str], Value]
"""Value of a name or of a path of keys. Raises LookupError with a text for the user."""

LONGEST: Final = 500
"""Characters of one expression."""
_LARGEST_POWER: Final = 64
_TRUTH: Final = {"true": True, "false": False}

_BINARY: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_ORDER: Final[dict[type[ast.cmpop], Callable[[Any, Any], bool]]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "round": round,
    "log2": math.log2,
}


@dataclass(frozen=True, slots=True)
class Expression:
    """One expression, checked for its form."""

    text: str
    names: tuple[str, ...]
    """Plain names that it uses, in order of first use: axes and facts."""
    paths: tuple[str, ...]
    """Paths of keys that it uses: `cluster.engines.llm.replicas`."""
    tree: ast.expr

    def value(self, lookup: Lookup) -> Value:
        """Raises ValueError, in words, where it cannot be worked out, and LookupError where a name has no value."""
        try:
            value: Value = _value(self.tree, lookup)
            return value
        except ZeroDivisionError:
            raise ValueError(f"{self.text!r} divides by 0") from None
        except (OverflowError, TypeError) as error:
            raise ValueError(f"{self.text!r} cannot be worked out: {error}") from None

    def holds(self, lookup: Lookup) -> bool:
        """The truth of a condition. Raises as `value`."""
        value = self.value(lookup)
        if not isinstance(value, bool):
            raise ValueError(f"{self.text!r} is {shown(value)}, not a condition: compare it with something")
        return value


def parse_expression(text: str) -> Expression:
    """Raises ValueError, in words, for what is not of the language."""
    if len(text) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        place = getattr(error, "offset", None)
        where = f" near character {place}" if place else ""
        raise ValueError(f"{shown(text)} is not an expression such as tp * replicas <= 8{where}") from None
    found = list(_names(tree))
    names = dict.fromkeys(name for name in found if "." not in name)
    return Expression(text.strip(), tuple(names), tuple(dict.fromkeys(name for name in found if "." in name)), tree)


def _names(node: ast.expr) -> Iterator[str]:
    """Every name and path, and a refusal of every other form."""
    match node:
        case ast.Constant(value=value):
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise ValueError(f"{shown(value)} is not a value here: numbers, text in quotes, true and false are")
        case ast.Name(id=name):
            if name not in _TRUTH:
                yield name
        case ast.Attribute() | ast.Subscript():
            yield _path(node)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not(), operand=operand):
            yield from _names(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            yield from _names(left)
            yield from _names(right)
        case ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
            for part in parts:
                yield from _names(part)
        case ast.Compare(left=left, comparators=others):
            _check_comparison(node)
            for one in (left, *others):
                yield from _names(one)
        case ast.Call(func=ast.Name(id=function), args=arguments, keywords=[]):
            if function not in _FUNCTIONS:
                near = did_you_mean(function, _FUNCTIONS)
                raise ValueError(f"there is no function {function!r} ({listed(_FUNCTIONS)}).{near}")
            for argument in arguments:
                yield from _names(argument)
        case _:
            raise ValueError(
                f"{shown(ast.unparse(node))} is none of what a condition is made of: numbers, text in quotes, names, "
                f"keys, arithmetic, comparisons, and, or, not, {listed(_FUNCTIONS)}"
            )


def _check_comparison(node: ast.Compare) -> None:
    """Lists stand behind `in`, nowhere else. Raises ValueError."""
    for op, other in zip(node.ops, node.comparators, strict=True):
        is_list = isinstance(other, ast.List | ast.Tuple)
        if isinstance(op, ast.Is | ast.IsNot):
            raise ValueError("`is` compares nothing here: use == or !=")
        if isinstance(op, ast.In | ast.NotIn) and not is_list:
            raise ValueError("`in` needs a list behind it: tp in [1, 2, 4]")
        if not isinstance(op, ast.In | ast.NotIn) and is_list:
            raise ValueError("a list can only stand behind `in`")
    if isinstance(node.left, ast.List | ast.Tuple):
        raise ValueError("a list can only stand behind `in`")


def _path(node: ast.expr) -> str:
    """`cluster.engines[0].replicas`, from the tree that it is parsed to."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=holder, attr=name):
            return f"{_path(holder)}.{name}"
        case ast.Subscript(value=holder, slice=ast.Constant(value=int(index))):
            return f"{_path(holder)}[{index}]"
    raise ValueError(f"{shown(ast.unparse(node))} is not a key such as cluster.engines.llm.replicas")


def _value(node: ast.expr, lookup: Lookup) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return _TRUTH[name] if name in _TRUTH else lookup(name)
        case ast.Attribute() | ast.Subscript():
            return lookup(_path(node))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _truth(operand, lookup)
        case ast.UnaryOp(op=op, operand=operand):
            number = _number(operand, lookup)
            return -number if isinstance(op, ast.USub) else number
        case ast.BinOp(left=left, op=op, right=right):
            first, second = _number(left, lookup), _number(right, lookup)
            if isinstance(op, ast.Pow) and abs(second) > _LARGEST_POWER:
                raise ValueError(f"a power of {second:g} is too large")
            result = _BINARY[type(op)](float(first) if isinstance(op, ast.Pow) else first, second)
            if isinstance(result, complex):
                raise ValueError(f"{ast.unparse(node)} is no real number")
            return result
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_truth(value, lookup) for value in values)
        case ast.BoolOp(values=values):
            return any(_truth(value, lookup) for value in values)
        case ast.Compare():
            return _compared(node, lookup)
        case ast.Call(func=ast.Name(id=function), args=arguments):
            numbers = [_number(argument, lookup) for argument in arguments]
            try:
                return _FUNCTIONS[function](*numbers)
            except ValueError:
                raise ValueError(f"{ast.unparse(node)} has no value at {', '.join(map(str, numbers))}") from None
    raise AssertionError(node)


def _compared(node: ast.Compare, lookup: Lookup) -> bool:
    left = _value(node.left, lookup)
    for op, other in zip(node.ops, node.comparators, strict=True):
        if isinstance(op, ast.In | ast.NotIn):
            assert isinstance(other, ast.List | ast.Tuple)
            among = any(_equal(left, _value(one, lookup), node) for one in other.elts)
            if among == isinstance(op, ast.NotIn):
                return False
            continue
        right = _value(other, lookup)
        if isinstance(op, ast.Eq | ast.NotEq):
            holds = _equal(left, right, node) == isinstance(op, ast.Eq)
        else:
            for one in (left, right):
                if isinstance(one, bool) or not isinstance(one, int | float):
                    raise ValueError(f"{ast.unparse(node)!r} compares {shown(one)}, which is no number")
            holds = _ORDER[type(op)](left, right)
        if not holds:
            return False
        left = right
    return True


def _equal(left: Value, right: Value, node: ast.Compare) -> bool:
    """Text and text, truth and truth, number and number; another pair is a slip, which is never true."""
    kinds = [bool if isinstance(one, bool) else str if isinstance(one, str) else float for one in (left, right)]
    if kinds[0] is not kinds[1]:
        raise ValueError(f"{ast.unparse(node)!r} compares {shown(left)} with {shown(right)}, which are never equal")
    return left == right


def _number(node: ast.expr, lookup: Lookup) -> int | float:
    value = _value(node, lookup)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{ast.unparse(node)!r} is {shown(value)}, not a number")
    return value


def _truth(node: ast.expr, lookup: Lookup) -> bool:
    value = _value(node, lookup)
    if not isinstance(value, bool):
        raise ValueError(f"{ast.unparse(node)!r} is {shown(value)}, not a condition: compare it with something")
    return value
