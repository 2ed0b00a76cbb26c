"""`hermes-sim calibrate`: coefficients of the cost models from measured kernels, the shipped ones or one's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hermes_sim.commands.validate import data_folder
from hermes_sim.core.errors import HermesError
from hermes_sim.core.words import did_you_mean

if TYPE_CHECKING:
    from hermes_sim.calibration.device_fit import Family, FitReport
    from hermes_sim.calibration.own_device import OwnCalibration

DIFFERENT: Final = 1
COLLECTIVES: Final = "collectives"
"""Kernels of links, not of devices."""
HEAD: Final = ("device", "kernel", "side", "median", "mean", "p90", "bias", "points")


def calibrate(
    device: Annotated[
        list[str] | None,
        typer.Option(help="Shipped device or link; with --measured the file of your own device.", metavar="NAME"),
    ] = None,
    measured: Annotated[
        list[Path] | None,
        typer.Option(help="Your measurements in the public format (docs/measured-tables.md).", metavar="TABLE"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of measured data; HERMES_DATA or ../shared/data.", metavar="FOLDER"),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="gemm, attention, small_kernels, experts, collectives; all if left out.", metavar="KERNELS"),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Put the coefficients into the device files.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Say where files differ from what is fitted here; if any, exit with 1.")
    ] = False,
    served: Annotated[
        bool, typer.Option("--served", help="Fit host terms and power to served runs instead, all kernels frozen.")
    ] = False,
    figure: Annotated[
        Path | None, typer.Option(help="Draw predicted against measured times (--measured).", metavar="FILE")
    ] = None,
) -> None:
    """Fit the cost model of a device to measured kernels: repeats the shipped fits, or improves a device of your own.

    hermes-sim calibrate --device my_chip.yaml --measured my_points.csv --write
    """
    if measured:
        if check or only:
            raise HermesError("--check and --only belong to the shipped fits: leave out --measured, or them")
        _own(device or [], measured, figure, write=write)
        return
    if served:
        if device or only or write or check:
            raise HermesError(
                "--served prints what engines' hosts take: no --device, --only, --write or --check with it"
            )
        _served(data_folder(data))
        return
    if figure is not None:
        raise HermesError("--figure draws one's own measurements: needs --measured TABLE")
    _check_names(device or [], only or [])
    _shipped(device or [], data_folder(data), only or [], write=write, check=check)


def _served(folder: Path) -> None:
    """Host, front-end and launch terms, as in scenario/engine_presets.py and replay/closed_loop_host.py; power."""
    from hermes_sim.calibration.host_closed_loop import fit_host_terms
    from hermes_sim.calibration.host_open_loop import FITS
    from hermes_sim.calibration.power import fit_power

    typer.echo(_line(HEAD))
    terms = []
    for preset, fit in FITS.items():
        found = fit(folder)
        if found is not None:
            terms.append(f"{preset}: " + ", ".join(f"{name} {value:.4g}" for name, value in found.terms.items()))
            for what, errors in found.errors.items():
                typer.echo(_line((preset, f"{what}, open loop", "fitted", *_errors(errors))))
    for closed in fit_host_terms(folder):
        own = closed.terms
        terms.append(
            f"{closed.preset}, closed loop: between_steps_s {own.between_steps_s:.4g}, "
            f"front_end_s {own.front_end_s:.4g}, per_token_s {own.per_token_s:.4g}"
        )
        for metric, sides in (("TPOT", closed.tpot), ("TTFT", closed.ttft)):
            for side, errors in sides.items():
                typer.echo(_line((closed.preset, f"{metric}, closed loop", side, *_errors(errors))))
    for power in fit_power(folder):
        terms.append(f"{power.device}: power.memory_bound_frac {power.memory_bound_frac:.2f}")
        for side, errors in power.errors.items():
            typer.echo(_line((power.device, "mean power", side.replace("_", " "), *_errors(errors))))
    for line in terms:
        typer.echo(line)


def _own(devices: Sequence[str], files: Sequence[Path], figure: Path | None, *, write: bool) -> None:
    """One device, few points: what they change, and what they are worth by leave-one-out."""
    from hermes_sim.calibration.calibrate import calibrate as calibrate_measured
    from hermes_sim.calibration.device_file import render_cost_model, replace_cost_model
    from hermes_sim.hardware.device import Device
    from hermes_sim.scenario.files import read_description
    from hermes_sim.scenario.library import NotFound, find

    if len(devices) != 1:
        raise HermesError("--measured needs one --device: the file of yours, or the name of a shipped one")
    try:
        path = Path(devices[0]) if Path(devices[0]).is_file() else find("device", devices[0])
    except NotFound as missing:
        raise HermesError(f"--device {devices[0]}: {missing}") from None
    found = calibrate_measured(read_description(Device, path), files)
    typer.echo(_table(HEAD[1:], _own_rows(found)))
    for line in found.left_out:
        typer.echo(f"left out: {line}")
    if not found.fits:
        raise HermesError("nothing could be fitted: see above")
    if figure is not None:
        _save(found, figure)
        typer.echo(f"drawn {figure}")
    if write:
        replace_cost_model(path, found.cost_model)
        typer.echo(f"written {path}")
    else:
        typer.echo(render_cost_model(found.cost_model).rstrip())


def _save(found: OwnCalibration, path: Path) -> None:
    """PNG, PDF or SVG."""
    try:
        found.plot().savefig(path, dpi=200, metadata={"Date": None} if path.suffix == ".svg" else {})
    except (OSError, ValueError) as error:
        raise HermesError(f"{path}: {error}") from error


def _own_rows(found: OwnCalibration) -> Iterator[Sequence[str]]:
    for one in found.fits:
        strength = "" if one.fit.spread is not None else " (kept as they were)"
        sides = (("before", one.fit.before), ("left out", one.fit.left_out), (f"fitted{strength}", one.fit.after))
        for side, errors in sides:
            yield (one.kernel, side, *_errors(errors))


def _shipped(names: Sequence[str], folder: Path, only: Sequence[str], *, write: bool, check: bool) -> None:
    """The fits that made the shipped files of devices and links, again: all, or those named."""
    from hermes_sim.calibration.device_fit import FAMILIES
    from hermes_sim.calibration.run import calibrate
    from hermes_sim.core.shipped import shipped_root

    devices, links = _fitted_files()
    if names or only:
        devices = [name for name in devices if not names or name in names]
        links = [name for name in links if (name in names if names else COLLECTIVES in only)]
    families: Any = [family for family in FAMILIES if not only or family in only]
    if not families:
        devices = []
    files = shipped_root() / "hardware_profiles" / "devices"
    try:
        if check:
            _check(folder, files, devices, links, families)
            return
        typer.echo(_line(HEAD))
        rows = calibrate(folder, files, write=write, devices=devices, links=links, families=families)
        for row in _shipped_rows(rows):
            typer.echo(_line(row))
    except FileNotFoundError as missing:
        raise HermesError(f"{missing.filename}: no such table; the shipped fits need it") from None


def _check(folder: Path, files: Path, devices: Sequence[str], links: Sequence[str], families: Sequence[Family]) -> None:
    """Each file beside its fit, told as soon as it is known. Exit status 1 where numbers differ."""
    from hermes_sim.calibration.links import LINKS_FOLDER, check_link
    from hermes_sim.calibration.run import check_device

    num_different = 0
    found = (
        *(partial(check_device, folder, files, name, families) for name in devices),
        *(partial(check_link, folder, files.parent / LINKS_FOLDER, name) for name in links),
    )
    for compare in found:
        checked = compare()
        num_different += len(checked.differences)
        for line in checked.lines():
            typer.echo(line)
    if num_different:
        typer.echo(f"{num_different} differences: the files are not what these data give")
        raise typer.Exit(DIFFERENT)


def _fitted_files() -> tuple[list[str], list[str]]:
    """Names of the devices and of the links that shipped fits describe."""
    from hermes_sim.calibration.layered_devices import LAYERED_DEVICES
    from hermes_sim.calibration.links import LINKS
    from hermes_sim.calibration.tables import MEASURED_DEVICES

    return [*MEASURED_DEVICES, *LAYERED_DEVICES], [name for name, *_ in LINKS.values()]


def _check_names(names: Sequence[str], only: Sequence[str]) -> None:
    """Before anything is read. Raises HermesError."""
    from hermes_sim.calibration.device_fit import FAMILIES

    devices, links = _fitted_files()
    for option, given, known in (
        ("--device", names, [*devices, *links]),
        ("--only", only, [*FAMILIES, COLLECTIVES]),
    ):
        for name in given:
            if name not in known:
                whose = "no shipped fit is of it" if option == "--device" else "no such kernels"
                raise HermesError(f"{option} {name}: {whose}; known are {', '.join(known)}.{did_you_mean(name, known)}")


def _shipped_rows(reports: Iterable[FitReport]) -> Iterator[Sequence[str]]:
    for report in reports:
        for side, errors in (("fitted", report.fitted), ("held out", report.held_out)):
            yield (report.device, report.kernel, side, *_errors(errors))


def _errors(errors: Any) -> tuple[str, ...]:
    shares = (errors.median_frac, errors.mean_frac, errors.p90_frac)
    return (*(f"{share:.1%}" for share in shares), f"{errors.bias_frac:+.1%}", str(errors.num_points))


def _line(cells: Sequence[str]) -> str:
    """One row as it comes, widths fixed: a calibration takes minutes, its first lines should not wait."""
    widths = (15, 28, 9, 7, 7, 7, 7, 7)
    texts = (
        f"{cell:<{width}}" if place < 3 else f"{cell:>{width}}"
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return " ".join(texts).rstrip()


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [tuple(head), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        " ".join(
            f"{cell:<{width}}" if place < 2 else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
