"""docs/writing-a-policy.md: each block is saved or run as the page says.

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
import yaml

from tests import scenarios as s
from tests.docs.blocks import REPOSITORY, blocks

PAGE = REPOSITORY / "docs" / "writing-a-policy.md"


def block_under(heading: str, language: str) -> str:
    (block,) = (block for block in blocks(PAGE, language) if block.heading == heading)
    return block.text


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_block_is_tested() -> None:
    assert [(block.heading, block.language) for block in blocks(PAGE)] == [
        ("A batching policy", "python"), ("Passing it", "python"), ("Passing it", "yaml"), ("Passing it", "sh"),
        ("A router", "python"),
    ]  # fmt: skip


def test_the_policy_has_twenty_lines() -> None:
    """As the page promises: the body of `schedule`, without the imports."""
    _, _, body = block_under("A batching policy", "python").partition("def schedule(self, view):\n")
    lines = [line for line in body.split("register_batching")[0].splitlines() if line.strip()]
    assert len(lines) <= 20


def arriving_together(prompts: list[int]) -> s.Document:
    """Requests of these lengths at the same moment, a long one before them."""
    lengths = {"kind": "lognormal", "prompt": {"mean": 500, "cv": 1.0}, "output": {"mean": 60, "cv": 1.0}}
    arrivals = {"kind": "replay", "times": ["0 s"] * len(prompts)}
    return {"arrivals": arrivals, "lengths": lengths}


def write_input(folder: Path, batching: s.Document, **keys: Any) -> None:
    (folder / "my_policies.py").write_text(block_under("A batching policy", "python"))
    cluster = s.cluster(s.llm(batching=batching, **keys))
    (folder / "my_cluster.yaml").write_text(yaml.safe_dump(cluster))
    workload = s.workload(traffic=arriving_together([1] * 30))
    (folder / "chat.yaml").write_text(yaml.safe_dump(workload))


def test_short_prompts_go_first(tmp_path: Path) -> None:
    """All arrive at once; who starts in an earlier step never has more to do than who starts in a later one."""
    (engine,) = yaml.safe_load(block_under("Passing it", "yaml"))["engines"]
    write_input(tmp_path, engine["batching"])
    for line in block_under("Passing it", "sh").splitlines():
        command = line.removeprefix("hermes-sim ")
        more = ["--out", "run", "--quiet"] if "--workload" in command else []
        run(tmp_path, "-m", "hermes_sim", *command.replace("chat", "chat.yaml").split(), *more)
    visits = pd.read_parquet(tmp_path / "run" / "visits.parquet").query("kind == 'prefill'").set_index("request")
    requests = pd.read_parquet(tmp_path / "run" / "requests.parquet").set_index("request")
    started = visits.assign(prompt=requests["num_prompt_tokens"]).groupby("start_s")["prompt"]
    assert started.size().max() <= 2, "prompts_per_step of the file"
    assert (started.max().to_numpy()[:-1] <= started.min().to_numpy()[1:]).all()
    assert set(requests["status"].astype(str)) == {"finished"}


def test_a_notebook_passes_the_object(tmp_path: Path) -> None:
    """The line of the page, with small files under its names; few blocks, so that sequences give way."""
    options = {"kind": "chunked_prefill", "max_num_batched_tokens": 4096}
    write_input(tmp_path, options, kv_cache={"num_gpu_blocks": 700, "prefix_caching": False})
    (tmp_path / "a100x8.yaml").write_text((tmp_path / "my_cluster.yaml").read_text())
    code = "from my_policies import ShortestPromptFirst\n" + block_under("Passing it", "python")
    code += "print(results.requests['status'].astype(str).unique().tolist())\n"
    code += "print(int(results.engines['num_preemptions'].sum()))\n"
    (tmp_path / "notebook.py").write_text(code)
    status, preemptions = run(tmp_path, "notebook.py").splitlines()
    assert status == "['finished']"
    assert int(preemptions) > 0


def test_the_router(tmp_path: Path) -> None:
    """Turns of a session find their cache; the others spread."""
    code = block_under("A router", "python")
    prefix = {"groups": 1, "tokens": 1000}
    traffic = {**s.traffic(rate="0.2 /s", num_requests=20, prompt=1200, output=20), "prefix": prefix}
    cluster = s.cluster(s.llm(replicas=3), routing={"kind": "warm_unless_busy"})
    code += "import json, sys\nfrom hermes_sim import simulate\n"
    code += f"results = simulate(*json.loads({json.dumps(json.dumps([cluster, s.workload(traffic=traffic)]))}))\n"
    code += "print(results.visits['engine'].astype(str).value_counts().to_json())\n"
    (tmp_path / "script.py").write_text(code)
    engines = json.loads(run(tmp_path, "script.py"))
    assert engines["llm[0]"] > 30, "the cache of the first is warm and its queue is short"
    assert sum(engines.values()) == 40
