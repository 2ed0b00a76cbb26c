"""docs/models.md shows what the shipped files say."""

from __future__ import annotations

from pathlib import Path

from hermes_sim.core.schema import SOURCE_KINDS
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.parameters import (
    kv_bytes_per_token,
    num_active_parameters,
    num_parameters,
    state_bytes_per_sequence,
    weight_bytes,
)
from tests.unit.models.shipped_models import models

NUM_COLUMNS = 9
PAGE = Path(__file__).resolve().parents[3] / "docs" / "models.md"


def billions(count: float) -> str:
    return f"{count / 1e9:.3g} B" if count < 1e9 else f"{count / 1e9:,.1f} B"


def row(model: ModelArchitecture) -> str:
    stored = model.weight_dtype
    if model.quantization is not None:
        stored = f"{model.quantization.weight_dtype} ({', '.join(model.quantization.parts)}), rest {stored}"
    weakest = max((source.kind for source in model.sources.values()), key=SOURCE_KINDS.index)
    cells = (
        f"`{model.name}`",
        billions(num_parameters(model)),
        billions(num_active_parameters(model)),
        stored,
        f"{weight_bytes(model) / 1e9:,.1f} GB",
        f"{kv_bytes_per_token(model):,.0f} B",
        f"{state_bytes_per_sequence(model) / 1e6:,.1f} MB" if model.state_space else "",
        f"{model.max_model_len:,}",
        weakest,
    )
    return f"| {' | '.join(cells)} |"


def test_table_is_the_library() -> None:
    text = PAGE.read_text()
    shown = [line for line in text.splitlines() if line.startswith("| `") and line.count("|") == NUM_COLUMNS + 1]
    assert shown == [row(model) for model in models().values()]


def test_page_says_what_an_import_reads() -> None:
    from hermes_sim.models.families import FAMILIES
    from hermes_sim.models.quantization import METHODS

    text = PAGE.read_text()
    assert all(f"`{family}`" in text for family in FAMILIES)
    assert all(f"`{method}`" in text for method in METHODS)
