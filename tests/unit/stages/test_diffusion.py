"""Stages of kind `diffusion`: steps, caches, mixtures of models, and the work of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from hermes_sim.models.operator import Operator
from hermes_sim.stages.diffusion import Diffusion
from hermes_sim.workload.requests import request_table
from tests.stage_examples import network

SDXL = network("diffusion_models", "sdxl")
SD = network("diffusion_models", "sd_1_5")
REQUESTS = request_table(np.arange(2000.0), [10] * 2000, [5] * 2000)
HALF = {"hit_frac": 0.5, "skipped_steps": 20}


def stage(**keys: Any) -> Diffusion:
    size = {"width": 1024, "height": 1024, "num_steps": 50}
    return Diffusion.model_validate({"name": "draw", "model": SDXL, **size, **keys})


def flops(operators: tuple[Operator, ...]) -> float:
    return sum(operator.total_flops for operator in operators)


def step_flops(one: Diffusion, *, small: bool = False) -> float:
    model = one.small_model if small else one.model
    assert model is not None
    return flops(model.step_operators(1.0, one.width, one.height, None))


def test_a_unit_is_one_pass_and_guidance_takes_two() -> None:
    assert stage().units_of(REQUESTS, 1)[:2].tolist() == [100.0, 100.0]
    assert stage(guidance=False, num_images=3).units_of(REQUESTS, 1)[0] == 150.0


def test_work_is_steps_text_and_pixels() -> None:
    one = stage()
    around = flops(one.model.text_operators(2, None)) + flops(one.model.decode_operators(1.0, 1024, 1024, None))
    assert flops(one.work(100.0, 100.0, {})) == pytest.approx(100 * step_flops(one) + around, rel=1e-12)
    # a batch of four runs the same kernels on four times the rows
    four = one.work(400.0, 100.0, {})
    assert flops(four) == pytest.approx(4 * flops(one.work(100.0, 100.0, {})), rel=1e-12)
    assert sum(o.count for o in four if o.kind == "attention") == sum(
        o.count for o in one.work(100.0, 100.0, {}) if o.kind == "attention"
    )


def test_what_is_found_leaves_out_its_first_steps() -> None:
    one = stage(cache=HALF)
    large, small = one.steps_of(REQUESTS, 1)
    assert set(large.tolist()) == {50, 30}
    assert not small.any()
    assert abs((large == 30).mean() - 0.5) < 5 * np.sqrt(0.25 / 2000)
    np.testing.assert_array_equal(one.units_of(REQUESTS, 1), 2.0 * large)
    # alone in a batch a request has its own number of steps, whatever the mean is
    mean = float(one.units_of(REQUESTS, 1).mean())
    steps = [sum(o.count for o in one.work(units, mean, {}) if o.name == "conv_in") for units in (60.0, 100.0)]
    assert steps == [30, 50]


def test_a_picture_that_is_found_still_takes_a_step() -> None:
    large, _ = stage(cache={"hit_frac": 1.0, "skipped_steps": 80}).steps_of(REQUESTS, 1)
    assert set(large.tolist()) == {1}


def test_a_mixture_over_steps() -> None:
    """The first twenty of fifty steps are the large model's; FLOPs of a request are those of its steps."""
    one = stage(small_model=SD, num_large_steps=20)
    assert [steps[0] for steps in one.steps_of(REQUESTS, 1)] == [20, 30]
    units = float(one.units_of(REQUESTS, 1)[0])
    assert units == pytest.approx(2 * (20 + 30 * step_flops(one, small=True) / step_flops(one)))
    around = flops(one.model.text_operators(2, None)) + flops(one.model.decode_operators(1.0, 1024, 1024, None))
    by_hand = 2 * (20 * step_flops(one) + 30 * step_flops(one, small=True)) + around
    assert flops(one.work(units, units, {})) == pytest.approx(by_hand, rel=1e-12)


def test_the_small_model_does_what_is_left_of_a_picture_that_is_found() -> None:
    one = stage(small_model=SD, cache={**HALF, "small_model": True})
    large, small = one.steps_of(REQUESTS, 1)
    assert set(zip(large.tolist(), small.tolist(), strict=True)) == {(50, 0), (0, 30)}
    # of the whole run, FLOPs are those of its steps
    units = one.units_of(REQUESTS, 1)
    mean = float(units.mean())
    passes = 2 * (large.sum() * step_flops(one) + small.sum() * step_flops(one, small=True)) / len(large)
    around = flops(one.model.text_operators(2, None)) + flops(one.model.decode_operators(1.0, 1024, 1024, None))
    assert flops(one.work(mean, mean, {})) == pytest.approx(passes + around, rel=0.02)


def test_memory_holds_both_models() -> None:
    one = stage(small_model=SD, num_large_steps=20)
    assert one.small_model is not None
    assert one.resident_bytes({}) == one.model.resident_bytes(None) + one.small_model.resident_bytes(None)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"width": 1000}, "whole multiples of 32 pixels, not 1000 x 1024"),
        ({"num_large_steps": 20}, "small_model goes with num_large_steps"),
        ({"small_model": SD}, "small_model goes with num_large_steps"),
        ({"small_model": SD, "num_large_steps": 60}, "num_large_steps 60 is more than num_steps 50"),
    ],
)
def test_what_does_not_go_together(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        stage(**keys)
