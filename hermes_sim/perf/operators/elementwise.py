"""Time of kernels that only stream bytes: norms, activations, rotary embedding, look-ups, sampling."""

from __future__ import annotations

from hermes_sim.core.compiled import compiled


@compiled
def stream_seconds(num_bytes: float, bandwidth_bytes_per_s: float, memory_frac: float, launch_s: float) -> float:
    """Seconds to read and write `num_bytes` once: the memory roof at the share of it that a stream reaches.

    Source: Williams et al., "Roofline", CACM 2009, with intensity below the ridge; a fixed time for the kernel itself.
    """
    return launch_s + num_bytes / (bandwidth_bytes_per_s * memory_frac)
