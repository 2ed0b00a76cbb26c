"""How a server samples where a client says nothing: as the model's generation_config.json states (vLLM, from 0.6.6 on).

Source: generation_config.json of each model's Hugging Face repository. A model without an entry states neither top-p
nor top-k, so that its logits are not sorted.
"""

from __future__ import annotations

from typing import Final

SORTS_LOGITS: Final[frozenset[str]] = frozenset({
    "llama_2_7b", "llama_2_13b", "llama_2_70b",  # do_sample, temperature 0.6, top_p 0.9
    "llama_3_8b", "llama_3_70b", "llama_3_1_8b", "llama_3_1_70b",  # temperature 0.6, top_p 0.9
    "qwen2_5_7b", "qwen3_14b", "qwen3_32b",  # top_p 0.8 or 0.95, top_k 20
    "qwen3_30b_a3b", "qwen3_30b_a3b_2507", "qwen3_235b_a22b",
})  # fmt: skip
"""Model profiles whose defaults state top-p or top-k."""


def sampling_of(model: str) -> str:
    """`host.sampling` of a server of this model, for clients that state no sampling of their own."""
    return "top_p" if model in SORTS_LOGITS else "plain"
