"""One measured engine as a scenario: a node of its devices, a preset, and the limits that the experiment stated."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from hermes_sim.hardware.device import Device
from hermes_sim.scenario.files import read_description
from hermes_sim.scenario.library import find
from hermes_sim.scenario.load import load_scenario
from hermes_sim.scenario.scenario import Scenario

LINK_OF_CLASS: Final[dict[str, str]] = {
    "datacenter_ampere": "nvlink3",
    "datacenter_hopper": "nvlink4",
    "datacenter_blackwell": "nvlink5",
    "consumer_blackwell": "pcie5_x16",
}
"""Class of a device -> the link between devices of one node; all others sit on PCIe 4."""

LARGE_DEVICE_BYTES: Final = 70.0 * 2**30
"""From this capacity on vLLM's server takes a larger token budget by default (arg_utils.py, get_batch_defaults)."""

FIRST_ASYNC_VERSION: Final = (0, 14)
"""vLLM schedules asynchronously by default from this release on."""

STATED_BLOCKS_FRACTION: Final = 0.99
"""Share of the memory for an engine whose number of blocks is stated: the engine has shown that they fit."""

TRAFFIC: Final = {
    "arrivals": {"kind": "poisson", "rate": "1 /s"},
    "num_requests": 1,
    "lengths": {"kind": "fixed", "num_prompt_tokens": 16, "num_output_tokens": 2},
}
"""Stands in the workload file; the experiment brings its own requests."""


@dataclass(frozen=True, slots=True)
class ServedEngine:
    """What a measurement says of the engine. None: as the preset has it."""

    device: str
    """Device profile."""
    model: str
    tp: int = 1
    replicas: int = 1
    preset: str = "vllm_v1"
    version: tuple[int, ...] | None = None
    """Of the engine, such as (0, 19, 0)."""
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    chunked_prefill: bool | None = None
    prefix_caching: bool | None = None
    num_gpu_blocks: int | None = None
    memory_fraction: float | None = None
    max_model_len: int | None = None
    """In place of the model's own limit."""
    sampling: str = "plain"
    """`top_p` where the server sorts logits."""
    terms: tuple[tuple[str, str | float | None], ...] = ()
    """Further keys of the engine and their values, such as ("host.per_step", "1 ms"): a fit tries values out."""
    kernel_launch_s: float | None = None
    """In place of the device's own."""

    def scenario(self) -> Scenario:
        """As the simulator takes it; its traffic is a placeholder. Raises ConfigError."""
        return _scenario(self)

    def cluster(self) -> dict[str, Any]:
        """What a cluster file would say."""
        device = library_device(self.device)
        num_devices = self.tp * self.replicas
        links = [] if num_devices == 1 else [{"between": ["gpu", "gpu"], "profile": link_between(device)}]
        node = {"name": "node", "count": 1, "devices": {"gpu": {"profile": self.device, "count": num_devices}}}
        return {"name": "measured", "nodes": [{**node, "links": links}], "engines": [self._engine(device)]}

    def _engine(self, device: Device) -> dict[str, Any]:
        batching: dict[str, Any] = {
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": self.max_num_batched_tokens or self._default_budget(device),
        }
        if self.chunked_prefill is False and self.preset == "vllm_v1":
            batching["kind"] = "continuous"
        if self.version is not None and self.version < FIRST_ASYNC_VERSION:
            batching["async_scheduling"] = False
        kv_cache = {
            "prefix_caching": self.prefix_caching,
            "num_gpu_blocks": self.num_gpu_blocks,
            "memory_fraction": self.memory_fraction if self.num_gpu_blocks is None else STATED_BLOCKS_FRACTION,
        }
        engine: dict[str, Any] = {
            "name": "llm",
            "serves": ["prefill", "decode"],
            "model": self.model,
            "replicas": self.replicas,
            "placement": {"gpu": self.tp},
            "parallel": {"tp": self.tp},
            "engine_preset": self.preset,
            "batching": {key: value for key, value in batching.items() if value is not None},
            "kv_cache": {key: value for key, value in kv_cache.items() if value is not None},
            "host": {"sampling": self.sampling},
        }
        for path, value in self.terms:
            section, _, key = path.partition(".")
            engine[section][key] = value
        return engine

    def _default_budget(self, device: Device) -> int | None:
        """Tokens of a step where nothing is stated: more on large devices but for the A100."""
        if self.preset != "vllm_v1" or device.device_class == "datacenter_ampere":
            return None
        return 8192 if device.memory.capacity_bytes >= LARGE_DEVICE_BYTES else None


@lru_cache(maxsize=64)
def _scenario(engine: ServedEngine) -> Scenario:
    """Cached by everything the engine says."""
    scenario = load_scenario(engine.cluster(), {"name": "measured", "traffic": TRAFFIC})
    if engine.max_model_len is not None:
        longer = {"max_model_len": engine.max_model_len}
        models = {name: model.model_copy(update=longer) for name, model in scenario.models.items()}
        scenario = scenario.model_copy(update={"models": models})
    if engine.kernel_launch_s is not None:
        launch = {"kernel_launch_s": engine.kernel_launch_s}
        devices = {
            name: device.model_copy(update={"cost_model": device.cost_model.model_copy(update=launch)})
            for name, device in scenario.devices.items()
        }
        scenario = scenario.model_copy(update={"devices": devices})
    return scenario


@lru_cache(maxsize=64)
def library_device(name: str) -> Device:
    """A device of the library."""
    return read_description(Device, find("device", name))


def link_between(device: Device) -> str:
    """Link profile between the devices of one node."""
    if "pcie" in device.name:
        return "pcie5_x16" if device.device_class == "datacenter_hopper" else "pcie4_x16"
    return LINK_OF_CLASS.get(device.device_class, "pcie4_x16")


def engine_version(text: str) -> tuple[int, ...] | None:
    """`vLLM 0.23.0 (vanilla)` -> (0, 23, 0); None where no version is stated."""
    found = re.search(r"(\d+(?:\.\d+)+)", text)
    return tuple(int(part) for part in found.group(1).split(".")) if found else None
