"""The base of everything a YAML file can describe, the quantities with units in it, and unions told apart by `kind`.

A field holds base units and says so in its name (`bandwidth_bytes_per_s`); its YAML key is the alias
(`bandwidth: 3.35 TB/s`). Values of a dimension are written with a unit; dumping writes an exact one back. Defaults are
given in base units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    TypeAdapter,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from hermes_sim.core.units import BASE_UNITS, COMMON_UNITS, parse_quantity
from hermes_sim.core.words import did_you_mean, listed, shown, with_article


class Description(BaseModel):
    """Frozen, checked description; unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def not_required(*keys: str) -> Callable[[dict[str, Any]], None]:
    """For `json_schema_extra`: keys that a validator fills in when the file leaves them out."""

    def amend(schema: dict[str, Any]) -> None:
        schema["required"] = [key for key in schema.get("required", []) if key not in keys]

    return amend


def _quantity(dimension: str, example: str) -> Any:
    base_unit = BASE_UNITS[dimension]
    separator = "" if base_unit.startswith("/") else " "

    def parse(value: object) -> float:
        return parse_quantity(value, dimension)

    def write(value: float) -> str:
        return f"{value!r}{separator}{base_unit}"

    return (
        BeforeValidator(parse),
        PlainSerializer(write, return_type=str),
        WithJsonSchema({
            "anyOf": [{"type": "string"}, {"const": 0}],
            "description": f"{dimension}, with a unit: {', '.join(COMMON_UNITS[dimension])}",
            "examples": [example],
        }),
    )  # fmt: skip


Seconds = Annotated[float, *_quantity("time", "50 ms")]
Bytes = Annotated[float, *_quantity("bytes", "80 GiB")]
BytesPerSecond = Annotated[float, Field(gt=0.0), *_quantity("bandwidth", "3.35 TB/s")]
FlopsPerSecond = Annotated[float, Field(gt=0.0), *_quantity("compute", "989 TFLOP/s")]
PerSecond = Annotated[float, *_quantity("rate", "4 /s")]
Watts = Annotated[float, *_quantity("power", "400 W")]
Joules = Annotated[float, *_quantity("energy", "3.5 pJ")]
Hertz = Annotated[float, Field(gt=0.0), *_quantity("frequency", "1.41 GHz")]
UsdPerHour = Annotated[float, *_quantity("price", "2.10 USD/h")]
Usd = Annotated[float, *_quantity("money", "25000 USD")]
UsdPerKwh = Annotated[float, *_quantity("electricity price", "0.08 USD/kWh")]
GramsPerKwh = Annotated[float, *_quantity("carbon", "400 g/kWh")]

LARGEST_COUNT: Final = 2**53
"""Counts stay exact as floats."""


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"needs a number, got {str(value).lower()}")
    return value


_NotBool = BeforeValidator(_refuse_bool)
Fraction = Annotated[float, Field(ge=0.0, le=1.0), _NotBool]
PositiveInt = Annotated[int, Field(ge=1, le=LARGEST_COUNT), _NotBool]
NonNegativeInt = Annotated[int, Field(ge=0, le=LARGEST_COUNT), _NotBool]
PositiveFloat = Annotated[float, Field(gt=0.0), _NotBool]
NonNegativeFloat = Annotated[float, Field(ge=0.0), _NotBool]
Scalar = bool | int | float | str
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
"""Of an engine, a stage, a node, a pipeline: a word that can stand in a key path."""

DTYPE_BYTES: dict[str, float] = {
    "fp32": 4.0, "tf32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "fp6": 0.75, "int6": 0.75,
    "int5": 0.625, "fp4": 0.5, "int4": 0.5, "int3": 0.375, "int2": 0.25,
}  # fmt: skip
"""Packed, without scales."""
Dtype = Literal[
    "fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp6", "int6", "int5", "fp4", "int4", "int3", "int2",
]  # fmt: skip

SourceKind = Literal["datasheet", "measured", "fitted", "estimate"]
SOURCE_KINDS: Final[tuple[SourceKind, ...]] = ("measured", "fitted", "datasheet", "estimate")
"""Strongest first: nearest to what a run does."""


class Source(Description):
    """Where a number comes from."""

    title: str
    where: str
    """Document, section, address or table."""
    kind: SourceKind


UNION_MARK: Final = "\N{NULL}"
"""Starts the part of an error's path that names the member of a union; no YAML text can hold it."""


class OneOf:
    """Union of the descriptions in a plug-in table, told apart by one key of theirs.

    The table is read at each validation: what a plug-in has added by then is known.
    """

    __slots__ = ("_adapter", "_members", "default", "key", "noun", "table")

    def __init__(self, table: Mapping[str, type[Description]], noun: str, default: str | None, key: str) -> None:
        self.table = table
        self.noun = noun
        self.default = default
        self.key = key
        self._members: dict[str, type[Description]] = {}
        self._adapter: TypeAdapter[Any] | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(self._union().core_schema)

    def _validate(self, value: Any) -> Any:
        return self._union().validator.validate_python(value)

    def _union(self) -> TypeAdapter[Any]:
        """Of the table's present members."""
        members = dict(self.table)
        if self._adapter is None or members != self._members:
            self._members = members
            self._adapter = TypeAdapter(Annotated[Any, _Union(self, members)])
        return self._adapter


class _Union:
    """The union of given members, as pydantic knows it."""

    __slots__ = ("_members", "_one_of")

    def __init__(self, one_of: OneOf, members: Mapping[str, type[Description]]) -> None:
        self._one_of = one_of
        self._members = members

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        one_of = self._one_of
        return core_schema.tagged_union_schema(
            {UNION_MARK + kind: handler.generate_schema(member) for kind, member in self._members.items()},
            self._mark,
            custom_error_type="unknown_kind",
            custom_error_message="needs a known {key} of {noun}: {kinds}",
            custom_error_context={"noun": one_of.noun, "key": one_of.key, "kinds": ", ".join(self._members)},
        )

    def _mark(self, value: Any) -> str | None:
        key, default = self._one_of.key, self._one_of.default
        kind = value.get(key, default) if isinstance(value, Mapping) else getattr(value, key, None)
        return UNION_MARK + kind if isinstance(kind, str) and kind in self._members else None


def one_of(table: Mapping[str, type[Description]], noun: str, *, default: str | None = None, key: str = "kind") -> Any:
    """Annotation for a field that holds any member of a plug-in table {kind: class}.

    Use: `index: Annotated[Index, one_of(INDEX_KINDS, "index kind")]`. Each class has a field `kind` (or `key`) whose
    Literal is its name in the table; with `default`, whose class must give `kind` that default, it may be left out.
    Error paths do not show which member was taken. What is put into the table later is known from then on.
    """
    return OneOf(table, noun, default, key)


class NameIn:
    """A name that a table has at the time of validation."""

    __slots__ = ("noun", "table")

    def __init__(self, table: Iterable[str], noun: str) -> None:
        self.table = table
        self.noun = noun

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "enum": list(self.table)}

    def _check(self, name: str) -> str:
        names = list(self.table)
        if name not in names:
            near = did_you_mean(name, names)
            raise ValueError(f"{shown(name)} is not {with_article(self.noun)} ({listed(names)}).{near}")
        return name


def name_in(table: Iterable[str], noun: str) -> Any:
    """Annotation for a text field that holds a key of a plug-in table, read at each validation.

    Use: `kind: Annotated[str, name_in(ROUTERS, "routing policy")]`.
    """
    return NameIn(table, noun)
