"""Devices of their own that make an engine's drafts: where they stand, what a pass costs, the way there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_sim.batching import TokenBatching
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.network import Endpoint, Network, Route
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.perf.step_cost import LlmCost, build_llm_cost
from hermes_sim.scenario.cluster import Engine
from hermes_sim.scenario.remote_drafts import DraftDevices
from hermes_sim.scenario.speculative import DraftModel

MOST_CHUNK_TOKENS = 2048
"""Of a prompt, in one pass."""


@dataclass(frozen=True, slots=True)
class RemoteDrafts:
    """Of one replica of an engine."""

    model: DraftModel
    on: DraftDevices
    endpoints: tuple[Endpoint, ...]
    device: Device
    cost: LlmCost
    """Of a pass on one device, for all sequences of the engine if need be."""
    up: Route
    """From the device that is farthest to the engine."""
    down: Route
    up_shares: Route
    """From all devices, each its part: what the links between carry."""
    down_shares: Route

    @property
    def num_devices(self) -> int:
        return len(self.endpoints)

    @property
    def up_s(self) -> float:
        """A message without drafts, from a device to the engine; each draft takes `up_s_per_draft` more."""
        return self._latency_s(self.up) + self.on.message_overhead_bytes / self.up.bandwidth_bytes_per_s

    @property
    def up_s_per_draft(self) -> float:
        return self.on.bytes_per_draft / self.up.bandwidth_bytes_per_s

    @property
    def down_s(self) -> float:
        """A result, from the engine to a device."""
        return self._latency_s(self.down) + self.on.result_bytes / self.down.bandwidth_bytes_per_s

    def _latency_s(self, route: Route) -> float:
        return route.latency_s if self.on.latency_s is None else self.on.latency_s

    @property
    def power_w(self) -> npt.NDArray[np.float64]:
        """[4] of one device while limited by compute, memory, network, host."""
        return self.cost.power_w

    @property
    def idle_w(self) -> float:
        """Of all devices."""
        return self.device.power.idle_w * self.num_devices

    @property
    def price_usd_per_h(self) -> float:
        """Of all devices."""
        return self.device.usd_per_h * self.num_devices


def drafting_cost(engine: Engine, model: ModelArchitecture, device: Device) -> LlmCost:
    """Tables of a draft model on one device, without its host's time."""
    assert isinstance(engine.batching, TokenBatching)
    return build_llm_cost(
        model,
        device,
        tp=1,
        pp=1,
        ep=1,
        max_tokens=MOST_CHUNK_TOKENS,
        max_seqs=engine.batching.max_num_seqs,
        tp_bandwidth_bytes_per_s=np.inf,
        tp_latency_s=0.0,
        pp_bandwidth_bytes_per_s=np.inf,
        pp_latency_s=0.0,
        kv_dtype=model.kv_dtype,
        host_per_step_s=0.0,
        host_per_sequence_s=0.0,
        graph_capture=True,
        max_captured_seqs=engine.batching.max_num_seqs,
    )


def build_remote_drafts(
    engine: Engine,
    cost: LlmCost,
    device: Device,
    network: Network,
    endpoints: Sequence[Endpoint],
    target: Endpoint,
) -> RemoteDrafts:
    """Drafts made on these equal devices, for an engine whose first device is `target`."""
    assert engine.speculative is not None
    assert isinstance(engine.speculative.draft, DraftModel)
    assert engine.speculative.on is not None
    ups = [network.route(endpoint, target) for endpoint in endpoints]
    downs = [network.route(target, endpoint) for endpoint in endpoints]
    return RemoteDrafts(
        model=engine.speculative.draft,
        on=engine.speculative.on,
        endpoints=tuple(endpoints),
        device=device,
        cost=cost,
        up=max(ups, key=lambda route: route.seconds(1.0)),
        down=max(downs, key=lambda route: route.seconds(1.0)),
        up_shares=network.group_route(endpoints, [target]),
        down_shares=network.group_route([target], endpoints),
    )
