"""What the operating system says about the processor."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
DEFAULT_CACHE_BYTES = 32 * 2**20
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def cpu_name() -> str:
    """The model as the processor states it."""
    return _cpu_info().get("model name", "") or platform.processor() or platform.machine()


def num_cpus() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def last_level_cache_bytes() -> int:
    """The largest cache that core 0 sees, shared or not."""
    sizes = []
    for path in CACHES.glob("index*/size"):
        text = path.read_text(encoding="ascii").strip()
        if text[:-1].isdigit() and text[-1] in UNITS:
            sizes.append(int(text[:-1]) * UNITS[text[-1]])
    return max(sizes, default=DEFAULT_CACHE_BYTES)


def memory_bytes() -> int:
    """Physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_memory_bytes() -> int:
    """Memory that can be taken without swapping."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def cpu_facts() -> dict[str, object]:
    """For the provenance: model, family, cores, cache, memory, kernel of the operating system."""
    info = _cpu_info()
    return {
        "cpu": cpu_name(),
        "cpu_family": info.get("cpu family", ""),
        "cpu_model": info.get("model", ""),
        "cpu_stepping": info.get("stepping", ""),
        "cpu_mhz_now": info.get("cpu MHz", ""),
        "virtual_machine": "hypervisor" in info.get("flags", ""),
        "num_cpus": num_cpus(),
        "last_level_cache_bytes": last_level_cache_bytes(),
        "memory_bytes": memory_bytes(),
        "operating_system": f"{platform.system()} {platform.release()}",
    }


def _cpu_info() -> dict[str, str]:
    """Keys of the first processor; empty where there is no such file."""
    if not CPU_INFO.exists():
        return {}
    first = CPU_INFO.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
