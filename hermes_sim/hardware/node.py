"""A kind of node: which devices it holds, how they are linked, how many such nodes there are."""

from __future__ import annotations

from pydantic import Field

from hermes_sim.core.schema import Description, PositiveInt


class DeviceGroup(Description):
    """Devices of one profile inside one node."""

    profile: str
    """Name or alias of a device file."""
    count: PositiveInt = 1


class NodeLink(Description):
    """A link between two device groups of one node, or inside a group."""

    between: tuple[str, str]
    """Two device-group names; the same name twice links the group's devices with each other."""
    profile: str
    """Name or alias of a link file."""
    count: PositiveInt = 1
    """Parallel links per device."""
    devices_joined: PositiveInt | None = Field(default=None, ge=2)
    """Inside a group: so many neighbours each are linked, as bridges join pairs of boards; all of them if not given."""


class NodeGroup(Description):
    """`count` equal nodes."""

    name: str
    count: PositiveInt = 1
    devices: dict[str, DeviceGroup] = Field(min_length=1)
    links: tuple[NodeLink, ...] = ()
    uplink: str | None = None
    """Link profile from this node to the network between nodes."""
    uplinks_per_node: PositiveInt = 1
