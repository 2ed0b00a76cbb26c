"""How each family of Hugging Face models writes its shape into config.json.

One small reader a family. What a config leaves out is the default of the family's configuration class in Hugging Face
transformers.
"""

from __future__ import annotations

from hermes_sim.models.families import dense, encoder_decoders, encoders, experts, recurrent
from hermes_sim.models.families.keys import Config, Fields, Reader

FAMILIES: dict[str, Reader] = {
    "bart": encoder_decoders.bart,
    "bert": encoders.bert,
    "bloom": dense.bloom,
    "deepseek_v2": experts.deepseek_v2,
    "deepseek_v3": experts.deepseek_v3,
    "deepseek_v32": experts.deepseek_v32,
    "falcon": dense.falcon,
    "gemma2": dense.gemma2,
    "gemma3": dense.gemma3,
    "gemma3_text": dense.gemma3,
    "glm_moe_dsa": experts.glm_moe_dsa,
    "gpt_oss": experts.gpt_oss,
    "internlm": dense.internlm,
    "internlm2": dense.internlm,
    "kimi_k2": experts.deepseek_v3,
    "llama": dense.llama,
    "llama4": experts.llama4,
    "llama4_text": experts.llama4,
    "mamba2": recurrent.mamba2,
    "mbart": encoder_decoders.bart,
    "minimax_m2": experts.minimax_m2,
    "mistral": dense.mistral,
    "mixtral": experts.mixtral,
    "opt": dense.opt,
    "phi": dense.phi,
    "phimoe": experts.phimoe,
    "qwen": dense.qwen,
    "qwen2": dense.qwen2,
    "qwen3": dense.qwen3,
    "qwen3_5_moe": recurrent.qwen3_5,
    "qwen3_5_moe_text": recurrent.qwen3_5,
    "qwen3_5_text": recurrent.qwen3_5,
    "qwen3_moe": experts.qwen3_moe,
    "qwen3_next": recurrent.qwen3_5,
    "RefinedWeb": dense.falcon,
    "RefinedWebModel": dense.falcon,
    "roberta": encoders.bert,
    "t5": encoder_decoders.t5,
    "xlm-roberta": encoders.bert,
}
"""model_type of config.json -> reader."""

__all__ = ["FAMILIES", "Config", "Fields", "Reader"]
