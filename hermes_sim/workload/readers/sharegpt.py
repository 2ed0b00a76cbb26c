"""ShareGPT-style conversations: a JSON list of {"conversations": [{"from": "human", "value": ...}, ...]}.

The files hold text, neither times nor tokens: sessions start by `arrivals`, and tokens are estimated from characters
unless a message carries a count (`num_tokens` or `tokens`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from pydantic import Field

from hermes_sim.core.errors import TraceError
from hermes_sim.core.rng import stream
from hermes_sim.core.schema import NonNegativeFloat, PositiveFloat, Seconds, one_of
from hermes_sim.workload.arrivals import PROCESSES, Arrivals
from hermes_sim.workload.readers.rows import BadRows, shown_cell, text_of, tokens
from hermes_sim.workload.readers.trace import Trace
from hermes_sim.workload.requests import RequestTable
from hermes_sim.workload.sessions import pauses, turns_table

_ASKING: Final = frozenset({"human", "user"})
_ANSWERING: Final = frozenset({"gpt", "assistant", "chatgpt", "bing", "bard", "model"})
_SETTING: Final = frozenset({"system"})

Turn = tuple[int, int]
"""Tokens the user adds, tokens of the answer."""


class ShareGpt(Trace):
    """One session per conversation; turn k's prompt holds the conversation before it."""

    published: ClassVar[str] = (
        "A ShareGPT file such as ShareGPT_V3_unfiltered_cleaned_split.json is published at "
        "https://huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered."
    )
    format: Literal["sharegpt"] = "sharegpt"
    arrivals: Annotated[Arrivals, one_of(PROCESSES, "law of arrivals")]
    """When sessions start."""
    characters_per_token: PositiveFloat = 4.0
    """Rule of thumb for English text; used where a message carries no count."""
    turns: Literal["all", "first"] = "all"
    """`first`: only the first question and answer of each conversation, as vLLM's benchmark takes it."""
    think_time_s: Seconds = Field(default=0.0, alias="think_time")
    """Mean pause between an answer and the next question."""
    think_time_cv: NonNegativeFloat = 1.0
    shuffle: bool = False
    """Conversations in random order instead of the file's."""

    def read(self, path: Path, seed: int, num_rows: int | None) -> RequestTable:
        bad_rows = BadRows(path, self.on_bad_row)
        conversations = _conversations(path)
        if self.shuffle:
            conversations = [conversations[i] for i in stream(seed, "trace").permutation(len(conversations))]
        sessions: list[list[Turn]] = []
        num_turns_read = 0
        for turns in self._sessions(conversations, bad_rows):
            if num_rows is not None and num_turns_read >= num_rows:
                break
            sessions.append(turns)
            num_turns_read += len(turns)
        starts_s = self.arrivals.times(stream(seed, "arrivals"), len(sessions), None, Path)
        sessions = sessions[: len(starts_s)]
        added, answered = np.array([turn for turns in sessions for turn in turns], np.int64).reshape(-1, 2).T
        table = turns_table(
            starts_s,
            np.array([len(turns) for turns in sessions], np.int64),
            added,
            answered,
            pauses(stream(seed, "think_time"), len(added), self.think_time_s, self.think_time_cv),
        )
        return replace(table, num_bad_rows=bad_rows.num_bad_rows)

    def _sessions(self, conversations: list[Any], bad_rows: BadRows) -> Iterator[list[Turn]]:
        for number, conversation in enumerate(conversations, start=1):
            try:
                turns = self._turns(conversation)
            except ValueError as error:
                bad_rows.report(number, f"conversation {number}: {error}")
                continue
            yield turns if self.turns == "all" else list(islice(turns, 1))

    def _turns(self, conversation: Any) -> list[Turn]:
        """Question and answer lengths; text of several messages in a row is one message. Raises ValueError."""
        messages = None
        if isinstance(conversation, dict):
            messages = conversation.get("conversations", conversation.get("messages"))
        if not isinstance(messages, list):
            raise ValueError("needs an object with a list 'conversations' (or 'messages')")
        turns: list[Turn] = []
        asked = answered = 0
        for message in messages:
            speaker, length = self._message(message)
            if speaker in _ANSWERING:
                answered += length if asked else 0  # an answer to nothing is left out
                continue
            if answered:
                turns.append((asked, answered))
                asked = answered = 0
            asked += length
        if answered:
            turns.append((asked, answered))
        if not turns:
            raise ValueError("no question with an answer")
        return turns

    def _message(self, message: Any) -> tuple[str, int]:
        if not isinstance(message, dict):
            raise ValueError(f"a message must be an object, got {shown_cell(message)}")
        speaker = message.get("from", message.get("role"))
        if speaker not in _ASKING | _ANSWERING | _SETTING:
            raise ValueError(f"{shown_cell(speaker)} is not a speaker (human, gpt, system, user, assistant)")
        count = message.get("num_tokens", message.get("tokens"))
        if isinstance(count, list):
            return speaker, len(count)
        if count is not None:
            return speaker, tokens(count, "num_tokens")
        text = message.get("value", message.get("content"))
        if not isinstance(text, str):
            raise ValueError("a message needs text or num_tokens")
        return speaker, -int(-len(text) // self.characters_per_token)


def _conversations(path: Path) -> list[Any]:
    try:
        conversations = json.loads(text_of(path))
    except json.JSONDecodeError as error:
        raise TraceError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise TraceError(f"{path}: not JSON: nested too deeply") from None
    if not isinstance(conversations, list):
        raise TraceError(f"{path}:1: needs a list of conversations")
    return conversations
