"""Workloads that want more than a language model and retrieval, and the cluster made for each."""

from __future__ import annotations

CLUSTER_OF = {
    "best_of_n_verifier": "h100x8_verifier",
    "cascade": "h100x8_cascade",
    "kv_retrieval": "h100x8_kv_stores",
    "token_routing": "h100x8_token_routing",
    "tool_agent": "h100x8_agents",
    "tool_waits": "h100x8_agents_auto",
    "tree_search": "h100x8_verifier",
}
