"""An axis of what is explored: the values of one thing, each a set of keys of cluster and workload, or other files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from hermes_sim.core.schema import Description, Name
from hermes_sim.scenario.axis_range import Range


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


def _name(value: Any) -> Any:
    """A number is a name as well."""
    return value_name(value) if isinstance(value, bool | int | float) else value


class AxisValue(Description):
    """One value of an axis: what differs from the base. A plain value stands for its name and `key: value`."""

    name: Annotated[str, BeforeValidator(_name)] = Field(min_length=1)
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


def _key_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


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

Keys = Annotated[
    tuple[str, ...],
    BeforeValidator(_key_list),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""One key or several, such as `workload.traffic.arrivals.rate`."""

Point = dict[str, Annotated[str, BeforeValidator(value_name)]]
"""Part of a grid: for each axis that is named, one value."""


class Axis(Description):
    """One dimension of what is explored: listed values, or a range of numbers."""

    name: Name
    label: str | None = None
    """In figures, with its unit; the name if not given."""
    key: Keys = ()
    """Key that plain values are given to, such as `workload.traffic.arrivals.rate`, or several: all get the value."""
    values: tuple[AxisValue, ...] = Field(default=(), json_schema_extra=_axis_value_schema)
    """In the order of figures: plain values of `key`, or mappings with a name of their own. These or `range`."""
    range: Range | None = None
    """Numbers that `key` is given."""
    when: Where = Field(default_factory=dict)
    """There only where axes before it have one of these values; elsewhere it sets nothing, and its column is empty."""

    @model_validator(mode="before")
    @classmethod
    def _plain_values(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not isinstance(data.get("values"), list | tuple):
            return data
        keys = _key_list(data.get("key"))
        return {**data, "values": [_named(value, keys) for value in data["values"]]}

    @model_validator(mode="after")
    def _values_or_range(self) -> Axis:
        if self.range is None and not self.values:
            raise ValueError(f"axis {self.name!r} needs at least one of values, or a range")
        if self.range is not None and self.values:
            raise ValueError(f"axis {self.name!r} has values and a range: only one of them")
        if self.range is not None and not self.key:
            raise ValueError(f"axis {self.name!r} needs the key that the numbers of its range are given to")
        return self

    @property
    def title(self) -> str:
        return self.label or self.name.replace("_", " ")

    @property
    def choices(self) -> tuple[AxisValue, ...]:
        """All values it can have, in order; none where its range takes any number between two ends."""
        if self.range is None:
            return self.values
        return tuple(self.value_at(number) for number in self.range.numbers or ())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(value.name for value in self.choices)

    @property
    def numbers(self) -> tuple[float, ...] | None:
        """Positions of the values where all have one, in one unit; else None."""
        choices = self.choices
        numbers = tuple(number for value in choices if (number := value.number) is not None)
        units = {tuple(one.name.split(maxsplit=1)[1:]) for one in choices if one.x is None}
        return numbers if choices and len(numbers) == len(choices) and len(units) <= 1 else None

    @property
    def is_numeric(self) -> bool:
        """Whether its values are numbers of one unit."""
        return self.range is not None or self.numbers is not None

    @property
    def kind_of_numbers(self) -> Literal["whole", "real"] | None:
        """Of an axis whose values are called by numbers alone, in one unit; None where names say more."""
        if self.range is not None:
            return "whole" if self.range.is_whole else "real"
        numbers = self.numbers
        if numbers is None or any(value.x is not None for value in self.values):
            return None
        return "whole" if all(number.is_integer() for number in numbers) else "real"

    def value_at(self, number: float) -> AxisValue:
        """The value for a number of its range."""
        assert self.range is not None
        return self.value_named(self.range.text(number))

    def value_at_share(self, share: float) -> AxisValue:
        """The value at a share in [0, 1) of the axis, each as likely as any other for an even share."""
        if self.range is not None:
            return self.value_at(self.range.number_at(share))
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]

    def value_named(self, name: str) -> AxisValue:
        """The value of this name, which for a range is its number as text."""
        if self.range is None:
            return next(value for value in self.values if value.name == name)
        written = self.range.value(name)
        return AxisValue.model_validate({"name": name, "set": dict.fromkeys(self.key, written)})

    def number_named(self, name: str) -> float | None:
        """Where the value of this name stands, None for axes that are not of numbers."""
        if self.range is not None:
            return number_of(name)
        return self.value_named(name).number if self.is_numeric else None

    def exists_at(self, point: Mapping[str, str]) -> bool:
        """Whether the point has it, by the values that it has of the axes before."""
        return all(point.get(axis) in names for axis, names in self.when.items())


def _named(value: Any, keys: Any) -> Any:
    """A plain value as a mapping; what is neither is left to the schema to refuse."""
    if isinstance(value, Mapping | AxisValue | list) or value is None:
        return value
    named = isinstance(keys, list | tuple) and keys and all(isinstance(key, str) for key in keys)
    return {"name": value_name(value)} | ({"set": dict.fromkeys(keys, value)} if named else {})
