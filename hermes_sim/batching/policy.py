"""What a batching policy is: a name, the options a user may set, and the frozen switches that the step loop reads."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from hermes_sim.core.schema import Description, Fraction, NonNegativeInt, PositiveInt, Seconds

QueueOrder = Literal["fcfs", "priority"]


@dataclass(frozen=True, slots=True)
class Switches:
    """How a token engine fills one step (docs/modelling.md, "A serving step")."""

    chunk_prefill: bool
    """A prompt may be split over steps; otherwise it is computed whole in one step."""
    mix_prefill_and_decode: bool
    """One step may hold both; otherwise a step that prefills holds no decode."""
    full_sequence_gate: bool
    """Admit only if blocks for the whole prompt are free, not just for the first chunk."""


class TokenBatching(Description):
    """Options common to the policies of token engines (prefill, decode); names as in vLLM."""

    max_num_seqs: PositiveInt = 256
    max_num_batched_tokens: PositiveInt = 8192
    long_prefill_token_threshold: NonNegativeInt = 0
    """Cap on the tokens of one prompt in one step; 0: none."""
    watermark_frac: Fraction = 0.0
    """Share of the KV blocks kept free when admitting."""
    queue_order: QueueOrder = "fcfs"
    full_sequence_gate: bool = True

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
