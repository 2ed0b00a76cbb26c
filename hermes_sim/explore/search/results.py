"""What a search has found, in memory and as a folder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from hermes_sim.analysis.picture import save_figure
from hermes_sim.core.errors import HermesError
from hermes_sim.core.whole_file import write_whole
from hermes_sim.explore.run_table import save_table
from hermes_sim.explore.search.figure import draw_front
from hermes_sim.scenario.dump import dump_scenario, dump_yaml
from hermes_sim.scenario.load import SCENARIO_FILE, read_scenario
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.search import SearchFile
from hermes_sim.scenario.validate import validate
from hermes_sim.scenario.yaml_reader import read_yaml

TRIALS_FILE: Final = "trials.parquet"
FRONT_FILE: Final = "front.parquet"
SEARCH_FILE: Final = "search.yaml"
FIGURE_NAME: Final = "front"


@dataclass(frozen=True, eq=False, slots=True)
class SearchResults:
    """The points that were tried, and the best of them."""

    search: SearchFile
    trials: pd.DataFrame
    """One row a point that was tried, whatever became of it (search_table.trials_table)."""
    front: pd.DataFrame
    """One row a point that was run again, those of the front first (search_table.front_table)."""
    best: Scenario | None
    """Of the one point to begin with: the best by a single objective, the knee of the front of several."""
    num_left_out: int | None = 0
    """Points that conditions on axes rule out; None where the space is too large to count them."""
    num_points: int | None = None
    """Of the space with them; None where it is too large to count."""
    num_former: int = 0
    """Points that a former run of the search had tried."""

    @property
    def num_runs(self) -> float:
        """What the points have cost, in runs with all requests; without those that were run again."""
        return float(self.trials["num_runs"].sum())

    def save(self, folder: str | Path, formats: tuple[str, ...] = ("png",)) -> list[str]:
        """Tables, figure, the best point's scenario; each file whole or not at all. Names of the files."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_table(self.trials, folder / TRIALS_FILE)
        save_table(self.front, folder / FRONT_FILE)
        write_whole(
            folder / SEARCH_FILE, dump_yaml(self.search.model_dump(mode="json", by_alias=True, exclude_unset=True))
        )
        names = [TRIALS_FILE, FRONT_FILE]
        if self.best is not None:
            write_whole(folder / SCENARIO_FILE, dump_scenario(self.best))
            names.append(SCENARIO_FILE)
        else:
            (folder / SCENARIO_FILE).unlink(missing_ok=True)
        drawn = draw_front(self.search, self.trials, self.front)
        for suffix in formats:
            path = folder / f"{FIGURE_NAME}.{suffix}"
            save_figure(drawn, path)
            names.append(path.name)
        return names

    @classmethod
    def load(cls, folder: str | Path) -> SearchResults:
        """Of a folder that `save` has written. Raises HermesError."""
        folder = Path(folder)
        missing = [name for name in (SEARCH_FILE, TRIALS_FILE, FRONT_FILE) if not (folder / name).is_file()]
        if missing:
            raise HermesError(f"{folder} is not a finished search: it has no {missing[0]}")
        search = validate(SearchFile, read_yaml(folder / SEARCH_FILE))
        scenario = read_scenario(folder) if (folder / SCENARIO_FILE).is_file() else None
        trials, front = (_table(folder / name) for name in (TRIALS_FILE, FRONT_FILE))
        return cls(search, trials, front, scenario, None)

    def to_json(self) -> dict[str, Any]:
        """Both tables as lists of records, and what was looked for."""
        return {
            "search": self.search.model_dump(mode="json", by_alias=True, exclude_unset=True),
            "num_runs": self.num_runs,
            "front": _records(self.front),
            "trials": _records(self.trials),
        }

    def __repr__(self) -> str:
        num = int(self.front["on_front"].sum())
        return f"SearchResults({self.search.name!r}, {len(self.trials)} points tried, {num} on the front)"


def _table(path: Path) -> pd.DataFrame:
    from pyarrow import ArrowException, parquet

    try:
        table: pd.DataFrame = parquet.read_table(path).to_pandas()
    except (OSError, ArrowException) as error:
        raise HermesError(f"cannot read {path}: {error}") from error
    return table


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows without what has no value."""
    return [
        {str(name): value for name, value in row.items() if not (pd.isna(value) or value == math.inf)}
        for row in table.to_dict("records")
    ]
