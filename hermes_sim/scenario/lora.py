"""`engines[].lora`: low-rank adapters that requests name, and where an engine keeps them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hermes_sim.core.schema import Description, Name, PositiveInt


class Lora(Description):
    """Slots for adapters in the memory of an engine (LoRA, arXiv 2106.09685), as in vLLM."""

    max_loras: PositiveInt
    """Slots: sequences of at most so many adapters run together. Their memory is taken from the KV cache."""
    rank: PositiveInt = 16
    """Of all adapters."""
    targets: tuple[Literal["qkv", "out", "up", "down"], ...] = Field(default=("qkv", "out", "up", "down"), min_length=1)
    """Matrices that have adapters: query, key and value; the attention's output; gate and up; down."""
    adapters_on: Name | None = None
    """Device group of the node in whose memory all adapters lie; a processor of the node if not given. Those in no slot
    are copied from there, and the step waits for them."""
