"""Workloads that want more than a language model and retrieval, and the cluster made for each."""

from __future__ import annotations

CLUSTER_OF = {
    "adapters": "h100x8_lora",
    "cascade": "h100x8_cascade",
    "edge_chat": "edge_cloud",
    "guarded": "h100x8_guarded",
    "kv_retrieval": "h100x8_kv_stores",
    "long_decodes": "pim_box",
    "long_prompts": "h100x32_racks",
    "text_to_image": "h100x8_diffusion",
    "text_to_image_mixture": "h100x8_diffusion",
    "tool_agent": "h100x8_agents",
    "vision": "h100x8_encode",
    "voice": "h100x8_encode",
}
