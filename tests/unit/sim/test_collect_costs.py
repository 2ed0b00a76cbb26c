"""Money and carbon: by hand for one engine, and nothing left over whatever the prices and the hours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim import Results, simulate
from hermes_sim.core.errors import ConfigError
from hermes_sim.hardware.ownership import Ownership
from hermes_sim.scenario.grid import CarbonByHour, GridIntensity
from hermes_sim.scenario.library import find
from hermes_sim.scenario.yaml_reader import read_yaml
from tests import scenarios as s

OWNED = {"capital": "17532 USD", "lifetime": "4 y"}  # 50 cents an hour


def owned_device(**changes: Any) -> dict[str, Any]:
    data = dict(read_yaml(find("device", "a100_sxm_80gb")).data)
    del data["price"]
    data["sources"] = {**data["sources"], "ownership": data["sources"]["price"]}
    return {**data, "name": "own_a100", "aliases": [], "ownership": OWNED, **changes}


def run(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, **of_cluster: Any) -> Results:
    import yaml

    (tmp_path / "own_a100.yaml").write_text(yaml.safe_dump(owned_device()), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    cluster = s.cluster(s.llm(replicas=2), s.workers(["embed", "retrieve"], num_workers=2))
    cluster["nodes"][0]["devices"]["gpu"]["profile"] = "own_a100"
    workload = s.workload(*s.RAG, traffic=s.traffic(rate="20 /s", num_requests=60))
    return simulate({**cluster, **of_cluster}, workload)


def test_capital_over_its_lifetime() -> None:
    assert Ownership.model_validate(OWNED).usd_per_h == pytest.approx(0.5)
    with_upkeep = Ownership.model_validate({**OWNED, "upkeep_frac_per_year": 0.05})
    assert with_upkeep.usd_per_h == pytest.approx(0.5 + 0.05 * 17532 / 8766)


def test_owned_devices_pay_capital_and_electricity(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    results = run(tmp_path, monkeypatch, electricity="0.36 USD/kWh", pue=1.25)
    engines, requests = results.engines.set_index("engine"), results.requests
    for name in ("llm[0]", "llm[1]"):
        electricity_usd = engines.loc[name, "energy_j"] * 1.25 * 0.36 / 3.6e6
        assert engines.loc[name, "electricity_usd"] == pytest.approx(electricity_usd, rel=1e-12)
        assert engines.loc[name, "cost_usd"] == pytest.approx(0.5 * results.duration_s / 3600 + electricity_usd)
    rented = engines[engines["kind"] == "batch"]
    assert (rented["electricity_usd"] == 0.0).all()
    assert (rented["cost_usd"] > 0.0).all()
    assert requests["cost_usd"].sum() == pytest.approx(engines["cost_usd"].sum(), rel=1e-9)
    assert "of it electricity" in repr(results)


def test_carbon_of_a_steady_grid_is_energy_times_intensity(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    results = run(tmp_path, monkeypatch, carbon="360 g/kWh", pue=1.25)
    requests = results.requests
    joules = requests[["energy_j", "idle_energy_j", "link_energy_j"]].sum(axis=1)
    np.testing.assert_allclose(requests["carbon_g"], joules * 1.25 * 360 / 3.6e6, rtol=1e-12)
    total_g = results.engines["carbon_g"].sum() + results.links["carbon_g"].sum()
    assert requests["carbon_g"].sum() == pytest.approx(total_g, rel=1e-9)
    assert results.summary["energy_and_cost"]["carbon_g_per_kwh"] == pytest.approx(360.0)


def test_carbon_by_hour_adds_up(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour's change of the grid in the middle of the run, which is shorter than two hours."""
    steady = run(tmp_path, monkeypatch, carbon="360 g/kWh")
    start_hour = 1.0 - 0.5 * steady.duration_s / 3600  # the hour strikes in the middle
    hours = ["100 g/kWh", "620 g/kWh", *["360 g/kWh"] * 22]
    results = run(tmp_path, monkeypatch, carbon_by_hour={"hours": hours, "start_hour": start_hour})
    np.testing.assert_array_equal(results.requests["energy_j"], steady.requests["energy_j"])
    total_g = results.engines["carbon_g"].sum() + results.links["carbon_g"].sum()
    assert results.requests["carbon_g"].sum() == pytest.approx(total_g, rel=1e-9)
    first, last = steady.requests["finish_s"].idxmin(), steady.requests["finish_s"].idxmax()
    assert results.requests["carbon_g"][first] < 0.7 * steady.requests["carbon_g"][first]
    assert results.requests["carbon_g"][last] > steady.requests["carbon_g"][last]
    assert 100 < results.summary["energy_and_cost"]["carbon_g_per_kwh"] < 620
    flat = run(tmp_path, monkeypatch, carbon_by_hour={"hours": ["360 g/kWh"] * 24})
    np.testing.assert_allclose(flat.requests["carbon_g"], steady.requests["carbon_g"], rtol=1e-9)


def test_mean_intensity_over_hours_and_days() -> None:
    hours = [f"{100 + hour} g/kWh" for hour in range(24)]
    grid = GridIntensity(0.0, CarbonByHour.model_validate({"hours": hours, "start_hour": 22.5}))
    start_s, end_s = np.array([0.0, 0.0, 900.0, 0.0]), np.array([3600.0, 86400.0, 900.0, 3 * 3600.0])
    # half an hour each of 22 and 23; a day; a moment; half of 22, 23, 0, half of 1
    expected = [122.5, 111.5, 122.0, (0.5 * 122 + 123 + 100 + 0.5 * 101) / 3]
    np.testing.assert_allclose(grid.mean_g_per_kwh(start_s, end_s), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"price": "2 USD/h"}, "either a price"),
        ({"ownership": None}, "either a price"),
        ({"ownership": {"capital": "10 g", "lifetime": "4 y"}}, "not a unit of amount of money"),
        ({"ownership": {"capital": "10 kUSD", "lifetime": 0}}, "greater than 0"),
    ],
)
def test_prices_that_are_refused(changes: dict[str, Any], message: str) -> None:
    from hermes_sim.hardware.device import Device

    with pytest.raises(ValueError, match=message):
        Device.model_validate(owned_device(**changes))


def test_a_day_has_24_hours(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="carbon_by_hour"):
        run(tmp_path, monkeypatch, carbon_by_hour={"hours": ["100 g/kWh"] * 12})
