"""What prompts have in common, as ids of their 16-token blocks: the simulator's prefix cache then hits as the real one.

Raises nothing; ids are small integers that mean the same content wherever they appear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hermes_sim.workload.requests import concatenate_hashes

IntArray = npt.NDArray[np.int64]

BLOCK_TOKENS: Final = 16
"""Granularity in which the measurements state shared prefixes, and vLLM's own."""

MOST_BLOCKS: Final = 1 << 20
"""Above the blocks of any prompt."""


@dataclass(frozen=True, slots=True)
class BlockIds:
    """hash_offsets and hash_ids of a request table with blocks of BLOCK_TOKENS."""

    offsets: IntArray
    ids: IntArray


def prompts_seen_before(num_prompt_tokens: Sequence[int], num_seen_tokens: Sequence[int]) -> BlockIds:
    """Prompts of which the first tokens have been seen in an earlier prompt.

    num_seen_tokens: [num_requests]. Which earlier prompt it was is not recorded: the latest one that is long enough.
    """
    rows: list[list[int]] = []
    fresh = 0
    for tokens, seen in zip(num_prompt_tokens, num_seen_tokens, strict=True):
        num_blocks, num_shared = tokens // BLOCK_TOKENS, min(seen, tokens) // BLOCK_TOKENS
        donor = next((row for row in reversed(rows) if len(row) >= num_shared), []) if num_shared else []
        shared = donor[:num_shared]
        own = range(fresh, fresh + num_blocks - len(shared))
        fresh += len(own)
        rows.append([*shared, *own])
    return BlockIds(*concatenate_hashes(rows))


def cycled_prompts(
    num_requests: int, num_prompt_tokens: Sequence[int], num_groups: int, system_tokens: int
) -> BlockIds:
    """Requests that send the same prompts over and over, in turn; prompts of a group begin with the same tokens.

    num_prompt_tokens: [num_prompts], the prompts of a group one after the other.
    """
    per_group = -(-len(num_prompt_tokens) // num_groups)
    rows = []
    for prompt, tokens in enumerate(num_prompt_tokens):
        num_blocks = int(tokens) // BLOCK_TOKENS
        num_shared = min(system_tokens // BLOCK_TOKENS, num_blocks)
        group = (len(num_prompt_tokens) + prompt // per_group) * MOST_BLOCKS
        own = prompt * MOST_BLOCKS
        rows.append([group + block if block < num_shared else own + block for block in range(num_blocks)])
    return BlockIds(*concatenate_hashes([rows[number % len(rows)] for number in range(num_requests)]))
