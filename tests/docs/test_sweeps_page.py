"""docs/sweeps.md: its example is a sound sweep, its Python runs, every sweep of the library is named."""

from __future__ import annotations

from pathlib import Path

import yaml

from hermes_sim.explore.plan import plan_sweep
from hermes_sim.explore.sweep import load_sweep
from hermes_sim.explore.sweep_results import SweepResults
from hermes_sim.scenario.check import check_file
from hermes_sim.scenario.facts import FACTS
from hermes_sim.scenario.load import load_scenario
from tests.docs.blocks import REPOSITORY, blocks

PAGE = REPOSITORY / "docs" / "sweeps.md"


def test_the_example_is_a_sweep(tmp_path: Path) -> None:
    example, variant = blocks(PAGE, "yaml")
    path = tmp_path / "widths.yaml"
    path.write_text(example.text)
    assert check_file(path) == []
    plan = plan_sweep(load_sweep(path))
    assert {(run.point["tp"], run.point["replicas"]) for run in plan.runs} == {("2", "4"), ("4", "2"), ("8", "1")}
    assert plan.num_points == 3 * (1 + 2) * 16
    assert {run.point.get("budget") for run in plan.runs if run.point["batching"] == "continuous"} == {None}
    assert not any(run.problem for run in plan.runs)
    stated = yaml.safe_load(variant.text)
    cluster = {**yaml.safe_load((REPOSITORY / "hardware_profiles" / "clusters" / "h100x8.yaml").read_text()), **stated}
    chip = load_scenario(cluster, "chat", overrides=["cluster.nodes.dgx.devices.gpu.profile=my_chip"]).devices[
        "my_chip"
    ]
    assert chip.price_usd_per_h == 5.0
    assert chip.memory.bandwidth_bytes_per_s == 6.7e12


def test_the_python_of_the_page_runs() -> None:
    (block,) = blocks(PAGE, "python")
    names: dict[str, object] = {}
    exec(compile(block.text, str(PAGE), "exec"), names)
    found = names["found"]
    assert isinstance(found, SweepResults)
    assert len(found.runs) == 4
    assert found.failures.empty


def test_the_page_names_facts_and_sweeps() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for fact in FACTS:
        assert f"`{fact}`" in page
    for path in (REPOSITORY / "workloads" / "sweeps").glob("*.yaml"):
        assert f"`{path.stem}`" in page
