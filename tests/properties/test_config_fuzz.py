"""Whatever an input file says, the loader gives a Scenario or a ConfigError, never anything else."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.scenario.check import check_file
from hermes_sim.scenario.document import KeyPath
from hermes_sim.scenario.dump import dump_scenario, dump_yaml
from hermes_sim.scenario.load import load_scenario
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.yaml_reader import read_yaml
from tests.conftest import REPOSITORY
from tests.unit.scenario.files import CLUSTER, WORKLOAD

FILES = {
    "cluster.yaml": CLUSTER.replace("a100_sxm_80gb", "gpu").replace("nvlink3", "link").replace("llama_3_70b", "model"),
    "workload.yaml": WORKLOAD,
    "gpu.yaml": (REPOSITORY / "hardware_profiles/devices/a100_sxm_80gb.yaml").read_text(encoding="utf-8"),
    "link.yaml": (REPOSITORY / "hardware_profiles/links/nvlink3.yaml").read_text(encoding="utf-8"),
    "model.yaml": (REPOSITORY / "workloads/models/llama_3_70b.yaml").read_text(encoding="utf-8"),
}
SHIPPED = sorted([*REPOSITORY.glob("hardware_profiles/*/*.yaml"), *REPOSITORY.glob("workloads/**/*.yaml")])

VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, 1, -1, 2, 3, 7, 64, 1e9, 0.5, 1.5, 2**53, 1e300]),
    st.sampled_from(["", "x", "0 s", "50 ms", "80 GiB", "1e-300 B/s", "1e300 FLOP/s", "4 /s", "6 x", "5 %", "1 B"]),
    st.sampled_from(["gpu", "cpu", "llm", "llama_3_8b", "e5_base", "mamba2_2_7b", "deepseek_r1", "nvlink3", "rag"]),
    st.sampled_from(["prefill", "decode", "embed", "dynamic", "continuous", "flat", "bf16", "fp4", "estimate"]),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.lists(st.sampled_from(["prefill", "decode", "gpu", 1, None]), max_size=3),
    st.dictionaries(st.sampled_from(["kind", "name", "gpu", "tp", "p99"]), st.sampled_from(["x", 1, None]), max_size=2),
)

fuzz = settings(
    max_examples=int(os.environ.get("HERMES_FUZZ_EXAMPLES", "20")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def paths_of(data: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Of every value inside plain data."""
    keys = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in keys:
        yield (*path, key)
        yield from paths_of(value, (*path, key))


def holder_of(data: Any, path: KeyPath) -> Any:
    for part in path[:-1]:
        data = data[part]
    return data


def mutate(data: Any, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    """One change somewhere: a value replaced, deleted, doubled or moved, or a key renamed."""
    paths = list(paths_of(data))
    if not paths:
        return
    path = draw(st.sampled_from(paths))
    holder, last = holder_of(data, path), path[-1]
    action = draw(st.sampled_from(["replace", "replace", "delete", "double", "move", "rename"]))
    if action == "delete":
        del holder[last]
    elif action == "double" and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[last]))
    elif action == "move":
        other = draw(st.sampled_from(paths))
        holder[last] = copy.deepcopy(holder_of(data, other)[other[-1]])
    elif action == "rename" and isinstance(holder, dict):
        holder[draw(st.text(min_size=1, max_size=3) | st.just(f"{last}s"))] = holder.pop(last)
    else:
        holder[last] = draw(VALUES)


def write_all(folder: Path, changed: dict[str, str]) -> None:
    for name, text in (FILES | changed).items():
        (folder / name).write_text(text, encoding="utf-8", errors="surrogatepass")


def loads_or_says_why(folder: Path, *overrides: str) -> Scenario | None:
    problems: tuple[Problem, ...] = ()
    try:
        scenario: Scenario | None = load_scenario(
            folder / "cluster.yaml", folder / "workload.yaml", overrides=overrides
        )
    except ConfigError as error:
        scenario, problems = None, error.problems
    if scenario is not None:
        assert dump_scenario(scenario)
    else:
        assert problems
        assert all(problem.message for problem in problems)
    return scenario


def test_the_files_load_unchanged(tmp_path: Path) -> None:
    write_all(tmp_path, {})
    assert loads_or_says_why(tmp_path) is not None


@pytest.mark.parametrize("name", list(FILES))
@fuzz
@given(data=st.data())
def test_changed_values_and_keys(name: str, data: st.DataObject, tmp_path: Path) -> None:
    write_all(tmp_path, {})
    content = copy.deepcopy(read_yaml(tmp_path / name).data)
    for _ in range(data.draw(st.integers(1, 3))):
        mutate(content, data.draw)
    write_all(tmp_path, {name: dump_yaml(content)})
    loads_or_says_why(tmp_path)


@fuzz
@given(data=st.data(), name=st.sampled_from(list(FILES)))
def test_changed_text(name: str, data: st.DataObject, tmp_path: Path) -> None:
    text = FILES[name]
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.sampled_from([0, 0, 1, 3, 20])))
        text = text[:start] + data.draw(st.text(alphabet="{}[]:,-&*!#'\"|>%@ \n\ta1e.", max_size=4)) + text[end:]
    write_all(tmp_path, {name: text})
    loads_or_says_why(tmp_path)


@fuzz
@given(content=st.binary(max_size=60), name=st.sampled_from(list(FILES)))
def test_any_bytes(content: bytes, name: str, tmp_path: Path) -> None:
    write_all(tmp_path, {})
    (tmp_path / name).write_bytes(content)
    loads_or_says_why(tmp_path)
    check_file(tmp_path / name)


KEYS = st.sampled_from(
    [
        "cluster.engines.llm.replicas",
        "cluster.engines[0].batching.kind",
        "cluster.nodes[0].count",
        "cluster.nodes.dgx.devices.gpu.count",
        "cluster.engines.llm.parallel.tp",
        "cluster.engines.retriever.placement.cpu.cores",
        "workload.pipelines.rag.stages.decode.after",
        "workload.pipelines",
        "workload.traffic",
        "workload.traffic.arrivals.rate",
        "workload.traffic.trace.path",
        "workload.slo.ttft.p99",
        "workload.measure.warm_up",
    ]
)


@fuzz
@given(key=KEYS | st.text(max_size=20), value=VALUES.map(str) | st.text(max_size=20))
def test_any_override(key: str, value: str, tmp_path: Path) -> None:
    write_all(tmp_path, {})
    loads_or_says_why(tmp_path, f"{key}={value}")


@fuzz
@given(data=st.data(), shipped=st.sampled_from(SHIPPED))
def test_check_of_changed_shipped_files(data: st.DataObject, shipped: Path, tmp_path: Path) -> None:
    content = copy.deepcopy(read_yaml(shipped).data)
    mutate(content, data.draw)
    file = tmp_path / "file.yaml"
    file.write_text(dump_yaml(content), encoding="utf-8", errors="surrogatepass")
    assert all(str(problem) for problem in check_file(file))
