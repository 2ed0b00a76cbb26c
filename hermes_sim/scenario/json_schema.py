"""JSON Schema of the input files, with what the source says about each key."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from hermes_sim.core.schema import Description


def schema_of(description: type[Description]) -> dict[str, Any]:
    """JSON Schema (2020-12) of the YAML file that holds such a description; keys as in the file."""
    schema = description.model_json_schema(by_alias=True, schema_generator=_InWords)
    return {"$schema": _InWords.schema_dialect, **_tidied(schema)}


def attribute_docs(model: type[BaseModel]) -> dict[str, str]:
    """Field -> the docstring under it, in this class or a base; read from the source, so only when asked for."""
    docs: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, Description) and base is not Description:
            docs |= own_docs(base)
    return docs


def own_docs(model: type) -> dict[str, str]:
    """The same of one class, whatever its base."""
    try:
        source = inspect.getsource(model)
    except (OSError, TypeError):  # made at run time, or in a notebook
        return {}
    (body,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    for statement, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
            if isinstance(text, str):
                docs[statement.target.id] = inspect.cleandoc(text)
    return docs


class _InWords(GenerateJsonSchema):
    """Describes each property by the docstring under its field, and writes defaults as a file would."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        json_schema = super().model_schema(schema)
        properties = json_schema.get("properties", {})
        model: type[BaseModel] = schema["cls"]
        docs = attribute_docs(model)
        defaults = model.model_construct().model_dump(mode="json", by_alias=True, warnings=False)
        for name, field in model.model_fields.items():
            known = properties.get(field.alias or name)
            if known is None:
                continue
            if name in docs:
                words = [docs[name], known.get("description", "")]
                known["description"] = "\n".join(word for word in words if word)
            if "default" in known:
                known["default"] = defaults[field.alias or name]
        return json_schema


def _tidied(schema: Any, *, of_names: bool = False) -> Any:
    """Bounds under their JSON Schema names: pydantic leaves its own where a validator stands before them.

    of_names: the mapping's keys are names given by us (properties, definitions), not words of JSON Schema.
    """
    if isinstance(schema, list):
        return [_tidied(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tidied = {}
    for key, value in schema.items():
        if of_names or key not in _BOUNDS:
            tidied[key] = _tidied(value, of_names=not of_names and key in ("properties", "$defs"))
        elif schema.get("type") in ("integer", "number"):
            tidied[_BOUNDS[key]] = value
    return tidied


_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
