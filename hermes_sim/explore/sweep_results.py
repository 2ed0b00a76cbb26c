"""What a sweep has found: the table of its runs, the points' means over seeds, the best ones, the Pareto front."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from pydantic import ValidationError

from hermes_sim.analysis.pareto import pareto_front
from hermes_sim.analysis.statistics import Difference, paired_difference, t_quantile
from hermes_sim.core.errors import HermesError
from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.explore.run_table import DONE, FAILED, FIRST_COLUMNS, RUNS_FILE, read_about, read_table, save_table
from hermes_sim.scenario.expression import Value, parse_expression
from hermes_sim.scenario.study_metrics import Better, metric_of
from hermes_sim.scenario.sweep import SweepFile

if TYPE_CHECKING:
    from hermes_sim.explore.table_plots import TablePlots

HALF_WIDTH: Final = "_half_width_95"
"""Behind the name of a metric: its column with half of the 95% confidence interval over the seeds."""
NUM_SEEDS: Final = "num_seeds"


@dataclass(frozen=True, eq=False)
class SweepResults:
    """The runs of a sweep, and what follows from them."""

    sweep: SweepFile
    runs: pd.DataFrame
    """One row a run: a column for each axis, seed, status, error, scenario (a hash), wall_time_s, then metrics."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Condition -> number of points that do not fulfil it."""
    num_twice: int = 0
    """Points that were drawn again, and were run once."""
    num_reused: int = 0
    """Rows taken over from a former run of the sweep."""

    @property
    def axes(self) -> list[str]:
        """Their columns."""
        return [axis.name for axis in self.sweep.axes]

    @property
    def metrics(self) -> list[str]:
        """Columns of numbers that the runs gave."""
        return [str(name) for name in self.runs.columns if name not in self.axes and name not in FIRST_COLUMNS]

    @property
    def failures(self) -> pd.DataFrame:
        """The runs that failed, each with its error."""
        return self.runs[self.runs["status"] == FAILED]

    @cached_property
    def points(self) -> pd.DataFrame:
        """One row a point: means over its seeds, for each metric also `METRIC_half_width_95` where there are several.

        Student's t with n - 1 degrees of freedom, the seeds independent. Points of which some run failed are not there:
        the seeds that ended well might be the easy ones. A metric that some seed does not have is NaN.
        """
        grouped = self.runs.groupby(self.axes, observed=True, sort=False, dropna=False)
        whole = self.runs[grouped["status"].transform(lambda status: (status == DONE).all()).astype(bool)]
        grouped = whole.groupby(self.axes, observed=True, sort=False, dropna=False)
        num: pd.Series = grouped.size()
        means = grouped[self.metrics].mean().where(grouped[self.metrics].count().eq(num, axis=0))
        parts: list[pd.DataFrame] = [num.to_frame(NUM_SEEDS), means]
        if len(num) and int(num.max()) > 1:
            parts.append(_half_widths(grouped[self.metrics].std(ddof=1), num).where(means.notna().to_numpy()))
        return pd.concat(parts, axis=1).reset_index()

    @property
    def plot(self) -> TablePlots:
        """Figures: `.pareto()`, `.heat_map()`, `.slo_surface()`."""
        from hermes_sim.explore.table_plots import TablePlots

        return TablePlots(self.runs)

    def ranked(self, metric: str, where: str | None = None) -> pd.DataFrame:
        """The points by a metric, the best first; those without a value of it are left out.

        where: a condition on axes and metrics, such as `rate >= 4 and ttft_p99_s <= 2`. Raises HermesError for a metric
        that is not there and a condition that cannot be worked out.
        """
        better = self._better(metric)
        points = self._where(where)
        points = points[points[metric].notna()]
        return points.sort_values(metric, ascending=better == "lower", kind="stable").reset_index(drop=True)

    def best(self, metric: str, where: str | None = None) -> pd.Series:
        """The best point by a metric. Raises HermesError where no point fulfils the condition; see `ranked`."""
        ranked = self.ranked(metric, where)
        if ranked.empty:
            raise HermesError(f"no point has a value of {metric}" + (f" where {where}" if where else ""))
        return ranked.iloc[0]

    def difference(self, metric: str, first: pd.Series, second: pd.Series) -> Difference:
        """A metric of the second point minus that of the first, both rows of `points` or `ranked`, with what chance
        allows: paired by seed, since equal seeds drew equal requests. Nothing can be said of one seed.
        """
        self._better(metric)
        ours, theirs = (self._by_seed(metric, point) for point in (first, second))
        seeds = ours.index.intersection(theirs.index)
        return paired_difference(*(one.loc[seeds].to_numpy(dtype="float64") for one in (ours, theirs)))

    def _by_seed(self, metric: str, point: pd.Series) -> pd.Series:
        there = np.ones(len(self.runs), dtype=bool)
        for axis in self.axes:
            column, value = self.runs[axis], point[axis]
            there &= (column.isna() if pd.isna(value) else column.eq(value).fillna(False)).to_numpy(dtype=bool)
        return self.runs[there].set_index("seed")[metric]

    def pareto(self, metrics: Sequence[str], where: str | None = None) -> pd.DataFrame:
        """The points of which no other is at least as good in all these metrics and better in one, by the first metric.

        where: as of `ranked`.
        """
        better = [self._better(metric) for metric in metrics]
        points = self._where(where)
        front = points[pareto_front(points[list(metrics)].to_numpy(dtype="float64"), better)]
        return front.sort_values(metrics[0], ascending=better[0] == "lower", kind="stable").reset_index(drop=True)

    def save(self, folder: str | Path) -> Path:
        """Writes runs.parquet, which holds all that `load` needs; the file's path. Raises OSError."""
        path = Path(folder) / RUNS_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        save_table(self.runs, path, about=about_sweep(self.sweep, self.left_out, self.num_twice))
        return path

    def report_html(self, by: Sequence[str] = ()) -> str:
        """The points as one HTML page that needs nothing else: any two metrics against each other, a table to sort.

        by: metrics that it opens with.
        """
        from hermes_sim.explore.runs_page import runs_page

        return runs_page(self, by)

    @classmethod
    def load(cls, folder: str | Path) -> SweepResults:
        """Of a folder that a sweep was saved to. Raises HermesError."""
        path = Path(folder) / RUNS_FILE
        about = read_about(path)
        if "sweep" not in about:
            raise HermesError(f"{path} is not the table of a sweep")
        try:
            sweep = SweepFile.model_validate(about["sweep"])
        except ValidationError as error:
            raise HermesError(f"{path} is the table of a sweep that this version does not read: {error}") from error
        return cls(sweep, read_table(path), about["left_out"], about["num_twice"])

    def _better(self, metric: str) -> Better:
        found = metric_of(metric.partition("@")[0])
        if metric not in self.metrics or found is None:
            near = did_you_mean(metric, self.metrics)
            raise HermesError(f"{metric!r} is not a metric of these runs ({listed(self.metrics)}).{near}")
        return found.better

    def _where(self, condition: str | None) -> pd.DataFrame:
        if condition is None:
            return self.points
        try:
            expression = parse_expression(condition)
            unknown = [name for name in (*expression.names, *expression.paths) if name not in self.points]
            if unknown:
                known = [*self.axes, *self.metrics]
                near = did_you_mean(unknown[0], known)
                raise ValueError(f"{unknown[0]!r} is neither an axis nor a metric ({listed(known)}).{near}")
            kept = [expression.holds(_lookup(row)) for row in self.points.to_dict("records")]
        except (ValueError, LookupError) as error:
            raise HermesError(f"condition {condition!r}: {error.args[0]}") from None
        return self.points[np.array(kept, dtype=bool)]

    def __repr__(self) -> str:
        return f"<SweepResults {self.sweep.name}: {len(self.runs)} runs, {len(self.failures)} failed>"


def about_sweep(sweep: SweepFile, left_out: Mapping[str, int], num_twice: int) -> dict[str, Any]:
    """What the file of a sweep's table says beside the table."""
    described = json.loads(sweep.model_dump_json(by_alias=True, exclude_none=True))
    return {"sweep": described, "left_out": dict(left_out), "num_twice": num_twice}


def _lookup(row: Mapping[Any, Any]) -> Any:
    """Values of a row; what is not there compares as NaN, which is neither above nor below anything."""

    def value(name: str) -> Value:
        found = row[name]
        if isinstance(found, str):
            return found
        return math.nan if pd.isna(found) else float(found)

    return value


def _half_widths(deviations: pd.DataFrame, num: pd.Series) -> pd.DataFrame:
    factors = [t_quantile(one - 1) / math.sqrt(one) if one > 1 else math.nan for one in num]
    return deviations.mul(factors, axis=0).add_suffix(HALF_WIDTH)
