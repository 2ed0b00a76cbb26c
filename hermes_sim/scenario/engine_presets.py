"""Defaults of named serving engines, and where each of them is stated. docs/engine-presets.md prints the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hermes_sim.batching import TokenBatching

_PRESET_KEY: Final = "engine_preset"

STAGE_RATES_FIT: Final = (
    "fitted to stage-rate runs of Llama-3.1-8B (kubernetes-sigs/inference-perf, inference-sim), vLLM 0.11 and 0.15, by "
    "calibration/host_open_loop.py; median error there 2% of ITL, 3% of TTFT"
)
STEP_TIMES_FIT: Final = (
    "fitted to step times of Mutinifni/splitwise-sim (commit 8f99e7dc9b40), TP 8, by calibration/host_open_loop.py; "
    "mean error there 8% of prompts, 3% of tokens"
)


@dataclass(frozen=True, slots=True)
class PresetValue:
    """What an engine does where its user says nothing."""

    value: Any
    where: str
    """File and name in the engine's source, or section of its documentation or paper."""
    is_sure: bool = True
    """False: the engine derives it from the machine, or the source does not say; a typical value stands for it."""


@dataclass(frozen=True, slots=True)
class EnginePreset:
    """One engine as it comes."""

    title: str
    values: Mapping[str, PresetValue]
    """Key path of an engine, such as `batching.kind`, to its value."""


def _stated(value: Any, where: str) -> PresetValue:
    return PresetValue(value, where)


def _typical(value: Any, where: str) -> PresetValue:
    return PresetValue(value, where, is_sure=False)


def _fitted(value: Any, where: str) -> PresetValue:
    return PresetValue(value, where)


ENGINE_PRESETS: dict[str, EnginePreset] = {
    "vllm_v1": EnginePreset(
        "vLLM, V1 engine",
        {
            "batching.kind": _stated("chunked_prefill", "vllm/v1/core/sched/scheduler.py, Scheduler.schedule"),
            "batching.max_num_seqs": _stated(
                256, "vllm/engine/arg_utils.py, get_batch_defaults, API server; 1024 on 70 GiB and more but for A100"
            ),
            "batching.max_num_batched_tokens": _stated(
                2048, "vllm/engine/arg_utils.py, get_batch_defaults, API server; 8192 on 70 GiB and more but for A100"
            ),
            "batching.long_prefill_token_threshold": _stated(0, "vllm/config/scheduler.py, SchedulerConfig"),
            "batching.watermark_frac": _stated(0.0, "vllm/config/scheduler.py, SchedulerConfig.watermark"),
            "batching.full_sequence_gate": _stated(True, "vllm/config/scheduler.py, scheduler_reserve_full_isl"),
            "batching.queue_order": _stated("fcfs", "vllm/config/scheduler.py, SchedulerConfig.policy"),
            "batching.output_reserve_frac": _stated(0.0, "vllm/v1/core/kv_cache_manager.py, allocate_slots"),
            "batching.preemption": _stated("recompute", "vllm/v1/core/sched/scheduler.py, _preempt_request"),
            "batching.victim": _stated("last", "vllm/v1/core/sched/scheduler.py, self.running.pop()"),
            "batching.async_scheduling": _stated(
                True, "vllm/config/vllm.py, VllmConfig.__post_init__; here off with a pipeline or drafts"
            ),
            "kv_cache.memory_fraction": _stated(0.9, "vllm/config/cache.py, gpu_memory_utilization"),
            "kv_cache.block_tokens": _stated(16, "vllm/config/cache.py, CacheConfig.block_size on CUDA"),
            "kv_cache.prefix_caching": _stated(True, "vllm/config/cache.py, CacheConfig.enable_prefix_caching"),
            "kv_cache.prefix_cache": _stated("hash", "vllm/v1/core/kv_cache_utils.py, hash_block_tokens"),
            "kv_cache.insert_at": _stated("schedule", "vllm/v1/core/kv_cache_manager.py, allocate_slots: cache_blocks"),
            "parallel.kernels": _stated(
                "vllm", "vllm/distributed/device_communicators/custom_all_reduce.py; fused_moe"
            ),
            "host.graph_capture": _stated(True, "vllm/config/compilation.py, CompilationConfig.cudagraph_mode"),
            "host.max_captured_seqs": _stated(512, "vllm/config/vllm.py, _set_cudagraph_sizes: at most 512"),
            "host.captured_frac": _fitted(0.6054, STAGE_RATES_FIT),
            "host.per_step": _fitted("831 us", STAGE_RATES_FIT),
            "host.per_sequence": _fitted("0 us", STAGE_RATES_FIT),
            "host.sort_bytes_per_logit": _fitted(183.9, STAGE_RATES_FIT),
            "host.sort_cycles_per_logit": _fitted(1.478, STAGE_RATES_FIT),
            "host.detokenize": _fitted({"per_message": "6.507 ms"}, STAGE_RATES_FIT),
        },
    ),
    "vllm_v0": EnginePreset(
        "vLLM, V0 engine without chunked prefill",
        {
            "batching.kind": _stated("prefill_first", "vllm/core/scheduler.py, Scheduler._schedule_default"),
            "batching.chunk_prompts": _stated(False, "vllm/config.py, SchedulerConfig.enable_chunked_prefill"),
            "batching.max_num_seqs": _stated(256, "vllm/engine/arg_utils.py, EngineArgs.max_num_seqs"),
            "batching.max_num_batched_tokens": _typical(
                8192, "vllm/config.py takes the larger of 2048 and the model's longest sequence"
            ),
            "batching.watermark_frac": _stated(0.01, "vllm/core/block_manager.py, watermark"),
            "batching.full_sequence_gate": _stated(True, "vllm/core/block_manager.py, can_allocate: the whole prompt"),
            "batching.queue_order": _stated("fcfs", "vllm/config.py, SchedulerConfig.policy"),
            "batching.output_reserve_frac": _stated(0.0, "vllm/core/block_manager.py, can_allocate"),
            "batching.preemption": _stated("recompute", "vllm/core/scheduler.py, _preempt: one sequence per request"),
            "batching.victim": _stated("last", "vllm/core/scheduler.py, _schedule_running: running_queue.pop()"),
            "batching.async_scheduling": _stated(False, "vllm/engine/llm_engine.py, LLMEngine.step"),
            "kv_cache.memory_fraction": _stated(0.9, "vllm/config.py, CacheConfig.gpu_memory_utilization"),
            "kv_cache.block_tokens": _stated(16, "vllm/engine/arg_utils.py, EngineArgs.block_size"),
            "kv_cache.prefix_caching": _stated(False, "vllm/engine/arg_utils.py, enable_prefix_caching"),
            "kv_cache.prefix_cache": _stated("hash", "vllm/core/block/prefix_caching_block.py"),
            "kv_cache.insert_at": _stated(
                "step_end", "vllm/core/scheduler.py, mark_blocks_as_computed: seen by the next step"
            ),
            "kv_cache.swap_space": _stated("4 GiB", "vllm/engine/arg_utils.py, EngineArgs.swap_space"),
            "parallel.kernels": _stated(
                "vllm", "vllm/distributed/device_communicators/custom_all_reduce.py; fused_moe"
            ),
            "host.graph_capture": _stated(True, "vllm/worker/model_runner.py, CUDAGraphRunner"),
            "host.max_captured_seqs": _stated(256, "vllm/worker/model_runner.py, _BATCH_SIZES_TO_CAPTURE"),
        },
    ),
    "sglang": EnginePreset(
        "SGLang",
        {
            "batching.kind": _stated("prefill_first", "sglang/srt/managers/scheduler.py, get_next_batch_to_run"),
            "batching.chunk_prompts": _stated(True, "sglang/srt/server_args.py, chunked_prefill_size"),
            "batching.max_num_seqs": _typical(
                2048,
                "sglang/srt/model_executor/model_runner.py derives 2048 to 4096 requests from the size of the cache",
            ),
            "batching.max_num_batched_tokens": _typical(
                8192, "sglang/srt/server_args.py, chunked_prefill_size of 60 to 160 GiB; less below, 16384 above"
            ),
            "batching.watermark_frac": _stated(0.0, "sglang/srt/managers/schedule_policy.py, PrefillAdder"),
            "batching.full_sequence_gate": _stated(
                True, "sglang/srt/managers/schedule_policy.py, PrefillAdder.add_one_req: the whole prompt"
            ),
            "batching.queue_order": _stated("fcfs", "sglang/srt/server_args.py, schedule_policy"),
            "batching.output_reserve_frac": _typical(
                0.7,
                "sglang/srt/environ.py, SGLANG_INIT_NEW_TOKEN_RATIO; SGLang lets it decay to a seventh in 600 steps",
            ),
            "batching.preemption": _stated("recompute", "sglang/srt/managers/schedule_batch.py, retract_decode"),
            "batching.victim": _stated("fewest_generated", "sglang/srt/managers/schedule_batch.py, retract_decode"),
            "batching.async_scheduling": _stated(
                True, "sglang/srt/server_args.py, disable_overlap_schedule; here off with a pipeline or drafts"
            ),
            "kv_cache.memory_fraction": _typical(0.88, "sglang/srt/server_args.py derives mem_fraction_static"),
            "kv_cache.block_tokens": _stated(1, "sglang/srt/server_args.py, page_size"),
            "kv_cache.prefix_caching": _stated(True, "sglang/srt/server_args.py, disable_radix_cache"),
            "kv_cache.prefix_cache": _stated("radix", "sglang/srt/mem_cache/radix_cache.py; arXiv 2312.07104"),
            "kv_cache.insert_at": _stated("step_end", "sglang/srt/mem_cache/radix_cache.py, cache_unfinished_req"),
            "parallel.kernels": _stated("sglang", "sglang/srt/distributed/device_communicators/custom_all_reduce.py"),
            "host.graph_capture": _stated(True, "sglang/srt/server_args.py, disable_cuda_graph"),
            "host.max_captured_seqs": _typical(
                256, "sglang/srt/server_args.py, cuda_graph_max_bs of 60 to 160 GiB and tp below 4; 512 from tp 4"
            ),
        },
    ),
    "trtllm": EnginePreset(
        "TensorRT-LLM, PyTorch backend",
        {
            "batching.kind": _stated("continuous", "tensorrt_llm/llmapi/llm_args.py, enable_chunked_prefill: off"),
            "batching.max_num_seqs": _stated(2048, "tensorrt_llm/builder.py, BuildConfig.max_batch_size"),
            "batching.max_num_batched_tokens": _stated(8192, "tensorrt_llm/builder.py, BuildConfig.max_num_tokens"),
            "batching.watermark_frac": _stated(0.0, "capacityScheduler.cpp, GuaranteedNoEvictScheduler"),
            "batching.full_sequence_gate": _stated(True, "capacityScheduler.cpp, GuaranteedNoEvictScheduler"),
            "batching.queue_order": _stated("fcfs", "capacityScheduler.cpp, active requests in order of arrival"),
            "batching.output_reserve_frac": _stated(
                1.0, "tensorrt_llm/llmapi/llm_args.py, SchedulerConfig: GUARANTEED_NO_EVICT"
            ),
            "batching.preemption": _stated("recompute", "never happens under GUARANTEED_NO_EVICT"),
            "batching.victim": _stated("last", "never happens under GUARANTEED_NO_EVICT"),
            "batching.async_scheduling": _stated(
                True, "tensorrt_llm/llmapi/llm_args.py, disable_overlap_scheduler; here off with a pipeline or drafts"
            ),
            "kv_cache.memory_fraction": _typical(
                0.9, "tensorrt_llm/llmapi/llm_args.py, free_gpu_memory_fraction; there of what the weights leave free"
            ),
            "kv_cache.block_tokens": _stated(32, "tensorrt_llm/llmapi/llm_args.py, KvCacheConfig.tokens_per_block"),
            "kv_cache.prefix_caching": _stated(True, "tensorrt_llm/llmapi/llm_args.py, enable_block_reuse"),
            "kv_cache.prefix_cache": _typical(
                "radix", "kvCacheManager.cpp keeps blocks in a tree and evicts leaves first"
            ),
            "kv_cache.insert_at": _typical("step_end", "kvCacheManager.cpp, storeContextBlocks: when a prompt is done"),
            "parallel.kernels": _stated("trtllm", "tensorrt_llm/_torch/distributed/ops.py, AllReduce; fused_moe"),
            "host.graph_capture": _stated(True, "tensorrt_llm/llmapi/llm_args.py, cuda_graph_config"),
            "host.max_captured_seqs": _stated(128, "tensorrt_llm/llmapi/llm_args.py, CudaGraphConfig.max_batch_size"),
        },
    ),
    "orca": EnginePreset(
        "Orca (OSDI 2022)",
        {
            "batching.kind": _stated("continuous", "Orca, section 4.1, algorithm 1: iteration-level scheduling"),
            "batching.max_num_seqs": _typical(32, "Orca, section 6: the user sets max_bs"),
            "batching.max_num_batched_tokens": _typical(8192, "Orca bounds the number of requests, not of tokens"),
            "batching.watermark_frac": _stated(0.0, "Orca, algorithm 1"),
            "batching.full_sequence_gate": _stated(True, "Orca, algorithm 1: slots for all tokens of a request"),
            "batching.queue_order": _stated("fcfs", "Orca, section 4.1: iteration-level first come, first served"),
            "batching.output_reserve_frac": _stated(1.0, "Orca, algorithm 1: max_tokens slots are reserved"),
            "batching.preemption": _stated("recompute", "never happens with slots reserved"),
            "batching.victim": _stated("last", "never happens with slots reserved"),
            "batching.async_scheduling": _stated(False, "Orca, section 5: the scheduler waits for the iteration"),
            "kv_cache.memory_fraction": _typical(0.9, "Orca leaves n_slots to the operator"),
            "kv_cache.block_tokens": _typical(16, "Orca counts slots of one token; blocks are finer than any prompt"),
            "kv_cache.prefix_caching": _stated(False, "Orca, section 4.1: keys and values of one request only"),
            "parallel.kernels": _typical("nccl", "Orca, section 5: NCCL between workers"),
            "host.graph_capture": _typical(False, "Orca, section 5: CUDA kernels launched one by one"),
        },
    ),
    "distserve": EnginePreset(
        "DistServe (OSDI 2024), for engines that serve prefill or decode alone",
        {
            "batching.kind": _stated("prefill_first", "distserve/context_stage_scheduler.py: whole prompts"),
            "batching.chunk_prompts": _stated(False, "distserve/context_stage_scheduler.py"),
            "batching.max_num_seqs": _stated(256, "distserve_api_server.py, --context- and --decoding-max-batch-size"),
            "batching.max_num_batched_tokens": _stated(
                4096, "distserve_api_server.py, --context-max-tokens-per-batch; 8192 for decoding, which never fills it"
            ),
            "batching.watermark_frac": _stated(0.0, "distserve/decoding_stage_scheduler.py, _check_add_to_cur_batch"),
            "batching.full_sequence_gate": _stated(
                True, "distserve/context_stage_scheduler.py: blocks of whole prompts"
            ),
            "batching.queue_order": _stated("fcfs", "distserve_api_server.py, --context-sched-policy"),
            "batching.output_reserve_frac": _stated(0.0, "distserve/decoding_stage_scheduler.py: output so far"),
            "batching.preemption": _stated("swap", "distserve/decoding_stage_scheduler.py, swap_out_requests"),
            "batching.victim": _stated("last", "distserve/decoding_stage_scheduler.py, requests.pop(-1)"),
            "batching.async_scheduling": _stated(False, "distserve/single_stage_engine.py"),
            "kv_cache.memory_fraction": _stated(0.9, "distserve_api_server.py, --gpu-memory-utilization"),
            "kv_cache.block_tokens": _stated(16, "distserve_api_server.py, --block-size"),
            "kv_cache.prefix_caching": _stated(False, "distserve/block_manager.py: blocks of one request only"),
            "kv_cache.swap_space": _stated("1 GiB", "distserve_api_server.py, --swap-space"),
            "parallel.kernels": _typical("nccl", "SwiftTransformer calls NCCL"),
            "host.graph_capture": _typical(False, "SwiftTransformer launches its kernels one by one"),
        },
    ),
    "vllm_0_2": EnginePreset(
        "vLLM 0.2 of 2023, eager, workers under Ray",
        {
            "batching.kind": _stated("prefill_first", "vllm/core/scheduler.py, Scheduler._schedule"),
            "batching.chunk_prompts": _stated(False, "vllm/core/scheduler.py: whole prompts"),
            "batching.max_num_seqs": _stated(256, "vllm/engine/arg_utils.py, EngineArgs.max_num_seqs"),
            "batching.max_num_batched_tokens": _stated(2560, "vllm/engine/arg_utils.py, max_num_batched_tokens"),
            "batching.watermark_frac": _stated(0.01, "vllm/core/block_manager.py, watermark"),
            "batching.full_sequence_gate": _stated(True, "vllm/core/block_manager.py, can_allocate: the whole prompt"),
            "batching.queue_order": _stated("fcfs", "vllm/core/policy.py, FCFS"),
            "batching.output_reserve_frac": _stated(0.0, "vllm/core/block_manager.py, can_allocate"),
            "batching.preemption": _stated("recompute", "vllm/core/scheduler.py, _preempt: one sequence per request"),
            "batching.victim": _stated("last", "vllm/core/scheduler.py, _schedule: running.pop()"),
            "batching.async_scheduling": _stated(False, "vllm/engine/llm_engine.py, LLMEngine.step"),
            "kv_cache.memory_fraction": _stated(0.9, "vllm/engine/arg_utils.py, gpu_memory_utilization"),
            "kv_cache.block_tokens": _stated(16, "vllm/engine/arg_utils.py, EngineArgs.block_size"),
            "kv_cache.prefix_caching": _stated(False, "came with vLLM 0.3"),
            "kv_cache.swap_space": _stated("4 GiB", "vllm/engine/arg_utils.py, EngineArgs.swap_space"),
            "parallel.kernels": _stated("nccl", "vllm/model_executor/parallel_utils: torch.distributed"),
            "parallel.compute_slowdown": _fitted(1.374, STEP_TIMES_FIT),
            "host.graph_capture": _stated(False, "captured graphs came with vLLM 0.2.7"),
            "host.per_step": _fitted("10.41 ms", STEP_TIMES_FIT),
            "host.per_sequence": _fitted("321.8 us", STEP_TIMES_FIT),
            "host.launch_factor": _fitted(4.761, STEP_TIMES_FIT),
            "host.prompt_launch_factor": _fitted(1.956, STEP_TIMES_FIT),
        },
    ),
}


def under_preset(engine: dict[str, Any]) -> dict[str, Any]:
    """The keys an engine states, and below them those of its preset; unchanged where it names none that is known."""
    preset = ENGINE_PRESETS.get(name) if isinstance(name := engine.get(_PRESET_KEY), str) else None
    if preset is None:
        return engine
    merged = dict(engine)
    for path, default in preset.values.items():
        section, key = path.split(".")
        stated = merged.get(section, {})
        if isinstance(stated, dict) and key not in stated and _goes_with(path, default.value, engine):
            merged[section] = {**stated, key: default.value}
    return merged


def _goes_with(path: str, value: Any, engine: Mapping[str, Any]) -> bool:
    """Whether a default of a preset makes sense beside what the file states."""
    section, key = path.split(".")
    stated = engine.get(section)
    if path == "batching.async_scheduling" and value:
        parallel = engine.get("parallel")
        has_pipeline = isinstance(parallel, dict) and parallel.get("pp", 1) != 1
        return not has_pipeline and engine.get("speculative") is None
    if section == "batching" and isinstance(stated, dict) and "kind" in stated:
        return key in TokenBatching.model_fields  # the options of another policy are not this one's
    return True
