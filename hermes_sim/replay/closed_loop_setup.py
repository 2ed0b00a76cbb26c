"""The cluster of a serving run: its nodes and links, and its engines as their launch scripts set them up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from hermes_sim.core.schema import Dtype
from hermes_sim.hardware.device import Device
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.replay.closed_loop_host import HOST_TERMS, NO_TERMS, HostTerms
from hermes_sim.replay.silicon_table import Layout, ServingRun
from hermes_sim.scenario.cluster import ClusterFile
from hermes_sim.scenario.files import read_description
from hermes_sim.scenario.library import NotFound, entries, find

PRESETS: Final[Mapping[str, str]] = {
    "vllm": "vllm_v1",
    "sglang": "sglang",
    "trtllm": "trtllm",
    "tensorrt-llm": "trtllm",
    "tensorrt_llm": "trtllm",
}
"""Backend of a run -> engine preset."""

NETWORK: Final = "ib_ndr"
"""Between nodes: one 400 Gb/s port a device, as DGX and HGX boards come."""

BOARD_DEVICES: Final = 8
"""Devices that share a switch where the library has no cluster of the device."""

MOST_PROMPT_TOKENS: Final = 8192
"""Token budget of a step on datacenter parts: default of vLLM and TensorRT-LLM, and of SGLang below 160 GiB."""

RECEIVE_INTERVAL: Final = 10
BUSY_RECEIVE_INTERVAL: Final = 30
BUSY_CONCURRENCY: Final = 16
"""SGLang: steps between two looks at new requests, below and from a concurrency of 16."""

TRTLLM_RECEIVE_INTERVAL: Final = 20
TRTLLM_RANKS_RECEIVE_INTERVAL: Final = 100
"""TensorRT-LLM: the same, alone and with ranks of data-parallel attention. All four are estimates, for no row states
them: measured TTFTs of fitted models exceed prefill and front end by about half as many steps of each."""

LARGE_MEMORY_BYTES: Final = 160 * 2**30
"""From here SGLang takes prompts in chunks of twice the size (server_args.py)."""


class SetupError(LookupError):
    """The run names something the library does not have; the text says what."""


@dataclass(frozen=True, slots=True)
class Board:
    """How devices of one kind come: linked so many at a time."""

    device: Device
    num_devices: int
    link_profile: str | None
    """Between them; None where nothing links them."""


def preset_of(backend: str) -> str:
    """Engine preset. Raises SetupError."""
    for word, preset in PRESETS.items():
        if backend.startswith(word):
            return preset
    raise SetupError(f"no preset for the engine '{backend}'")


@lru_cache(maxsize=64)
def board_of(system: str) -> Board:
    """The node of the library's cluster with this device, or with one of its class. Raises SetupError."""
    device = library_device(system)
    path = find("device", system)
    groups = list(_linked_groups())
    of_this = [group for group in groups if find("device", group.profile) == path]
    for group in of_this or [group for group in groups if _is_like(group.profile, device)]:
        return Board(device, group.num_devices, group.link_profile)
    return Board(device, BOARD_DEVICES, None)


@dataclass(frozen=True, slots=True)
class _LinkedGroup:
    """Devices of one node of a shipped cluster that are linked with each other."""

    profile: str
    num_devices: int
    link_profile: str


def _linked_groups() -> Iterator[_LinkedGroup]:
    for entry in entries("cluster"):
        for node in read_description(ClusterFile, entry.path).nodes:
            for name, group in node.devices.items():
                links = [link.profile for link in node.links if link.between == (name, name)]
                if links and group.count > 1:
                    yield _LinkedGroup(group.profile, group.count, links[0])


def _is_like(profile: str, device: Device) -> bool:
    return library_device(profile).device_class == device.device_class and device.kind == "gpu"


@lru_cache(maxsize=256)
def library_device(name: str) -> Device:
    """Device profile by name or alias. Raises SetupError."""
    try:
        path = find("device", name)
    except NotFound as missing:
        raise SetupError(str(missing)) from None
    return read_description(Device, path)


def cluster_of(run: ServingRun, model: ModelArchitecture, terms: HostTerms | None = None) -> ClusterFile:
    """Nodes and engines of a run; prefill and decode on nodes of their own where they run apart.

    terms: of all engines, in place of those fitted to them.
    """
    board = board_of(run.system)
    stages = (["prefill"], ["decode"]) if run.is_disaggregated else (["prefill", "decode"],)
    nodes, engines = [], []
    for serves, layout in zip(stages, run.engines, strict=True):
        name = serves[0] if run.is_disaggregated else "llm"
        nodes.append(_node(name, board, layout))
        engines.append(_engine(name, serves, run, layout, model, board.device, terms))
    document: dict[str, Any] = {"name": "replay", "nodes": nodes, "network": NETWORK, "engines": engines}
    if run.is_disaggregated:
        document["kv_transfer"] = kv_transfer(preset_of(run.backend))
    return ClusterFile.model_validate(document)


def kv_transfer(preset: str) -> dict[str, str]:
    """Between engines that run apart: routers answer with the stream of the decode side (SGLang's mini_lb.py,
    TensorRT-LLM's openai_disagg_service.py, toy_proxy_server.py of vLLM's NIXL tests); SGLang's prompts wait in a
    bootstrap queue until the decode side has reserved their KV (sglang/srt/disaggregation/prefill.py and decode.py)."""
    return {"first_token": "decode", "reserve": "before_prefill" if preset == "sglang" else "after_prefill"}


def _node(name: str, board: Board, layout: Layout) -> dict[str, Any]:
    """As many boards as the workers need; small workers get boards of their own size."""
    size = min(board.num_devices, layout.num_devices)
    num_boards = -(-layout.num_devices // size) * (layout.num_workers or 1)
    link = [{"between": ["gpu", "gpu"], "profile": board.link_profile}] if board.link_profile and size > 1 else []
    return {
        "name": name,
        "count": num_boards,
        "devices": {"gpu": {"profile": board.device.name, "count": size}},
        "links": link,
        "uplinks_per_node": size,
    }


def _engine(
    name: str,
    serves: list[str],
    run: ServingRun,
    layout: Layout,
    model: ModelArchitecture,
    device: Device,
    terms: HostTerms | None,
) -> dict[str, Any]:
    preset = preset_of(run.backend)
    batching: dict[str, Any] = {
        "receive_every_steps": receive_every_steps(preset, run, layout),
        "max_num_seqs": max_num_seqs(preset, run.concurrency),
        "max_num_batched_tokens": max_num_batched_tokens(preset, device, run),
    }
    engine: dict[str, Any] = {
        "name": name,
        "serves": serves,
        "model": model.name,
        "replicas": layout.num_workers or 1,
        "node": name,
        "placement": {"gpu": layout.num_devices},
        "engine_preset": preset,
        "parallel": {"tp": layout.tp, "pp": layout.pp, "dp": layout.dp, "ep": layout.ep},
        "batching": batching,
        # no prompt is repeated, so that looking for prefixes would find nothing; blocks of 16 tokens hold as much as
        # SGLang's single tokens do, to a thousandth, in a fraction of the time
        "kv_cache": {"prefix_caching": False, "block_tokens": 16, "dtype": kv_dtype(preset, model, device)},
    }
    captured = {"max_captured_seqs": 512 if layout.tp >= 4 else 256} if preset == "sglang" else {}
    terms = terms or HOST_TERMS.get(preset, NO_TERMS)
    return {**engine, "host": {**captured, **terms.host()}}


def max_num_seqs(preset: str, concurrency: int) -> int:
    """Of an engine; more than the users never run, so that smaller tables decide the same."""
    return min(1024 if preset == "vllm_v1" else 2048, concurrency)


def max_num_batched_tokens(preset: str, device: Device, run: ServingRun) -> int:
    """Token budget of a step.

    TensorRT-LLM takes whole prompts beside all decodes, so that a server needs room for both.
    """
    if preset == "sglang" and device.memory.capacity_bytes > LARGE_MEMORY_BYTES:
        return 2 * MOST_PROMPT_TOKENS
    if preset == "trtllm":
        return max(MOST_PROMPT_TOKENS, run.isl + run.concurrency + 64)
    return MOST_PROMPT_TOKENS


def receive_every_steps(preset: str, run: ServingRun, layout: Layout) -> int:
    """Steps between two looks at new requests.

    Servers tuned for throughput look seldom: SGLang's --scheduler-recv-interval, TensorRT-LLM's batch_wait and, with
    ranks of data-parallel attention, attention_dp_config.timeout_iters.
    """
    if not run.is_drawn:
        return 1
    if preset == "sglang":
        return RECEIVE_INTERVAL if run.concurrency < BUSY_CONCURRENCY else BUSY_RECEIVE_INTERVAL
    if preset == "trtllm":
        return TRTLLM_RECEIVE_INTERVAL if layout.dp == 1 else TRTLLM_RANKS_RECEIVE_INTERVAL
    return 1


def kv_dtype(preset: str, model: ModelArchitecture, device: Device) -> Dtype:
    """As the checkpoint asks for: fp8 beside matrices of eight or four bits.

    Weight-only formats keep 16 bits, but for Blackwell's kernels; so does DeepSeek's own fp8 checkpoint, which says
    nothing of its cache, in SGLang and vLLM before Blackwell.
    """
    quantization = model.quantization
    if quantization is None or "fp8" not in device.peak_flops_per_s:
        return model.kv_dtype
    is_blackwell = "fp4" in device.peak_flops_per_s
    is_weight_only = quantization.compute_dtype == model.activation_dtype or quantization.method == "mxfp4"
    if is_weight_only or (model.mla is not None and preset != "trtllm"):
        return "fp8" if is_blackwell else model.kv_dtype
    return "fp8"
