"""Stages of kind `encode`: units, tokens, and what is found in a cache."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from hermes_sim.stages.encode import Encode
from hermes_sim.workload.media import Pictures
from hermes_sim.workload.requests import RequestTable, request_table
from tests.stage_examples import network


def stage(model: str = "clip_vit_l14_336", **keys: Any) -> Encode:
    return Encode.model_validate({"name": "encode", "model": network("encoders", model), **keys})


def requests(per_request: list[int], contents: list[int] | None = None, **columns: Any) -> RequestTable:
    """Pictures of 1024 x 768 pixels."""
    number, total = len(per_request), sum(per_request)
    offsets = np.concatenate([[0], np.cumsum(per_request)]).astype(np.int64)
    content = np.arange(total) if contents is None else np.array(contents)
    pictures = Pictures(offsets, np.full(total, 1024), np.full(total, 768), content)
    table = request_table(np.arange(float(number)), [10] * number, [5] * number)
    return replace(table, pictures=pictures, **columns)


def test_units_are_positions_and_tokens_are_what_the_projector_leaves() -> None:
    table = requests([0, 1, 3])
    assert stage().units_of(table, 1).tolist() == [0.0, 577.0, 3 * 577.0]
    assert stage().prompt_tokens(table).tolist() == [0, 576, 3 * 576]
    own = stage("qwen2_vl_vit")
    assert own.units_of(table, 1).tolist() == [0.0, 3996.0, 3 * 3996.0]
    assert own.prompt_tokens(table).tolist() == [0, 999, 3 * 999]
    # 4:3 is 4 x 3 tiles, however little of them the picture fills
    tiles = stage("internvit_6b")
    assert tiles.units_of(table, 1).tolist() == [0.0, 13 * 1025.0, 3 * 13 * 1025.0]
    assert tiles.prompt_tokens(table).tolist() == [0, 13 * 256, 3 * 13 * 256]


def test_who_brings_nothing_passes_over_it() -> None:
    assert stage().wanted_by(requests([0, 1, 2]), 1).tolist() == [False, True, True]
    assert stage("whisper_large_v3").wanted_by(requests([1, 1]), 1).tolist() == [False, False]


def test_sound_is_heard_in_whole_chunks_but_read_as_long_as_it_is() -> None:
    table = requests([0, 0, 0], sound_s=np.array([0.0, 12.0, 31.0]))
    whisper = stage("whisper_large_v3")
    assert whisper.units_of(table, 1).tolist() == [0.0, 1500.0, 3000.0]
    assert whisper.prompt_tokens(table).tolist() == [0, 300, 775]  # 40 ms each


def test_the_length_of_a_sequence_is_that_which_a_position_is_in() -> None:
    """One picture of 37 x 27 and one of 10 x 10 tokens, four patches each: attention over the batch is as of both."""
    table = requests([2])
    assert table.pictures is not None
    mixed = replace(table, pictures=replace(table.pictures, width=np.array([1024, 280]), height=np.array([768, 280])))
    own, long, short = stage("qwen2_vl_vit"), 3996.0, 400.0
    assert own.units_of(mixed, 1).tolist() == [long + short]
    mean = own.units_per_sequence(mixed, 1)
    assert mean == (long**2 + short**2) / (long + short)
    pairs = sum(o.total_flops for o in own.work(long + short, mean, {}) if o.kind == "attention") / (32 * 4 * 1280)
    assert pairs == pytest.approx(long**2 + short**2, rel=1e-3)


class TestCache:
    def test_a_stated_chance(self) -> None:
        table = requests([1] * 4000)
        found = stage(cache={"hit_frac": 0.3})
        missing = found.units_of(table, 1) > 0
        assert abs(missing.mean() - 0.7) < 5 * np.sqrt(0.21 / 4000)
        np.testing.assert_array_equal(found.wanted_by(table, 1), missing)
        assert found.prompt_tokens(table).tolist() == [576] * 4000  # found or not, they join the prompt
        np.testing.assert_array_equal(found.sent_bytes(table, 1) > 0, missing)

    def test_least_recently_used_by_hand(self) -> None:
        """Room for two pictures of 576 x 4096 fp16 numbers: A B A C B A; C drives B out, B drives A out."""
        size = 576 * 4096 * 2
        one = stage(cache={"capacity": f"{2 * size} B"})
        table = requests([1] * 6, [0, 1, 0, 2, 1, 0])
        assert one.bytes_per_token == 4096 * 2
        assert (one.units_of(table, 1) == 0).tolist() == [False, False, True, False, False, False]
        assert stage(cache={"capacity": "1 kB"}).units_of(table, 1).tolist() == [577.0] * 6
        assert (stage(cache={"capacity": "1 GB"}).units_of(table, 1) == 0).tolist() == [
            False,
            False,
            True,
            False,
            True,
            True,
        ]

    def test_one_of_both(self) -> None:
        for keys in ({}, {"hit_frac": 0.5, "capacity": "1 GB"}):
            with pytest.raises(ValidationError, match="one of hit_frac and capacity"):
                stage(cache=keys)
