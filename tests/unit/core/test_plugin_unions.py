"""Unions and names of plug-in tables know what the tables hold at the time of validation."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import pytest
from pydantic import TypeAdapter, ValidationError

from hermes_sim.core.schema import UNION_MARK, Description, name_in, one_of


class Shape(Description):
    """Base."""


class Square(Shape):
    kind: Literal["square"] = "square"
    side: float = 1.0


class Circle(Shape):
    kind: Literal["circle"] = "circle"
    radius: float = 1.0


@pytest.fixture
def shapes() -> dict[str, type[Shape]]:
    return {"square": Square}


@pytest.fixture
def drawing(shapes: dict[str, type[Shape]]) -> type[Description]:
    class Drawing(Description):
        shape: Annotated[Shape, one_of(shapes, "shape")]
        others: tuple[Annotated[Shape, one_of(shapes, "shape")], ...] = ()
        name: Annotated[str, name_in(shapes, "shape")] = "square"

    return Drawing


def test_a_new_member_is_known_at_once(shapes: dict[str, type[Shape]], drawing: type[Description]) -> None:
    circle = {"kind": "circle", "radius": 2.0}
    for _ in range(2):
        with pytest.raises(ValidationError, match="needs a known kind of shape: square"):
            drawing.model_validate({"shape": circle})
    shapes["circle"] = Circle
    drawn = drawing.model_validate({"shape": circle, "others": [{"kind": "square"}, circle], "name": "circle"})
    assert drawn.model_dump() == {
        "shape": {"kind": "circle", "radius": 2.0},
        "others": ({"kind": "square", "side": 1.0}, {"kind": "circle", "radius": 2.0}),
        "name": "circle",
    }
    assert drawing.model_validate(drawn.model_dump()) == drawn
    del shapes["circle"]
    with pytest.raises(ValidationError, match="needs a known kind of shape: square"):
        drawing.model_validate({"shape": circle})


def test_a_replaced_member_is_the_one_that_validates(shapes: dict[str, type[Shape]]) -> None:
    adapter: TypeAdapter[Shape] = TypeAdapter(Annotated[Shape, one_of(shapes, "shape")])
    assert isinstance(adapter.validate_python({"kind": "square"}), Square)

    class Rhombus(Square):
        angle: float = 60.0

    shapes["square"] = Rhombus
    assert adapter.validate_python({"kind": "square", "angle": 30.0}) == Rhombus(angle=30.0)


def test_errors_keep_their_path_and_the_member_they_are_in(
    shapes: dict[str, type[Shape]], drawing: type[Description]
) -> None:
    shapes["circle"] = Circle
    with pytest.raises(ValidationError) as caught:
        drawing.model_validate({"shape": {"kind": "circle", "radius": "x"}, "others": [{"kind": "square", "edge": 1}]})
    assert [error["loc"] for error in caught.value.errors()] == [
        ("shape", f"{UNION_MARK}circle", "radius"),
        ("others", 0, f"{UNION_MARK}square", "edge"),
    ]


def test_the_json_schema_lists_what_is_there(shapes: dict[str, type[Shape]], drawing: type[Description]) -> None:
    assert "circle" not in json.dumps(drawing.model_json_schema())
    shapes["circle"] = Circle
    schema = drawing.model_json_schema()
    assert schema["properties"]["name"]["enum"] == ["square", "circle"]
    kinds = [schema["$defs"][one["$ref"].split("/")[-1]] for one in schema["properties"]["shape"]["oneOf"]]
    assert [kind["properties"]["kind"]["const"] for kind in kinds] == ["square", "circle"]


def test_a_name_is_checked_against_the_table(shapes: dict[str, type[Shape]], drawing: type[Description]) -> None:
    with pytest.raises(ValidationError, match=r"'sqare' is not a shape \(square\)\. Did you mean 'square'\?"):
        drawing.model_validate({"shape": {"kind": "square"}, "name": "sqare"})
    with pytest.raises(ValidationError, match="valid string"):
        drawing.model_validate({"shape": {"kind": "square"}, "name": 3})
