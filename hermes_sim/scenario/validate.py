"""A document against its schema: a description, or every problem in words, each with file, line and key path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.schema import UNION_MARK, Description, OneOf
from hermes_sim.core.words import did_you_mean, listed, shown, with_article
from hermes_sim.scenario.document import Document, KeyPath

D = TypeVar("D", bound=Description)

_NAME_PATTERN: Final = "a letter, then letters, digits, _ and -"


def validate(schema: type[D], document: Document) -> D:
    """The description a document gives. Raises ConfigError with all of its problems in the order of the file."""
    try:
        return schema.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError(problems_of(error, schema, document)) from None


def validate_known(schema: type[D], document: Document) -> tuple[D | None, list[Problem]]:
    """As `validate`, but unknown keys alone do not stop it: they are reported and left out, so that what the rest of
    the file means can be checked too. None where something else is wrong."""
    try:
        return schema.model_validate(document.data), []
    except ValidationError as error:
        problems = problems_of(error, schema, document)
        errors = _errors(error)
    if any(details["type"] != "extra_forbidden" for details in errors):
        return None, problems
    data = deepcopy(document.data)
    for details in errors:
        path, _ = _follow(details["loc"], schema)
        holder: Any = data
        for part in path[:-1]:
            holder = holder[part]
        holder.pop(path[-1], None)
    try:
        return schema.model_validate(data), problems
    except ValidationError:
        return None, problems


def _errors(error: ValidationError) -> list[ErrorDetails]:
    """Without the complaint that a sequence is short of entries that have errors of their own."""
    return [
        details
        for details in error.errors(include_url=False)
        if details["type"] != "too_short" or len(details["input"]) < details["ctx"]["min_length"]
    ]


def problems_of(error: ValidationError, schema: type[Description], document: Document) -> list[Problem]:
    """Each error of a validation in words, in the order of the lines they are in."""
    problems: dict[Problem, None] = {}
    for details in _errors(error):
        path, owner = _follow(details["loc"], schema)
        if details["type"] == "unknown_kind":
            path, message = _unknown_kind(path, details)
        else:
            message = _message(path, details, owner)
        locate = document.problem_inside if details["type"] == "value_error" else document.problem
        problems[locate(path, message)] = None
    return sorted(problems, key=lambda problem: problem.line or 0)


def keys_of(schema: type[BaseModel]) -> list[str]:
    """YAML keys of a description, in the order of its fields."""
    return [field.alias or name for name, field in schema.model_fields.items()]


def union_members(annotation: Any, metadata: tuple[Any, ...] = ()) -> dict[str, Any] | None:
    """Members of a union by the part that names them in pydantic's error paths; None if the type is no union.

    The part is a marked kind (one_of), else a kind or a class name; members that are no descriptions have none here.
    """
    annotation, metadata = unwrapped(annotation, metadata)
    for item in metadata:
        if isinstance(item, OneOf):
            return {UNION_MARK + kind: member for kind, member in item.table.items()}
    if get_origin(annotation) not in (Union, UnionType):
        return None
    members: dict[str, Any] = {}
    for argument in get_args(annotation):
        inner = union_members(argument)
        member = unwrapped(argument)[0]
        members |= _names_of(member) if inner is None else inner
    return members


def unwrapped(annotation: Any, metadata: tuple[Any, ...] = ()) -> tuple[Any, tuple[Any, ...]]:
    """Type and metadata without `Annotated` and `| None`."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *rest = get_args(annotation)
            metadata = (*metadata, *rest)
            continue
        if get_origin(annotation) in (Union, UnionType):
            present = [argument for argument in get_args(annotation) if argument is not NoneType]
            if len(present) == 1:
                annotation = present[0]
                continue
        return annotation, metadata


def _names_of(member: Any) -> dict[str, Any]:
    if not (isinstance(member, type) and issubclass(member, BaseModel)):
        return {}
    kind = member.model_fields.get("kind")
    kinds = get_args(kind.annotation) if kind is not None and get_origin(kind.annotation) is Literal else ()
    return {member.__name__: member, **dict.fromkeys(kinds, member)}


def _follow(loc: tuple[str | int, ...], schema: type[Description]) -> tuple[KeyPath, type[BaseModel] | None]:
    """Key path without the parts that name union members, and the description that holds its last key."""
    path: list[str | int] = []
    here: Any = schema
    metadata: tuple[Any, ...] = ()
    owner: type[BaseModel] | None = None
    for part in loc:
        members = union_members(here, metadata)
        if members is not None and isinstance(part, str):
            here, metadata = members.get(part), ()
            continue
        if part == "[key]":  # pydantic's mark for a mapping's key that is wrong itself
            continue
        here, metadata = unwrapped(here, metadata)
        path.append(part)
        owner = here if isinstance(here, type) and issubclass(here, BaseModel) else None
        here, metadata = _child(here, part)
    return tuple(path), owner


def _child(holder: Any, part: str | int) -> tuple[Any, tuple[Any, ...]]:
    """Type and metadata of the value at a key or an index."""
    if isinstance(holder, type) and issubclass(holder, BaseModel):
        for name, field in holder.model_fields.items():
            if part in (name, field.alias):
                return field.annotation, tuple(field.metadata)
        return None, ()
    origin, arguments = get_origin(holder), get_args(holder)
    if origin is tuple and isinstance(part, int):
        return arguments[0 if arguments[-1] is Ellipsis else min(part, len(arguments) - 1)], ()
    if origin is dict and len(arguments) == 2:
        return arguments[1], ()
    if origin is list and arguments:
        return arguments[0], ()
    return None, ()


def _unknown_kind(path: KeyPath, details: ErrorDetails) -> tuple[KeyPath, str]:
    """The key that tells the members of a union apart is missing or names none of them."""
    context = details.get("ctx", {})
    noun, key, kinds = context["noun"], context["key"], context["kinds"].split(", ")
    value = details["input"]
    if not isinstance(value, Mapping):
        return path, f"needs a mapping with a key {key!r} ({listed(kinds)}), got {shown(value)}"
    if key not in value:
        return (*path, key), f"is missing; one of: {listed(kinds)}"
    kind = value[key]
    message = f"{shown(kind)} is not {with_article(noun)} ({listed(kinds)}).{did_you_mean(str(kind), kinds)}"
    return (*path, key), message


def _message(path: KeyPath, details: ErrorDetails, owner: type[BaseModel] | None) -> str:
    if details["type"] == "extra_forbidden":
        keys = keys_of(owner) if owner is not None else []
        near = did_you_mean(str(path[-1]), keys)
        return f"unknown key.{near}" if near or not keys else f"unknown key; known here: {listed(keys)}"
    words = _WORDS.get(details["type"])
    return words(details["input"], details.get("ctx", {})) if words is not None else details["msg"]


Words = Callable[[Any, Mapping[str, Any]], str]


def _needs(what: str) -> Words:
    return lambda value, context: f"needs {what}, got {shown(value)}"


def _bound(relation: str, key: str) -> Words:
    def words(value: Any, context: Mapping[str, Any]) -> str:
        return f"must be {relation} {context[key]:g}, got {shown(value)}"

    return words


def _too_few(value: Any, context: Mapping[str, Any]) -> str:
    least = context["min_length"]
    return f"needs at least {least} {'entry' if least == 1 else 'entries'}, got {context.get('actual_length', 0)}"


def _too_many(value: Any, context: Mapping[str, Any]) -> str:
    most = context["max_length"]
    return f"takes at most {most} {'entry' if most == 1 else 'entries'}, got {context.get('actual_length', 'more')}"


def _not_one_of(value: Any, context: Mapping[str, Any]) -> str:
    options = [option.strip("'") for option in str(context["expected"]).replace(" or ", ", ").split(", ")]
    return f"{shown(value)} is not allowed; one of: {listed(options)}.{did_you_mean(str(value), options)}"


def _pattern(value: Any, context: Mapping[str, Any]) -> str:
    return f"{shown(value)} is not a name ({_NAME_PATTERN})"


def _in_words(value: Any, context: Mapping[str, Any]) -> str:
    return str(context["error"])


_WORDS: Final[dict[str, Words]] = {
    "missing": lambda value, context: "is missing",
    "value_error": _in_words,
    "assertion_error": _in_words,
    "literal_error": _not_one_of,
    "enum": _not_one_of,
    "string_pattern_mismatch": _pattern,
    "too_short": _too_few,
    "too_long": _too_many,
    "string_too_short": lambda value, context: "is empty",
    "greater_than": _bound(">", "gt"),
    "greater_than_equal": _bound(">=", "ge"),
    "less_than": _bound("<", "lt"),
    "less_than_equal": _bound("<=", "le"),
    "finite_number": _needs("a finite number"),
    "int_type": _needs("a whole number"),
    "int_parsing": _needs("a whole number"),
    "int_parsing_size": _needs("a smaller whole number"),
    "int_from_float": _needs("a whole number"),
    "float_type": _needs("a number"),
    "float_parsing": _needs("a number"),
    "bool_type": _needs("true or false"),
    "bool_parsing": _needs("true or false"),
    "string_type": lambda value, context: f"needs text, got {shown(value)}{_quote_hint(value)}",
    "model_type": _needs("a mapping of keys"),
    "model_attributes_type": _needs("a mapping of keys"),
    "dict_type": _needs("a mapping of keys"),
    "tuple_type": _needs("a list"),
    "list_type": _needs("a list"),
    "none_required": _needs("nothing"),
}


def _quote_hint(value: Any) -> str:
    return "; put it in quotes" if isinstance(value, bool | int | float) else ""
