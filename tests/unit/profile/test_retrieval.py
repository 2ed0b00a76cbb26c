"""Measuring vector searches: cases, vectors, the clock of the busiest thread; a short run where FAISS is installed."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread
from time import sleep, thread_time
from typing import Any

import numpy as np
import pytest

from hermes_sim.measured import read_kernels
from hermes_sim.profile import faiss_library, retrieval
from hermes_sim.profile.columns import columns
from hermes_sim.profile.command import main
from hermes_sim.profile.kernels import Outcome
from hermes_sim.profile.retrieval import profile_retrieval
from hermes_sim.profile.retrieval_cases import (
    COLLECTIONS,
    GRAPH_COLLECTIONS,
    LISTS,
    graph_shapes,
    index_shapes,
    settings,
)
from hermes_sim.profile.thread_clock import TASKS, ThreadClock, WallClock
from hermes_sim.profile.vectors import Topics

needs_faiss = pytest.mark.skipif(find_spec("faiss") is None, reason="FAISS is not installed")


def test_cases_are_told_apart_by_their_columns() -> None:
    shapes = [shape for collection in COLLECTIONS for shape in index_shapes(*collection)]
    shapes += [shape for collection in GRAPH_COLLECTIONS for shape in graph_shapes(*collection)]
    cases = [(shape, setting) for shape in shapes for setting in settings(shape, (1, 2))]
    keys = {(retrieval.kernel(setting), *retrieval._columns(shape, setting).items()) for shape, setting in cases}
    assert len(keys) == len(cases)
    assert {shape.kind for shape in shapes} == {"flat", "ivf_flat", "ivf_pq", "hnsw"}
    assert set(retrieval._columns(*cases[0])) <= set(columns("retrieval"))


def test_lists_and_codes_fit_their_vectors() -> None:
    for number, dim in COLLECTIONS:
        for shape in index_shapes(number, dim):
            assert shape.nlist in (0, *LISTS[number])
            assert shape.code_bits == 0 or dim % (shape.code_bytes * 8 // shape.code_bits) == 0


def test_vectors_of_one_topic_lie_together_and_draws_repeat() -> None:
    topics = Topics(32)
    first, again, other = topics.draw(500, 1), topics.draw(500, 1), topics.draw(500, 2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (500, 32)
    assert first.dtype == np.float32
    nearest = np.sort(np.linalg.norm(first[:, None] - topics.centers[None], axis=2), axis=1)[:, 0]
    assert np.median(nearest) < 0.75 * np.sqrt(2 * 32)  # two centres are so far apart


def spin(seconds: float, done: Event) -> None:
    end_s = thread_time() + seconds
    while thread_time() < end_s:
        pass
    done.set()
    sleep(0.02)  # a thread's own figure is up to date when it sleeps


@pytest.mark.skipif(not TASKS.exists(), reason="the system does not tell threads apart")
def test_clock_of_the_busiest_thread() -> None:
    clock = ThreadClock()
    done = Event()
    clock.start()
    worker = Thread(target=spin, args=(0.05, done))
    worker.start()
    done.wait()
    sleep(0.01)
    elapsed_s = clock.elapsed_s()
    worker.join()
    assert 0.04 <= elapsed_s < 0.2


def test_clock_of_the_wall() -> None:
    clock = WallClock()
    clock.start()
    sleep(0.01)
    assert 0.01 <= clock.elapsed_s() < 10.0


def test_without_faiss_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(faiss_library, "import_module", missing)
    assert main(["retrieval", "--out", str(tmp_path / "tables")]) == 2
    assert "needs FAISS, which is not installed: pip install 'hermes-sim[profile]'" in capsys.readouterr().err


@needs_faiss
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_short_run_writes_the_public_format_and_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("hermes_sim.profile.retrieval_cases.LISTS", {2000: (8, 16)})
    monkeypatch.setattr("hermes_sim.profile.retrieval_cases.PROBES", (1, 4))
    monkeypatch.setattr("hermes_sim.profile.retrieval_cases.THREADED_PROBES", 4)
    monkeypatch.setattr(retrieval, "REPEATS_BUDGET_S", 0.0)

    def measure() -> Outcome:
        return profile_retrieval(
            tmp_path, budget_s=60.0, name="my_cpu", clock="cpu", collections=((2000, 32),), graphs=((500, 16),)
        )

    first = measure()
    table = read_kernels(tmp_path)["retrieval"]
    assert first.num_measured == len(table)
    assert {"flat", "ivf_flat", "ivf_pq", "hnsw"} == set(table["index"])
    exact = table[table["index"] == "flat"]
    assert (exact["recall"] > 0.999).all()
    assert (exact["num_distances"] == 2000).all()
    lists = table[table["index"] == "ivf_flat"]
    assert lists.groupby("nprobe")["recall"].mean().is_monotonic_increasing
    page = json.loads((tmp_path / "provenance_retrieval.json").read_text())
    assert page["rows"] == {"retrieval": len(table)}
    again = measure()
    assert again.num_measured == 0
    assert again.num_found == len(table)
