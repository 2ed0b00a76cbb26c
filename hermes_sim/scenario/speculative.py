"""Speculative decoding inside an engine: how drafts are made, and which of them the model accepts."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, Fraction, NonNegativeInt, PositiveInt, one_of


class Acceptance(Description):
    """Which of the drafts of a step the model accepts: leading ones, up to the first that it rejects."""

    from_trace: ClassVar[bool] = False
    """The table holds accepted counts, one a step in turn; otherwise probabilities, one a position."""

    @abstractmethod
    def table(self, num_positions: int, tree_width: int) -> tuple[float, ...]:
        """Probability that the draft at each position is accepted if all before it were, or accepted counts."""


class ConstantAcceptance(Acceptance):
    """Every draft has the same chance (Leviathan et al., arXiv 2211.17192).

    Of tree_width candidates at a position one is accepted with probability 1 - (1 - rate)^tree_width.
    """

    kind: Literal["constant"] = "constant"
    rate: Fraction

    def table(self, num_positions: int, tree_width: int) -> tuple[float, ...]:
        return (1.0 - (1.0 - self.rate) ** tree_width,) * num_positions


class PerPositionAcceptance(Acceptance):
    """A chance for each position, as vLLM's `per-position acceptance rate` divided by the one before it."""

    kind: Literal["per_position"] = "per_position"
    rates: tuple[Fraction, ...] = Field(min_length=1)
    """If all positions before it were accepted; one for each of num_draft_tokens."""

    def table(self, num_positions: int, tree_width: int) -> tuple[float, ...]:
        return self.rates[:num_positions]


class TracedAcceptance(Acceptance):
    """Accepted drafts per step as logged by a real engine, drawn from the list with equal chances."""

    from_trace: ClassVar[bool] = True

    kind: Literal["trace"] = "trace"
    accepted: tuple[NonNegativeInt, ...] = Field(min_length=1)
    """Cut to the number of positions drafted."""

    def table(self, num_positions: int, tree_width: int) -> tuple[float, ...]:
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
    """A small language model on the same devices, one forward pass a draft position (arXiv 2211.17192)."""

    kind: Literal["model"] = "model"
    model: str

    def model_names(self) -> tuple[str, ...]:
        return (self.model,)


class DraftHeads(Draft):
    """Heads on the model's own hidden states (EAGLE, arXiv 2401.15077; multi-token prediction of DeepSeek-V3)."""

    kind: Literal["heads"] = "heads"
    layers_frac: Fraction = 0.03
    """Cost of one draft position, as a share of a decode step of the model's layers."""


class DraftNgram(Draft):
    """Looked up in the sequence itself on the host: no work on the devices."""

    kind: Literal["ngram"] = "ngram"


DRAFTS: dict[str, type[Draft]] = {"model": DraftModel, "heads": DraftHeads, "ngram": DraftNgram}


class Speculative(Description):
    """Drafts verified together with the decode that they follow; accepted ones come out in the same step."""

    num_draft_tokens: PositiveInt
    """Positions drafted ahead of each decode."""
    acceptance: Annotated[Acceptance, one_of(ACCEPTANCES, "kind of acceptance")]
    draft: Annotated[Draft, one_of(DRAFTS, "kind of draft")]
    tree_width: PositiveInt = 1
    """Candidates per position, all verified."""
    adaptive: bool = False
    """Each sequence drafts two more positions after all were accepted, else one less."""
    max_batch_size: PositiveInt | None = None
    """No drafts while more sequences run; always if not given."""

    @model_validator(mode="after")
    def _a_rate_for_each_position(self) -> Speculative:
        rates = self.acceptance.rates if isinstance(self.acceptance, PerPositionAcceptance) else None
        if rates is not None and len(rates) != self.num_draft_tokens:
            raise ValueError(
                f"acceptance needs a rate for each of the {self.num_draft_tokens} draft tokens, got {len(rates)}"
            )
        return self
