"""Devices, models, engines and tensor-parallel degrees that the names of files and cells of tables stand for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from hermes_sim.core.errors import ConfigError
from hermes_sim.hardware.device import Device
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.hugging_face import from_config
from hermes_sim.scenario.files import read_description
from hermes_sim.scenario.library import FileKind, entries, find

ENGINES: Final = ("vllm", "trtllm", "sglang", "tensorrt_llm")
_TP: Final = re.compile(r"(?:^|[_\-.])tp(\d+)(?:[_\-.]|$)", re.IGNORECASE)
_WORD: Final = re.compile(r"[_\-. ]+")


def normal_form(name: str) -> str:
    """Without case and separators: 'RTX PRO 6000' and 'RTXPRO6000' are the same."""
    return re.sub(r"[^a-z0-9+]", "", name.casefold())


@dataclass(frozen=True, slots=True)
class FileName:
    """What the name of a file tells."""

    device: str
    """A device's name in the library; else the text that stands where a device's name would."""
    model: str
    """The same for a model; empty where no part of the name is a model's."""
    engine: str
    tp: int


class Names:
    """The library's devices and models, and the architectures that the folder itself lists."""

    def __init__(self, folder: Path | None) -> None:
        self._devices = _known("device")
        self._models = _known("model")
        self._own = _own_architectures(folder) if folder else {}

    def device(self, text: str) -> str:
        """Name of the device's file in the library, or the text itself."""
        return self._devices.get(normal_form(text), text)

    def is_compiled(self, device: str) -> bool:
        """Whether a step is one compiled program on this device of the library, which fuses its small operations."""
        return any(entry.name == device for entry in entries("device")) and _device_kind(device) == "tpu"

    def model(self, text: str) -> str:
        """Name of the model's file in the library, or the text itself."""
        return self._models.get(normal_form(text)) or self._models.get(normal_form(text.rsplit("/", 1)[-1]), text)

    def architecture(self, text: str) -> ModelArchitecture | None:
        """Shape of a model by any of its names: the library's, then the folder's own; None where neither has it."""
        name = self.model(text)
        if name in {entry.name for entry in entries("model")}:
            return _architecture(name)
        config = self._own.get(normal_form(text)) or self._own.get(normal_form(text.rsplit("/", 1)[-1]))
        if config is None:
            return None
        try:
            return from_config(json.loads(config), text)
        except ValueError:
            return None

    def of_file(self, path: Path) -> FileName:
        """Reads device, model, engine and tp off a file's name, and the device off its folders where it has none."""
        stem = path.name.split(".csv")[0].removesuffix(".parquet").removesuffix(".json")
        words = [word for word in _WORD.split(stem) if word]
        device, at = self._longest(words, self._devices)
        model, _ = self._longest(words, self._models)
        if not model:
            model = self._own_model(words)
        lowered = [word.casefold() for word in words]
        engine = next((word for word in ENGINES if word in lowered), "")
        if not device:
            device = next(
                (found for folder in reversed(path.parent.parts) if (found := self._devices.get(normal_form(folder)))),
                "",
            )
        if not device:
            stop = min([lowered.index(word) for word in (engine, "nccl") if word in lowered] or [at or 1])
            device = "_".join(words[:stop]) or stem
        tp = _TP.search(stem)
        return FileName(device, model, engine.replace("tensorrt_llm", "trtllm"), int(tp.group(1)) if tp else 1)

    def _own_model(self, words: list[str]) -> str:
        tails = {normal_form(name.rsplit("/", 1)[-1]): name for name in self._own}
        return self._longest(words, tails)[0]

    @staticmethod
    def _longest(words: list[str], known: dict[str, str]) -> tuple[str, int]:
        """Known name of the longest run of words that is one, and where it starts; ('', 0) where none is."""
        for length in range(len(words), 0, -1):
            for start in range(len(words) - length + 1):
                found = known.get(normal_form("".join(words[start : start + length])))
                if found is not None:
                    return found, start
        return "", 0


def _known(kind: FileKind) -> dict[str, str]:
    """Normal form of every name -> the name; tails of Hugging Face ids too, where nothing else has them."""
    found: dict[str, str] = {}
    for entry in entries(kind):
        for name in entry.names:
            found.setdefault(normal_form(name), entry.name)
    for entry in entries(kind):
        for name in entry.names:
            found.setdefault(normal_form(name.rsplit("/", 1)[-1]), entry.name)
    return found


@lru_cache(maxsize=64)
def _device_kind(name: str) -> str:
    return read_description(Device, find("device", name)).kind


@lru_cache(maxsize=64)
def _architecture(name: str) -> ModelArchitecture | None:
    path = next(entry.path for entry in entries("model") if entry.name == name)
    try:
        return read_description(ModelArchitecture, path)
    except ConfigError:
        return None


def _own_architectures(folder: Path) -> dict[str, str]:
    """Normal form of a name -> its config.json, from files of the folder that hold several by name."""
    return {normal_form(name): text for path in sorted(folder.rglob("*.json")) for name, text in _configs(path)}


def _configs(path: Path) -> Iterator[tuple[str, str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(content, dict):
        for name, value in content.items():
            if isinstance(value, dict) and "model_type" in value and "hidden_size" in value:
                yield name, json.dumps(value)
                yield name.rsplit("/", 1)[-1], json.dumps(value)
