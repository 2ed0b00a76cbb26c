"""What `list`, `show` and `schema` say."""

from __future__ import annotations

import json

import pytest

from hermes_sim.core.errors import ConfigError
from hermes_sim.core.schema import SOURCE_KINDS
from hermes_sim.hardware.device import Device
from hermes_sim.routing import ROUTERS
from hermes_sim.scenario.describe import KINDS, json_schema, list_names, show
from hermes_sim.scenario.files import SCHEMAS, read_description
from hermes_sim.scenario.library import find
from hermes_sim.scenario.reference import reference_markdown
from hermes_sim.scenario.yaml_reader import parse_document
from hermes_sim.stages import STAGES
from tests.conftest import REPOSITORY
from tests.unit.scenario.files import Folder


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_listed_with_a_title_and_can_be_shown(kind: str) -> None:
    rows = list_names(kind)
    assert [name for name, _, _ in rows] == list(dict.fromkeys(name for name, _, _ in rows))
    for _, title, evidence in rows:
        assert title
        assert set(evidence.values()) <= set(SOURCE_KINDS)
    name = rows[0][0]
    assert parse_document(show(kind, name), "shown").data


def test_hardware_shows_what_its_speed_rests_on() -> None:
    devices = {name: evidence for name, _, evidence in list_names("devices")}
    assert devices["a100_sxm_80gb"] == {"peak": "datasheet", "bandwidth": "datasheet", "kernels": "fitted"}
    assert devices["rtx_4090"]["kernels"] == "fitted"
    assert devices["rtx_3090"]["kernels"] == "estimate", "efficiencies of its class"
    assert list_names("device") == list_names("devices")
    clusters = {name: evidence for name, _, evidence in list_names("clusters")}
    assert clusters["a100x8"] == {"LLM kernels": "fitted"}, "its processors' kernels are estimates"
    assert clusters["mi300x8"] == {"LLM kernels": "estimate"}
    links = {name: evidence for name, _, evidence in list_names("links")}
    assert links["pcie4_x16"] == {"bandwidth": "datasheet", "latency": "estimate", "efficiency": "estimate"}


def test_routing_policies_say_what_they_do() -> None:
    titles = {name: title for name, title, _ in list_names("policies")}
    assert set(ROUTERS) <= titles.keys()
    assert titles["least_outstanding_requests"] == "routing: Fewest requests inside, waiting or running."
    assert titles["round_robin"] == "routing: In turn."


def test_a_file_is_shown_in_its_own_words_with_defaults_filled_in(folder: Folder) -> None:
    text = show("device", "A100")
    assert text.startswith("# ")
    path, *sources = text.splitlines()[:3]
    assert path.endswith("devices/a100_sxm_80gb.yaml")
    assert sources == [
        "# sources: peak datasheet, bandwidth datasheet, kernels fitted",
        "# weakest source of any number: estimate",
    ]
    data = parse_document(text, "shown").data
    assert data["memory"] == {"kind": "hbm2e", "capacity": "81920 MiB", "bandwidth": "2039 GB/s"}
    assert data["power"]["memory_bound_frac"] == 0.8
    assert data["sources"]["peak"]["kind"] == "datasheet"
    shipped = read_description(Device, find("device", "A100"))
    assert shipped.residuals is not None
    mine = read_description(Device, folder.write("mine.yaml", text))
    assert mine == shipped.model_copy(update={"residuals": None}), "its tables are in a file of their own"


def test_fitted_coefficients_are_left_out_for_a_reader() -> None:
    """A page for a person; those that were judged are few, and stay."""
    text = show("device", "h100_sxm", coefficients=False)
    assert len(text.splitlines()) < 120 < len(show("device", "h100_sxm").splitlines())
    assert "# left out: the coefficients of gemm, " in text
    assert set(parse_document(text, "shown").data["cost_model"]) >= {"kernel_launch", "source"}
    assert show("device", "epyc_7742", coefficients=False) == show("device", "epyc_7742")


def test_a_policy_and_a_stage_are_shown_with_their_keys() -> None:
    assert "max_num_seqs: 256" in show("policies", "continuous").splitlines()
    assert "index:  # required" in show("stage", "retrieve").splitlines()
    assert show("policy", "heavy_light").splitlines()[2:4] == [
        "kind: heavy_light",
        "heavy_threshold_tokens: 2048  # heavy_light: requests with at least so many prompt tokens are heavy.",
    ]


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (
            "devices",
            "a1000",
            "no device 'a1000' here or in the library. Did you mean 'a100'? (hermes-sim list devices)",
        ),
        (
            "stages",
            "retreive",
            f"'retreive' is not a stage kind ({', '.join(sorted(STAGES))}). Did you mean 'retrieve'?",
        ),
        (
            "device_files",
            "x",
            "'device_files' is not one of: devices, links, clusters, models, encoders, diffusion_models, "
            "workloads, pipelines, classes, "
            "residuals, sweeps, studies, searches, policies, stages, presets. Did you mean 'devices'?",
        ),
    ],
)
def test_misses_name_what_is_near(kind: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        show(kind, name)
    assert str(caught.value) == message


def test_json_schema_has_units_defaults_and_meanings() -> None:
    schema = json_schema("cluster")
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    engine = schema["$defs"]["Engine"]
    assert engine["required"] == ["name", "serves", "placement"]
    assert engine["properties"]["serves"]["description"] == "Stage kinds."
    per_step = schema["$defs"]["Host"]["properties"]["per_step"]
    assert (per_step["default"], per_step["examples"]) == ("0.0002 s", ["50 ms"])
    assert schema["$defs"]["DeviceGroup"]["properties"]["count"]["minimum"] == 1
    assert json_schema("workload")["required"] == ["name", "traffic"]


@pytest.mark.parametrize("kind", [*SCHEMAS, "scenario", "retrieve", "chunked_prefill", "clusters"])
def test_json_schemas_are_closed_and_without_foreign_words(kind: str) -> None:
    schema = json_schema(kind)
    assert schema["additionalProperties"] is False
    text = json.dumps(schema)
    assert not any(f'"{word}": ' in text for word in ("ge", "gt", "le"))


def test_no_such_schema() -> None:
    with pytest.raises(ConfigError, match="there is no schema 'clustr'"):
        json_schema("clustr")


@pytest.fixture(scope="module")
def reference() -> str:
    return reference_markdown()


def test_the_file_reference_is_up_to_date(reference: str) -> None:
    """Write it anew with `python -m hermes_sim.scenario.reference`."""
    page = REPOSITORY / "docs" / "file-reference.md"
    assert page.read_text(encoding="utf-8") == reference


def test_links_of_the_file_reference_lead_somewhere(reference: str) -> None:
    titles = [line.removeprefix("### ") for line in reference.splitlines() if line.startswith("### ")]
    anchors = {"".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_") for title in titles}
    linked = {part.split(")")[0] for part in reference.split("](#")[1:]}
    assert linked <= anchors
    assert len(anchors) == len(titles), "two sections of one name"
