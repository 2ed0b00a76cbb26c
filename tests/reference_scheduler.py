"""Who runs in a step: the oracle's phases, switch by switch (docs/modelling.md, "Who runs in a step")."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from tests.reference_adapters import AdapterSlots
from tests.reference_blocks import KvCache
from tests.reference_counts import padded_tokens
from tests.reference_line import WaitingLine
from tests.reference_records import Block, Options, Sequence, Work
from tests.reference_speculation import num_accepted


@dataclass(slots=True)
class Batch:
    """A step while it is put together, and while it is in flight."""

    left: int = 0
    """Of the budget."""
    works: dict[int, Work] = field(default_factory=dict)
    """By row."""
    preempted: list[int] = field(default_factory=list)
    has_evicted: bool = False
    """Somebody who ran had to go."""
    admitted: list[tuple[int, int]] = field(default_factory=list)
    swapped_out: list[tuple[int, int]] = field(default_factory=list)
    swapped_in: list[tuple[int, int]] = field(default_factory=list)
    num_copied_blocks: int = 0
    wave_rows: frozenset[int] = frozenset()
    """Prompts that run through one group of layers in this step."""
    num_layer_groups: int = 1


@dataclass(slots=True)
class Wave:
    """Prompts admitted together, which run through one group of layers a step."""

    works: dict[int, Work]
    num_groups: int
    num_begun: int = 0


class Scheduler:
    """The waiting line, the running list and the steps in flight of one engine; `schedule` forms the next step."""

    def __init__(self, options: Options, cache: KvCache) -> None:
        self.options = options
        self.switches = options.switches
        self.cache = cache
        self.line = WaitingLine(options.queue_order)
        self.adapters = AdapterSlots(options.max_adapters)
        self.now_s = 0.0
        self.running: list[Sequence] = []
        self.in_flight: list[Batch] = []
        self.wave: Wave | None = None
        self.num_slots = options.num_slots or options.max_num_seqs
        self.num_slots_held = 0
        self.watermark_blocks = int(options.watermark_frac * options.num_blocks)
        self.was_decode_left_out = False
        self.ended: list[Sequence] = []
        """Left the engine; whoever drives it takes them out and notes the time."""
        self.batch = Batch()
        """Being formed; what an attempt that led to no step has done stays in it."""

    def schedule(self) -> Batch | None:
        """The next step, or None if nobody can run now.

        The first running sequence may have evicted itself: vLLM then runs an empty step, which takes no time here.
        """
        batch = self.batch
        batch.has_evicted = False
        num_preempted = -1
        while not batch.works and num_preempted < len(batch.preempted):
            num_preempted = len(batch.preempted)
            batch.left = self.options.max_num_batched_tokens
            self._attempt(batch)
        if not batch.works:
            return None
        batch.works = {
            sequence.row: batch.works[sequence.row] for sequence in self.running if sequence.row in batch.works
        }
        self._count_tokens_to_come(batch)
        return self.take_batch()

    def take_batch(self) -> Batch:
        """What has been decided goes in flight; a dummy step if nobody runs."""
        batch, self.batch = self.batch, Batch()
        self.in_flight.append(batch)
        return batch

    def take_slot(self, sequence: Sequence) -> None:
        assert not sequence.holds_slot
        assert self.num_slots_held < self.num_slots
        sequence.holds_slot = True
        sequence.num_drafts = self.options.draft_tokens
        self.num_slots_held += 1

    def release(self, sequence: Sequence) -> None:
        """Give up blocks and slot."""
        assert sequence.holds_slot
        self.cache.release(sequence)
        sequence.holds_slot = False
        self.num_slots_held -= 1

    def close_static_batch(self) -> bool:
        """A batch whose sequences all have their tokens, or lost their blocks, gives up what it holds."""
        if not self.running or not all(sequence.is_done for sequence in self.running):
            return False
        for sequence in self.running:
            self.release(sequence)
            self.adapters.leave(sequence, self.now_s)
        self.ended += self.running
        self.running = []
        return True

    def may_reserve(self, sequence: Sequence) -> bool:
        """Whether blocks may go to a sequence whose KV is to come: those who are here already go first.

        A block for each that runs is kept back, and nobody comes in while the head of the line waits for blocks that it
        had, or lacks one to go on.
        """
        head = self.line.line[0] if self.line.line else None
        if head is not None and (
            not self.has_blocks(head, head.num_computed + 1) if head.holds_slot else head.was_preempted
        ):
            return False
        num_missing = self.cache.num_missing(sequence, sequence.num_tokens)
        return self.num_free_slots > 0 and num_missing + len(self.running) <= self.cache.num_free

    @property
    def num_free_slots(self) -> int:
        return self.num_slots - self.num_slots_held

    # -- phases in the order that a policy's switches give them

    def _attempt(self, batch: Batch) -> None:
        if self.switches.by_layers:
            self._layered(batch)
        elif self.switches.static_batch:
            self._static(batch)
        elif self.switches.waiting_first and self.switches.mix:
            self._mixed_pool(batch)
        elif self.switches.waiting_first:
            self._prompts_or_decodes(batch)
        else:
            self._running_then_waiting(batch)

    def _running_then_waiting(self, batch: Batch) -> None:
        """vLLM V1 and Orca; Sarathi-Serve passes over the running list twice. Nobody enters when somebody had to go."""
        num_preempted = len(batch.preempted)
        if self.switches.decodes_first:
            if self._running_phase(batch, self._is_decode):
                self._running_phase(batch)
        else:
            self._running_phase(batch)
        if len(batch.preempted) == num_preempted:
            self._waiting_phase(batch)

    def _prompts_or_decodes(self, batch: Batch) -> None:
        """vLLM V0 and SGLang: a step of prompts if there can be one, else of decodes.

        A prompt that found no blocks does not come back before them.
        """
        num_preempted = len(batch.preempted)
        if batch.has_evicted:
            self._running_phase(batch, self._is_decode)
            if batch.works or len(batch.preempted) > num_preempted:
                return
        self._running_phase(batch, self._is_unfinished_prompt)
        if len(batch.preempted) == num_preempted:
            self._waiting_phase(batch)
            if not batch.works:
                self._running_phase(batch, self._is_decode)

    def _mixed_pool(self, batch: Batch) -> None:
        """Splitwise: prompts first, but never past the same decode twice."""
        num_preempted = len(batch.preempted)
        if not self.was_decode_left_out:
            self._waiting_phase(batch)
        self._running_phase(batch)
        if self.was_decode_left_out and len(batch.preempted) == num_preempted:
            self._waiting_phase(batch)
        self.was_decode_left_out = any(
            self._is_decode(sequence) and sequence.row not in batch.works for sequence in self.running
        )

    def _static(self, batch: Batch) -> None:
        """FasterTransformer: a batch is formed when the last one has ended."""
        if self.close_static_batch():
            batch.has_evicted = False
        if not self.running:
            self._waiting_phase(batch)
        if not batch.works:
            self._running_phase(batch)

    def _layered(self, batch: Batch) -> None:
        """All decodes, beside the wave under way or a new one; decodes whose KV is here may join at any time."""
        num_preempted = len(batch.preempted)
        self._running_phase(batch, self._is_decode)
        if len(batch.preempted) == num_preempted:
            self._form_wave(batch, self._waiting_phase(batch))
        if self.wave is not None:
            self._run_wave(batch, self.wave)

    # -- running phase

    def _running_phase(self, batch: Batch, is_wanted: Callable[[Sequence], bool] = lambda sequence: True) -> bool:
        """Running sequences in their order; whoever lacks a block evicts the victim. False if it ended early."""
        for sequence in list(self.running):
            is_served = sequence not in self.running or sequence.row in batch.works
            if not is_served and is_wanted(sequence) and not self._continue(batch, sequence):
                return False
        return True

    def _continue(self, batch: Batch, sequence: Sequence) -> bool:
        """Tokens for a running sequence; False if blocks for them could not be had and the phase ends."""
        num_tokens = min(sequence.num_to_do + self._num_drafts(batch, sequence), batch.left)
        if self.options.long_prefill_token_threshold > 0:
            num_tokens = min(num_tokens, self.options.long_prefill_token_threshold)
        if num_tokens <= 0:
            return True
        self.cache.slide(sequence)
        while not self.has_blocks(sequence, sequence.num_computed + num_tokens):
            victim = self._victim()
            if victim is sequence and num_tokens > sequence.num_to_do:
                num_tokens = sequence.num_to_do  # it gives up its drafts before itself
                continue
            if victim is None or (victim is sequence and self._is_in_flight(victim)):
                return False  # it waits for what is in flight
            self._preempt(batch, victim)
            if victim is sequence:
                return False
        self._give(batch, sequence, num_tokens)
        return True

    def _num_drafts(self, batch: Batch, sequence: Sequence) -> int:
        """Draft tokens behind a decode; none while too many run."""
        max_seqs = self.options.draft_max_seqs
        if not self._is_decode(sequence) or (max_seqs is not None and len(self.running) > max_seqs):
            return 0
        return max(min(sequence.num_drafts * self.options.tree_width, batch.left - 1), 0)

    def _victim(self) -> Sequence | None:
        """Who gives up its blocks (rule 4). The steps of a pipeline keep theirs; done ones stay with their batch."""
        spares_those_in_flight = not self.options.async_scheduling
        candidates = [
            sequence
            for sequence in self.running
            if not sequence.is_done and not (spares_those_in_flight and self._is_in_flight(sequence))
        ]
        if not candidates:
            return None
        if self.options.victim == "fewest_generated":
            places = enumerate(candidates)
            return min(places, key=lambda pair: (pair[1].num_generated, -pair[1].num_prompt, -pair[0]))[1]
        if self.line.is_sorted:
            return max(reversed(candidates), key=lambda sequence: sequence.urgency)
        return candidates[-1]

    def _is_in_flight(self, sequence: Sequence) -> bool:
        return any(sequence.row in batch.works for batch in self.in_flight)

    def _preempt(self, batch: Batch, sequence: Sequence) -> None:
        """Off the running list and to the front of the line; its tokens stay (rule 5)."""
        batch.has_evicted = True
        self._take_back(batch, sequence)
        self.running.remove(sequence)
        self.adapters.leave(sequence, self.now_s)
        self._lose_kv(batch, sequence, can_swap=self.options.preemption == "swap")
        self.line.put_in_front([sequence])

    def _take_back(self, batch: Batch, sequence: Sequence) -> None:
        """What it has in this step goes back to the budget; what steps in flight would have given it is lost."""
        work = batch.works.pop(sequence.row, None)
        if work is not None:
            batch.left += work.num_tokens
            sequence.num_computed = work.context
        for other in reversed(self.in_flight):
            lost = other.works.pop(sequence.row, None)
            if lost is not None and lost.progresses:
                sequence.num_computed = lost.context
        sequence.num_pending = 0
        if self.wave is not None:
            self.wave.works.pop(sequence.row, None)
            if not self.wave.works:
                self.wave = None

    def _lose_kv(self, batch: Batch, sequence: Sequence, *, can_swap: bool) -> None:
        """A decode's is copied to the host if there is room; else it is computed again."""
        if can_swap and sequence.is_decode and self.cache.can_swap_out(sequence.num_computed):
            batch.swapped_out.append((sequence.row, self.cache.swap_out(sequence)))
        else:
            sequence.num_computed = 0
        self.release(sequence)
        sequence.is_copied = True
        sequence.was_preempted = True
        batch.preempted.append(sequence.row)

    # -- waiting phase

    def _waiting_phase(self, batch: Batch) -> dict[int, int]:
        """Waiting sequences up to the first that does not fit (rule 6). Returns prompts admitted: row -> tokens."""
        prompts: dict[int, int] = {}
        has_made_way = False
        while self.line.line and len(self.running) < self.options.max_num_seqs and batch.left > 0:
            if not has_made_way:
                self._first_in_line(batch)
            has_made_way = False
            fitting = (one for one in self.line.line if self.adapters.may_join(one, self.running))
            sequence = next(fitting, None)
            if sequence is None:
                break
            if not self._admit(batch, sequence, prompts):
                has_made_way = not self.running and self._make_way(batch)
                if not has_made_way:
                    break
        return prompts

    def _first_in_line(self, batch: Batch) -> Sequence:
        """Who is next, and the head of the line. If the last one running had to go, those who hold what it lacked come
        before it."""
        holder = next(self._holders(), None)
        if holder is not None and not self.running and batch.has_evicted:
            return self.line.bring_forward(holder)
        return self.line.choose(self._num_stored_blocks)

    def _num_stored_blocks(self, sequence: Sequence) -> int:
        """Full blocks that need not be computed."""
        if sequence.holds_slot or sequence.is_swapped:
            return sequence.num_computed // self.options.block_tokens
        return len(self.cache.hits(sequence))

    def _make_way(self, batch: Batch) -> bool:
        """Nobody runs and the head of the line does not fit: what it lacks is held by others in line.

        The first of them that can run becomes the head; if none can, the last one loses its KV and computes it again.
        """
        holders = list(self._holders())
        for holder in holders:
            if holder is not self.line.line[0] and self.has_blocks(holder, holder.num_computed + 1):
                self.line.bring_forward(holder)
                return True
        if holders:
            self._lose_kv(batch, holders[-1], can_swap=False)
        return bool(holders)

    def _holders(self) -> Iterator[Sequence]:
        """Those in line whose KV is here."""
        return (sequence for sequence in self.line.line if sequence.holds_slot)

    def _admit(self, batch: Batch, sequence: Sequence, prompts: dict[int, int]) -> bool:
        if sequence.holds_slot:
            return self._admit_with_kv(batch, sequence)
        if sequence.is_swapped:
            return self._admit_swapped(batch, sequence)
        return self.wave is None and self._admit_prompt(batch, sequence, prompts)

    def _admit_with_kv(self, batch: Batch, sequence: Sequence) -> bool:
        """Its KV is here: it decodes, in this step or, where prompts and decodes do not mix, in the next of decodes."""
        assert sequence.is_decode
        self.cache.slide(sequence)
        num_tokens = 1 + (self._num_drafts(batch, sequence) if self.switches.mix else 0)
        if not self.has_blocks(sequence, sequence.num_computed + num_tokens):
            num_tokens = 1
        if not self.has_blocks(sequence, sequence.num_computed + num_tokens):
            return False
        self._enter(batch, sequence)
        batch.num_copied_blocks += not sequence.is_copied
        sequence.is_copied = True
        if self.switches.mix:
            self._give(batch, sequence, num_tokens)
        else:
            self.cache.grow(sequence, sequence.num_computed + 1)
        return True

    def _admit_swapped(self, batch: Batch, sequence: Sequence) -> bool:
        """Back from the host, if blocks for all its tokens are free."""
        if self.num_free_slots == 0 or not self.cache.can_swap_in(sequence):
            return False
        self.take_slot(sequence)
        batch.swapped_in.append((sequence.row, self.cache.swap_in(sequence)))
        return self._admit_with_kv(batch, sequence)

    def _admit_prompt(self, batch: Batch, sequence: Sequence, prompts: dict[int, int]) -> bool:
        """A prompt, or all known tokens of a preempted sequence, but for what the prefix cache holds."""
        hits = self.cache.hits(sequence)
        num_hit = len(hits) * self.options.block_tokens
        num_tokens = self._num_new(batch, sequence.num_tokens - num_hit, prompts)
        if self.num_free_slots == 0 or num_tokens == 0 or not self._passes_gate(sequence, hits, num_tokens):
            return False
        self.take_slot(sequence)
        self.cache.take_hits(sequence, hits)
        if not sequence.was_preempted:
            self.line.count_prompt(sequence.client, sequence.num_prompt)
        self._enter(batch, sequence)
        prompts[sequence.row] = num_tokens
        self._give(batch, sequence, num_tokens)
        return True

    def _enter(self, batch: Batch, sequence: Sequence) -> None:
        """From the line to the tail of the running list."""
        self.line.remove(sequence)
        self.adapters.join(sequence, self.running)
        self.running.append(sequence)
        batch.admitted.append((sequence.row, sequence.num_computed))

    def _num_new(self, batch: Batch, num_to_do: int, prompts: dict[int, int]) -> int:
        """Tokens of a prompt in its first step; 0 if it has to wait."""
        if not self.switches.chunk_prefill:
            return self._num_whole(batch, num_to_do, prompts)
        num_tokens = min(num_to_do, batch.left)
        if self.options.long_prefill_token_threshold > 0:
            num_tokens = min(num_tokens, self.options.long_prefill_token_threshold)
        return num_tokens

    def _num_whole(self, batch: Batch, num_to_do: int, prompts: dict[int, int]) -> int:
        """All or nothing. A prompt that no step could hold goes alone: it would wait for ever otherwise."""
        max_tokens = self.options.max_num_batched_tokens
        if self.switches.padding != "none":
            is_allowed = padded_tokens([*prompts.values(), num_to_do], self.switches.padding) <= max_tokens
        else:
            is_allowed = num_to_do <= batch.left
        is_too_long_for_any_step = num_to_do > max_tokens
        return num_to_do if is_allowed or (is_too_long_for_any_step and not prompts) else 0

    def _passes_gate(self, sequence: Sequence, hits: list[Block], num_tokens: int) -> bool:
        """Rules 7 to 9. Hit blocks that lie in the free queue are not free for anything else; nothing is kept back
        for those who run if nobody does."""
        num_first = len(hits) * self.options.block_tokens + num_tokens
        is_whole = self.options.gates_whole_sequence and not self.options.all_layers_slide
        num_needed = self.cache.cost(self.cache.num_blocks(sequence.num_tokens if is_whole else num_first)) - len(hits)
        available = self.cache.num_free - sum(block.num_owners == 0 for block in self.cache.in_window(hits))
        if self.running:
            available -= self.watermark_blocks + self._num_reserved(sequence)
        return num_needed <= available

    def _num_reserved(self, sequence: Sequence) -> int:
        """Blocks kept for a share of the outputs to come, those of the newcomer included."""
        num_blocks = self.cache.num_blocks
        num_to_come = max(num_blocks(sequence.num_stored) - num_blocks(sequence.num_tokens), 0)
        for running in self.running:
            if not running.is_done:
                num_to_come += max(num_blocks(running.num_stored) - len(running.blocks), 0)
        return math.floor(self.options.output_reserve_frac * num_to_come)

    # -- tokens

    def has_blocks(self, sequence: Sequence, num_tokens: int) -> bool:
        """Whether it can have the blocks that it lacks to store so many tokens."""
        return self.cache.num_missing(sequence, num_tokens) <= self.cache.num_free

    def _give(self, batch: Batch, sequence: Sequence, num_tokens: int) -> None:
        """Blocks and tokens for one sequence; what becomes full is findable at once, if so set (rule 10)."""
        options, cache = self.options, self.cache
        context = sequence.num_computed
        num_drafts = max(num_tokens - sequence.num_to_do, 0)
        num_positions = num_drafts // options.tree_width
        cache.grow(sequence, context + num_tokens)
        batch.left -= num_tokens
        batch.works[sequence.row] = Work(
            sequence,
            num_tokens,
            context,
            is_decode=sequence.is_decode,
            reaches_end=num_tokens >= sequence.num_to_do,
            num_drafts=num_drafts,
            num_accepted=num_accepted(options, sequence, num_positions) if num_positions else 0,
        )
        sequence.num_computed = context + num_tokens
        if options.seals_at_schedule:
            cache.seal(sequence, min(sequence.num_computed, sequence.num_tokens))

    def _count_tokens_to_come(self, batch: Batch) -> None:
        """With async scheduling the next step counts on the tokens of this one."""
        if self.options.async_scheduling:
            for work in batch.works.values():
                work.sequence.num_pending += work.progresses and work.reaches_end and work.sequence.num_output > 0

    def _is_decode(self, sequence: Sequence) -> bool:
        return sequence.is_decode and not self._is_in_wave(sequence)

    def _is_unfinished_prompt(self, sequence: Sequence) -> bool:
        return sequence.num_to_do > 0 and not sequence.is_decode

    # -- layered prefill

    def _is_in_wave(self, sequence: Sequence) -> bool:
        return self.wave is not None and sequence.row in self.wave.works

    def _form_wave(self, batch: Batch, prompts: dict[int, int]) -> None:
        """The prompts that enter now; each 512 tokens (or what is set) make one more group of layers.

        One that is cached but for its last token is a decode.
        """
        works = {row: batch.works.pop(row) for row in prompts if not batch.works[row].is_decode}
        if not works:
            return
        num_groups = math.ceil(sum(work.num_tokens for work in works.values()) / self.options.layer_group_tokens)
        self.wave = Wave(works, num_groups=min(num_groups, self.options.num_layers))
        for work in works.values():
            work.sequence.num_computed = work.context

    def _run_wave(self, batch: Batch, wave: Wave) -> None:
        """One more group of layers; with the last one the prompts progress and the wave is over."""
        wave.num_begun += 1
        is_last = wave.num_begun == wave.num_groups
        batch.wave_rows = frozenset(wave.works)
        batch.num_layer_groups = wave.num_groups
        for row, work in wave.works.items():
            batch.works[row] = replace(work, progresses=is_last)
            if is_last:
                work.sequence.num_computed = work.end
        if is_last:
            self.wave = None
