"""Layers on pipeline stages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_sim.perf.pipeline import stage_interval_frac, stage_layers
from tests.unit.perf.engines import engine, plain_device, tiny_model


@pytest.mark.parametrize(
    ("num_layers", "pp", "expected"),
    [(80, 4, (20, 20, 20, 20)), (81, 4, (20, 20, 21, 20)), (83, 4, (21, 21, 21, 20)), (5, 3, (2, 2, 1)), (7, 1, (7,))],
)
def test_even_split(num_layers: int, pp: int, expected: tuple[int, ...]) -> None:
    assert stage_layers(num_layers, pp) == expected


@given(st.integers(1, 200), st.integers(1, 16))
def test_even_split_gives_every_layer_away(num_layers: int, pp: int) -> None:
    stages = stage_layers(num_layers, pp)
    assert sum(stages) == num_layers
    assert max(stages) - min(stages) <= 1
    assert stages[-1] == min(stages)


@pytest.mark.parametrize("stated", [(40, 41), (80,), (40, 40, 0), (81, -1)])
def test_splits_that_do_not_fit_are_refused(stated: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must state 2 stages with 80 layers in all"):
        stage_layers(80, 2, stated)


def test_slowest_stage_by_hand() -> None:
    # 10 ms of layers, 1 ms of logits: 3, 3 and 4 of 10 layers; 4 ms + 1 ms of 11
    assert stage_interval_frac((3, 3, 4), 10e-3, 1e-3) == pytest.approx(5 / 11, rel=1e-12)
    assert stage_interval_frac((5, 3, 2), 10e-3, 1e-3) == pytest.approx(5 / 11, rel=1e-12)
    assert stage_interval_frac((10,), 10e-3, 1e-3) == 1.0


def test_stated_stages_change_the_interval_and_not_the_pass() -> None:
    model = tiny_model(num_layers=80, vocab_size=64)
    even, same, uneven = (
        engine(model, plain_device(), pp=4, layers_per_stage=stages)
        for stages in (None, (20, 20, 20, 20), (35, 15, 15, 15))
    )
    assert same.stage_interval_frac == even.stage_interval_frac
    assert uneven.stage_interval_frac == pytest.approx(35 / 80, rel=0.01)
    np.testing.assert_array_equal(even.linear, uneven.linear)
