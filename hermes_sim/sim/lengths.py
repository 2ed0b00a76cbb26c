"""Tokens of every visit as the language model sees them, and the layout of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_sim.core.errors import SimulationError
from hermes_sim.core.rng import stream
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.serving import serving_engines
from hermes_sim.scenario.visited import Visited
from hermes_sim.scenario.workload import Pipeline
from hermes_sim.sim.passes import passing
from hermes_sim.sim.sample_rows import Members, Samples, draw_samples
from hermes_sim.sim.token_counts import TokenCounts, token_counts
from hermes_sim.sim.tree_rows import Search, TreeRows, tree_rows
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
    """Tokens of every visit, and the layout of rows: those of a request one after the other, stage by stage."""

    row_prompt: IntArray
    """[num_visits] tokens to read before the first is written."""
    row_output: IntArray
    """[num_visits] tokens written when the visit ends, those of visits before it in the same sequence included."""
    row_text: IntArray
    """[num_visits] -1: all that the visit reads and writes is the one text of its request, which only grows; else the
    number of a text of its own, which has the first row_common tokens in common with that."""
    row_common: IntArray
    skipped: npt.NDArray[np.bool_]
    """[num_visits] that chance or its length leads the request around."""
    num_clipped: IntArray
    """[num_requests] tokens cut off because of a model's limit."""
    num_saved: IntArray
    """[num_requests] tokens that reductions and early exits have left unwritten."""
    num_probe: IntArray
    """[num_requests] tokens of trial answers at checkpoints."""
    has_added: npt.NDArray[np.bool_]
    """[num_requests] whether stages add to the prompt."""
    request_pipeline: IntArray
    first_row: IntArray
    row_request: npt.NDArray[np.int32]
    row_stage: npt.NDArray[np.int16]
    samples: Samples
    trees: TreeRows

    @property
    def longest_sequence(self) -> int:
        """Prompt and output tokens of the longest one."""
        longest = int((self.row_prompt + self.row_output).max(initial=1))
        of_samples = self.row_prompt[self.samples.visit] + self.samples.longest
        return max(longest, int(of_samples.max(initial=1)), self.trees.longest_sequence)

    @property
    def num_rows(self) -> int:
        """Visits, and the further sequences of those that have several."""
        return self.trees.first + self.trees.number

    @property
    def parent(self) -> IntArray:
        """[num_further_rows] visit that each row behind those of the visits belongs to."""
        return np.concatenate((self.samples.parent, self.trees.parent))

    @property
    def is_fork(self) -> npt.NDArray[np.bool_]:
        """[num_further_rows] whether its first token is drawn from the prompt of another row."""
        return np.concatenate((np.ones(len(self.samples.output), bool), self.trees.is_fork))

    @staticmethod
    def of(
        scenario: Scenario,
        requests: RequestTable,
        request_pipeline: IntArray,
        walks: Sequence[Sequence[Visited]],
    ) -> Lengths:
        """Contexts and outputs of every pass of a language model, clipped at the model's limit, what was cut counted;
        one row per visit.

        An empty prompt still has one token to compute (the beginning of the sequence).
        """
        pipelines = scenario.workload.pipelines
        number = requests.num_requests
        num_stages = np.array([len(stages) for stages in walks], np.int64)
        per_request = num_stages[request_pipeline]
        first_row = np.concatenate(([0], np.cumsum(per_request))).astype(np.int64)
        row_request = np.repeat(np.arange(number, dtype=np.int32), per_request)
        row_stage = (np.arange(first_row[-1]) - first_row[row_request]).astype(np.int16)
        rows = TokenCounts(*(np.zeros(len(row_stage), np.int64) for _ in range(4)))
        rows.text[:] = -1
        skipped = np.zeros(len(row_stage), bool)
        num_clipped, num_saved, num_probe = (np.zeros(number, np.int64) for _ in range(3))
        has_added = np.zeros(number, bool)
        samples: list[Members] = []
        searches: list[Search] = []
        for place, (pipeline, stages) in enumerate(zip(pipelines, walks, strict=True)):
            members = np.flatnonzero(request_pipeline == place)
            passes = passing(pipeline.name, stages, requests, scenario.seed)[:, members]
            limit = context_limit(scenario, stages)
            tokens = token_counts(pipeline.name, stages, requests, members, passes, limit, scenario.seed)
            counts = tokens.counts
            num_clipped[members] = tokens.num_clipped
            num_saved[members], num_probe[members] = tokens.num_saved, tokens.num_probe
            for stage, visited in enumerate(stages):
                of_stage = first_row[members] + stage
                for column, values in zip(rows, counts, strict=True):
                    column[of_stage] = values[stage]
                rows.text[of_stage] = np.where(counts.text[stage] < 0, -1, first_row[members] + counts.text[stage])
                skipped[of_stage] = ~passes[stage]
                if visited.stage.added_prompt_tokens() > 0:
                    has_added[members] |= passes[stage]
            samples.append(Members(pipeline.name, stages, members, first_row[members], limit))
            searches.append((samples[-1], tokens.trees, passes))
        of_samples = draw_samples(samples, rows.prompt, rows.output, number, scenario.seed)
        return Lengths(
            *rows, skipped, num_clipped, num_saved, num_probe, has_added, request_pipeline, first_row, row_request,
            row_stage, of_samples, tree_rows(searches, number, len(row_stage) + len(of_samples.output)),
        )  # fmt: skip


def context_limit(scenario: Scenario, stages: Sequence[Visited]) -> int:
    """Longest sequence every language model that may serve this pipeline can hold."""
    limits = [
        scenario.models[engine.model].max_model_len
        for visited in stages
        if visited.stage.runs_on == "tokens"
        for engine in serving_engines(scenario, visited.stage)
        if engine.model is not None
    ]
    return min(limits, default=LONGEST_STEP_TOKENS)
