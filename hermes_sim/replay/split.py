"""Which served models may fit host, overlap and front-end terms; every other one is kept out of every fit."""

from __future__ import annotations

from typing import Final

FITTED_CLOSED_LOOP_MODELS: Final = ("llama_3_1_8b", "gpt_oss_120b", "deepseek_v3")
"""Closed-loop serving tables: rows of these models may fit, others are kept out."""

FITTED_CLOSED_LOOP_MODES: Final = ("aggregated",)
"""Of them, runs whose engines serve both prompts and decodes. Runs with prefill and decode in engines of their own are
in no fit, whatever the model: all of its terms, if any, come from aggregated runs."""

FITTED_STAGE_RATE_MODELS: Final = ("llama_3_1_8b",)
"""Stage-rate serving runs: the same. Replays of single requests (open loop) are kept out whole, all of them."""

FITTED_STEP_TIME_TP: Final = (8,)
"""Step times of a lone engine: rows of these degrees of tensor parallelism may fit, others are kept out."""
