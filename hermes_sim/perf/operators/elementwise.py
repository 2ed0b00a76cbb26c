"""Time of kernels that only stream bytes: norms, activations, rotary embedding, look-ups, sampling."""

from __future__ import annotations

from hermes_sim.core.compiled import compiled


@compiled
def stream_seconds(
    num_bytes: float, reached_bytes_per_s: float, launch_s: float, cache_bytes: float, cache_speedup: float
) -> float:
    """Seconds to read and write `num_bytes` once, at the bandwidth that such a kernel reaches.

    What is still in the last-level cache, because the kernel before has just written it, moves `cache_speedup` times as
    fast: nearly all of a short stream, half of one of `cache_bytes`, nearly nothing of one twice as long, which drives
    itself out. Source: Williams et al., "Roofline", CACM 2009, with intensity below the ridge; a fixed time for the
    kernel itself.
    """
    if cache_bytes > 0.0:
        size = (num_bytes / cache_bytes) ** 2
        num_bytes *= 1.0 - (1.0 - 1.0 / cache_speedup) / (1.0 + size * size)
    return launch_s + num_bytes / reached_bytes_per_s
