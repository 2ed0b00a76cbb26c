"""How the KV cache of a model is cut into blocks: one pool, from which layers of every kind take blocks of one size.

vLLM's hybrid allocator (vllm/v1/core/kv_cache_utils.py): attention layers are gathered into groups of equal size, each
of one kind; a block of the pool holds `block_tokens` tokens of the layers of one group. Every group of a sequence takes
blocks of its own; those of sliding layers are given back when they fall out of the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from hermes_sim.models.architecture import ModelArchitecture

NEARLY_EQUAL = 1.25
"""Kinds whose numbers of layers differ by less share one group size, the larger, with some room left empty."""


@dataclass(frozen=True, slots=True)
class KvLayout:
    """Blocks of the pool that a sequence takes."""

    group_layers: int
    """Attention layers of one group: a block of the pool holds their KV."""
    num_layers: int
    """All attention layers."""
    window_groups: int
    """Groups of sliding layers beside the full ones: blocks taken more, while inside the window."""
    window_tokens: int
    """0: nothing slides."""
    full_layers: bool
    """Some layers look at everything; False: every layer slides."""

    @property
    def group_frac(self) -> float:
        """Share of a token's KV bytes that lie in one block."""
        return self.group_layers / self.num_layers if self.num_layers else 0.0

    def window_blocks(self, block_tokens: int) -> int:
        """Blocks that can hold tokens inside a window; 0 without one."""
        return ceil(self.window_tokens / block_tokens) + 1 if self.window_tokens else 0


def kv_layout(model: ModelArchitecture) -> KvLayout:
    """Groups of the model's attention layers.

    The size of a group is the number of layers of the rarer kind, or of the more frequent one if they are nearly equal.
    Where full layers are the more frequent ones, all of them are one group here (vLLM makes several, and rounds up
    less). Recurrent layers keep a state outside the pool.
    """
    full, sliding = model.num_full_attention_layers, model.num_sliding_layers
    if sliding == 0:
        return KvLayout(full, full, 0, 0, True)
    if full == 0:
        return KvLayout(sliding, sliding, 0, model.sliding_window, False)
    group = full if sliding >= NEARLY_EQUAL * full else max(full, sliding)
    return KvLayout(group, full + sliding, ceil(sliding / group), model.sliding_window, True)
