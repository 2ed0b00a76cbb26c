"""Tables by their columns, bad rows by name, names as measurements write them."""

import gzip
from pathlib import Path

import pytest

from hermes_sim.replay.known_names import UnknownName, device_name, model_name
from hermes_sim.replay.rows import NUMBER, POSITIVE, TEXT, columns_of, read_rows, tables_with
from hermes_sim.replay.served_engine import ServedEngine, engine_version


class TestRows:
    def test_a_bad_row_is_named_and_the_others_go_on(self, tmp_path: Path) -> None:
        table = tmp_path / "any.csv"
        table.write_text("rate,name\n1,a\nfast,b\n-2,c\n3,\n4,e\n")
        rows, problems = read_rows(table, "any.csv", {"rate": POSITIVE, "name": TEXT})
        assert rows["rate"].tolist() == [1.0, 4.0]
        assert rows["line"].tolist() == [2, 6]
        assert [str(problem) for problem in problems] == [
            "any.csv:3 rate: must be a number above zero, got 'fast'",
            "any.csv:4 rate: must be a number above zero, got '-2'",
            "any.csv:5 name: must be text, got ''",
        ]

    def test_an_optional_cell_may_be_empty_but_not_wrong(self, tmp_path: Path) -> None:
        table = tmp_path / "any.csv"
        table.write_text("rate,power\n1,\n2,x\n")
        rows, problems = read_rows(table, "any.csv", {"rate": NUMBER}, {"power": NUMBER, "absent": NUMBER})
        assert rows["rate"].tolist() == [1.0]
        assert [problem.line for problem in problems] == [3]

    def test_tables_are_found_by_columns_in_any_folder_under_any_name(self, tmp_path: Path) -> None:
        (tmp_path / "deep").mkdir()
        with gzip.open(tmp_path / "deep" / "renamed.csv.gz", "wt") as file:
            file.write("b,a,c\n1,2,3\n")
        (tmp_path / "other.csv").write_text("a,c\n1,2\n")
        (tmp_path / "empty.csv").write_text("")
        (tmp_path / "torn.csv.gz").write_bytes(b"\x1f\x8b\x08")
        assert [path.name for path in tables_with(tmp_path, ("a", "b"))] == ["renamed.csv.gz"]
        assert columns_of(tmp_path / "torn.csv.gz") == frozenset()


class TestNames:
    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("NVIDIA H100 80GB HBM3 (SXM), 1 GPU", "h100_sxm"),
            ("NVIDIA H100 80GB (GKE nvidia-h100-80gb)", "h100_sxm"),
            ("h100-80gb", "h100_sxm"),
            ("A100-80GB", "a100_sxm_80gb"),
            ("RTXPRO6000", "rtx_pro_6000"),
        ],
    )
    def test_devices(self, text: str, name: str) -> None:
        assert device_name(text) == name

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("meta-llama/Llama-3.1-8B-Instruct", "llama_3_1_8b"),
            ("Llama-2-7b-hf", "llama_2_7b"),
            ("llama2-70b", "llama_2_70b"),
            ("Mixtral-8x7B-v0.1", "mixtral_8x7b"),
        ],
    )
    def test_models(self, text: str, name: str) -> None:
        assert model_name(text) == name

    def test_an_unknown_one_is_told(self) -> None:
        with pytest.raises(UnknownName, match="the library has no device 'abacus'"):
            device_name("abacus")


class TestEngine:
    def test_version(self) -> None:
        assert engine_version("vLLM 0.23.0 (vanilla) / patched") == (0, 23, 0)
        assert engine_version("SGLang") is None

    def test_limits_reach_the_scenario(self) -> None:
        stated = ServedEngine(
            device="h100_sxm", model="qwen3_14b", version=(0, 11), max_num_seqs=77, num_gpu_blocks=18038,
            prefix_caching=False, chunked_prefill=False,
        )  # fmt: skip
        (engine,) = stated.scenario().cluster.engines
        assert engine.kv_cache.num_gpu_blocks == 18038
        assert not engine.kv_cache.prefix_caching
        assert engine.batching.kind == "continuous"  # type: ignore[union-attr]
        assert engine.batching.max_num_seqs == 77  # type: ignore[union-attr]
        assert engine.batching.max_num_batched_tokens == 8192  # type: ignore[union-attr]
        assert not engine.batching.async_scheduling  # type: ignore[union-attr]

    def test_terms_to_try_out(self) -> None:
        tried = ServedEngine(device="h100_sxm", model="llama_3_1_8b", terms=(("host.per_step", "3 ms"),))
        assert tried.scenario().cluster.engines[0].host.per_step_s == pytest.approx(3e-3)
