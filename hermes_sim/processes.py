"""One function over many items in several processes: results in the order of the items, whoever is ready first.

Where processes can be forked they are: a worker has the modules and the machine code that its parent has loaded,
and the items need not be pickled. Elsewhere workers start anew and load machine code from the disk cache.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Literal, TypeVar, cast

from hermes_sim.core.errors import SimulationError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Task = TypeVar("Task")

Report = Callable[..., None]
"""What an item's function calls to tell its parent how far it is."""


class WorkerEnded(SimulationError):
    """A worker process ended by itself: killed for its memory, or by a fault in a library."""

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index
        """The item that it was at."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.index), self.__dict__


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
    do = partial(_item_of, function, items)
    team = Team(do, min(jobs, len(items)))
    try:
        finished: dict[int, tuple[str, Any]] = {}  # item -> ("done", outcome) or ("failed", exception)
        num_begun = 0
        for index in range(len(items)):
            while index not in finished:
                while team.has_room and num_begun < len(items) and all(kind == "done" for kind, _ in finished.values()):
                    team.begin(num_begun, num_begun)
                    num_begun += 1
                for heard in team.listen():
                    if heard.kind == "ended":
                        raise heard.value
                    if heard.kind != "report":
                        finished[heard.ticket] = (heard.kind, heard.value)
                    elif on_report is not None:
                        on_report(heard.ticket, *heard.value)
            kind, value = finished.pop(index)
            if kind == "failed":
                raise value
            yield value
    finally:
        team.end()


def begin_in_process(function: Callable[[Item, Report], Outcome], item: Item) -> Callable[[], Outcome]:
    """Begins `function(item, report)` in a process of its own, and returns what waits for its outcome.

    An exception is raised there. Raises WorkerEnded if the process dies.
    """
    team = Team(partial(_item_of, function, [item]), 1)
    team.begin(0, 0)

    def outcome() -> Outcome:
        try:
            while True:
                for heard in team.listen():
                    if heard.kind == "done":
                        return cast(Outcome, heard.value)
                    if heard.kind != "report":
                        raise heard.value
        finally:
            team.end()

    return outcome


def _item_of(function: Callable[[Item, Report], Outcome], items: Sequence[Item], index: int, report: Report) -> Outcome:
    """Items go to the workers with the fork; only their numbers are sent."""
    return function(items[index], report)


class Garbage:
    """Cycles that runs leave behind, collected at a tenth of the time that the runs take at most.

    Hundreds of runs in one process leave gigabytes of them, and small ones more slowly than they can be looked for.
    """

    SHARE = 0.1

    def __init__(self) -> None:
        self._next_s = 0.0

    def set_apart(self) -> None:
        """What is there now is not looked through any more."""
        gc.collect()
        gc.freeze()

    def collect(self) -> None:
        """After a run."""
        started_s = time.perf_counter()
        if started_s < self._next_s:
            return
        gc.collect()
        ended_s = time.perf_counter()
        self._next_s = ended_s + (ended_s - started_s) / self.SHARE


@dataclass(frozen=True, slots=True)
class Heard:
    """What came from a worker that is at a task."""

    ticket: int
    """Of the task."""
    kind: Literal["done", "failed", "report", "ended"]
    value: Any
    """The outcome, the exception, the tuple of what was reported, or a WorkerEnded."""


@dataclass(eq=False, slots=True)
class _Worker:
    """A process, our end of its pipe, and the task it is at."""

    process: Any
    connection: Connection
    ticket: int | None = None


@dataclass(eq=False, slots=True)
class Team(Generic[Task]):
    """Processes that do one thing with what they are given, each one task at a time.

    do: `do(task, report)`. Where processes are forked it need not be picklable; tasks always have to be. A process is
    started when a task finds none idle, and lives until the team is ended.
    """

    do: Callable[[Task, Report], Any]
    num: int
    """Processes at most."""
    workers: list[_Worker] = field(default_factory=list)

    @property
    def num_busy(self) -> int:
        """Tasks begun and not done."""
        return sum(worker.ticket is not None for worker in self.workers)

    @property
    def has_room(self) -> bool:
        """Whether another task can be begun at once."""
        return self.num_busy < self.num

    def begin(self, ticket: int, task: Task) -> None:
        """Gives the task to an idle worker; there must be room. The ticket, any number, names it in what is heard."""
        message = pickle.dumps(task, pickle.HIGHEST_PROTOCOL)  # an error of it is the caller's, before anything is sent
        worker = next((worker for worker in self.workers if worker.ticket is None), None) or self._start()
        worker.ticket = ticket
        with contextlib.suppress(ConnectionError):  # dead since its last task: heard of when it is listened to
            worker.connection.send_bytes(message)

    def listen(self) -> Iterator[Heard]:
        """Waits for busy workers, and gives what any of them say. A worker that has died has left the team."""
        busy = {worker.connection: worker for worker in self.workers if worker.ticket is not None}
        for connection in wait(list(busy)):
            worker = busy[connection]  # type: ignore[index]
            assert worker.ticket is not None
            ticket = worker.ticket
            try:
                kind, value = worker.connection.recv()
            except (EOFError, ConnectionError):
                self.workers.remove(worker)
                worker.connection.close()
                yield Heard(ticket, "ended", WorkerEnded(_death(worker), ticket))
                continue
            if kind != "report":
                worker.ticket = None
            yield Heard(ticket, kind, value)

    def end(self) -> None:
        """Ends all processes, whatever they are at."""
        for worker in self.workers:
            worker.connection.close()
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join()
        self.workers.clear()

    def _start(self) -> _Worker:
        context: Any = multiprocessing.get_context("fork" if can_fork() else "spawn")
        ours, theirs = context.Pipe()
        not_theirs = [ours, *(worker.connection for worker in self.workers)] if can_fork() else []
        process = context.Process(target=_work, args=(theirs, not_theirs, self.do), daemon=True)
        with warnings.catch_warnings():
            # Python warns of any thread while it forks; libraries keep idle ones, and a worker uses none of them
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        theirs.close()
        self.workers.append(_Worker(process, ours))
        return self.workers[-1]


def _death(worker: _Worker) -> str:
    worker.process.join()
    status = worker.process.exitcode
    reason = f"signal {-status}" if status < 0 else f"exit status {status}"
    hint = "; memory may have run out: fewer --jobs take less" if status == -signal.SIGKILL else ""
    return f"a worker process ended while it ran item {worker.ticket} ({reason}){hint}"


def _work(connection: Connection, not_mine: Sequence[Connection], do: Callable[[Any, Report], Any]) -> None:
    """A worker: does what it is given, until its parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for other in not_mine:  # a fork copies them; while one is open somewhere its worker hears no end
        other.close()

    def report(*values: Any) -> None:
        connection.send(("report", values))

    try:
        while True:
            message = connection.recv_bytes()
            try:
                answer = ("done", do(pickle.loads(message), report))
            except Exception as error:  # to be raised again over there
                answer = ("failed", _portable(error))
            connection.send(answer)
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
