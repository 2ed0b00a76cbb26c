"""Board power and clock of a GPU, sampled by NVML while something runs."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from typing import Any

SAMPLE_EVERY_S = 0.02


class PowerMeter:
    """Samples of the first GPU; `open` gives None where NVML is not there."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library = library
        self._handle = handle

    @staticmethod
    def open() -> PowerMeter | None:
        """NVML by its Python binding (nvidia-ml-py)."""
        try:
            import pynvml
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
            return PowerMeter(pynvml, pynvml.nvmlDeviceGetHandleByIndex(0))
        except pynvml.NVMLError:
            return None

    def __enter__(self) -> PowerMeter:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.nvmlShutdown()

    def watch(self, work: Callable[[], None]) -> tuple[float, float]:
        """Mean watts and mean clock of the multiprocessors, in Hz, while `work` runs."""
        watts: list[float] = []
        clocks_hz: list[float] = []
        done = Event()

        def sample() -> None:
            while not done.wait(SAMPLE_EVERY_S):
                try:
                    watts.append(self._library.nvmlDeviceGetPowerUsage(self._handle) * 1e-3)
                    clock = self._library.nvmlDeviceGetClockInfo(self._handle, self._library.NVML_CLOCK_SM)
                    clocks_hz.append(clock * 1e6)
                except self._library.NVMLError:
                    return

        sampler = Thread(target=sample, daemon=True)
        sampler.start()
        try:
            work()
        finally:
            done.set()
            sampler.join()
        return _mean(watts), _mean(clocks_hz)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
