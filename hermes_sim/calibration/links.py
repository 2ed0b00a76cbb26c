"""The calibration of the links inside a node: collectives of each library, beside what the link files state."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import pandas as pd

from hermes_sim.calibration.check import Check, check
from hermes_sim.calibration.collectives import (
    LIBRARIES,
    OPERATIONS,
    OWN_LIMITS,
    fit_collective,
    fit_eager,
    read_custom_all_reduce,
    read_eager_nccl,
    read_nccl,
)
from hermes_sim.calibration.device_fit import FitReport, with_errors
from hermes_sim.calibration.fit import ErrorSummary
from hermes_sim.calibration.link_file import read_link, replace_collectives
from hermes_sim.calibration.tables import SYSTEMS
from hermes_sim.hardware.collective_efficiency import CollectiveEfficiency, CollectiveKind, KernelLibrary

LINKS_FOLDER: Final = "links"
"""Beside the folder of devices."""

LINKS: Final[dict[str, tuple[str, float, bool, bool]]] = {
    "a100_sxm_80gb": ("nvlink3", 300e9, True, False),
    "h100_sxm": ("nvlink4", 450e9, True, True),
    "b200_sxm": ("nvlink5", 900e9, True, True),
    "l40s": ("pcie4_x16", 31.508e9, False, False),
}
"""Device -> link between its devices, bandwidth of a device per direction, has a switch, adds up in the switch."""

LinkFit = dict[KernelLibrary, dict[CollectiveKind, tuple[CollectiveEfficiency, ErrorSummary, ErrorSummary]]]
"""Coefficients, errors on fitted sizes, errors on sizes kept out."""


def calibrate_links(
    data_folder: Path, links_folder: Path, links: Collection[str] | None = None, *, write: bool = False
) -> Iterator[FitReport]:
    """Collectives inside a node, on all links or some: the engines' own all-reduce in captured graphs, and NCCL's."""
    for device, (name, *_) in LINKS.items():
        if links is not None and name not in links:
            continue
        found = fit_link(data_folder, device)
        for library, kinds in found.items():
            for kind, (_, fitted, held) in kinds.items():
                yield FitReport(name, f"{kind} {library}", fitted, held)
        if write:
            replace_collectives(links_folder / f"{name}.yaml", _collectives(found))


def check_link(data_folder: Path, links_folder: Path, name: str) -> Check:
    """The file of a link beside its fit."""
    device = next(device for device, (link, *_) in LINKS.items() if link == name)
    stated = read_link(links_folder / f"{name}.yaml").collectives
    return check(name, stated, _collectives(fit_link(data_folder, device)))


def fit_link(data_folder: Path, device: str) -> LinkFit:
    """Coefficients of the link between these devices by library, with errors on fitted and held-out message sizes."""
    folder, system = data_folder / "kernels" / "aiconfigurator", SYSTEMS[device]
    _, bandwidth_bytes_per_s, switched, adds_in_switch = LINKS[device]

    def fit(
        kind: CollectiveKind, table: pd.DataFrame, limit_bytes: float | None = None
    ) -> tuple[CollectiveEfficiency, ErrorSummary, ErrorSummary]:
        return fit_collective(kind, bandwidth_bytes_per_s, switched, adds_in_switch, table, limit_bytes)

    found: LinkFit = {}
    for name, library in LIBRARIES.items():
        path = folder / f"{system}_{name}_custom_allreduce.parquet"
        limit_bytes = OWN_LIMITS.get((device, library))
        efficiency, fitted, held = fit("all_reduce", read_custom_all_reduce(path), limit_bytes)
        called = read_custom_all_reduce(path, eager=True)
        efficiency = fit_eager("all_reduce", bandwidth_bytes_per_s, efficiency, called, copies=True)
        found[library] = {"all_reduce": (efficiency, fitted, held)}
    path = folder / f"{system}_nccl_nccl.parquet"
    found["nccl"] = {kind: fit(kind, read_nccl(path, name)) for name, kind in OPERATIONS.items()}
    efficiency, fitted, held = found["nccl"]["all_reduce"]
    called = read_eager_nccl(data_folder, device)
    efficiency = fit_eager("all_reduce", bandwidth_bytes_per_s, efficiency, called, copies=False)
    found["nccl"]["all_reduce"] = (efficiency, fitted, held)
    return found


def _collectives(found: LinkFit) -> dict[KernelLibrary, dict[CollectiveKind, CollectiveEfficiency]]:
    """As a link states them, errors included."""
    return {library: {kind: with_errors(*fit) for kind, fit in kinds.items()} for library, kinds in found.items()}
