"""Where the numbers of a file are not those of a fit."""

from __future__ import annotations

from collections.abc import Mapping

from hermes_sim.core.schema import Description


def different_numbers(name: str, in_file: object, in_fit: object) -> list[str]:
    """Numbers at one key path that differ in their first four digits: `name key: file, fitted`."""
    stated, fitted = _numbers(in_file), _numbers(in_fit)
    return [
        f"{name} {key}: {stated.get(key)}, fitted {fitted.get(key)}"
        for key in sorted(stated.keys() | fitted.keys())
        if stated.get(key) != fitted.get(key)
    ]


def _numbers(part: object, key: str = "") -> dict[str, str]:
    """Key path -> number, four digits."""
    if isinstance(part, Description):
        part = part.model_dump(by_alias=True)
    if isinstance(part, Mapping):
        nested = [_numbers(value, f"{key}.{name}" if key else str(name)) for name, value in part.items()]
        return {path: text for found in nested for path, text in found.items()}
    return {key: f"{part:.4g}"} if isinstance(part, int | float) else {}
