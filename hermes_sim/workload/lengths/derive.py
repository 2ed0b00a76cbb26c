"""Derives the shipped length tables (traces/lengths) from recorded traces, and scores them.

Run: `python -m hermes_sim.workload.lengths.derive DATA_FOLDER traces/lengths`, where DATA_FOLDER/requests holds the
traces named below. The result depends on nothing but those files. The score: a table fitted to a random half of the
requests is compared with the other half; the shipped table is then fitted to all of them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hermes_sim.core.rng import stream
from hermes_sim.workload.lengths.quantile_table import GRID, QuantileTable, fit_table, write_table
from hermes_sim.workload.readers.azure import Azure
from hermes_sim.workload.readers.mooncake import Mooncake
from hermes_sim.workload.readers.rows import csv_rows
from hermes_sim.workload.readers.service_statistics import Histogram, binned_lengths
from hermes_sim.workload.requests import IntArray

NUM_BINS = 20
"""Equally likely ranges of the prompt: enough to keep the rank correlation to 0.03 on the held-out half."""
_NUM_SAMPLES = 200_000


@dataclass(frozen=True, slots=True)
class Origin:
    """A recorded trace, and what must be said where its lengths are passed on."""

    file: str
    """Under DATA_FOLDER/requests."""
    title: str
    where: str
    licence: str


_AZURE = ("github.com/Azure/AzurePublicDataset, data/{} (Patel et al., Splitwise, ISCA 2024)", "CC-BY 4.0")
_MOONCAKE = ("github.com/kvcache-ai/Mooncake, FAST25-release/traces/{} (Qin et al., Mooncake, FAST 2025)", "Apache-2.0")
_SERVEGEN = ("github.com/alibaba/ServeGen, data/{} (Xiang et al., ServeGen, NSDI 2026)", "Apache-2.0")


def _origin(file: str, title: str, project: tuple[str, str], name: str) -> Origin:
    where, licence = project
    return Origin(file, title, where.format(name), licence)


AZURE = {
    "azure2023_conv": _origin(
        "original/AzureLLMInferenceTrace_conv.csv.gz", "Azure LLM inference 2023-11-16, conversation",
        _AZURE, "AzureLLMInferenceTrace_conv.csv",
    ),
    "azure2023_code": _origin(
        "original/AzureLLMInferenceTrace_code.csv.gz", "Azure LLM inference 2023-11-16, code completion",
        _AZURE, "AzureLLMInferenceTrace_code.csv",
    ),
}  # fmt: skip
MOONCAKE = {
    "mooncake_conversation": _origin(
        "original/conversation_trace.jsonl.gz", "Mooncake (Kimi) conversation", _MOONCAKE, "conversation_trace.jsonl"
    ),
    "mooncake_synthetic": _origin(
        "original/synthetic_trace.jsonl.gz", "Mooncake (Kimi) synthetic", _MOONCAKE, "synthetic_trace.jsonl"
    ),
}
PAIRS = {
    "sharegpt": Origin(
        "lengths_sharegpt_val_10k_llama2.csv.gz", "ShareGPT conversations, 10,000 pairs, Llama-2 tokenizer",
        "github.com/AKafakA/vidur_opt_scheduler, data/processed_traces/sharegpt-val-10k-predicted-len.csv", "MIT",
    ),
    "arxiv_summarization": Origin(
        "lengths_arxiv_summarization_llama2.csv.gz", "arXiv summarization, Llama-2 tokenizer",
        "github.com/microsoft/vidur, data/processed_traces/arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv",
        "MIT",
    ),
}  # fmt: skip
SERVEGEN = {
    "servegen_m_large": _origin(
        "servegen_m-large_length_pmf.csv.gz", "Qwen m-large service, 14 days", _SERVEGEN, "language/m-large"
    ),
    "servegen_m_mid": _origin(
        "servegen_m-mid_length_pmf.csv.gz", "Qwen m-mid service, 14 days", _SERVEGEN, "language/m-mid"
    ),
    "servegen_m_small": _origin(
        "servegen_m-small_length_pmf.csv.gz", "Qwen m-small service, 14 days", _SERVEGEN, "language/m-small"
    ),
    "deepseek_r1": _origin(
        "servegen_deepseek-r1_length_pmf.csv.gz", "DeepSeek-R1 service, reasoning in the output, 1 day",
        _SERVEGEN, "reason/deepseek-r1",
    ),
}  # fmt: skip


def derive_all(data_folder: Path) -> dict[str, QuantileTable]:
    """Name -> table, for every trace above. Raises TraceError where a trace is missing."""
    requests = data_folder / "requests"
    tables = {
        name: _from_pairs(origin, *read(requests / origin.file))
        for group, read in ((AZURE, _read_azure), (MOONCAKE, _read_mooncake), (PAIRS, _read_pairs))
        for name, origin in group.items()
    }
    return tables | {
        name: _from_histograms(origin, *binned_lengths(requests / origin.file)) for name, origin in SERVEGEN.items()
    }


def _read_azure(path: Path) -> tuple[IntArray, IntArray]:
    table = Azure().read(path, 0, None)
    return table.num_prompt_tokens, table.num_output_tokens


def _read_mooncake(path: Path) -> tuple[IntArray, IntArray]:
    table = Mooncake().read(path, 0, None)
    return table.num_prompt_tokens, table.num_output_tokens


def _read_pairs(path: Path) -> tuple[IntArray, IntArray]:
    pairs = np.array([cells for _, cells in csv_rows(path, ("input_tokens", "output_tokens"))], np.int64)
    return pairs[:, 0], pairs[:, 1]


def _from_pairs(origin: Origin, prompt: IntArray, output: IntArray) -> QuantileTable:
    about = _about(origin) | {"num_rows": str(len(prompt)), "joint": f"yes, output by {NUM_BINS} ranges of the prompt"}
    return fit_table(prompt, output, num_bins=NUM_BINS, about=about | held_out_errors(prompt, output))


def held_out_errors(prompt: IntArray, output: IntArray, num_bins: int = NUM_BINS) -> dict[str, str]:
    """Errors on one random half of a table fitted to the other half; `split_`: what the two halves differ by anyway."""
    order = stream(0, "derive").permutation(len(prompt))
    fitted, held_out = np.array_split(order, 2)
    table = fit_table(prompt[fitted], output[fitted], num_bins=num_bins, about={})
    sample = table.sample(stream(0, "derive", 1), _NUM_SAMPLES)
    truth = prompt[held_out], output[held_out]
    errors: dict[str, float] = {}
    for name, drawn, true, other in zip(
        ("prompt", "output"), sample, truth, (prompt[fitted], output[fitted]), strict=True
    ):
        errors[f"held_out_ks_{name}"] = ks_distance(drawn, true)
        errors[f"split_ks_{name}"] = ks_distance(other, true)
        errors[f"held_out_mean_error_{name}"] = float(drawn.mean() / true.mean() - 1.0)
        errors[f"split_mean_error_{name}"] = float(other.mean() / true.mean() - 1.0)
    errors["held_out_rank_correlation"] = rank_correlation(*truth)
    errors["held_out_rank_correlation_error"] = rank_correlation(*sample) - rank_correlation(*truth)
    return {name: f"{error:.4f}" for name, error in errors.items()}


def _from_histograms(origin: Origin, prompt: Histogram, output: Histogram) -> QuantileTable:
    """Only the marginals are known: one range, the two lengths independent."""
    below_one = np.minimum(GRID, np.nextafter(1.0, 0.0))
    columns = [histogram.quantiles(below_one).astype(np.float64) for histogram in (prompt, output)]
    about = _about(origin) | {
        "num_rows": "not published: a histogram of 87 bins, clients weighted by their rate",
        "joint": "no, only the marginals are published: prompt and output are independent here",
    }
    table = QuantileTable(about, GRID, columns[0], columns[1][None, :])
    uniform = (np.arange(_NUM_SAMPLES) + 0.5) / _NUM_SAMPLES
    sample = table.sample(stream(0, "derive", 1), _NUM_SAMPLES)
    for name, drawn, histogram in zip(("prompt", "output"), sample, (prompt, output), strict=True):
        true = histogram.quantiles(uniform)
        about[f"ks_{name}"] = f"{ks_distance(drawn, true):.4f}"
        about[f"mean_error_{name}"] = f"{drawn.mean() / true.mean() - 1.0:.4f}"
    return table


def _about(origin: Origin) -> dict[str, str]:
    return {"title": origin.title, "source": origin.where, "kind": "measured", "licence": origin.licence}


def ks_distance(first: IntArray, second: IntArray) -> float:
    """Kolmogorov-Smirnov distance: the largest difference of the two empirical distribution functions."""
    values = np.union1d(first, second)
    shares = [np.searchsorted(np.sort(sample), values, side="right") / len(sample) for sample in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def rank_correlation(first: IntArray, second: IntArray) -> float:
    """Spearman's, ties at their mean rank."""
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def main(arguments: list[str]) -> None:
    data_folder, target = (Path(argument) for argument in arguments)
    for name, table in derive_all(data_folder).items():
        write_table(table, target / f"{name}.csv")


if __name__ == "__main__":
    main(sys.argv[1:])
