"""What each policy tells the step loop, and what the tables hold."""

from __future__ import annotations

from dataclasses import asdict
from typing import get_args

import pytest
from pydantic import ValidationError

from hermes_sim.batching import PADDINGS, QUEUE_ORDERS, TOKEN_POLICIES, TokenBatching
from hermes_sim.batching.policy import Padding, QueueOrder
from hermes_sim.batching.static import Static

OFF = {
    "chunk_prefill": False, "mix": False, "waiting_first": False, "decodes_first": False, "static_batch": False,
    "padding": "none", "by_layers": False, "full_sequence_gate": True,
}  # fmt: skip

SWITCHED = {
    "chunked_prefill": {"chunk_prefill": True, "mix": True},
    "continuous": {"mix": True},
    "prefill_first": {"waiting_first": True},
    "decode_first": {"chunk_prefill": True, "mix": True, "decodes_first": True},
    "mixed_pool": {"mix": True, "waiting_first": True},
    "static": {"waiting_first": True, "static_batch": True, "padding": "padded"},
    "padded": {"waiting_first": True, "padding": "padded"},
    "prepacked": {"waiting_first": True, "padding": "packed"},
    "layered_prefill": {"mix": True, "decodes_first": True, "by_layers": True},
}


def test_every_policy_is_pinned() -> None:
    assert list(SWITCHED) == list(TOKEN_POLICIES)


@pytest.mark.parametrize("kind", SWITCHED)
def test_switches(kind: str) -> None:
    policy = TOKEN_POLICIES[kind]()
    assert asdict(policy.switches()) == OFF | SWITCHED[kind]
    gateless = TOKEN_POLICIES[kind](full_sequence_gate=False)
    assert asdict(gateless.switches()) == OFF | SWITCHED[kind] | {"full_sequence_gate": False}


def test_sglang_chunks_the_prompts_it_serves_first() -> None:
    switches = TOKEN_POLICIES["prefill_first"].model_validate({"chunk_prompts": True}).switches()
    assert asdict(switches) == OFF | {"waiting_first": True, "chunk_prefill": True}


DIFFERENT = {("static", "output_reserve_frac"): 1.0}


@pytest.mark.parametrize("kind", SWITCHED)
def test_the_common_options_have_the_same_defaults_everywhere(kind: str) -> None:
    """What a policy leaves out, all policies leave out alike: a comparison changes nothing but the policy."""
    policy = TOKEN_POLICIES[kind]()
    for name, field in TokenBatching.model_fields.items():
        assert getattr(policy, name) == DIFFERENT.get((kind, name), field.default), name
    assert policy.kind == kind  # type: ignore[attr-defined]


def test_a_static_batch_always_reserves_all_outputs() -> None:
    assert Static.model_validate({"output_reserve_frac": 1.0}) == Static()
    with pytest.raises(ValidationError, match="output_reserve_frac"):
        Static.model_validate({"output_reserve_frac": 0.5})


def test_numbers_of_orders_and_paddings_are_places_in_their_lists() -> None:
    """Compiled code knows them by these."""
    assert get_args(QueueOrder) == QUEUE_ORDERS
    assert QUEUE_ORDERS == ("fcfs", "priority", "sjf", "least_slack", "fair_share", "longest_prefix")
    assert PADDINGS == get_args(Padding) == ("none", "padded", "packed")
