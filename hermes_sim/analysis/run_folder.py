"""The folder of a saved run: which files it holds, how it appears whole or not at all.

Two equal runs give equal bytes in every file but run_info.json, which alone holds the wall time.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_sim.core.errors import HermesError
from hermes_sim.scenario.load import SCENARIO_FILE

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("requests", "visits", "engines", "links", "operators", "timeline", "itl")
OPTIONAL_TABLES = ("steps", "decisions", "kv_stores", "device_groups", "link_timeline", "unloaded", "replications")
SUMMARY_FILE = "summary.json"
RUN_INFO_FILE = "run_info.json"
REPORT_FILE = "report.html"
TRACE_FILE = "trace.json.gz"
VLLM_FILE = "vllm_benchmark.json"
FIGURES_FOLDER = "figures"
FILES = frozenset(
    {SCENARIO_FILE, SUMMARY_FILE, RUN_INFO_FILE, REPORT_FILE, TRACE_FILE, VLLM_FILE, FIGURES_FOLDER}
    | {f"{name}.parquet" for name in (*TABLES, *OPTIONAL_TABLES)}
)
DEFAULT_PARENT = Path("runs")
LIBRARIES = ("numba", "numpy", "pandas", "pyarrow", "simpy")


def check_folder(folder: Path) -> None:
    """Refuses, before a run, a folder that its results could not be written to.

    A former run may be written over; a folder with anything else in it may not. Raises HermesError.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise HermesError(f"--out {folder}: exists and is not a folder")
    if folder.is_dir():
        strangers = sorted(entry.name for entry in folder.iterdir() if entry.name not in FILES)
        if strangers:
            raise HermesError(f"--out {folder}: holds {strangers[0]!r}, which is not part of a run; name a new folder")
    ancestor = next(parent for parent in folder.absolute().parents if parent.exists())
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK | os.X_OK):
        raise HermesError(f"--out {folder}: {ancestor} cannot be written to")


def next_folder(workload: str, parent: Path = DEFAULT_PARENT) -> Path:
    """`runs/<workload>-<n>` with the smallest n above all that are there."""
    stem = "".join(character if character.isalnum() or character in "._-" else "_" for character in workload)
    taken = (entry.name.removeprefix(f"{stem}-") for entry in parent.glob(f"{stem}-*"))
    return parent / f"{stem}-{max((int(tail) for tail in taken if tail.isdecimal()), default=0) + 1}"


def write_folder(
    folder: Path,
    *,
    tables: Mapping[str, pd.DataFrame],
    scenario_yaml: str,
    summary: Mapping[str, Any],
    version: str,
    wall_time_s: float | None,
    report: str | None,
    trace: bytes | None = None,
) -> None:
    """Writes everything into a hidden folder beside, then renames it: an interrupted write leaves nothing behind.

    Raises HermesError if the folder cannot be written.
    """
    check_folder(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            partial.chmod(0o777 & ~_umask())
            _write_files(partial, tables, scenario_yaml, summary, version, wall_time_s)
            if report is not None:
                (partial / REPORT_FILE).write_text(report, encoding="utf-8")
            if trace is not None:
                (partial / TRACE_FILE).write_bytes(trace)
            _put_in_place(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise HermesError(f"cannot write {folder}: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_files(
    folder: Path,
    tables: Mapping[str, pd.DataFrame],
    scenario_yaml: str,
    summary: Mapping[str, Any],
    version: str,
    wall_time_s: float | None,
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    for name, frame in tables.items():
        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata({"hermes_sim": version})
        parquet.write_table(table, folder / f"{name}.parquet", compression="zstd")
    (folder / SCENARIO_FILE).write_text(scenario_yaml, encoding="utf-8")
    _write_json(folder / SUMMARY_FILE, summary)
    libraries = {name: installed_version(name) for name in LIBRARIES}
    info = {"version": version, "python": platform.python_version(), "libraries": libraries, "wall_time_s": wall_time_s}
    _write_json(folder / RUN_INFO_FILE, info)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def _put_in_place(partial: Path, folder: Path) -> None:
    """Renames; a former run steps aside first and is removed last."""
    if not folder.exists():
        partial.rename(folder)
        return
    former = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        folder.rename(former / folder.name)
        try:
            partial.rename(folder)
        except BaseException:
            (former / folder.name).rename(folder)
            raise
    finally:
        shutil.rmtree(former, ignore_errors=True)


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of a saved run, optional ones where they were written. Raises HermesError if it is not a run."""
    from pyarrow import parquet

    missing = [name for name in TABLES if not (folder / f"{name}.parquet").is_file()]
    if missing or not (folder / SUMMARY_FILE).is_file():
        what = f"{missing[0]}.parquet" if missing else SUMMARY_FILE
        raise HermesError(f"{folder} is not the folder of a run: {what} is missing")
    names = [*TABLES, *(name for name in OPTIONAL_TABLES if (folder / f"{name}.parquet").is_file())]
    return {name: parquet.read_table(folder / f"{name}.parquet").to_pandas() for name in names}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a saved run. Raises HermesError if it cannot be read."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HermesError(f"cannot read {path}: {error}") from error
    return content
