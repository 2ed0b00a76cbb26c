"""The `collectives` block of a link file: read, rendered, replaced; the rest of the file keeps every character."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hermes_sim.calibration.device_file import flow_mapping, set_fields
from hermes_sim.calibration.yaml_block import YamlBlock, read_alone
from hermes_sim.hardware.collective_efficiency import CollectiveEfficiency, CollectiveKind, KernelLibrary
from hermes_sim.hardware.link import Link

BLOCK: Final = YamlBlock("collectives")

Collectives = Mapping[KernelLibrary, Mapping[CollectiveKind, CollectiveEfficiency]]


def read_link(path: Path) -> Link:
    """The link that a file describes."""
    return read_alone(Link, path)


def replace_collectives(path: Path, collectives: Collectives) -> None:
    """Write the block into the file. Raises ConfigError where it has none."""
    BLOCK.replace(path, render_collectives(collectives))


def render_collectives(collectives: Collectives) -> str:
    """The block as YAML, defaults left out."""
    lines = ["collectives:"]
    for library, kinds in collectives.items():
        lines.append(f"  {library}:")
        for kind, efficiency in kinds.items():
            lines += flow_mapping(f"    {kind}", set_fields(efficiency))
    return "\n".join(lines) + "\n"
