"""The matrix-multiply model: by hand without its corrections, bounded and monotone with all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_sim.perf.coefficients import gemm_coefficients
from hermes_sim.perf.operators import gemm
from hermes_sim.perf.operators.gemm import gemm_seconds
from tests.unit.hardware.shipped import devices
from tests.unit.perf.engines import plain_device

DEVICES = ("a100_sxm_80gb", "h100_sxm", "h200_sxm", "b200_sxm", "l40s", "rtx_4090", "mi300x", "xeon_8480plus")


def seconds(coefficients: np.ndarray, m: float, n: int, k: int, products: float = 1.0) -> float:
    weights, activations = 2.0 * products * n * k, 2.0 * products * m * (n + k)
    return gemm_seconds(m, float(n), float(k), products, weights, activations, coefficients)[0]


def test_large_product_runs_at_half_the_peak() -> None:
    # 2 x 8192^3 FLOPs at 50 TFLOP/s, 2560 tiles of 128 x 256 in 25.6 waves, and the launch
    coefficients = gemm_coefficients(plain_device(), "bf16")
    time_s, is_compute = gemm_seconds(8192.0, 8192.0, 8192.0, 1.0, 2.0 * 8192**2, 4.0 * 8192**2, coefficients)
    assert time_s == pytest.approx(2.0 * 8192**3 / 50e12 + 1e-6, rel=1e-12)
    assert is_compute


def test_matrix_vector_product_streams_the_weights_at_half_the_bandwidth() -> None:
    coefficients = gemm_coefficients(plain_device(), "bf16")
    time_s, is_compute = gemm_seconds(1.0, 8192.0, 8192.0, 1.0, 2.0 * 8192**2, 2.0 * 2 * 8192, coefficients)
    assert time_s == pytest.approx((2.0 * 8192**2 + 4.0 * 8192) / 0.5e12 + 1e-6, rel=1e-12)
    assert not is_compute


def test_partly_filled_tile_costs_a_whole_one() -> None:
    coefficients = gemm_coefficients(plain_device(), "bf16")
    assert seconds(coefficients, 8193, 8192, 8192) == pytest.approx(
        seconds(coefficients, 8208, 8192, 8192), rel=2e-3
    )  # a tile of 16 more rows


def test_whole_waves_cost_the_tail() -> None:
    device = plain_device()
    continuous = gemm_coefficients(device, "bf16")
    whole = continuous.copy()
    whole[gemm.WAVE_FRAC] = 1.0
    # 101 tiles of 128 x 256 on 100 cores: two waves instead of 1.01
    ratio = (seconds(whole, 128, 101 * 256, 65536) - 1e-6) / (seconds(continuous, 128, 101 * 256, 65536) - 1e-6)
    assert 1.0 < ratio < 2.0
    assert seconds(whole, 128, 100 * 256, 65536) == seconds(continuous, 128, 100 * 256, 65536)


def test_splitting_the_sum_fills_the_cores() -> None:
    # Four tiles of 16 x 64 in 16 parts each on 64 of 100 cores; memory is made too fast to matter
    coefficients = gemm_coefficients(plain_device(), "bf16")
    coefficients[gemm.BANDWIDTH] *= 1e6
    one_core_s = 2.0 * 64 * 64 * 1_000_000 / (50e12 / 100)
    assert seconds(coefficients, 64, 64, 1_000_000) == pytest.approx(one_core_s / 64 + 1e-6, rel=1e-3)


def test_narrow_products_pay_for_quantising_their_rows() -> None:
    coefficients = gemm_coefficients(plain_device(), "bf16")
    before_s = seconds(coefficients, 100, 1024, 1024)
    coefficients[gemm.QUANTIZE_ROW_S], coefficients[gemm.QUANTIZE_ELEMENT_S] = 5e-9, 1e-12
    assert seconds(coefficients, 100, 1024, 1024) - before_s == pytest.approx(100 * (5e-9 + 1024e-12), rel=1e-9)


def test_grouped_product_is_at_least_its_parts_in_one_launch() -> None:
    coefficients = gemm_coefficients(devices()["h100_sxm"], "bf16")
    one_s = seconds(coefficients, 64, 4096, 4096)
    eight_s = seconds(coefficients, 64, 4096, 4096, products=8.0)
    assert one_s < eight_s < 8.0 * one_s


shapes = st.tuples(
    st.integers(1, 8192), st.integers(1, 512).map(lambda x: 64 * x), st.integers(1, 512).map(lambda x: 64 * x)
)


@settings(max_examples=60, deadline=None)
@given(shapes, st.sampled_from(DEVICES))
def test_never_faster_than_the_dense_roofline(shape: tuple[int, int, int], name: str) -> None:
    """Weights always come from memory; activations may be in the cache."""
    m, n, k = shape
    device = devices()[name]
    coefficients = gemm_coefficients(device, "bf16")
    compute_s = 2.0 * m * n * k / coefficients[gemm.PEAK]
    weights_s = 2.0 * n * k / coefficients[gemm.BANDWIDTH]
    all_s = weights_s + 2.0 * m * (n + k) / coefficients[gemm.BANDWIDTH] / coefficients[gemm.CACHE_SPEEDUP]
    assert seconds(coefficients, m, n, k) >= max(compute_s, all_s)


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(1, 4096), st.sampled_from(DEVICES))
def test_more_rows_never_take_less_time(shape: tuple[int, int, int], more: int, name: str) -> None:
    m, n, k = shape
    coefficients = gemm_coefficients(devices()[name], "bf16")
    assert seconds(coefficients, m + more, n, k) >= seconds(coefficients, m, n, k)


@settings(max_examples=40, deadline=None)
@given(shapes, st.sampled_from(DEVICES), st.floats(1.1, 8.0))
def test_higher_peaks_never_make_it_slower(shape: tuple[int, int, int], name: str, factor: float) -> None:
    m, n, k = shape
    coefficients = gemm_coefficients(devices()[name], "bf16")
    faster = coefficients.copy()
    faster[gemm.PEAK] *= factor
    faster[gemm.BANDWIDTH] *= factor
    assert seconds(faster, m, n, k) <= seconds(coefficients, m, n, k)


def everything(dispatch: str) -> np.ndarray:
    """H100's peaks with every term of the model at work."""
    coefficients = gemm_coefficients(devices()["h100_sxm"], "bf16")
    coefficients[gemm.WAVE_FRAC], coefficients[gemm.SERIAL_FRAC] = 1.0, 0.3
    coefficients[gemm.OPERAND_SPEEDUP], coefficients[gemm.WRITE_FRAC], coefficients[gemm.RAMP_S] = 4.0, 0.7, 1e-6
    coefficients[gemm.QUANTIZE_ROW_S] = 5e-9
    coefficients[gemm.DISPATCH] = gemm.DISPATCHES.index(dispatch)
    return coefficients


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(1, 4096), st.sampled_from(gemm.DISPATCHES), st.sampled_from([0.0, 2e7]))
def test_laws_hold_for_every_dispatch(shape: tuple[int, int, int], more: int, dispatch: str, warm: float) -> None:
    m, n, k = shape
    coefficients = everything(dispatch)
    assert seconds(coefficients, m, n, k) >= 2.0 * m * n * k / coefficients[gemm.PEAK]
    coefficients[gemm.WARM_BYTES] = warm
    assert seconds(coefficients, m + more, n, k) >= seconds(coefficients, m, n, k)


def test_dispatch_by_rows_takes_whole_waves_of_one_tile() -> None:
    coefficients = everything("rows_sm90")
    coefficients[gemm.BANDWIDTH] *= 1e6
    coefficients[gemm.QUANTIZE_ROW_S] = coefficients[gemm.SERIAL_FRAC] = coefficients[gemm.RAMP_S] = 0.0
    # 132 cores, tiles of 128 x 128: 4 x 33 fill one wave, one row more is a second
    full_s = seconds(coefficients, 512, 33 * 128, 8192) - coefficients[gemm.LAUNCH_S]
    more_s = seconds(coefficients, 513, 33 * 128, 8192) - coefficients[gemm.LAUNCH_S]
    assert more_s == pytest.approx(2.0 * full_s, rel=1e-4)


def test_tiles_of_a_cluster_start_together() -> None:
    coefficients = everything("rows_sm90")
    # 257 rows are three tiles of 128, two of them in a cluster: as long as four
    assert seconds(coefficients, 257, 8192, 8192) > 0.9 * seconds(coefficients, 512, 8192, 8192)
    assert seconds(coefficients, 256, 8192, 8192) < 0.7 * seconds(coefficients, 512, 8192, 8192)


@pytest.mark.parametrize(
    ("dispatch", "rows", "columns", "tile"),
    [
        ("rows_sm89", 16, 8192, (16, 64)),
        ("rows_sm89", 16, 8193, (16, 128)),
        ("rows_sm89", 17, 16385, (32, 64)),
        ("rows_sm89", 4096, 8192, (256, 128)),
        ("rows_sm89", 4096, 8193, (128, 128)),
        ("rows_sm90", 64, 1280, (16, 64)),
        ("rows_sm90", 64, 1281, (64, 64)),
        ("rows_sm100", 16, 100_000, (32, 128)),
        ("blocks_sm89", 1, 1, (32, 128)),
        ("blocks_sm89", 100_000, 100_000, (32, 128)),
    ],
)
def test_ladders_choose_the_tile(dispatch: str, rows: int, columns: int, tile: tuple[int, int]) -> None:
    ladder = gemm.STEPS[gemm.DISPATCHES.index(dispatch) - 1]
    step = next(step for step in ladder if rows <= step[0] and columns <= step[1])
    assert tuple(step[2:4]) == tile


def test_repeated_products_find_small_weights_in_the_cache() -> None:
    cold = gemm_coefficients(plain_device(), "bf16")
    warm = cold.copy()
    warm[gemm.WARM_BYTES], warm[gemm.WARM_COST] = 1e7, 0.25
    for n, k, kept in ((512, 512, 1.0), (2500, 2000, 0.5), (8192, 8192, 0.0)):  # 0.5, 10 and 134 MB
        cold_s, warm_s = (seconds(one, 1, n, k) - one[gemm.LAUNCH_S] for one in (cold, warm))
        assert warm_s / cold_s == pytest.approx(1.0 - 0.75 * kept, abs=0.04)


def test_operands_of_small_tiles_are_drawn_again_for_each() -> None:
    coefficients = everything("rows_sm90")
    coefficients[gemm.PEAK] *= 1e6
    coefficients[gemm.DEPTH_S] = coefficients[gemm.RAMP_S] = coefficients[gemm.SERIAL_FRAC] = 0.0
    coefficients[gemm.QUANTIZE_ROW_S] = 0.0
    # 64 x 64 tiles of 128 x 128: 64 times A and 64 times B, at four times the stream's bandwidth
    drawn_bytes = 64 * 64 * (128 + 128) * 1024 * 2.0
    bytes_per_s = 4.0 * coefficients[gemm.BANDWIDTH] * coefficients[gemm.MEMORY_FRAC]
    taken_s = seconds(coefficients, 8192, 8192, 1024) - coefficients[gemm.LAUNCH_S]
    assert taken_s == pytest.approx(drawn_bytes / bytes_per_s, rel=1e-3)


def test_short_streams_pay_the_ramp_of_the_memory() -> None:
    coefficients = gemm_coefficients(plain_device(), "bf16")
    long_s = seconds(coefficients, 1, 32768, 32768)
    coefficients[gemm.RAMP_S] = 1e-6
    assert seconds(coefficients, 1, 32768, 32768) == pytest.approx(long_s + 1e-6, rel=1e-5)
    assert seconds(coefficients, 1, 64, 64) < 2.0 * 0.0173e-6 + 1.01e-6
