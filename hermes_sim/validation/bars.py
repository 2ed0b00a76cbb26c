"""The bars of accuracy: what is asked of rows that were not fitted, what is reached, and why not where it is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

Status = Literal["met", "not met", "no data"]
Statistic = Literal["mean", "median"]

ATTENTION: Final = ("attention_prefill", "attention_decode")
EXPERTS: Final = ("moe", "mla_prefill", "mla_decode")
FITTED_ENGINE: Final = "vllm"
"""Whose kernels the shipped coefficients describe."""
BAND: Final = (0.85, 0.95)
"""Share of kept-out measurements that a 90% band should hold."""
SHARE_INSIDE: Final = "share inside"
"""Statistic of bars on bands: more is better."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the table of bars."""

    name: str
    """Stable: baselines refer to it."""
    what: str
    statistic: str
    limit: float
    """Largest error, as a fraction; of bands the least share."""
    value: float | None
    num_rows: int
    status: Status
    reason: str
    """Where the error sits, for a bar that is not met; what is missing, for one without data."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "what": self.what,
            "statistic": self.statistic,
            "limit": self.limit,
            "value": None if self.value is None else round(self.value, 5),
            "rows": self.num_rows,
            "status": self.status,
            "reason": self.reason,
        }


def asked(bar: Mapping[str, Any]) -> str:
    """What a bar of a report asks of its value."""
    return f"{BAND[0]:.0%} to {BAND[1]:.0%}" if bar["statistic"] == SHARE_INSIDE else f"<= {100 * bar['limit']:.3g}%"


def kernel_bars(scored: pd.DataFrame) -> list[Bar]:
    """Of single kernels on shapes that no fit has seen, on devices that were fitted."""
    rows = scored[(scored["side"] == "held_out") & (scored["timing"] == "graph") & (scored["model"] == "")]
    bars = []
    for names, analytic, limit in ((("gemm",), 0.07, 0.04), (ATTENTION, 0.10, 0.04), (EXPERTS, 0.12, 0.06)):
        for name in names:
            what, of_operator = f"{name.replace('_', ' ')}, unseen shapes", rows[rows["operator"] == name]
            for suffix, whose, chosen in (
                ("", f"{FITTED_ENGINE}'s kernels", of_operator[of_operator["engine"] == FITTED_ENGINE]),
                ("_all_engines", "all engines' kernels", of_operator),
            ):
                without = chosen.assign(predicted=chosen["analytic"])
                bars.append(error_bar(f"{name}{suffix}_analytic", f"{what}, {whose}, analytic", analytic, without))
                bars.append(error_bar(f"{name}{suffix}", f"{what}, {whose}", limit, chosen))
    all_reduce = rows[rows["operator"] == "all_reduce"]
    bars.append(error_bar("all_reduce", "all reduce, unseen sizes", 0.10, all_reduce))
    return bars


def unseen_bars(scored: pd.DataFrame) -> list[Bar]:
    """Of a device as if it had never been measured: another one's coefficients, its own datasheet."""
    of = scored["operator"].isin
    same = scored["donor"] == "same class"
    return [
        error_bar("unseen_same_class", "GEMM, device never seen, same class", 0.12, scored[of(["gemm"]) & same]),
        error_bar("unseen_other_class", "GEMM, device never seen, other class", 0.25, scored[of(["gemm"]) & ~same]),
        error_bar("unseen_attention", "attention, device never seen", 0.20, scored[of(ATTENTION)]),
    ]


def layer_bar(scored: pd.DataFrame) -> Bar:
    """Sums of the parts of a layer that a table names."""
    return error_bar("layers", "layers of models kept out (sum of their parts)", 0.08, scored)


def band_bar(scored: pd.DataFrame, name: str, what: str) -> Bar:
    """Of rows kept out that have a band."""
    rows = scored[(scored["side"] != "fitted") & scored["low"].notna() & scored["high"].notna()]
    if rows.empty:
        return Bar(name, what, SHARE_INSIDE, BAND[0], None, 0, "no data", "no row that was kept out has a band")
    inside = (rows["measured"] >= rows["low"]) & (rows["measured"] <= rows["high"])
    share = float(inside.mean())
    status: Status = "met" if BAND[0] <= share <= BAND[1] else "not met"
    reason = "" if status == "met" else _least_covered(rows, inside)
    return Bar(name, what, SHARE_INSIDE, BAND[0], share, len(rows), status, reason)


def serving_bars(scored: pd.DataFrame) -> list[Bar]:
    """Of replayed runs, on models or runs that fitted nothing."""
    held = scored[scored["side"] == "held_out"]

    def rows(experiment: str, metric: str, mode: str | None = None) -> pd.DataFrame:
        chosen = held[(held["experiment"] == experiment) & (held["metric"] == metric)]
        return chosen if mode is None else chosen[chosen["mode"] == mode]

    bars = [
        error_bar("splitwise_prompt", "Splitwise prompt steps", 0.10, rows("splitwise_steps", "prompt_s")),
        error_bar("splitwise_token", "Splitwise token steps", 0.06, rows("splitwise_steps", "token_s")),
    ]
    for metric, limit in (("ttft", 0.04), ("tpot", 0.01), ("e2e", 0.015)):
        what = f"per-request replays, mean {metric.upper()}"
        bars.append(error_bar(f"per_request_{metric}", what, limit, rows("per_request", f"{metric}_mean_s")))
    for metric, limit in (("e2e", 0.05), ("ttft", 0.12), ("itl", 0.05)):
        what = f"stage-rate runs, models kept out, {metric.upper()}"
        found = rows("stage_rate", f"{metric}_mean_s")
        bars.append(error_bar(f"stage_rate_{metric}", what, limit, found, "median"))
    for mode, title, limits in (
        ("aggregated", "closed loop, aggregated, models kept out", (0.12, 0.20)),
        ("disaggregated", "closed loop, disaggregated with layouts, in no fit", (0.20, 0.30)),
    ):
        for metric, limit in zip(("tpot", "ttft"), limits, strict=True):
            found = rows("closed_loop", f"{metric}_mean_s", mode)
            bars.append(error_bar(f"closed_{mode}_{metric}", f"{title}, {metric.upper()}", limit, found))
    means = scored[
        scored["experiment"].isin(["per_request", "stage_rate"])
        & scored["metric"].isin(["ttft_mean_s", "tpot_mean_s", "itl_mean_s", "e2e_mean_s"])
    ]
    bars.append(error_bar("disparity", "per-request and stage-rate runs, all means, the paper's claim", 0.06, means))
    return bars


def error_bar(name: str, what: str, limit: float, rows: pd.DataFrame, statistic: Statistic = "mean") -> Bar:
    """A bar on the absolute percentage error of rows."""
    title = f"{statistic} APE"
    if rows.empty:
        return Bar(name, what, title, limit, None, 0, "no data", "no such row has a prediction")
    errors = _errors(rows)
    value = float(errors.mean() if statistic == "mean" else errors.median())
    status: Status = "met" if value <= limit else "not met"
    return Bar(name, what, title, limit, value, len(rows), status, "" if status == "met" else where_it_sits(rows))


def where_it_sits(rows: pd.DataFrame) -> str:
    """The largest groups' errors by the label that tells them apart most, and the bias."""
    errors = _errors(rows)
    bias = float((rows["predicted"] / rows["measured"] - 1.0).mean())
    best: tuple[float, str] | None = None
    for label in ("device", "dtype", "engine", "model", "concurrency", "rate", "workload", "timing"):
        if label not in rows:
            continue
        means = errors.groupby(rows[label].astype(str)).agg(["mean", "size"])
        means = means[means["size"] >= max(0.02 * len(rows), 1.0)].sort_values("mean")
        if len(means) < 2:
            continue
        spread = float(means["mean"].iloc[-1] - means["mean"].iloc[0])
        worst, least = means.iloc[-1], means.iloc[0]
        text = (
            f"by {label}: {means.index[-1] or 'none'} {worst['mean']:.1%} of {worst['size']:.0f} rows, "
            f"{means.index[0] or 'none'} {least['mean']:.1%}"
        )
        if best is None or spread > best[0]:
            best = spread, text
    return f"bias {bias:+.1%}" + (f"; {best[1]}" if best is not None else "")


def _errors(rows: pd.DataFrame) -> pd.Series:
    return (rows["predicted"] / rows["measured"] - 1.0).abs()


def _least_covered(rows: pd.DataFrame, inside: pd.Series) -> str:
    label = "operator" if "operator" in rows else "metric"
    shares = inside.groupby(rows[label].astype(str)).mean().sort_values()
    return f"{shares.index[0]} {shares.iloc[0]:.0%} inside, {shares.index[-1]} {shares.iloc[-1]:.0%}"


def layer_sums(scored: pd.DataFrame, parts: pd.DataFrame) -> pd.DataFrame:
    """Rows of named parts summed to layers: one row a table, shard and number of tokens.

    parts: for each row of `scored` its part, tp and num_tokens. A layer counts as fitted if any part of it may be.
    """
    named = scored.join(parts)
    named = named[(named["part"] != "") & named["operator"].isin(["gemm", "stream"]) & (named["num_tokens"] > 0)]
    if named.empty:
        return pd.DataFrame(columns=[*scored.columns])
    keys = ["table", "device", "model", "engine", "timing", "tp", "num_tokens"]
    groups = named.assign(is_fitted=(named["side"] == "fitted") & (named["operator"] == "stream"), num_parts=1).groupby(
        keys, observed=True
    )
    sums = groups[["measured", "predicted", "num_parts"]].sum().reset_index()
    sums["is_fitted"] = groups["is_fitted"].any().to_numpy()
    return sums.assign(low=np.nan, high=np.nan)
