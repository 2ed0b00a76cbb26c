"""Workloads that want more than a language model and retrieval, and the cluster made for each."""

from __future__ import annotations

CLUSTER_OF = {
    "adapters": "h100x8_lora",
    "best_of_n_verifier": "h100x8_verifier",
    "cascade": "h100x8_cascade",
    "edge_chat": "edge_cloud",
    "guarded": "h100x8_guarded",
    "kv_retrieval": "h100x8_kv_stores",
    "long_decodes": "pim_box",
    "long_prompts": "h100x32_racks",
    "text_to_image": "h100x8_diffusion",
    "text_to_image_mixture": "h100x8_diffusion",
    "tiers": "h100x8_front_door",
    "token_routing": "h100x8_token_routing",
    "tool_agent": "h100x8_agents",
    "tool_waits": "h100x8_agents_auto",
    "tree_search": "h100x8_verifier",
    "vision": "h100x8_encode",
    "voice": "h100x8_encode",
}

WORKLOAD_OF = {cluster: workload for workload, cluster in CLUSTER_OF.items()} | {"h100x8_shared": "cascade"}
"""Clusters that `rag` is not for, and a workload that is."""
