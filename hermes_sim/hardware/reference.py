"""Tables of the hardware library for docs/hardware.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from hermes_sim.core.schema import Dtype, Source
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.device_class import ClassCoefficients
from hermes_sim.hardware.link import Link

_WIDE: Final[tuple[Dtype, ...]] = ("bf16", "fp16", "fp32")


def device_table(devices: Iterable[Device]) -> str:
    """Markdown: dense peaks, memory, ridge point, power and price of every device, with the kinds of their sources."""
    header = (
        "device",
        "bf16",
        "8 bit",
        "memory",
        "bandwidth",
        "ridge",
        "TDP",
        "USD/h",
        "peak",
        "memory",
        "power",
        "price",
        "kernels",
    )
    return _table(header, [_device_row(device) for device in sorted(devices, key=lambda device: device.name)])


def link_table(links: Iterable[Link]) -> str:
    """Markdown: bandwidth per direction and port, efficiency and latency of every link, with their kinds of source."""
    header = ("link", "what", "GB/s", "reached", "latency", "switched", "bandwidth", "efficiency", "latency")
    rows = [
        (
            f"`{link.name}`",
            link.title,
            f"{link.bandwidth_bytes_per_s / 1e9:.4g}",
            f"{link.efficiency_frac:.0%}",
            _time(link.latency_s),
            "yes" if link.switched else "",
            *(link.sources[key].kind for key in ("bandwidth", "efficiency_frac", "latency")),
        )
        for link in sorted(links, key=lambda link: (link.kind, link.bandwidth_bytes_per_s, link.name))
    ]
    return _table(header, rows)


def class_table(classes: Iterable[ClassCoefficients]) -> str:
    """Markdown: whose coefficients a class has, and their mean errors by kernel on devices that were not fitted."""
    fitted = [entry for entry in classes if entry.reference is not None]
    dtypes: list[Dtype] = ["bf16", "fp8"]
    header = ("class", "coefficients of", *(f"GEMM {dtype}" for dtype in dtypes), "decode", "prefill", "scored on")
    return _table(header, [_class_row(entry, dtypes) for entry in sorted(fitted, key=lambda entry: entry.name)])


def _class_row(entry: ClassCoefficients, dtypes: Sequence[Dtype]) -> tuple[str, ...]:
    cost_model = entry.cost_model
    gemm = [cost_model.gemm[dtype].held_out if dtype in cost_model.gemm else None for dtype in dtypes]
    attention = [cost_model.attention.decode_held_out, cost_model.attention.prefill_held_out]
    return (
        f"`{entry.name}`",
        f"`{entry.reference.device}`" if entry.reference else "",
        *(f"{error.mean_frac:.0%}" if error else "" for error in (*gemm, *attention)),
        cost_model.source.where.partition("; ")[2],
    )


def _device_row(device: Device) -> tuple[str, ...]:
    peaks = device.peak_flops_per_s
    widest: Dtype = next((dtype for dtype in _WIDE if dtype in peaks), "fp32")
    wide = peaks.get(widest, 0.0)
    narrow = max((peaks[dtype] for dtype in ("fp8", "int8") if dtype in peaks), default=0.0)
    return (
        f"`{device.name}`",
        f"{wide / 1e12:.4g}" + ("" if widest == "bf16" else f" ({widest})"),
        f"{narrow / 1e12:.4g}" if narrow else "",
        f"{device.memory.capacity_bytes / 2**30:.4g} GiB",
        f"{device.memory.bandwidth_bytes_per_s / 1e9:,.0f} GB/s",
        f"{wide / device.memory.bandwidth_bytes_per_s:.0f}",
        f"{device.power.tdp_w:.0f} W",
        f"{device.usd_per_h:.2f}",
        *(_kinds(device.sources, key) for key in ("peak", "memory", "power", "price")),
        device.cost_model.source.kind,
    )


def _kinds(sources: dict[str, Source], key: str) -> str:
    """Kinds of the sources at a key and below, each once, in the order of the file."""
    at_or_below = (source.kind for path, source in sources.items() if path == key or path.startswith(f"{key}."))
    return ", ".join(dict.fromkeys(at_or_below))


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.3g} us" if seconds >= 1e-6 else f"{seconds * 1e9:.3g} ns"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
