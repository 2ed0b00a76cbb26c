"""Tokens of every request as the language model sees them, and one row for each of its visits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_sim.core.errors import SimulationError
from hermes_sim.core.rng import stream
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.serving import serving_engines
from hermes_sim.scenario.workload import Pipeline
from hermes_sim.sim.sample_rows import Samples, draw_samples
from hermes_sim.stages.stage import Stage
from hermes_sim.workload.requests import RequestTable

IntArray = npt.NDArray[np.int64]

LONGEST_STEP_TOKENS = 1 << 18
"""Cost tables end here; a step with more tokens cannot be priced."""


def draw_pipelines(pipelines: Sequence[Pipeline], requests: RequestTable, seed: int) -> IntArray:
    """Pipeline of every request: as the trace says, else by weight; a request's draw does not depend on the others."""
    drawn = np.zeros(requests.num_requests, np.int64)
    if len(pipelines) > 1:
        weights = np.array([pipeline.weight for pipeline in pipelines])
        edges = np.cumsum(weights / weights.sum())
        draws = stream(seed, "pipelines").random(requests.num_requests)
        drawn[:] = np.minimum(np.searchsorted(edges, draws, side="right"), len(pipelines) - 1)
    if requests.pipeline is None:
        return drawn
    names = [pipeline.name for pipeline in pipelines]
    unknown = [name for name in requests.pipeline_names if name not in names]
    if unknown:
        raise SimulationError(f"the trace names pipeline '{unknown[0]}', the workload has {', '.join(names)}")
    known = np.array([*(names.index(name) for name in requests.pipeline_names), -1], np.int64)[requests.pipeline]
    return np.where(known >= 0, known, drawn)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of every request as the language model sees them, and the layout of rows."""

    num_prompt: IntArray
    num_output: IntArray
    num_clipped: IntArray
    num_added: IntArray
    """Tokens of retrieved documents in the prompt, before clipping."""
    request_pipeline: IntArray
    first_row: IntArray
    row_request: npt.NDArray[np.int32]
    row_stage: npt.NDArray[np.int16]
    samples: Samples

    @property
    def longest_sequence(self) -> int:
        """Prompt and output tokens of the longest one."""
        longest = int((self.num_prompt + self.num_output).max(initial=1))
        of_samples = self.num_prompt[self.row_request[self.samples.visit]] + self.samples.longest
        return max(longest, int(of_samples.max(initial=1)))

    @staticmethod
    def of(scenario: Scenario, requests: RequestTable, request_pipeline: IntArray) -> Lengths:
        """Add retrieved documents, clip at the model's limit, count what was cut; lay out one row per visit.

        An empty prompt still has one token to compute (the beginning of the sequence).
        """
        pipelines = scenario.workload.pipelines
        added = np.zeros(requests.num_requests, np.int64)
        for number, pipeline in enumerate(pipelines):
            members = request_pipeline == number
            for stage in pipeline.stages:
                if stage.added_prompt_tokens() > 0:
                    passing = members & passes(scenario, pipeline, stage, requests.num_requests)
                    added[passing] += stage.added_prompt_tokens()
        limit = np.array([context_limit(scenario, pipeline) for pipeline in pipelines], np.int64)
        wanted_prompt = np.maximum(requests.num_prompt_tokens + added, 1)
        limits = limit[request_pipeline]
        num_output = np.minimum(requests.num_output_tokens, limits - 1)
        num_prompt = np.minimum(wanted_prompt, limits - num_output)
        num_clipped = (wanted_prompt - num_prompt) + (requests.num_output_tokens - num_output)
        num_stages = np.array([len(pipeline.stages) for pipeline in pipelines], np.int64)
        per_request = num_stages[request_pipeline]
        first_row = np.concatenate(([0], np.cumsum(per_request))).astype(np.int64)
        row_request = np.repeat(np.arange(requests.num_requests, dtype=np.int32), per_request)
        row_stage = (np.arange(first_row[-1]) - first_row[row_request]).astype(np.int16)
        samples = draw_samples(pipelines, request_pipeline, first_row, num_output, limits - num_prompt, scenario.seed)
        return Lengths(
            num_prompt, num_output, num_clipped, added, request_pipeline, first_row, row_request, row_stage, samples,
        )  # fmt: skip


def context_limit(scenario: Scenario, pipeline: Pipeline) -> int:
    """Longest sequence every language model that may serve this pipeline can hold."""
    limits = [
        scenario.models[engine.model].max_model_len
        for stage in pipeline.stages
        if stage.runs_on == "tokens"
        for engine in serving_engines(scenario, stage)
        if engine.model is not None
    ]
    return min(limits, default=LONGEST_STEP_TOKENS)


def passes(scenario: Scenario, pipeline: Pipeline, stage: Stage, num_requests: int) -> npt.NDArray[np.bool_]:
    """Which requests a stage's probability lets through; a request's draw does not depend on the others."""
    if stage.probability >= 1.0:
        return np.ones(num_requests, bool)
    return stream(scenario.seed, f"probability {pipeline.name}.{stage.name}").random(num_requests) < stage.probability
