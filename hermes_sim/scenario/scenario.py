"""The frozen, checked input of one run: every name resolved, every number present."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hermes_sim.core.schema import Description, NonNegativeInt
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.link import Link
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.scenario.cluster import ClusterFile
from hermes_sim.scenario.workload import WorkloadFile


class Scenario(Description):
    """Cluster and workload with everything they name. Written to scenario.yaml, and read back from it."""

    cluster: ClusterFile
    workload: WorkloadFile
    devices: dict[str, Device]
    """By the name used in the cluster file."""
    links: dict[str, Link]
    models: dict[str, ModelArchitecture]
    """By the name used in cluster and workload."""
    seed: NonNegativeInt
    exact_steps: bool = False
    """One event per step: slower, the same results to the last bit."""
    notes: tuple[str, ...] = ()
    """What the checks found that a reader of the results should know."""

    def with_(self, overrides: Mapping[str, Any] | Sequence[str] = (), *, seed: int | None = None) -> Scenario:
        """Another scenario: this one with other values of some keys, checked again; this one stays as it is.

        overrides: `{"cluster.engines.llm.replicas": 4}`, or texts as on the command line:
        `["workload.traffic.arrivals.rate=8 /s"]`. Any key of the cluster or the workload, whole mappings and lists too;
        new names are looked up in the library; keys of devices and links as `cluster.devices.NAME.memory.bandwidth`,
        a factor as `2 x`. seed: of the draws. Raises ConfigError with every problem.
        """
        from hermes_sim.scenario.load import change_scenario  # which makes scenarios, so that it stands above them

        return change_scenario(self, overrides, seed=seed)

    @property
    def follows_requests(self) -> bool:
        """Whether something outside the engines has to know when each request ends."""
        cluster = self.cluster
        asked = cluster.can_change or cluster.admission is not None or cluster.any_hedges
        return asked or self.workload.any_patience
