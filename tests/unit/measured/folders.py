"""Small folders of measured tables, written as their origins write them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def gemm_rows(num_rows: int = 4) -> pd.DataFrame:
    """As ai-dynamo/aiconfigurator writes products."""
    sizes = [2**exponent for exponent in range(5, 5 + num_rows)]
    return pd.DataFrame(
        {
            "version": "0.24.0",
            "kernel_source": "torch.nn.functional.linear",
            "gemm_dtype": "bfloat16",
            "m": sizes,
            "n": 4096,
            "k": 1024,
            "latency_ms": [0.01 * size for size in range(1, 1 + num_rows)],
        }
    )


def attention_rows(new_tokens: int, history: int, num_rows: int = 3) -> pd.DataFrame:
    """As the same origin writes attention; decodes have one new token."""
    return pd.DataFrame(
        {
            "version": "0.24.0",
            "kernel_source": "vllm_flash_attn_fa3",
            "batch_size": list(range(1, 1 + num_rows)),
            "isl": new_tokens,
            "num_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "attn_dtype": "bfloat16",
            "kv_cache_dtype": "fp8",
            "step": history,
            "window_size": 0,
            "latency_ms": [0.02, 0.03, 0.05][:num_rows],
        }
    )


def layer_rows() -> pd.DataFrame:
    """As microsoft/vidur writes the parts of a layer: a gated model split over two devices."""
    return pd.DataFrame(
        {
            "device": "a100",
            "model": "meta-llama/Llama-2-7b-hf",
            "num_tokens": [128, 256],
            "tp": 2,
            "n_embd": 4096,
            "n_head": 32,
            "n_kv_head": 32,
            "n_expanded_embd": 11008,
            "vocab_size": 32000,
            "use_gated_mlp": True,
            "input_layernorm_ms": [0.008, 0.009],
            "attn_pre_proj_ms": [0.05, 0.07],
            "mlp_act_ms": [0.0, 0.011],
            "mlp_down_proj_ms": [0.04, None],
        }
    )


def write(folder: Path, name: str, table: pd.DataFrame) -> Path:
    """Writes a table under the folder, by the ending of its name."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    return path
