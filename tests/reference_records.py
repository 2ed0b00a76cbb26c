"""What the oracle is told and what it tells: options, arrivals, and the decisions of a step as integers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

Policy = Literal[
    "chunked_prefill", "continuous", "prefill_first", "decode_first", "mixed_pool", "static", "padded", "prepacked",
    "layered_prefill",
]  # fmt: skip
QueueOrder = Literal["fcfs", "priority", "sjf", "least_slack", "fair_share", "longest_prefix"]
Padding = Literal["none", "padded", "packed"]
Acceptance = Literal["constant", "per_position", "trace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """How a policy fills one step."""

    chunk_prefill: bool = False
    mix: bool = False
    """One step may hold prompts and decodes."""
    waiting_first: bool = False
    decodes_first: bool = False
    static_batch: bool = False
    padding: Padding = "none"
    by_layers: bool = False


POLICIES: Final[dict[Policy, Switches]] = {
    "chunked_prefill": Switches(chunk_prefill=True, mix=True),
    "continuous": Switches(mix=True),
    "prefill_first": Switches(waiting_first=True),
    "decode_first": Switches(chunk_prefill=True, mix=True, decodes_first=True),
    "mixed_pool": Switches(mix=True, waiting_first=True),
    "static": Switches(waiting_first=True, static_batch=True, padding="padded"),
    "padded": Switches(waiting_first=True, padding="padded"),
    "prepacked": Switches(waiting_first=True, padding="packed"),
    "layered_prefill": Switches(mix=True, decodes_first=True, by_layers=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One token engine, or one rank of several in lockstep."""

    num_blocks: int
    block_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int
    num_slots: int | None = None
    """Sequences that may hold KV; None: max_num_seqs."""

    policy: Policy = "chunked_prefill"
    chunk_prompts: bool = False
    """prefill_first only."""
    queue_order: QueueOrder = "fcfs"
    long_prefill_token_threshold: int = 0
    full_sequence_gate: bool = True
    watermark_frac: float = 0.0
    output_reserve_frac: float = 0.0
    victim: Literal["last", "fewest_generated"] = "last"
    preemption: Literal["recompute", "swap"] = "recompute"
    swap_blocks: int = 0
    """Swap space in blocks."""
    swap_block_s: float = 0.0
    copy_block_s: float = 0.0

    prefix_caching: bool = True
    prefix_cache: Literal["hash", "radix"] = "hash"
    insert_at: Literal["schedule", "step_end"] = "schedule"
    window_blocks: int = 0
    """Blocks that cover a sliding window wherever it begins; 0: no layer slides."""
    window_groups: int = 0
    """Groups of sliding layers beside full ones: so many more pool blocks for each of the first window_blocks."""
    all_layers_slide: bool = False

    layer_group_tokens: int = 512
    num_layers: int = 32

    max_adapters: int = 0
    """Slots for low-rank adapters; 0: nobody needs one."""

    async_scheduling: bool = False
    num_stages: int = 1
    """Stages of the pipeline: as many steps in flight."""
    stage_interval_frac: float = 1.0
    """Time that a step spends in the slowest stage, as a share of its time in all of them."""

    draft_tokens: int = 0
    tree_width: int = 1
    adaptive_drafts: bool = False
    draft_max_seqs: int | None = None
    """No drafts while more sequences run."""
    acceptance: Acceptance = "constant"
    acceptance_values: tuple[float, ...] = ()
    """The rate, a rate for each position, or accepted counts."""
    speculative_seed: int = 0

    @property
    def switches(self) -> Switches:
        if self.policy == "prefill_first":
            return Switches(waiting_first=True, chunk_prefill=self.chunk_prompts)
        return POLICIES[self.policy]

    @property
    def gates_whole_sequence(self) -> bool:
        """Chunked prompts that go before decodes would evict each other for ever without the gate."""
        return self.full_sequence_gate or (self.policy == "prefill_first" and self.chunk_prompts)

    @property
    def num_lanes(self) -> int:
        """Steps in flight at once."""
        return 2 if self.async_scheduling else self.num_stages

    @property
    def seals_at_schedule(self) -> bool:
        return self.insert_at == "schedule"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One visit as it reaches the engine."""

    arrival_s: float
    row: int
    num_prompt: int
    num_output: int
    priority: int = 0
    client: int = 0
    deadline_s: float = 0.0
    """Key of least_slack."""
    samples: tuple[tuple[int, int], ...] = ()
    """(row, num_output >= 2) of each parallel sample beside the visit itself."""
    transfer_s: float | None = None
    """The prompt's KV and first token come from elsewhere: blocks are reserved, and so much later the KV is here."""
    rank: int = 0
    adapter: int = 0
    """0: none."""


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """What the cost of a step depends on, as the cost sees it: padded where the policy pads."""

    num_tokens: int = 0
    num_sampled: int = 0
    """Tokens that get logits: the last known one of each sequence that reaches it, and its drafts."""
    num_decode: int = 0
    num_decode_tokens: int = 0
    """Drafts included."""
    decode_context_sum: int = 0
    """KV tokens read by the decodes, the new ones included."""
    decode_context_max: int = 0
    num_prefill: int = 0
    prefill_token_pairs: int = 0
    """Query-key pairs under the causal mask."""
    prefill_context_sum: int = 0


@dataclass(frozen=True, slots=True)
class Seconds:
    """Time of a step: what the host does before the device can begin, and the device."""

    device_s: float
    host_s: float = 0.0


class StepCost(Protocol):
    """Seconds of one step, from integers that describe its batch."""

    def __call__(self, counts: BatchCounts, /) -> Seconds: ...


@dataclass(frozen=True, slots=True)
class StepRecord:
    """The decisions of one step."""

    start_s: float
    end_s: float
    scheduled: tuple[tuple[int, int], ...]
    """(row, num_tokens) in running order, drafts included; prompts of a wave in each of its steps."""
    preempted: tuple[int, ...]
    """Rows in the order in which they were evicted, whatever became of their KV."""
    admitted: tuple[tuple[int, int], ...]
    """(row, tokens that it has already: prefix hits, or KV that came with it) in the order of admission."""
    swapped_out: tuple[tuple[int, int], ...]
    """(row, num_blocks)."""
    swapped_in: tuple[tuple[int, int], ...]
    accepted: tuple[tuple[int, int], ...]
    """(row, accepted drafts) of each decode that had drafts to verify, in running order."""
    num_copied_blocks: int
    free_blocks: int
    """After scheduling."""
    counts: BatchCounts
    decode_counts: BatchCounts | None
    """The decodes alone, beside a wave of prompts that run through one group of layers."""
    num_layer_groups: int


@dataclass(slots=True, eq=False)
class Block:
    """One KV block; it has a hash while its full content can be found by the prefix look-up."""

    block_id: int
    num_owners: int = 0
    block_hash: int | None = None
    parent_hash: int = 0


@dataclass(slots=True, eq=False)
class Sequence:
    """One visit inside the engine. Tokens known = prompt and the outputs generated so far."""

    row: int
    num_prompt: int
    num_output: int
    key: float = 0.0
    """Of sorted queue orders: smaller goes first."""
    client: int = 0
    arrival_order: int = 0
    samples: tuple[tuple[int, int], ...] = ()
    adapter: int = 0
    num_drafts: int = 0
    """Positions it may draft ahead."""

    num_computed: int = 0
    """Advanced when scheduled."""
    num_generated: int = 0
    num_pending: int = 0
    """Steps in flight that will give it a token; counted with async scheduling only."""
    was_preempted: bool = False
    is_done: bool = False
    """Has all its tokens, but its static batch has not ended."""

    holds_slot: bool = False
    is_copied: bool = True
    """False: the block that it shares in part with its siblings is still to be copied."""
    num_swapped_blocks: int = 0
    """On the host."""
    blocks: list[Block | None] = field(default_factory=list)
    """None: slid out of the window."""
    window_extras: list[Block] = field(default_factory=list)
    """Pool blocks of the groups of sliding layers."""
    num_sealed: int = 0
    """Leading blocks that were offered to the prefix cache."""
    block_hashes: list[int] = field(default_factory=list)
    """Chained hash of each leading block, whether or not the block this sequence owns carries it."""

    @property
    def num_tokens(self) -> int:
        return self.num_prompt + self.num_generated

    @property
    def num_to_do(self) -> int:
        """Tokens to compute (rule 1: no phases); none if what is in flight will end it."""
        if self.is_done or (self.num_pending > 0 and self.num_generated + self.num_pending >= self.num_output):
            return 0
        return max(self.num_tokens + self.num_pending - self.num_computed, 0)

    @property
    def is_decode(self) -> bool:
        """Up to date but for its last token, which is known or on its way."""
        return self.num_generated + self.num_pending >= 1 and self.num_to_do == 1

    @property
    def is_swapped(self) -> bool:
        return self.num_swapped_blocks > 0

    @property
    def urgency(self) -> tuple[float, int]:
        """Smaller runs first, larger is evicted first."""
        return (self.key, self.arrival_order)

    @property
    def num_stored(self) -> int:
        """Tokens in the cache at its end: the last output is never computed."""
        return self.num_prompt + max(self.num_output, 1) - 1


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens of one sequence in one step."""

    sequence: Sequence
    num_tokens: int
    context: int
    """Tokens computed before."""
    is_decode: bool
    reaches_end: bool
    """Computes its last known token: a token follows at the end of the step."""
    num_drafts: int = 0
    num_accepted: int = 0
    """Drafts that the model accepts, wanted or not."""
    progresses: bool = True
    """False for a prompt of a wave that has layers left after this step."""

    @property
    def end(self) -> int:
        return self.context + self.num_tokens

    @property
    def num_outputs(self) -> int:
        """Tokens that follow at the end of the step."""
        if not self.reaches_end or self.sequence.num_output == 0:
            return 0
        return min(self.num_accepted + 1, self.sequence.num_output - self.sequence.num_generated)
