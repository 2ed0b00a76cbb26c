"""Every shipped workload and pipeline: loads, and its traffic is what its title says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hermes_sim.core.errors import TraceError
from hermes_sim.scenario.load import load_scenario
from hermes_sim.stages.decode import Decode
from hermes_sim.workload.generate import generate_requests
from tests.shipped_pairs import CLUSTER_OF
from tests.unit.workload.laws import FIXED

WORKLOADS = Path(__file__).resolve().parents[3] / "workloads"
FILES = sorted(WORKLOADS.glob("*.yaml"))
NEED_A_TRACE = {"azure2023_conv", "azure2023_code", "mooncake_conversation"}
NUM_REQUESTS = {
    "agents": 2000, "best_of_n": 1000, "bursty": 2000, "chat": 2000, "closed_loop": 640, "code": 2000,
    "pictures": 1000, "rag": 2000, "reasoning": 1000, "sessions": 2000, "summarization": 1000, "tenants": 2000,
}  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_workload(path: Path) -> None:
    scenario = load_scenario(CLUSTER_OF.get(path.stem, "a100x8"), path)
    workload = scenario.workload
    assert workload.name == path.stem
    assert workload.title
    assert all(slo.limits() for _, slo in workload.promises())
    if path.stem in NEED_A_TRACE:
        with pytest.raises(TraceError, match=r"workload\.traffic\.trace\.path=FILE.*https://github.com/"):
            generate_requests(workload.traffic, workload.seed)
        return
    table = generate_requests(workload.traffic, workload.seed)
    assert table.num_requests == NUM_REQUESTS.get(path.stem, table.num_requests) >= 300
    assert table.notes == ()
    same = generate_requests(workload.traffic, workload.seed)
    assert np.array_equal(table.arrival_s, same.arrival_s, equal_nan=True)
    assert np.array_equal(table.num_prompt_tokens, same.num_prompt_tokens)


def test_what_the_newer_workloads_add() -> None:
    tenants, pictures, best_of_n = (
        load_scenario("a100x8", WORKLOADS / f"{name}.yaml").workload for name in ("tenants", "pictures", "best_of_n")
    )
    sent = generate_requests(tenants.traffic, tenants.seed)
    assert sent.client is not None
    # ten clients by Zipf's law: the first sends 1 of 2.93, five standard deviations of 2,000 draws allowed
    assert abs((sent.client == 0).mean() - 1 / 2.929) < 5 * np.sqrt(0.341 * 0.659 / 2000)
    shown = generate_requests(pictures.traffic, pictures.seed)
    assert shown.num_image_tokens is not None
    assert set((shown.num_image_tokens % 576).tolist()) == {0}
    decode = best_of_n.pipelines[0].stages[-1]
    assert isinstance(decode, Decode)
    assert decode.num_samples == 4


def test_chat_and_bursty_differ_in_burstiness_only() -> None:
    chat, bursty = (load_scenario("a100x8", WORKLOADS / f"{name}.yaml").workload for name in ("chat", "bursty"))
    assert chat.traffic.arrivals is not None
    assert bursty.traffic.arrivals is not None
    assert chat.traffic.arrivals.mean_rate_per_s == pytest.approx(bursty.traffic.arrivals.mean_rate_per_s)
    assert chat.traffic.lengths == bursty.traffic.lengths


@pytest.mark.parametrize("path", sorted((WORKLOADS / "pipelines").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_pipeline(path: Path) -> None:
    workload = {
        "name": "test",
        "traffic": {"arrivals": {"kind": "poisson", "rate": "1 /s"}, "num_requests": 1, "lengths": FIXED},
        "pipelines": [path.stem],
    }
    (pipeline,) = load_scenario("a100x8", workload).workload.pipelines
    assert pipeline.name == path.stem
    assert pipeline.title
    assert [stage.name for stage in pipeline.stages][-2:] == ["prefill", "decode"]


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "file", "num_requests"),
    [
        ("azure2023_conv", "AzureLLMInferenceTrace_conv.csv.gz", 19366),
        ("azure2023_code", "AzureLLMInferenceTrace_code.csv.gz", 8819),
        ("mooncake_conversation", "conversation_trace.jsonl.gz", 12031),
    ],
)
def test_the_path_is_set_on_the_command_line(name: str, file: str, num_requests: int, data_folder: Path) -> None:
    path = data_folder / "requests" / "original" / file
    scenario = load_scenario("a100x8", name, overrides=[f"workload.traffic.trace.path={path}"])
    assert generate_requests(scenario.workload.traffic, scenario.seed).num_requests == num_requests
