"""A batching policy written in Python: what it sees of an engine before a step, and what it answers.

Slower than the compiled policies by the time of the Python call, one a step; everything else is the same engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol

from pydantic import Field, PrivateAttr

from hermes_sim.batching.policy import Switches, TokenBatching
from hermes_sim.core.schema import Scalar


class Blocks(Protocol):
    """What the KV cache knows of one sequence, looked up when a policy asks."""

    def hits(self) -> int:
        """Tokens of it that the prefix cache holds, if it waits."""

    def new_blocks(self, num_tokens: int) -> int:
        """Blocks that so many more tokens take from the free ones."""

    def sole_blocks(self) -> int:
        """Blocks that nobody else shares."""


@dataclass(frozen=True)
class SequenceView:
    """A sequence before the step."""

    row: int
    """Its number, by which decisions name it."""
    num_prompt: int
    num_output: int
    """Tokens that it will generate; no real engine knows them."""
    num_generated: int
    num_computed: int
    """Tokens whose KV is there; of a waiting sequence those that came with it, not prefix hits."""
    num_blocks: int
    """KV blocks it owns, shared ones included."""
    priority: int
    """Smaller is more urgent."""
    arrival_s: float
    """At this engine."""
    num_open: int = field(repr=False)
    """Prompt and generated tokens that are not computed yet."""
    blocks: Blocks = field(repr=False, compare=False)

    @cached_property
    def num_hit_tokens(self) -> int:
        """Tokens that the prefix cache would save if it were admitted now; 0 for running sequences.

        Decisions are carried out in order: blocks that earlier ones take may hold some of these hits.
        """
        return self.blocks.hits()

    @property
    def num_to_do(self) -> int:
        """Tokens that can be computed now: one for a decode, what is left of the prompt otherwise."""
        return self.num_open - self.num_hit_tokens

    @property
    def is_decode(self) -> bool:
        """It has its prompt and only waits for its next token."""
        return self.num_generated > 0 and self.num_open == 1

    def num_new_blocks(self, num_tokens: int) -> int:
        """Free blocks that so many more tokens take; the hits of a waiting sequence that nobody owns count."""
        return self.blocks.new_blocks(num_tokens) if num_tokens > 0 else 0

    @cached_property
    def num_freed_blocks(self) -> int:
        """Blocks that become free if it is preempted."""
        return self.blocks.sole_blocks()


class Line(Sequence[SequenceView]):
    """The waiting line, head first; looked at as far as it is read."""

    def __init__(self, source: Iterator[SequenceView], length: int) -> None:
        self._source = source
        self._seen: list[SequenceView] = []
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        wanted = self._length if isinstance(index, slice) or index < 0 else index + 1
        self._read(wanted)
        return self._seen[index]

    def __iter__(self) -> Iterator[SequenceView]:
        place = 0
        while place < self._length:
            self._read(place + 1)
            yield self._seen[place]
            place += 1

    def _read(self, number: int) -> None:
        while len(self._seen) < min(number, self._length):
            self._seen.append(next(self._source))


@dataclass(frozen=True)
class BatchingView:
    """An engine before a step. Nothing here changes anything; sequences are in the engine's own order."""

    engine: str
    """`llm[0]`"""
    time_s: float
    budget: int
    """max_num_batched_tokens: the most tokens of one step."""
    max_num_seqs: int
    block_tokens: int
    num_blocks: int
    num_free_blocks: int
    """Free now, cached ones without an owner included."""
    running: tuple[SequenceView, ...]
    """In the order in which they were admitted; sequences whose step is still in flight have nothing to do."""
    waiting: Sequence[SequenceView]
    """In the order of the line (queue_order)."""


@dataclass(frozen=True)
class Decisions:
    """One step: who is preempted first, then who gets how many tokens, in this order."""

    tokens: Sequence[tuple[int, int]]
    """(row, number of tokens); waiting rows are admitted by it."""
    preempt: Sequence[int] = ()
    """Running rows that give up their blocks; they cannot get tokens in this step."""


class PythonBatching(ABC):
    """Base of a policy in Python: one instance per replica and run, so that it may keep what it likes.

    Pass one with simulate(..., batching={"llm": MyPolicy()}), or register_batching("my_policy", MyPolicy) in a module
    that is loaded with --plugin, and write `batching: {kind: my_policy}`.
    """

    @abstractmethod
    def schedule(self, view: BatchingView) -> Decisions | Sequence[tuple[int, int]]:
        """The step that starts now: [(row, number of tokens), ...], or Decisions to preempt as well.

        Nothing scheduled means that the engine rests until something arrives.
        """


class PythonOptions(TokenBatching):
    """Description of an engine whose steps are decided in Python: the common options are what the engine keeps to."""

    def switches(self) -> Switches:
        """The engine takes any mix that the policy decides."""
        return Switches(chunk_prefill=True, mix=True, full_sequence_gate=self.full_sequence_gate)

    @abstractmethod
    def make(self) -> PythonBatching:
        """The policy of one replica in one run."""


class RegisteredBatching(PythonOptions):
    """A policy that a plug-in has registered under a name."""

    policy: ClassVar[type[PythonBatching]]

    options: dict[str, Scalar] = Field(default_factory=dict)
    """Arguments of the policy's class."""

    def make(self) -> PythonBatching:
        return self.policy(**self.options)

    def __reduce__(self) -> tuple[Any, ...]:
        """By the name that it is registered under: the plug-in has made its class, and makes it on the other side."""
        return _registered, (self.__dict__["kind"], self.__getstate__())


def _registered(name: str, state: dict[Any, Any]) -> RegisteredBatching:
    from hermes_sim.batching import TOKEN_POLICIES

    kind = TOKEN_POLICIES[name]
    assert issubclass(kind, RegisteredBatching)
    made = kind.__new__(kind)
    made.__setstate__(state)
    return made


class GivenBatching(PythonOptions):
    """A policy object passed to `simulate`; a file can name it but not hold it."""

    kind: Literal["python"] = "python"
    policy: str
    """Class of the object."""
    _policy: PythonBatching = PrivateAttr()

    @classmethod
    def of(cls, policy: PythonBatching, options: TokenBatching) -> GivenBatching:
        """In place of the policy of a file, with its common options."""
        common = {name: getattr(options, name) for name in TokenBatching.model_fields}
        given = cls(policy=f"{type(policy).__module__}.{type(policy).__qualname__}", **common)
        given._policy = policy
        return given

    @property
    def given(self) -> PythonBatching:
        return self._policy

    def make(self) -> PythonBatching:
        return deepcopy(self._policy)
