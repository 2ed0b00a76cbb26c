"""The `collectives` block of a link file: read, rendered, replaced; the rest of the file keeps every character."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from hermes_sim.calibration.device_file import flow_mapping, set_fields
from hermes_sim.hardware.collective_efficiency import CollectiveEfficiency, CollectiveKind, KernelLibrary
from hermes_sim.hardware.link import Link

BLOCK = re.compile(r"^collectives:\n(?:[ \t]+.*\n|\n)*", re.MULTILINE)

Collectives = Mapping[KernelLibrary, Mapping[CollectiveKind, CollectiveEfficiency]]


def read_link(path: Path) -> Link:
    """The link that a file describes."""
    return Link.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def replace_collectives(path: Path, collectives: Collectives) -> None:
    """Write the block into the file."""
    text = path.read_text(encoding="utf-8")
    if not BLOCK.search(text):
        raise ValueError(f"{path} has no collectives block")
    path.write_text(BLOCK.sub(lambda _: render_collectives(collectives), text, count=1), encoding="utf-8")


def render_collectives(collectives: Collectives) -> str:
    """The block as YAML, defaults left out."""
    lines = ["collectives:"]
    for library, kinds in collectives.items():
        lines.append(f"  {library}:")
        for kind, efficiency in kinds.items():
            lines += flow_mapping(f"    {kind}", set_fields(efficiency))
    return "\n".join(lines) + "\n"
