"""A served workload, replayed: Qwen3-14B on one H100 under vLLM 0.23, three Poisson rates. Nothing was fitted to it.

Source: inference-sim/residency-vllm (2641b576210e); 600 s each, about 986 prompt tokens, 128 forced output tokens,
8,192 batched tokens, 256 sequences. TTFT is measured at the client, ours ends with the engine's step: it lacks the
front end (tokenising, streaming), about 12 ms at the lowest rate.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from hermes_sim import Results, simulate

CLUSTER = {
    "name": "one_h100",
    "nodes": [{"name": "node", "devices": {"gpu": {"profile": "h100_sxm", "count": 1}}}],
    "engines": [
        {
            "name": "llm",
            "serves": ["prefill", "decode"],
            "model": "Qwen/Qwen3-14B",
            "placement": {"gpu": 1},
            "batching": {"kind": "chunked_prefill", "max_num_seqs": 256, "max_num_batched_tokens": 8192},
        }
    ],
}
RATES = ("sweep_tenants_1T_agg_2rps_vanilla", "sweep_tenants_3T_agg_6rps_vanilla", "sweep_tenants_5T_agg_10rps_vanilla")


def replay(measured: pd.DataFrame, folder: Path) -> Results:
    """The same requests at the same times."""
    trace = folder / "requests.csv"
    pd.DataFrame(
        {
            "arrival_s": (measured["send_us"] - measured["send_us"].min()) / 1e6,
            "num_prompt_tokens": measured["input_tokens"],
            "num_output_tokens": measured["output_tokens"],
        }
    ).to_csv(trace, index=False)
    return simulate(CLUSTER, {"name": "replay", "traffic": {"trace": {"format": "table", "path": str(trace)}}})


@pytest.mark.data
@pytest.mark.parametrize("name", RATES)
def test_latencies_of_a_served_model(name: str, data_folder: Path, tmp_path: Path) -> None:
    measured = pd.read_csv(data_folder / "serving" / "vllm_h100_qwen3_14b" / f"{name}.csv.gz").sort_values("send_us")
    requests = replay(measured, tmp_path).requests
    e2e_s = (measured["last_chunk_us"] - measured["send_us"]).mean() / 1e6
    ttft_s = (measured["first_chunk_us"] - measured["send_us"]).mean() / 1e6
    tpot_s = ((measured["last_chunk_us"] - measured["first_chunk_us"]) / (measured["output_tokens"] - 1)).mean() / 1e6
    errors = {
        "tpot": requests["tpot_s"].mean() / tpot_s - 1,
        "e2e": requests["e2e_s"].mean() / e2e_s - 1,
        "ttft": requests["ttft_s"].mean() / ttft_s - 1,
    }
    print(name, {metric: f"{error:+.1%}" for metric, error in errors.items()})  # noqa: T201
    assert abs(errors["tpot"]) < 0.08
    assert abs(errors["e2e"]) < 0.08
    assert -0.35 < errors["ttft"] < 0.05  # the front end is missing
