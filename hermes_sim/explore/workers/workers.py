"""Where runs are run: in this process, in several of this machine, or on a Dask cluster; one interface for all."""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar

from hermes_sim.core.errors import HermesError
from hermes_sim.processes import Garbage, Report, Team, can_fork, num_cores
from hermes_sim.run import warm_up
from hermes_sim.scenario.scenario import Scenario

if TYPE_CHECKING:
    from hermes_sim.explore.workers.slurm import Slurm

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Wait(Enum):
    """Given in place of an item by who cannot say which is next before another outcome is there."""

    WAIT = "wait"


WAIT: Final = Wait.WAIT


class End(NamedTuple):
    """What became of an item."""

    ticket: int
    kind: Literal["done", "failed", "lost"]
    value: Any
    """The outcome, the exception, or in words how its workers were lost."""


class Workers(ABC):
    """Workers, each at one item at a time. One user at a time."""

    @property
    @abstractmethod
    def num(self) -> int:
        """Items that are worked on at once; may change while a cluster grows."""

    @property
    @abstractmethod
    def num_begun(self) -> int:
        """Items begun whose end has not been heard of."""

    @abstractmethod
    def begin(self, ticket: int, function: Callable[[Any], Any], item: Any, key: str = "") -> None:
        """Gives `function(item)` to a worker. Both are pickled; the function is one of a module.

        key: equal for equal work, whoever asks for it. Raises what pickling raises.
        """

    @abstractmethod
    def wait(self) -> list[End]:
        """Waits until something begun has ended, or, then without an end, until there is more room. Raises HermesError
        where the workers are gone."""

    @abstractmethod
    def abandon(self) -> None:
        """Gives up what is begun."""

    def prepare(self, scenario: Scenario) -> None:  # noqa: B027  (nothing to do is the rule)
        """Told before the first of many runs which have to do with such a scenario, to compile once what they need."""

    def close(self) -> None:
        """Ends the workers that are ours."""
        self.abandon()

    @property
    def has_room(self) -> bool:
        return self.num_begun < self.num

    def outcomes(
        self,
        function: Callable[[Item], Outcome],
        items: Iterable[Item | Wait],
        *,
        lost: Callable[[Item, str], Outcome] | None = None,
    ) -> Iterator[tuple[int, Outcome]]:
        """(number of the item, its outcome) as they come.

        The next item is drawn only when a worker is free, so that `items` may be a generator that decides by what was
        told so far; it gives WAIT where that is too little. lost: the outcome of an item whose workers died, and why;
        without it HermesError is raised. An exception of the function is raised here. Whoever stops early gives up what
        was begun.
        """
        source = iter(items)
        begun: dict[int, Item] = {}
        num_drawn, is_open = 0, True
        try:
            while True:
                while is_open and self.has_room:
                    item = next(source, None)
                    if item is WAIT:
                        break
                    if item is None:
                        is_open = False
                        break
                    begun[num_drawn] = item
                    self.begin(num_drawn, function, item)
                    num_drawn += 1
                if not begun:
                    assert not is_open, "an iterable waits for the outcome of nothing"
                    return
                for end in self.wait():
                    item = begun.pop(end.ticket)
                    if end.kind == "failed":
                        raise end.value
                    if end.kind == "lost" and lost is None:
                        raise HermesError(end.value)
                    yield end.ticket, end.value if lost is None or end.kind == "done" else lost(item, end.value)
        finally:
            self.abandon()


class InProcess(Workers):
    """This process, one item after the other."""

    num = 1

    def __init__(self) -> None:
        self._begun: list[tuple[int, Callable[[Any], Any], Any]] = []
        self._garbage = Garbage()
        self._is_new = True

    @property
    def num_begun(self) -> int:
        return len(self._begun)

    def begin(self, ticket: int, function: Callable[[Any], Any], item: Any, key: str = "") -> None:
        if self._is_new:  # by now all items of a plan are there
            self._garbage.set_apart()
            self._is_new = False
        self._begun.append((ticket, function, item))

    def wait(self) -> list[End]:
        ticket, function, item = self._begun.pop(0)
        try:
            return [End(ticket, "done", function(item))]
        except Exception as error:
            return [End(ticket, "failed", error)]
        finally:
            self._garbage.collect()

    def abandon(self) -> None:
        self._begun.clear()
        self._is_new = True

    def close(self) -> None:
        super().close()
        gc.unfreeze()


class LocalProcesses(Workers):
    """Processes of this machine; forked where that can be, so that they share what is compiled. A process that dies
    costs the item that it was at, and is replaced."""

    num: int = 1

    def __init__(self, num: int) -> None:
        self.num = num
        self._team: Team[tuple[Callable[[Any], Any], Any]] = Team(_do, num)

    @property
    def num_begun(self) -> int:
        return self._team.num_busy

    def begin(self, ticket: int, function: Callable[[Any], Any], item: Any, key: str = "") -> None:
        self._team.begin(ticket, (function, item))

    def wait(self) -> list[End]:
        ends: list[End] = []
        while not ends:
            for heard in self._team.listen():
                if heard.kind == "ended":
                    ends.append(End(heard.ticket, "lost", str(heard.value)))
                elif heard.kind != "report":
                    ends.append(End(heard.ticket, heard.kind, heard.value))
        return ends

    def abandon(self) -> None:
        if self._team.num_busy:
            self._team.end()

    def prepare(self, scenario: Scenario) -> None:
        if not self._team.workers:
            warm_up(scenario)

    def close(self) -> None:
        self._team.end()


_garbage: list[Garbage] = []
"""Of a worker process: none before its first task."""


def _do(task: tuple[Callable[[Any], Any], Any], report: Report) -> Any:
    """In a worker: what it has from its parent is never looked through for cycles."""
    if not _garbage:
        gc.freeze()
        _garbage.append(Garbage())
    function, item = task
    try:
        return function(item)
    finally:
        _garbage[0].collect()


def workers_of(
    jobs: int | None = None, scheduler: str | None = None, slurm: Slurm | None = None
) -> AbstractContextManager[Workers]:
    """Workers that end with the `with` block.

    jobs: at most this many items at once; by default as many as there are cores, or 1 where processes cannot be
    forked, or all that a cluster has. scheduler: address of a Dask scheduler, `tcp://HOST:PORT`. slurm: a Dask cluster
    of its own in jobs of SLURM. Raises HermesError.
    """
    if scheduler is not None and slurm is not None:
        raise HermesError("--scheduler and --slurm: a cluster that runs, or one that is started; not both")
    if scheduler is not None or slurm is not None:
        from hermes_sim.explore.workers.dask_workers import DaskWorkers

        if slurm is not None:
            return closing(DaskWorkers.on_slurm(slurm, jobs))
        assert scheduler is not None
        return closing(DaskWorkers.at(scheduler, jobs))
    if jobs is None:
        jobs = num_cores() if can_fork() else 1
    return closing(InProcess() if jobs == 1 else LocalProcesses(jobs))
