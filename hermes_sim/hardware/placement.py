"""Which devices and cores of the cluster a replica gets: first fit, inside one node where that is possible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hermes_sim.core.errors import HermesError
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.node import NodeGroup
from hermes_sim.hardware.topology import Endpoint

Want = tuple[int, int | None]
"""Devices of a group, and cores of all of them together (None: every core)."""


class PlacementError(HermesError, ValueError):
    """The cluster has no room; the text says what is wanted and what is there."""


class Slots:
    """Free cores of every device, handed out in order.

    A share stated in cores leaves the rest of the device to others; one without takes devices that nobody uses.
    """

    def __init__(self, nodes: Sequence[NodeGroup], devices: Mapping[str, Device]) -> None:
        """`devices`: by the profile name that the node groups use."""
        self._nodes = {group.name: group for group in nodes}
        self._num_cores: dict[tuple[str, str], int] = {}
        self._free: dict[Endpoint, int] = {}
        for group in nodes:
            for name, device_group in group.devices.items():
                num_cores = devices[device_group.profile].num_cores
                self._num_cores[group.name, name] = num_cores
                for node_index in range(group.count):
                    for index in range(device_group.count):
                        self._free[Endpoint(group.name, node_index, name, index)] = num_cores

    def free_cores(self, endpoint: Endpoint) -> int:
        return self._free[endpoint]

    def allocate(self, node_group: str | None, wants: Mapping[str, Want]) -> list[Endpoint]:
        """Devices of one replica, in the order of `wants`; they are taken.

        In the first node that holds all of it, else over consecutive nodes from the first that has room.
        `node_group` may be None where only one node group has these device groups. Raises PlacementError.
        """
        group = self.node_group(node_group, wants)
        for start in range(group.count):
            taken = self._fit(group, wants, range(start, start + 1))
            if taken is not None:
                return self._take(taken)
        for start in range(group.count):
            taken = self._fit(group, wants, range(start, group.count))
            if taken is not None:
                return self._take(taken)
        raise PlacementError(self._shortage(group, wants, 1))

    def allocate_replicas(
        self, node_group: str | None, wants: Mapping[str, Want], num_replicas: int
    ) -> list[list[Endpoint]]:
        """Devices of equal replicas, one after the other; nothing is taken if not all of them fit."""
        group = self.node_group(node_group, wants)
        before = dict(self._free)
        replicas: list[list[Endpoint]] = []
        for _ in range(num_replicas):
            try:
                replicas.append(self.allocate(group.name, wants))
            except PlacementError as full:
                self._free = before
                raise PlacementError(self._shortage(group, wants, num_replicas)) from full
        return replicas

    def node_group(self, name: str | None, wants: Mapping[str, Want]) -> NodeGroup:
        """The node group meant; raises PlacementError where that is unknown or open."""
        if name is not None:
            if name not in self._nodes:
                raise PlacementError(f"there is no node '{name}' ({', '.join(self._nodes)})")
            group = self._nodes[name]
            missing = [device_group for device_group in wants if device_group not in group.devices]
            if missing:
                raise PlacementError(f"node '{name}' has no '{missing[0]}' ({', '.join(group.devices)})")
            return group
        fitting = [group for group in self._nodes.values() if all(name in group.devices for name in wants)]
        if len(fitting) == 1:
            return fitting[0]
        names = " and ".join(f"'{device_group}'" for device_group in wants)
        if not fitting:
            raise PlacementError(f"no node has {names}")
        raise PlacementError(f"nodes {', '.join(group.name for group in fitting)} have {names}: say which with `node`")

    def _fit(self, group: NodeGroup, wants: Mapping[str, Want], nodes: range) -> dict[Endpoint, int] | None:
        """Endpoints and cores that satisfy `wants` on these nodes, or None. Takes nothing."""
        taken: dict[Endpoint, int] = {}
        for name, (num_devices, num_cores) in wants.items():
            shares = list(self._core_shares(group, name, num_devices, num_cores))
            candidates = (
                Endpoint(group.name, node, name, index) for node in nodes for index in range(group.devices[name].count)
            )
            found = [endpoint for endpoint in candidates if self._free[endpoint] >= shares[0]][:num_devices]
            if len(found) < num_devices:
                return None
            taken.update(zip(found, shares, strict=True))
        return taken

    def _core_shares(self, group: NodeGroup, name: str, num_devices: int, num_cores: int | None) -> Iterator[int]:
        """Cores on each device, the larger shares first."""
        for index in range(num_devices):
            if num_cores is None:
                yield self._num_cores[group.name, name]
            else:
                yield num_cores // num_devices + (index < num_cores % num_devices)

    def _take(self, taken: Mapping[Endpoint, int]) -> list[Endpoint]:
        for endpoint, num_cores in taken.items():
            self._free[endpoint] -= num_cores
        return list(taken)

    def _shortage(self, group: NodeGroup, wants: Mapping[str, Want], num_replicas: int) -> str:
        """`wants 2 x 4 gpu, node 'dgx' has 4`, for the first device group that is short."""
        times = f"{num_replicas} x " if num_replicas > 1 else ""
        where = f"node '{group.name}'" if group.count == 1 else f"{group.count} nodes '{group.name}'"
        for name, (num_devices, num_cores) in wants.items():
            full = self._num_cores[group.name, name]
            free = [
                cores for endpoint, cores in self._free.items()
                if (endpoint.node_group, endpoint.device_group) == (group.name, name)
            ]  # fmt: skip
            if num_cores is not None and num_replicas * num_cores > sum(free):
                return f"wants {times}{num_cores} cores of {name}, {where} has {sum(free)} free of {full * len(free)}"
            num_free = sum(1 for cores in free if cores == full)
            if num_cores is None and num_replicas * num_devices > num_free:
                of_all = "" if num_free == len(free) else f" free of {len(free)}"
                return f"wants {times}{num_devices} {name}, {where} has {num_free}{of_all}"
        wanted = ", ".join(
            f"{num_devices} {name}" + (f" with {num_cores} cores" if num_cores is not None else "")
            for name, (num_devices, num_cores) in wants.items()
        )
        return f"wants {times}({wanted}), {where} cannot hold them together"
