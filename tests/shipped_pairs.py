"""Workloads that want more than a language model and retrieval, and the cluster made for each."""

from __future__ import annotations

CLUSTER_OF = {
    "cascade": "h100x8_cascade",
    "kv_retrieval": "h100x8_kv_stores",
    "long_decodes": "pim_box",
    "tool_agent": "h100x8_agents",
}
