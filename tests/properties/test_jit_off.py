"""The program without its compiler is the same program: integers equal, times to the last few bits."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hermes_sim.core.compiled import jit_enabled
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim import simulate_scenario
from tests import scenarios as s
from tests.conftest import REPOSITORY

Columns = dict[str, npt.NDArray[Any]]

WRAPS_AROUND = "ignore:overflow encountered:RuntimeWarning"
"""Hashes count modulo 2**64, which NumPy's scalars remark upon."""

SMALL = {"max_num_seqs": 6, "max_num_batched_tokens": 96}

CASES: dict[str, tuple[s.Document, s.Document]] = {
    "retrieval beside it, preemption, priorities": (
        s.cluster(
            s.workers(["embed"], name="embedder"),
            s.workers(["retrieve"], name="retriever", num_workers=2),
            s.llm(
                replicas=2,
                kv_cache={"num_gpu_blocks": 60, "block_tokens": 4},
                batching={**SMALL, "queue_order": "priority", "full_sequence_gate": False},
            ),
            num_cpus=1,
            routing={"kind": "power_of_two_choices"},
        ),
        s.workload(
            s.EMBED,
            {**s.RETRIEVE, "tokens_per_document": 8},
            {**s.PREFILL, "after": ["retrieve"]},
            s.DECODE,
            traffic=s.traffic(rate="200 /s", num_requests=24, prompt=40, output=20),
        ),
    ),
    "drafts of other devices, ahead, samples": (
        s.cluster(
            s.llm(
                kv_cache={"num_gpu_blocks": 40, "block_tokens": 4},
                batching={**SMALL, "full_sequence_gate": False},
                speculative={
                    "num_draft_tokens": 3, "acceptance": {"kind": "constant", "rate": 0.8}, "adaptive": True,
                    "draft": {
                        "kind": "model", "model": "vicuna_68m", "on": {"device": "gpu", "count": 2},
                        "pre_drafting": {"kind": "all_accepted"}, "early_stop": {"wrong_caught": 0.5},
                    },
                },
            ),
        ),
        s.workload(
            s.PREFILL, {**s.DECODE, "num_samples": 2},
            traffic=s.traffic(rate="200 /s", num_requests=16, prompt=40, output=16),
        ),
    ),
    "disaggregated, with a pipeline": (
        s.cluster(
            s.llm("prefiller", serves=["prefill"], parallel={"pp": 2}, placement={"gpu": 2}, batching=SMALL),
            s.llm("decoder", serves=["decode"], kv_cache={"num_gpu_blocks": 40}, batching=SMALL),
        ),
        s.workload(traffic=s.traffic(rate="100 /s", num_requests=16, prompt=120, output=12)),
    ),
    "drafts, several samples, fair share, swap": (
        s.cluster(
            s.llm(
                kv_cache={"num_gpu_blocks": 60, "block_tokens": 4, "insert_at": "step_end"},
                batching={**SMALL, "queue_order": "fair_share", "full_sequence_gate": False, "preemption": "swap"},
                speculative={
                    "num_draft_tokens": 3, "acceptance": {"kind": "constant", "rate": 0.7}, "draft": {"kind": "ngram"},
                    "adaptive": True,
                },
            )
        ),
        s.workload(
            s.PREFILL,
            {**s.DECODE, "num_samples": 2},
            traffic={**s.traffic(rate="200 /s", num_requests=12, prompt=40, output=20), "clients": {"count": 3}},
        ),
    ),
    "asynchronous, radix, longest prefix": (
        s.cluster(
            s.llm(
                kv_cache={"num_gpu_blocks": 60, "block_tokens": 4, "prefix_cache": "radix", "insert_at": "step_end"},
                batching={**SMALL, "queue_order": "longest_prefix", "async_scheduling": True},
            )
        ),
        s.workload(
            traffic={
                **s.traffic(rate="200 /s", num_requests=16, prompt=40, output=20),
                "prefix": {"tokens": 24, "groups": 2},
            }
        ),
    ),
    "ranks in lockstep": (
        s.cluster(
            s.llm(
                parallel={"dp": 2}, placement={"gpu": 2}, kv_cache={"num_gpu_blocks": 60, "block_tokens": 4},
                batching={**SMALL, "kind": "decode_first"},
            )
        ),
        s.workload(traffic=s.traffic(rate="200 /s", num_requests=12, prompt=40, output=20)),
    ),
    "a search, and tools while which KV goes where it wastes least": (
        s.cluster(
            s.llm(kv_cache={"num_gpu_blocks": 60, "block_tokens": 4, "while_waiting": "auto"}, batching=SMALL),
            s.workers(["timed"]),
        ),
        s.workload(
            {"name": "search", "kind": "tree_search", "num_beams": 2, "width": 2, "rounds": 2, "num_output_tokens": 6},
            {**s.PREFILL, "after": ["search"]}, {**s.DECODE, "num_output_tokens": 5},
            {"name": "tool", "kind": "timed", "after": ["decode"], "service_time": {"kind": "fixed", "time": "20 ms"}},
            {**s.PREFILL, "name": "read", "after": ["tool"]}, {**s.DECODE, "name": "answer", "after": ["read"]},
            traffic=s.traffic(rate="200 /s", num_requests=8, prompt=40, output=12),
        ),
    ),
    "layered prefill": (
        s.cluster(s.llm(batching={**SMALL, "kind": "layered_prefill", "layer_group_tokens": 16})),
        s.workload(traffic=s.traffic(rate="200 /s", num_requests=10, prompt=60, output=12)),
    ),
    "static, padded": (
        s.cluster(
            s.llm("prefiller", serves=["prefill"], batching={**SMALL, "kind": "prepacked"}),
            s.llm("decoder", serves=["decode"], batching={**SMALL, "kind": "static"}),
        ),
        s.workload(traffic=s.traffic(rate="200 /s", num_requests=10, prompt=40, output=12)),
    ),
}  # fmt: skip


def run_all() -> dict[str, Columns]:
    """Every column of every table."""
    results = {}
    for case, (cluster, workload) in CASES.items():
        tables = simulate_scenario(load_scenario(cluster, workload))
        columns = {
            f"{name}.{column}": values
            for name in ("requests", "visits", "engines", "links", "operators", "timeline")
            for column, values in getattr(tables, name).items()
        }
        columns["itl_counts"] = tables.itl_counts
        columns["num_steps"] = np.array([tables.num_steps])
        columns["num_events"] = np.array([tables.num_events])
        results[case] = columns
    return results


def write_without_jit(path: str) -> None:
    """The child's part."""
    assert not jit_enabled()
    Path(path).write_bytes(pickle.dumps(run_all()))


def test_the_same_without_compiling(tmp_path: Path) -> None:
    compiled = run_all()
    assert compiled["retrieval beside it, preemption, priorities"]["requests.num_preemptions"].sum() > 0
    assert compiled["disaggregated, with a pipeline"]["links.num_transfers"].sum() > 0
    assert compiled["drafts, several samples, fair share, swap"]["engines.num_swapped_blocks"].sum() > 0
    path = tmp_path / "tables"
    subprocess.run(
        [
            *[sys.executable, "-W", "error::RuntimeWarning", "-W", WRAPS_AROUND],
            *["-c", f"from tests.properties.test_jit_off import write_without_jit; write_without_jit({str(path)!r})"],
        ],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(REPOSITORY)},
        cwd=REPOSITORY,
        check=True,
        timeout=120,
    )
    plain = pickle.loads(path.read_bytes())
    assert plain.keys() == compiled.keys()
    for case, columns in compiled.items():
        assert plain[case].keys() == columns.keys()
        for name, values in columns.items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(plain[case][name], values, rtol=1e-12, atol=0.0, err_msg=f"{case} {name}")
            else:
                np.testing.assert_array_equal(plain[case][name], values, err_msg=f"{case} {name}")
