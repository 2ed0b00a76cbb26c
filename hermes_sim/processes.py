"""One function over many items in several processes: results in the order of the items, whoever is ready first.

Where processes can be forked they are: a worker has the modules and the machine code that its parent has loaded,
and the items need not be pickled. Elsewhere workers start anew and load machine code from the disk cache.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from hermes_sim.core.errors import SimulationError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

Report = Callable[..., None]
"""What an item's function calls to tell its parent how far it is."""

_DONE, _FAILED, _REPORT = range(3)


class WorkerEnded(SimulationError):
    """A worker process ended by itself: killed for its memory, or by a fault in a library."""

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index
        """The item that it was at."""


def can_fork() -> bool:
    """Whether workers are copies of this process. Not on macOS, whose libraries do not outlive a fork."""
    return sys.platform != "darwin" and "fork" in multiprocessing.get_all_start_methods()


def num_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def map_in_processes(
    function: Callable[[Item, Report], Outcome],
    items: Sequence[Item],
    *,
    jobs: int,
    on_report: Callable[..., None] | None = None,
) -> Iterator[Outcome]:
    """`function(item, report)` of every item, at most `jobs` of them at once, in the order of the items.

    What a function passes to `report` reaches `on_report(index, ...)` here. An exception is raised when it is its
    item's turn; no item after it is begun. Workers ignore Ctrl-C: they are ended when this generator is closed or
    fails. Raises WorkerEnded if a worker process dies.
    """
    pool = _Pool(function, items, num_workers=min(jobs, len(items)))
    try:
        pool.begin()
        yield from pool.outcomes(on_report)
    finally:
        pool.end()


def begin_in_process(function: Callable[[Item, Report], Outcome], item: Item) -> Callable[[], Outcome]:
    """Begins `function(item, report)` in a process of its own, and returns what waits for its outcome.

    An exception is raised there. Raises WorkerEnded if the process dies.
    """
    pool = _Pool(function, [item], num_workers=1)
    pool.begin()

    def outcome() -> Outcome:
        try:
            return next(pool.outcomes(None))
        finally:
            pool.end()

    return outcome


@dataclass(eq=False, slots=True)
class _Worker:
    """A process, our end of its pipe, and the item it is at."""

    process: Any
    connection: Connection
    index: int | None = None


@dataclass(eq=False, slots=True)
class _Pool(Generic[Item, Outcome]):
    function: Callable[[Item, Report], Outcome]
    items: Sequence[Item]
    num_workers: int
    workers: list[_Worker] = field(default_factory=list)
    num_begun: int = 0
    finished: dict[int, tuple[int, Any]] = field(default_factory=dict)
    """Item -> (_DONE, outcome) or (_FAILED, exception), until it is its turn."""

    def begin(self) -> None:
        for _ in range(self.num_workers):
            self._hand_out(self._start())

    def outcomes(self, on_report: Callable[..., None] | None) -> Iterator[Outcome]:
        for index in range(len(self.items)):
            while index not in self.finished:
                self._listen(on_report)
            kind, value = self.finished.pop(index)
            if kind == _FAILED:
                raise value
            yield value

    def _start(self) -> _Worker:
        context: Any = multiprocessing.get_context("fork" if can_fork() else "spawn")
        ours, theirs = context.Pipe()
        not_theirs = [ours, *(worker.connection for worker in self.workers)] if can_fork() else []
        arguments = (theirs, not_theirs, self.function, self.items)
        process = context.Process(target=_work, args=arguments, daemon=True)
        with warnings.catch_warnings():
            # Python warns of any thread while it forks; libraries keep idle ones, and a worker uses none of them
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        theirs.close()
        self.workers.append(_Worker(process, ours))
        return self.workers[-1]

    def _hand_out(self, worker: _Worker) -> None:
        """The next item, unless there is none, or one has failed."""
        worker.index = None
        if self.num_begun < len(self.items) and all(kind == _DONE for kind, _ in self.finished.values()):
            worker.index = self.num_begun
            self.num_begun += 1
            worker.connection.send(worker.index)

    def _listen(self, on_report: Callable[..., None] | None) -> None:
        """Wait for a message of any worker that is at an item."""
        busy = {worker.connection: worker for worker in self.workers if worker.index is not None}
        for connection in wait(list(busy)):
            worker = busy[connection]  # type: ignore[index]
            assert worker.index is not None
            try:
                kind, value = worker.connection.recv()
            except (EOFError, ConnectionError):
                raise WorkerEnded(_death(worker), worker.index) from None
            if kind != _REPORT:
                self.finished[worker.index] = (kind, value)
                self._hand_out(worker)
            elif on_report is not None:
                on_report(worker.index, *value)

    def end(self) -> None:
        for worker in self.workers:
            worker.connection.close()
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join()


def _death(worker: _Worker) -> str:
    worker.process.join()
    status = worker.process.exitcode
    reason = f"signal {-status}" if status < 0 else f"exit status {status}"
    hint = "; memory may have run out: fewer --jobs take less" if status == -signal.SIGKILL else ""
    return f"a worker process ended while it ran item {worker.index} ({reason}){hint}"


def _work(
    connection: Connection,
    not_mine: Sequence[Connection],
    function: Callable[[Any, Report], Any],
    items: Sequence[Any],
) -> None:
    """A worker: does the items it is told to, until its parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for other in not_mine:  # a fork copies them; while one is open somewhere its worker hears no end
        other.close()

    def report(*values: Any) -> None:
        connection.send((_REPORT, values))

    try:
        while True:
            index = connection.recv()
            try:
                message = (_DONE, function(items[index], report))
            except Exception as error:  # to be raised again over there
                message = (_FAILED, _portable(error))
            connection.send(message)
    except (EOFError, ConnectionError):
        return


def _portable(error: Exception) -> Exception:
    """The exception with its traceback as a note; where it cannot be pickled, one that says the same."""
    text = "".join(traceback.format_exception(error))
    error.add_note(f"in a worker process:\n{text}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"in a worker process:\n{text}")
    return error
