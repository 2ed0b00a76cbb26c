"""Jobs of SLURM: options, the script of a job, and runs in jobs of an `sbatch` that starts them here."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time
from pathlib import Path

import pytest

from hermes_sim.core.errors import ConfigError, HermesError
from hermes_sim.explore.plan import plan_sweep
from hermes_sim.explore.run_table import DONE
from hermes_sim.explore.runner import run_planned
from hermes_sim.explore.workers.slurm import slurm_of
from hermes_sim.explore.workers.workers import workers_of
from tests.unit.explore.conftest import Box
from tests.unit.explore.studies import study
from tests.unit.test_processes import is_running

pytestmark = pytest.mark.usefixtures("ends_in_time")

OPTIONS = """\
num_workers: 20
cores: 8
memory: 32 GB
walltime: 02:00:00
queue: short
account: hpc1
directives: [--constraint=icelake]
prologue: [module load python/3.11]
"""

SBATCH = """\
#!/bin/bash
# stands for SLURM: the job runs here, in a group of its own
cp "$1" "{folder}/job.sh"
setsid bash "{folder}/job.sh" > "{folder}/job.log" 2>&1 &
echo $! >> "{folder}/jobs"
echo "Submitted batch job $!"
"""


def test_a_file_and_values(tmp_path: Path) -> None:
    path = tmp_path / "slurm.yaml"
    path.write_text(OPTIONS)
    slurm = slurm_of([str(path), "queue=long,cores=5"])
    assert (slurm.queue, slurm.cores, slurm.account, slurm.memory_bytes) == ("long", 5, "hpc1", 32e9)
    assert slurm.num_jobs == 4
    assert slurm_of(["num_workers=3"]).num_jobs == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["queue=short"], "num_workers"),
        (["num_workers=2,wall=3"], "--slurm wall=3 wall: .*unknown"),
        (["num_workers=2,memory=lots"], "--slurm memory=lots memory"),
        (["num_workers=2,walltime=soon"], "--slurm walltime=soon walltime"),
        (["num_workers=2,short"], "needs KEY=VALUE"),
        (["nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_options_are_told(options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        slurm_of(options)


def test_the_script_of_a_job(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    from hermes_sim.explore.workers.dask_workers import slurm_cluster

    (tmp_path / "slurm.yaml").write_text(OPTIONS)
    with slurm_cluster(slurm_of([str(tmp_path / "slurm.yaml")])) as cluster:
        script = cluster.job_script()
    for line in (
        "#SBATCH -p short", "#SBATCH -A hpc1", "#SBATCH --cpus-per-task=8", "#SBATCH --mem=30G",
        "#SBATCH -t 02:00:00", "#SBATCH --constraint=icelake", "module load python/3.11",
    ):  # fmt: skip
        assert line in script.splitlines()
    assert "--nthreads 1" in script
    assert "--nworkers 8" in script
    assert sys.executable in script


def test_no_slurm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(HermesError, match="--slurm: there is no `sbatch` here"):
        workers_of(slurm=slurm_of(["num_workers=2"]))


def test_runs_in_jobs(box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """From the submission to the cancelled jobs."""
    pytest.importorskip("dask_jobqueue")
    folder = tmp_path_factory.mktemp("slurm")
    for name, text in {"sbatch": SBATCH, "scancel": '#!/bin/bash\nkill -- "-$1" || true\n'}.items():
        (folder / name).write_text(text.format(folder=folder) if name == "sbatch" else text)
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    with workers_of(slurm=slurm_of(["num_workers=1,memory=1 GB,interface=lo"])) as workers:
        rows = run_planned(plan_sweep(study()).runs, workers=workers)
    assert [row["status"] for row in rows] == [DONE] * 6
    (job,) = (folder / "jobs").read_text().split()
    deadline = time.monotonic() + 60.0
    while is_running(int(job)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(int(job))
