"""State-space models and hybrids with attention. Keys of config.json to fields of ModelArchitecture."""

from __future__ import annotations

from math import ceil

from hermes_sim.models.architecture import StateSpace
from hermes_sim.models.families.dense import qwen3
from hermes_sim.models.families.experts import qwen3_moe
from hermes_sim.models.families.keys import Config, Fields, required

UNBOUNDED_MODEL_LEN = 1 << 20
"""Longest sequence of models without one: the memory of a state-space model does not grow."""


def mamba2(config: Config) -> Fields:
    """Both spellings: Hugging Face's and that of state-spaces/mamba (d_model, n_layer, ssm_cfg)."""
    inner = config.get("ssm_cfg") or {}
    hidden = int(required(config, "hidden_size", "d_model"))
    num_layers = int(required(config, "num_hidden_layers", "n_layer"))
    head_dim = int(config.get("head_dim") or inner.get("headdim") or 64)
    channels = int(config.get("expand") or inner.get("expand") or 2) * hidden
    multiple = int(config.get("pad_vocab_size_multiple") or 1)
    if config.get("use_bias", False):
        raise ValueError("Mamba-2 projections with bias cannot be described")
    state_space = StateSpace(
        num_layers=num_layers,
        state_size=config.get("state_size") or inner.get("d_state") or 128,
        num_heads=config.get("num_heads") or channels // head_dim,
        head_dim=head_dim,
        num_groups=config.get("n_groups") or inner.get("ngroups") or 1,
        conv_kernel=config.get("conv_kernel") or inner.get("d_conv") or 4,
        conv_bias=bool(config.get("use_conv_bias", True)),
    )
    return {
        "family": "state_space",
        "num_layers": num_layers,
        "hidden_size": hidden,
        "num_heads": 0,
        "num_kv_heads": 0,
        "head_dim": 0,
        "intermediate_size": 0,
        "vocab_size": ceil(int(required(config, "vocab_size")) / multiple) * multiple,
        "max_model_len": int(config.get("max_position_embeddings") or UNBOUNDED_MODEL_LEN),
        "tied_embeddings": bool(config.get("tie_word_embeddings", config.get("tie_embeddings", True))),
        "num_norms_per_layer": 1,
        "state_space": state_space,
    }


def qwen3_5(config: Config) -> Fields:
    """Qwen3-Next and Qwen3.5: gated delta nets, every few layers full attention with an output gate."""
    fields = qwen3_moe(config) if config.get("num_experts") else qwen3(config)
    types = config.get("layer_types")
    if types:
        num_linear = list(types).count("linear_attention")
    else:
        num_linear = fields["num_layers"] - fields["num_layers"] // int(config.get("full_attention_interval", 4))
    state_space = StateSpace(
        kind="gated_delta_net",
        num_layers=num_linear,
        state_size=required(config, "linear_key_head_dim"),
        num_heads=required(config, "linear_num_value_heads"),
        head_dim=required(config, "linear_value_head_dim"),
        num_groups=required(config, "linear_num_key_heads"),
        conv_kernel=config.get("linear_conv_kernel_dim", 4),
    )
    return {**fields, "family": "hybrid", "attention_output_gate": True, "state_space": state_space}
