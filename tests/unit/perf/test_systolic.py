"""Systolic arrays: cycles and bytes counted on paper."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.perf.operators import systolic
from hermes_sim.perf.operators.systolic import systolic_bytes, systolic_cycles, systolic_gemm_seconds


def arrays(
    rows: int, columns: int, number: int = 1, output: bool = False, preloads: bool = False, buffer_bytes: float = 0.0
) -> np.ndarray:
    values = np.zeros(systolic.NUM_SYSTOLIC_COEFFICIENTS)
    values[:] = [rows, columns, number, output, preloads, buffer_bytes, 1.0]
    return values


def test_one_fold_of_each_dataflow() -> None:
    # SCALE-Sim, equation 1: 2 R + C + T - 2
    assert systolic_cycles(32.0, 4.0, 4.0, 1.0, arrays(4, 4)) == 2 * 4 + 4 + 32 - 2  # 32 rows stream past 4 x 4 weights
    assert systolic_cycles(4.0, 4.0, 32.0, 1.0, arrays(4, 4, output=True)) == 2 * 4 + 4 + 32 - 2


def test_folds_with_a_broken_edge() -> None:
    # k 10 on 4 rows: 3 folds, n 6 on 4 columns: 2 folds
    assert systolic_cycles(16.0, 6.0, 10.0, 1.0, arrays(4, 4)) == 6 * (8 + 4 + 16 - 2)
    # m 10 and n 6 of results, k streams
    assert systolic_cycles(10.0, 6.0, 16.0, 1.0, arrays(4, 4, output=True)) == 6 * (8 + 4 + 16 - 2)
    # 6 folds on 4 arrays: two rounds
    assert systolic_cycles(16.0, 6.0, 10.0, 1.0, arrays(4, 4, number=4)) == 2 * (8 + 4 + 16 - 2)


def test_weights_loaded_behind_the_stream() -> None:
    # 4 to load the first tile, 5 folds of 16 rows, and the last with its skew; a stream shorter than a load waits
    assert systolic_cycles(16.0, 6.0, 10.0, 1.0, arrays(4, 4, preloads=True)) == 4 + 5 * 16 + 16 + 4 + 4 - 2
    assert systolic_cycles(1.0, 6.0, 10.0, 1.0, arrays(4, 4, preloads=True)) == 4 + 5 * 4 + 1 + 4 + 4 - 2


def test_utilisation_of_a_matrix_vector_product() -> None:
    # TPU-like 128 x 128: one row of activations keeps one in 128 cells busy at best
    cycles = systolic_cycles(1.0, 4096.0, 4096.0, 1.0, arrays(128, 128, preloads=True))
    useful = 4096.0 * 4096.0
    assert useful / (cycles * 128 * 128) == pytest.approx(1 / 128, rel=0.01)
    long = systolic_cycles(65536.0, 4096.0, 4096.0, 1.0, arrays(128, 128, preloads=True))
    assert 0.999 < 65536.0 * useful / (long * 128 * 128) <= 1.0


def test_bytes_by_what_the_buffer_holds() -> None:
    # m 1000, n 200, k 100 of one byte each: weights 20 kB, inputs 100 kB, results 200 kB
    shape = (1000.0, 200.0, 100.0, 1.0, 20e3, 300e3)
    assert systolic_bytes(*shape, arrays(8, 8)) == 320e3
    assert systolic_bytes(*shape, arrays(8, 8, buffer_bytes=20e3)) == 320e3
    # half of the weights stay at a time: inputs twice; the other way, inputs stay in ten parts: weights ten times
    assert systolic_bytes(*shape, arrays(8, 8, buffer_bytes=10e3)) == 20e3 + 2 * 100e3 + 200e3
    # one column of arrays, 8 x 100 bytes, in two parts: partial sums go out and come back once
    assert systolic_bytes(*shape, arrays(8, 8, buffer_bytes=400.0)) == 20e3 + 50 * 100e3 + 3 * 200e3


def test_never_faster_than_the_roofline_and_monotone_in_rows() -> None:
    generator = np.random.default_rng(1)
    shape = arrays(128, 128, 4, preloads=True, buffer_bytes=16e6)
    for n, k in generator.integers(1, 20000, (50, 2)).astype(float):
        before = 0.0
        for m in (1.0, 5.5, 64.0, 1000.0, 30000.0):
            moved = (n * k, m * (n + k))
            taken_s, _ = systolic_gemm_seconds(m, n, k, 1.0, *moved, 200e12, 1e12, shape)
            assert taken_s >= max(2 * m * n * k / 200e12, sum(moved) / 1e12) * (1 - 1e-12)
            assert taken_s >= before
            before = taken_s
