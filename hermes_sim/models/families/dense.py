"""Dense decoders. Keys of config.json to fields of ModelArchitecture."""

from __future__ import annotations

from hermes_sim.models.families.keys import Config, Fields, all_sliding, decoder, required


def llama(config: Config) -> Fields:
    bias = bool(config.get("attention_bias", False))
    return {**decoder(config), "qkv_bias": bias, "output_bias": bias, "mlp_bias": bool(config.get("mlp_bias", False))}


def internlm(config: Config) -> Fields:
    bias = bool(config.get("bias", False))
    return {**decoder(config), "qkv_bias": bias, "output_bias": bias}


def mistral(config: Config) -> Fields:
    return {**decoder(config), **all_sliding(config)}


def qwen(config: Config) -> Fields:
    """Qwen 1: intermediate_size counts gate and up together."""
    fields = decoder(config)
    bias = not config.get("no_bias", True)
    return {
        **fields,
        "head_dim": int(config.get("kv_channels") or fields["head_dim"]),
        "intermediate_size": int(required(config, "intermediate_size")) // 2,
        "max_model_len": int(config.get("seq_length") or fields["max_model_len"]),
        "qkv_bias": True,
        "output_bias": bias,
        "mlp_bias": bias,
    }


def qwen2(config: Config) -> Fields:
    fields = {**decoder(config), "qkv_bias": True}
    if config.get("use_sliding_window", False) and config.get("sliding_window"):
        fields["sliding_window"] = int(config["sliding_window"])
        fields["num_sliding_layers"] = max(0, fields["num_layers"] - int(config.get("max_window_layers", 28)))
    return fields


def qwen3(config: Config) -> Fields:
    bias = bool(config.get("attention_bias", False))
    return {**qwen2(config), "qkv_bias": bias, "output_bias": bias, "qk_norm": "per_head"}


def gemma2(config: Config) -> Fields:
    """Every other layer slides, the first one too; four norms a layer."""
    fields = decoder({"tie_word_embeddings": True, **config})
    return {
        **fields,
        "num_norms_per_layer": 4,
        "sliding_window": int(config.get("sliding_window") or 4096),
        "num_sliding_layers": (fields["num_layers"] + 1) // 2,
    }


def gemma3(config: Config) -> Fields:
    """Every sixth layer looks at everything. Keys that config.json leaves out are those of Gemma3TextConfig."""
    defaults = {"vocab_size": 262_208, "max_position_embeddings": 131_072, "num_attention_heads": 8}
    fields = gemma2({**defaults, "num_key_value_heads": 4, "head_dim": 256, **config})
    return {
        **fields,
        "qk_norm": "per_head",
        "num_sliding_layers": fields["num_layers"]
        - fields["num_layers"] // int(config.get("sliding_window_pattern") or 6),
    }


def phi(config: Config) -> Fields:
    return {
        **decoder(config),
        "gated_mlp": False,
        "norm": "layer",
        "num_norms_per_layer": 1,
        "parallel_attention": True,
        "qkv_bias": True,
        "output_bias": True,
        "mlp_bias": True,
        "lm_head_bias": True,
    }


def opt(config: Config) -> Fields:
    hidden = int(required(config, "hidden_size"))
    width = int(config.get("word_embed_proj_dim") or hidden)
    pre_norm = bool(config.get("do_layer_norm_before", True))
    max_positions = int(required(config, "max_position_embeddings"))
    bias = bool(config.get("enable_bias", True))
    return {
        **decoder({"tie_word_embeddings": True, **config}),
        "intermediate_size": int(required(config, "ffn_dim")),
        "gated_mlp": False,
        "norm": "layer",
        "final_norm": pre_norm and not config.get("_remove_final_layer_norm", False),
        # The table has two rows more than positions: an offset for padding.
        "learned_positions": max_positions + 2,
        "embedding_size": width if width != hidden else 0,
        "qkv_bias": bias,
        "output_bias": bias,
        "mlp_bias": bias,
    }


def falcon(config: Config) -> Fields:
    """Both architectures: 7B (multi-query, one norm) and 40B or 180B (grouped-query, a norm for each branch)."""
    hidden = int(required(config, "hidden_size"))
    num_heads = int(required(config, "num_attention_heads", "n_head"))
    new = bool(config.get("new_decoder_architecture", False)) or bool(config.get("n_head_kv"))
    parallel = new or bool(config.get("parallel_attn", True))
    if new:
        num_kv_heads = int(required(config, "num_kv_heads", "n_head_kv"))
        num_norms = int(config.get("num_ln_in_parallel_attn") or 2)
    else:
        num_kv_heads = 1 if config.get("multi_query", True) else num_heads
        num_norms = 1 if parallel else 2
    bias = bool(config.get("bias", False))
    return {
        "num_layers": int(required(config, "num_hidden_layers", "n_layer")),
        "hidden_size": hidden,
        "num_heads": num_heads,
        "num_kv_heads": num_kv_heads,
        "head_dim": hidden // num_heads,
        "intermediate_size": int(config.get("ffn_hidden_size") or 4 * hidden),
        "vocab_size": int(required(config, "vocab_size")),
        "max_model_len": int(config.get("max_position_embeddings") or 2048),
        "tied_embeddings": bool(config.get("tie_word_embeddings", True)),
        "gated_mlp": False,
        "norm": "layer",
        "num_norms_per_layer": num_norms,
        "parallel_attention": parallel,
        "alibi": bool(config.get("alibi", False)),
        "qkv_bias": bias,
        "output_bias": bias,
        "mlp_bias": bias,
    }


def bloom(config: Config) -> Fields:
    hidden = int(required(config, "hidden_size", "n_embed"))
    num_heads = int(required(config, "n_head", "num_attention_heads"))
    return {
        "num_layers": int(required(config, "n_layer", "num_hidden_layers")),
        "hidden_size": hidden,
        "num_heads": num_heads,
        "num_kv_heads": num_heads,
        "head_dim": hidden // num_heads,
        "intermediate_size": 4 * hidden,
        "vocab_size": int(required(config, "vocab_size")),
        "max_model_len": int(config.get("seq_length") or 2048),
        "tied_embeddings": bool(config.get("tie_word_embeddings", True)),
        "gated_mlp": False,
        "embedding_norm": True,
        "norm": "layer",
        "alibi": True,
        "qkv_bias": True,
        "output_bias": True,
        "mlp_bias": True,
    }
