"""Azure LLM inference traces of 2023 and 2024: CSV with TIMESTAMP, ContextTokens, GeneratedTokens.

Source: Azure/AzurePublicDataset, AzureLLMInferenceDataset2023.md (Splitwise, ISCA 2024) and
AzureLLMInferenceDataset2024.md (DynamoLLM, arXiv 2408.00741).
"""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import ClassVar, Final, Literal

from hermes_sim.workload.readers.rows import BadRows, csv_rows, recorded, shown_cell, tokens
from hermes_sim.workload.readers.trace import Trace
from hermes_sim.workload.requests import RequestTable

_NANOSECONDS: Final = 1_000_000_000
_TIMESTAMP: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T]([01]\d|2[0-3]):([0-5]\d):([0-5]\d|60)(?:\.(\d{1,9}))?\s*(Z|[+-]\d\d(?::?\d\d)?)?", re.ASCII
)
_COLUMNS: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


class Azure(Trace):
    """One request per row; times of day with 0 to 9 decimals, with or without a zone."""

    published: ClassVar[str] = (
        "Azure LLM inference traces are published at https://github.com/Azure/AzurePublicDataset (CC-BY 4.0)."
    )
    format: Literal["azure"] = "azure"

    def read(self, path: Path, seed: int, num_rows: int | None) -> RequestTable:
        bad_rows = BadRows(path, self.on_bad_row)
        times_ns: list[int] = []
        prompt: list[int] = []
        output: list[int] = []
        days: dict[str, int] = {}
        for line, (timestamp, context_tokens, generated_tokens) in csv_rows(path, _COLUMNS):
            if len(times_ns) == num_rows:
                break
            try:
                time_ns = nanoseconds(timestamp or "", days)
                num_prompt_tokens = tokens(context_tokens, "ContextTokens")
                num_output_tokens = tokens(generated_tokens, "GeneratedTokens")
            except ValueError as error:
                bad_rows.report(line, str(error))
                continue
            times_ns.append(time_ns)
            prompt.append(num_prompt_tokens)
            output.append(num_output_tokens)
        first_ns = min(times_ns, default=0)
        arrival_s = [(time_ns - first_ns) / _NANOSECONDS for time_ns in times_ns]
        return recorded(arrival_s, prompt, output, bad_rows)


def nanoseconds(timestamp: str, days: dict[str, int]) -> int:
    """`2023-11-16 18:15:46.6805900` or `2024-05-10 00:00:00.009930+00:00` in nanoseconds, to the last digit.

    `days` remembers the dates seen. Raises ValueError with the reason.
    """
    match = _TIMESTAMP.fullmatch(timestamp)
    if match is None:
        raise ValueError(f"TIMESTAMP needs a time such as '2023-11-16 18:15:46.6805900', got {shown_cell(timestamp)}")
    day, hour, minute, second, decimals, zone = match.groups()
    if day not in days:
        try:
            days[day] = date.fromisoformat(day).toordinal()
        except ValueError as error:
            raise ValueError(f"TIMESTAMP {timestamp!r}: {error}") from None
    whole_s = days[day] * 86400 + int(hour) * 3600 + int(minute) * 60 + int(second) - _zone_s(zone)
    return whole_s * _NANOSECONDS + (int(decimals.ljust(9, "0")) if decimals else 0)


def _zone_s(zone: str | None) -> int:
    """Seconds east of Greenwich."""
    if zone is None or zone == "Z":
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    offset_s = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return -offset_s if zone[0] == "-" else offset_s
