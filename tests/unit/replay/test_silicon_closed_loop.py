"""Closed-loop serving tables: what a row says, which rows draft, which engine it becomes, and what a replay gives."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from hermes_sim.core.errors import Problem
from hermes_sim.replay.closed_loop import READER
from hermes_sim.replay.closed_loop_models import UnknownModelError, is_fitted, library_model, serving_model
from hermes_sim.replay.closed_loop_setup import (
    SetupError,
    board_of,
    cluster_of,
    kv_dtype,
    library_device,
    max_num_batched_tokens,
    preset_of,
)
from hermes_sim.replay.experiment import Comparison, Unexpressed, replay_folder
from hermes_sim.replay.silicon_drafts import drafting_rows
from hermes_sim.replay.silicon_table import Layout, ServingRun, read_silicon_table
from hermes_sim.replay.silicon_twins import with_stated_layouts

HEADER = (
    "id,origin,image,backend,backend_version,model_path,system,precision,isl,osl,concurrency,gemm_quant_mode,"
    "moe_quant_mode,batch_size,tp_size,pp_size,attention_dp_size,moe_tp_size,moe_ep_size,silicon_ttft_ms,silicon_tpot_ms"
)
LLAMA = "a,InferenceX,,vllm,0.15.1,meta-llama/Llama-3.1-8B,h100_sxm,fp8,128,64,2,fp8,fp8,2,1,1,1,1,1,20,5"


def write(folder: Path, *rows: str, name: str = "any name.csv") -> Path:
    path = folder / name
    text = "\n".join([HEADER, *rows, ""])
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def row(**changed: str) -> str:
    values = dict(zip(HEADER.split(","), LLAMA.split(","), strict=True))
    return ",".join((values | changed).values())


def read(folder: Path, *rows: str) -> list[ServingRun | Problem]:
    return list(read_silicon_table(write(folder, *rows), "table"))


def one(folder: Path, **changed: str) -> ServingRun:
    found = read(folder, row(**changed))[0]
    assert isinstance(found, ServingRun)
    return found


class TestLayouts:
    def test_as_stated(self, tmp_path: Path) -> None:
        run = one(tmp_path, tp_size="4", moe_tp_size="1", moe_ep_size="4")
        assert run.engines == (Layout(tp=4, pp=1, dp=1, ep=4, num_workers=None),)

    @pytest.mark.parametrize(
        ("tp", "dp", "degree", "expected"),
        [("64", "1", "8", (8, 1, 8)), ("16", "1", "4", (4, 1, 4)), ("1", "64", "8", (1, 8, 8))],
    )
    def test_a_degree_that_was_multiplied_with_itself(
        self, tmp_path: Path, tp: str, dp: str, degree: str, expected: tuple[int, int, int]
    ) -> None:
        run = one(tmp_path, tp_size=tp, attention_dp_size=dp, moe_tp_size=degree, moe_ep_size=degree)
        assert (run.engines[0].tp, run.engines[0].dp, run.engines[0].ep) == expected

    def test_experts_cut_both_ways_stay(self, tmp_path: Path) -> None:
        run = one(tmp_path, tp_size="8", moe_tp_size="2", moe_ep_size="4")
        assert run.engines[0].num_devices == 8

    def test_ranks_follow_from_the_batch_of_one(self, tmp_path: Path) -> None:
        stated = {"tp_size": "8", "moe_ep_size": "8", "attention_dp_size": "", "concurrency": "64", "batch_size": "8"}
        layout = one(tmp_path, **stated).engines[0]
        assert (layout.tp, layout.dp, layout.ep) == (1, 8, 8)


class TestMalformedRows:
    @pytest.mark.parametrize(
        ("column", "value", "told"),
        [
            ("concurrency", "many", "needs a number, got 'many'"),
            ("silicon_tpot_ms", "-3", "needs a number above 0"),
            ("isl", "10.5", "needs a whole number"),
            ("silicon_ttft_ms", "", "is empty"),
            ("system", "", "needs a name"),
        ],
    )
    def test_each_is_named_and_the_others_are_read(self, tmp_path: Path, column: str, value: str, told: str) -> None:
        good, bad = read(tmp_path, LLAMA, row(id="the bad one", **{column: value}))
        assert isinstance(good, ServingRun)
        assert isinstance(bad, Problem)
        assert (bad.line, bad.key) == (3, column)
        assert told in bad.message
        assert "the bad one" in bad.message


class TestDrafts:
    def test_the_fast_one_of_two_equal_setups(self, tmp_path: Path) -> None:
        rows = [row(id=f"{ms}", silicon_tpot_ms=ms) for ms in ("10", "9.5", "6")]
        runs = [run for run in read(tmp_path, *rows) if isinstance(run, ServingRun)]
        assert drafting_rows(runs) == {2}

    def test_another_load_is_another_setup(self, tmp_path: Path) -> None:
        rows = [row(silicon_tpot_ms="10"), row(silicon_tpot_ms="5", concurrency="1")]
        runs = [run for run in read(tmp_path, *rows) if isinstance(run, ServingRun)]
        assert drafting_rows(runs) == set()

    def test_the_rest_of_a_drafting_session(self, tmp_path: Path) -> None:
        rows = [
            row(silicon_tpot_ms="10", image="plain"),
            row(silicon_tpot_ms="5", image="drafts"),
            row(silicon_tpot_ms="7", image="drafts", concurrency="8"),
            row(silicon_tpot_ms="12", image="plain", concurrency="16"),
        ]
        runs = [run for run in read(tmp_path, *rows) if isinstance(run, ServingRun)]
        assert drafting_rows(runs) == {1, 2}


class TestModels:
    def test_quantised_as_the_row_says(self) -> None:
        model = serving_model("meta-llama/Llama-3.1-70B", "fp8", "fp8", "fp8", library_device("h200_sxm"))
        assert model.quantization is not None
        assert model.quantization.weight_dtype == model.quantization.compute_dtype == "fp8"
        assert set(model.quantization.parts) == {"attention", "mlp"}

    def test_four_bits_are_widened_where_the_device_has_none(self) -> None:
        for device, dtype in (("b200_sxm", "fp4"), ("h100_sxm", "bf16")):
            model = serving_model("meta-llama/Llama-3.1-8B", "fp4", "nvfp4", "nvfp4", library_device(device))
            assert model.quantization is not None
            assert (model.quantization.weight_dtype, model.quantization.compute_dtype) == ("fp4", dtype)

    def test_a_checkpoint_of_another_publisher(self) -> None:
        model = serving_model("nvidia/DeepSeek-R1-NVFP4", "fp4", "nvfp4", "nvfp4", library_device("b200_sxm"))
        assert is_fitted(model)
        assert model.quantization is not None
        assert "attention" not in model.quantization.parts

    def test_an_unknown_one(self) -> None:
        with pytest.raises(UnknownModelError, match="no model 'nobody/Nothing'"):
            library_model("nobody/Nothing")

    def test_sides(self) -> None:
        assert is_fitted(library_model("deepseek-ai/DeepSeek-R1"))
        assert is_fitted(library_model("meta-llama/Llama-3.1-8B-Instruct"))
        assert not is_fitted(library_model("meta-llama/Llama-3.1-70B"))


class TestEngines:
    def test_prefill_and_decode_get_nodes_of_their_own(self, tmp_path: Path) -> None:
        layouts = (Layout(1, 1, 8, 8, 2), Layout(4, 1, 1, 1, 3))
        run = ServingRun(
            row="r", model="deepseek-ai/DeepSeek-R1", system="h200_sxm", backend="sglang", precision="fp8",
            gemm_mode="fp8", moe_mode="fp8_block", isl=1024, osl=64, concurrency=8, engines=layouts, ttft_s=1.0,
            tpot_s=0.01, is_drawn=True, series=(),
        )  # fmt: skip
        model = serving_model(run.model, "fp8", "fp8", "fp8_block", library_device("h200_sxm"))
        cluster = cluster_of(run, model)
        assert [(node.name, node.count, node.devices["gpu"].count) for node in cluster.nodes] == [
            ("prefill", 2, 8),
            ("decode", 3, 4),
        ]
        assert [(e.serves, e.replicas, e.parallel.num_devices) for e in cluster.engines] == [
            (("prefill",), 2, 8),
            (("decode",), 3, 4),
        ]

    def test_a_whole_prompt_fits_a_step_beside_all_decodes(self, tmp_path: Path) -> None:
        run = one(tmp_path, isl="8192", concurrency="100", backend="trtllm")
        assert max_num_batched_tokens("trtllm", library_device("h100_sxm"), run) >= 8192 + 100

    def test_the_cache_is_as_narrow_as_the_matrices(self) -> None:
        h200 = library_device("h200_sxm")
        narrow = serving_model("meta-llama/Llama-3.1-70B", "fp8", "fp8", "fp8", h200)
        wide = serving_model("meta-llama/Llama-3.1-70B", "bf16", "", "", h200)
        assert (kv_dtype("vllm_v1", narrow, h200), kv_dtype("vllm_v1", wide, h200)) == ("fp8", "bf16")

    def test_boards(self) -> None:
        assert board_of("h200_sxm").num_devices == 8
        with pytest.raises(SetupError, match="abacus"):
            board_of("abacus")
        with pytest.raises(SetupError, match="no preset for the engine 'mystery'"):
            preset_of("mystery")


class TestReplay:
    def test_a_folder_with_any_names(self, tmp_path: Path) -> None:
        inner = tmp_path / "deep" / "er"
        inner.mkdir(parents=True)
        (tmp_path / "unrelated.csv").write_text("a,b\n1,2\n")
        write(inner, LLAMA, row(id="b", system="abacus"), row(id="c", isl="no"), name="x.csv.gz")
        replays = replay_folder(tmp_path, only="closed_loop")
        assert {(c.table, c.row, c.metric, c.side) for c in replays.comparisons} == {
            ("deep/er/x.csv.gz", "a", "ttft_mean_s", "fitted"),
            ("deep/er/x.csv.gz", "a", "tpot_mean_s", "fitted"),
        }
        assert [(u.row, "abacus" in u.reason) for u in replays.unexpressed] == [("b", True)]
        assert [problem.key for problem in replays.problems] == ["isl"]
        assert all(0.0 < c.predicted < 1.0 for c in replays.comparisons)

    def test_engines_apart_need_their_number(self, tmp_path: Path) -> None:
        header = HEADER.replace("tp_size,pp_size", "prefill_tp_size,decode_tp_size").replace(",moe_tp_size", ",x")
        values = LLAMA.replace(",2,1,1,1,1,1,20,5", ",2,1,1,1,1,1,20,5")
        (tmp_path / "t.csv").write_text(f"{header}\n{values}\n")
        found = list(READER.replay(tmp_path / "t.csv", "t"))
        assert [isinstance(one, Unexpressed) and "workers are not stated" in one.reason for one in found] == [True]

    def test_drafting_rows_are_predicted_but_do_not_count(self, tmp_path: Path) -> None:
        write(tmp_path, row(id="slow", silicon_tpot_ms="10"), row(id="fast", silicon_tpot_ms="5"))
        found = [c for c in replay_folder(tmp_path, only="closed_loop").comparisons if isinstance(c, Comparison)]
        assert {c.row for c in found if c.left_out is None} == {"slow"}
        assert {c.row for c in found if c.left_out is not None} == {"fast"}


class TestRowsOfOneMeasurement:
    HEADER = HEADER.replace(
        "tp_size,pp_size,attention_dp_size,moe_tp_size,moe_ep_size",
        "prefill_num_workers,prefill_tp_size,decode_num_workers,decode_tp_size,decode_moe_ep_size",
    )
    STATED = "stated,InferenceX,,trtllm,1,deepseek-ai/DeepSeek-V3,h200_sxm,fp8,64,8,2,fp8,fp8,,1,8,2,8,8,20.5,5.25"
    SILENT = "silent,export,,trtllm,1,deepseek-ai/DeepSeek-R1,h200_sxm,fp8,64,8,2,fp8,fp8,,,4,,4,1,20.5,5.25"
    ANOTHER = SILENT.replace("silent", "another").replace("20.5", "20.6")

    def runs(self, folder: Path) -> list[ServingRun]:
        path = folder / "t.csv"
        path.write_text("\n".join([self.HEADER, self.SILENT, self.ANOTHER, self.STATED, ""]))
        return [run for run in read_silicon_table(path, "t") if isinstance(run, ServingRun)]

    def test_the_layout_of_the_one_that_states_it_holds_for_all(self, tmp_path: Path) -> None:
        silent, another, stated = with_stated_layouts(self.runs(tmp_path))
        assert silent.engines == stated.engines == (Layout(8, 1, 1, 1, 1), Layout(8, 1, 1, 8, 2))
        assert silent.model == "deepseek-ai/DeepSeek-R1"
        assert [layout.num_workers for layout in another.engines] == [None, None]

    def test_engines_apart_are_in_no_fit(self, tmp_path: Path) -> None:
        self.runs(tmp_path)
        found = list(READER.replay(tmp_path / "t.csv", "t"))
        sides = {(one.row, one.side) for one in found if isinstance(one, Comparison)}
        assert sides == {("silent", "held_out"), ("stated", "held_out")}
        assert [one.row for one in found if isinstance(one, Unexpressed)] == ["another"]
        assert is_fitted(library_model("deepseek-ai/DeepSeek-V3"))
