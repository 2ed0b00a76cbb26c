"""`hermes-sim validate`: the cost models and the simulator beside a folder of measurements."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, Final

import typer

from hermes_sim.core.errors import HermesError
from hermes_sim.core.whole_file import write_whole

REGRESSED: Final = 1
BESIDE: Final = Path("../shared/data")
"""Where measured data lie beside the source tree."""


def validate(
    data: Annotated[
        Path | None, typer.Option(help="Folder of measured data; HERMES_DATA or ../shared/data.", metavar="FOLDER")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="kernels, serving, an operator, experiment, device, part of a file's name.", metavar="NAME"),
    ] = None,
    report_file: Annotated[
        Path | None,
        typer.Option("--report", help="Show a report of --json instead of comparing anew.", metavar="FILE"),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the whole report.", metavar="FILE")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write it as a page.", metavar="FILE")] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 1 where a bar is worse than its baseline.")] = False,
    baseline: Annotated[
        Path | None, typer.Option(help="Baseline of --gate instead of the shipped one.", metavar="FILE")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Compare the cost models and the simulator with measurements: errors, bands, bars, worst rows."""
    from hermes_sim.validation.baseline import BASELINE, read_baseline, regressions

    if report_file is not None and (data or only or json_file):
        raise HermesError("--report shows what was compared before: no --data, --only or --json with it")
    for file in (json_file, html_file):
        _check_file(file)
    before = read_baseline(baseline or BASELINE) if gate else {}
    report = _read(report_file) if report_file is not None else _compare(data_folder(data), only, quiet=quiet)
    if json_file is not None:
        from hermes_sim.validation.report import report_text

        write_text(json_file, report_text(report))
    if html_file is not None:
        from hermes_sim.validation.html_page import page

        write_text(html_file, page(report))
    if not quiet:
        from hermes_sim.validation.terminal import render

        typer.echo(render(report, color=sys.stdout.isatty()))
    worse = regressions(report["bars"], before)
    for line in worse:
        typer.echo(f"worse than its baseline: {line}", err=True)
    if worse:
        raise typer.Exit(REGRESSED)


def _compare(folder: Path, only: str | None, *, quiet: bool) -> dict[str, Any]:
    from hermes_sim.validation.accuracy import validate_folder

    with _status(shown=not quiet and sys.stderr.isatty()) as tell:
        return validate_folder(folder, only, tell).as_dict()


def _read(path: Path) -> dict[str, Any]:
    from hermes_sim.validation.report import read_report

    return read_report(path)


def data_folder(given: Path | None) -> Path:
    """The folder that is meant. Raises HermesError where it is none."""
    folder = given or Path(os.environ.get("HERMES_DATA", BESIDE))
    if not folder.is_dir():
        how = "--data FOLDER or HERMES_DATA names one"
        raise HermesError(f"there is no folder of measured data at '{folder}' ({how})")
    return folder


def write_text(path: Path, text: str) -> None:
    """Whole or not at all. Raises HermesError."""
    try:
        write_whole(path, text)
    except OSError as error:
        raise HermesError(f"{path}: {error.strerror}") from error


def _check_file(path: Path | None) -> None:
    """A file that cannot be written is told before the work."""
    if path is None:
        return
    if path.is_dir():
        raise HermesError(f"{path}: is a folder")
    if not path.parent.is_dir():
        raise HermesError(f"{path}: there is no folder {path.parent}")
    try:
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise HermesError(f"{path}: cannot be written: {error.strerror}") from error


@contextmanager
def _status(*, shown: bool) -> Iterator[Callable[[str], None] | None]:
    """What is being looked at, on a terminal; it leaves no trace."""
    if not shown:
        yield None
        return
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("reading") as status:
        yield status.update
