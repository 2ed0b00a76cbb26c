"""Moving KV blocks, by hand."""

from __future__ import annotations

import pytest

from hermes_sim.perf.block_traffic import copy_block_seconds, num_swap_blocks, swap_block_seconds
from tests.unit.perf.engines import plain_device


def test_swapped_block_crosses_the_host_link_once() -> None:
    # 16 tokens of Llama-3 8B are 2 MiB; 64 GB/s
    assert swap_block_seconds(16 * 131_072, 64e9) == pytest.approx(32.768e-6, rel=1e-12)


def test_copied_block_is_read_and_written() -> None:
    # half of 1 TB/s
    assert copy_block_seconds(16 * 131_072, plain_device()) == pytest.approx(2 * 2_097_152 / 0.5e12, rel=1e-12)


def test_blocks_in_swap_space() -> None:
    assert num_swap_blocks(4.0 * 2**30, 16 * 131_072) == 2048
    assert num_swap_blocks(1e6, 16 * 131_072) == 0
    assert num_swap_blocks(4.0 * 2**30, 0.0) == 0
