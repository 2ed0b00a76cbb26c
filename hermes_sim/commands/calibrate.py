"""`hermes-sim calibrate`: coefficients of the cost models from measured kernels, the shipped ones or one's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hermes_sim.commands.validate import data_folder
from hermes_sim.core.errors import ConfigError, HermesError, Problem

if TYPE_CHECKING:
    from hermes_sim.calibration.device_fit import FitReport
    from hermes_sim.calibration.own_device import OwnCalibration

DIFFERENT: Final = 1
HEAD: Final = ("device", "kernel", "side", "median", "mean", "p90", "bias", "points")


def calibrate(
    device: Annotated[
        list[str] | None,
        typer.Option(help="Name of a shipped device, or with --measured the file of your own.", metavar="DEVICE"),
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
        typer.Option(help="gemm, attention, small_kernels or experts; all if left out.", metavar="KERNELS"),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Put the coefficients into the device files.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 where a device file differs from what is fitted here.")
    ] = False,
    served: Annotated[
        bool, typer.Option("--served", help="Fit host terms of engines to served runs instead, all kernels frozen.")
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
    _shipped(device, data_folder(data), only, write=write, check=check)


def _served(folder: Path) -> None:
    """Host, front-end and launch terms, as in scenario/engine_presets.py and replay/closed_loop_host.py."""
    from hermes_sim.calibration.host_closed_loop import fit_host_terms
    from hermes_sim.calibration.host_open_loop import FITS

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
    for line in terms:
        typer.echo(line)


def _own(devices: Sequence[str], files: Sequence[Path], figure: Path | None, *, write: bool) -> None:
    """One device, few points: what they change, and what they are worth by leave-one-out."""
    from hermes_sim.calibration.device_file import render_cost_model, replace_cost_model
    from hermes_sim.calibration.own_device import calibrate_own
    from hermes_sim.hardware.device import Device
    from hermes_sim.measured import read_tables
    from hermes_sim.scenario.files import read_description
    from hermes_sim.scenario.library import find

    if len(devices) != 1:
        raise HermesError("--measured needs one --device: the file of yours, or the name of a shipped one")
    path = Path(devices[0]) if Path(devices[0]).is_file() else find("device", devices[0])
    described = read_description(Device, path)
    tables = read_tables(files)
    if tables.problems:
        raise ConfigError([Problem(one.file, None, one.column, str(one)) for one in tables.problems])
    chosen = {operator: table[table["device"] == described.name] for operator, table in tables.items()}
    chosen = {operator: table for operator, table in chosen.items() if len(table)}
    if not chosen:
        others = sorted({str(name) for table in tables.values() for name in table["device"]})
        raise HermesError(f"no row is of device '{described.name}'; the tables are of {', '.join(others) or 'none'}")
    found = calibrate_own(described, chosen, ", ".join(file.name for file in files))
    typer.echo(_table(HEAD[1:], _own_rows(found)))
    for line in found.left_out:
        typer.echo(f"left out: {line}")
    if not found.fits:
        raise HermesError("nothing could be fitted: see above")
    if figure is not None:
        from hermes_sim.calibration.fit_figure import draw_fits

        draw_fits(found.fits, figure)
        typer.echo(f"drawn {figure}")
    if write:
        replace_cost_model(path, found.cost_model)
        typer.echo(f"written {path}")
    else:
        typer.echo(render_cost_model(found.cost_model).rstrip())


def _own_rows(found: OwnCalibration) -> Iterator[Sequence[str]]:
    for one in found.fits:
        strength = "" if one.fit.spread is not None else " (kept as they were)"
        sides = (("before", one.fit.before), ("left out", one.fit.left_out), (f"fitted{strength}", one.fit.after))
        for side, errors in sides:
            yield (one.kernel, side, *_errors(errors))


def _shipped(
    devices: Sequence[str] | None, folder: Path, only: Sequence[str] | None, *, write: bool, check: bool
) -> None:
    """The fits that made the shipped device files, again."""
    from hermes_sim.calibration.device_fit import FAMILIES
    from hermes_sim.calibration.layered_devices import LAYERED_DEVICES
    from hermes_sim.calibration.links import LINKS_FOLDER, link_differences
    from hermes_sim.calibration.run import calibrate, differences
    from hermes_sim.calibration.tables import MEASURED_DEVICES
    from hermes_sim.core.shipped import shipped_root

    known = (*MEASURED_DEVICES, *LAYERED_DEVICES)
    for name in devices or ():
        if name not in known:
            raise HermesError(f"no shipped fit of a device '{name}'; there are {', '.join(known)}")
    for family in only or ():
        if family not in FAMILIES:
            raise HermesError(f"--only {family}: {', '.join(FAMILIES)}")
    files = shipped_root() / "hardware_profiles" / "devices"
    families: Any = tuple(only) if only else FAMILIES
    if check:
        different = [line for name in devices or known for line in differences(folder, files, name, families)]
        if not devices and not only:
            different += link_differences(folder, files.parent / LINKS_FOLDER)
        for line in different:
            typer.echo(line)
        typer.echo("every coefficient is as fitted" if not different else f"{len(different)} coefficients differ")
        raise typer.Exit(DIFFERENT if different else 0)
    rows = calibrate(folder, files, write=write, devices=devices, families=families)
    typer.echo(_line(HEAD))
    for row in _shipped_rows(rows):
        typer.echo(_line(row))


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
