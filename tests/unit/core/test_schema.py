"""Descriptions are frozen, closed, exact; unions by kind do not show in error paths."""

from __future__ import annotations

import inspect
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

import hermes_sim.scenario.scenario  # noqa: F401  (defines all descriptions)
from hermes_sim.core.schema import (
    LARGEST_COUNT,
    UNION_MARK,
    Bytes,
    BytesPerSecond,
    Description,
    Fraction,
    PerSecond,
    PositiveInt,
    Seconds,
    one_of,
)


class Circle(Description):
    kind: Literal["circle"] = "circle"
    radius: float


class Square(Description):
    kind: Literal["square"] = "square"
    side: float


class Shape(Description):
    """Base of both, for the annotation only."""


class Drawing(Description):
    shapes: tuple[Annotated[Shape, one_of({"circle": Circle, "square": Square}, "shape", default="circle")], ...] = ()
    frame: Annotated[Shape, one_of({"square": Square}, "frame")] | None = None


class Quantities(Description):
    size_bytes: Bytes = Field(alias="size")
    bandwidth_bytes_per_s: BytesPerSecond = Field(alias="bandwidth")
    wait_s: Seconds | None = Field(default=None, alias="wait")
    rate_per_s: PerSecond = Field(default=0.5, alias="rate")


def errors_of(schema: type[Description], data: object) -> list[tuple[tuple[str | int, ...], str]]:
    with pytest.raises(ValidationError) as caught:
        schema.model_validate(data)
    return [(error["loc"], error["type"]) for error in caught.value.errors()]


def test_members_are_told_apart_by_kind() -> None:
    drawing = Drawing.model_validate({"shapes": [{"kind": "square", "side": 2}, {"radius": 1}]})
    assert drawing.shapes == (Square(side=2.0), Circle(radius=1.0))
    assert Drawing.model_validate(drawing.model_dump()) == drawing
    assert Drawing.model_validate({"shapes": drawing.shapes}) == drawing


def test_the_member_is_marked_in_the_path() -> None:
    assert errors_of(Drawing, {"shapes": [{"kind": "circle"}]}) == [
        (("shapes", 0, UNION_MARK + "circle", "radius"), "missing")
    ]


@pytest.mark.parametrize("value", [{"kind": "oval"}, {"kind": 3}, {"kind": ["circle"]}, 7, None, "circle"])
def test_an_unknown_kind_is_one_error(value: object) -> None:
    assert errors_of(Drawing, {"shapes": [value]}) == [(("shapes", 0), "unknown_kind")]


def test_a_union_may_be_left_out() -> None:
    assert Drawing.model_validate({"frame": None}).frame is None
    assert errors_of(Drawing, {"frame": {}}) == [(("frame",), "unknown_kind")]


def test_descriptions_are_frozen_and_closed() -> None:
    circle = Circle(radius=1.0)
    with pytest.raises(ValidationError, match="frozen"):
        circle.radius = 2.0  # type: ignore[misc]
    assert errors_of(Circle, {"radius": 1, "colour": "red"}) == [(("colour",), "extra_forbidden")]
    assert errors_of(Circle, {"radius": float("nan")}) == [(("radius",), "finite_number")]


def test_quantities_are_written_exactly_and_read_back() -> None:
    given = {"size": "80 GiB", "bandwidth": "100 Gbit/s", "wait": "0.1 ms"}
    quantities = Quantities.model_validate(given)
    assert quantities.size_bytes == 80 * 2**30
    dumped = quantities.model_dump(mode="json", by_alias=True)
    assert dumped == {
        "size": "85899345920.0 B",
        "bandwidth": "12500000000.0 B/s",
        "wait": "0.0001 s",
        "rate": "0.5/s",
    }
    assert Quantities.model_validate(dumped) == quantities


def test_a_bandwidth_of_zero_is_refused() -> None:
    assert errors_of(Quantities, {"size": 0, "bandwidth": 0}) == [(("bandwidth",), "greater_than")]


class Counts(Description):
    number: PositiveInt = 1
    share: Fraction = 0.0


@pytest.mark.parametrize("data", [{"number": True}, {"share": False}, {"number": LARGEST_COUNT + 1}, {"number": 1.5}])
def test_counts_are_whole_and_no_truth_values(data: dict[str, object]) -> None:
    assert len(errors_of(Counts, data)) == 1


def test_a_count_may_be_written_as_a_float() -> None:
    assert Counts.model_validate({"number": 1e8}).number == 100_000_000


def all_descriptions(base: type[Description] = Description) -> list[type[Description]]:
    subclasses = [*base.__subclasses__()]
    return subclasses + [found for subclass in subclasses for found in all_descriptions(subclass)]


@pytest.mark.parametrize(
    "schema",
    [
        schema
        for schema in all_descriptions()
        if schema.__module__.startswith("hermes_sim.") and not inspect.isabstract(schema)
    ],
    ids=lambda schema: f"{schema.__module__}.{schema.__name__}",
)
def test_defaults_are_in_base_units_and_pass_their_own_checks(schema: type[Description]) -> None:
    """A default is not validated when it is used, so it is here."""
    dumped = schema.model_construct().model_dump(mode="json", by_alias=True, warnings="error")
    required = {field.alias or name for name, field in schema.model_fields.items() if field.is_required()}
    try:
        schema.model_validate(dumped)
    except ValidationError as error:
        wrong = [details for details in error.errors() if len(details["loc"]) != 1 or details["loc"][0] not in required]
        assert all(details["loc"] == () for details in wrong), wrong
