"""A name finds one file: here, beside the naming file, in the library."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hermes_sim.scenario import library
from hermes_sim.scenario.library import NotFound, entries, find, guess_kind, library_root
from tests.unit.scenario.files import CLUSTER, WORKLOAD, Folder


@pytest.mark.parametrize(
    ("kind", "name", "file"),
    [
        ("device", "a100_sxm_80gb", "hardware_profiles/devices/a100_sxm_80gb.yaml"),
        ("device", "a100_sxm_80gb.yaml", "hardware_profiles/devices/a100_sxm_80gb.yaml"),
        ("device", "NVIDIA A100-SXM4-80GB", "hardware_profiles/devices/a100_sxm_80gb.yaml"),
        ("device", "nvidia a100-sxm4-80gb", "hardware_profiles/devices/a100_sxm_80gb.yaml"),
        ("link", "nvlink3", "hardware_profiles/links/nvlink3.yaml"),
        ("cluster", "a100x8.yaml", "hardware_profiles/clusters/a100x8.yaml"),
        ("model", "meta-llama/Meta-Llama-3-70B", "workloads/models/llama_3_70b.yaml"),
        ("model", "META-LLAMA/meta-llama-3-70b", "workloads/models/llama_3_70b.yaml"),
        ("workload", "rag", "workloads/rag.yaml"),
        ("pipeline", "rag", "workloads/pipelines/rag.yaml"),
    ],
)
def test_shipped(folder: Folder, kind: library.FileKind, name: str, file: str) -> None:
    assert find(kind, name) == library_root() / file


def test_working_directory_then_beside_then_library(folder: Folder) -> None:
    beside = folder.write("sub/rag.yaml", WORKLOAD)
    naming = folder.path / "sub" / "cluster.yaml"
    assert find("workload", "rag", naming) == beside
    here = folder.write("rag.yaml", WORKLOAD)
    assert find("workload", "rag", naming).resolve() == here
    assert find("workload", "sub/rag.yaml").resolve() == beside
    assert find("workload", "sub/rag").resolve() == beside
    assert find("workload", str(beside)) == beside


def test_a_file_of_another_kind_is_passed_over(folder: Folder) -> None:
    """A workload `rag.yaml` that names the pipeline `rag` does not mean itself."""
    naming = folder.write("rag.yaml", WORKLOAD)
    assert find("pipeline", "rag", naming) == library_root() / "workloads/pipelines/rag.yaml"
    folder.write("mine.yaml", CLUSTER)
    with pytest.raises(NotFound, match=r"^'mine.yaml' is a cluster file, not a workload file$"):
        find("workload", "mine.yaml")


def test_a_suffix_is_part_of_a_name_only_if_it_is_yaml(folder: Folder) -> None:
    file = folder.write("llama-3.1-8b.yaml", "name: x\n")
    assert find("model", "llama-3.1-8b").resolve() == file
    folder.write("notes", "name: x\n")
    with pytest.raises(NotFound):
        find("model", "notes")


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a" * 5000, "\0", "no/such/file", "~", "*", "C:\\x"])
def test_strange_names_are_not_found(folder: Folder, name: str) -> None:
    with pytest.raises(NotFound, match="no model "):
        find("model", name)


@pytest.mark.parametrize("kind", ["device", "link", "model"])
def test_no_name_means_two_files(kind: library.FileKind) -> None:
    known: dict[str, Path] = {}
    for entry in entries(kind):
        for name in entry.names:
            assert known.setdefault(name.casefold(), entry.path) == entry.path, name


@pytest.mark.parametrize("kind", ["device", "link", "cluster", "model", "workload", "pipeline"])
def test_every_shipped_file_shows_its_kind_and_its_name(kind: library.FileKind) -> None:
    for entry in entries(kind):
        assert entry.name == entry.path.stem
        assert library.guess_kind_of(entry.path) == kind


def test_guess_kind() -> None:
    assert guess_kind({"nodes": [], "name": "x"}) == "cluster"
    assert guess_kind({"name": "x", "stages": []}) == "pipeline"
    assert guess_kind({"name": "x"}) is None


def test_an_index_sees_changed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "hardware_profiles" / "links"
    folder.mkdir(parents=True)
    shutil.copy(library_root() / "hardware_profiles/links/nvlink3.yaml", folder / "nvlink3.yaml")
    monkeypatch.setattr(library, "library_root", lambda: tmp_path)
    assert [entry.name for entry in entries("link")] == ["nvlink3"]
    (folder / "broken.yaml").write_text("a: [", encoding="utf-8")
    (folder / "mine.yaml").write_text("name: mine\naliases: [Mine Too]\n", encoding="utf-8")
    assert [entry.name for entry in entries("link")] == ["mine", "nvlink3"]
    assert find("link", "mine too") == folder / "mine.yaml"


def test_the_wheel_has_a_library_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "hermes_sim"
    (package / "scenario").mkdir(parents=True)
    monkeypatch.setattr(library, "__file__", str(package / "scenario" / "library.py"))
    assert library_root() == package / "_library"
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "hardware_profiles").mkdir()
    assert library_root() == tmp_path
