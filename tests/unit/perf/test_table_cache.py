"""Cost tables that are filled once for many runs: the same numbers, and each caller's own."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.perf import lowered_operators
from tests.unit.perf.engines import engine, plain_device, tiny_model


def test_tables_are_filled_once_for_equal_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    filled: list[int] = []
    fill = lowered_operators.fill_table

    def counted(*arguments: object) -> None:
        filled.append(1)
        fill(*arguments)

    monkeypatch.setattr(lowered_operators, "fill_table", counted)
    lowered_operators._filled.clear()
    first = engine(tiny_model(), plain_device()).linear
    num_filled = len(filled)
    again = engine(tiny_model(), plain_device()).linear
    assert len(filled) == num_filled
    np.testing.assert_array_equal(first, again)
    again += 1.0
    np.testing.assert_array_equal(first, engine(tiny_model(), plain_device()).linear)
    other = engine(tiny_model(hidden_size=2048), plain_device()).linear
    assert len(filled) > num_filled
    assert not np.array_equal(first, other)
