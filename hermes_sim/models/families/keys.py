"""What readers of config.json share: keys with a clear error, and the shape that nearly all decoders have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Config = Mapping[str, Any]
Fields = dict[str, Any]
"""Of ModelArchitecture."""
Reader = Callable[[Config], Fields]


def required(config: Config, *keys: str) -> Any:
    """Value of the first key that the config has; ValueError if none."""
    for key in keys:
        if config.get(key) is not None:
            return config[key]
    raise ValueError(f"config.json of family '{config.get('model_type')}' has no '{keys[0]}'")


def decoder(config: Config) -> Fields:
    """What nearly all decoders share: grouped-query attention, RMSNorm, SwiGLU."""
    num_heads = int(required(config, "num_attention_heads"))
    hidden = int(required(config, "hidden_size"))
    return {
        "num_layers": int(required(config, "num_hidden_layers")),
        "hidden_size": hidden,
        "num_heads": num_heads,
        "num_kv_heads": int(config.get("num_key_value_heads") or num_heads),
        "head_dim": int(config.get("head_dim") or hidden // num_heads),
        "intermediate_size": int(config.get("intermediate_size") or 0),
        "vocab_size": int(required(config, "vocab_size")),
        "max_model_len": int(required(config, "max_position_embeddings", "seq_length")),
        "tied_embeddings": bool(config.get("tie_word_embeddings", False)),
    }


def all_sliding(config: Config) -> Fields:
    """A window on every layer, where the config states one."""
    window = config.get("sliding_window")
    if not window:
        return {}
    return {"sliding_window": int(window), "num_sliding_layers": int(required(config, "num_hidden_layers"))}
