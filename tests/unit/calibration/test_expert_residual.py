"""Corrections of experts from measured layers: what is found, what is refused, and which layers are not fitted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from hermes_sim.calibration.expert_residual import fit_expert_residual
from hermes_sim.calibration.expert_tables import shares_weights
from hermes_sim.calibration.experts import UNTUNED_RATIO, layers_of, untuned_layers
from hermes_sim.perf.expert_residual import corrections_at

FloatArray = npt.NDArray[np.float64]


def measured() -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Shapes, tokens and evenness of rows of 60 layers."""
    layers = np.array(
        [(local, width, hidden, 8.0, 4.0) for local in (8, 16, 32, 64) for width in (128, 256, 512, 1024, 2048)
         for hidden in (2048, 4096, 8192)], np.float64
    )  # fmt: skip
    tokens = 2.0 ** np.arange(0, 14, 1.5)
    shapes = np.repeat(layers, 2 * len(tokens), axis=0)
    return shapes, np.tile(tokens, 2 * len(layers)), np.tile(np.repeat([False, True], len(tokens)), len(layers))


def smooth(shapes: FloatArray, num_tokens: FloatArray) -> FloatArray:
    return np.asarray(0.1 * np.log2(shapes[:, 1] / 512.0) - 0.02 * np.log2(num_tokens / 64.0))


def test_what_follows_the_shape_is_found_on_layers_left_out() -> None:
    shapes, num_tokens, even = measured()
    ratio = smooth(shapes, num_tokens) + np.where(even, -0.05, 0.0)
    left = shapes[:, 1] == 512.0
    left &= shapes[:, 2] == 4096.0
    found = fit_expert_residual(shapes[~left], num_tokens[~left], even[~left], ratio[~left])
    assert found is not None
    table, in_turn = found
    assert table.before_frac is not None
    assert table.after_frac is not None
    assert table.after_frac < 0.3 * table.before_frac
    assert np.abs(ratio[~left] - in_turn).mean() == pytest.approx(table.after_frac, rel=1e-3)
    corrected = corrections_at(table, shapes[left], num_tokens[left], even[left])
    assert np.abs(ratio[left] - corrected).mean() < 0.02


def test_what_follows_nothing_is_left_alone() -> None:
    shapes, num_tokens, even = measured()
    layers, number = np.unique(shapes, axis=0, return_inverse=True)
    own = np.random.default_rng(1).normal(0.0, 0.2, len(layers))
    assert fit_expert_residual(shapes, num_tokens, even, own[number.ravel()]) is None


def layers(**columns: object) -> pd.DataFrame:
    row = {
        "num_tokens": 1, "hidden": 4096, "width": 2048, "num_experts": 64, "num_experts_per_token": 4, "moe_tp": 2,
        "moe_ep": 2, "distribution": "balanced",
    }  # fmt: skip
    return pd.DataFrame([{**row, **columns}])


def test_layers_of_two_models_share_the_shape_of_their_weights() -> None:
    """32 experts of 4096 x 1024 on a device, from 64 over 2 or from 128 over 4; not 16, nor another width."""
    table = pd.concat(
        [layers(), layers(num_experts=128, moe_ep=4), layers(moe_ep=4), layers(width=1024)], ignore_index=True
    )
    assert shares_weights(table).tolist() == [True, True, False, False]
    assert not shares_weights(pd.concat([layers(), layers(num_tokens=2)], ignore_index=True)).any()
    assert layers_of(table)[:2].tolist() == [[32.0, 1024.0, 4096.0, 4.0, 2.0], [32.0, 1024.0, 4096.0, 4.0, 4.0]]


def test_a_slow_layer_is_untuned_only_if_another_has_its_weights() -> None:
    table = pd.concat([layers(), layers(num_experts=128, moe_ep=4), layers(moe_ep=4)], ignore_index=True)
    slow, usual = 1.01 * UNTUNED_RATIO, 1.0
    assert untuned_layers(table, np.array([slow, usual, slow])).tolist() == [True, False, False]
    assert not untuned_layers(table, np.array([usual, usual, slow])).any()
