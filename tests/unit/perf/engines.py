"""Small hand-made devices, models and engines, with numbers that can be followed on paper."""

from __future__ import annotations

from typing import Any

from hermes_sim.hardware.device import Device
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.perf.step_cost import LlmCost, build_llm_cost

ESTIMATE = {"title": "test", "where": "test", "kind": "estimate"}


def plain_device(**cost_model: Any) -> Device:
    """100 TFLOP/s, 1 TB/s, 100 cores; half the peak, half the bandwidth, launches of 1 us, nothing else."""
    block: dict[str, Any] = {
        "gemm": {"bf16": {"compute_frac": 0.5, "memory_frac": 0.5, "launch": "1 us", "core_streams": 1e9}},
        "attention_prefill_compute_frac": 0.5,
        "attention_decode_memory_frac": 0.5,
        "elementwise_memory_frac": 0.5,
        "elementwise_launch": "1 us",
        "kernel_launch": "4 us",
        "attention": {
            "decode_launch": "1 us",
            "prefill_launch": "1 us",
            "decode_compute_frac": 1.0,
            "row_tokens": 0.0,
        },
        "source": ESTIMATE,
    }
    return Device.model_validate(
        {
            "name": "plain",
            "title": "Plain device",
            "kind": "gpu",
            "class": "datacenter_hopper",
            "peak": {"bf16": "100 TFLOP/s", "fp32": "10 TFLOP/s"},
            "memory": {"kind": "hbm3", "capacity": "80 GB", "bandwidth": "1 TB/s"},
            "num_cores": 100,
            "power": {"idle": "50 W", "tdp": "400 W"},
            "price": "2 USD/h",
            "cost_model": {**block, **cost_model},
            "sources": {"": ESTIMATE},
        }
    )


def tiny_model(**changes: Any) -> ModelArchitecture:
    """Two layers of width 1024: 8 heads of 128, 2 KV heads, feed-forward 4096, vocabulary 32000."""
    shape: dict[str, Any] = {
        "name": "tiny",
        "title": "Tiny",
        "num_layers": 2,
        "hidden_size": 1024,
        "num_heads": 8,
        "num_kv_heads": 2,
        "head_dim": 128,
        "intermediate_size": 4096,
        "vocab_size": 32000,
        "max_model_len": 8192,
        "sources": {},
    }
    return ModelArchitecture.model_validate({**shape, **changes})


def engine(model: ModelArchitecture, device: Device, **changes: Any) -> LlmCost:
    """An engine of one device, unless told otherwise."""
    settings: dict[str, Any] = {
        "tp": 1,
        "pp": 1,
        "ep": 1,
        "max_tokens": 512,
        "max_seqs": 64,
        "tp_bandwidth_bytes_per_s": 100e9,
        "tp_latency_s": 5e-6,
        "pp_bandwidth_bytes_per_s": 10e9,
        "pp_latency_s": 10e-6,
        "kv_dtype": model.kv_dtype,
        "host_per_step_s": 100e-6,
        "host_per_sequence_s": 1e-6,
        "graph_capture": True,
        "max_captured_seqs": 512,
    }
    return build_llm_cost(model, device, **{**settings, **changes})
