"""The shipped links: every file valid, every number sourced, and bandwidths that follow from lanes and rates."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_sim.hardware.link import Link
from hermes_sim.perf.operators.collective import all_reduce_seconds
from hermes_sim.scenario.sources import missing_sources
from tests.unit.hardware.shipped import files, links

LINKS = links()

each_link = pytest.mark.parametrize("link", LINKS.values(), ids=LINKS.keys())


def test_the_library_holds_the_links_it_promises() -> None:
    assert [path.stem for path in files("links")] == [link.name for link in LINKS.values()]
    generations = {f"pcie{generation}_x{lanes}" for generation in (3, 4, 5, 6) for lanes in (8, 16)}
    others = {
        "nvlink3", "nvlink4", "nvlink5", "nvlink_c2c", "infinity_fabric", "ici_v6e", "ib_hdr", "ib_ndr",
        "ethernet_100g", "ethernet_200g", "ethernet_400g", "ddr4_3200_8ch", "ddr5_4800_8ch", "cxl2_x16",
        "nvme_gen4", "nvme_gen5", "nvlink2", "nvlink3_bridge", "nvlink5_nvl72", "ici_v4", "ici_v5e", "ici_v5p",
        "neuronlink3", "gaudi2_roce", "gaudi3_roce", "infinity_fabric_mi250x", "infinity_fabric_mi355x", "xe_link",
        "xgmi3_epyc", "upi_icx", "ib_xdr", "nvlink3_bridge_hbm", "ethernet_25g", "ethernet_40g", "ethernet_50g",
        "ethernet_800g", "ualink_200g", "cxl3_x8", "cxl3_x16", "lpddr5_6400_128b", "lpddr5x_8533_128b", "nvme_gen3",
        "object_store",
    }  # fmt: skip
    assert set(LINKS) >= generations | others


@each_link
def test_every_number_has_a_source(link: Link) -> None:
    assert missing_sources(link) == []
    stated = {"bandwidth", "latency", "efficiency_frac"}
    optional = {
        "collective_latency": link.collective_latency_s is not None,
        "collectives": bool(link.collectives),
        "energy_per_bit": link.energy_per_bit_j is not None,
    }
    assert set(link.sources) == stated | {key for key, is_given in optional.items() if is_given}


def test_names_and_aliases_are_unique_whatever_their_case() -> None:
    owners: dict[str, str] = {}
    for link in LINKS.values():
        for name in {name.casefold() for name in (link.name, *link.aliases)}:
            assert owners.setdefault(name, link.name) == link.name, name


@each_link
def test_magnitudes_are_those_of_the_kind(link: Link) -> None:
    low, high = {
        "memory": (50e-9, 200e-9), "cxl": (100e-9, 1e-6), "nvme": (50e-6, 200e-6), "wireless": (1e-3, 5e-2),
        "object_store": (2e-2, 2e-1),
    }.get(link.kind, (5e-7, 5e-5))  # fmt: skip
    assert low <= link.latency_s <= high
    assert link.collective_latency_s is None or link.collective_latency_s <= link.latency_s
    low, high = (1e6, 1e9) if link.kind == "wireless" else (3e9, 1e12)
    assert low <= link.bandwidth_bytes_per_s <= high
    assert 0.5 <= link.efficiency_frac < 1.0


@pytest.mark.parametrize(("generation", "gigatransfers_per_s"), [(3, 8), (4, 16), (5, 32)])
def test_pcie_bandwidth_is_lanes_times_rate_times_coding(generation: int, gigatransfers_per_s: int) -> None:
    for lanes in (8, 16):
        expected = gigatransfers_per_s * 1e9 * lanes * 128 / 130 / 8
        assert LINKS[f"pcie{generation}_x{lanes}"].bandwidth_bytes_per_s == pytest.approx(expected, rel=1e-4)


def test_pcie6_counts_the_payload_of_flits() -> None:
    assert LINKS["pcie6_x16"].bandwidth_bytes_per_s == pytest.approx(64e9 * 16 / 8 * 236 / 256)


def test_cxl_runs_on_pcie5() -> None:
    assert LINKS["cxl2_x16"].bandwidth_bytes_per_s == LINKS["pcie5_x16"].bandwidth_bytes_per_s


@pytest.mark.parametrize(
    ("name", "num_links", "gb_per_s"),
    [("nvlink2", 6, 25), ("nvlink3", 12, 25), ("nvlink4", 18, 25), ("nvlink5", 18, 50), ("nvlink5_nvl72", 18, 50)],
)
def test_nvlink_is_one_direction_of_one_gpus_links(name: str, num_links: int, gb_per_s: int) -> None:
    assert LINKS[name].bandwidth_bytes_per_s == num_links * gb_per_s * 1e9
    assert LINKS[name].switched


@pytest.mark.parametrize(
    ("name", "gigabits_per_s"),
    [
        ("ib_hdr", 200),
        ("ib_ndr", 400),
        ("ib_xdr", 800),
        ("ethernet_100g", 100),
        ("ethernet_200g", 200),
        ("ethernet_400g", 400),
    ],
)
def test_networks_carry_their_name_in_bits(name: str, gigabits_per_s: int) -> None:
    assert LINKS[name].bandwidth_bytes_per_s == gigabits_per_s * 1e9 / 8
    assert LINKS[name].switched


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "topology", "devices_per_node", "mean_bound"),
    [("nvlink3", "a100_dgx", 2, 0.15), ("nvlink4", "h100_dgx", 2, 0.03), ("ib_ndr", "h100_dgx", 1, 0.05)],
)
def test_links_reproduce_measured_transfers(
    data_folder: Path, name: str, topology: str, devices_per_node: int, mean_bound: float
) -> None:
    """Latency + bytes / (bandwidth x efficiency) against NCCL send_recv between two GPUs, 2 kB to 64 MB."""
    import pandas as pd

    table = pd.read_csv(data_folder / "kernels" / "vidur" / f"net_{topology}_send_recv.csv.gz")
    table = table[(table.num_workers == 2) & (table.devices_per_node == devices_per_node)]
    link = LINKS[name]
    modelled_s = link.latency_s + table.bytes / (link.bandwidth_bytes_per_s * link.efficiency_frac)
    error_frac = modelled_s / (table.median_ms * 1e-3) - 1.0
    assert len(table) > 900
    assert error_frac.abs().mean() < mean_bound
    assert abs(error_frac[table.bytes > 30e6].mean()) < 0.05  # KV caches are large: no bias there


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "device", "mean_bound"),
    [("nvlink3", "a100_sxm", 0.20), ("nvlink4", "h100_sxm", 0.20), ("nvlink5", "b200_sxm", 0.25)],
)
def test_links_reproduce_measured_all_reduces(data_folder: Path, name: str, device: str, mean_bound: float) -> None:
    """Better of one shot and two shots over every device's port, 256 bytes to 64 MB, 2 to 8 GPUs, inside a graph."""
    import pandas as pd

    table = pd.read_parquet(data_folder / "kernels" / "aiconfigurator" / f"{device}_vllm_custom_allreduce.parquet")
    table = table[(table.backend == "vllm_graph") & (table.message_size <= 2**25)]
    link = LINKS[name]
    assert link.collective_latency_s is not None
    port = link.bandwidth_bytes_per_s * link.efficiency_frac
    error_frac = [
        all_reduce_seconds(2.0 * row.message_size, row.num_gpus, port, link.collective_latency_s)
        / (row.latency_ms * 1e-3)
        - 1
        for row in table.itertuples()
    ]
    assert len(error_frac) > 30
    assert sum(map(abs, error_frac)) / len(error_frac) < mean_bound
