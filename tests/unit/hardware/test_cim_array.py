"""Arrays against cycles counted on paper and against what is published of the macros."""

from __future__ import annotations

import pytest

from hermes_sim.hardware.cim_array import AnalogArray, ArrayOperand, DigitalArray, fulfils
from hermes_sim.hardware.device import Device, at_the_banks, beside_the_array
from tests.unit.hardware.shipped import devices

DEVICES = devices()

MACRO = DigitalArray(
    num_macros=4, rows=64, columns=32, clock="1 GHz", tree_cycles=6, operands={"int8": ArrayOperand(bits=8)},
    write_bandwidth="1 GB/s", energy_per_bit_product="1 pJ", energy_per_bit_written="2 pJ", macro_area_mm2=0.1,
)  # fmt: skip


def test_cycles_of_a_vector_are_its_bits_for_each_group_of_rows() -> None:
    assert MACRO.vector_s("int8") == pytest.approx(8e-9)
    two_bits = MACRO.model_copy(update={"input_bits_per_cycle": 2})
    assert two_bits.vector_s("int8") == pytest.approx(4e-9)
    assert two_bits.model_copy(update={"row_groups": 4}).vector_s("int8") == pytest.approx(16e-9)


def test_latency_is_the_tree_and_a_level_for_each_doubling_of_macros_over_k() -> None:
    assert MACRO.latency_s(1) == pytest.approx(6e-9)
    assert MACRO.latency_s(2) == pytest.approx(7e-9)
    assert MACRO.latency_s(5) == pytest.approx(9e-9)


def test_peak_is_all_cells_at_work() -> None:
    """4 macros x 64 rows x 4 weights, 2 operations, every 8 ns; with 1 W: 64 pJ a product."""
    assert MACRO.peak_flops_per_s("int8") == pytest.approx(2 * 4 * 64 * 4 / 8e-9)
    limited = MACRO.model_copy(update={"power_limit_w": 1.0})
    assert limited.peak_flops_per_s("int8") == pytest.approx(2.0 / 64e-12)


def test_published_macro_is_recovered() -> None:
    """32.5 TOPS/W, 55.0 TOPS/mm2 and 3.78 Mb/mm2 at INT12 (Fujiwara et al., ISSCC 2024, paper 34.4)."""
    array = DEVICES["dcim_3nm"].array
    assert isinstance(array, DigitalArray)
    products = array.rows * (array.columns // array.columns_of_weight("int8"))
    per_macro = 2.0 * products / array.vector_s("int8")
    assert per_macro / array.macro_area_mm2 == pytest.approx(55.0e12, rel=0.01)
    assert 2.0 / array.product_j(1.0, "int8") == pytest.approx(32.5e12, rel=1e-3)
    assert array.rows * array.columns / 2**20 / array.macro_area_mm2 == pytest.approx(3.78, rel=0.01)
    assert array.num_macros * array.rows * array.columns / 8 == pytest.approx(2 * 2**30, rel=1e-4)


def test_published_analog_core_is_recovered() -> None:
    """64 cores of 256 x 256: 63.1 TOPS at 9.76 TOPS/W (Le Gallo et al., Nature Electronics 2023)."""
    array = DEVICES["analog_cim_3d"].array
    assert isinstance(array, AnalogArray)
    chip = array.model_copy(update={"num_tiles": 64})
    assert chip.peak_flops_per_s("int8") == pytest.approx(63.1e12, rel=1e-3)
    operations = 2.0 * array.rows * array.columns
    assert operations / array.energy_per_mvm_j == pytest.approx(9.76e12, rel=1e-3)


def test_slow_converters_limit_an_analog_tile() -> None:
    tile = AnalogArray(
        num_tiles=1, rows=128, columns=128, integration="50 ns", adc_conversion="10 ns", adc_bits=8, columns_per_adc=8,
        energy_per_mvm="1 nJ", dtypes=("int8",), tile_area_mm2=1.0,
    )  # fmt: skip
    assert tile.vector_s("int8") == pytest.approx(80e-9)
    assert tile.latency_s(1) == pytest.approx(50e-9)
    assert tile.model_copy(update={"columns_per_adc": 1}).vector_s("int8") == pytest.approx(50e-9)


def test_hbm_pim_is_the_published_stack() -> None:
    """128 units of 16 lanes at 300 MHz: 1.2 TFLOPS; four times the bandwidth of 1024 pins at 2.4 Gbit/s."""
    stack = DEVICES["hbm_pim"]
    assert stack.clock_hz is not None
    assert stack.peak_flops_per_s["fp16"] == pytest.approx(stack.num_cores * 16 * 2 * stack.clock_hz)
    assert stack.memory.bandwidth_bytes_per_s == pytest.approx(1024 * 2.4e9 / 8)
    assert at_the_banks(stack).memory.bandwidth_bytes_per_s == pytest.approx(4 * 307.2e9)
    assert at_the_banks(DEVICES["h100_sxm"]) is DEVICES["h100_sxm"]


@pytest.mark.parametrize(
    ("pattern", "other", "is_so"),
    [("1:4", "2:8", True), ("2:8", "1:4", False), ("2:4", "4:8", True), ("4:8", "2:4", False), ("1:8", "2:4", True),
     ("1:8", "1:4", True), ("3:4", "2:4", False), ("2:6", "2:4", False)],
)  # fmt: skip
def test_patterns_that_fulfil_others(pattern: str, other: str, *, is_so: bool) -> None:
    assert fulfils(pattern, other) == is_so


def test_which_zeros_a_macro_skips() -> None:
    """Fixed 2:4 runs 1:4 as 2:4 and 3:4 as dense; sub-macros run each as it is, up to groups of twice their number."""
    dense, fixed = MACRO, MACRO.model_copy(update={"patterns": ("2:4",)})
    flexible = MACRO.model_copy(update={"num_sub_macros": 4})
    patterns = ("1:4", "2:4", "3:4", "1:8", "1:16")
    assert [dense.held_pattern(one) for one in patterns] == [None] * 5
    assert [fixed.held_pattern(one) for one in patterns] == ["2:4", "2:4", None, "2:4", "2:4"]
    assert [flexible.held_pattern(one) for one in patterns] == ["1:4", "2:4", "3:4", "1:8", "1:8"]
    assert flexible.weight_bits("int8", "1:8") == pytest.approx((8 + 3) / 8)


def test_a_peak_that_the_array_does_not_make_is_refused() -> None:
    card = DEVICES["dcim_3nm"]
    stated = card.model_dump(by_alias=True)
    stated["peak"] = {**stated["peak"], "int8": "4000 TOP/s"}
    with pytest.raises(ValueError, match="peak int8 is 4"):
        Device.model_validate(_with_units(stated))


def _with_units(data: dict[str, object]) -> dict[str, object]:
    """What model_dump gives as plain numbers, as a file states it."""
    card = dict(data)
    card["peak"] = {
        dtype: value if isinstance(value, str) else f"{value} FLOP/s"
        for dtype, value in dict(card["peak"]).items()  # type: ignore[call-overload]
    }
    return card


def test_a_companion_is_what_attends() -> None:
    card = DEVICES["dcim_3nm"]
    beside = beside_the_array(card)
    assert beside.array is None
    assert card.companion is not None
    assert beside.peak_flops_per_s == card.companion.peak_flops_per_s
    assert beside.memory == card.memory
