"""The command `hermes-sim`: arguments in, calls of the library out, results and errors to the terminal.

Exit status: 0 done, 1 the output could not be written, 2 wrong input or arguments (nothing was run or written), 130
interrupted.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from hermes_sim import __version__
from hermes_sim.commands import profile
from hermes_sim.commands.calibrate import calibrate
from hermes_sim.commands.capacity import capacity
from hermes_sim.commands.compare import compare
from hermes_sim.commands.explain import explain
from hermes_sim.commands.export import export
from hermes_sim.commands.figures import figures
from hermes_sim.commands.report import report as report_of_run
from hermes_sim.commands.search import search
from hermes_sim.commands.study import study
from hermes_sim.commands.sweep import sweep
from hermes_sim.commands.trace import trace
from hermes_sim.commands.validate import validate
from hermes_sim.core.errors import ConfigError, HermesError, Problem

if TYPE_CHECKING:
    from hermes_sim.analysis.results import Results
    from hermes_sim.run import Progress
    from hermes_sim.scenario.scenario import Scenario

FAILED = 1
WRONG_INPUT = 2
INTERRUPTED = 130
SECONDS_BETWEEN_UPDATES = 0.05
OBJECTS_BETWEEN_COLLECTIONS = 1_000_000
"""A start makes a quarter of a million objects that stay; to look for cycles among them again and again takes 0.3 s."""
STEPS_SHOWN = 20
KINDS = "devices|links|clusters|models|workloads|pipelines|policies|stages|presets|sweeps|studies|searches"
STEPS_LEGEND = "prompts: sequences:tokens  +request:cached tokens: admitted  -request: preempted"

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(profile.app, name="profile")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the command; ends the process with its exit status."""
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    try:
        app(None if arguments is None else list(arguments), prog_name="hermes-sim")
    except HermesError as error:
        _print_error(error)
        sys.exit(WRONG_INPUT)
    except OSError as error:  # the output has nowhere to go: a full disk, a closed terminal
        typer.echo(f"error: {error.strerror or error}", err=True)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    sys.exit(0)


@app.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    cluster: Annotated[
        str | None, typer.Option(help="Cluster file, or the name of one in the library.", metavar="FILE")
    ] = None,
    workload: Annotated[
        str | None, typer.Option(help="Workload file, or the name of one in the library.", metavar="FILE")
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(help="A saved run, or its scenario.yaml, instead of both: runs it again.", metavar="FOLDER"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the results; a former run there is replaced. [default: runs/WORKLOAD-N]", metavar="FOLDER"
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, instead of the workload's.", metavar="N")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another value for any key: cluster.KEY=VALUE, workload.KEY=VALUE.", metavar="K=V"),
    ] = None,
    replications: Annotated[
        int, typer.Option(min=1, help="Runs with consecutive seeds; adds confidence intervals.", metavar="N")
    ] = 1,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Replications run at once, each in a process. [default: cores]", metavar="N"),
    ] = None,
    exact_steps: Annotated[
        bool, typer.Option("--exact-steps", help="One event per engine step: slower, the same results.")
    ] = False,
    plugins: Annotated[
        list[str] | None,
        typer.Option("--plugin", help="Module with policies of your own, or an installed plug-in.", metavar="MODULE"),
    ] = None,
    steps: Annotated[
        bool,
        typer.Option("--steps", help="Record every scheduling decision, print the first steps (docs/results.md)."),
    ] = False,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html too: one page, works from disk.")
    ] = True,
    perfetto: Annotated[
        bool, typer.Option("--perfetto", help="Write trace.json.gz too, for ui.perfetto.dev (docs/results.md).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole summary as JSON, nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Simulate LLM serving on described hardware: latencies, throughput, energy and cost of a workload on a cluster.

    hermes-sim --cluster a100x8 --workload rag
    """
    if version:
        typer.echo(f"hermes-sim {__version__}")
        return
    _load_plugins(plugins or [])
    if context.invoked_subcommand is not None:
        return
    if cluster is None and workload is None and scenario is None:
        typer.echo(context.get_help())
        raise typer.Exit(WRONG_INPUT)
    if steps and replications > 1:
        raise HermesError("steps are recorded of one run: leave out replications, or steps")
    shown = not (quiet or as_json)
    try:
        loaded = _load(cluster, workload, scenario, overrides or [], seed, exact_steps, out)
        results, folder = _simulate(loaded, out, replications, jobs, steps, report, perfetto, shown)
    except KeyboardInterrupt:
        typer.echo("interrupted, nothing was written", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        typer.echo(json.dumps({**results.summary, "run_folder": str(folder)}, indent=2, ensure_ascii=False))


def _load_plugins(names: Sequence[str]) -> None:
    """Modules are looked for in the working directory first, as `python -m` does."""
    if not names:
        return
    from hermes_sim.plugins import load_plugin

    sys.path.insert(0, str(Path.cwd()))
    for name in names:
        if name.endswith(".py") or "/" in name or "\\" in name:
            raise HermesError(
                f"--plugin {name}: needs the name of a module, as `import` takes it, not of a file: "
                f"--plugin {Path(name).stem}"
            )
        load_plugin(name)


def _load(
    cluster: str | None,
    workload: str | None,
    saved: str | None,
    overrides: Sequence[str],
    seed: int | None,
    exact_steps: bool,
    out: Path | None,
) -> Scenario:
    """The scenario of a cluster and a workload, or of a saved run; a folder that cannot be written to is told first."""
    from hermes_sim.analysis.run_folder import check_folder
    from hermes_sim.scenario.load import load_scenario, read_scenario

    if out is not None:
        check_folder(out)
    if saved is not None:
        if cluster is not None or workload is not None:
            raise HermesError("--scenario stands instead of --cluster and --workload; change keys of them with --set")
        return read_scenario(saved, overrides=overrides, seed=seed, exact_steps=exact_steps or None)
    if cluster is None or workload is None:
        kind = "cluster" if cluster is None else "workload"
        raise HermesError(f"--{kind} is missing (hermes-sim list {kind}s)")
    return load_scenario(cluster, workload, overrides=overrides, seed=seed, exact_steps=exact_steps)


def _simulate(
    scenario: Scenario,
    out: Path | None,
    replications: int,
    jobs: int | None,
    steps: bool,
    report: bool,
    perfetto: bool,
    shown: bool,
) -> tuple[Results, Path]:
    """The main job: run and save; on the way it prints what a person wants to see."""
    from hermes_sim.analysis.run_folder import check_folder, next_folder
    from hermes_sim.core.compiled import is_warm
    from hermes_sim.run import run_replications

    if scenario.workload.traffic.trace is not None:
        scenario.workload.traffic.trace.file(Path)  # a missing file is told before anything is printed
    folder = out if out is not None else next_folder(scenario.workload.name)
    check_folder(folder)
    if shown:
        from hermes_sim.analysis.render import header
        from hermes_sim.analysis.setting import scenario_words

        typer.echo(header(scenario_words(scenario)) + "\n")
        if not is_warm():
            typer.echo("first run: compiling the engine, about a minute (kept for later runs)", err=True)
    with _progress(shown and sys.stderr.isatty()) as progress:
        results = run_replications(scenario, replications, jobs=jobs, steps=steps, progress=progress)
    results.save(folder, report=report, perfetto=perfetto)
    if shown:
        _show(results, folder, report=report, perfetto=perfetto)
    return results, folder


def _show(results: Results, folder: Path, *, report: bool, perfetto: bool) -> None:
    from hermes_sim.analysis.blocks.layout import hanging
    from hermes_sim.analysis.render import render, run_line

    _print_styled("\n".join([run_line(results.summary, results.wall_time_s), "", render(results.summary)]))
    if results.steps is not None:
        from hermes_sim.analysis.human import count
        from hermes_sim.analysis.step_table import step_lines

        typer.echo(f"\nsteps ({count(min(STEPS_SHOWN, len(results.steps)))} of {count(len(results.steps))})")
        typer.echo("\n".join(step_lines(results.steps, STEPS_SHOWN)))
        typer.echo(STEPS_LEGEND)
    tables = ("timeline.parquet",) if results.steps is None else ("steps.parquet", "decisions.parquet")
    pages = (*(["report.html"] if report else []), *(["trace.json.gz"] if perfetto else []))
    files = (*pages, "requests.parquet", "summary.json", "scenario.yaml", *tables)
    typer.echo("\n" + "\n".join(hanging(f"saved {folder} ({', '.join(files)}, ...)", 2)))
    typer.echo(f"why                hermes-sim explain {folder}")


def _print_styled(text: str) -> None:
    """Colour only repeats what the words say, and only on a terminal."""
    if not sys.stdout.isatty():
        typer.echo(text)
        return
    from rich.console import Console
    from rich.text import Text

    styled = Text(text)
    styled.highlight_regex(r"(?m)^[a-z][A-Za-z0-9%() ]*?(?=  )", "bold")
    styled.highlight_regex(r"(?m)^warning", "yellow")
    styled.highlight_regex(r"\bmet(?=$|;)", "green")
    styled.highlight_regex(r"missed by [^;\n]*", "red")
    Console(highlight=False, soft_wrap=True).print(styled)


@contextmanager
def _progress(shown: bool) -> Iterator[Progress | None]:
    """A bar on stderr with the requests done and the simulated time; it leaves no trace."""
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as ProgressBar

    from hermes_sim.analysis.human import duration

    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[simulated]}"))
    with ProgressBar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, simulated="")
        last_s = -SECONDS_BETWEEN_UPDATES

        def update(simulated_s: float, num_done: int, num_requests: int) -> None:
            nonlocal last_s
            if perf_counter() - last_s < SECONDS_BETWEEN_UPDATES and num_done < num_requests:
                return
            last_s = perf_counter()
            bar.update(task, completed=num_done, total=num_requests, simulated=f"{duration(simulated_s)} simulated")

        yield update


@app.command()
def check(files: Annotated[list[Path], typer.Argument(help="Files of any kind.", metavar="FILE...")]) -> None:
    """Check files of any kind without running."""
    from hermes_sim.scenario.check import check_file
    from hermes_sim.scenario.describe import source_words

    problems = [problem for file in files for problem in check_file(file)]
    if problems:
        raise ConfigError(problems)
    width = max(len(str(file)) for file in files)
    for file in files:
        first, *others = source_words(file) or [""]
        typer.echo(f"{file!s:<{width}}  ok  {first}".rstrip())
        for line in others:
            typer.echo(f"{'':<{width}}      {line}")


@app.command("list")
def list_kind(kind: Annotated[str, typer.Argument(help=KINDS, metavar="KIND")]) -> None:
    """List what the library holds."""
    from hermes_sim.scenario.describe import list_names

    found = list_names(kind)
    parts = list(dict.fromkeys(part for _, _, evidence in found for part in evidence))
    rows = [[name, title, *(evidence.get(part, "") for part in parts)] for name, title, evidence in found]
    if parts:
        rows.insert(0, ["", f"{'source of:':>{max(len(row[1]) for row in rows)}}", *parts])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command()
def show(
    what: Annotated[str, typer.Argument(help=f"KIND one of {KINDS}.", metavar="KIND/NAME")],
    coefficients: Annotated[
        bool, typer.Option("--coefficients", help="On a terminal, too, all that is fitted to a device's kernels.")
    ] = False,
) -> None:
    """Show one of them, resolved, with sources."""
    from hermes_sim.scenario.describe import show as describe

    kind, slash, name = what.partition("/")
    if not slash or not name:
        raise HermesError(f"'{what}' is not KIND/NAME, such as device/a100_sxm_80gb")
    typer.echo(describe(kind, name, coefficients=coefficients or not sys.stdout.isatty()).rstrip())


@app.command()
def define(term: Annotated[str | None, typer.Argument(help="A word, such as ttft; without one, all.")] = None) -> None:
    """Say what a word means here."""
    from hermes_sim.analysis.glossary import TERMS, definition_text
    from hermes_sim.analysis.glossary import define as find
    from hermes_sim.scenario.describe import definition

    if term is not None and (title := definition(term)) is not None:
        typer.echo(f"{term}\n  {title}")
        return
    terms = list(TERMS.values()) if term is None else [find(term)]
    typer.echo("\n".join(definition_text(one) for one in terms))


@app.command()
def schema(kind: Annotated[str, typer.Argument(help="cluster, workload, device, link, model, ...")]) -> None:
    """Print the JSON Schema of one kind of file."""
    from hermes_sim.scenario.describe import json_schema

    typer.echo(json.dumps(json_schema(kind), indent=2, ensure_ascii=False))


app.command(short_help="Fit a device's cost model to measured kernels.")(calibrate)
app.command(short_help="The highest load within the SLO.")(capacity)
app.command(short_help="What differs between saved runs, and whether by chance.")(compare)
app.command(short_help="Where time goes in a run, and what would help.")(explain)
app.command()(export)
app.command(short_help="Figures for papers of a run or a sweep.")(figures)
app.command("report", short_help="The report of a saved run or sweep: one HTML page.")(report_of_run)
app.command(short_help="Search a space of deployments for the best.")(search)
app.command(short_help="A grid of runs, its figures, its findings in words.")(study)
app.command(short_help="Many points of cluster and workload, one table.")(sweep)
app.command(short_help="A saved run as a trace for Perfetto.")(trace)
app.command(short_help="Compare the models with measurements.")(validate)


@app.command("import-model")
def import_model(
    config: Annotated[Path, typer.Argument(help="A Hugging Face config.json.", metavar="CONFIG")],
    name: Annotated[str | None, typer.Option(help="Name of the model; from the file if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Model file to write, instead of printing it.")] = None,
) -> None:
    """Turn a Hugging Face config.json into a model file."""
    from hermes_sim.models.hugging_face import import_model as convert

    text = convert(config, name)
    if out is None:
        typer.echo(text.rstrip())
        return
    if out.exists():
        raise HermesError(f"--out {out}: exists already")
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise HermesError(f"--out {out}: {error.strerror}") from error
    typer.echo(f"wrote {out}")


def _print_error(error: HermesError) -> None:
    """One problem on one line; several aligned, with their number below."""
    problems = error.problems if isinstance(error, ConfigError) else ()
    if len(problems) < 2:
        typer.echo(f"error: {error}", err=True)
        return
    for line in _aligned(problems):
        typer.echo(line, err=True)
    typer.echo(f"{len(problems)} problems, nothing was run", err=True)


def _aligned(problems: Sequence[Problem]) -> list[str]:
    """`file:line  key  message` in columns."""
    places = [problem.file if problem.line is None else f"{problem.file}:{problem.line}" for problem in problems]
    columns = [places, [problem.key for problem in problems]]
    widths = [max(map(len, column)) for column in columns]
    return [
        "".join(f"{cell:<{width}}  " for cell, width in zip(cells, widths, strict=True) if width) + problem.message
        for *cells, problem in zip(*columns, problems, strict=True)
    ]
