"""Unions of the plug-in tables of this package: laws told apart by `kind`, trace formats by `format`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from hermes_sim.core.schema import UNION_MARK, Description, OneOf
from hermes_sim.core.words import did_you_mean, listed, shown


class OneLaw(OneOf):
    """Members of a table {kind: class}; may stand in `| None`."""

    __hash__ = object.__hash__  # typing hashes the members of a union, and a table has no hash


class OneFormat(OneLaw):
    """Members of a table {format: class}; a missing or unknown format is named in the error."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        members = core_schema.tagged_union_schema(
            {UNION_MARK + name: handler.generate_schema(member) for name, member in self.table.items()}, self._mark
        )
        return core_schema.no_info_before_validator_function(self._check, members)

    def _mark(self, value: Any) -> str | None:
        name = value.get("format") if isinstance(value, Mapping) else getattr(value, "format", None)
        return UNION_MARK + name if isinstance(name, str) and name in self.table else None

    def _check(self, value: Any) -> Any:
        if self._mark(value) is not None:
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"needs a mapping with a key 'format' ({listed(self.table)}), got {shown(value)}")
        if "format" not in value:
            raise ValueError(f"needs a key 'format', one of: {listed(self.table)}")
        name = value["format"]
        near = did_you_mean(str(name), self.table)
        raise ValueError(f"format {shown(name)} is not a trace format ({listed(self.table)}).{near}")


def one_law(table: Mapping[str, type[Description]], noun: str) -> Any:
    """Annotation for a field that holds any member of the table {kind: class}."""
    return OneLaw(table, noun, None)


def one_format(table: Mapping[str, type[Description]]) -> Any:
    """Annotation for a field that holds any trace format of the table {format: class}."""
    return OneFormat(table, "trace format", None)
