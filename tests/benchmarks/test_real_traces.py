"""The runs over public traces say what they miss."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import real_traces
from hermes_sim import HermesError


def test_a_missing_trace(tmp_path: Path) -> None:
    with pytest.raises(HermesError, match=r"holds no AzureLLMInferenceTrace_conv\.csv, plain or gzip"):
        real_traces.RUNS[0].run(tmp_path)
