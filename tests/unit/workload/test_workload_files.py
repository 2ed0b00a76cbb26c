"""Every shipped workload and pipeline: loads, and its traffic is what its title says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hermes_sim.core.errors import TraceError
from hermes_sim.scenario.load import load_scenario
from hermes_sim.workload.generate import generate_requests
from tests.unit.workload.laws import FIXED

WORKLOADS = Path(__file__).resolve().parents[3] / "workloads"
FILES = sorted(WORKLOADS.glob("*.yaml"))
NEED_A_TRACE = {"azure2023_conv", "azure2023_code", "mooncake_conversation"}
NUM_REQUESTS = {
    "agents": 2000, "bursty": 2000, "chat": 2000, "closed_loop": 640, "code": 2000, "rag": 2000, "reasoning": 1000,
    "sessions": 2000, "summarization": 1000,
}  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_workload(path: Path) -> None:
    scenario = load_scenario("a100x8", path)
    workload = scenario.workload
    assert workload.name == path.stem
    assert workload.title
    assert workload.slo.limits()
    if path.stem in NEED_A_TRACE:
        with pytest.raises(TraceError, match=r"workload\.traffic\.trace\.path=FILE.*https://github.com/"):
            generate_requests(workload.traffic, workload.seed)
        return
    table = generate_requests(workload.traffic, workload.seed)
    assert table.num_requests == NUM_REQUESTS.get(path.stem, table.num_requests) > 500
    assert table.notes == ()
    same = generate_requests(workload.traffic, workload.seed)
    assert np.array_equal(table.arrival_s, same.arrival_s, equal_nan=True)
    assert np.array_equal(table.num_prompt_tokens, same.num_prompt_tokens)


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
