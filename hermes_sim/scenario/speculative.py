"""Speculative decoding inside an engine: how drafts are made, and which of them the model accepts."""

from __future__ import annotations

from abc import abstractmethod
from itertools import accumulate
from operator import mul
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, Fraction, NonNegativeInt, PositiveInt, one_of
from hermes_sim.scenario.remote_drafts import PRE_DRAFTINGS, DraftDevices, EarlyStop, PreDrafting


class Acceptance(Description):
    """Which of the drafts of a step the model accepts: leading ones, up to the first that it rejects."""

    from_trace: ClassVar[bool] = False
    """The table holds accepted counts, one a step in turn; otherwise probabilities, one a position."""

    @abstractmethod
    def table(self, candidates: tuple[int, ...]) -> tuple[float, ...]:
        """Probability that a draft at each position is accepted if all before it were, or accepted counts.

        candidates: for each position, how many follow what was accepted before it.
        """


class ConstantAcceptance(Acceptance):
    """Every draft has the same chance (Leviathan et al., arXiv 2211.17192).

    Of w candidates at a position one is accepted with probability 1 - (1 - rate)^w.
    """

    kind: Literal["constant"] = "constant"
    rate: Fraction

    def table(self, candidates: tuple[int, ...]) -> tuple[float, ...]:
        return tuple(1.0 - (1.0 - self.rate) ** number for number in candidates)


class PerPositionAcceptance(Acceptance):
    """A chance for each position, as vLLM's `per-position acceptance rate` divided by the one before it."""

    kind: Literal["per_position"] = "per_position"
    rates: tuple[Fraction, ...] = Field(min_length=1)
    """If all positions before it were accepted; one for each of num_draft_tokens."""

    def table(self, candidates: tuple[int, ...]) -> tuple[float, ...]:
        return self.rates[: len(candidates)]


class TracedAcceptance(Acceptance):
    """Accepted drafts per step as logged by a real engine, drawn from the list with equal chances."""

    from_trace: ClassVar[bool] = True

    kind: Literal["trace"] = "trace"
    accepted: tuple[NonNegativeInt, ...] = Field(min_length=1)
    """Cut to the number of positions drafted."""

    def table(self, candidates: tuple[int, ...]) -> tuple[float, ...]:
        return tuple(float(count) for count in self.accepted)


ACCEPTANCES: dict[str, type[Acceptance]] = {
    "constant": ConstantAcceptance,
    "per_position": PerPositionAcceptance,
    "trace": TracedAcceptance,
}


class Draft(Description):
    """What proposes the drafts, and so what they cost."""

    def model_names(self) -> tuple[str, ...]:
        """Models of the library that it needs."""
        return ()


class DraftModel(Draft):
    """A small language model, one forward pass a draft position (arXiv 2211.17192)."""

    kind: Literal["model"] = "model"
    model: str
    on: DraftDevices | None = None
    """The engine's own devices if not given."""
    pre_drafting: Annotated[PreDrafting, one_of(PRE_DRAFTINGS, "kind of drafting ahead")] | None = None
    """With `on`: what is drafted while the model verifies; nothing if not given."""
    early_stop: EarlyStop | None = None
    """With `on`: all positions are drafted if not given."""

    def model_names(self) -> tuple[str, ...]:
        return (self.model,)

    @model_validator(mode="after")
    def _beside_the_engine(self) -> DraftModel:
        for key, value in (("pre_drafting", self.pre_drafting), ("early_stop", self.early_stop)):
            if value is not None and self.on is None:
                raise ValueError(f"{key} is for drafts on devices of their own: needs `on`")
        return self


class DraftHeads(Draft):
    """Heads on the model's own hidden states, one pass a draft position: EAGLE (arXiv 2401.15077), multi-token
    prediction (DeepSeek-V3)."""

    kind: Literal["heads"] = "heads"
    layers_frac: Fraction = 0.03
    """Cost of one draft position, as a share of a decode step of the model's layers."""


class MedusaHeads(Draft):
    """A head for each draft position, all in one pass over the last hidden states (Medusa, arXiv 2401.10774).

    A head is a residual block of one hidden x hidden matrix and a matrix of logits of its own.
    """

    kind: Literal["medusa"] = "medusa"


class DraftNgram(Draft):
    """Looked up in the sequence itself on the host: no work on the devices."""

    kind: Literal["ngram"] = "ngram"


DRAFTS: dict[str, type[Draft]] = {
    "model": DraftModel,
    "heads": DraftHeads,
    "medusa": MedusaHeads,
    "ngram": DraftNgram,
}

LARGEST_TREE = 1024
"""Nodes verified in one step for one sequence."""


class Speculative(Description):
    """Drafts verified together with the decode that they follow; accepted ones come out in the same step."""

    num_draft_tokens: PositiveInt
    """Positions drafted ahead of each decode."""
    acceptance: Annotated[Acceptance, one_of(ACCEPTANCES, "kind of acceptance")]
    draft: Annotated[Draft, one_of(DRAFTS, "kind of draft")]
    tree_width: PositiveInt = 1
    """Candidates per position, all verified; those behind one of them count for it alone."""
    tree: tuple[PositiveInt, ...] | None = None
    """Children of every node, depth by depth (one number for each draft token): `[4, 2, 2]` has 4 + 8 + 16 nodes, all
    verified. A chain of `tree_width` if not given."""
    adaptive: bool = False
    """Each sequence drafts two more positions after all were accepted, else one less."""
    max_batch_size: PositiveInt | None = None
    """No drafts while more sequences run; always if not given."""

    @property
    def candidates(self) -> tuple[int, ...]:
        """For each position, how many drafts follow what was accepted before it."""
        return self.tree or (self.tree_width,) * self.num_draft_tokens

    @property
    def nodes(self) -> tuple[int, ...]:
        """[num_draft_tokens + 1] drafts of the first 0, 1, 2 ... positions, all verified."""
        counts = list(self.candidates) if self.tree is None else list(accumulate(self.tree, mul))
        return tuple(accumulate(counts, initial=0))

    @property
    def on(self) -> DraftDevices | None:
        """Devices of their own that draft."""
        return self.draft.on if isinstance(self.draft, DraftModel) else None

    @model_validator(mode="after")
    def _a_tree_that_can_be(self) -> Speculative:
        if self.tree is not None:
            if len(self.tree) != self.num_draft_tokens:
                raise ValueError(
                    f"tree needs a number for each of the {self.num_draft_tokens} draft tokens, got {len(self.tree)}"
                )
            if self.tree_width != 1:
                raise ValueError("tree and tree_width say the same in two ways: leave one out")
            if self.nodes[-1] > LARGEST_TREE:
                raise ValueError(f"a tree of {self.nodes[-1]:,} nodes: at most {LARGEST_TREE:,}")
        if self.on is not None and max(self.candidates) > 1:
            raise ValueError("drafts from devices of their own come as a chain: leave tree and tree_width out")
        return self

    @model_validator(mode="after")
    def _a_rate_for_each_position(self) -> Speculative:
        rates = self.acceptance.rates if isinstance(self.acceptance, PerPositionAcceptance) else None
        if rates is not None and len(rates) != self.num_draft_tokens:
            raise ValueError(
                f"acceptance needs a rate for each of the {self.num_draft_tokens} draft tokens, got {len(rates)}"
            )
        return self
