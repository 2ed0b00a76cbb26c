"""Drafts on devices of their own, and trees, as files state them: what they come to, what is refused and why."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hermes_sim.core.errors import ConfigError
from hermes_sim.scenario.load import load_scenario
from hermes_sim.scenario.remote_drafts import DraftDevices
from hermes_sim.scenario.speculative import Speculative
from tests import scenarios as s

RATE = {"kind": "constant", "rate": 0.5}


def speculative(**keys: Any) -> Speculative:
    return Speculative.model_validate({"num_draft_tokens": 3, "acceptance": RATE, "draft": {"kind": "heads"}, **keys})


def on(device: str = "gpu", *, draft: str = "vicuna_68m", **keys: Any) -> dict[str, Any]:
    """An engine's `speculative` with drafts from elsewhere."""
    model = {"kind": "model", "model": draft, "on": {"device": device, **keys}}
    return {"num_draft_tokens": 3, "acceptance": RATE, "draft": model}


def problem(*engines: s.Document, **cluster: Any) -> str:
    """The one thing that is wrong with these engines."""
    with pytest.raises(ConfigError) as caught:
        load_scenario(s.cluster(*engines, **cluster), s.workload())
    (found,) = caught.value.problems
    return str(found)


def test_nodes_of_a_tree_are_products_down_to_each_depth() -> None:
    tree = speculative(tree=[4, 2, 2])
    assert tree.nodes == (0, 4, 12, 28)
    assert tree.acceptance.table(tree.candidates) == (1 - 0.5**4, 0.75, 0.75)
    assert speculative(tree_width=2).nodes == (0, 2, 4, 6)


def test_bytes_of_messages() -> None:
    devices = DraftDevices(device="gpu", num_probabilities=8)
    assert (devices.bytes_per_draft, devices.result_bytes) == (4 + 8 * 6, 66 + 8)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tree": [2, 2]}, "tree needs a number for each of the 3 draft tokens, got 2"),
        ({"tree": [2, 2, 2], "tree_width": 2}, "tree and tree_width say the same in two ways"),
        ({"tree": [32, 32, 32]}, "a tree of 33,824 nodes: at most 1,024"),
        ({**on(), "tree_width": 2}, "drafts from devices of their own come as a chain"),
        ({"draft": {"kind": "model", "model": "m", "pre_drafting": {"kind": "all_accepted"}}}, "needs `on`"),
        ({"draft": {"kind": "model", "model": "m", "early_stop": {"wrong_caught": 0.5}}}, "needs `on`"),
    ],
)
def test_what_cannot_be(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        speculative(**keys)


def test_each_replica_has_devices_of_its_own() -> None:
    two = s.llm(replicas=2, speculative=on(count=3))
    load_scenario(s.cluster(two), s.workload())
    found = problem(two, num_gpus=7)
    assert "drafts of engine 'llm': wants 2 x 3 gpu, node 'node' has 5 free of 7" in found


def test_places_that_are_not_there() -> None:
    assert "there is no node 'edge' (node)" in problem(s.llm(speculative=on(node="edge")))
    assert "no node has 'npu'" in problem(s.llm(speculative=on("npu")))


def test_a_model_that_the_device_does_not_hold() -> None:
    large = on(draft="llama_3_70b", count=1)
    found = problem(s.llm(speculative=large))
    assert "llama_3_70b and one sequence of 8192 tokens take" in found
    assert "engines[0].speculative.draft.on" in found


def test_a_way_between_them() -> None:
    node = {"name": "apart", "devices": {"board": {"profile": "jetson_agx_orin_64gb"}}}
    cluster = s.cluster(s.llm(node="node", speculative=on("board", node="apart")))
    cluster["nodes"].append(node)
    with pytest.raises(ConfigError, match="has no `uplink`, and the cluster no `network`"):
        load_scenario(cluster, s.workload())
    load_scenario({**cluster, "network": "wifi6"}, s.workload())


def test_ranks_that_keep_step() -> None:
    ranks = s.llm(speculative=on(), parallel={"dp": 2}, placement={"gpu": 2})
    assert "DP ranks step together, drafts from elsewhere come one by one: needs dp 1, got 2" in problem(ranks)
