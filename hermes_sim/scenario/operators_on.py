"""Which device groups of an engine have which operators of the model."""

from __future__ import annotations

from pydantic import Field, model_validator

from hermes_sim.core.schema import Description
from hermes_sim.perf.operator_classes import CLASSES, OperatorClass


class OperatorsOn(Description):
    """Device group of each class of operators; groups are those of `placement`.

    Each group shares its operators among all of its devices. Activations go between groups over the links of the
    cluster. Weights lie where their products are, the KV cache where `attention` is.
    """

    linear: str
    """Products with weights: attention's projections, dense and shared feed-forward, router, output matrix."""
    attention: str | None = None
    """Scores and values of decodes, recurrences; the KV cache. With `linear` if not given."""
    prefill_attention: str | None = None
    """Of prompts; it sends keys and values to `attention`. With `attention` if not given."""
    experts: str | None = None
    """The experts that a router chooses. With `linear` if not given."""
    rest: str | None = None
    """Embedding, norms, rotary embedding, activations, sampling. With `linear` if not given."""
    interleave_sub_batches: bool = False
    """Two halves of the batch take turns: one attends while the other has everything else, which needs `attention` on a
    group of its own (NeuPIMs, arXiv 2403.00579). In a step with prompts, decodes attend beside the prompts."""
    interleave_from_seqs: int = Field(default=2, ge=2, le=65_536)
    """Where fewer sequences decode, the batch runs whole: each half reads all weights."""

    @model_validator(mode="after")
    def _two_groups_to_interleave(self) -> OperatorsOn:
        if self.interleave_sub_batches and self.group_of("attention") in {
            self.group_of("linear"), self.group_of("rest"), self.group_of("experts"),
        }:  # fmt: skip
            raise ValueError("interleave_sub_batches needs attention on a group that has nothing else but prompts'")
        return self

    def group_of(self, operator_class: OperatorClass) -> str:
        """Name of the device group."""
        stated: str | None = getattr(self, operator_class)
        if stated is not None:
            return stated
        return self.group_of("attention") if operator_class == "prefill_attention" else self.linear

    @property
    def groups(self) -> tuple[str, ...]:
        """Those that have operators, that of `linear` first."""
        return tuple(dict.fromkeys(self.group_of(operator_class) for operator_class in CLASSES))
