"""Bytes of links over time: by hand, and their sums."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.hardware.network import Route
from hermes_sim.run import run_scenario
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim.transfer_log import TransferLog
from tests import scenarios

EDGES_S = np.array([0.0, 1.0, 2.0, 3.0, 3.5])


def test_a_transfer_counts_by_the_time_in_each_interval() -> None:
    log = TransferLog()
    log.add(Route((0,), (1.0,), 0.0, 1e9), 0.5, 3.0, 100.0)  # 40 bytes/s
    assert log.bytes_over_time(1, EDGES_S)[0] == pytest.approx([20.0, 40.0, 40.0, 0.0])
    log.add(Route((0, 2), (0.5, 1.0), 0.0, 1e9), 3.0, 3.5, 8.0)
    log.add(Route((2,), (1.0,), 0.0, 1e9), 1.0, 1.0, 5.0)  # all at one moment
    log.add(Route((2,), (1.0,), 0.0, 1e9), 3.5, 3.5, 1.0)
    log.add(Route((), (), 0.0, np.inf), 0.0, 1.0, 7.0)  # within one device
    carried = log.bytes_over_time(3, EDGES_S)
    assert carried[0] == pytest.approx([20.0, 40.0, 40.0, 4.0])
    assert not carried[1].any()
    assert carried[2] == pytest.approx([0.0, 5.0, 0.0, 9.0])


def test_no_time_no_intervals() -> None:
    assert TransferLog().bytes_over_time(2, np.zeros(1)).shape == (2, 0)


def test_intervals_add_up_to_the_links() -> None:
    prefill = scenarios.llm("prefill", serves=["prefill"], replicas=2)
    decode = scenarios.llm("decode", serves=["decode"])
    results = run_scenario(load_scenario(scenarios.cluster(prefill, decode), scenarios.workload()))
    assert results.link_timeline is not None
    over_time = results.link_timeline.groupby("link", observed=True, sort=False)
    assert list(over_time.groups) == list(results.links["link"])
    assert over_time["bytes"].sum().to_numpy() == pytest.approx(results.links["bytes"].to_numpy())
    length_s = results.link_timeline["end_s"] - results.link_timeline["start_s"]
    mean = (results.link_timeline["utilization_frac"] * length_s).groupby(results.link_timeline["link"], observed=True)
    assert mean.sum().to_numpy() / results.duration_s == pytest.approx(results.links["utilization_frac"].to_numpy())
    assert results.link_timeline["utilization_frac"].max() <= 1.0 + 1e-9
