"""Joint quantile table of prompt and output lengths: a small text file that stands for a trace.

Form (CSV): lines `# key: value` say where it comes from; then the header `probability,prompt,output_1,...,output_B`
and one row per probability. Column `prompt` is the quantile function of the prompt length. Column `output_b` is the
quantile function of the output length of those requests whose prompt lies in the b-th of B equally likely ranges; with
one column the two lengths are independent. Between rows quantiles are interpolated linearly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from hermes_sim.core.errors import TraceError
from hermes_sim.workload.paths import shipped_traces
from hermes_sim.workload.readers.rows import text_of
from hermes_sim.workload.requests import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class QuantileTable:
    """Quantile functions on one grid of probabilities."""

    about: dict[str, str]
    """Title, source, licence, number of rows, errors of the fit: the `# key: value` lines."""
    probability: FloatArray
    """[num_rows] ascending from 0 to 1."""
    prompt_tokens: FloatArray
    """[num_rows] ascending."""
    output_tokens: FloatArray
    """[num_bins, num_rows], each row ascending: by equally likely ranges of the prompt."""

    @property
    def num_bins(self) -> int:
        return len(self.output_tokens)

    def sample(self, rng: np.random.Generator, num_requests: int) -> tuple[IntArray, IntArray]:
        """(prompt, output) tokens, both [num_requests]."""
        for_prompt, for_output = rng.random((num_requests, 2)).T
        prompt = np.interp(for_prompt, self.probability, self.prompt_tokens)
        bins = (for_prompt * self.num_bins).astype(np.int64)
        # one interpolation for all bins: bin b lies at b + probability
        position = (np.arange(self.num_bins)[:, None] + 0.999999 * self.probability).ravel()
        output = np.interp(bins + 0.999999 * for_output, position, self.output_tokens.ravel())
        return np.rint(prompt).astype(np.int64), np.rint(output).astype(np.int64)


@cache
def shipped_tables() -> dict[str, Path]:
    """Name -> file of every length table of the library."""
    return {path.stem: path for path in sorted((shipped_traces() / "lengths").glob("*.csv"))}


def read_table(path: Path) -> QuantileTable:
    """Table in the form above. Raises TraceError with file and line."""
    return parse_table(text_of(path), path)


@lru_cache(maxsize=16)
def parse_table(text: str, path: Path) -> QuantileTable:
    """The text of a file as a table; a sweep reads the same few again and again."""
    about: dict[str, str] = {}
    rows: list[list[float]] = []
    header: list[str] = []
    for line_number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("#"):
            key, _, value = line[1:].partition(":")
            about[key.strip()] = value.strip()
        elif not header:
            header = line.split(",")
        else:
            try:
                rows.append([float(cell) for cell in line.split(",")])
            except ValueError as error:
                raise TraceError(f"{path}:{line_number}: {error}") from None
            if len(rows[-1]) != len(header):
                raise TraceError(f"{path}:{line_number}: {len(rows[-1])} cells, the header has {len(header)}")
    if header[:2] != ["probability", "prompt"] or len(header) < 3 or len(rows) < 2:
        raise TraceError(f"{path}: needs the columns probability, prompt, output_1, ... and two rows or more")
    columns = np.array(rows).T
    ascends = np.isfinite(columns).all() and (columns >= 0.0).all() and (np.diff(columns, axis=1) >= 0.0).all()
    if not ascends or columns[0, 0] != 0.0 or columns[0, -1] != 1.0:
        raise TraceError(f"{path}: every column must ascend from zero or more, probability from 0 to 1")
    return QuantileTable(about, probability=columns[0], prompt_tokens=columns[1], output_tokens=columns[2:])


def write_table(table: QuantileTable, path: Path) -> None:
    """Inverse of read_table."""
    lines = [f"# {key}: {value}" for key, value in table.about.items()]
    lines.append(",".join(["probability", "prompt", *(f"output_{b + 1}" for b in range(table.num_bins))]))
    for row in np.vstack([table.probability, table.prompt_tokens, table.output_tokens]).T:
        lines.append(",".join(f"{value:g}" for value in row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def fit_table(prompt: IntArray, output: IntArray, *, num_bins: int, about: dict[str, str]) -> QuantileTable:
    """Empirical quantiles of a sample; ties in the prompt are spread over the ranges in order of the output."""
    order = np.lexsort((output, prompt))
    ranges = np.array_split(output[order], num_bins)
    return QuantileTable(
        about=about,
        probability=GRID,
        prompt_tokens=quantiles(prompt, GRID),
        output_tokens=np.array([quantiles(values, GRID) for values in ranges]),
    )


def quantiles(sample: IntArray, probability: FloatArray) -> FloatArray:
    """Quantile function of a sample of whole numbers, as one that rounding to the nearest gives back."""
    return np.quantile(sample, probability, method="hazen")


def _grid() -> FloatArray:
    """Probabilities of the rows: every half percent, finer towards both ends."""
    low_tail = np.array([0.0, 0.0002, 0.0005, 0.001, 0.002, 0.003])
    middle = np.arange(1, 200) / 200.0
    far_tail = np.array([0.9999, 0.99995, 0.99999, 0.999999])  # a heavy tail holds a good part of the mean
    return np.sort(np.concatenate([low_tail, middle, 1.0 - low_tail, far_tail])).round(6)


GRID = _grid()
