"""The cluster file: nodes and links, the engines placed on them, how requests are routed to engines."""

from __future__ import annotations

from collections import ChainMap
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, SerializeAsAny, model_validator

from hermes_sim.batching import JOB_POLICIES, TOKEN_POLICIES, DynamicBatching, TokenBatching
from hermes_sim.core.schema import (
    Bytes,
    Description,
    Dtype,
    Fraction,
    GramsPerKwh,
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Seconds,
    UsdPerKwh,
    name_in,
    not_required,
    one_of,
)
from hermes_sim.core.words import passed_from_python
from hermes_sim.hardware.collective_efficiency import KernelLibrary
from hermes_sim.hardware.fabric import Fabric
from hermes_sim.hardware.node import NodeGroup
from hermes_sim.hardware.processor import NumaPolicy
from hermes_sim.models.expert_load import EXPERT_LOADS, ExpertLoad, UniformLoad
from hermes_sim.models.served_quantization import ServedQuantization
from hermes_sim.routing import RoutingConfig
from hermes_sim.scenario.admission import Admission
from hermes_sim.scenario.autoscaling import Autoscaling
from hermes_sim.scenario.availability import Availability
from hermes_sim.scenario.engine_presets import ENGINE_PRESETS, under_preset
from hermes_sim.scenario.grid import CarbonByHour
from hermes_sim.scenario.kv_store import KvStore
from hermes_sim.scenario.kv_transfer import KvTransfer
from hermes_sim.scenario.lora import Lora
from hermes_sim.scenario.operators_on import OperatorsOn
from hermes_sim.scenario.power_cap import PowerCap
from hermes_sim.scenario.speculative import Speculative

TOKEN_STAGES = frozenset({"prefill", "decode"})
"""Stage kinds of a token engine; all others are jobs."""


def _or_number_of_devices(schema: dict[str, Any]) -> None:
    """Amends the JSON Schema of a placement: `4` is short for `{devices: 4}`."""
    mapping = dict(schema)
    schema.clear()
    schema |= {"anyOf": [mapping, {"type": "integer", "minimum": 1}]}


class Placement(Description):
    """How much of one device group one replica gets."""

    model_config = ConfigDict(json_schema_extra=_or_number_of_devices)

    devices: PositiveInt = 1
    cores: PositiveInt | None = None
    """CPU groups: cores of those devices together; all of them if not given."""
    numa: NumaPolicy | None = None
    """CPU groups, engines that serve prefill or decode: weights and KV on the NUMA nodes of the engine's own cores
    (`bind`), or in turn on all of the socket (`interleave`, also if not given). `cores` come in whole nodes first."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        """`gpu: 4` is short for `gpu: {devices: 4}`."""
        return {"devices": data} if isinstance(data, int) else data


class Parallel(Description):
    """Degrees of parallelism of one replica; tp x pp x dp is its number of devices."""

    tp: PositiveInt = 1
    pp: PositiveInt = 1
    dp: PositiveInt = 1
    """Ranks with a queue and a KV cache of their own that step together (DP attention); experts span all of them."""
    ep: PositiveInt = 1
    """Experts over so many of the tp x dp devices; 1, or a divisor of their number."""
    layers_per_stage: tuple[PositiveInt, ...] | None = None
    """Layers of each of the pp stages; split evenly if not given."""
    kernels: KernelLibrary = "vllm"
    """Whose experts and whose all-reduce inside a node; `nccl`: NCCL's all-reduce (disable_custom_all_reduce)."""
    collectives: Literal["auto", "ring", "tree", "direct", "in_switch", "hierarchical"] = "auto"
    """Algorithm of all-reduces over the tensor-parallel group. auto: what is fitted to its links; else direct inside a
    node, across nodes the quickest of ring, double binary tree, and hierarchical (inside, across, inside)."""
    compute_slowdown: float = Field(default=1.0, ge=1.0, le=4.0)
    """Time of products that compute limits, over what the device's tables say: older kernels, clocks under load."""

    sequence_parallel: bool = False
    """Reduce-scatter before and all-gather after the norms instead of all-reduces; norms on 1/tp of the tokens."""
    comm_overlap_frac: Fraction = 0.0
    """Share of the network's time inside the layers that runs beside their compute and memory time, and no longer than
    it: products split to send their first half early, two batches taking turns (SGLang, DeepEP). 0: none."""

    @property
    def num_devices(self) -> int:
        """Of one replica."""
        return self.tp * self.pp * self.dp


WhileWaiting = Literal["lru", "keep", "drop", "offload", "auto"]
"""In the order of state/arrays.WAIT_LRU and those that follow it."""


class KvCache(Description):
    """KV memory of one replica and how it is cut into blocks."""

    memory_fraction: Fraction = 0.9
    """Share of device memory the engine may use: weights, activations and KV together."""
    block_tokens: PositiveInt = 16
    prefix_caching: bool = True
    prefix_cache: Literal["hash", "radix"] = "hash"
    """Blocks found by a chained hash and evicted one by one (vLLM), or kept in a tree and evicted from its leaves, each
    content once (SGLang)."""
    insert_at: Literal["schedule", "step_end"] = "schedule"
    """When a full block can be found: as soon as it is scheduled, so by a later sequence of the same step (vLLM V1), or
    at the end of the step."""
    swap_space_bytes: Bytes = Field(default=4.0 * 2**30, alias="swap_space")
    """Host memory per device for the KV of preempted sequences (`preemption: swap`) and of requests that are away
    (`while_waiting: offload`)."""
    while_waiting: WhileWaiting = "lru"
    """KV of a request between two passes, while a tool runs or a user thinks. lru: in the prefix cache, until somebody
    needs the blocks; keep: held for it; drop: forgotten, and computed again; offload: to the host and back; auto:
    whichever of these wastes least memory x time at that moment (InferCept, arXiv 2402.01869)."""
    dtype: Dtype | None = None
    """As the engine's `quantization` says, else the model, if not given."""
    scale_group: PositiveInt | None = None
    """Numbers that share a scale: the key or value of one head if not given, for integers; fp8 has none of its own."""
    scale_bits: NonNegativeFloat = 32.0
    """Scale and zero point of such a group."""
    num_gpu_blocks: PositiveInt | None = None
    """Stated number of blocks instead of the memory model."""
    activation_reserve_bytes: Bytes | None = Field(default=None, alias="activation_reserve")
    """Peak activations and runtime per device; modelled if not given."""


class Tokenize(Description):
    """Workers that turn the text of a request into tokens before it enters the line."""

    per_request_s: Seconds = Field(default=0.0, alias="per_request")
    per_token_s: Seconds = Field(default=0.0, alias="per_token")
    num_workers: PositiveInt = 1


class Detokenize(Description):
    """Workers that turn tokens into text before the client sees them."""

    per_message_s: Seconds = Field(default=0.0, alias="per_message")
    num_workers: PositiveInt = 1


class Host(Description):
    """Time the host adds to steps and sequences, and what it does before and after the engine."""

    per_step_s: Seconds = Field(default=2.0e-4, alias="per_step")
    per_sequence_s: Seconds = Field(default=2.0e-6, alias="per_sequence")
    graph_capture: bool = True
    """Decode steps replay captured graphs: no launch gaps, batch padded to the next captured size."""
    max_captured_seqs: NonNegativeInt = 512
    captured_frac: float = Field(default=1.0, ge=0.1, le=1.0)
    """Time of norms, rotary embeddings and activations in a captured step, over that of the same kernels timed one by
    one: engines that compile the model fuse them, and in a graph one begins while another ends."""
    launch_factor: float = Field(default=1.0, ge=1.0, le=100.0)
    """Time to launch a kernel that is not captured, over that of a bare launch: what the model's code does around
    it."""
    prompt_launch_factor: float = Field(default=1.0, ge=1.0, le=10.0)
    """Launches of a step with prompts over those of a step without: attention by several kernels, metadata."""
    between_steps_s: Seconds = Field(default=0.0, alias="between_steps")
    """Small kernels of a step outside its layers (inputs, attention metadata, sampled tokens), on the device:
    scheduling ahead does not hide them."""
    sampling: Literal["plain", "top_p"] = "plain"
    """top_p sorts the logits of every sequence, as engines do where a request or the model's own generation defaults
    state top-p or top-k."""
    sort_bytes_per_logit: float = Field(default=128.0, ge=0.0, le=1000.0)
    """Memory traffic of that sort."""
    sort_cycles_per_logit: float = Field(default=6.0, ge=0.0, le=50.0)
    """Of the core that sorts one sequence's logits; sequences are sorted side by side."""
    tokenize: Tokenize | None = None
    """No time of its own if not given."""
    detokenize: Detokenize | None = None
    stream_interval: PositiveInt = 1
    """Tokens between two messages to the client; the first token is always sent at once."""


class Engine(Description):
    """An executor of stages on a device group; `replicas` equal ones."""

    model_config = ConfigDict(json_schema_extra=not_required("batching"))

    name: Name
    serves: tuple[str, ...] = Field(min_length=1)
    """Stage kinds."""
    model: str | None = None
    """Language model, for prefill and decode."""
    quantization: ServedQuantization | None = None
    """Formats of the served weights, activations and KV, whatever the checkpoint's: `w4a16`. As the checkpoint if not
    given."""
    replicas: PositiveInt = 1
    node: str | None = None
    """Node group; may be left out when only one has the device groups of `placement`."""
    placement: dict[str, Placement] = Field(min_length=1)
    """Device group -> share of one replica. `gpu: 4` is short for `gpu: {devices: 4}`."""
    engine_preset: Annotated[str, name_in(ENGINE_PRESETS, "engine preset")] | None = None
    """Defaults of a named engine for the keys below (docs/engine-presets.md); what the file states wins."""
    operators_on: OperatorsOn | None = None
    """Which of the groups of `placement` has which operators; with one group, all are there."""
    parallel: Parallel = Parallel()
    batching: Annotated[
        TokenBatching | DynamicBatching, one_of(ChainMap(JOB_POLICIES, TOKEN_POLICIES), "batching policy")
    ]
    """If left out: chunked_prefill where prefill or decode is served, else dynamic."""
    kv_cache: KvCache = KvCache()
    experts: Annotated[ExpertLoad, one_of(EXPERT_LOADS, "kind of expert load")] = UniformLoad()
    """How tokens spread over the experts of a mixture-of-experts model."""
    speculative: Speculative | None = None
    """No drafts if not given."""
    lora: Lora | None = None
    """No adapters if not given: requests that name one get the model as it is."""
    host: Host = Host()
    autoscaling: Autoscaling | None = None
    """All replicas run all the time if not given."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        """Fills in the engine preset, and names the batching policy that the file leaves out."""
        if not isinstance(data, dict):
            return data
        serves = data.get("serves")
        if not isinstance(serves, list | tuple):
            return data
        takes_tokens = any(isinstance(kind, str) and kind in TOKEN_STAGES for kind in serves)
        if takes_tokens:
            data = under_preset(data)
        batching = data.get("batching", {})
        if not isinstance(batching, dict):
            return data
        if batching.get("kind") == "python":
            raise ValueError(passed_from_python(batching.get("policy"), "batching=", "register_batching"))
        if "kind" in batching:
            return data
        return {**data, "batching": {"kind": "chunked_prefill" if takes_tokens else "dynamic", **batching}}


class ClusterFile(Description):
    """Nodes and their links, engines placed on them, and how requests are routed to engines."""

    name: str = Field(min_length=1)
    title: str | None = None
    nodes: tuple[NodeGroup, ...] = Field(min_length=1)
    network: str | None = None
    """Link profile between nodes where a node names no uplink."""
    fabric: Fabric | None = None
    """Switches between the nodes; the network has full bisection bandwidth if not given."""
    engines: tuple[Engine, ...] = Field(min_length=1)
    kv_stores: tuple[KvStore, ...] = ()
    """Where KV is kept beside the engines; stages of kind `kv_retrieval` name them."""
    kv_transfer: KvTransfer = KvTransfer()
    """From prefill to decode where they are served by engines of their own."""
    routing: SerializeAsAny[RoutingConfig] = RoutingConfig()
    routing_per_stage: dict[str, SerializeAsAny[RoutingConfig]] = Field(default_factory=dict)
    """Stage name or kind -> routing of its visits, where it differs."""
    devices: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Devices of the library with other numbers: name -> keys of a device file, and `base`, the device that it is like
    (the one of that name if not given). `2 x` is twice what stands there: `h100_sxm: {memory: {bandwidth: 2 x}}`."""
    links: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """The same of links."""
    availability: Availability = Availability()
    """Nothing fails if not given."""
    power_caps: tuple[PowerCap, ...] = ()
    """Devices run at full clock if not given."""
    admission: Admission | None = None
    """Every request is taken in if not given."""
    electricity_usd_per_kwh: UsdPerKwh = Field(default=0.08, alias="electricity")
    """Paid for the energy of owned devices, PUE included; a rent covers it. The default is about what industry in the
    United States pays (EIA: 8.06 cents a kWh on average in 2023)."""
    carbon_g_per_kwh: GramsPerKwh = Field(default=400.0, alias="carbon")
    """Carbon intensity of the electricity."""
    carbon_by_hour: CarbonByHour | None = None
    """The same for each hour of the day, in its place."""
    pue: float = Field(default=1.2, ge=1.0)
    """Power usage effectiveness: facility energy over device energy."""

    @model_validator(mode="before")
    @classmethod
    def _one_kind_of_rack(cls, data: Any) -> Any:
        """KV stores of a rack have the racks of the fabric where they state none of their own."""
        stores = data.get("kv_stores") if isinstance(data, dict) else None
        fabric = data.get("fabric") if isinstance(data, dict) else None
        levels = fabric.get("levels") if isinstance(fabric, dict) else None
        if not isinstance(stores, list | tuple) or not isinstance(levels, list | tuple) or not levels:
            return data
        nodes = levels[0].get("nodes") if isinstance(levels[0], dict) else None
        if nodes is None:
            return data
        of_rack = {"nodes_per_rack": nodes}
        is_open = [isinstance(one, dict) and one.get("shared_by") == "rack" for one in stores]
        filled = [{**of_rack, **one} if wide else one for one, wide in zip(stores, is_open, strict=True)]
        return {**data, "kv_stores": filled}

    @property
    def any_hedges(self) -> bool:
        """Whether visits to any stage may be sent twice."""
        return any(one.hedge is not None for one in (self.routing, *self.routing_per_stage.values()))

    @property
    def can_change(self) -> bool:
        """Whether any replica can be away, or slow, at some time."""
        some, scales = self.availability, any(engine.autoscaling for engine in self.engines)
        return bool(some.outages or some.failures or self.power_caps or scales)
