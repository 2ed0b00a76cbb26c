"""The `cost_model` block of a device file: read, rendered, replaced; the rest of the file keeps every character."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hermes_sim.calibration.yaml_block import YamlBlock, read_alone
from hermes_sim.core.schema import Description, Source
from hermes_sim.hardware.cost_model import CostModel
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.fit_error import FitError

BLOCK: Final = YamlBlock("cost_model", short_form="class")
LONGEST_LINE: Final = 110


def read_device(path: Path) -> Device:
    """The device that a file describes."""
    return read_alone(Device, path)


def replace_cost_model(path: Path, cost_model: CostModel) -> None:
    """Write the block into the file. Raises ConfigError where it has none."""
    BLOCK.replace(path, render_cost_model(cost_model))


def render_cost_model(cost_model: CostModel) -> str:
    """The block as YAML, defaults left out."""
    lines = ["cost_model:"]
    for name, field in CostModel.model_fields.items():
        value, key = getattr(cost_model, name), field.alias or name
        if not field.is_required() and value == field.default:
            continue
        if isinstance(value, Source):
            lines += [f"  {key}:", f"    title: {value.title}", "    where: >-"]
            lines += [f"      {line}" for line in _wrapped(value.where)]
            lines.append(f"    kind: {value.kind}")
        elif isinstance(value, dict):
            lines.append(f"  {key}:")
            for entry, description in value.items():
                lines += flow_mapping(f"    {entry}", set_fields(description))
        elif isinstance(value, Description):
            lines += flow_mapping(f"  {key}", set_fields(value))
        else:
            lines.append(f"  {key}: {_seconds(value) if name.endswith('_s') else f'{value:.4g}'}")
    return "\n".join(lines) + "\n"


def error_mapping(error: FitError) -> str:
    """An error on one line of YAML."""
    return "{" + ", ".join(f"{key}: {text}" for key, text in set_fields(error).items()) + "}"


def set_fields(description: object) -> dict[str, str]:
    """Set fields by YAML key, quantities with their unit."""
    fields = type(description).model_fields  # type: ignore[attr-defined]
    found = {}
    for name, field in fields.items():
        value = getattr(description, name)
        if value is None or (not field.is_required() and value == field.default):
            continue
        if isinstance(value, FitError):
            found[name] = error_mapping(value)
        elif name.endswith("_bytes_per_s"):
            found[field.alias or name] = f"{value / 1e9:.4g} GB/s"
        elif name.endswith("_bytes"):
            found[field.alias or name] = f"{value:.0f} B"
        elif name.endswith("_s"):
            found[field.alias or name] = _seconds(value)
        else:
            found[field.alias or name] = f"{value:.4g}" if isinstance(value, float) else str(value)
    return found


def flow_mapping(name: str, values: dict[str, str]) -> list[str]:
    """One flow mapping, broken over lines where it is long."""
    lines, current = [], f"{name}: {{"
    for number, (key, value) in enumerate(values.items()):
        item = f"{key}: {value}" + ("}" if number == len(values) - 1 else ",")
        if len(current) + len(item) + 1 > LONGEST_LINE:
            lines.append(current.rstrip())
            current = " " * (len(name) - len(name.lstrip()) + 2)
        current += item + " "
    return [*lines, current.rstrip()]


def _seconds(value: float) -> str:
    if value == 0.0:
        return "0 s"
    for unit, scale in (("us", 1e-6), ("ns", 1e-9)):
        if value >= 0.1 * scale:
            return f"{value / scale:.4g} {unit}"
    return f"{value:.4g} s"


def _wrapped(text: str) -> list[str]:
    lines, current = [], ""
    for word in text.split():
        if len(current) + len(word) + 7 > LONGEST_LINE:
            lines.append(current)
            current = ""
        current = f"{current} {word}".strip()
    return [*lines, current]
