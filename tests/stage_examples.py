"""One or more examples of every kind of stage, and the models they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.stages import STAGES, Stage

MODEL_FOLDER = Path(__file__).resolve().parents[1] / "workloads" / "models"
MODELS = {
    name: ModelArchitecture.model_validate(yaml.safe_load((MODEL_FOLDER / f"{name}.yaml").read_text()))
    for name in ("e5_base", "bge_reranker_base", "llama_3_8b")
}


def network(folder: str, name: str) -> dict[str, Any]:
    """A network of the library as the loader puts it into a stage."""
    data: dict[str, Any] = yaml.safe_load((MODEL_FOLDER.parent / folder / f"{name}.yaml").read_text())
    return data


TOOL_TIME = {"kind": "fixed", "time": "1 s"}
RETRIEVE = {"kind": "retrieve", "top_k": 8, "tokens_per_document": 256}
IVF_PQ = {"kind": "ivf_pq", "num_vectors": 1e8, "dim": 768, "nlist": 65536, "nprobe": 32, "code_bytes": 64}

EXAMPLES: dict[str, dict[str, Any]] = {
    "diffusion": {
        "kind": "diffusion", "model": network("diffusion_models", "dit_xl_2"), "width": 256, "height": 256,
        "num_steps": 50,
    },
    "encode": {"kind": "encode", "model": network("encoders", "clip_vit_l14_336")},
    "embed": {"kind": "embed", "model": "e5_base", "num_tokens": 64},
    "embed_prompt": {"kind": "embed", "model": "e5_base", "dtype": "bf16"},
    "embed_with_decoder": {"kind": "embed", "model": "llama_3_8b", "num_tokens": 64},
    "flat": {**RETRIEVE, "index": {"kind": "flat", "num_vectors": 1_000_000, "dim": 768}},
    "ivf_flat": {**RETRIEVE, "index": {"kind": "ivf_flat", "num_vectors": 1e7, "dim": 96, "nlist": 4096, "nprobe": 16}},
    "ivf_pq": {**RETRIEVE, "index": IVF_PQ, "queries_per_request": 3},
    "hnsw": {**RETRIEVE, "index": {"kind": "hnsw", "num_vectors": 1e7, "dim": 768}},
    "rerank": {"kind": "rerank", "model": "bge_reranker_base", "num_candidates": 20, "tokens_per_candidate": 128},
    "guard": {"kind": "guard", "model": "llama_3_8b", "num_instruction_tokens": 200, "refuse_frac": 0.1},
    "guard_encoder": {"kind": "guard", "model": "bge_reranker_base", "reads": "both", "max_num_tokens": 512},
    "tokenize": {"kind": "tokenize"},
    "detokenize": {"kind": "detokenize", "tokens_per_s_per_core": 2e6},
    "filter": {"kind": "filter", "rate_per_core": "100 MB/s", "reads": "prompt"},
    "kv_retrieval": {"kind": "kv_retrieval", "stores": ["host"], "hit_frac": [0.5], "num_cached_tokens": 512},
    "prefill": {"kind": "prefill"},
    "decode": {"kind": "decode", "model": "llama_3_8b"},
    "route": {"kind": "route", "outcomes": {"small": 0.7, "large": 0.3}},
    "repeat": {"kind": "repeat", "rounds": 2, "stages": [{"name": "tool", "kind": "timed", "service_time": TOOL_TIME}]},
    "tree_search": {"kind": "tree_search", "rounds": 2, "num_beams": 2, "width": 3, "num_output_tokens": 40},
    "timed": {"kind": "timed", "service_time": {"kind": "exponential", "mean": "10 ms"}},
}  # fmt: skip


def example(name: str) -> Stage:
    """The stage as the loader builds it."""
    data = {"name": name, **EXAMPLES[name]}
    return STAGES[data["kind"]].model_validate(data)
