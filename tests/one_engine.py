"""Compiled token engines without clock or scenario, for tests that drive them step by step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hermes_sim.batching import PADDINGS, QUEUE_ORDERS
from hermes_sim.batching.batch import NUM_DRAFTED, NUM_LAYER_GROUPS
from hermes_sim.perf.step_cost import NUM_ATTENTION_COEFFICIENTS
from hermes_sim.perf.step_kernel import HOST_STEP_S
from hermes_sim.scenario.speculative import Acceptance, ConstantAcceptance, PerPositionAcceptance, TracedAcceptance
from hermes_sim.sim.advance import act, push, reserve
from hermes_sim.sim.ranks import ARRIVAL, TRANSFER
from hermes_sim.state import arrays as names
from hermes_sim.state.arrays import FIELDS, FIXED_SIZES, HAS_KV, EngineArrays, allocate, empty_blocks
from tests.reference_records import BatchCounts, Options

__all__ = ["CompiledEngine", "Options", "Step", "linear_cost", "make_arrays"]

MAX_TOKENS = 4096
SECONDS_PER_TOKEN = 3.2e-5
SECONDS_PER_STEP = 0.012
COMPUTE = 0
LARGEST_LOG = 4096
ONE_OF_EACH = {name: 1 for _, dimensions, _ in FIELDS.values() for name in dimensions if name not in FIXED_SIZES}
"""Dimensions that an engine driven by hand has no use for."""


def linear_cost(num_tokens: int) -> float:
    """Seconds of a step that holds so many tokens."""
    return SECONDS_PER_STEP + SECONDS_PER_TOKEN * num_tokens


def make_arrays(
    options: Options,
    num_rows: int,
    num_engines: int = 1,
    max_tokens: int = MAX_TOKENS,
    *,
    step_s: float = SECONDS_PER_STEP,
    token_s: float = SECONDS_PER_TOKEN,
    host_s: float = 0.0,
    num_clients: int = 8,
    lockstep: bool = False,
) -> EngineArrays:
    """Equal token engines, empty, each a group of its own; lockstep: the ranks of one replica, one group.

    A step takes `step_s` and `token_s` for each of its tokens on the device, and `host_s` of the host before it.
    """
    hash_slots = 2
    while hash_slots < 2 * options.num_blocks:
        hash_slots *= 2
    num_slots = options.max_num_seqs if options.num_slots is None else options.num_slots
    drafts = options.draft_tokens * options.tree_width
    num_groups = 1 if lockstep else num_engines
    arrays = allocate({
        **ONE_OF_EACH, "engines": num_engines, "groups": num_groups, "queues": num_engines, "lanes": options.num_lanes,
        "slots": num_slots, "step_tokens": max_tokens + 1,
        "step_seqs": max(options.max_num_seqs * (1 + drafts), options.max_num_seqs) + 1,
        "attention_coefficients": NUM_ATTENTION_COEFFICIENTS,
        "table_blocks": options.num_blocks + drafts + 1, "blocks": options.num_blocks,
        "blocks_and_sentinel": options.num_blocks + 1, "hash_slots": hash_slots, "rows": num_rows,
        "requests": num_rows, "requests_and_one": num_rows + 1,
        "outbox": num_engines * (4 * num_slots + 8), "phases": options.block_tokens + 1,
        "clients": num_clients, "adapters": 8, "adapter_slots": 8,
        "accept_table": max(len(options.acceptance_values), options.draft_tokens, 1),
        "window_entries": max(options.window_blocks * options.window_groups, 1),
        "draft_rows": num_rows, "draft_devices": num_slots, "tree_depths": options.draft_tokens + 1,
        "radix_blocks": options.num_blocks if options.prefix_cache == "radix" else 1,
        "decisions": num_engines * (8 * num_slots + LARGEST_LOG),
    })  # fmt: skip
    arrays.row_request[:] = np.arange(num_rows)
    arrays.record_decisions[0] = 1
    arrays.cost_linear[0, :, COMPUTE] = step_s + token_s * np.arange(max_tokens + 1)
    arrays.cost_decode_linear[0, :, COMPUTE] = step_s + token_s * np.arange(arrays.cost_decode_linear.shape[1])
    arrays.cost_linear[0, 0] = arrays.cost_decode_linear[0, 0] = 0.0  # nothing to compute costs the host only
    arrays.cost_attention[0, HOST_STEP_S] = host_s
    if lockstep:
        arrays.group_size[0] = num_engines
        arrays.group_lockstep[0] = 1
    for e in range(num_engines):
        arrays.group_members[e] = arrays.first_queue[e] = e
        arrays.group_of[e] = 0 if lockstep else e
        if not lockstep:
            arrays.group_first[e] = e
        _fill(arrays, e, options, num_slots)
    return arrays


def _fill(arrays: EngineArrays, e: int, options: Options, num_slots: int) -> None:
    switches = options.switches
    arrays.num_lanes[e] = options.num_lanes
    arrays.max_num_seqs[e] = options.max_num_seqs
    arrays.max_num_batched_tokens[e] = options.max_num_batched_tokens
    arrays.max_adapters[e] = options.max_adapters
    arrays.prefill_threshold[e] = options.long_prefill_token_threshold
    arrays.block_tokens[e] = options.block_tokens
    arrays.watermark_blocks[e] = int(options.watermark_frac * options.num_blocks)
    arrays.chunk_prefill[e] = switches.chunk_prefill
    arrays.mix_steps[e] = switches.mix
    arrays.waiting_first[e] = switches.waiting_first
    arrays.decodes_first[e] = switches.decodes_first
    arrays.static_batch[e] = switches.static_batch
    arrays.prompt_padding[e] = PADDINGS.index(switches.padding)
    arrays.by_layers[e] = switches.by_layers
    arrays.layer_group_tokens[e] = options.layer_group_tokens
    arrays.num_layers[e] = options.num_layers
    arrays.full_sequence_gate[e] = options.full_sequence_gate
    arrays.queue_order[e] = QUEUE_ORDERS.index(options.queue_order)
    arrays.output_reserve_frac[e] = options.output_reserve_frac
    arrays.fewest_generated[e] = options.victim == "fewest_generated"
    arrays.async_scheduling[e] = options.async_scheduling
    arrays.stage_interval_frac[e] = options.stage_interval_frac
    arrays.prefix_caching[e] = options.prefix_caching
    arrays.seal_at_schedule[e] = options.seals_at_schedule
    arrays.radix[e] = options.prefix_cache == "radix"
    arrays.swap_blocks[e] = options.swap_blocks if options.preemption == "swap" else 0
    arrays.swap_block_s[e] = options.swap_block_s
    arrays.copy_block_s[e] = options.copy_block_s
    arrays.full_layers[e] = not options.all_layers_slide
    arrays.window_blocks[e] = options.window_blocks
    arrays.window_groups[e] = options.window_groups
    empty_blocks(arrays, e, options.num_blocks, num_slots)
    if options.draft_tokens > 0:
        _fill_drafts(arrays, e, options)
    arrays.share_by_sums[e] = (
        options.num_lanes == 1 and options.draft_tokens == 0 and not switches.static_batch and not switches.by_layers
    )


def _fill_drafts(arrays: EngineArrays, e: int, options: Options) -> None:
    acceptance = _acceptance(options)
    values = acceptance.table((options.tree_width,) * options.draft_tokens)
    arrays.draft_tokens[e] = options.draft_tokens
    arrays.tree_width[e] = options.tree_width
    arrays.adaptive_drafts[e] = options.adaptive_drafts
    arrays.draft_max_seqs[e] = options.draft_max_seqs or options.max_num_seqs
    arrays.accept_kind[e] = acceptance.from_trace
    arrays.accept_size[e] = len(values)
    arrays.accept[e, : len(values)] = values
    arrays.speculative_seed[e] = options.speculative_seed


def _acceptance(options: Options) -> Acceptance:
    """As a scenario states it, so that its own table is what the oracle is compared with."""
    if options.acceptance == "trace":
        return TracedAcceptance(accepted=tuple(int(number) for number in options.acceptance_values))
    if options.acceptance == "per_position":
        return PerPositionAcceptance(rates=options.acceptance_values)
    return ConstantAcceptance(rate=options.acceptance_values[0])


Pairs = tuple[tuple[int, int], ...]
"""(row, number) in the order of the decisions."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one compiled step of one engine decided."""

    engine: int
    lane: int
    start_s: float
    end_s: float
    scheduled: Pairs
    """(row, tokens) in running order, drafts included; prompts of a wave in each of its steps."""
    preempted: tuple[int, ...]
    admitted: Pairs
    """(row, tokens that it has already: prefix hits, or KV that came with it)."""
    swapped_out: Pairs
    swapped_in: Pairs
    free_blocks: int
    batch: tuple[int, ...]
    """The sums that its cost depends on, as the cost sees them (padded where the policy pads): BatchCounts."""
    num_drafted: int
    num_layer_groups: int
    seconds: tuple[float, ...]
    """By limiting resource."""
    accepted: Pairs = ()
    """(row, drafts) known at its end."""
    finished: tuple[int, ...] = ()

    @property
    def num_preemptions(self) -> int:
        return len(self.preempted)

    @property
    def counts(self) -> BatchCounts:
        return BatchCounts(*self.batch)


NUM_COUNTS = 9
"""Leading numbers of a batch that BatchCounts names, in its order."""


class CompiledEngine:
    """A compiled engine, or several ranks in lockstep, behind an interface like ReferenceEngine's."""

    def __init__(
        self,
        options: Options,
        num_rows: int,
        num_ranks: int = 1,
        *,
        step_s: float = SECONDS_PER_STEP,
        token_s: float = SECONDS_PER_TOKEN,
        host_s: float = 0.0,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self.options = options
        self.num_ranks = num_ranks
        self.arrays = make_arrays(
            options, 2 * num_rows, num_ranks, max_tokens, step_s=step_s, token_s=token_s, host_s=host_s,
            lockstep=num_ranks > 1,
        )  # fmt: skip
        self._num_rows = num_rows
        """Row r + num_rows is the prefill visit of r, where r is a decode visit with several samples."""
        self.rejected: list[int] = []
        self.steps: list[Step] = []
        """All that have begun, in that order."""
        self._open: dict[tuple[int, int], int] = {}
        """(engine, lane) -> its step in flight."""
        self._decided: dict[tuple[int, int], list[tuple[int, int]]] = {}
        """(engine, kind) -> (row, value): decisions that belong to the next step; nobody could run since."""

    # -- visits come

    def push(
        self,
        time_s: float,
        row: int,
        num_prompt: int,
        num_output: int,
        priority: int = 0,
        *,
        client: int = 0,
        key: float | None = None,
        samples: tuple[tuple[int, int], ...] = (),
        rank: int = 0,
    ) -> None:
        """A visit arrives. key: of a sorted order (sjf: prompt + output unless given). samples: rows in sequence, and
        the output tokens of each; the visit's own output is the longest."""
        if self._is_too_large(row, num_prompt, num_output):
            return
        self._describe(row, num_prompt, num_output, priority, client, key)
        if samples:
            row = self._describe_samples(row, num_prompt, samples)
        push(self.arrays.handle, rank, rank, row, time_s, ARRIVAL)

    def reserve(
        self,
        time_s: float,
        row: int,
        num_prompt: int,
        num_output: int,
        priority: int = 0,
        *,
        client: int = 0,
        samples: tuple[tuple[int, int], ...] = (),
        rank: int = 0,
    ) -> bool:
        """A visit whose prompt and first token were computed elsewhere asks for blocks. Whether it has them at once."""
        self._describe(row, num_prompt, num_output, priority, client, None)
        if samples:
            self._describe_samples(row, num_prompt, samples)
        self.arrays.row_generated[row] = 1
        return reserve(self.arrays.handle, rank, row, time_s, ARRIVAL)

    def receive(self, time_s: float, row: int, *, rank: int = 0) -> None:
        """The KV of a visit that has its blocks is here."""
        self.arrays.row_flags[row] |= HAS_KV
        push(self.arrays.handle, rank, rank, row, time_s, TRANSFER)

    def take_granted(self) -> list[int]:
        """Rows whose blocks have come free since the last call."""
        number = int(self.arrays.outbox_count[0])
        self.arrays.outbox_count[0] = 0
        return [
            int(self.arrays.outbox_row[place])
            for place in range(number)
            if self.arrays.outbox_kind[place] == names.GRANTED
        ]

    def _is_too_large(self, row: int, num_prompt: int, num_output: int) -> bool:
        blocks = -(-(num_prompt + max(num_output, 1) - 1) // self.options.block_tokens)
        if self.options.window_groups > 0:
            blocks += self.options.window_groups * min(blocks, self.options.window_blocks)
        if blocks > self.options.num_blocks:
            self.rejected.append(row)
            return True
        return False

    def _describe(
        self, row: int, num_prompt: int, num_output: int, priority: int, client: int, key: float | None
    ) -> None:
        arrays = self.arrays
        arrays.row_prompt[row], arrays.row_output[row], arrays.row_priority[row] = num_prompt, num_output, priority
        arrays.row_client[row] = client
        arrays.row_key[row] = num_prompt + num_output if key is None else key

    def _describe_samples(self, row: int, num_prompt: int, samples: tuple[tuple[int, int], ...]) -> int:
        """Samples part when decode begins, so the prompt is a visit of its own. Returns its row."""
        arrays, prefill = self.arrays, row + self._num_rows
        for column in (arrays.row_request, arrays.row_prompt, arrays.row_output, arrays.row_priority, arrays.row_client,
                       arrays.row_key):  # fmt: skip
            column[prefill] = column[row]
        arrays.row_continues_as[prefill] = row
        arrays.row_output[prefill] = min(int(arrays.row_output[row]), 1)
        arrays.row_first_sample[row] = samples[0][0]
        arrays.row_num_samples[row] = arrays.row_open_samples[row] = len(samples) + 1
        for number, (sample, num_output) in enumerate(samples):
            assert sample == samples[0][0] + number, "samples have rows in sequence"
            arrays.row_parent[sample] = row
            arrays.row_request[sample] = arrays.row_request[row]
            arrays.row_prompt[sample], arrays.row_output[sample] = num_prompt, num_output
            arrays.row_text[sample], arrays.row_common[sample] = sample, num_prompt
        return prefill

    # -- steps

    @property
    def next_start_s(self) -> float:
        return float(self.arrays.next_start_s[: self.num_ranks].min())

    @property
    def next_end_s(self) -> float:
        return float(self.arrays.lane_end_s[: self.num_ranks].min())

    @property
    def is_idle(self) -> bool:
        """Nothing in flight, and nothing could begin."""
        return not np.isfinite(min(self.next_start_s, self.next_end_s))

    def act(self) -> list[Step]:
        """The next begin or end, ends first. Returns the steps that began."""
        arrays = self.arrays
        act(arrays.handle, 0)
        kinds = self._drain()
        self._close(kinds)
        begun = []
        for e in range(self.num_ranks):
            for lane in range(int(arrays.num_lanes[e])):
                if np.isfinite(arrays.lane_end_s[e, lane]) and (e, lane) not in self._open:
                    begun.append(self._begin(e, lane, kinds))
        if begun:
            self._decided = {}
        return begun

    def begin(self) -> list[Step]:
        """Begin the next step, with all that ends by then; none if nobody can run."""
        while self.next_end_s <= self.next_start_s:
            self.act()
        return self.act()

    def step(self, time_s: float) -> Step:
        """Begin a step, note what it decided, end it."""
        self.arrays.next_start_s[0] = time_s
        number = len(self.steps)
        begun = self.act()
        assert len(begun) == 1, "nobody can run"
        self.act()
        return self.steps[number]

    def run(self, num_steps: int | None = None) -> list[Step]:
        """So many steps more, each to its end, or all there are (those of ranks and of lanes in order of begin)."""
        number = len(self.steps)
        while not self.is_idle and (num_steps is None or len(self.steps) - number < num_steps):
            self.act()
        while self._open and (num_steps is not None):
            if self.next_start_s < self.next_end_s:
                break
            self.act()
        return self.steps[number:]

    def _drain(self) -> dict[tuple[int, int], list[tuple[int, int]]]:
        """(engine, kind) -> (row, value) in order; what a later preemption took back is left out."""
        at_end = (names.FINISHED_ROW, names.ACCEPTED)
        arrays = self.arrays
        number = int(arrays.decision_count[0])
        arrays.decision_count[0] = 0
        kinds = self._decided
        for e in range(self.num_ranks):
            for kind in at_end:
                kinds.pop((e, kind), None)
        for place in range(number):
            e, kind = int(arrays.decision_engine[place]), int(arrays.decision_kind[place])
            row = int(arrays.decision_row[place]) % self._num_rows
            if kind in (names.PREEMPTED, names.SWAPPED_OUT):
                given = kinds.get((e, names.SCHEDULED), [])
                kinds[e, names.SCHEDULED] = [one for one in given if one[0] != row]
            kinds.setdefault((e, kind), []).append((row, int(arrays.decision_value[place])))
        return kinds

    def _begin(self, e: int, lane: int, kinds: dict[tuple[int, int], list[tuple[int, int]]]) -> Step:
        arrays = self.arrays
        number = int(arrays.lane_num_scheduled[e, lane])
        slots = arrays.lane_slots[e, lane, :number].astype(int)
        scheduled = tuple(
            (int(arrays.slot_row[e, slot]) % self._num_rows, int(tokens))
            for slot, tokens in zip(slots, arrays.lane_slot_tokens[e, lane, :number], strict=True)
        )
        if arrays.lane_batch[e, lane, NUM_LAYER_GROUPS] == 1:
            assert sorted(kinds.get((e, names.SCHEDULED), [])) == sorted(scheduled), "the log tells what runs"
        lost = (names.PREEMPTED, names.SWAPPED_OUT)
        batch = arrays.scratch_batch if self.num_ranks == 1 else arrays.lane_batch[e, lane]
        step = Step(
            engine=e,
            lane=lane,
            start_s=float(arrays.lane_start_s[e, lane]),
            end_s=float(arrays.lane_end_s[e, lane]),
            scheduled=scheduled,
            preempted=tuple(row for kind in lost for row, _ in kinds.get((e, kind), [])),
            admitted=tuple(kinds.get((e, names.ADMITTED), [])),
            swapped_out=tuple(kinds.get((e, names.SWAPPED_OUT), [])),
            swapped_in=tuple(kinds.get((e, names.SWAPPED_IN), [])),
            free_blocks=int(arrays.num_free_blocks[e]),
            batch=tuple(int(count) for count in batch[:NUM_COUNTS]),
            num_drafted=int(arrays.lane_batch[e, lane, NUM_DRAFTED]),
            num_layer_groups=int(arrays.lane_batch[e, lane, NUM_LAYER_GROUPS]),
            seconds=tuple(float(seconds) for seconds in arrays.lane_seconds[e, lane]),
        )
        self._open[e, lane] = len(self.steps)
        self.steps.append(step)
        return step

    def _close(self, kinds: dict[tuple[int, int], list[tuple[int, int]]]) -> None:
        for (e, lane), number in list(self._open.items()):
            if np.isfinite(self.arrays.lane_end_s[e, lane]):
                continue
            del self._open[e, lane]
            self.steps[number] = replace(
                self.steps[number],
                accepted=tuple(kinds.get((e, names.ACCEPTED), [])),
                finished=tuple(row for row, _ in kinds.get((e, names.FINISHED_ROW), [])),
            )
