"""docs/file-reference.md: every kind of file, every key, its type, default and meaning, from the schema."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel

from hermes_sim.core.schema import Description, OneOf
from hermes_sim.scenario.files import SCHEMAS
from hermes_sim.scenario.json_schema import attribute_docs, schema_of
from hermes_sim.scenario.library import FOLDERS, FileKind
from hermes_sim.scenario.validate import unwrapped

_INTRODUCTION: Final = """\
# File reference

Generated from the schema: `python -m hermes_sim.scenario.reference`. The same as JSON Schema: `hermes-sim schema KIND`.

Values of a dimension are written with a unit (`80 GiB`, `3.35 TB/s`, `989 TFLOP/s`, `100 Gbit/s`, `50 ms`, `4 /s`);
GB is 1e9 bytes, GiB 2**30, Gb and Gbit 1e9 bits; a bare `0` needs no unit. Unknown keys are errors. A name of a file is
looked up in the working directory, then beside the file that names it, then in the library that comes with the program:
by file name, by `name`, by alias. YAML here is what it looks like: `1e9` is a number; `no`, `on`, `12:30` are text; a
repeated key is an error.
"""

_ORDER: Final[tuple[FileKind, ...]] = (
    "cluster", "workload", "pipeline", "device", "link", "class", "residuals", "model", "encoder", "diffusion_model",
    "sweep", "study", "search",
)  # fmt: skip


def reference_markdown() -> str:
    """The whole page."""
    titles = _titles()
    parts = [_INTRODUCTION]
    written: set[type[BaseModel]] = set()
    for kind in _ORDER:
        schema = SCHEMAS[kind]
        parts.append(f"## {kind.replace('_', ' ').capitalize()} file\n\n`{FOLDERS[kind]}/*.yaml`\n")
        for section in _sections(schema):
            if section not in written:
                written.add(section)
                title = "" if section is schema else f"### {titles[section]}\n\n"
                parts.append(title + _section(section, titles))
    return "\n".join(parts)


Titles = Mapping[type[BaseModel], str]


def _titles() -> Titles:
    """Of all sections: what tells a member of a union apart, else the name of the description."""
    titles: dict[type[BaseModel], str] = {}
    for kind in _ORDER:
        for section in _sections(SCHEMAS[kind]):
            titles.setdefault(section, section.__name__)
            for field in section.model_fields.values():
                for union in _unions(field.annotation, tuple(field.metadata)):
                    titles |= {member: f"{union.noun} `{name}`" for name, member in union.table.items()}
    return titles


def _sections(schema: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The description and all that its keys hold, depth first, each once."""
    seen: list[type[BaseModel]] = []
    pending = [schema]
    while pending:
        here = pending.pop(0)
        if here not in seen:
            seen.append(here)
            yield here
            pending = [*_held(here), *pending]


def _held(schema: type[BaseModel]) -> list[type[BaseModel]]:
    return [
        model
        for field in schema.model_fields.values()
        for model in _descriptions(field.annotation, tuple(field.metadata))
    ]


def _descriptions(annotation: Any, metadata: tuple[Any, ...] = ()) -> list[type[BaseModel]]:
    """All descriptions that a value of this type may hold."""
    unions = _unions(annotation, metadata)
    if unions:
        return [member for union in unions for member in union.table.values()]
    annotation, _ = unwrapped(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _descriptions(argument)]


def _unions(annotation: Any, metadata: tuple[Any, ...] = ()) -> list[OneOf]:
    """All unions by kind in a type."""
    annotation, metadata = unwrapped(annotation, metadata)
    here = [item for item in metadata if isinstance(item, OneOf)]
    return here or [union for argument in get_args(annotation) for union in _unions(argument)]


def _section(schema: type[BaseModel], titles: Titles) -> str:
    json_schema = _json_schema(schema)
    properties, required = json_schema["properties"], json_schema.get("required", ())
    docs = attribute_docs(schema)
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in schema.model_fields.items():
        key = field.alias or name
        default = "required" if key in required else _default(properties[key].get("default"))
        meaning = " ".join(docs.get(name, "").split())
        value = _value(field.annotation, tuple(field.metadata), properties[key], titles)
        cells = [f"`{key}`", value, default, meaning]
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return f"{inspect.cleandoc(schema.__doc__ or '')}\n\n" + "\n".join(rows) + "\n"


def _json_schema(schema: type[BaseModel]) -> Mapping[str, Any]:
    """Of the mapping that holds such a description."""
    assert issubclass(schema, Description)
    whole = schema_of(schema)
    here = whole["$defs"][whole["$ref"].rsplit("/", 1)[1]] if "$ref" in whole else whole
    mapping: Mapping[str, Any] = next((part for part in here.get("anyOf", []) if "properties" in part), here)
    return mapping


def _link(schema: type[BaseModel], text: str, titles: Titles) -> str:
    """To the section of a description; the anchor is what GitHub makes of its title."""
    words = titles[schema].lower().replace(" ", "-")
    return f"[{text}](#{''.join(letter for letter in words if letter.isalnum() or letter in '-_')})"


def _value(annotation: Any, metadata: tuple[Any, ...], json_schema: Mapping[str, Any], titles: Titles) -> str:
    """What to write, in words."""
    annotation, metadata = unwrapped(annotation, metadata)
    union = next((item for item in metadata if isinstance(item, OneOf)), None)
    if union is not None:
        members = [_link(member, name, titles) for name, member in union.table.items()]
        return f"mapping with `{union.key}`: {', '.join(members)}"
    quantity = _quantity(json_schema)
    if quantity is not None:
        return quantity
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _link(annotation, annotation.__name__, titles)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{option}`" for option in arguments)
    if origin is tuple:
        inner = _value(arguments[0], (), _first(json_schema, "items", "prefixItems"), titles)
        return f"list of {inner}" if arguments[-1] is Ellipsis else f"{len(arguments)} of {inner}"
    if origin is dict:
        key, value = arguments
        inner = _value(value, (), _first(json_schema, "additionalProperties"), titles)
        return f"mapping of {_value(key, (), {}, titles)} to {inner}"
    return _WORDS.get(annotation, "value") + _bounds(json_schema)


_WORDS: Final[dict[Any, str]] = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def _first(json_schema: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """Schema of a list's or mapping's values, through `anyOf` with null."""
    for candidate in (json_schema, *json_schema.get("anyOf", [])):
        for key in keys:
            found = candidate.get(key)
            if isinstance(found, list):
                found = found[0]
            if isinstance(found, dict):
                return found
    return {}


def _quantity(json_schema: Mapping[str, Any]) -> str | None:
    """'time, `50 ms`' for a value with a unit or another notation of its own."""
    for candidate in (json_schema, *json_schema.get("anyOf", [])):
        if candidate.get("examples"):
            what = candidate.get("description", "").splitlines()[-1].split(", with a unit")[0]
            return ", ".join([what, *(f"`{example}`" for example in candidate["examples"])])
    return None


def _bounds(json_schema: Mapping[str, Any]) -> str:
    for candidate in (json_schema, *json_schema.get("anyOf", [])):
        words = [f"{sign} {candidate[key]:g}" for key, sign in _SIGNS.items() if key in candidate]
        words = [word for word in words if word != "<= 9.0072e+15"]
        if words:
            return " " + ", ".join(words)
    return ""


_SIGNS: Final = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def _default(default: Any) -> str:
    if default is None:
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if default in ({}, []):
        return "empty"
    return "as below" if isinstance(default, dict) else f"`{default}`"


if __name__ == "__main__":
    from pathlib import Path

    page = Path(__file__).resolve().parents[2] / "docs" / "file-reference.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text(reference_markdown(), encoding="utf-8")
