"""Encoder-decoder models. Keys of config.json to fields of ModelArchitecture."""

from __future__ import annotations

from hermes_sim.models.families.keys import Config, Fields, required


def t5(config: Config) -> Fields:
    """T5 and its version 1.1 (gated feed-forward, output matrix of its own). Its positions know no longest sequence.

    The length it was trained for is counted for each stack.
    """
    return {
        "family": "encoder_decoder",
        "num_layers": int(config.get("num_decoder_layers") or required(config, "num_layers")),
        "num_encoder_layers": int(required(config, "num_layers")),
        "hidden_size": int(required(config, "d_model")),
        "num_heads": int(required(config, "num_heads")),
        "num_kv_heads": int(required(config, "num_heads")),
        "head_dim": int(required(config, "d_kv")),
        "intermediate_size": int(required(config, "d_ff")),
        "vocab_size": int(required(config, "vocab_size")),
        "max_model_len": 2 * int(config.get("n_positions") or 512),
        "gated_mlp": str(config.get("feed_forward_proj", "relu")).startswith("gated"),
        "tied_embeddings": bool(config.get("tie_word_embeddings", True)),
        "relative_position_buckets": int(config.get("relative_attention_num_buckets", 32)),
    }


def bart(config: Config) -> Fields:
    """BART and mBART, which has a norm at the end of each stack. Both stacks must have one width."""
    hidden, num_heads = int(required(config, "d_model")), int(required(config, "encoder_attention_heads"))
    for part in ("attention_heads", "ffn_dim"):
        encoder, decoder = required(config, f"encoder_{part}"), required(config, f"decoder_{part}")
        if encoder != decoder:
            raise ValueError(f"encoder_{part} {encoder} and decoder_{part} {decoder} differ: that cannot be described")
    positions = int(required(config, "max_position_embeddings"))
    return {
        "family": "encoder_decoder",
        "num_layers": int(required(config, "decoder_layers")),
        "num_encoder_layers": int(required(config, "encoder_layers")),
        "hidden_size": hidden,
        "num_heads": num_heads,
        "num_kv_heads": num_heads,
        "head_dim": hidden // num_heads,
        "intermediate_size": int(required(config, "encoder_ffn_dim")),
        "vocab_size": int(required(config, "vocab_size")),
        "max_model_len": 2 * positions,
        "gated_mlp": False,
        "tied_embeddings": bool(config.get("tie_word_embeddings", True)),
        # The tables have two rows more than positions: an offset for padding.
        "learned_positions": positions + 2,
        "embedding_norm": True,
        "norm": "layer",
        "final_norm": config.get("model_type") == "mbart",
        "qkv_bias": True,
        "output_bias": True,
        "mlp_bias": True,
    }
