"""Mooncake traces: JSON lines with timestamp (ms), input_length, output_length and hash_ids of 512-token blocks.

Equal ids are equal prefixes: an id stands for its block and everything before it.
Source: kvcache-ai/Mooncake, FAST25-release/traces (Mooncake, FAST 2025).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

from hermes_sim.core.schema import PositiveInt
from hermes_sim.workload.readers.rows import BadRows, lines, recorded, seconds, tokens
from hermes_sim.workload.readers.trace import Trace
from hermes_sim.workload.requests import RequestTable


class Mooncake(Trace):
    """One request per line; its hash ids feed prefix reuse."""

    published: ClassVar[str] = (
        "Mooncake traces are published at https://github.com/kvcache-ai/Mooncake (FAST25-release, Apache-2.0)."
    )
    format: Literal["mooncake"] = "mooncake"
    hash_block_tokens: PositiveInt = 512
    """Prompt tokens that one hash id stands for."""

    def read(self, path: Path, seed: int, num_rows: int | None) -> RequestTable:
        bad_rows = BadRows(path, self.on_bad_row)
        times_ms: list[float] = []
        prompt: list[int] = []
        output: list[int] = []
        hash_ids: list[list[int]] = []
        for line, text in enumerate(lines(path), start=1):
            if len(times_ms) == num_rows:
                break
            if text.isspace():
                continue
            try:
                row = _object(text)
                time_ms = seconds(row.get("timestamp"), "timestamp")
                num_prompt_tokens = tokens(row.get("input_length"), "input_length")
                num_output_tokens = tokens(row.get("output_length"), "output_length")
                ids = self._hash_ids(row.get("hash_ids", []), num_prompt_tokens)
            except ValueError as error:
                bad_rows.report(line, str(error))
                continue
            times_ms.append(time_ms)
            prompt.append(num_prompt_tokens)
            output.append(num_output_tokens)
            hash_ids.append(ids)
        first_ms = min(times_ms, default=0.0)
        return recorded(
            [(time_ms - first_ms) / 1000.0 for time_ms in times_ms],
            prompt,
            output,
            bad_rows,
            hash_ids=hash_ids,
            hash_block_tokens=self.hash_block_tokens,
        )

    def _hash_ids(self, ids: Any, num_prompt_tokens: int) -> list[int]:
        if not isinstance(ids, list) or any(type(block) is not int for block in ids) or (ids and min(ids) < 0):
            raise ValueError("hash_ids needs a list of whole numbers >= 0")
        block = self.hash_block_tokens
        most = -(-num_prompt_tokens // block)
        if len(ids) > most:
            raise ValueError(f"{len(ids)} hash_ids, but {num_prompt_tokens} tokens are {most} blocks of {block}")
        return ids


def _object(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not JSON: nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError("needs an object with timestamp, input_length, output_length, hash_ids")
    return row
