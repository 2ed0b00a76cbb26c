"""Every notebook in a kernel of its own, as a reader runs it: `python -m tests.docs.execute_notebooks [NAME ...]`.

Fails on an error, and on anything a cell writes to stderr: a warning that a reader would see.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.docs.blocks import REPOSITORY

SECONDS_PER_CELL = 600
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def execute(notebook: Path) -> list[str]:
    """What went wrong, a line each."""
    content = nbformat.read(notebook, as_version=4)
    nbformat.validate(content)
    with tempfile.TemporaryDirectory() as folder:
        kernels = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{folder}/kernel")
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(content, km=kernels, timeout=SECONDS_PER_CELL, resources=resources)
        try:
            client.execute(cleanup_kc=True)
        except CellExecutionError as error:
            return [COLOURS.sub("", str(error))]
    outputs = (output for cell in content.cells for output in cell.get("outputs", []))
    return [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]


def main(names: Sequence[str]) -> int:
    """0 if all are clean."""
    num_bad = 0
    for notebook in sorted((REPOSITORY / "notebooks").glob("*.ipynb")):
        if names and notebook.stem not in names:
            continue
        started_s = time.perf_counter()
        problems = execute(notebook)
        num_bad += bool(problems)
        verdict = "failed" if problems else "ok"
        sys.stdout.write(f"{notebook.stem:24} {verdict:6} {time.perf_counter() - started_s:5.1f} s\n")
        sys.stdout.writelines(f"{problem}\n" for problem in problems)
        sys.stdout.flush()
    return 1 if num_bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
