"""Residual tables: exact on what is multilinear, nothing outside the data, bounded, the same sliced or whole."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.hardware.residual import LARGEST_LOG_RATIO, ResidualTable, encode
from hermes_sim.perf.residual import (
    NO_RESIDUAL,
    pack_residual,
    pad_residuals,
    residual_log_ratio,
    residuals_at,
    slice_residual,
)

# value = 100 log2(m) + 30 log2(n) thousandths: linear in both
PLANE = ResidualTable(axes={"m": (1, 4, 16), "n": (2, 8)}, values="30 90 230 290 430 490")


def at(table: ResidualTable, *x: float) -> tuple[float, float]:
    return residual_log_ratio(pack_residual(table), *x, *[1.0] * (4 - len(x)))


@pytest.mark.parametrize(("m", "n"), [(1, 2), (2, 2), (4, 4), (5, 7), (16, 8)])
def test_a_plane_is_reproduced_between_the_knots(m: float, n: float) -> None:
    value, support = at(PLANE, m, n)
    assert value == pytest.approx(0.1 * np.log2(m) + 0.03 * np.log2(n))
    assert support == pytest.approx(1.0)


def test_beyond_the_knots_the_value_falls_to_zero_within_an_octave() -> None:
    edge = at(PLANE, 16, 8)[0]
    assert at(PLANE, 16 * 2**0.25, 8) == (pytest.approx(0.75 * edge), pytest.approx(0.75))
    assert at(PLANE, 32, 8) == (0.0, 0.0)
    assert at(PLANE, 16, 1) == (0.0, 0.0)
    assert at(PLANE, 1e9, 1e9) == (0.0, 0.0)


def test_nodes_without_data_count_as_zero_and_say_so() -> None:
    table = ResidualTable(axes={"m": (1, 4)}, values=". 400")
    assert at(table, 1) == (0.0, 0.0)
    assert at(table, 2) == (pytest.approx(0.2), pytest.approx(0.5))
    assert at(table, 4) == (pytest.approx(0.4), pytest.approx(1.0))


def test_no_table_is_no_correction() -> None:
    assert residual_log_ratio(NO_RESIDUAL, 5.0, 5.0, 5.0, 5.0) == (0.0, 0.0)
    rows = pad_residuals([NO_RESIDUAL, pack_residual(PLANE)])
    assert residual_log_ratio(rows[0], 4.0, 4.0, 1.0, 1.0) == (0.0, 0.0)
    assert residual_log_ratio(rows[1], 4.0, 4.0, 1.0, 1.0) == at(PLANE, 4, 4)


def test_a_slice_is_the_table_at_that_value() -> None:
    random = np.random.default_rng(3)
    axes = {"a": (1.0, 3.0, 9.0), "b": (2.0, 5.0), "c": (1.0, 2.0, 4.0, 8.0), "d": (7.0,)}
    table = ResidualTable(
        axes=axes, values=encode(random.uniform(-0.6, 0.6, (3, 2, 4, 1)), random.random((3, 2, 4, 1)) > 0.3)
    )
    for a, b, c, d in random.uniform(0.5, 14.0, (50, 4)):
        sliced = slice_residual(table, {"b": b, "d": d})
        assert residual_log_ratio(sliced, a, c, 1.0, 1.0) == pytest.approx(at(table, a, b, c, d))
    with pytest.raises(ValueError, match="no axis"):
        slice_residual(table, {"e": 1.0})


def test_whole_columns_agree_with_single_points() -> None:
    n, m = np.array([2.0, 3.0, 50.0]), np.array([4.0, 11.0, 2.0])
    values, support = residuals_at(PLANE, {"n": n, "m": m})
    for row in range(3):
        assert (values[row], support[row]) == at(PLANE, m[row], n[row])


@pytest.mark.parametrize(
    ("axes", "values", "message"),
    [
        ({"m": (4, 1)}, "1 1", "ascend"),
        ({"m": (0.5, 1)}, "1 1", "ascend"),
        ({"m": (1, 4)}, "1", "2 nodes"),
        ({"m": (1, 4)}, "1 x", "whole thousandths"),
        ({"m": (1, 4)}, "1 900", "at most 693"),
    ],
)
def test_tables_that_make_no_sense_are_refused(axes: dict[str, tuple[float, ...]], values: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResidualTable(axes=axes, values=values)


def test_encoding_keeps_the_bound_of_a_factor_of_two() -> None:
    table = ResidualTable(axes={"m": (1, 2, 3)}, values=encode(np.array([5.0, -5.0, 0.1234]), np.ones(3, bool)))
    assert np.abs(table.log_ratios).max() <= LARGEST_LOG_RATIO + 1e-3
    assert table.log_ratios[2] == pytest.approx(0.123)
