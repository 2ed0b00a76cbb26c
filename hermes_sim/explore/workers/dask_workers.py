"""Workers of a Dask cluster: one that runs already, or one in jobs of SLURM.

Dask gives a task whose worker is lost to another one; a task that loses several workers ends as lost. Descriptions that
many items share, such as devices with their tables, are sent once.
"""

from __future__ import annotations

import hashlib
import pickle
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError
from importlib import import_module
from io import BytesIO
from pathlib import Path
from queue import Empty
from typing import Any, Final

from hermes_sim import __version__
from hermes_sim.core.errors import HermesError
from hermes_sim.explore.run_key import program_hash
from hermes_sim.explore.workers.dask_task import Plugin, Setup, WorkerRefused, load_part, program_here, run_task
from hermes_sim.explore.workers.slurm import Slurm
from hermes_sim.explore.workers.workers import End, Workers
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.link import Link
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.plugins import loaded_plugins, plugins_hash
from hermes_sim.scenario.scenario import Scenario

CONNECT_S: Final = 15.0
WORKERS_S: Final = 60.0
"""How long a scheduler that runs already may be without a worker."""
SECONDS_BETWEEN_COUNTS: Final = 1.0
PARTS: Final = (Device, Link, ModelArchitecture)
"""Sent apart from the items that hold them."""
NUM_KEPT_PARTS: Final = 512
INSTALL: Final = "needs Dask: pip install 'hermes-sim[explore]'"


class DaskWorkers(Workers):
    """Workers of a cluster, as many as it has at the moment."""

    def __init__(self, client: Any, jobs: int | None = None, cluster: Any = None) -> None:
        """jobs: items at once at most. cluster: ended with the workers."""
        distributed = _dask()
        self._client, self._cluster, self._jobs = client, cluster, jobs
        self._setup = Setup(program_hash(), __version__, _plugins(), plugins_hash())
        self._warm: tuple[str, bytes] | None = None
        """A scenario that new workers compile for; pickled twice, for it may need the plug-ins to be read."""
        self._parts = Parts()
        self._sent: dict[str, Any] = {}
        self._completed: Any = distributed.as_completed(with_results=True, raise_errors=False, loop=client.loop)
        self._begun: dict[str, tuple[int, Any]] = {}
        self._num = (0, -SECONDS_BETWEEN_COUNTS)

    @classmethod
    def at(cls, address: str, jobs: int | None = None) -> DaskWorkers:
        """Of the scheduler at `tcp://HOST:PORT`. Raises HermesError where there is none, or none of its workers can
        run this program."""
        client_of = _dask("--scheduler").Client
        try:
            # a client of an address that cannot be one is half made, and takes half a minute to go
            import_module("distributed.comm").get_address_host_port(address)
            client = client_of(address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise HermesError(f"--scheduler {address}: no Dask scheduler answers there ({error})") from None
        try:
            client.wait_for_workers(1, timeout=WORKERS_S)
            workers = cls(client, jobs)
            workers.check()
        except TimeoutError:
            client.close()
            raise HermesError(f"--scheduler {address}: has no workers (dask worker {address} starts one)") from None
        except BaseException:
            client.close()
            raise
        return workers

    @classmethod
    def on_slurm(cls, slurm: Slurm, jobs: int | None = None) -> DaskWorkers:
        """In jobs of SLURM, which are asked for here, and cancelled at the end. Raises HermesError without SLURM."""
        client_of = _dask("--slurm").Client
        if shutil.which("sbatch") is None:
            raise HermesError(
                "--slurm: there is no `sbatch` here; jobs are submitted where SLURM is, or --scheduler used"
            )
        cluster = slurm_cluster(slurm)
        try:
            cluster.adapt(minimum_jobs=slurm.num_jobs, maximum_jobs=slurm.num_jobs)  # replaces jobs whose time is over
            return cls(client_of(cluster, set_as_default=False), jobs, cluster)
        except BaseException:
            cluster.close()
            raise

    def check(self) -> None:
        """Raises HermesError if a worker has another program."""
        answers = self._client.run(program_here, self._setup, on_error="return")
        for address, answer in answers.items():
            if isinstance(answer, ModuleNotFoundError):
                raise HermesError(f"the worker at {address} cannot run hermes-sim: {answer}")
            if isinstance(answer, WorkerRefused):
                raise HermesError(f"the worker at {address} {answer}")
            if isinstance(answer, Exception):
                raise HermesError(f"the worker at {address} failed: {type(answer).__name__}: {answer}")

    @property
    def num(self) -> int:
        """Processes of the cluster, as they were a moment ago; at least 1, for who waits for the first."""
        number, counted_s = self._num
        if time.monotonic() - counted_s > SECONDS_BETWEEN_COUNTS:
            number = len(self._client.scheduler_info(n_workers=-1)["workers"])
            self._num = (number, time.monotonic())
        return max(1, number if self._jobs is None else min(number, self._jobs))

    @property
    def num_begun(self) -> int:
        return len(self._begun)

    def prepare(self, scenario: Scenario) -> None:
        if self._warm is None:
            self._warm = _hashed(pickle.dumps(scenario, pickle.HIGHEST_PROTOCOL))

    def begin(self, ticket: int, function: Callable[[Any], Any], item: Any, key: str = "") -> None:
        text, parts = self._parts.apart(item)
        if self._warm is not None:
            parts |= dict([self._warm])
        name = f"hermes-{function.__name__}-{key or hashlib.sha256(text).hexdigest()[:16]}"
        if name in self._begun:
            name = f"{name}-{ticket}"  # equal work that the caller wants twice
        futures = [self._part(hash_, part) for hash_, part in parts.items()]
        future = self._client.submit(
            run_task, self._setup, self._warm and self._warm[0], function, text, tuple(parts), *futures, key=name
        )
        self._begun[name] = (ticket, future)
        self._completed.add(future)

    def _part(self, hash_: str, part: bytes) -> Any:
        """A task that gives the part: it can be made again when the worker that has it is lost."""
        if hash_ not in self._sent:
            self._sent[hash_] = self._client.submit(load_part, part, key=f"hermes-part-{hash_}")
        return self._sent[hash_]

    def wait(self) -> list[End]:
        """Also when workers have come that have nothing to do."""
        ends: list[End] = []
        while not ends:
            try:
                found = [self._completed.queue.get(timeout=SECONDS_BETWEEN_COUNTS)]
            except Empty:
                if self.has_room:
                    return []
                continue
            found += self._completed.next_batch(block=False)
            for future, result in found:
                ticket, _ = self._begun.pop(future.key, (None, None))
                if ticket is not None:  # not one that was given up
                    ends.append(self._end(ticket, future.status, result))
        return ends

    def _end(self, ticket: int, status: str, result: Any) -> End:
        if status == "finished":
            return End(ticket, "done", result)
        if status in ("cancelled", "lost") or isinstance(result, CancelledError):
            raise HermesError("the Dask scheduler has gone, or has forgotten the runs; what is done is kept")
        _, error, _ = result
        if type(error).__name__ == "KilledWorker":
            died = f"{error.allowed_failures + 1} workers ended while they ran it"
            return End(ticket, "lost", f"{died} (or ran out of memory): not tried again")
        if isinstance(error, WorkerRefused):
            raise HermesError(f"a worker of the cluster {error}")
        return End(ticket, "failed", error)

    def abandon(self) -> None:
        if self._begun:
            self._client.cancel([future for _, future in self._begun.values()], force=False)
            self._begun.clear()
        self._completed.clear()

    def close(self) -> None:
        super().close()
        self._sent.clear()
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


def slurm_cluster(slurm: Slurm) -> Any:
    """A Dask cluster whose workers are jobs of SLURM; none is submitted yet. Raises HermesError."""
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError:
        raise HermesError(f"--slurm {INSTALL}") from None
    return SLURMCluster(**slurm.cluster_options())


def _dask(option: str = "a cluster") -> Any:
    """The package. Raises HermesError where it is not installed."""
    try:
        return import_module("distributed")
    except ImportError:
        raise HermesError(f"{option} {INSTALL}") from None


def _plugins() -> tuple[Plugin, ...]:
    """Those loaded here; a module that is a single file travels with its text."""
    found = []
    for name, module in loaded_plugins().items():
        is_file = "." not in module.__name__ and not hasattr(module, "__path__") and module.__file__
        source = Path(str(module.__file__)).read_text(encoding="utf-8") if is_file else None
        found.append(Plugin(name, module.__name__, source))
    return tuple(found)


class Parts:
    """Pickles items without the large descriptions in them, each of which is pickled once for all."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, tuple[Any, str, bytes]] = OrderedDict()
        """By id; the object is held so that the id stays its own."""

    def apart(self, item: Any) -> tuple[bytes, dict[str, bytes]]:
        """(item without its parts, hash -> pickled part)."""
        found: dict[str, bytes] = {}

        def name_of(value: Any) -> str | None:
            if not isinstance(value, PARTS):
                return None
            _, hash_, part = self._of(value)
            found[hash_] = part
            return hash_

        text = BytesIO()
        pickler = pickle.Pickler(text, pickle.HIGHEST_PROTOCOL)
        pickler.persistent_id = name_of  # type: ignore[method-assign]
        pickler.dump(item)
        return text.getvalue(), found

    def _of(self, value: Any) -> tuple[Any, str, bytes]:
        known = self._known.get(id(value))
        if known is None:
            known = self._known[id(value)] = (value, *_hashed(value))
            if len(self._known) > NUM_KEPT_PARTS:
                self._known.popitem(last=False)
        return known


def _hashed(value: Any) -> tuple[str, bytes]:
    part = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return hashlib.sha256(part).hexdigest()[:16], part
