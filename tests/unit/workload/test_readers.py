"""Trace formats, on rows written from their published descriptions."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hermes_sim.core.errors import ConfigError, TraceError
from hermes_sim.scenario.load import load_scenario
from hermes_sim.workload.readers import TRACE_FORMATS
from tests.unit.workload.laws import read_trace, requests_of

AZURE_2023 = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 23:59:59.6805900,374,44
2023-11-16 23:59:59.9999999,396,0
2023-11-17 00:00:01.0000001,0,55
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:10+00:00,2399,6
2024-05-10 02:00:20.5+02:00,76,15
"""
MOONCAKE = """{"timestamp": 3000, "input_length": 1100, "output_length": 500, "hash_ids": [0, 1, 2]}
{"timestamp": 3000, "input_length": 512, "output_length": 1, "hash_ids": [0]}

{"timestamp": 30536, "input_length": 600, "output_length": 25, "hash_ids": [0, 9]}
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,GPT-4,1087,0,1087,API log
118,GPT-4,417,276,693,Conversation log
"""
BURSTGPT_LATER = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
19440110.0,1722ac82,43,GPT-4,906,446,1352,Conversation log
19440161.0,,2,ChatGPT,36,29,65,API log
19440192.0,1722ac82,8,GPT-4,1779,123,1902,Conversation log
19440195.0,1722ac82,8,GPT-4,1979,23,2002,Conversation log
"""
SHAREGPT = [
    {
        "id": "one",
        "conversations": [
            {"from": "gpt", "value": "an answer to nothing"},
            {"from": "human", "value": "x" * 40},
            {"from": "gpt", "value": "y" * 81},
            {"from": "human", "value": "z" * 20},
            {"from": "human", "value": "z" * 20},
            {"from": "gpt", "value": "y" * 4},
            {"from": "human", "value": "never answered"},
        ],
    },
    {"messages": [{"role": "user", "content": "", "num_tokens": 7}, {"role": "assistant", "tokens": [1, 2, 3]}]},
]
VLLM = {
    "request_rate": 2.0,
    "burstiness": 0.25,
    "max_concurrency": None,
    "input_lens": [10, 20, 30],
    "output_lens": [1, 2, 3],
    "ttfts": [0.1, 0.1, 0.1],
    "itls": [[], [0.01], [0.01, 0.01]],
    "errors": ["", "timeout", ""],
}
TABLE = """arrival_s,num_prompt_tokens,num_output_tokens,session,prefix,prefix_tokens,priority,pipeline
0.5,100,10,a,system,64,1,rag
0.25,50,5,,,,,
1.5,300,7,a,system,64,,llm
"""


def write(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "azure": (AZURE_2023, {}),
    "mooncake": (MOONCAKE, {}),
    "burstgpt": (BURSTGPT, {}),
    "sharegpt": (json.dumps(SHAREGPT), {"arrivals": {"kind": "constant", "rate": "1 /s"}}),
    "servegen": ("time_s,total_rate_rps\n0,2\n60,1\n", {}),
    "vllm_benchmark": (json.dumps(VLLM), {}),
    "table": (TABLE, {}),
}


def example(folder: Path, format: str) -> Path:
    text, _ = EXAMPLES[format]
    write(
        folder, "bin_lower_tokens,input_tokens_prob,output_tokens_prob\n1,0.5,0\n2,0.5,1\n4,0,0\n", "x_length_pmf.csv"
    )
    return write(folder, text, "x_rate.csv")


@pytest.mark.parametrize("format", TRACE_FORMATS)
def test_conformance(format: str, tmp_path: Path) -> None:
    """Sorted arrivals, totals kept by time_scale, the first rows by limit, gzip as is, nothing when rate_scale is 0."""
    path = example(tmp_path, format)
    options = EXAMPLES[format][1]
    table = read_trace(format, path, **options)
    arrivals_s = table.arrival_s[~np.isnan(table.arrival_s)]
    assert table.num_requests > 0
    assert (np.diff(arrivals_s) >= 0).all()
    stretched = read_trace(format, path, **options, time_scale=3)
    assert np.array_equal(stretched.arrival_s, table.arrival_s * 3, equal_nan=True)
    assert np.array_equal(stretched.num_prompt_tokens, table.num_prompt_tokens)
    assert stretched.num_output_tokens.sum() == table.num_output_tokens.sum()
    first = read_trace(format, path, **options, limit=1)
    assert first.num_requests == 1
    assert read_trace(format, path, **options, limit=0).num_requests == 0
    assert read_trace(format, path, **options, rate_scale=0).num_requests == 0
    assert read_trace(format, path, **options, limit=1, pipeline="rag").pipeline_names == ("rag",)
    compressed = tmp_path / "y_rate.csv.gz"
    compressed.write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "y_length_pmf.csv.gz").write_bytes(gzip.compress((tmp_path / "x_length_pmf.csv").read_bytes()))
    again = read_trace(format, compressed, **options)
    assert np.array_equal(again.arrival_s, table.arrival_s, equal_nan=True)
    assert np.array_equal(again.num_prompt_tokens, table.num_prompt_tokens)


@pytest.mark.parametrize("format", TRACE_FORMATS)
def test_unusable_files_are_one_clear_error(format: str, tmp_path: Path) -> None:
    options = EXAMPLES[format][1]
    with pytest.raises(TraceError, match="no trace file"):
        read_trace(format, tmp_path / "missing_rate", **options)
    for name, content in {
        "empty_rate.csv": b"",
        "binary_rate.csv": b"\xff\xfe\x00\x01\n\x80,\x81,\x82\n",
        "cut_rate.csv.gz": gzip.compress(b"TIMESTAMP,ContextTokens\n" * 1000)[:-20],
        "other_rate.csv": b"a,b,c\n1,2,3\n",
        "other_rate.json": b'{"a": [1, 2]}\n',
        "nested_rate.json": b"[" * 100_000,
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        if format == "mooncake" and not content:
            assert read_trace(format, path).num_requests == 0
            continue
        with pytest.raises(TraceError, match=str(path)):
            read_trace(format, path, **options)


def test_no_path_says_what_to_set() -> None:
    with pytest.raises(TraceError, match=r"--set workload\.traffic\.trace\.path=FILE.*AzurePublicDataset"):
        requests_of(trace={"format": "azure"})


@pytest.mark.parametrize(
    ("trace", "reason"),
    [
        ({"format": "azur", "path": "x"}, "'azur' is not a trace format .*Did you mean 'azure'"),
        ({"path": "x"}, "format: is missing"),
        ("x.csv", "needs a mapping"),
        ({"format": "azure", "window": ["2 s", "1 s"]}, "from < to"),
        ({"format": "table", "columns": {"num_promt_tokens": "x"}}, "Did you mean 'num_prompt_tokens'"),
        ({"format": "sharegpt", "path": "x"}, "arrivals"),
    ],
)
def test_senseless_descriptions_are_refused(trace: object, reason: str) -> None:
    """As a user sees it: through the loader of workload files."""
    with pytest.raises(ConfigError, match=reason):
        load_scenario("a100x8.yaml", {"name": "test", "traffic": {"trace": trace}})


def test_azure_2023_seven_decimals_over_midnight(tmp_path: Path) -> None:
    table = read_trace("azure", write(tmp_path, AZURE_2023))
    assert table.arrival_s.tolist() == [0.0, 0.3194099, 1.3194101]
    assert table.num_prompt_tokens.tolist() == [374, 396, 0]
    assert table.num_output_tokens.tolist() == [44, 0, 55]


def test_azure_2024_zones(tmp_path: Path) -> None:
    table = read_trace("azure", write(tmp_path, AZURE_2024))
    assert table.arrival_s.tolist() == [0.0, 9.99007, 20.49007]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("2023-11-16 18:00:00,1", "GeneratedTokens needs a whole number, got nothing"),
        ("2023-11-16 18:00:00,1,x", "GeneratedTokens needs a whole number, got 'x'"),
        ("2023-11-16 18:00:00,-1,5", "ContextTokens is negative: -1"),
        ("2023-11-16 18:00:00,1.5,5", "ContextTokens needs a whole number, got '1.5'"),
        ("2023-11-16 18:00:00,99999999999999999999,5", "not a plausible number"),
        ("2023-11-31 18:00:00,1,5", "day is out of range"),
        ("18:00:00,1,5", "TIMESTAMP needs a time such as"),
        ("2023-11-16 25:00:00,1,5", "TIMESTAMP needs a time such as"),
        ("2023-11-16 18:00:00 nonsense,1,5", "TIMESTAMP needs a time such as"),
    ],
)
def test_malformed_azure_rows(row: str, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path, AZURE_2023 + row + "\n")
    with pytest.raises(TraceError, match=rf"{path}:5: .*{reason}"):
        read_trace("azure", path)
    table = read_trace("azure", path, on_bad_row="skip")
    assert table.num_requests == 3
    assert table.num_bad_rows == 1
    assert table.notes == ("trace.csv: 1 malformed rows left out",)


def test_rows_out_of_order_are_sorted_and_noted(tmp_path: Path) -> None:
    lines = AZURE_2023.splitlines()
    table = read_trace("azure", write(tmp_path, "\n".join([lines[0], lines[3], lines[1], lines[2]])))
    assert table.num_prompt_tokens.tolist() == [374, 396, 0]
    assert table.notes == ("trace.csv: rows were not in order of time and have been sorted",)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"trace.csv:1: no column 'GeneratedTokens'.*Did you mean 'Generatedtokens'"):
        read_trace("azure", write(tmp_path, "TIMESTAMP,ContextTokens,Generatedtokens\n"))


def test_mooncake_hash_ids(tmp_path: Path) -> None:
    table = read_trace("mooncake", write(tmp_path, MOONCAKE))
    assert table.arrival_s.tolist() == [0.0, 0.0, 27.536]
    assert table.hash_block_tokens == 512
    assert table.hash_offsets.tolist() == [0, 3, 4, 6]
    assert table.hash_ids.tolist() == [0, 1, 2, 0, 0, 9]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "not JSON"),
        ("[1]", "needs an object"),
        ('{"timestamp": 1, "input_length": 1}', "output_length needs a whole number, got nothing"),
        ('{"timestamp": -1, "input_length": 1, "output_length": 1}', "timestamp needs a time >= 0"),
        ('{"timestamp": 1, "input_length": true, "output_length": 1}', "input_length needs a whole number, got true"),
        ('{"timestamp": 1, "input_length": 512, "output_length": 1, "hash_ids": [1, 2]}', "2 hash_ids, but 512 tokens"),
        ('{"timestamp": 1, "input_length": 512, "output_length": 1, "hash_ids": [-1]}', "hash_ids needs a list"),
        ('{"timestamp": 1, "input_length": 512, "output_length": 1, "hash_ids": "1"}', "hash_ids needs a list"),
    ],
)
def test_malformed_mooncake_rows(row: str, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path, MOONCAKE + row + "\n")
    with pytest.raises(TraceError, match=rf"{path}:5: {reason}"):
        read_trace("mooncake", path)
    assert read_trace("mooncake", path, on_bad_row="skip").num_bad_rows == 1


def test_burstgpt_failures(tmp_path: Path) -> None:
    """0 response tokens: left out and counted, kept as prefill only, or malformed."""
    path = write(tmp_path, BURSTGPT)
    skipped = read_trace("burstgpt", path)
    assert skipped.arrival_s.tolist() == [0.0, 113.0]
    assert skipped.num_prompt_tokens.tolist() == [472, 417]
    assert skipped.notes == ("trace.csv: 1 failed requests (0 response tokens) left out",)
    assert read_trace("burstgpt", path, failures="keep").num_output_tokens.tolist() == [18, 0, 276]
    with pytest.raises(TraceError, match=rf"{path}:3: failed request"):
        read_trace("burstgpt", path, failures="bad_row")
    assert read_trace("burstgpt", path, failures="bad_row", on_bad_row="skip").num_bad_rows == 1


def test_burstgpt_filters(tmp_path: Path) -> None:
    path = write(tmp_path, BURSTGPT)
    assert read_trace("burstgpt", path, model="GPT-4").num_prompt_tokens.tolist() == [417]
    assert read_trace("burstgpt", path, log_type="API log", failures="keep").num_prompt_tokens.tolist() == [1087]


def test_burstgpt_sessions(tmp_path: Path) -> None:
    path = write(tmp_path, BURSTGPT_LATER)
    recorded = read_trace("burstgpt", path)
    assert recorded.session.tolist() == [0, -1, 0, 0]
    assert recorded.arrival_s.tolist() == [0.0, 51.0, 82.0, 85.0]
    assert recorded.previous.tolist() == [-1] * 4
    followed = read_trace("burstgpt", path, follow_sessions=True)
    assert followed.previous.tolist() == [-1, -1, 0, 2]
    assert np.isnan(followed.arrival_s).tolist() == [False, False, True, True]
    assert followed.think_s.tolist() == [0.0, 0.0, 82.0 - 43.0, 0.0]  # the last came before the answer was complete


def test_sharegpt_turns_hold_their_history(tmp_path: Path) -> None:
    """40, 81 and 40, 4 characters at 4 a token, rounded up; then counted messages."""
    path = write(tmp_path, json.dumps(SHAREGPT))
    options = {"arrivals": {"kind": "constant", "rate": "0.5 /s"}, "think_time": "3 s", "think_time_cv": 0}
    table = read_trace("sharegpt", path, **options)
    assert table.num_prompt_tokens.tolist() == [10, 10 + 21 + 10, 7]
    assert table.num_output_tokens.tolist() == [21, 1, 3]
    assert table.session.tolist() == [0, 0, 1]
    assert table.previous.tolist() == [-1, 0, -1]
    assert table.think_s.tolist() == [0.0, 3.0, 0.0]
    assert table.arrival_s[[0, 2]].tolist() == [0.0, 2.0]
    assert math.isnan(table.arrival_s[1])
    first = read_trace("sharegpt", path, **options, turns="first")
    assert first.num_prompt_tokens.tolist() == [10, 7]
    halved = read_trace("sharegpt", path, **options, characters_per_token=8)
    assert halved.num_output_tokens.tolist() == [11, 1, 3]


def test_sharegpt_shuffle_is_seeded(tmp_path: Path) -> None:
    conversations = [
        {"conversations": [{"from": "human", "num_tokens": n}, {"from": "gpt", "num_tokens": 1}]} for n in range(1, 50)
    ]
    path = write(tmp_path, json.dumps(conversations))
    options = {"arrivals": {"kind": "constant", "rate": "1 /s"}, "shuffle": True}
    shuffled = read_trace("sharegpt", path, **options).num_prompt_tokens
    assert sorted(shuffled) == list(range(1, 50))
    assert shuffled.tolist() != sorted(shuffled)
    assert np.array_equal(shuffled, read_trace("sharegpt", path, **options).num_prompt_tokens)


@pytest.mark.parametrize(
    ("conversation", "reason"),
    [
        ([], "needs an object with a list 'conversations'"),
        ({"conversations": [{"from": "human", "value": "alone"}]}, "no question with an answer"),
        ({"conversations": [{"from": "parrot", "value": "x"}]}, "'parrot' is not a speaker"),
        ({"conversations": [{"from": "human"}]}, "a message needs text or num_tokens"),
        ({"conversations": ["x"]}, "a message must be an object"),
    ],
)
def test_malformed_conversations(conversation: object, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps([*SHAREGPT, conversation]))
    options = {"arrivals": {"kind": "constant", "rate": "1 /s"}}
    with pytest.raises(TraceError, match=f"conversation 3: {reason}"):
        read_trace("sharegpt", path, **options)
    assert read_trace("sharegpt", path, **options, on_bad_row="skip").num_bad_rows == 1


def test_vllm_benchmark_arrivals(tmp_path: Path) -> None:
    """Recorded start times; else a closed loop where the rate was infinite; else drawn as the benchmark drew them."""
    started = read_trace("vllm_benchmark", write(tmp_path, json.dumps(VLLM | {"start_times": [7.0, 8.0, 9.5]})))
    assert started.arrival_s.tolist() == [0.0, 2.5]
    assert started.num_prompt_tokens.tolist() == [10, 30]
    assert started.num_output_tokens.tolist() == [1, 3]
    assert started.notes == ("trace.csv: 1 requests that failed in the benchmark left out",)

    closed = read_trace(
        "vllm_benchmark", write(tmp_path, json.dumps(VLLM | {"request_rate": "inf", "max_concurrency": 2}))
    )
    assert closed.closed_loop is not None
    assert closed.closed_loop.concurrency == 2
    at_once = read_trace("vllm_benchmark", write(tmp_path, json.dumps(VLLM | {"request_rate": "inf"})))
    assert at_once.arrival_s.tolist() == [0.0, 0.0]

    many = VLLM | {"input_lens": [10] * 20_000, "output_lens": [1] * 20_000, "errors": [""] * 20_000}
    drawn = read_trace("vllm_benchmark", write(tmp_path, json.dumps(many)))
    gaps_s = np.diff(drawn.arrival_s)
    assert gaps_s.mean() == pytest.approx(0.5, rel=0.05)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(2.0, rel=0.05)
    forced = read_trace(
        "vllm_benchmark", write(tmp_path, json.dumps(VLLM)), arrivals={"kind": "constant", "rate": "1 /s"}
    )
    assert forced.arrival_s.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input_lens": None}, "no 'input_lens': save the benchmark with --save-detailed"),
        ({"output_lens": [1]}, "1 output_lens, but 3 input_lens"),
        ({"input_lens": 3}, "'input_lens' needs a list"),
        ({"input_lens": [1, 2, "x"]}, "entry 2: input_lens needs a whole number"),
    ],
)
def test_malformed_vllm_results(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=reason):
        read_trace("vllm_benchmark", write(tmp_path, json.dumps(VLLM | changes)))


def test_table_columns(tmp_path: Path) -> None:
    table = read_trace("table", write(tmp_path, TABLE))
    assert table.arrival_s.tolist() == [0.25, 0.5, 1.5]  # as written, not from the first
    assert table.session.tolist() == [-1, 0, 0]
    assert table.prefix_group.tolist() == [-1, 0, 0]
    assert table.prefix_tokens.tolist() == [0, 64, 64]
    assert table.priority.tolist() == [0, 1, 0]
    assert table.pipeline is not None
    assert [table.pipeline_names[i] if i >= 0 else None for i in table.pipeline] == [None, "rag", "llm"]


def test_parquet_equals_csv(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    path = write(tmp_path, TABLE)
    pandas.read_csv(path).to_parquet(tmp_path / "trace.parquet")
    from_csv, from_parquet = read_trace("table", path), read_trace("table", tmp_path / "trace.parquet")
    for column in (
        "arrival_s",
        "num_prompt_tokens",
        "session",
        "prefix_group",
        "prefix_tokens",
        "priority",
        "pipeline",
    ):
        assert np.array_equal(getattr(from_csv, column), getattr(from_parquet, column)), column
    pandas.DataFrame({"x": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(TraceError, match="no column 'arrival_s'"):
        read_trace("table", tmp_path / "other.parquet")


def test_table_renamed_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "t,input_tokens,output_tokens\n0,1,2\n")
    names = {"arrival_s": "t", "num_prompt_tokens": "input_tokens", "num_output_tokens": "output_tokens"}
    assert read_trace("table", path, columns=names).num_prompt_tokens.tolist() == [1]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("x,1,1,,,,,", "arrival_s needs a number, got 'x'"),
        ("-1,1,1,,,,,", "arrival_s needs a time >= 0"),
        ("1,10,1,,p,20,,", "prefix_tokens 20 exceeds the 10 prompt tokens"),
        ("1,10,1,,,5,,", "prefix_tokens is '5', but there is no prefix to share"),
        ("1,10,1,,,,high,", "priority needs a whole number, got 'high'"),
    ],
)
def test_malformed_table_rows(row: str, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path, TABLE + row + "\n")
    with pytest.raises(TraceError, match=rf"{path}:5: {reason}"):
        read_trace("table", path)
    assert read_trace("table", path, on_bad_row="skip").num_bad_rows == 1


def servegen_folder(folder: Path) -> Path:
    write(folder, "0,10,2.0,Gamma,0.25,1\n600,0,0,,0,0\n1200,5,1.0,Weibull,1.0,1\n", "chunk-0-trace.csv")
    write(folder, "0,1,1.0,Gamma,1.0,1\n600,1,1.0,Gamma,1.0,1\n1200,1,1.0,Gamma,1.0,1\n", "chunk-1-trace.csv")
    for client, prompt in ((0, "{100: 0.5, 300: 0.5}"), (1, "{7: 1.0}")):
        windows = {"0": {"input_tokens": prompt, "output_tokens": "{1: 0.9, 50: 0.1}"}}
        write(
            folder,
            json.dumps(windows | {"1200": {"input_tokens": "{}", "output_tokens": "{}"}}),
            f"chunk-{client}-dataset.json",
        )
    return folder


def test_servegen_clients_keep_their_rates_and_lengths(tmp_path: Path) -> None:
    table = read_trace("servegen", servegen_folder(tmp_path))
    assert table.num_requests == pytest.approx(10 * 600 + 5 * 600 + 3 * 600, abs=3)
    large = table.num_prompt_tokens > 7
    in_gap = (table.arrival_s >= 600) & (table.arrival_s < 1200)
    assert not (large & in_gap).any()
    assert np.unique(table.num_prompt_tokens).tolist() == [7, 100, 300]
    assert (table.num_prompt_tokens[large] == 100).mean() == pytest.approx(0.5, abs=0.03)
    assert (table.num_output_tokens == 50).mean() == pytest.approx(0.1, abs=0.02)
    assert table.client is not None
    np.testing.assert_array_equal(table.client, np.where(large, 0, 1))
    bursty = np.diff(table.arrival_s[large & (table.arrival_s < 600)])
    assert bursty.std() / bursty.mean() == pytest.approx(2.0, rel=0.1)


def test_servegen_window_rate_and_limit(tmp_path: Path) -> None:
    folder = servegen_folder(tmp_path)
    table = read_trace("servegen", folder, window=["300 s", "700 s"], rate_scale=2)
    assert table.num_requests == pytest.approx(2 * (11 * 300 + 1 * 100), abs=3)
    assert table.arrival_s[-1] < 400.0
    assert read_trace("servegen", folder, limit=17).num_requests == 17


def test_servegen_totals(tmp_path: Path) -> None:
    write(
        tmp_path, "bin_lower_tokens,input_tokens_prob,output_tokens_prob\n1,0.5,1\n2,0.5,0\n5,0,0\n", "m_length_pmf.csv"
    )
    rate = write(tmp_path, "time_s,total_rate_rps\n0,20\n600,5\n", "m_rate.csv")
    table = read_trace("servegen", rate)
    assert table.num_requests == 25 * 600
    assert (table.arrival_s < 600).sum() == 20 * 600
    assert np.bincount(table.num_prompt_tokens)[1:] / 15_000 == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6], abs=0.02)
    assert set(table.num_output_tokens) == {1}


def test_servegen_refuses_to_draw_billions(tmp_path: Path) -> None:
    write(tmp_path, "bin_lower_tokens,input_tokens_prob,output_tokens_prob\n1,1,1\n2,0,0\n", "m_length_pmf.csv")
    rate = write(tmp_path, "time_s,total_rate_rps\n0,1e7\n600,5\n", "m_rate.csv")
    with pytest.raises(TraceError, match="set window, limit or rate_scale"):
        read_trace("servegen", rate)
    assert read_trace("servegen", rate, limit=10, window=["0 s", "1 ms"]).num_requests == 10
