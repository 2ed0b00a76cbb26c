"""docs/extending.md: each block is saved or run as the page says, and the simulator then uses it.

Code gets a process of its own: a table that has grown would be seen by all tests after it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from hermes_sim import simulate
from hermes_sim.scenario.check import check_file, weakest_source
from tests import scenarios as s
from tests.docs.blocks import REPOSITORY, blocks

PAGE = REPOSITORY / "docs" / "extending.md"

RUN = """
import json
from pathlib import Path
from hermes_sim import simulate
simulate(*json.loads(Path("input.json").read_text())).save("run")
"""


def block_under(heading: str) -> str:
    """The one block below a heading that starts so."""
    (block,) = (block for block in blocks(PAGE) if block.heading.startswith(heading))
    return block.text


def run_after(code: str, folder: Path, cluster: dict[str, Any], workload: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Tables of a run in a fresh process that has run `code` before; warnings are errors."""
    (folder / "input.json").write_text(json.dumps([cluster, workload]))
    (folder / "script.py").write_text(code + RUN)
    done = subprocess.run(
        [sys.executable, "-W", "error", "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {path.stem: pd.read_parquet(path) for path in (folder / "run").glob("*.parquet")}


def arriving_at(*times: str, prompt: int, output: int) -> dict[str, Any]:
    """Requests of one size at given times."""
    lengths = {"kind": "fixed", "num_prompt_tokens": prompt, "num_output_tokens": output}
    return {"arrivals": {"kind": "replay", "times": list(times)}, "lengths": lengths}


def test_every_block_is_tested() -> None:
    assert [(block.heading.partition(",")[0], block.language) for block in blocks(PAGE)] == [
        ("A device", "yaml"), ("A routing policy", "python"), ("A batching policy", "python"), ("A stage", "python"),
    ]  # fmt: skip


def test_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lone decode streams the weights at the bandwidth that the file states, or slower by its efficiency."""
    monkeypatch.chdir(tmp_path)
    text = block_under("A device")
    Path("my_npu.yaml").write_text(text)
    assert check_file("my_npu.yaml") == []
    assert weakest_source("my_npu.yaml") == "estimate"
    cluster = {
        "name": "npus",
        "nodes": [{"name": "box", "devices": {"npu": {"profile": "my_npu"}}}],
        "engines": [{"name": "llm", "serves": ["prefill", "decode"], "model": "llama_3_8b", "placement": {"npu": 1}}],
    }
    results = simulate(cluster, s.workload(traffic=arriving_at("0 s", prompt=16, output=50)))
    weights_bytes, bandwidth_bytes_per_s = 2 * 7.5e9, 2e12
    fastest_s = weights_bytes / bandwidth_bytes_per_s
    assert fastest_s < results.requests["tpot_s"].item() < 1.5 * fastest_s
    assert results.summary["trust"]["weakest_source"]["my_npu"] == "estimate"


def test_a_device_has_no_number_to_spare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "The fewest numbers a device needs": without any of its keys the file is refused, but for the cost model, which
    its class has too."""
    monkeypatch.chdir(tmp_path)
    device = yaml.safe_load(block_under("A device"))
    model = device["cost_model"]
    shorter = [{k: v for k, v in device.items() if k != key} for key in device if key != "cost_model"]
    shorter += [{**device, "cost_model": {k: v for k, v in model.items() if k != key}} for key in model]
    for number, document in enumerate(shorter):
        path = Path(f"device_{number}.yaml")
        path.write_text(yaml.safe_dump(document))
        assert check_file(path), path.read_text()


def test_a_routing_policy(tmp_path: Path) -> None:
    """Idle engines tie, and the first gets the request; while it has one in service the second does."""
    cluster = s.cluster(s.llm(replicas=2), routing={"kind": "fewest_running"})
    workload = s.workload(traffic=arriving_at("0 s", "1 s", "100 s", "200 s", "200.5 s", prompt=100, output=400))
    tables = run_after(block_under("A routing policy"), tmp_path, cluster, workload)
    prefills = tables["visits"].query("kind == 'prefill'").sort_values("request")
    assert prefills["engine"].tolist() == ["llm[0]", "llm[1]", "llm[0]", "llm[0]", "llm[1]"]
    assert set(tables["requests"]["status"]) == {"finished"}


def test_a_batching_policy(tmp_path: Path) -> None:
    """1,000 tokens of a prompt are four chunks of at most 256."""
    cluster = s.cluster(s.llm(batching={"kind": "short_chunks"}))
    workload = s.workload(traffic=arriving_at("0 s", prompt=1000, output=1))
    tables = run_after(block_under("A batching policy"), tmp_path, cluster, workload)
    assert tables["engines"]["num_steps"].tolist() == [4]
    shipped = simulate(s.cluster(s.llm(batching={"kind": "chunked_prefill"})), workload)
    assert shipped.engines["num_steps"].tolist() == [1]


def test_a_stage(tmp_path: Path) -> None:
    """The work it states is the work that is priced, before the prompt is computed."""
    cluster = s.cluster(s.llm(), s.workers(["guard"]))
    stages = ({"name": "guard", "kind": "guard"}, {**s.PREFILL, "after": ["guard"]}, s.DECODE)
    workload = s.workload(*stages, traffic=arriving_at("0 s", "9 s", prompt=1000, output=20))
    tables = run_after(block_under("A stage"), tmp_path, cluster, workload)
    (operator,) = tables["operators"].query("stage == 'guard'").itertuples()
    assert (operator.operator, operator.flops, operator.bytes) == ("filter", 40_000.0, 4_000.0)
    guards, prefills = (
        tables["visits"].query(f"stage == '{name}'").set_index("request") for name in ("guard", "prefill")
    )
    assert guards["engine"].tolist() == ["jobs[0]", "jobs[0]"]
    assert (guards["service_s"] > 0).all()
    assert (guards["finish_s"] <= prefills["arrival_s"]).all()
