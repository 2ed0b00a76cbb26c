"""Ranges: which numbers they have, how they are written, what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hermes_sim.scenario.axis import Axis
from hermes_sim.scenario.axis_range import Range


def made(start: Any, end: Any, **keys: Any) -> Range:
    return Range.model_validate({"from": start, "to": end, **keys})


@pytest.mark.parametrize(
    ("keys", "texts"),
    [
        ({"from": 1, "to": 4}, ["1", "2", "3", "4"]),
        ({"from": 1, "to": 8, "scale": "log", "step": 2}, ["1", "2", "4", "8"]),
        ({"from": 1, "to": 9, "step": 4}, ["1", "5", "9"]),
        ({"from": 1, "to": 10, "step": 4}, ["1", "5", "9"]),
        ({"from": 1, "to": 100, "num": 3, "scale": "log"}, ["1", "10", "100"]),
        ({"from": 1, "to": 3, "num": 9}, ["1", "2", "3"]),
        ({"from": "1 /s", "to": "2 /s", "num": 3}, ["1 /s", "1.5 /s", "2 /s"]),
        ({"from": 0.1, "to": 0.7, "step": 0.2}, ["0.1", "0.3", "0.5", "0.7"]),
        ({"from": "1TB/s", "to": "4TB/s", "step": 2, "scale": "log"}, ["1 TB/s", "2 TB/s", "4 TB/s"]),
        ({"from": 1.0, "to": 2.0, "num": 1}, ["1"]),
    ],
)
def test_the_numbers_of_a_range(keys: dict[str, Any], texts: list[str]) -> None:
    one = Range.model_validate(keys)
    assert one.numbers is not None
    assert [one.text(number) for number in one.numbers] == texts


def test_a_range_without_spacing_takes_any_number() -> None:
    assert made("1 /s", "2 /s").numbers is None
    assert made(1, 64, scale="log").numbers is None
    assert made(1.0, 2.0).numbers is None


@pytest.mark.parametrize(("scale", "middle"), [("linear", 500_050), ("log", 10_000)])
def test_counts_too_many_to_list_are_drawn_evenly_over_their_scale(scale: str, middle: int) -> None:
    one = made(100, 1_000_000, scale=scale)
    assert one.numbers is None
    assert one.number_at(0.5) == pytest.approx(middle, rel=0.01)
    assert (one.number_at(0.0), one.number_at(1.0 - 1e-12)) == (100, 1_000_000)


def test_counts_from_zero_are_drawn() -> None:
    assert made(0, 100_000).number_at(0.5) == 50_000


def test_numbers_with_other_words_behind_them_are_names() -> None:
    values = [{"name": name, "set": {"cluster.name": name}} for name in ("4 cards, wide", "4 cards, narrow")]
    axis = Axis.model_validate({"name": "cards", "values": values})
    assert axis.kind_of_numbers is None
    assert axis.numbers is None


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"from": "1 /s", "to": "2 /min"}, "the same unit"),
        ({"from": 2, "to": 2}, "must be below"),
        ({"from": 0, "to": 2, "scale": "log"}, "above 0"),
        ({"from": 1, "to": 2, "num": 2, "step": 1}, "not both"),
        ({"from": 1, "to": 2, "step": 0}, "must be > 0"),
        ({"from": 1, "to": 2, "step": 1, "scale": "log"}, "must be > 1"),
        ({"from": "1 s", "to": "2 s", "step": 1}, "the unit of from"),
        ({"from": "1 s", "to": "2 s", "step": "2 s", "scale": "log"}, "no unit"),
        ({"from": "fast", "to": "slow"}, "needs a number"),
        ({"from": True, "to": 2}, "from needs a number, got true"),
        ({"from": 0, "to": 1e9, "step": 1}, "more than 10,000"),
    ],
)
def test_what_is_no_range(keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Range.model_validate(keys)
    assert problem in str(refused.value)


@given(
    share=st.floats(0, 1, exclude_max=True),
    low=st.integers(1, 50),
    span=st.integers(1, 1000),
    log=st.booleans(),
    whole=st.booleans(),
    num=st.none() | st.integers(1, 20),
)
def test_a_drawn_number_lies_inside_and_is_what_its_name_says(
    share: float, low: int, span: int, log: bool, whole: bool, num: int | None
) -> None:
    scale, factor = "log" if log else "linear", 1 if whole else 1.0
    one = made(low * factor, (low + span) * factor, scale=scale, **({} if num is None else {"num": num}))
    number = one.number_at(share)
    assert one.low <= number <= one.high
    assert one.numbers is None or number in one.numbers
    assert not whole or number == int(number)
    axis = Axis.model_validate({"name": "x", "key": "workload.seed", "range": one.model_dump(by_alias=True)})
    value = axis.value_at(number)
    assert axis.number_named(value.name) == number
    assert value.overrides == {"workload.seed": int(number) if whole else number}


def test_shares_give_every_count_its_part() -> None:
    """Evenly, and on a logarithmic scale in proportion to the logarithm around it."""
    dice = made(1, 6)
    assert [dice.number_at((index + 0.5) / 12) for index in range(12)] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    powers = made(1, 1000, scale="log")
    drawn = [powers.number_at((index + 0.5) / 3000) for index in range(3000)]
    middle = sum(number <= 31 for number in drawn) / 3000
    assert middle == pytest.approx(math.log(31.5 / 0.5) / math.log(1000.5 / 0.5), abs=0.001)


def test_one_value_for_several_keys() -> None:
    axis = Axis.model_validate({"name": "tp", "key": ["cluster.a", "cluster.b"], "values": [2, 4]})
    assert axis.values[1].overrides == {"cluster.a": 4, "cluster.b": 4}
    assert axis.numbers == (2.0, 4.0)


def test_values_in_several_units_are_no_numbers() -> None:
    assert Axis.model_validate({"name": "t", "key": "workload.x", "values": ["500 ms", "2 s"]}).numbers is None
    assert Axis.model_validate({"name": "t", "key": "workload.x", "values": ["1 s", "2 s"]}).numbers == (1.0, 2.0)
