"""An axis of a study: the values that one thing takes, each a set of keys of cluster and workload, or other files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from hermes_sim.core.schema import Description, Name


def value_name(value: object) -> str:
    """A value of an axis as it is called: its name, or a plain value as the file writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def number_of(text: str) -> float | None:
    """The number that a plain value begins with, as in '4 /s' or '0.5'; None where it begins with none."""
    try:
        return float(text.split(maxsplit=1)[0])
    except (ValueError, IndexError):
        return None


class AxisValue(Description):
    """One value of an axis: what differs from the base. A plain value stands for its name and `key: value`."""

    name: str = Field(min_length=1)
    """As figures, tables and findings call it."""
    x: float | None = None
    """Where it stands on an axis of numbers; the number that its name begins with, if not given."""
    cluster: str | None = None
    """Cluster file in place of the base's."""
    workload: str | None = None
    """Workload file in place of the base's."""
    overrides: dict[str, Any] = Field(default_factory=dict, alias="set")
    """Values of keys, as on the command line: `cluster.engines.llm.replicas: 2`; also whole mappings and lists."""

    @property
    def number(self) -> float | None:
        return number_of(self.name) if self.x is None else self.x


def _axis_value_schema(schema: dict[str, Any]) -> None:
    """Amends the JSON Schema of the list: an entry may be a plain value."""
    schema["items"] = {"anyOf": [schema["items"], {"type": ["string", "number", "boolean"]}]}


class Axis(Description):
    """One dimension of a study's grid."""

    name: Name
    label: str | None = None
    """In figures, with its unit; the name if not given."""
    key: str | None = None
    """Key that plain values are given to, such as `workload.traffic.arrivals.rate`."""
    values: tuple[AxisValue, ...] = Field(min_length=1, json_schema_extra=_axis_value_schema)
    """In the order of figures: plain values of `key`, or mappings with a name of their own."""

    @model_validator(mode="before")
    @classmethod
    def _plain_values(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not isinstance(data.get("values"), list | tuple):
            return data
        values = [_named(value, data.get("key")) for value in data["values"]]
        return {**data, "values": values}

    @property
    def title(self) -> str:
        return self.label or self.name.replace("_", " ")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(value.name for value in self.values)

    @property
    def numbers(self) -> tuple[float, ...] | None:
        """Positions of the values where all have one, else None."""
        numbers = tuple(number for value in self.values if (number := value.number) is not None)
        return numbers if len(numbers) == len(self.values) else None


def _named(value: Any, key: Any) -> Any:
    """A plain value as a mapping; what is neither is left to the schema to refuse."""
    if isinstance(value, Mapping | AxisValue | list) or value is None:
        return value
    return {"name": value_name(value)} | ({"set": {key: value}} if isinstance(key, str) else {})


def _names(value: Any) -> Any:
    return tuple(value_name(one) for one in (value if isinstance(value, list | tuple) else [value]))


ValueNames = Annotated[
    tuple[str, ...],
    BeforeValidator(_names),
    WithJsonSchema({
        "anyOf": [{"type": ["string", "number", "boolean"]}, {"type": "array"}],
        "description": "a value of the axis, or a list of them",
    }),
]  # fmt: skip
"""One value of an axis or several of them, by name."""

Where = dict[str, ValueNames]
"""Points of a grid: for each axis that is named, those with one of the values."""

Point = dict[str, Annotated[str, BeforeValidator(value_name)]]
"""Part of a grid: for each axis that is named, one value."""
