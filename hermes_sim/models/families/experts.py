"""Decoders with mixtures of experts. Keys of config.json to fields of ModelArchitecture."""

from __future__ import annotations

from math import ceil

from hermes_sim.models.architecture import Mla, Moe, SparseIndexer
from hermes_sim.models.families.dense import llama, qwen3
from hermes_sim.models.families.keys import Config, Fields, all_sliding, decoder, required


def mixtral(config: Config) -> Fields:
    moe = Moe(
        num_experts=required(config, "num_local_experts"),
        num_experts_per_token=required(config, "num_experts_per_tok"),
        expert_intermediate_size=required(config, "intermediate_size"),
    )
    return {**decoder(config), **all_sliding(config), "intermediate_size": 0, "moe": moe}


def phimoe(config: Config) -> Fields:
    bias = bool(config.get("attention_bias", True))
    return {
        **mixtral(config),
        "norm": "layer",
        "qkv_bias": bias,
        "output_bias": bias,
        "lm_head_bias": bool(config.get("lm_head_bias", True)),
    }


def qwen3_moe(config: Config) -> Fields:
    fields = qwen3(config)
    every = int(config.get("decoder_sparse_step", 1))
    dense = sorted(config.get("mlp_only_layers") or ())
    if dense != list(range(len(dense))) or (dense and every > 1):
        raise ValueError(f"mlp_only_layers {dense} are not the leading layers: this cannot be described")
    shared = int(config.get("shared_expert_intermediate_size") or 0)
    moe = Moe(
        num_experts=required(config, "num_experts"),
        num_experts_per_token=required(config, "num_experts_per_tok"),
        expert_intermediate_size=required(config, "moe_intermediate_size"),
        num_shared_experts=1 if shared else 0,
        shared_expert_intermediate_size=shared,
        shared_expert_gate=shared > 0,
        first_dense_layers=len(dense),
        every_num_layers=every,
    )
    has_dense = bool(dense) or every > 1
    return {**fields, "intermediate_size": fields["intermediate_size"] if has_dense else 0, "moe": moe}


def llama4(config: Config) -> Fields:
    """Chunked attention, three layers of four, is described as a window of the chunk's size: its upper bound."""
    fields = llama(config)
    layers = fields["num_layers"]
    chunked = layers - layers // int(config.get("no_rope_layer_interval", 4))
    if config.get("no_rope_layers"):
        chunked = sum(1 for rotary in config["no_rope_layers"] if rotary)
    width = int(required(config, "intermediate_size"))
    every = int(config.get("interleave_moe_layer_step", 1))
    moe = Moe(
        num_experts=required(config, "num_local_experts"),
        num_experts_per_token=required(config, "num_experts_per_tok"),
        expert_intermediate_size=width,
        num_shared_experts=1,
        every_num_layers=every,
    )
    return {
        **fields,
        "intermediate_size": int(required(config, "intermediate_size_mlp")) if every > 1 else 0,
        "sliding_window": int(config.get("attention_chunk_size") or 8192),
        "num_sliding_layers": chunked,
        "moe": moe,
    }


def deepseek_v2(config: Config) -> Fields:
    fields = decoder(config)
    if int(config.get("moe_layer_freq", 1)) != 1:
        raise ValueError("moe_layer_freq other than 1 cannot be described")
    mla = Mla(
        q_lora_rank=config.get("q_lora_rank") or 0,
        kv_lora_rank=required(config, "kv_lora_rank"),
        qk_nope_head_dim=required(config, "qk_nope_head_dim"),
        qk_rope_head_dim=required(config, "qk_rope_head_dim"),
        v_head_dim=required(config, "v_head_dim"),
    )
    dense = int(config.get("first_k_dense_replace", 0))
    moe = Moe(
        num_experts=required(config, "n_routed_experts"),
        num_experts_per_token=required(config, "num_experts_per_tok"),
        expert_intermediate_size=required(config, "moe_intermediate_size"),
        num_shared_experts=config.get("n_shared_experts") or 0,
        first_dense_layers=dense,
    )
    intermediate = fields["intermediate_size"] if dense else 0
    return {**fields, "head_dim": mla.qk_head_dim, "intermediate_size": intermediate, "mla": mla, "moe": moe}


def deepseek_v3(config: Config) -> Fields:
    """Version 3 balances experts with a learned correction of the router's scores."""
    fields = deepseek_v2(config)
    return {**fields, "moe": fields["moe"].model_copy(update={"router_bias": True})}


def deepseek_v32(config: Config) -> Fields:
    return _with_indexer(config, num_index_heads=64)


def glm_moe_dsa(config: Config) -> Fields:
    return _with_indexer(config, num_index_heads=32)


def _with_indexer(config: Config, num_index_heads: int) -> Fields:
    fields = deepseek_v3(config)
    types = config.get("indexer_types")
    every = int(config.get("index_topk_freq") or 1)
    num_layers = list(types).count("full") if types else ceil(fields["num_layers"] / every)
    indexer = SparseIndexer(
        num_heads=config.get("index_n_heads") or num_index_heads,
        head_dim=config.get("index_head_dim") or 128,
        top_k=config.get("index_topk") or 2048,
        num_layers=num_layers,
    )
    return {**fields, "mla": fields["mla"].model_copy(update={"indexer": indexer})}


def gpt_oss(config: Config) -> Fields:
    fields = llama({"attention_bias": True, **config})
    types = config.get("layer_types")
    sliding = list(types).count("sliding_attention") if types else ceil(fields["num_layers"] / 2)
    moe = Moe(
        num_experts=required(config, "num_local_experts"),
        num_experts_per_token=required(config, "num_experts_per_tok", "experts_per_token"),
        expert_intermediate_size=required(config, "intermediate_size"),
        router_bias=True,
        expert_bias=True,
    )
    return {
        **fields,
        "intermediate_size": 0,
        "attention_sinks": True,
        "sliding_window": int(config.get("sliding_window") or 128),
        "num_sliding_layers": sliding,
        "moe": moe,
    }


def minimax_m2(config: Config) -> Fields:
    moe = Moe(
        num_experts=required(config, "num_local_experts"),
        num_experts_per_token=required(config, "num_experts_per_tok"),
        expert_intermediate_size=required(config, "intermediate_size"),
        router_bias=bool(config.get("use_routing_bias", True)),
    )
    qk_norm = str(config.get("qk_norm_type", "per_layer")) if config.get("use_qk_norm", True) else "none"
    return {**decoder(config), "intermediate_size": 0, "qk_norm": qk_norm, "moe": moe}
