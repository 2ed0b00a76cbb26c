"""The oracle: a token engine in plain Python, whose decisions the compiled engine must repeat as integers.

The shape is nano-vllm's: schedule, cost, finish. The rules are vLLM V1's, other engines' by switches
(docs/modelling.md, "A serving step"). Speed is no aim here: lists and dicts, one idea a function, and the laws checked
after every act.

    reference_records      options, arrivals, sequences, what a step has decided
    reference_line         the waiting line in its orders
    reference_adapters     slots for low-rank adapters
    reference_blocks       KV blocks, prefix cache, swap space, windows, forks
    reference_scheduler    who runs in a step
    reference_speculation  which drafts are accepted
    reference_counts       what the cost of a step sees
    reference_laws         what holds between any two acts
    reference_clock        steps and arrivals in the order of their times, ranks in lockstep
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from tests.reference_blocks import KvCache
from tests.reference_clock import begin_together, serve
from tests.reference_counts import count_batch, count_sequences
from tests.reference_laws import check_engine, check_step
from tests.reference_line import order_key
from tests.reference_records import Arrival, BatchCounts, Options, Seconds, Sequence, StepCost, StepRecord, Work
from tests.reference_scheduler import Batch, Scheduler
from tests.reference_speculation import next_num_drafts


@dataclass(frozen=True, slots=True)
class Lane:
    """A step in flight."""

    batch: Batch
    """Without works: the dummy step of a rank that has nothing to run."""
    start_s: float
    dispatched_s: float
    """When the host is through with it."""
    end_s: float
    held_s: float = 0.0
    """Of the end: spent waiting for the step before to leave the pipeline."""

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s - self.held_s


class ReferenceEngine:
    """One token engine: `push` visits, then `begin_step` and `end_step`, or `run` a list of arrivals.

    content(row, index): see KvCache. Raises ValueError on an empty prompt.
    """

    def __init__(self, options: Options, *, content: Callable[[int, int], int], cost: StepCost) -> None:
        self.options = options
        self.cost = cost
        self.cache = KvCache(options, content)
        self.scheduler = Scheduler(options, self.cache)
        self.lanes: list[Lane] = []
        """Steps in flight, in the order in which they began."""
        self.now_s = 0.0
        self.is_blocked = False
        """Nobody can run until something ends or arrives."""
        self.num_pushed = 0
        self.rows: set[int] = set()
        self.rejected: list[int] = []
        self.reserved: dict[int, Sequence] = {}
        """Blocks are theirs, their KV is on its way."""
        self.reserve_line: list[Sequence] = []
        """Wait for blocks that their KV could be sent to."""
        self.granted: list[int] = []
        """Rows whose blocks have been reserved since the list was last emptied."""
        self.held: dict[int, Sequence] = {}
        """Have ended, and keep their KV until it has been sent away."""
        self.rows_to_hold: set[int] = set()
        self.first_token_s: dict[int, float] = {}
        self.finish_s: dict[int, float] = {}
        self.num_preemptions = 0

    # -- visits come and go

    def push(self, arrival: Arrival, time_s: float | None = None, *, holds_kv: bool = False) -> bool:
        """Put a visit into the waiting line; False if the whole pool could not hold it.

        A visit for which blocks were reserved joins with its KV. holds_kv: it keeps its own until `release_kv`.
        time_s: now, if later than its arrival.
        """
        self.now_s = max(self.now_s, arrival.arrival_s if time_s is None else time_s)
        sequence = self.reserved.pop(arrival.row, None)
        if sequence is not None:
            self.cache.seal(sequence, sequence.num_computed)
        else:
            if not self._accepts(arrival):
                return False
            sequence = self._sequence(arrival)
        self.num_pushed += 1
        sequence.arrival_order = self.num_pushed
        if holds_kv:
            self.rows_to_hold.add(arrival.row)
        self.scheduler.line.arrive(sequence, self.scheduler.running)
        if sequence.holds_slot:
            for sample in self._fork(sequence, self.now_s):
                self.scheduler.line.arrive(sample, self.scheduler.running)
        self._changed()
        return True

    def reserve(self, arrival: Arrival) -> bool:
        """Ask for blocks for a visit whose prompt and first token were computed elsewhere (rule 18).

        Its row enters `granted` when they are there, now or, behind those who wait already, at the end of a step. False
        if the pool could never hold it.
        """
        if not self._accepts(arrival):
            return False
        sequence = self._sequence(arrival)
        sequence.num_generated = 1
        self.reserve_line.append(sequence)
        if len(self.reserve_line) == 1:
            self._grant_reservations()
        self._check()
        return True

    def take_granted(self) -> list[int]:
        """Rows whose blocks have been reserved since the last call."""
        granted, self.granted = self.granted, []
        return granted

    def release_kv(self, row: int) -> None:
        """The KV of a visit has been sent away."""
        self.scheduler.release(self.held.pop(row))
        self._grant_reservations()
        self._changed()

    def run(self, arrivals: Iterable[Arrival]) -> list[StepRecord]:
        """Serve all arrivals (sorted by time); at one instant a step ends, then visits arrive, then a step starts."""
        return serve([self], arrivals)

    @property
    def has_work(self) -> bool:
        return bool(self.scheduler.line or self.scheduler.running)

    # -- steps

    def begin_step(self, start_s: float) -> StepRecord | None:
        """Decide who runs from `start_s` on, take their blocks, price the batch, put it in flight.

        None if nobody can run: the engine waits for an arrival or an end.
        """
        records = begin_together([self], start_s)
        return records[0] if records else None

    def decide(self, start_s: float) -> Batch | None:
        """The next batch, if there can be one."""
        assert len(self.lanes) < self.options.num_lanes
        self.now_s = self.scheduler.now_s = max(self.now_s, start_s)
        batch = self.scheduler.schedule()
        self._note_ended(start_s)
        if batch is not None:
            check_step(self, batch)
        self._check()
        return batch

    def counts(self, batch: Batch) -> tuple[BatchCounts, BatchCounts | None]:
        """Counts of a step, and beside a wave those of the decodes alone; all logits of a step are its own."""
        works = list(batch.works.values())
        counts = count_batch(works, self.scheduler.running, self.options)
        if not batch.wave_rows:
            return counts, None
        decodes = [work for work in works if work.sequence.row not in batch.wave_rows]
        return counts, replace(count_sequences(decodes), num_sampled=counts.num_sampled)

    def price(self, batch: Batch, counts: BatchCounts, decode_counts: BatchCounts | None) -> Seconds:
        """A wave costs its share of the layers; copies of blocks are the device's work."""
        seconds = self.cost(counts)
        if decode_counts is not None:
            seconds = self._price_layers(seconds, decode_counts, batch.num_layer_groups)
        num_swapped = sum(blocks for _, blocks in batch.swapped_out + batch.swapped_in)
        copies_s = num_swapped * self.options.swap_block_s + batch.num_copied_blocks * self.options.copy_block_s
        return replace(seconds, device_s=seconds.device_s + copies_s)

    def _price_layers(self, whole: Seconds, decode_counts: BatchCounts, num_groups: int) -> Seconds:
        """All layers for the decodes, one group of them for the wave beside. A step of nothing is the host's time."""
        alone = self.cost(decode_counts)
        share = 1.0 / num_groups
        return Seconds(
            device_s=whole.device_s * share + alone.device_s * (1.0 - share),
            host_s=whole.host_s * share + alone.host_s * (1.0 - share),
        )

    def launch(self, lane: Lane, counts: BatchCounts, decode_counts: BatchCounts | None) -> StepRecord:
        """Put a step in flight."""
        self.lanes.append(lane)
        batch = lane.batch
        self.num_preemptions += len(batch.preempted)
        return StepRecord(
            start_s=lane.start_s,
            end_s=lane.end_s,
            scheduled=tuple((row, work.num_tokens) for row, work in batch.works.items()),
            preempted=tuple(batch.preempted),
            admitted=tuple(batch.admitted),
            swapped_out=tuple(batch.swapped_out),
            swapped_in=tuple(batch.swapped_in),
            accepted=tuple((row, work.num_outputs - 1) for row, work in batch.works.items() if work.num_drafts),
            num_copied_blocks=batch.num_copied_blocks,
            free_blocks=self.cache.num_free,
            counts=counts,
            decode_counts=decode_counts,
            num_layer_groups=batch.num_layer_groups,
        )

    def num_positions(self, work: Work) -> int:
        """Draft positions that a step verifies."""
        return work.num_drafts // self.options.tree_width

    def end_step(self) -> list[int]:
        """The step that began first ends: progress, tokens, completions. Returns the rows that have finished."""
        lane = self.lanes.pop(0)
        self.now_s = self.scheduler.now_s = max(self.now_s, lane.end_s)
        assert self.scheduler.in_flight.pop(0) is lane.batch
        for sequence in list(self.scheduler.running):
            work = lane.batch.works.get(sequence.row)
            if work is not None and work.progresses:
                self._advance(work, lane.end_s)
        if self.options.switches.static_batch:
            self.scheduler.close_static_batch()
        finished = self._note_ended(lane.end_s)
        self._grant_reservations()
        self._changed()
        return finished

    # -- lanes

    @property
    def next_end_s(self) -> float:
        """Steps leave in the order in which they began."""
        return self.lanes[0].end_s if self.lanes else math.inf

    @property
    def next_start_s(self) -> float:
        """When a step could begin, given what is here."""
        if self.is_blocked or not self.has_work:
            return math.inf
        return self.lane_free_s

    @property
    def lane_free_s(self) -> float:
        """When the next step may enter: the host, or the first stage of the pipeline, is through with the last."""
        if len(self.lanes) == self.options.num_lanes:
            return math.inf
        if self.options.async_scheduling:
            return max([self.now_s, *(lane.dispatched_s for lane in self.lanes)])
        frac = self.options.stage_interval_frac
        return max([self.now_s, *(lane.start_s + lane.duration_s * frac for lane in self.lanes)])

    def lane(self, batch: Batch, start_s: float, seconds: Seconds) -> Lane:
        """Steps leave the device, or the pipeline, in the order in which they entered it.

        Exact for stages of equal length (proportionate flow shop; Pinedo, Scheduling, section 6.1).
        """
        dispatched_s = start_s + seconds.host_s
        alone_s = start_s + (seconds.device_s + seconds.host_s)
        if self.options.async_scheduling:
            end_s = max([alone_s, *(lane.end_s + seconds.device_s for lane in self.lanes)])
            return Lane(batch, start_s, dispatched_s, end_s)
        last_stage_s = (alone_s - start_s) * self.options.stage_interval_frac
        end_s = max([alone_s, *(lane.end_s + last_stage_s for lane in self.lanes)])
        return Lane(batch, start_s, dispatched_s, end_s, held_s=end_s - alone_s)

    # -- the end of a step

    def _advance(self, work: Work, end_s: float) -> None:
        """Bring one sequence to the end of the step."""
        sequence = work.sequence
        num_new = work.num_outputs
        end = work.end
        if work.num_drafts > 0:
            end = sequence.num_computed = work.context + num_new
            sequence.num_drafts = next_num_drafts(
                self.options, sequence.num_drafts, work.num_accepted, self.num_positions(work)
            )
        if not self.options.seals_at_schedule:
            self.cache.seal(sequence, end)
        if not work.reaches_end:
            return
        is_first = sequence.num_generated == 0
        sequence.num_generated += num_new
        sequence.num_pending -= self.options.async_scheduling and num_new > 0
        self.scheduler.line.count_output(sequence.client, num_new)
        if is_first and num_new > 0:
            self.first_token_s[sequence.row] = end_s
            self.scheduler.line.put_in_front(self._fork(sequence, end_s))
        if sequence.num_generated >= sequence.num_output:
            self._finish(sequence)

    def _finish(self, sequence: Sequence) -> None:
        """All its tokens are there. A static batch stays together until its last has ended."""
        if self.options.switches.static_batch:
            sequence.is_done = True
            return
        self.scheduler.running.remove(sequence)
        self.scheduler.adapters.leave(sequence, self.now_s)
        self.scheduler.ended.append(sequence)
        if sequence.row in self.rows_to_hold:
            self.held[sequence.row] = sequence
        else:
            self.scheduler.release(sequence)

    def _note_ended(self, time_s: float) -> list[int]:
        ended = [sequence.row for sequence in self.scheduler.ended]
        self.scheduler.ended.clear()
        self.finish_s.update(dict.fromkeys(ended, time_s))
        return ended

    def _fork(self, parent: Sequence, time_s: float) -> list[Sequence]:
        """The samples of a prompt, which begin with its first token; those for which there is no slot have no KV."""
        siblings = []
        for row, num_output in parent.samples:
            sample = Sequence(
                row,
                parent.num_prompt,
                num_output,
                parent.key,
                parent.client,
                parent.arrival_order,
                adapter=parent.adapter,
                num_generated=1,
            )
            if self.scheduler.num_free_slots > 0:
                self.scheduler.take_slot(sample)
                self.cache.fork(parent, sample)
            siblings.append(sample)
            self.first_token_s[row] = time_s
            self.rows.add(row)
        return siblings

    # -- visits

    def _accepts(self, arrival: Arrival) -> bool:
        """Whether the whole pool could hold it. The last output token is never stored."""
        if arrival.num_prompt < 1:
            raise ValueError(f"visit {arrival.row} has an empty prompt")
        self.rows.add(arrival.row)
        most_outputs = max([arrival.num_output, 1, *(num_output for _, num_output in arrival.samples)])
        num_blocks = self.cache.num_blocks(arrival.num_prompt + most_outputs - 1)
        if self.cache.cost(num_blocks) <= self.options.num_blocks:
            return True
        self.rejected.append(arrival.row)
        return False

    def _sequence(self, arrival: Arrival) -> Sequence:
        return Sequence(
            arrival.row, arrival.num_prompt, arrival.num_output, order_key(self.options.queue_order, arrival),
            arrival.client, samples=arrival.samples, adapter=arrival.adapter,
        )  # fmt: skip

    def _grant_reservations(self) -> None:
        """Slots and blocks for those who wait for them, in order, the place of the next token included."""
        while self.reserve_line and self.scheduler.may_reserve(self.reserve_line[0]):
            sequence = self.reserve_line.pop(0)
            self.scheduler.take_slot(sequence)
            self.cache.grow(sequence, sequence.num_tokens)
            sequence.num_computed = sequence.num_tokens - 1
            self.reserved[sequence.row] = sequence
            self.granted.append(sequence.row)

    def _changed(self) -> None:
        self.is_blocked = False
        self._check()

    def _check(self) -> None:
        check_engine(self)
