"""Reads the kernels of a folder: every file by the layout that its columns tell, into one table per operator."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.measured import aiconfigurator, llmcompass, llmservingsim, public_format, vidur
from hermes_sim.measured.columns import OPERATORS, finished
from hermes_sim.measured.files import column_names, find_tables, is_unreadable, read_table, reason, sound_rows
from hermes_sim.measured.layout import Layout, Source
from hermes_sim.measured.names import FileName, Names, normal_form
from hermes_sim.measured.tables import KernelTables, Log

LAYOUTS: Final[tuple[Layout, ...]] = (
    *public_format.LAYOUTS, *aiconfigurator.LAYOUTS, *vidur.LAYOUTS, *llmservingsim.LAYOUTS, *llmcompass.LAYOUTS,
)  # fmt: skip
OTHER_FOLDERS: Final = frozenset({"serving", "requests", "hardware", "models"})
"""Folders of measured data that hold no kernels: a table there that no layout fits is none of ours."""
FEWEST_SHARED: Final = 2
"""Columns that a file has to share with a layout for what it lacks of it to be named."""


def read_kernels(
    folder: str | Path,
    *,
    operators: Collection[str] | None = None,
    devices: Collection[str] | None = None,
    engines: Collection[str] | None = None,
    files: Collection[Path] | None = None,
) -> KernelTables:
    """Measurements of kernels under the folder, base units, one row a shape and setting.

    operators, devices (names or aliases) and engines narrow what is read: other files are not opened, or their rows
    left out. A file is known by its columns, whatever its name; its name tells what they do not: device, model, tp.
    files: these of the folder alone, without what it says of models beside them.
    Raises ConfigError where there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError([Problem(str(folder), None, "", "there is no such folder of measured tables")])
    names, log = Names(folder if files is None else None), Log()
    wanted = None if devices is None else {names.device(device) for device in devices}
    parts: dict[str, list[pd.DataFrame]] = {}
    num_files = 0
    notes = _notes(folder) if files is None else []
    for path in find_tables(folder) if files is None else sorted(files):
        relative = path.relative_to(folder)
        layout = _layout_of(path, relative, log)
        if layout is None or (operators is not None and layout.operators.isdisjoint(operators)):
            continue
        file = names.of_file(relative)
        about = _about(relative, file, names, notes)
        named = names.device(about.get("device", file.device))
        if wanted is not None and not layout.states_device and named not in wanted:
            continue
        if engines is not None and not layout.states_device and file.engine and file.engine not in engines:
            continue
        source = _source(path, relative, layout, file, names, log, about)
        if source is None:
            continue
        num_files += 1
        for operator, rows in _converted(source, layout, operators).items():
            table = _chosen(finished(operator, rows, source.name), wanted, engines)
            if len(table):
                parts.setdefault(operator, []).append(table)
    tables = {name: pd.concat(parts[name], ignore_index=True) for name in OPERATORS if name in parts}
    return KernelTables(tables, log, num_files)


def read_tables(files: Sequence[Path]) -> KernelTables:
    """Measurements of these files, as `read_kernels` reads those of a folder. ConfigError where one is missing."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise ConfigError([Problem(str(file), None, "", "there is no such table") for file in missing])
    whole = [file.resolve() for file in files]
    return read_kernels(os.path.commonpath([file.parent for file in whole]), files=whole)


def read_frame(table: pd.DataFrame, called: str = "table") -> KernelTables:
    """Measurements of a table in the public format, as `read_tables` reads those of a file."""
    names, log = Names(None), Log()
    (layout,) = public_format.LAYOUTS
    missing = sorted(layout.needed - set(table.columns))
    if missing:
        log.problem(called, _lacks(frozenset(map(str, table.columns))))
        return KernelTables({}, log, 1)
    numbers = dict(layout.numbers)
    sound = sound_rows(table.reset_index(drop=True), called, log, numbers=numbers, whole=layout.whole, flags=())
    source = Source(sound, called, names.of_file(Path(called)), names, log)
    tables = {operator: finished(operator, rows, called) for operator, rows in layout.convert(source) if len(rows)}
    return KernelTables(tables, log, 1)


def _converted(source: Source, layout: Layout, operators: Collection[str] | None) -> dict[str, pd.DataFrame]:
    """Rows of each operator that is asked for."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for operator, rows in layout.convert(source):
        if (operators is None or operator in operators) and len(rows):
            parts.setdefault(operator, []).append(rows)
    return {operator: rows[0] if len(rows) == 1 else pd.concat(rows) for operator, rows in parts.items()}


def _chosen(table: pd.DataFrame, devices: set[str] | None, engines: Collection[str] | None) -> pd.DataFrame:
    if devices is not None:
        table = table[table["device"].isin(devices)]
    return table if engines is None else table[table["engine"].isin(list(engines))]


def _layout_of(path: Path, relative: Path, log: Log) -> Layout | None:
    """The layout with the most columns of those that fit; a problem where none does and the file should be one."""
    ours = not OTHER_FOLDERS.intersection(relative.parts[:-1]) and len(relative.parts) > 0
    try:
        columns = frozenset(column_names(path))
    except Exception as error:
        if not is_unreadable(error):
            raise
        if ours:
            log.problem(str(relative), reason(error))
        return None
    fitting = [layout for layout in LAYOUTS if layout.needed <= columns]
    if fitting:
        return max(fitting, key=lambda layout: len(layout.needed))
    if ours and relative.name != "MANIFEST.csv":
        log.problem(str(relative), _lacks(columns))
    return None


def _lacks(columns: frozenset[str]) -> str:
    nearest = max(
        LAYOUTS,
        # A table that names its operators is one of the public format, however many columns it shares with another.
        key=lambda layout: ("operator" in layout.texts & columns, len(layout.needed & columns) / len(layout.needed)),
    )
    missing = sorted(nearest.needed - columns)
    if len(nearest.needed & columns) < FEWEST_SHARED:
        return f"no known table has its columns: {', '.join(sorted(columns)) or 'none'}"
    return f"no column {', '.join(missing)}, which a table of the layout '{nearest.name}' has"


def _source(
    path: Path, relative: Path, layout: Layout, file: FileName, names: Names, log: Log, about: Mapping[str, str]
) -> Source | None:
    table = read_table(path, str(relative), log)
    if table is None:
        return None
    numbers = {column: least for column, least in layout.numbers.items() if column in table}
    sound = sound_rows(table, str(relative), log, numbers=numbers, whole=layout.whole, flags=layout.flags)
    return Source(sound, str(relative), file, names, log, about)


def _notes(folder: Path) -> list[tuple[Path, str, dict[str, str]]]:
    """What meta.json files say: (folder, start of the names of the files that are meant, notes)."""
    found = []
    for path in sorted(folder.rglob("meta.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        for prefix, about in content.items() if isinstance(content, dict) else ():
            if isinstance(about, dict):
                keys = {
                    "vllm_version": "engine_version",
                    "model": "model",
                    "gpu": "device",
                    "measurement_iterations": "repeats",
                }
                notes = {ours: str(about[theirs]) for theirs, ours in keys.items() if theirs in about}
                found.append((path.parent.relative_to(folder), prefix, notes))
    return found


def _about(
    relative: Path, file: FileName, names: Names, notes: list[tuple[Path, str, dict[str, str]]]
) -> Mapping[str, str]:
    """The notes beside a file that are about it: of the same name, else of the same device and model."""
    beside = [(prefix, about) for parent, prefix, about in notes if parent == relative.parent]
    for prefix, about in beside:
        if relative.name.startswith(prefix):
            return about
    for _, about in beside:
        same_model = normal_form(names.model(about.get("model", ""))) == normal_form(file.model)
        if same_model and names.device(about.get("device", "")) == file.device:
            return about
    return {}
