"""Drafts made on devices of their own: where, what travels, and what is done while the model verifies."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hermes_sim.core.schema import Bytes, Description, Fraction, NonNegativeInt, PositiveInt, Seconds


class DraftDevices(Description):
    """Devices of their own for the draft model, of the same node (another GPU, an NPU) or another (clients' boards).

    Each replica of the engine has its own. A sequence drafts on one device, by itself while no more sequences run than
    there are devices.
    """

    node: str | None = None
    """Node group; may be left out when only one has this device group."""
    device: str
    """Device group."""
    count: PositiveInt = 1
    """Devices for each replica of the engine."""
    host_per_pass_s: Seconds = Field(default=2.0e-4, alias="host_per_pass")
    """What the device's host adds to each drafting pass."""
    latency_s: Seconds | None = Field(default=None, alias="latency")
    """Of a message, one way; that of the links in between if not given."""
    num_probabilities: NonNegativeInt = 0
    """Most likely tokens sent with each draft, for speculative sampling: 6 bytes each; 0: greedy, the token alone."""
    message_overhead_bytes: Bytes = Field(default=66.0, alias="message_overhead")
    """Headers of a message: Ethernet 14, IP 20, TCP with time stamps 32 if not given."""

    @property
    def bytes_per_draft(self) -> float:
        """A token of 4 bytes; with each probability (2 bytes) the token that it belongs to."""
        return 4.0 + 6.0 * self.num_probabilities

    @property
    def result_bytes(self) -> float:
        """How many were accepted, and the token behind them."""
        return self.message_overhead_bytes + 8.0


class PreDrafting(Description):
    """What a device drafts ahead while its last drafts are verified."""


class AllAccepted(PreDrafting):
    """As if all were accepted; in vain unless they are (post-verify of PEARL, arXiv 2408.11850)."""

    kind: Literal["all_accepted"] = "all_accepted"
    bonus: Literal["guessed", "skipped"] = "guessed"
    """The token that the model adds behind accepted drafts: guessed, which takes one pass more and has to be right too;
    or skipped, so that the drafts which follow the accepted ones are good as they are (PEARL)."""


class EarlyExit(PreDrafting):
    """Behind what an exit in the middle of the model says, sent ahead of the result (arXiv 2505.21594)."""

    kind: Literal["early_exit"] = "early_exit"
    exit_frac: Fraction = 0.5
    """Share of the verifying step after which the early result leaves."""
    agreement: Fraction
    """Share of early results that the full model confirms."""


PRE_DRAFTINGS: dict[str, type[PreDrafting]] = {"all_accepted": AllAccepted, "early_exit": EarlyExit}


class EarlyStop(Description):
    """Drafting stops behind a position that the draft model is unsure of; it is not sent, the pass was made.

    How well its confidence tells right from wrong: (0, 0) never stops, (1, 0) sends right drafts only.
    """

    wrong_caught: Fraction
    """Of drafts that the model will reject."""
    right_lost: Fraction = 0.0
    """Of drafts that it would accept."""
