"""First fit of replicas on nodes, devices and cores."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_sim.hardware.device import Device
from hermes_sim.hardware.network import Endpoint
from hermes_sim.hardware.node import NodeGroup
from hermes_sim.hardware.placement import PlacementError, Slots

SOURCE = {"title": "test", "where": "here", "kind": "estimate"}


def device(name: str, num_cores: int) -> Device:
    return Device.model_validate(
        {
            "name": name, "title": name, "kind": "cpu", "class": "cpu", "peak": {"fp32": "1 TFLOP/s"},
            "memory": {"kind": "ddr5", "capacity": "1 GiB", "bandwidth": "1 GB/s"}, "num_cores": num_cores,
            "power": {"idle": "1 W", "tdp": "2 W"}, "price": "1 USD/h",
            "cost_model": {
                "gemm": {"fp32": {"compute_frac": 1.0, "memory_frac": 1.0, "launch": "0 s"}},
                "attention_prefill_compute_frac": 1.0, "attention_decode_memory_frac": 1.0,
                "elementwise_memory_frac": 1.0, "kernel_launch": "0 s", "source": SOURCE,
            },
            "sources": {"peak": SOURCE},
        }
    )  # fmt: skip


DEVICES = {"g": device("g", 100), "c": device("c", 64)}


def node(name: str = "dgx", count: int = 1, **devices: dict[str, Any]) -> NodeGroup:
    groups = devices or {"gpu": {"profile": "g", "count": 8}, "cpu": {"profile": "c", "count": 2}}
    return NodeGroup.model_validate({"name": name, "count": count, "devices": groups})


def gpus(node_index: int, *indices: int) -> list[Endpoint]:
    return [Endpoint("dgx", node_index, "gpu", index) for index in indices]


def test_replicas_take_the_first_free_devices_in_order() -> None:
    slots = Slots([node()], DEVICES)
    assert slots.allocate("dgx", {"gpu": (4, None)}) == gpus(0, 0, 1, 2, 3)
    assert slots.allocate(None, {"gpu": (2, None)}) == gpus(0, 4, 5)
    assert slots.allocate_replicas(None, {"gpu": (1, None)}, 2) == [gpus(0, 6), gpus(0, 7)]


def test_a_replica_stays_inside_one_node_where_it_fits() -> None:
    slots = Slots([node(count=3)], DEVICES)
    slots.allocate("dgx", {"gpu": (6, None)})
    assert slots.allocate("dgx", {"gpu": (4, None)}) == gpus(1, 0, 1, 2, 3)
    assert slots.allocate("dgx", {"gpu": (2, None)}) == gpus(0, 6, 7)  # smaller ones fill the gap


def test_a_larger_replica_spans_consecutive_nodes() -> None:
    slots = Slots([node(count=3)], DEVICES)
    assert slots.allocate("dgx", {"gpu": (16, None)}) == gpus(0, *range(8)) + gpus(1, *range(8))
    assert slots.allocate("dgx", {"gpu": (8, None)}) == gpus(2, *range(8))


def test_cores_are_shared_and_counted() -> None:
    slots = Slots([node()], DEVICES)
    first, second = Endpoint("dgx", 0, "cpu", 0), Endpoint("dgx", 0, "cpu", 1)
    assert slots.allocate("dgx", {"cpu": (2, 97)}) == [first, second]
    assert (slots.free_cores(first), slots.free_cores(second)) == (15, 16)  # 49 and 48 cores taken
    assert slots.allocate("dgx", {"cpu": (1, 16)}) == [second]
    assert slots.allocate("dgx", {"cpu": (1, 15)}) == [first]
    with pytest.raises(PlacementError, match=r"^wants 1 cores of cpu, node 'dgx' has 0 free of 128$"):
        slots.allocate("dgx", {"cpu": (1, 1)})


def test_a_device_without_stated_cores_is_taken_whole() -> None:
    slots = Slots([node()], DEVICES)
    slots.allocate("dgx", {"cpu": (1, 1)})
    assert slots.allocate("dgx", {"cpu": (1, None)}) == [Endpoint("dgx", 0, "cpu", 1)]
    with pytest.raises(PlacementError, match=r"^wants 1 cpu, node 'dgx' has 0 free of 2$"):
        slots.allocate("dgx", {"cpu": (1, None)})


def test_a_replica_may_want_several_device_groups() -> None:
    slots = Slots([node(count=2)], DEVICES)
    wants = {"gpu": (4, None), "cpu": (1, 64)}
    assert slots.allocate("dgx", wants) == [*gpus(0, 0, 1, 2, 3), Endpoint("dgx", 0, "cpu", 0)]
    assert slots.allocate("dgx", wants) == [*gpus(0, 4, 5, 6, 7), Endpoint("dgx", 0, "cpu", 1)]
    assert slots.allocate("dgx", wants)[0].node_index == 1


@pytest.mark.parametrize(
    ("wants", "num_replicas", "message"),
    [
        ({"gpu": (4, None)}, 3, "wants 3 x 4 gpu, node 'dgx' has 8"),
        ({"gpu": (16, None)}, 1, "wants 16 gpu, node 'dgx' has 8"),
        ({"cpu": (2, 96)}, 2, "wants 2 x 96 cores of cpu, node 'dgx' has 128 free of 128"),
        ({"cpu": (1, 65)}, 1, "wants (1 cpu with 65 cores), node 'dgx' cannot hold them together"),
    ],
)
def test_what_does_not_fit_is_refused_and_takes_nothing(
    wants: dict[str, tuple[int, int | None]], num_replicas: int, message: str
) -> None:
    slots = Slots([node()], DEVICES)
    with pytest.raises(PlacementError) as caught:
        slots.allocate_replicas(None, wants, num_replicas)
    assert str(caught.value) == message
    assert slots.allocate("dgx", {"gpu": (8, None), "cpu": (2, None)})[0] == gpus(0, 0)[0]


def test_several_nodes_are_named_in_the_refusal() -> None:
    with pytest.raises(PlacementError, match=r"^wants 5 x 4 gpu, 2 nodes 'dgx' has 16$"):
        Slots([node(count=2)], DEVICES).allocate_replicas("dgx", {"gpu": (4, None)}, 5)


def test_the_node_group_has_to_be_clear() -> None:
    slots = Slots([node(), node("far"), node("rag", cpu={"profile": "c"})], DEVICES)
    with pytest.raises(PlacementError, match=r"^nodes dgx, far have 'gpu': say which with `node`$"):
        slots.allocate(None, {"gpu": (1, None)})
    with pytest.raises(PlacementError, match=r"^no node has 'tpu'$"):
        slots.allocate(None, {"tpu": (1, None)})
    with pytest.raises(PlacementError, match=r"^there is no node 'near' \(dgx, far, rag\)$"):
        slots.allocate("near", {"gpu": (1, None)})
    with pytest.raises(PlacementError, match=r"^node 'rag' has no 'gpu' \(cpu\)$"):
        slots.allocate("rag", {"gpu": (1, None)})


wanted = st.one_of(st.none(), st.integers(1, 80)).flatmap(lambda cores: st.tuples(st.integers(1, 3), st.just(cores)))


@given(st.lists(wanted, max_size=12), st.integers(1, 3))
def test_no_core_is_handed_out_twice(wants: list[tuple[int, int | None]], num_nodes: int) -> None:
    slots = Slots([node(count=num_nodes)], DEVICES)
    taken = 0
    for num_devices, num_cores in wants:
        try:
            placed = slots.allocate("dgx", {"cpu": (num_devices, num_cores)})
        except PlacementError:
            continue
        assert len(set(placed)) == num_devices
        taken += 64 * num_devices if num_cores is None else num_cores
    free = [slots.free_cores(Endpoint("dgx", n, "cpu", index)) for n in range(num_nodes) for index in range(2)]
    assert min(free) >= 0
    assert sum(free) == 64 * len(free) - taken
