"""Corrections of layers of experts: exact on measured layers, none away from them, and what a file may not hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from hermes_sim.hardware.expert_residual import ExpertLayer, ExpertResidual, whole_thousandths
from hermes_sim.perf.expert_residual import correction_curves, corrections_at, layer_correction, likeness
from hermes_sim.perf.residual import residual_log_ratio

SMALL, LARGE = ExpertLayer(32, 1024, 4096, 4, 2), ExpertLayer(8, 8192, 4096, 2, 1)


def table(noise: float = 1e-9, **changes: object) -> ExpertResidual:
    values: dict[str, object] = {
        "tokens": (1.0, 16.0, 4096.0), "layers": "32 1024 4096 4 2 8 8192 4096 2 1", "uneven": "100 200 0 -50 -50 -50",
        "reach": 1.0, "noise": noise,
    }  # fmt: skip
    return ExpertResidual.model_validate({**values, **changes})


def at(shapes: list[ExpertLayer], num_tokens: float, *, even: bool = False, **changes: object) -> list[float]:
    rows, one = np.array(shapes, np.float64), np.ones(len(shapes))
    return corrections_at(table(**changes), rows, num_tokens * one, one > 0 if even else one < 0).tolist()  # type: ignore[arg-type]


def test_without_noise_measured_layers_get_what_was_measured() -> None:
    """Linear in log2 between knots: 4 tokens lie half-way between 1 and 16."""
    assert at([SMALL, LARGE], 1.0) == pytest.approx([0.1, -0.05], abs=1e-6)
    assert at([SMALL, LARGE], 4.0) == pytest.approx([0.15, -0.05], abs=1e-6)
    assert at([SMALL], 16.0) == pytest.approx([0.2], abs=1e-6)


def test_beyond_the_knots_nothing_is_left_after_an_octave() -> None:
    assert at([LARGE], 4096.0 * math.sqrt(2.0)) == pytest.approx([-0.025], abs=1e-6)
    assert at([LARGE], 2.0 * 4096.0) == at([LARGE], 1e6) == [0.0]


def test_far_from_every_measured_layer_nothing_is_corrected() -> None:
    """Monotonically less with distance."""
    wider = [SMALL._replace(hidden=SMALL.hidden * 2.0**octaves) for octaves in (0, 1, 4, 16, 64)]
    found = at(wider, 16.0)
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(0.0, abs=1e-6)


def test_a_correction_is_never_above_a_factor_of_two() -> None:
    curves, _ = correction_curves(
        table(uneven="2000 2000 2000 -2000 -2000 -2000"), np.array([SMALL, LARGE]), is_even=False
    )
    assert np.exp(np.abs(curves)).max() == pytest.approx(2.0)


def test_noise_takes_a_layers_own_share() -> None:
    """One layer alone with variance 1 and noise v: the mean of the posterior is 1 / (1 + v) of what was measured."""
    alone = {"layers": "32 1024 4096 4 2", "uneven": "100 100 100"}
    for noise in (0.1, 1.0):
        assert at([SMALL], 1.0, noise=noise, **alone) == pytest.approx([0.1 / (1.0 + noise)])
        _, support = correction_curves(table(noise, **alone), np.array([SMALL], np.float64), is_even=False)
        assert support == pytest.approx([1.0 / (1.0 + noise)])


def test_even_rows_have_curves_of_their_own_where_measured() -> None:
    assert at([SMALL], 1.0, even=True) == at([SMALL], 1.0)
    both = table(even="10 10 10 20 20 20")
    found = corrections_at(both, np.array([SMALL, SMALL, LARGE], np.float64), np.ones(3), np.array([True, False, True]))
    assert found == pytest.approx([0.01, 0.1, 0.02], abs=1e-6)


def test_an_engine_carries_the_curve_of_uneven_rows() -> None:
    packed = layer_correction(table(even="0 0 0 0 0 0"), SMALL)
    for num_tokens in (1.0, 4.0, 300.0, 6000.0):
        (expected,) = at([SMALL], num_tokens)
        ratio, support = residual_log_ratio(packed, num_tokens, 1.0, 1.0, 1.0)
        assert ratio == pytest.approx(expected, abs=1e-9)
        assert 0.0 <= support <= 1.0


def test_likeness_is_a_covariance() -> None:
    """One on the diagonal, symmetric, positive definite."""
    generator = np.random.default_rng(0)
    shapes = 2.0 ** generator.integers(0, 12, (40, 5))
    shapes = np.unique(shapes, axis=0)
    found = likeness(shapes, shapes, 0.5)
    assert np.diag(found) == pytest.approx(np.ones(len(shapes)))
    assert found == pytest.approx(found.T)
    assert np.linalg.eigvalsh(found).min() > 0.0


def test_text_of_curves_reads_back() -> None:
    curves = np.array([[0.1, -0.0421, 0.0], [0.5, 0.25, -0.6]])
    written = table(uneven=whole_thousandths(curves))
    assert written.curves(is_even=False) == pytest.approx(curves, abs=5e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": (1.0, 1.0, 2.0)}, "tokens: knots must ascend"),
        ({"layers": "1 2 3 4"}, "layers: 5 numbers each, got 4"),
        ({"layers": "0 1 1 1 1 2 1 1 1 1"}, "layers: numbers of at least 1"),
        ({"uneven": "1 2 3"}, "uneven: 6 numbers by layers and knots, got 3"),
        ({"uneven": "1 2 3 4 5 x"}, "uneven: whole numbers, got 'x'"),
        ({"even": "1 2.5 3 4 5 6"}, "even: whole numbers, got '2.5'"),
    ],
)
def test_a_file_that_is_wrong_says_where(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        table(**changes)
