"""Collectives in link files: what is read, rendered and replaced."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hermes_sim.calibration.link_file import BLOCK, read_link, render_collectives, replace_collectives
from hermes_sim.calibration.links import check_link
from hermes_sim.core.errors import ConfigError
from hermes_sim.core.shipped import shipped_root

FOLDER = shipped_root() / "hardware_profiles" / "links"
FITTED = sorted(path for path in FOLDER.glob("*.yaml") if BLOCK.pattern().search(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", FITTED, ids=lambda path: path.stem)
def test_a_link_file_is_as_rendered(path: Path, tmp_path: Path) -> None:
    """Writing what a shipped file states changes no character of it."""
    copy = Path(shutil.copy(path, tmp_path / path.name))
    replace_collectives(copy, read_link(path).collectives)
    assert copy.read_text(encoding="utf-8") == path.read_text(encoding="utf-8")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """The numbers, and nothing outside of the block."""
    copy = Path(shutil.copy(FOLDER / "nvlink4.yaml", tmp_path / "nvlink4.yaml"))
    collectives = dict(read_link(FOLDER / "nvlink4.yaml").collectives)
    collectives["nccl"] = {"all_reduce": collectives["nccl"]["all_reduce"].model_copy(update={"small_latency_s": 7e-6})}
    replace_collectives(copy, collectives)
    found = read_link(copy)
    assert found.collectives == collectives
    assert found.sources == read_link(FOLDER / "nvlink4.yaml").sources


@pytest.mark.data
def test_a_link_file_is_as_fitted(data_folder: Path) -> None:
    assert check_link(data_folder, FOLDER, "nvlink3").differences == ()


def test_a_file_without_the_block_is_refused(tmp_path: Path) -> None:
    copy = Path(shutil.copy(FOLDER / "nvlink_c2c.yaml", tmp_path / "plain.yaml"))
    with pytest.raises(ConfigError, match="collectives: no such block"):
        replace_collectives(copy, read_link(FOLDER / "nvlink4.yaml").collectives)
    assert "vllm" in render_collectives(read_link(FOLDER / "nvlink4.yaml").collectives)
