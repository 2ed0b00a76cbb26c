"""Names of devices and models as measurements write them -> names of the library."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from hermes_sim.core.errors import HermesError
from hermes_sim.scenario.library import FileKind, entries


class UnknownName(HermesError):
    """The library knows nothing of that name."""


def device_name(text: str) -> str:
    """Device profile that a measurement names, such as `NVIDIA H100 80GB HBM3 (SXM), 1 GPU`. Raises UnknownName."""
    return _known("device", text)


def model_name(text: str) -> str:
    """Model profile that a measurement names: a Hugging Face id, its last part, or a short form."""
    return _known("model", text)


def _known(kind: FileKind, text: str) -> str:
    names = _names(kind)
    for spelling in _spellings(text):
        if spelling in names:
            return names[spelling]
    raise UnknownName(f"the library has no {kind} '{text}'")


def _spellings(text: str) -> list[str]:
    """The name as it stands, then with less and less of what people add to it."""
    head = re.split(r"[,(]", text)[0]
    last = text.rsplit("/", 1)[-1]
    inside = re.findall(r"\(([^)]*)\)", text)
    shorter = re.sub(r"-pcap$|-hf$|-v\d+(\.\d+)*$", "", last)
    candidates = [text, head, last, shorter, *inside, *(word for part in inside for word in part.split())]
    plain = [_plain(candidate) for candidate in candidates]
    return list(dict.fromkeys(spelling for spelling in plain if spelling))


def _plain(name: str) -> str:
    """Letters and digits alone, without the vendor."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"^(nvidia|amd|intel)[\s_-]+", "", name.casefold()))


def _names(kind: FileKind) -> dict[str, str]:
    return _index(tuple((entry.path, entry.names) for entry in entries(kind)))


@lru_cache(maxsize=8)
def _index(known: tuple[tuple[Path, tuple[str, ...]], ...]) -> dict[str, str]:
    """Every spelling of a profile -> its file's name; the first profile of a name wins."""
    index: dict[str, str] = {}
    for path, names in known:
        for name in names:
            for spelling in (_plain(name), _plain(name.rsplit("/", 1)[-1])):
                index.setdefault(spelling, path.stem)
    return index
