"""BurstGPT traces: CSV with Timestamp, Model, Request tokens, Response tokens, Total tokens, Log Type.

Later files add Session ID (conversations only) and Elapsed time (seconds from request to complete response). Failed
requests have 0 response tokens.
Source: HPMLL/BurstGPT, README (Wang et al., arXiv 2401.17644).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final, Literal

import numpy as np

from hermes_sim.workload.readers.rows import BadRows, csv_rows, recorded, seconds, tokens
from hermes_sim.workload.readers.trace import Trace
from hermes_sim.workload.requests import FloatArray, RequestTable

_COLUMNS: Final = ("Timestamp", "Model", "Request tokens", "Response tokens", "Log Type")
_LATER_COLUMNS: Final = ("Session ID", "Elapsed time")


class BurstGpt(Trace):
    """One request per row."""

    published: ClassVar[str] = "BurstGPT traces are published at https://github.com/HPMLL/BurstGPT (CC-BY 4.0)."
    format: Literal["burstgpt"] = "burstgpt"
    failures: Literal["skip", "keep", "bad_row"] = "skip"
    """Rows with 0 response tokens: left out and counted in a note; kept as prefill only; or malformed rows."""
    model: str | None = None
    """Only requests to this model ('ChatGPT', 'GPT-4')."""
    log_type: str | None = None
    """Only rows of this log ('Conversation log', 'API log')."""
    follow_sessions: bool = False
    """Turns after a session's first wait for the turn before them, then pause as long as recorded; otherwise every
    turn arrives at its recorded time."""

    def read(self, path: Path, seed: int, num_rows: int | None) -> RequestTable:
        bad_rows = BadRows(path, self.on_bad_row)
        times_s: list[float] = []
        prompt: list[int] = []
        output: list[int] = []
        sessions: list[int] = []
        elapsed_s: list[float] = []
        session_ids: dict[str, int] = {}
        num_failures = 0
        for line, cells in csv_rows(path, _COLUMNS, _LATER_COLUMNS):
            if len(times_s) == num_rows:
                break
            timestamp, model, request_tokens, response_tokens, log_type, session, elapsed = cells
            if (self.model or model) != model or (self.log_type or log_type) != log_type:
                continue
            try:
                time_s = seconds(timestamp, "Timestamp")
                num_prompt_tokens = tokens(request_tokens, "Request tokens")
                num_output_tokens = tokens(response_tokens, "Response tokens")
                took_s = seconds(elapsed, "Elapsed time") if elapsed else 0.0
                if num_output_tokens == 0 and self.failures == "bad_row":
                    raise ValueError("failed request (0 response tokens)")
            except ValueError as error:
                bad_rows.report(line, str(error))
                continue
            if num_output_tokens == 0 and self.failures == "skip":
                num_failures += 1
                continue
            times_s.append(time_s)
            prompt.append(num_prompt_tokens)
            output.append(num_output_tokens)
            sessions.append(session_ids.setdefault(session, len(session_ids)) if session else -1)
            elapsed_s.append(took_s)
        notes = (f"{path.name}: {num_failures:,} failed requests (0 response tokens) left out",) if num_failures else ()
        arrival_s = np.array(times_s) - min(times_s, default=0.0)
        # pauses ride along in think_s until the turns are linked
        table = recorded(arrival_s, prompt, output, bad_rows, notes=notes, session=sessions, think_s=elapsed_s)
        if self.follow_sessions:
            return _linked(table, table.think_s)
        return replace(table, think_s=np.zeros(table.num_requests))


def _linked(table: RequestTable, elapsed_s: FloatArray) -> RequestTable:
    """Later turns of a session lose their arrival and wait for the turn before."""
    order = np.lexsort((np.arange(table.num_requests), table.session))
    before, after = order[:-1], order[1:]
    follows = (table.session[after] >= 0) & (table.session[after] == table.session[before])
    before, after = before[follows], after[follows]
    previous = np.full(table.num_requests, -1)
    previous[after] = before
    think_s = np.zeros(table.num_requests)
    recorded_gap_s = table.arrival_s[after] - table.arrival_s[before]
    think_s[after] = np.maximum(recorded_gap_s - elapsed_s[before], 0.0)
    arrival_s = table.arrival_s.copy()
    arrival_s[after] = np.nan
    return replace(table, previous=previous, think_s=think_s, arrival_s=arrival_s)
