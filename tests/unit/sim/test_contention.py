"""Engines that share a resource slow each other down by progressive filling, and not at all while they fit."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.sim.contention import retime
from hermes_sim.state.arrays import EngineArrays
from tests.one_engine import Options, make_arrays

MEMORY = 1


def group_of(demands: list[float], alone_s: list[float]) -> EngineArrays:
    """Engines of one group with a step in flight each, begun at 0, that uses so much of the memory bandwidth alone."""
    number = len(demands)
    arrays = make_arrays(
        Options(num_blocks=1, block_tokens=1, max_num_seqs=1, max_num_batched_tokens=1), 1, num_engines=number
    )
    arrays.group_first[:] = 0
    arrays.group_size[0] = number
    arrays.group_of[:] = 0
    arrays.group_contended[0] = 1
    arrays.lane_demand[:, 0, MEMORY] = demands
    arrays.lane_remaining_s[:, 0] = alone_s
    arrays.lane_end_s[:, 0] = alone_s
    return arrays


def test_what_fits_is_untouched() -> None:
    arrays = group_of([0.5, 0.5], [1.0, 2.0])
    retime(arrays.handle, 0, 0.0)
    assert arrays.lane_end_s[:, 0].tolist() == [1.0, 2.0]
    assert arrays.lane_retimed[:, 0].tolist() == [0, 0]


def test_two_that_want_everything_get_half() -> None:
    arrays = group_of([1.0, 1.0], [1.0, 2.0])
    retime(arrays.handle, 0, 0.0)
    assert arrays.lane_end_s[:, 0] == pytest.approx([2.0, 4.0])


def test_the_rest_speeds_up_when_one_ends() -> None:
    # both at half speed until 2.0, when the first is done; the second has 1.0 left and runs alone: 3.0
    arrays = group_of([1.0, 1.0], [1.0, 2.0])
    retime(arrays.handle, 0, 0.0)
    arrays.lane_end_s[0, 0] = np.inf
    retime(arrays.handle, 0, 2.0)
    assert arrays.lane_end_s[1, 0] == pytest.approx(3.0)


def test_three_with_unequal_demands() -> None:
    # wanted 0.6 + 0.6 + 0.3 = 1.5 of 1: all at speed 2/3 (they rise together and the one resource fills)
    arrays = group_of([0.6, 0.6, 0.3], [1.0, 1.0, 1.0])
    retime(arrays.handle, 0, 0.0)
    assert arrays.lane_end_s[:, 0] == pytest.approx([1.5, 1.5, 1.5])


def test_who_does_not_use_the_full_resource_runs_on() -> None:
    arrays = group_of([1.0, 1.0, 0.0], [1.0, 1.0, 1.0])
    retime(arrays.handle, 0, 0.0)
    assert arrays.lane_end_s[:, 0] == pytest.approx([2.0, 2.0, 1.0])
    assert arrays.lane_end_s[2, 0] == 1.0
