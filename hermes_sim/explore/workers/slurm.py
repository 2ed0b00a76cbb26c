"""The jobs of SLURM that a Dask cluster is made of: options from a small YAML file or as key=value."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.schema import Bytes, Description, PositiveInt
from hermes_sim.scenario.document import Document, Origin
from hermes_sim.scenario.validate import validate
from hermes_sim.scenario.yaml_reader import parse_value, read_yaml

OPTION = "--slurm"


class Slurm(Description):
    """What each job asks for, and how many workers run in all of them together; a worker is one process on one core."""

    num_workers: PositiveInt
    """In all jobs together; so many jobs are kept in the queue that all have their place."""
    cores: PositiveInt = 1
    """Of a job, each with a worker: `--cpus-per-task`."""
    memory_bytes: Bytes = Field(default=4e9, gt=0.0, alias="memory")
    """Of a job, for all of its workers: `--mem`."""
    walltime: str = Field(default="01:00:00", pattern=r"^(\d+-)?\d+(:\d\d){0,2}$")
    """Of a job, as SLURM writes it: `-t`. A job that ends before the runs do is replaced."""
    queue: str | None = None
    """Partition: `-p`."""
    account: str | None = None
    """`-A`."""
    directives: tuple[str, ...] = ()
    """Further lines of `#SBATCH`, such as `--constraint=icelake`."""
    prologue: tuple[str, ...] = ()
    """Shell commands before a worker starts, such as `module load python`."""
    python: str = sys.executable
    """Of the workers: one that has this hermes-sim."""
    interface: str | None = None
    """Network interface that scheduler and workers talk over, such as `ib0`."""
    local_directory: str | None = None
    """Scratch folder of the workers."""
    log_directory: str | None = None
    """Where the jobs write their output."""

    @property
    def num_jobs(self) -> int:
        return math.ceil(self.num_workers / self.cores)

    def cluster_options(self) -> dict[str, Any]:
        """Arguments of dask_jobqueue.SLURMCluster."""
        return {
            "queue": self.queue,
            "account": self.account,
            "cores": self.cores,
            "processes": self.cores,
            "memory": f"{int(self.memory_bytes)} B",
            "walltime": self.walltime,
            "job_extra_directives": list(self.directives),
            "job_script_prologue": list(self.prologue),
            "python": self.python,
            "interface": self.interface,
            "local_directory": self.local_directory,
            "log_directory": self.log_directory,
            "job_name": "hermes-sim",
            "scheduler_options": {"dashboard": False, "dashboard_address": ":0"},
        }


def slurm_of(options: Sequence[str]) -> Slurm:
    """From the values of `--slurm`: a YAML file, KEY=VALUE, or both, the later ones first to be believed.

    Several KEY=VALUE may stand in one, with commas between. Raises ConfigError.
    """
    document = Document(OPTION, None, {}, {})
    for option in options:
        if "=" not in option:
            read = read_yaml(Path(option))
            document = Document(read.file, read.path, document.data | read.data, document.origins | read.origins)
            continue
        for part in option.split(","):
            key, equals, value = part.partition("=")
            if not equals:
                message = "needs KEY=VALUE with commas between, or a file"
                raise ConfigError([Problem(f"{OPTION} {option}", None, "", message)])
            document.data[key.strip()] = parse_value(value, f"{OPTION} {part}")
            document.origins[(key.strip(),)] = Origin(f"{OPTION} {part}", None)
    return validate(Slurm, document)
