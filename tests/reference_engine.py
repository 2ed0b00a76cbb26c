"""The oracle: a token engine in plain Python, whose decisions the compiled engine must repeat as integers.

The shape is nano-vllm's: schedule, cost, finish. The rules are vLLM V1's, and Orca's for `continuous`
(docs/modelling.md, "A serving step"). Speed is no aim here: lists, dicts and deques, one idea a function, and the laws
checked at both ends of every step.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

Policy = Literal["chunked_prefill", "continuous"]
QueueOrder = Literal["fcfs", "priority"]


class StepCost(Protocol):
    """Seconds of one step, from integers that describe its batch."""

    def __call__(
        self,
        num_tokens: int,
        num_sampled: int,
        num_decode: int,
        decode_context_sum: int,
        decode_context_max: int,
        num_prefill: int,
        prefill_token_pairs: int,
        prefill_context_sum: int,
    ) -> float: ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as it reaches the engine."""

    arrival_s: float
    row: int
    num_prompt: int
    num_output: int
    priority: int = 0


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """What the cost of a step depends on, in the order in which `StepCost` takes it."""

    num_tokens: int = 0
    num_sampled: int = 0
    """Sequences whose last known token is computed in this step: they get a token, or end with their prompt."""
    num_decode: int = 0
    decode_context_sum: int = 0
    """KV tokens read by the decodes, the new one included."""
    decode_context_max: int = 0
    num_prefill: int = 0
    prefill_token_pairs: int = 0
    """Query-key pairs under the causal mask."""
    prefill_context_sum: int = 0


@dataclass(frozen=True, slots=True)
class StepRecord:
    """The decisions of one step."""

    start_s: float
    end_s: float
    scheduled: tuple[tuple[int, int], ...]
    """(row, num_tokens) in running order."""
    preempted: tuple[int, ...]
    """Rows in the order in which they were evicted."""
    admitted: tuple[tuple[int, int], ...]
    """(row, prefix hit tokens) in the order of admission."""
    free_blocks: int
    """After scheduling."""
    counts: BatchCounts


@dataclass(slots=True, eq=False)
class Block:
    """One KV block; it has a hash while its full content can be found by the prefix look-up."""

    block_id: int
    num_owners: int = 0
    block_hash: int | None = None


@dataclass(slots=True, eq=False)
class Sequence:
    """One request inside the engine. Tokens known = prompt and the outputs generated so far."""

    row: int
    num_prompt: int
    num_output: int
    priority: int
    arrival_order: int
    num_computed: int = 0
    num_generated: int = 0
    blocks: list[Block] = field(default_factory=list)
    block_hashes: list[int] = field(default_factory=list)
    """Chained hash of each leading block, whether or not the block this sequence owns carries it."""

    @property
    def num_tokens(self) -> int:
        return self.num_prompt + self.num_generated

    @property
    def num_to_schedule(self) -> int:
        return self.num_tokens - self.num_computed

    @property
    def urgency(self) -> tuple[int, int]:
        """Smaller runs first, larger is evicted first."""
        return (self.priority, self.arrival_order)


class BlockPool:
    """Blocks, the least-recently-used queue of those without an owner, and the table of hashes."""

    def __init__(self, num_blocks: int) -> None:
        self.blocks = [Block(block_id) for block_id in range(num_blocks)]
        self.free = deque(self.blocks)
        self.cached: dict[int, Block] = {}

    def allocate(self) -> Block:
        """Reuse the block that was freed longest ago; what it cached is lost."""
        block = self.free.popleft()
        if block.block_hash is not None:
            del self.cached[block.block_hash]
            block.block_hash = None
        block.num_owners = 1
        return block

    def share(self, block: Block) -> None:
        """One more owner for a cached block; it leaves the free queue if it was there."""
        if block.num_owners == 0:
            self.free.remove(block)
        block.num_owners += 1

    def release(self, block: Block) -> None:
        """One owner less; the last one puts the block at the tail of the free queue, its hash intact."""
        block.num_owners -= 1
        if block.num_owners == 0:
            self.free.append(block)

    def seal(self, block: Block, block_hash: int) -> None:
        """Make a full block findable, unless another block already holds the same content."""
        if block_hash not in self.cached:
            self.cached[block_hash] = block
            block.block_hash = block_hash


class ReferenceEngine:
    """One token engine: `push` requests, then `begin_step` and `end_step` in turn, or `run` a list of arrivals.

    content(row, index) names the content of block `index` of request `row`, prompt and generated tokens alike; equal
    names in equal positions after equal predecessors are equal blocks. Raises ValueError on an empty prompt.
    """

    def __init__(
        self,
        num_blocks: int,
        block_tokens: int,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        policy: Policy = "chunked_prefill",
        prefix_caching: bool = True,
        full_sequence_gate: bool = True,
        watermark_frac: float = 0.0,
        long_prefill_token_threshold: int = 0,
        queue_order: QueueOrder = "fcfs",
        *,
        content: Callable[[int, int], int],
        cost: StepCost,
    ) -> None:
        self.block_tokens = block_tokens
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.policy = policy
        self.prefix_caching = prefix_caching
        self.full_sequence_gate = full_sequence_gate
        self.watermark_blocks = int(watermark_frac * num_blocks)
        self.long_prefill_token_threshold = long_prefill_token_threshold
        self.queue_order = queue_order
        self.content = content
        self.cost = cost

        self.pool = BlockPool(num_blocks)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.step: StepRecord | None = None
        self.scheduled: dict[int, int] = {}
        self.hash_ids: dict[tuple[int, int], int] = {}
        self.num_pushed = 0
        self.rejected: list[int] = []
        self.first_token_s: dict[int, float] = {}
        self.finish_s: dict[int, float] = {}

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def run(self, arrivals: Iterable[Arrival]) -> list[StepRecord]:
        """Serve all arrivals (sorted by time); at one instant a step ends, then requests arrive, then a step starts."""
        due = deque(arrivals)
        records = []
        clock_s = 0.0
        while due or self.has_work:
            if not self.has_work:
                clock_s = max(clock_s, due[0].arrival_s)
            while due and due[0].arrival_s <= clock_s:
                arrival = due.popleft()
                self.push(arrival.row, arrival.num_prompt, arrival.num_output, arrival.priority)
            if self.has_work:
                record = self.begin_step(clock_s)
                self.end_step()
                records.append(record)
                clock_s = record.end_s
        return records

    def push(self, row: int, num_prompt: int, num_output: int, priority: int = 0) -> bool:
        """Put a request into the waiting queue; False if the whole pool could not hold it."""
        if num_prompt < 1:
            raise ValueError(f"request {row} has an empty prompt")
        self.num_pushed += 1
        # The last output token is never computed, so it never needs a place in the cache.
        if self._num_blocks(num_prompt + max(num_output, 1) - 1) > len(self.pool.blocks):
            self.rejected.append(row)
            return False
        self._enqueue(Sequence(row, num_prompt, num_output, priority, arrival_order=self.num_pushed))
        return True

    def begin_step(self, start_s: float) -> StepRecord:
        """Decide who runs from `start_s` on, take their blocks, and price the batch."""
        assert self.step is None
        assert self.has_work
        self.scheduled = {}
        preempted: list[int] = []
        admitted: list[tuple[int, int]] = []
        # The first running sequence may have evicted itself: vLLM then runs an empty step, which takes no time here.
        while not self.scheduled:
            budget, evicted = self._schedule_running(self.max_num_batched_tokens)
            preempted += evicted
            if not evicted:
                admitted = self._schedule_waiting(budget)
            assert self.scheduled or evicted
        counts = self._count_batch()
        self.step = StepRecord(
            start_s=start_s,
            end_s=start_s + self._price(counts),
            scheduled=tuple(self.scheduled.items()),
            preempted=tuple(preempted),
            admitted=tuple(admitted),
            free_blocks=len(self.pool.free),
            counts=counts,
        )
        self._check_laws()
        return self.step

    def end_step(self) -> list[int]:
        """Advance the scheduled sequences, seal the blocks they filled, and return the rows that have finished."""
        assert self.step is not None
        finished = []
        for sequence in list(self.running):
            num_new = self.scheduled.get(sequence.row, 0)
            if num_new and self._advance(sequence, num_new, self.step.end_s):
                self.running.remove(sequence)
                self._free(sequence)
                finished.append(sequence.row)
        self.step = None
        self.scheduled = {}
        self._check_laws()
        return finished

    def _schedule_running(self, budget: int) -> tuple[int, list[int]]:
        """Running sequences in their order; whoever lacks a block evicts the victim. Returns (budget left, evicted)."""
        preempted: list[int] = []
        position = 0
        while position < len(self.running):
            sequence = self.running[position]
            num_new = self._num_new_tokens(sequence.num_to_schedule, budget)
            if num_new == 0:
                position += 1
                continue
            while self._num_missing_blocks(sequence, num_new) > len(self.pool.free):
                victim = self._victim()
                if self.running.index(victim) < position:
                    position -= 1
                budget += self.scheduled.pop(victim.row, 0)
                self._preempt(victim)
                preempted.append(victim.row)
                if victim is sequence:
                    return budget, preempted
            self._take_blocks(sequence, num_new)
            self.scheduled[sequence.row] = num_new
            budget -= num_new
            position += 1
        return budget, preempted

    def _schedule_waiting(self, budget: int) -> list[tuple[int, int]]:
        """Waiting sequences in their order, up to the first that does not fit. Returns (row, hit tokens) of each."""
        admitted: list[tuple[int, int]] = []
        while self.waiting and len(self.running) < self.max_num_seqs and budget > 0:
            sequence = self.waiting[0]
            hits = self._prefix_hits(sequence)
            num_hit = len(hits) * self.block_tokens
            num_new = self._num_new_tokens(sequence.num_tokens - num_hit, budget, is_first_prompt=not admitted)
            if num_new == 0 or not self._fits(sequence, hits, num_new):
                break
            self.waiting.popleft()
            for block in hits:
                self.pool.share(block)
            sequence.blocks = hits
            sequence.num_computed = num_hit
            self._take_blocks(sequence, num_new)
            self.running.append(sequence)
            self.scheduled[sequence.row] = num_new
            budget -= num_new
            admitted.append((sequence.row, num_hit))
        return admitted

    def _num_new_tokens(self, num_to_schedule: int, budget: int, *, is_first_prompt: bool = False) -> int:
        """Tokens of one sequence in this step; 0 if it has to wait."""
        if self.policy == "continuous":
            # A prompt that no step could hold goes alone: it would wait for ever otherwise.
            too_long_for_any_step = num_to_schedule > self.max_num_batched_tokens
            is_allowed = num_to_schedule <= budget or (too_long_for_any_step and is_first_prompt)
            return num_to_schedule if is_allowed else 0
        num_new = min(num_to_schedule, budget)
        if self.long_prefill_token_threshold > 0:
            num_new = min(num_new, self.long_prefill_token_threshold)
        return num_new

    def _fits(self, sequence: Sequence, hits: list[Block], num_new: int) -> bool:
        """The gate of admission. Hit blocks that lie in the free queue are not free for anything else."""
        if self.full_sequence_gate:
            num_needed = self._num_blocks(sequence.num_tokens)
        else:
            num_needed = self._num_blocks(len(hits) * self.block_tokens + num_new)
        num_free = len(self.pool.free) - sum(block.num_owners == 0 for block in hits)
        watermark_blocks = self.watermark_blocks if self.running else 0
        return num_needed - len(hits) <= num_free - watermark_blocks

    def _prefix_hits(self, sequence: Sequence) -> list[Block]:
        """Cached blocks from the front up to the first miss; the last known token is always computed anew."""
        hits: list[Block] = []
        if not self.prefix_caching:
            return hits
        for index in range((sequence.num_tokens - 1) // self.block_tokens):
            block = self.pool.cached.get(self._block_hash(sequence, index))
            if block is None:
                break
            hits.append(block)
        return hits

    def _victim(self) -> Sequence:
        if self.queue_order == "priority":
            return max(self.running, key=lambda sequence: sequence.urgency)
        return self.running[-1]

    def _preempt(self, sequence: Sequence) -> None:
        """Recompute later: all blocks go, generated tokens stay, and it is the next to be admitted."""
        self.running.remove(sequence)
        self._free(sequence)
        sequence.num_computed = 0
        if self.queue_order == "priority":
            self._enqueue(sequence)
        else:
            self.waiting.appendleft(sequence)

    def _enqueue(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)
        if self.queue_order == "priority":
            self.waiting = deque(sorted(self.waiting, key=lambda waiting: waiting.urgency))

    def _advance(self, sequence: Sequence, num_new: int, end_s: float) -> bool:
        """Bring one sequence to the end of the step; True if it has finished."""
        num_full_before = sequence.num_computed // self.block_tokens
        sequence.num_computed += num_new
        if self.prefix_caching:
            for index in range(num_full_before, sequence.num_computed // self.block_tokens):
                self.pool.seal(sequence.blocks[index], self._block_hash(sequence, index))
        if sequence.num_to_schedule > 0:
            return False
        if sequence.num_output > 0:
            sequence.num_generated += 1
            self.first_token_s.setdefault(sequence.row, end_s)
        if sequence.num_generated < sequence.num_output:
            return False
        self.finish_s[sequence.row] = end_s
        return True

    def _take_blocks(self, sequence: Sequence, num_new: int) -> None:
        for _ in range(self._num_missing_blocks(sequence, num_new)):
            sequence.blocks.append(self.pool.allocate())

    def _free(self, sequence: Sequence) -> None:
        """Last block first: the front of a prefix, which more requests share, is reused last."""
        for block in reversed(sequence.blocks):
            self.pool.release(block)
        sequence.blocks = []

    def _num_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_tokens)

    def _num_missing_blocks(self, sequence: Sequence, num_new: int) -> int:
        return self._num_blocks(sequence.num_computed + num_new) - len(sequence.blocks)

    def _block_hash(self, sequence: Sequence, index: int) -> int:
        """Chained hash of a leading block: one number for each distinct (parent, content), so without collisions."""
        hashes = sequence.block_hashes
        while len(hashes) <= index:
            link = (hashes[-1] if hashes else 0, self.content(sequence.row, len(hashes)))
            hashes.append(self.hash_ids.setdefault(link, len(self.hash_ids) + 1))
        return hashes[index]

    def _count_batch(self) -> BatchCounts:
        """A decode computes the one token just generated; all else, recomputation included, is prefill."""
        decode_contexts: list[int] = []
        num_sampled = num_prefill = prefill_token_pairs = prefill_context_sum = 0
        for sequence in self.running:
            num_new = self.scheduled.get(sequence.row, 0)
            if num_new == 0:
                continue
            num_sampled += num_new == sequence.num_to_schedule
            if sequence.num_to_schedule == 1 and sequence.num_generated >= 1:
                decode_contexts.append(sequence.num_computed + 1)
            else:
                num_prefill += 1
                prefill_token_pairs += num_new * sequence.num_computed + num_new * (num_new + 1) // 2
                prefill_context_sum += sequence.num_computed + num_new
        return BatchCounts(
            num_tokens=sum(self.scheduled.values()),
            num_sampled=num_sampled,
            num_decode=len(decode_contexts),
            decode_context_sum=sum(decode_contexts),
            decode_context_max=max(decode_contexts, default=0),
            num_prefill=num_prefill,
            prefill_token_pairs=prefill_token_pairs,
            prefill_context_sum=prefill_context_sum,
        )

    def _price(self, counts: BatchCounts) -> float:
        seconds = self.cost(
            counts.num_tokens,
            counts.num_sampled,
            counts.num_decode,
            counts.decode_context_sum,
            counts.decode_context_max,
            counts.num_prefill,
            counts.prefill_token_pairs,
            counts.prefill_context_sum,
        )
        assert seconds >= 0.0
        return seconds

    def _check_laws(self) -> None:
        self._check_requests()
        self._check_blocks()
        if self.step is not None:
            self._check_step(self.step)

    def _check_requests(self) -> None:
        """Every request pushed is in exactly one place; no queue is out of order or over its limit."""
        inside = [sequence.row for sequence in [*self.waiting, *self.running]]
        assert len(inside) == len(set(inside))
        assert self.num_pushed == len(inside) + len(self.finish_s) + len(self.rejected)
        assert len(self.running) <= self.max_num_seqs
        assert all(not sequence.blocks and sequence.num_computed == 0 for sequence in self.waiting)
        if self.queue_order == "priority":
            urgencies = [sequence.urgency for sequence in self.waiting]
            assert urgencies == sorted(urgencies)

    def _check_blocks(self) -> None:
        """Owned + free = total; a shared or cached block is full and holds what its owners believe it holds."""
        num_owners = Counter(block.block_id for sequence in self.running for block in sequence.blocks)
        free = [block.block_id for block in self.pool.free]
        assert len(free) == len(set(free))
        assert len(free) + len(num_owners) == len(self.pool.blocks)
        assert all(block.num_owners == num_owners[block.block_id] for block in self.pool.blocks)
        assert set(free).isdisjoint(num_owners)
        hashed = {block.block_hash: block for block in self.pool.blocks if block.block_hash is not None}
        assert hashed == self.pool.cached
        assert self.prefix_caching or not hashed
        for sequence in self.running:
            num_tokens = sequence.num_computed + self.scheduled.get(sequence.row, 0)
            assert len(sequence.blocks) == self._num_blocks(num_tokens)
            for index, block in enumerate(sequence.blocks):
                is_full = index < sequence.num_computed // self.block_tokens
                assert block.num_owners == 1 or (is_full and block.block_hash is not None)
                assert block.block_hash is None or block.block_hash == self._block_hash(sequence, index)

    def _check_step(self, step: StepRecord) -> None:
        """The budget holds, save for one prompt of a policy without chunks that no step could hold."""
        num_tokens = sum(num_new for _, num_new in step.scheduled)
        assert all(num_new > 0 for _, num_new in step.scheduled)
        assert {row for row, _ in step.scheduled} <= {sequence.row for sequence in self.running}
        assert {row for row, _ in step.admitted} <= set(self.scheduled)
        if self.policy == "continuous" and len(step.admitted) == 1:
            num_prompt_tokens = self.scheduled[step.admitted[0][0]]
            num_tokens -= num_prompt_tokens if num_prompt_tokens > self.max_num_batched_tokens else 0
        assert num_tokens <= self.max_num_batched_tokens
