"""Time of kernels that only stream bytes: norms, activations, rotary embedding, look-ups, sampling."""

from __future__ import annotations

from hermes_sim.core.compiled import compiled


@compiled
def stream_seconds(
    num_bytes: float, reached_bytes_per_s: float, launch_s: float, cache_bytes: float, cache_speedup: float
) -> float:
    """Seconds to read and write `num_bytes` once, at the bandwidth that such a kernel reaches.

    What the last-level cache holds (`cache_bytes`) moves `cache_speedup` times as fast: the kernel before has just
    written it. Source: Williams et al., "Roofline", CACM 2009, with intensity below the ridge; a fixed time for the
    kernel itself.
    """
    cached = min(num_bytes, cache_bytes)
    return launch_s + (num_bytes - cached + cached / cache_speedup) / reached_bytes_per_s
