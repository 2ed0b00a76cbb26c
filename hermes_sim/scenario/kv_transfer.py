"""How the KV of a prompt goes from the engine that computed it to the one that decodes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, Dtype, Seconds


class KvTransfer(Description):
    """Of all transfers between engines that serve prefill and engines that serve decode."""

    mode: Literal["whole", "layerwise"] = "whole"
    """whole: everything sets out when the prompt has been computed (vLLM's NIXL connector, DistServe); layerwise: the
    KV of a layer is sent while the next is computed, chunk by chunk of the prompt (Splitwise, Mooncake), so that what
    shows is the last layer's, or what the links are slower than the engine."""
    reserve: Literal["after_prefill", "before_prefill"] = "after_prefill"
    """When blocks are reserved on the decode side. before_prefill: a prompt waits until there is room for it there
    (SGLang's bootstrap queue, sglang/srt/disaggregation/prefill.py); after_prefill: it is computed at once and keeps
    its blocks until there is."""
    dtype: Dtype | None = None
    """Precision on the wire; the prefill engine's if not given. Whoever has another converts."""
    first_token: Literal["prefill", "decode"] = "prefill"
    """Who sends the first token to the client: the prefill engine when it has it (DistServe), or the decode engine when
    the KV has come, so that the transfer is part of the TTFT (SGLang, vLLM and TensorRT-LLM behind a router that
    answers with the decode engine's stream; the prefill engine samples the token in SGLang and TensorRT-LLM, while
    vLLM's proxy drops that one and has it sampled again)."""
    handshake_s: Seconds = Field(default=0.0, alias="handshake")
    """Before the first byte of each transfer: addresses and readiness told over the network."""
    message_overhead_s: Seconds = Field(default=0.0, alias="message_overhead")
    """Of each message: one for a whole prompt, one for each layer of each chunk if layerwise."""

    @model_validator(mode="after")
    def _goes_together(self) -> KvTransfer:
        if self.mode == "layerwise" and self.reserve == "after_prefill":
            raise ValueError("layers are sent while the prompt is computed: layerwise needs reserve: before_prefill")
        return self
