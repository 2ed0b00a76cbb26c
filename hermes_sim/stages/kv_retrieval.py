"""KV of a prompt's first tokens from where an earlier request has left it, instead of computing it again."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from hermes_sim.core.schema import Fraction, Name, one_of
from hermes_sim.stages.count import COUNTS, Count, number_or_law
from hermes_sim.stages.stage import Stage


def _number_or_list(value: Any) -> Any:
    """`0.8` is short for a list of one."""
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value


class KvRetrieval(Stage):
    """Looks the prompt of the prefill behind it up in KV stores; what is found flows to the engine of that prefill.

    The engine is chosen, then blocks are reserved there, then the KV is sent; the prefill goes on with that many
    tokens computed. What the engine's own prefix cache has is not sent. Takes no time where nothing is found.
    """

    runs_on: ClassVar[Literal["tokens", "jobs", "nowhere"]] = "nowhere"

    kind: Literal["kv_retrieval"] = "kv_retrieval"
    stores: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Of the cluster's `kv_stores`, in the order in which they are asked: a chunk comes from the first that has it."""
    policy: Literal["reload", "recompute", "fastest"] = "reload"
    """reload: whatever is found; recompute: nothing, as if there were no store; fastest: reload where its estimated end
    is earlier than that of computing the tokens, with the transfers and the line of the moment."""
    write: Literal["first", "all", "none"] = "first"
    """Stores that get what a pass has computed when it ends: the first in the list, all of them, or none."""
    hit_frac: Annotated[tuple[Fraction, ...], BeforeValidator(_number_or_list)] | None = None
    """Given instead of found: chance that a request finds its tokens in each store, in order, where it has not found
    them in those before. Nothing is written then."""
    num_cached_tokens: Annotated[Count, one_of(COUNTS, "count kind"), BeforeValidator(number_or_law)] | None = None
    """With `hit_frac`: tokens found, at most all but the last of the prompt."""

    @model_validator(mode="after")
    def _goes_together(self) -> KvRetrieval:
        if (self.hit_frac is None) != (self.num_cached_tokens is None):
            raise ValueError("hit_frac and num_cached_tokens go together")
        if self.hit_frac is not None and len(self.hit_frac) > len(self.stores):
            raise ValueError(f"{len(self.hit_frac)} chances of a hit for {len(self.stores)} stores")
        if len(set(self.stores)) < len(self.stores):
            raise ValueError("a store is there twice")
        return self

    @property
    def finds_content(self) -> bool:
        """Hits depend on what earlier requests have left."""
        return self.hit_frac is None

    @property
    def writes(self) -> bool:
        """A pass leaves what it has computed in a store."""
        return self.write != "none" and self.finds_content and self.policy != "recompute"
