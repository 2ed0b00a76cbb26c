"""What servers and clients of the public closed-loop benchmarks add to the kernels, by engine.

Fitted with all kernels frozen by `python -m hermes_sim.calibration.host_closed_loop` to runs of the models that
split.py lists; the same on every device. They belong to how those servers were started and measured, so that they are
no part of the engine presets: a first token is late by what client, HTTP server and tokeniser need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

TOKENIZERS: Final = 4096
"""Nobody waits for a tokeniser: what is fitted is a delay, not the rate of one worker."""


@dataclass(frozen=True, slots=True)
class HostTerms:
    """Seconds that an engine's host and front end take."""

    between_steps_s: float = 0.0
    """A step, on the device: inputs, metadata, sampled tokens. Scheduling ahead does not hide it."""
    front_end_s: float = 0.0
    """A request, before the engine has it."""
    per_token_s: float = 0.0
    """A prompt token, the same."""

    def host(self) -> Mapping[str, Any]:
        """As keys of an engine's `host`."""
        tokenize = {
            "per_request": f"{self.front_end_s:.9g} s",
            "per_token": f"{self.per_token_s:.9g} s",
            "num_workers": TOKENIZERS,
        }
        return {"between_steps": f"{self.between_steps_s:.9g} s", "tokenize": tokenize}


NO_TERMS: Final = HostTerms()

HOST_TERMS: Final[Mapping[str, HostTerms]] = {
    "sglang": HostTerms(8.59e-4, 0.1254, 6.457e-6),
    "trtllm": HostTerms(0.0, 1.529e-2, 0.0),
    "vllm_v1": HostTerms(2.387e-4, 7.462e-3, 7.616e-6),
}
"""Engine preset -> its terms. SGLang's and TensorRT-LLM's receive intervals (closed_loop_setup.py) come before them."""
