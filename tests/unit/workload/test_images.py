"""Pictures in prompts: tokens on top of the text's, sent again in every later turn of a session."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from hermes_sim.core.errors import TraceError
from hermes_sim.core.rng import stream
from hermes_sim.workload.images import Images
from hermes_sim.workload.requests import RequestTable, request_table
from hermes_sim.workload.traffic import Traffic
from tests.unit.workload.laws import FIXED, requests_of

POISSON = {"kind": "poisson", "rate": "4 /s"}
LLAVA = {"tokens_per_image": 576}


def with_images(number: int, **keys: Any) -> RequestTable:
    return requests_of(**{"arrivals": POISSON, "lengths": FIXED, "num_requests": number, **keys})


def test_a_prompt_grows_by_its_pictures() -> None:
    # 100 tokens of text each
    table = with_images(5, images={**LLAVA, "mean_num_images": 2})
    assert table.num_image_tokens is not None
    assert table.num_image_tokens.tolist() == [1152] * 5
    assert table.num_prompt_tokens.tolist() == [1252] * 5
    assert with_images(5).num_image_tokens is None


def test_numbers_have_the_mean_that_is_asked_for() -> None:
    number = 20_000
    images = Images.model_validate({**LLAVA, "share": 0.5, "per_request": "geometric", "mean_num_images": 3})
    drawn = images.num_images(stream(1, "images"), number)
    some = drawn[drawn > 0]
    assert abs(len(some) - number / 2) < 5 * np.sqrt(number / 4)
    # geometric of mean 3 from 1: variance (1 - p) / p^2 = 6
    assert abs(some.mean() - 3.0) < 5 * np.sqrt(6 / len(some))
    assert abs((some == 1).mean() - 1 / 3) < 5 * np.sqrt(2 / 9 / len(some))


def test_a_requests_pictures_do_not_depend_on_how_many_follow() -> None:
    images = {**LLAVA, "share": 0.4, "per_request": "geometric", "mean_num_images": 2.5}
    few, many = (with_images(number, images=images).num_image_tokens for number in (40, 400))
    assert few is not None
    assert many is not None
    np.testing.assert_array_equal(few, many[:40])


def test_later_turns_send_earlier_pictures_again() -> None:
    table = with_images(60, images=LLAVA, sessions={"turns": "fixed", "mean_num_turns": 3})
    assert table.num_image_tokens is not None
    # 100 more tokens and an answer of 10 a turn, one picture each: 100 + 576, 210 + 1152, 320 + 1728
    for session in np.unique(table.session):
        rows = table.session == session
        assert table.num_image_tokens[rows].tolist() == [576, 1152, 1728][: rows.sum()]
        assert table.num_prompt_tokens[rows].tolist() == [676, 1362, 2048][: rows.sum()]


def test_a_system_prompt_comes_on_top() -> None:
    table = with_images(3, images=LLAVA, prefix={"tokens": 50})
    assert table.num_prompt_tokens.tolist() == [726] * 3
    assert table.prefix_tokens.tolist() == [50] * 3


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ({}, "tokens_per_image"),
        ({**LLAVA, "mean_num_images": 1.5}, "whole mean_num_images"),
        ({**LLAVA, "mean_num_images": 0.5}, "mean_num_images"),
    ],
)
def test_senseless_images_are_refused(images: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Images.model_validate(images)


def test_a_trace_holds_its_pictures_already() -> None:
    with pytest.raises(ValidationError, match="remove images, or trace"):
        Traffic.model_validate({"trace": {"format": "azure"}, "images": LLAVA})


def test_more_picture_tokens_than_prompt_tokens_are_refused() -> None:
    with pytest.raises(TraceError, match="num_image_tokens exceeds num_prompt_tokens"):
        request_table([0.0], [10], [1], num_image_tokens=[11])
