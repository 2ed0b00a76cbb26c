"""The shipped devices: every file valid, every number sourced, sane, and equal to what can be worked out by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from hermes_sim.hardware.cim_array import DigitalArray
from hermes_sim.hardware.device import Device, beside_the_array
from hermes_sim.scenario.sources import missing_sources
from tests.unit.hardware.shipped import devices, files

DEVICES = devices()

OPERATIONS_PER_CORE_AND_CLOCK = {
    "a100_sxm_40gb": 2048, "a100_sxm_80gb": 2048, "h100_sxm": 4096, "h200_sxm": 4096, "b200_sxm": 8192,
    "a40": 1024, "l40s": 1024, "rtx_4090": 512, "rtx_pro_6000": 1024, "mi300x": 2048,
    "xeon_8480plus": 1024, "grace": 64, "ryzen_7950x": 64, "epyc_9654": 64,
    "a10g": 512, "a30": 2048, "a6000": 1024, "rtx_3090": 512, "rtx_5090": 512, "l4": 1024, "a100_pcie_80gb": 2048,
    "h100_pcie": 4096, "b300_sxm": 8192, "gb200": 8192, "gb300": 8192, "v100_sxm_32gb": 1024, "t4": 1024,
    "mi210": 1024, "mi250x": 1024, "mi325x": 2048, "mi355x": 4096, "arc_pro_b60": 2048, "jetson_nano": 512,
    "jetson_agx_orin_64gb": 2048, "apple_m2_ultra": 256, "tpu_v4": 32768, "tpu_v5e": 32768, "tpu_v5p": 32768,
    "h800_sxm": 4096, "mi300a": 2048, "graviton4": 64,
}  # fmt: skip
"""Dense bf16 (else fp16) operations of one multiprocessor, compute unit or core: a sparse peak would be off by two."""

NAMES_ELSEWHERE = {
    # measured tables: microsoft/vidur, ai-dynamo/aiconfigurator, casys-kaist/LLMServingSim
    "a100": "a100_sxm_80gb", "h100": "h100_sxm", "a40": "a40",
    "a100_sxm": "a100_sxm_80gb", "h200_sxm": "h200_sxm", "b200_sxm": "b200_sxm", "rtx_pro_6000_server": "rtx_pro_6000",
    "RTX4090": "rtx_4090", "RTXPRO6000": "rtx_pro_6000", "TPU-v6e-1": "tpu_v6e",
    "a100_pcie": "a100_pcie_80gb", "a30": "a30", "b300_sxm": "b300_sxm", "b60": "arc_pro_b60", "gb200": "gb200",
    "gb300": "gb300", "h100_pcie": "h100_pcie", "h100_sxm": "h100_sxm", "l4": "l4", "l40s": "l40s", "A6000": "a6000",
    "RTXPRO6000 (LLMServingSim)": "rtx_pro_6000", "a100-80gb": "a100_sxm_80gb", "h100-80gb": "h100_sxm",
    "DGX-A100": "a100_sxm_80gb", "DGX-H100": "h100_sxm", "NVIDIA H100 80GB HBM3 (SXM)": "h100_sxm",
    # nvidia-smi
    "NVIDIA A100-SXM4-80GB": "a100_sxm_80gb", "NVIDIA A100-SXM4-40GB": "a100_sxm_40gb",
    "NVIDIA H100 80GB HBM3": "h100_sxm", "NVIDIA H200": "h200_sxm", "NVIDIA B200": "b200_sxm",
    "NVIDIA L40S": "l40s", "NVIDIA A40": "a40", "NVIDIA GeForce RTX 4090": "rtx_4090",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "rtx_pro_6000",
}  # fmt: skip

NO_FASTER_IN_EIGHT_BITS = {"tpu_v4", "gaudi3", "mi210", "mi250x", "inferentia2"}
OWN_RATES = {"wormhole_n300", "alveo_u280"}
"""16-bit products are emulated: by several passes, or by slices and logic."""
WAFER = "cerebras_wse3"
INTEGERS_GIVEN_UP = {"b300_sxm", "gb300"}
"""Blackwell Ultra: integer units made way for fp4."""

each_device = pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES.keys())


def test_the_library_holds_the_devices_it_promises() -> None:
    assert set(DEVICES) >= set(OPERATIONS_PER_CORE_AND_CLOCK) | {"tpu_v6e", "epyc_7742", "dcim_3nm"}
    assert [path.stem for path in files("devices")] == [device.name for device in DEVICES.values()]


@each_device
def test_every_number_has_a_source(device: Device) -> None:
    assert missing_sources(device) == []


@each_device
def test_sources_point_at_keys_that_exist(device: Device) -> None:
    written = device.model_dump(by_alias=True)
    for path in device.sources:
        part = written
        for key in path.split("."):
            assert key in part, path
            part = part[key]


def test_names_and_aliases_are_unique_whatever_their_case() -> None:
    owners: dict[str, str] = {}
    for device in DEVICES.values():
        for name in {name.casefold() for name in (device.name, *device.aliases)}:
            assert owners.setdefault(name, device.name) == device.name, name


@pytest.mark.parametrize(("name", "device"), NAMES_ELSEWHERE.items())
def test_devices_answer_to_the_names_that_others_give_them(name: str, device: str) -> None:
    names = {known.casefold() for known in (DEVICES[device].name, *DEVICES[device].aliases)}
    assert name.casefold() in names


@each_device
def test_narrower_types_are_no_slower(device: Device) -> None:
    peaks = device.peak_flops_per_s
    for wide, narrow in [("fp32", "tf32"), ("tf32", "bf16"), ("fp32", "bf16"), ("bf16", "fp8"), ("fp8", "fp4"),
                         ("bf16", "int8"), ("int8", "int4")]:  # fmt: skip
        given_up = narrow == "int8" and device.name in INTEGERS_GIVEN_UP
        if wide in peaks and narrow in peaks and not given_up:
            assert peaks[narrow] >= peaks[wide], (wide, narrow)  # type: ignore[index]


@each_device
def test_magnitudes_are_those_of_the_parts(device: Device) -> None:
    memory = device.memory
    least_ddr = 10e9 if device.num_cores == 1 else 50e9
    least_hbm = 0.3e12 if device.kind == "pim" else 0.4e12  # one stack
    bandwidth = {"hbm": (least_hbm, 9e12), "gdd": (0.25e12, 2e12), "ddr": (least_ddr, 600e9), "lpd": (20e9, 900e9),
                 "sra": (10e12, 1e15)}[memory.kind[:3]]  # fmt: skip
    if device.name == WAFER:
        assert device.power.tdp_w == pytest.approx(23e3)
        return
    assert bandwidth[0] <= memory.bandwidth_bytes_per_s <= bandwidth[1]
    assert (2e8 if memory.kind == "sram" else 2**31) <= memory.capacity_bytes <= 2**40
    assert 0 < device.power.idle_w < device.power.tdp_w / 2
    small = device.num_cores == 1 or device.kind == "pim"  # one core of many, one stack of memory
    assert (1 if small else 5 if memory.kind.startswith("lpd") else 70) <= device.power.tdp_w <= 1400
    assert 0.005 <= device.usd_per_h <= 10
    assert (device.scan_rate_bytes_per_s_per_core is not None) == (device.kind == "cpu")


@each_device
def test_ridge_points_are_plausible(device: Device) -> None:
    """Dense 16-bit operations per byte of memory: 70 to 600 for accelerators, far less without matrix units."""
    if device.array is not None:  # weights are in the cells: what is left for memory is the companion's
        device = beside_the_array(device)
    low, high = {
        "gpu": (70, 520),
        "tpu": (150, 600),
        "cpu": (20, 400),
        "cim": (20, 200),
        "pim": (4, 20),
        "npu": (70, 400),
        "fpga": (5, 50),
    }[device.kind]
    if device.kind == "npu" and device.memory.kind == "sram":
        low, high = 0.5, 5
    if device.name == "h20":  # compute was taken away, bandwidth was not
        low = 30
    if device.device_class in ("apple_gpu", "maxwell"):
        low, high = 10, 40
    if device.num_cores == 1:  # one core draws more than its share of the memory's bandwidth
        low = 2
    assert low <= wide_peak(device) / device.memory.bandwidth_bytes_per_s <= high


def wide_peak(device: Device) -> float:
    peaks = device.peak_flops_per_s
    return next(peaks[dtype] for dtype in ("bf16", "fp16", "fp32") if dtype in peaks)


@pytest.mark.parametrize(("name", "operations"), OPERATIONS_PER_CORE_AND_CLOCK.items())
def test_peaks_are_dense(name: str, operations: int) -> None:
    device = DEVICES[name]
    assert device.clock_hz is not None
    assert wide_peak(device) == pytest.approx(device.num_cores * device.clock_hz * operations, rel=8e-3)


@each_device
def test_half_the_bits_are_twice_the_rate(device: Device) -> None:
    """But where data sheets say otherwise; GeForce cards sum fp16 in fp32 at half rate: integers at four times it."""
    peaks = device.peak_flops_per_s
    if device.name in NO_FASTER_IN_EIGHT_BITS:
        assert peaks.get("fp8", peaks.get("int8")) == peaks["bf16"]
        return
    if device.array is not None:  # as many cycles as an operand has bits: test_cim_array.py
        return
    if device.name in OWN_RATES:
        assert max(peaks.get("fp8", 0.0), peaks.get("int8", 0.0)) > 3.0 * peaks["fp16"]
        return
    wide = wide_peak(device)
    if "fp8" in peaks:
        assert peaks["fp8"] == pytest.approx(2.0 * wide, rel=0.03)
    if "int8" in peaks and device.name not in INTEGERS_GIVEN_UP:
        assert peaks["int8"] / wide == pytest.approx(2.0, rel=0.03) or peaks["int8"] / wide == pytest.approx(
            4.0, rel=0.03
        )
    if "fp4" in peaks:
        least = 3.0 if device.name in INTEGERS_GIVEN_UP else 2.0
        assert peaks["fp4"] / peaks["fp8"] == pytest.approx(least, rel=0.01) or peaks["fp4"] / wide == pytest.approx(
            8.0, rel=0.01
        )
    if "int4" in peaks and device.name != "l40s":  # its data sheet gives int4 the rate of int8
        assert peaks["int4"] == pytest.approx(2.0 * peaks["int8"], rel=0.01)


def test_cpu_peaks_follow_from_cores_clock_and_instructions() -> None:
    operations = {
        ("epyc_7742", "fp32"): 2 * 8 * 2,  # two 256-bit fused multiply-adds
        ("xeon_8480plus", "fp32"): 2 * 16 * 2, ("xeon_8480plus", "fp16"): 2 * 32 * 2,
        ("xeon_8480plus", "int8"): 16 * 16 * 64 * 2 // 16,  # TDPBUSD: one tile product in 16 cycles
        ("graviton4", "fp32"): 4 * 4 * 2, ("graviton4", "int8"): 4 * 16 * 2,
        ("grace", "fp32"): 4 * 4 * 2, ("grace", "fp16"): 4 * 8 * 2, ("grace", "int8"): 4 * 16 * 2,
        ("ryzen_7950x", "fp32"): 2 * 8 * 2, ("ryzen_7950x", "int8"): 64 * 2,
        ("epyc_9654", "fp32"): 2 * 8 * 2, ("epyc_zen4_vcpu", "fp32"): 2 * 8 * 2, ("epyc_9654", "int8"): 64 * 2,
        ("xeon_8380", "fp32"): 2 * 16 * 2, ("xeon_8380", "int8"): 2 * 64 * 2,
    }  # fmt: skip
    for (name, dtype), per_cycle in operations.items():
        device = DEVICES[name]
        assert device.clock_hz is not None
        peak = device.peak_flops_per_s[dtype]  # type: ignore[index]
        assert peak == pytest.approx(device.num_cores * device.clock_hz * per_cycle, rel=2e-3), (name, dtype)


def test_cpu_memory_bandwidth_follows_from_channels() -> None:
    channels = {"epyc_7742": (3200e6, 8), "xeon_8480plus": (4800e6, 8), "ryzen_7950x": (5200e6, 2),
                "epyc_9654": (4800e6, 12), "xeon_8380": (3200e6, 8)}  # fmt: skip
    for name, (transfers_per_s, num_channels) in channels.items():
        assert DEVICES[name].memory.bandwidth_bytes_per_s == transfers_per_s * 8 * num_channels


def test_capacities_are_what_drivers_report() -> None:
    """An "80 GB" A100 has 80 GiB; H100 and later lose some of theirs to ECC and firmware."""
    assert DEVICES["a100_sxm_80gb"].memory.capacity_bytes == 80 * 2**30
    assert DEVICES["a100_sxm_40gb"].memory.capacity_bytes == 40 * 2**30
    assert DEVICES["h100_sxm"].memory.capacity_bytes == 81559 * 2**20
    assert DEVICES["mi300x"].memory.capacity_bytes == 206141652992


def test_the_compute_in_memory_card_is_built_from_the_published_macro() -> None:
    """32.5 TOPS/W within 120 W of macros (ISSCC 2024, 34.4): power is the limit, not area; bf16 as ReDCIM's ratio."""
    card = DEVICES["dcim_3nm"]
    assert card.peak_flops_per_s["int8"] == pytest.approx(120 * 32.5e12)
    assert card.peak_flops_per_s["bf16"] == pytest.approx(card.peak_flops_per_s["int8"] * 29.2 / 36.5)
    assert isinstance(card.array, DigitalArray)
    assert card.peak_flops_per_s["int8"] < card.array.num_macros * card.array.macro_area_mm2 * 55.0e12


@each_device
def test_cost_models_are_for_types_the_device_computes_in(device: Device) -> None:
    assert set(device.cost_model.gemm) <= set(beside_the_array(device).peak_flops_per_s)


@pytest.mark.data
def test_vendor_peaks_agree_with_the_table_of_aiconfigurator(data_folder: Path) -> None:
    """Known disagreements: that table gives the RTX PRO 6000 server board the workstation board's bandwidth, and the
    B60 an fp8 at the rate of fp16."""
    with (data_folder / "hardware" / "gpu_specs.csv").open() as file:
        rows = {row["device"]: row for row in csv.DictReader(file)}
    names = {"a100_sxm": "a100_sxm_80gb", "h100_sxm": "h100_sxm", "h200_sxm": "h200_sxm", "b200_sxm": "b200_sxm",
             "l40s": "l40s", "rtx_pro_6000_server": "rtx_pro_6000", "a100_pcie": "a100_pcie_80gb", "a30": "a30",
             "b300_sxm": "b300_sxm", "b60": "arc_pro_b60", "gb200": "gb200", "gb300": "gb300", "h100_pcie": "h100_pcie",
             "l4": "l4"}  # fmt: skip
    for theirs, ours in names.items():
        row, device = rows[theirs], DEVICES[ours]
        for column, dtype in [("bf16_dense_TFLOPS", "bf16"), ("fp8_dense_TFLOPS", "fp8"), ("int8_TOPS", "int8")]:
            stated = float(row[column]) * 1e12
            if (ours, dtype) == ("arc_pro_b60", "fp8"):
                continue
            assert device.peak_flops_per_s.get(dtype, 0.0) == pytest.approx(stated, rel=3e-3), (ours, dtype)  # type: ignore[call-overload]
        assert device.power.tdp_w == float(row["power_W"])
        assert device.memory.capacity_bytes / 2**30 == pytest.approx(
            float(row["mem_capacity_GiB"]), rel=7e-3 if ours not in ("l4", "arc_pro_b60") else 0.07
        ), ours
        if ours != "rtx_pro_6000":
            assert device.memory.bandwidth_bytes_per_s == float(row["mem_bw_GBps"]) * 1e9


@pytest.mark.data
def test_every_device_that_the_measured_data_name_is_known(data_folder: Path) -> None:
    with (data_folder / "hardware" / "gpu_specs.csv").open() as file:
        named = [row["device"] for row in csv.DictReader(file)]
    known = {name.casefold() for device in DEVICES.values() for name in (device.name, *device.aliases)}
    assert len(named) > 15
    assert [name for name in named if name.casefold() not in known] == []
