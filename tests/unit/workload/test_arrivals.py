"""Laws of arrivals: rates, burstiness, order, determinism."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from hermes_sim.core.rng import stream
from hermes_sim.workload.traffic import ARRIVALS
from tests.unit.workload.laws import FIXED, arrival_times, dispersion, gap_cv, requests_of

RATE_PER_S = 4.0
LAWS: dict[str, dict[str, Any]] = {
    "constant": {"kind": "constant", "rate": "4 /s"},
    "uniform": {"kind": "uniform", "rate": "4 /s"},
    "normal": {"kind": "normal", "rate": "4 /s", "cv": 0.8},
    "poisson": {"kind": "poisson", "rate": "4 /s"},
    "gamma": {"kind": "gamma", "rate": "4 /s", "cv": 3},
    "mmpp": {"kind": "mmpp", "states": [{"rate": "10 /s", "dwell": "2 s"}, {"rate": "1 /s", "dwell": "4 s"}]},
    "on_off": {"kind": "on_off", "rate": "12 /s", "on_time": "1 s", "off_time": "2 s"},
    "diurnal": {"kind": "diurnal", "rate": "4 /s", "amplitude": 0.8, "period": "100 s"},
}
NUM = 200_000


def test_every_law_of_the_table_is_tested() -> None:
    assert set(LAWS) | {"replay"} == set(ARRIVALS)


@pytest.mark.parametrize("name", LAWS)
def test_conformance(name: str) -> None:
    """Sorted, finite, from zero, at the mean rate, the same again, and a short run is the start of a long one."""
    times_s = arrival_times(LAWS[name], NUM)
    assert len(times_s) == NUM
    assert times_s[0] >= 0.0
    assert np.isfinite(times_s).all()
    assert (np.diff(times_s) >= 0.0).all()
    law = ARRIVALS[name].model_validate(LAWS[name])
    assert law.mean_rate_per_s == pytest.approx(RATE_PER_S)
    assert NUM / times_s[-1] == pytest.approx(RATE_PER_S, rel=0.03)
    assert np.array_equal(times_s, arrival_times(LAWS[name], NUM))
    assert np.array_equal(times_s[:100], arrival_times(LAWS[name], 100))
    assert (name == "constant") == np.array_equal(times_s, arrival_times(LAWS[name], NUM, seed=2))


@pytest.mark.parametrize("name", LAWS)
def test_duration(name: str) -> None:
    """A duration cuts the same arrivals; with a count too, whichever ends first."""
    by_number = arrival_times(LAWS[name], 10_000)
    by_duration = arrival_times(LAWS[name], duration_s=500.0)
    assert len(by_duration) > 1000
    assert np.array_equal(by_duration, by_number[by_number < 500.0])
    assert np.array_equal(by_duration[:7], arrival_times(LAWS[name], 7, 500.0))
    assert len(arrival_times(LAWS[name], duration_s=0.0)) == 0


@pytest.mark.parametrize("name", LAWS)
def test_a_higher_rate_brings_the_same_arrivals_earlier(name: str) -> None:
    """Common random numbers: gaps of renewals are scaled; of laws with a clock, the mean count at the arrivals is."""
    law = ARRIVALS[name].model_validate(LAWS[name])
    own_s, faster_s, back_s = (
        one.times(stream(1, "arrivals"), 20_000, None, Path)
        for one in (law, law.scaled(1.5), law.scaled(1.5).scaled(2 / 3))
    )
    assert law.scaled(1.5).mean_rate_per_s == pytest.approx(1.5 * RATE_PER_S)
    assert (faster_s <= own_s).all()
    assert (faster_s[1:] < own_s[1:]).all()
    assert own_s == pytest.approx(back_s)
    if name not in ("mmpp", "on_off", "diurnal"):
        assert own_s == pytest.approx(1.5 * faster_s)


def test_faster_bursts_are_as_long() -> None:
    """On-off at twice the rate: twice as many arrivals in the same time on."""
    law = ARRIVALS["on_off"].model_validate(LAWS["on_off"] | {"on_time": "100 s", "off_time": "200 s"})
    own_s, twice_s = (one.times(stream(1, "arrivals"), None, 50_000.0, Path) for one in (law, law.scaled(2.0)))
    silent, still_silent = (times_s[:-1][np.diff(times_s) > 20.0] for times_s in (own_s, twice_s))
    assert len(silent) == len(still_silent) > 50
    assert silent == pytest.approx(still_silent, abs=2.0)


def test_replay_faster() -> None:
    law = ARRIVALS["replay"].model_validate({"kind": "replay", "times": ["1 s", "2 s", "4 s"]})
    assert law.scaled(2.0).times(stream(1, "arrivals"), None, None, Path).tolist() == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    "law",
    [
        *({"kind": kind, "rate": 0} for kind in ("constant", "uniform", "normal", "poisson", "diurnal")),
        {"kind": "gamma", "rate": 0, "cv": 2},
        {"kind": "on_off", "rate": 0, "on_time": "1 s", "off_time": "1 s"},
        {"kind": "mmpp", "states": [{"rate": 0, "dwell": "1 s"}]},
        {"kind": "diurnal", "curve": [["0 s", 0]]},
    ],
)
def test_rate_zero_never_sends(law: dict[str, Any]) -> None:
    assert len(arrival_times(law, 10)) == 0
    assert len(arrival_times(law, duration_s=100.0)) == 0
    table = requests_of(arrivals=law, lengths=FIXED, num_requests=10)
    assert table.num_requests == 0
    assert table.notes == ("only 0 of 10 requests ever arrive",)


def test_constant_is_exact() -> None:
    assert arrival_times({"kind": "constant", "rate": "4 /s"}, 5).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_gap_variation() -> None:
    """Uniform on (0, 2): 1/sqrt(3); exponential: 1; gamma: as asked."""
    assert gap_cv(arrival_times(LAWS["uniform"], NUM)) == pytest.approx(1 / math.sqrt(3), rel=0.01)
    assert gap_cv(arrival_times({"kind": "uniform", "rate": "4 /s", "spread": 0.3}, NUM)) == pytest.approx(
        0.3 / math.sqrt(3), rel=0.01
    )
    assert gap_cv(arrival_times({"kind": "normal", "rate": "4 /s", "cv": 0.25}, NUM)) == pytest.approx(0.25, rel=0.01)
    assert gap_cv(arrival_times(LAWS["poisson"], NUM)) == pytest.approx(1.0, rel=0.01)
    for cv in (0.3, 1.0, 3.0):
        law = {"kind": "gamma", "rate": "4 /s", "cv": cv}
        assert gap_cv(arrival_times(law, NUM)) == pytest.approx(cv, rel=0.03)


def test_poisson_dispersion() -> None:
    times_s = arrival_times(LAWS["poisson"], NUM)
    assert dispersion(times_s, 1.0) == pytest.approx(1.0, abs=0.02)
    assert dispersion(times_s, 50.0) == pytest.approx(1.0, abs=0.15)


def test_two_state_mmpp_dispersion() -> None:
    """Limit of variance / mean of the counts: 1 + 2 (r1 - r2)^2 d1^2 d2^2 / ((d1 + d2)^2 (r1 d1 + r2 d2)).

    Source: Fischer and Meier-Hellstern (1993), index of dispersion of the two-state MMPP, with dwell times d = 1/sigma.
    """
    for law, r1, r2, d1, d2 in (
        (LAWS["mmpp"], 10.0, 1.0, 2.0, 4.0),
        (LAWS["on_off"], 12.0, 0.0, 1.0, 2.0),
    ):
        limit = 1 + 2 * (r1 - r2) ** 2 * d1**2 * d2**2 / ((d1 + d2) ** 2 * (r1 * d1 + r2 * d2))
        assert dispersion(arrival_times(law, 1_000_000), 200.0) == pytest.approx(limit, rel=0.12)


def test_general_chain_keeps_its_shares_of_time() -> None:
    """A chain 0 -> 1 or 2, 1 -> 0, 2 -> 0: visits 1/2, 1/8, 3/8; time shares by dwell 1, 4, 2 s."""
    law = {
        "kind": "mmpp",
        "states": [
            {"rate": "1 /s", "dwell": "1 s"},
            {"rate": "2 /s", "dwell": "4 s"},
            {"rate": "8 /s", "dwell": "2 s"},
        ],
        "transitions": [[0, 0.25, 0.75], [1, 0, 0], [1, 0, 0]],
    }
    mmpp = ARRIVALS["mmpp"].model_validate(law)
    shares = np.array([0.5 * 1, 0.125 * 4, 0.375 * 2])
    assert mmpp.mean_rate_per_s == pytest.approx(float(shares / shares.sum() @ [1.0, 2.0, 8.0]))
    times_s = arrival_times(law, NUM)
    assert NUM / times_s[-1] == pytest.approx(mmpp.mean_rate_per_s, rel=0.02)


def test_diurnal_follows_its_curve() -> None:
    law = {"kind": "diurnal", "period": "100 s", "curve": [["0 s", "1 /s"], ["25 s", "9 /s"], ["75 s", "1 /s"]]}
    diurnal = ARRIVALS["diurnal"].model_validate(law)
    assert diurnal.mean_rate_per_s == pytest.approx((25 * 5 + 50 * 5 + 25 * 1) / 100)
    times_s = arrival_times(law, NUM)
    by_phase = np.bincount((times_s % 100.0 // 25.0).astype(np.int64)) / len(times_s)
    assert by_phase == pytest.approx(np.array([125, 175, 75, 25]) / 400, abs=0.005)


def test_cosine_peaks_where_asked() -> None:
    law = LAWS["diurnal"] | {"peak_at": "30 s", "start_at": "10 s"}
    phase_s = arrival_times(law, NUM) % 100.0
    vector = np.exp(2j * np.pi * phase_s / 100.0).mean()
    assert np.angle(vector) * 100.0 / (2 * np.pi) == pytest.approx(20.0, abs=0.5)
    assert 2 * abs(vector) == pytest.approx(0.8, abs=0.02)


def test_replay_of_times() -> None:
    table = requests_of(arrivals={"kind": "replay", "times": ["1 s", "1 s", "2.5 s"]}, lengths=FIXED)
    assert table.arrival_s.tolist() == [1.0, 1.0, 2.5]


@pytest.mark.parametrize(
    ("law", "reason"),
    [
        ({"kind": "replay"}, "needs either times or trace"),
        ({"kind": "replay", "times": ["2 s", "1 s"]}, "times must ascend"),
        ({"kind": "gamma", "rate": "1 /s"}, "cv"),
        ({"kind": "poisson", "rate": "-1 /s"}, "rate"),
        ({"kind": "poisson", "rate": "1e-300 /s"}, "at least 1e-09 /s"),
        ({"kind": "diurnal"}, "either rate"),
        ({"kind": "diurnal", "curve": [["1 s", "1 /s"], ["1 s", "2 /s"]]}, "must ascend"),
        ({"kind": "diurnal", "period": "10 s", "curve": [["10 s", "1 /s"]]}, "one period"),
        ({"kind": "mmpp", "states": []}, "states"),
        ({"kind": "mmpp", "states": [{"rate": "1 /s", "dwell": "0 s"}]}, "dwell"),
        ({"kind": "mmpp", "states": [{"rate": "1 /s", "dwell": "1 s"}], "transitions": [[0.5]]}, "sum to 1"),
        (
            {"kind": "mmpp", "states": [{"rate": "1 /s", "dwell": "1 s"}] * 2, "transitions": [[1, 0], [0, 1]]},
            "never reach each other",
        ),
    ],
)
def test_senseless_laws_are_refused(law: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ARRIVALS[law["kind"]].model_validate(law)
