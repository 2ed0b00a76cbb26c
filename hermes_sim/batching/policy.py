"""What a batching policy is: a name, the options a user may set, and the frozen switches that the step loop reads."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import Field

from hermes_sim.core.schema import Description, Fraction, NonNegativeInt, PositiveInt, Seconds

QueueOrder = Literal["fcfs", "priority", "sjf", "least_slack", "fair_share", "longest_prefix"]
QUEUE_ORDERS: Final[tuple[QueueOrder, ...]] = (
    "fcfs", "priority", "sjf", "least_slack", "fair_share", "longest_prefix",
)  # fmt: skip
"""The place of an order here is its number in compiled code."""

Padding = Literal["none", "padded", "packed"]
PADDINGS: Final[tuple[Padding, ...]] = ("none", "padded", "packed")
"""The place of a padding here is its number in compiled code."""

Preemption = Literal["recompute", "swap"]
Victim = Literal["last", "fewest_generated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """How a token engine fills one step (docs/modelling.md, "A serving step")."""

    chunk_prefill: bool = False
    """A prompt may be split over steps; otherwise it is computed whole in one step."""
    mix: bool = False
    """One step may hold prompts and decodes; otherwise a step that prefills holds no decode."""
    waiting_first: bool = False
    """Waiting sequences are served before running ones."""
    decodes_first: bool = False
    """Decodes of the running list are served before its unfinished prompts."""
    static_batch: bool = False
    """A batch is formed when the engine is empty and stays together until its last sequence has ended."""
    padding: Padding = "none"
    """Prompts of a step are padded to the longest, or packed into rows of its length."""
    by_layers: bool = False
    """A prompt runs through one group of layers a step, beside all decodes."""
    full_sequence_gate: bool = True
    """Admit only if blocks for the whole prompt are free, not just for the first chunk."""


class TokenBatching(Description):
    """Options common to the policies of token engines (prefill, decode); names as in vLLM."""

    max_num_seqs: PositiveInt = 256
    max_num_batched_tokens: PositiveInt = 8192
    long_prefill_token_threshold: NonNegativeInt = 0
    """Cap on the tokens of one prompt in one step; 0: none."""
    receive_every_steps: PositiveInt = 1
    """While sequences decode, new requests are fetched before every so many-th step only, and after every prompt
    (SGLang's scheduler_recv_interval)."""
    watermark_frac: Fraction = 0.0
    """Share of the KV blocks kept free when admitting."""
    queue_order: QueueOrder = "fcfs"
    """Who is admitted first: the earliest; the most urgent (priority); the shortest prompt and output (sjf); the
    nearest TTFT deadline (least_slack); the client served least so far (fair_share, arXiv 2401.00588); the longest
    cached prefix among the first 128 (longest_prefix, SGLang)."""
    full_sequence_gate: bool = True
    """Admit only if blocks for the whole prompt are free, not just for the first chunk."""
    output_reserve_frac: Fraction = 0.0
    """Share of the outputs still to come whose blocks must be free when admitting; 1: nobody is ever preempted."""
    preemption: Preemption = "recompute"
    """What becomes of a victim's KV: dropped and computed again, or copied to the host while swap_space lasts."""
    victim: Victim = "last"
    """Who is preempted: the last of the running list or of the queue order, or who has generated the fewest tokens."""
    async_scheduling: bool = False
    """The next step is scheduled while the last one runs, which hides the host's time."""

    @abstractmethod
    def switches(self) -> Switches:
        """How the compiled loop is to fill steps under this policy."""


class DynamicBatching(Description):
    """Batches of whole jobs (embed, retrieve, rerank, timed), as a model server's dynamic batcher forms them."""

    kind: Literal["dynamic"] = "dynamic"
    max_batch_size: PositiveInt = 16
    max_wait_s: Seconds = Field(default=0.0, alias="max_wait")
    """A worker waits this long for a batch to fill before it starts a smaller one."""
    num_workers: PositiveInt = 1
    """Batches in flight at once; the engine's cores are split evenly among them."""
