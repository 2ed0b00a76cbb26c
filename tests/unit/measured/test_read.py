"""Tables of every origin come out in one form, and what cannot be read is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hermes_sim.core.errors import ConfigError
from hermes_sim.measured import read_kernels
from tests.unit.measured.folders import attention_rows, gemm_rows, layer_rows, write


def test_names_and_units_of_a_product(tmp_path: Path) -> None:
    write(tmp_path, "kernels/aiconfigurator/h100_sxm_vllm_gemm.parquet", gemm_rows(1))
    row = read_kernels(tmp_path)["gemm"].iloc[0]
    assert (row["device"], row["engine"], row["engine_version"]) == ("h100_sxm", "vllm", "0.24.0")
    assert (row["dtype"], row["timing"], row["m"], row["n"], row["k"]) == ("bf16", "graph", 32, 4096, 1024)
    assert row["measured_s"] == pytest.approx(1e-5)
    assert row["source_file"] == "kernels/aiconfigurator/h100_sxm_vllm_gemm.parquet"


def test_a_renamed_file_is_known_by_its_columns(tmp_path: Path) -> None:
    write(tmp_path, "somewhere/L40S-run7.parquet", gemm_rows())
    table = read_kernels(tmp_path)["gemm"]
    assert set(table["device"]) == {"l40s"}
    assert len(table) == 4


def test_an_unknown_device_keeps_its_text(tmp_path: Path) -> None:
    write(tmp_path, "kernels/quantum9_vllm_gemm.parquet", gemm_rows())
    assert set(read_kernels(tmp_path)["gemm"]["device"]) == {"quantum9"}


def test_prompts_and_decodes_of_the_same_columns(tmp_path: Path) -> None:
    write(tmp_path, "a100_vllm_one.parquet", attention_rows(1, 127))
    write(tmp_path, "a100_vllm_two.parquet", attention_rows(512, 0))
    tables = read_kernels(tmp_path)
    assert set(tables["attention_decode"]["context_tokens"]) == {128.0}
    assert set(tables["attention_prefill"]["new_tokens"]) == {512}
    assert set(tables["attention_prefill"]["kv_dtype"]) == {"fp8"}


def test_repeats_become_their_median(tmp_path: Path) -> None:
    repeats = pd.concat([gemm_rows(1)] * 3, ignore_index=True).assign(latency_ms=[0.3, 0.1, 0.2])
    write(tmp_path, "h100_vllm_gemm.parquet", repeats)
    table = read_kernels(tmp_path)["gemm"]
    assert table["measured_s"].tolist() == pytest.approx([2e-4])


def test_shapes_of_a_layer_are_one_devices_share(tmp_path: Path) -> None:
    write(tmp_path, "kernels/vidur/mlp_a100_Llama-2-7b-hf.csv.gz", layer_rows())
    tables = read_kernels(tmp_path)
    qkv = tables["gemm"][tables["gemm"]["part"] == "qkv"].iloc[0]
    assert (qkv["m"], qkv["n"], qkv["k"], qkv["tp"]) == (128, 3 * 4096 // 2, 4096, 2)
    assert (qkv["device"], qkv["model"]) == ("a100_sxm_80gb", "llama_2_7b")
    activation = tables["stream"][tables["stream"]["part"] == "activation"].iloc[0]
    assert activation["num_bytes"] == 256 * 3 * 5504 * 2


def test_empty_cells_and_zeros_are_counted_not_dropped(tmp_path: Path) -> None:
    write(tmp_path, "mlp.csv", layer_rows())
    skipped = {(skip.operator, skip.num_rows) for skip in read_kernels(tmp_path).skipped}
    assert skipped == {("mlp_act_ms", 1), ("mlp_down_proj_ms", 1)}


def test_messages_of_nccl_are_counted_in_elements(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {
            "version": "2.29.2",
            "op_name": ["all_gather", "alltoall"],
            "kernel_source": "NCCL",
            "nccl_dtype": ["half", "int8"],
            "num_gpus": 8,
            "message_size": 1024,
            "latency_ms": 0.02,
        }
    )
    write(tmp_path, "h200_sxm_nccl_nccl.parquet", rows)
    tables = read_kernels(tmp_path)
    assert tables["all_gather"]["num_bytes"].tolist() == [2048.0]
    assert tables["all_to_all"]["num_bytes"].tolist() == [1024.0]
    assert set(tables["all_gather"]["library"]) == {"nccl"}


def test_eager_and_captured_all_reduces_are_told_apart(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {
            "version": "0.24.0",
            "kernel_source": ["vLLM_custom_graph", "vLLM_custom_eager"],
            "allreduce_dtype": "bfloat16",
            "num_gpus": 4,
            "message_size": 128,
            "latency_ms": [0.005, 0.04],
            "backend": ["vllm_graph", "vllm_eager"],
        }
    )
    write(tmp_path, "b200_sxm_vllm_custom_allreduce.parquet", rows)
    table = read_kernels(tmp_path)["all_reduce"]
    assert table.set_index("timing")["measured_s"].to_dict() == pytest.approx({"graph": 5e-6, "eager": 4e-5})
    assert set(table["num_bytes"]) == {256.0}


def test_an_older_attention_table_of_a_gpu_counts_the_batchs_cache(tmp_path: Path) -> None:
    """1,024 tokens of 8 sequences: 128 each, the new one included; 8 tokens of 16 sequences: nothing to attend to."""
    rows = pd.DataFrame(
        {
            "is_prefill": [True, False, False],
            "batch_size": [1, 8, 16],
            "prefill_chunk_size": [256, 0, 0],
            "kv_cache_size": [1024, 1024, 8],
            "n_q_head": 32,
            "n_kv_head": 8,
            "us": [20.0, 10.0, 3.0],
        }
    )
    write(tmp_path, "v0/H100_Llama-3.1-8B_tp2_attention.csv.gz", rows)
    tables = read_kernels(tmp_path)
    decode, prompt = tables["attention_decode"].iloc[0], tables["attention_prefill"].iloc[0]
    assert (decode["context_tokens"], decode["num_heads"], decode["num_kv_heads"]) == (128.0, 16, 4)
    assert (prompt["new_tokens"], prompt["history_tokens"]) == (256, 768)
    assert sum(skip.num_rows for skip in tables.skipped) == 1


@pytest.mark.parametrize("repeats", [None, 5])
def test_a_skew_row_is_three_measurements(tmp_path: Path, repeats: int | None) -> None:
    """Each of them the sum of the profiler's repeats: three, or as many as the notes beside it say."""
    if repeats is not None:
        notes = {"RTX4090_Llama-3.1-8B": {"model": "meta-llama/Llama-3.1-8B", "measurement_iterations": repeats}}
        (tmp_path / "meta.json").write_text(json.dumps(notes))
    row = {"n": 4, "nb": 1, "skew": 4.0, "pc": 0, "kp": 0, "kvs": 128, "kv_big": 512, "kv_mean": 224}
    times = {"t_mean_us": 10.0, "t_max_us": 20.0, "t_skew_us": 12.0}
    write(tmp_path, "RTX4090_Llama-3.1-8B_tp1_skew.csv", pd.DataFrame([row | times]))
    table = read_kernels(tmp_path)["attention_decode"]
    found = {
        (mean, longest): seconds
        for mean, longest, seconds in zip(
            table["context_tokens"], table["max_context_tokens"], table["measured_s"], strict=True
        )
    }
    calls = {(225.0, 225.0): 1e-5, (513.0, 513.0): 2e-5, (225.0, 513.0): 1.2e-5}
    assert found == pytest.approx({contexts: seconds / (repeats or 3) for contexts, seconds in calls.items()})


def test_a_model_that_nobody_knows_is_counted(tmp_path: Path) -> None:
    rows = pd.DataFrame({"layer": ["o_proj"], "tokens": [16], "time_us": [9.0]})
    write(tmp_path, "RTX4090_NoSuchModel_tp1_dense.csv", rows)
    tables = read_kernels(tmp_path)
    assert not tables
    assert [skip.num_rows for skip in tables.skipped] == [1]


def test_a_model_that_only_the_folder_knows(tmp_path: Path) -> None:
    config = '{"my/Tiny-1B": {"model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 2, ' + (
        '"num_attention_heads": 16, "num_key_value_heads": 4, "intermediate_size": 4096, "vocab_size": 1000, '
        '"max_position_embeddings": 4096, "tie_word_embeddings": false, "torch_dtype": "bfloat16"}}'
    )
    (tmp_path / "architectures.json").write_text(config)
    rows = pd.DataFrame({"layer": ["o_proj", "gate_up_proj"], "tokens": 16, "time_us": 9.0})
    write(tmp_path, "H100_Tiny-1B_tp2_dense.csv", rows)
    table = read_kernels(tmp_path)["gemm"]
    assert table.set_index("part")[["n", "k"]].to_dict("index") == {
        "out": {"n": 2048, "k": 1024},
        "gate_up": {"n": 4096, "k": 2048},
    }


class TestPublicFormat:
    def test_defaults_are_filled_in(self, tmp_path: Path) -> None:
        rows = pd.DataFrame(
            {"operator": "gemm", "device": "H100", "measured_s": 1e-5, "m": 1, "n": 2, "k": 3}, index=[0]
        )
        write(tmp_path, "mine.csv", rows)
        row = read_kernels(tmp_path)["gemm"].iloc[0]
        assert (row["device"], row["dtype"], row["timing"], row["tp"]) == ("h100_sxm", "bf16", "", 1)

    def test_one_file_may_hold_several_operators(self, tmp_path: Path) -> None:
        rows = [
            {"operator": "gemm", "m": 1, "n": 2, "k": 3},
            {"operator": "attention_decode", "num_seqs": 2, "context_tokens": 64.0, "num_heads": 8, "num_kv_heads": 2,
             "head_dim": 64},
        ]  # fmt: skip
        write(tmp_path, "mine.csv", pd.DataFrame(rows).assign(device="l40s", measured_s=1e-5))
        tables = read_kernels(tmp_path)
        assert set(tables) == {"gemm", "attention_decode"}
        assert tables["attention_decode"]["max_context_tokens"].tolist() == [64.0]
        assert not tables.problems

    def test_a_missing_column_and_an_unknown_operator_are_named(self, tmp_path: Path) -> None:
        rows = pd.DataFrame({"operator": ["gemm", "gem"], "device": "l40s", "measured_s": 1e-5, "m": 4, "n": 4})
        write(tmp_path, "mine.csv", rows)
        problems = [str(problem) for problem in read_kernels(tmp_path).problems]
        assert any("mine.csv row 1 operator" in problem and "'gem'" in problem for problem in problems)
        assert any("k" in problem and "gemm" in problem for problem in problems)


class TestProblems:
    def test_a_renamed_time_is_missed_in_this_format(self, tmp_path: Path) -> None:
        """It shares more columns with tables of other origins, but names its operators."""
        (tmp_path / "mine.csv").write_text("operator,device,m,n,k,dtype,time_s\ngemm,mine,32,64,64,bf16,1e-5\n")
        (problem,) = read_kernels(tmp_path).problems
        assert problem.reason == "no column measured_s, which a table of the layout 'public format' has"

    def test_a_malformed_row_is_named_and_the_others_stay(self, tmp_path: Path) -> None:
        rows = layer_rows().astype({"num_tokens": object})
        rows.loc[1, "num_tokens"] = "many"
        write(tmp_path, "mlp.csv", rows)
        tables = read_kernels(tmp_path)
        assert [(p.file, p.row, p.column) for p in tables.problems] == [("mlp.csv", 1, "num_tokens")]
        assert "'many'" in str(tables.problems[0])
        assert set(tables["gemm"]["m"]) == {128}

    @pytest.mark.parametrize("value", [np.nan, 0.0, -1.0, np.inf])
    def test_a_time_has_to_be_above_zero(self, tmp_path: Path, value: float) -> None:
        rows = gemm_rows(3)
        rows.loc[2, "latency_ms"] = value
        write(tmp_path, "h100_vllm_gemm.parquet", rows)
        tables = read_kernels(tmp_path)
        assert [(p.row, p.column) for p in tables.problems] == [(2, "latency_ms")]
        assert len(tables["gemm"]) == 2

    def test_a_line_with_too_many_fields(self, tmp_path: Path) -> None:
        path = write(tmp_path, "RTX4090_Llama-3.1-8B_tp1_dense.csv",
                     pd.DataFrame({"layer": "o_proj", "tokens": [1, 2, 3], "time_us": 5.0}))  # fmt: skip
        lines = path.read_text().splitlines()
        lines[2] += ",9,9"
        path.write_text("\n".join(lines) + "\n")
        tables = read_kernels(tmp_path)
        assert [(p.row, p.reason) for p in tables.problems] == [(1, "has 5 fields, the header 3")]
        assert tables["gemm"]["m"].tolist() == [1, 3]

    def test_missing_columns_are_named(self, tmp_path: Path) -> None:
        write(tmp_path, "h100_vllm_gemm.parquet", gemm_rows().drop(columns="k"))
        (problem,) = read_kernels(tmp_path).problems
        assert problem.file == "h100_vllm_gemm.parquet"
        assert "k" in problem.reason

    def test_broken_files_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
        whole = gzip.compress(layer_rows().to_csv(index=False).encode() * 50)
        (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
        problems = read_kernels(tmp_path).problems
        assert {problem.file for problem in problems} == {"cut.parquet", "cut.csv.gz"}
        assert all(problem.row is None for problem in problems)

    def test_many_malformed_rows_are_counted(self, tmp_path: Path) -> None:
        rows = pd.concat([gemm_rows(4)] * 25, ignore_index=True).assign(m=0)
        write(tmp_path, "h100_vllm_gemm.parquet", rows)
        tables = read_kernels(tmp_path)
        assert tables.num_malformed == 100
        assert len(tables.problems) == 21

    def test_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no such folder"):
            read_kernels(tmp_path / "nowhere")


class TestNarrowed:
    def test_by_operator_device_and_engine(self, tmp_path: Path) -> None:
        for name in ("h100_sxm_vllm_gemm", "h100_sxm_trtllm_gemm", "l40s_vllm_gemm"):
            write(tmp_path, f"{name}.parquet", gemm_rows())
        write(tmp_path, "h100_sxm_vllm_context_attention.parquet", attention_rows(64, 0))
        tables = read_kernels(tmp_path, operators=["gemm"], devices=["H100"], engines=["vllm"])
        assert set(tables) == {"gemm"}
        assert set(tables["gemm"]["source_file"]) == {"h100_sxm_vllm_gemm.parquet"}
        assert tables.num_files == 1


@pytest.mark.data
def test_all_shipped_tables_are_read(data_folder: Path) -> None:
    """One device of it: every file has a known layout, no row is malformed, every operator is there."""
    tables = read_kernels(data_folder, devices=["h100_sxm", "rtx_4090"])
    assert not tables.problems
    assert {"gemm", "attention_prefill", "attention_decode", "moe", "all_reduce", "stream", "mla_decode"} <= set(tables)
    for table in tables.values():
        assert (table["measured_s"] > 0.0).all()
        assert not table.isna().drop(columns="num_active_experts", errors="ignore").any(axis=None)
    gathers = tables["all_gather"]
    received = gathers["num_bytes"] * (1.0 - 1.0 / gathers["num_devices"])
    assert 200e9 < (received / gathers["measured_s"]).max() < 450e9  # one direction of NVLink 4


def older_layers(folder: Path, name: str, *parts: str) -> pd.DataFrame:
    table = pd.DataFrame({"layer_name": parts, "input": 64, "kv_cache": 0, "tp_size": 1, "ns": 5000.0})
    write(folder, f"{name}_layers.csv.gz", table)
    return read_kernels(folder)["stream"].set_index("kernel")


def test_modules_of_transformers_are_chains_of_kernels(tmp_path: Path) -> None:
    """Hidden 4096, 32 and 8 heads of 128, width 14336, in 16 bits; the last norm is one like the others."""
    found = older_layers(tmp_path, "H100_Llama-3.1-8B_tp1", "input_layernorm", "final_layernorm", "rope", "act_fn")
    assert found["num_bytes"].to_dict() == {
        "unfused_norm": 64 * 4096 * 36, "unfused_rope": 64 * 5120 * 20, "unfused_activation": 64 * 14336 * 10
    }  # fmt: skip


def test_a_compiler_fuses_them_and_a_layer_norm_is_one_kernel(tmp_path: Path) -> None:
    found = older_layers(tmp_path / "a", "TPU-v6e-1_Llama-3.1-8B_tp1", "input_layernorm", "rope")
    assert found["num_bytes"].to_dict() == {"norm": 64 * 4096 * 4, "rope": 64 * 5120 * 4}
    found = older_layers(tmp_path / "b", "A6000_Phi-mini-MoE-instruct_tp1", "input_layernorm")
    assert found["num_bytes"].to_dict() == {"norm": 64 * 4096 * 4}


def test_experts_of_modules_are_whole_whatever_the_degree(tmp_path: Path) -> None:
    found = older_layers(tmp_path, "H100_Mixtral-8x7B-v0.1_tp4", "act_fn")
    assert found["num_bytes"].to_dict() == {"unfused_activation": 64 * 14336 * 10}
