"""Every problem of a file at once, in words, with line and key path."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest

from hermes_sim.core.errors import ConfigError
from hermes_sim.core.schema import Description
from hermes_sim.scenario.cluster import ClusterFile
from hermes_sim.scenario.validate import keys_of, validate
from hermes_sim.scenario.yaml_reader import parse_document
from tests.unit.scenario.files import Folder


def test_the_near_match_of_an_unknown_key(folder: Folder) -> None:
    found = folder.problems(("max_num_seqs: 256", "max_num_seq: 256"))
    assert found == ["cluster.yaml:16 engines[0].batching.max_num_seq: unknown key. Did you mean 'max_num_seqs'?"]


def test_the_near_match_of_an_unknown_kind(folder: Folder) -> None:
    assert folder.problems(("kind: ivf_pq", "kind: ivfpq")) == [
        "workload.yaml:15 pipelines[0].stages[1].index.kind: 'ivfpq' is not an index kind "
        "(diskann, flat, hnsw, ivf_flat, ivf_pq). Did you mean 'ivf_pq'?"
    ]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("  - name: llm\n", "  - nme: llm\n", "cluster.yaml:10 engines[0].name: is missing"),
        ("count: 8", "count: 0", "cluster.yaml:4 nodes[0].devices.gpu.count: must be >= 1, got 0"),
        ("count: 8", "count: 2.5", "cluster.yaml:4 nodes[0].devices.gpu.count: needs a whole number, got 2.5"),
        ("count: 8", "count: yes", "cluster.yaml:4 nodes[0].devices.gpu.count: needs a whole number, got 'yes'"),
        ("count: 8", "count: true", "cluster.yaml:4 nodes[0].devices.gpu.count: needs a number, got true"),
        (
            "profile: nvlink3",
            "profile: 3",
            "cluster.yaml:6 nodes[0].links[0].profile: needs text, got 3; put it in quotes",
        ),
        ("[gpu, gpu]", "[gpu]", "cluster.yaml:6 nodes[0].links[0].between[1]: is missing"),
        ("serves: [prefill, decode]", "serves: []", "cluster.yaml:11 engines[0].serves: needs at least 1 entry, got 0"),
        (
            "name: llm\n",
            "name: my llm\n",
            "cluster.yaml:10 engines[0].name: 'my llm' is not a name (a letter, then letters, digits, _ and -)",
        ),
        ("parallel: {tp: 4}", "parallel: 4", "cluster.yaml:15 engines[0].parallel: needs a mapping of keys, got 4"),
        (
            "placement: {gpu: 4}",
            "placement: {gpu: 0}",
            "cluster.yaml:14 engines[0].placement.gpu.devices: must be >= 1, got 0",
        ),
        (
            "rate: 4 /s",
            "rate: 4",
            "workload.yaml:3 traffic.arrivals.rate: 4 has no unit: needs a rate with a unit (/s, /min, /h, requests/s)",
        ),
        (
            "p99: 2 s",
            "p99: 2 sec",
            "workload.yaml:18 slo.ttft.p99: 'sec' is not a unit of time (ns, us, ms, s, min, h, d). Did you mean 's'?",
        ),
        (
            "p99: 2 s",
            "p98: 2 s",
            "workload.yaml:18 slo.ttft.p98: 'p98' is not allowed; "
            "one of: mean, p50, p90, p95, p99. Did you mean 'p99'?",
        ),
        (
            "kind: poisson, ",
            "",
            "workload.yaml:3 traffic.arrivals.kind: is missing; one of: "
            "constant, uniform, normal, poisson, gamma, mmpp, on_off, diurnal, replay",
        ),
        (
            "nprobe: 32",
            "nprobe: 99999",
            "workload.yaml:15 pipelines[0].stages[1].index: nprobe 99999 is more than nlist 65536",
        ),
    ],
)
def test_one_problem(folder: Folder, old: str, new: str, problem: str) -> None:
    assert problem in folder.problems((old, new))


def test_all_problems_of_both_files_come_together(folder: Folder) -> None:
    found = folder.problems(
        ("profile: nvlink3", "profle: nvlink3"),
        ("replicas: 2", "replicas: two"),
        ("tokens_per_document: 256", "tokens_per_document: -1"),
        ("p99: 50 ms", "p99: 50"),
    )
    assert [line.split(" ")[0] for line in found] == [
        "cluster.yaml:6",
        "cluster.yaml:6",
        "cluster.yaml:13",
        "workload.yaml:14",
        "workload.yaml:18",
    ]


def test_an_unknown_key_without_a_near_match_lists_the_known_ones(folder: Folder) -> None:
    (found,) = folder.problems(("name: two", "zzz: 1\nname: two"))
    assert found == f"cluster.yaml:1 zzz: unknown key; known here: {', '.join(keys_of(ClusterFile))}"


class Left(Description):
    kind: Literal["left"] = "left"
    x: int


class Right(Description):
    kind: Literal["right"] = "right"
    y: int


class Plain(Description):
    """Unions that are not made by one_of."""

    side: Left | Right | None = None
    sides: dict[str, Annotated[tuple[Left | Right, ...], "note"]] = {}  # noqa: RUF012


def test_members_of_any_union_stay_out_of_the_path() -> None:
    document = parse_document("side: {kind: left, z: 1}\nsides: {a: [{kind: right, y: q}]}", "f.yaml")
    with pytest.raises(ConfigError) as caught:
        validate(Plain, document)
    assert {problem.key for problem in caught.value.problems} == {
        "side.x", "side.z", "side.kind", "side.y", "sides.a[0].y", "sides.a[0].kind", "sides.a[0].x",
    }  # fmt: skip
