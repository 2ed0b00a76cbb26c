"""What a search has tried, kept by Optuna: in a journal file that outlives the process, or in memory."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from hermes_sim.core.errors import HermesError
from hermes_sim.explore.run_key import program_hash
from hermes_sim.explore.run_table import DONE, FAILED
from hermes_sim.explore.search.space import Parameters, SearchSpace
from hermes_sim.explore.search.trial import excesses_of, losses_of
from hermes_sim.scenario.search import SearchFile

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler

RUNNING, STOPPED, INFEASIBLE, REPEATED = "running", "stopped", "infeasible", "repeated"
"""Beside `done` and `failed`. Stopped: behind on a rung before the last. Repeated: tried before, not run again."""
COUNTED: Final = frozenset({RUNNING, STOPPED, DONE, FAILED})
"""Tried in earnest."""
LARGEST_EXCESS: Final = 1e9
_AGAIN: Final = "again "
_NO_OPTUNA: Final = "search needs optuna: pip install 'hermes-sim[explore]'"
_LARGEST_SEED: Final = 2**31 - 1


@dataclass(eq=False, slots=True)
class Tried:
    """A point, and what has become of it so far."""

    number: int
    parameters: Parameters
    trial: Any = None
    """Optuna's, while it is running."""
    status: str = RUNNING
    reason: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """One for each rung that it was run on."""


class SearchRecord:
    """All points that a search has tried; every change is on disk when its call returns."""

    def __init__(self, search: SearchFile, space: SearchSpace, journal: Path | None, about: Mapping[str, Any]) -> None:
        """journal: file of a former run of the same search, or of a new one; None: nothing is kept. about: what else
        decides the numbers of its runs. Raises HermesError where the file is of another search or program."""
        self._search = search
        self._space = space
        with _quiet():
            self._study = _opened(search, journal)
        self._check(f"{search_hash(search, about)} {program_hash()}", journal)
        self.tried = [self._known(trial) for trial in self._study.get_trials(deepcopy=False)]

    @property
    def num_counted(self) -> int:
        return sum(one.status in COUNTED for one in self.tried)

    def add(self, parameters: Parameters | None) -> Tried:
        """The next trial: of this point, or of one that Optuna's sampler draws."""
        with _quiet():
            if parameters is not None:
                self._study.enqueue_trial(dict(parameters))
            self._study.sampler = _sampler(self._search, len(self.tried))
            trial = self._study.ask()
            tried = Tried(trial.number, self._space.drawn(trial), trial)
        self.tried.append(tried)
        return tried

    def keep_row(self, tried: Tried, row: Mapping[str, Any]) -> None:
        """What it measured on one more rung."""
        tried.rows.append(dict(row))
        tried.trial.set_user_attr("rows", tried.rows)

    def end(self, tried: Tried, status: str, reason: str = "") -> None:
        """It is run no further."""
        tried.status, tried.reason = status, reason
        with _quiet():
            tried.trial.set_user_attr("status", status)
            tried.trial.set_user_attr("reason", reason)
            self._tell(tried)
        tried.trial = None

    @property
    def rows_again(self) -> dict[str, dict[str, Any]]:
        """Rows of finalists' runs, by their hash."""
        attributes = self._study.user_attrs
        return {str(row["scenario"]): row for key, row in attributes.items() if key.startswith(_AGAIN)}

    def keep_row_again(self, row: Mapping[str, Any]) -> None:
        self._study.set_user_attr(f"{_AGAIN}{row['scenario']}", dict(row))

    def _tell(self, tried: Tried) -> None:
        """Optuna what it can make use of: values and limits of whole runs, of short ones the value on each rung."""
        from optuna.trial import TrialState

        search = self._search
        values = [[one.sign * loss for one, loss in zip(search.objectives, losses_of(search, row), strict=True)]
                  for row in tried.rows]  # fmt: skip
        if tried.status == DONE:
            for metric, excess in zip(search.limits, excesses_of(search, tried.rows[-1]), strict=True):
                tried.trial.set_constraint(metric, min(excess, LARGEST_EXCESS))
            self._study.tell(tried.number, values[-1])
        elif tried.status == STOPPED:
            if len(search.objectives) == 1:
                for place, (value,) in enumerate(values):
                    tried.trial.report(value, place)
            self._study.tell(tried.number, state=TrialState.PRUNED)
        else:
            self._study.tell(tried.number, state=TrialState.FAIL)

    def _known(self, trial: Any) -> Tried:
        """One of a former run; what was being run when it ended is run again."""
        from optuna import Trial
        from optuna.trial import TrialState

        attributes = trial.user_attrs
        status, reason = attributes.get("status", RUNNING), attributes.get("reason", "")
        rows = [dict(row) for row in attributes.get("rows", [])]
        if trial.state.is_finished():
            return Tried(trial.number, dict(trial.params), None, status, reason, rows)
        with _quiet():
            self._study.sampler = _sampler(self._search, trial.number)
            is_waiting = trial.state == TrialState.WAITING  # the process ended before it was asked for
            running = self._study.ask() if is_waiting else Trial(self._study, trial._trial_id)
            return Tried(trial.number, self._space.drawn(running), running, RUNNING, "", rows)

    def _check(self, mark: str, journal: Path | None) -> None:
        known = self._study.user_attrs.get("search")
        if known is None:
            self._study.set_user_attr("search", mark)
        elif known != mark:
            what = "search" if known.split()[0] != mark.split(maxsplit=1)[0] else "version of the program"
            raise HermesError(f"{journal} is of another {what}: name a new folder, or start anew with --fresh")


def search_hash(search: SearchFile, about: Mapping[str, Any]) -> str:
    """Of all that decides what is tried and what it measures; not of the number of trials, which may grow."""
    left_out = {"title", "question", "trials", "replications"}
    text = search.model_dump_json(by_alias=True, exclude=left_out) + repr(sorted(about.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _opened(search: SearchFile, journal: Path | None) -> Study:
    optuna = _optuna()
    directions = ["minimize" if one.sign > 0 else "maximize" for one in search.objectives]
    storage = None
    if journal is not None:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        _drop_torn_line(journal)
        storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=cast(Any, _OneWriter())))
    try:
        study: Study = optuna.create_study(
            storage=storage, study_name="search", directions=directions, load_if_exists=True
        )
    except (ValueError, KeyError) as error:
        raise HermesError(f"cannot read {journal}: {error}") from error
    return study


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise HermesError(_NO_OPTUNA) from error
    return optuna


class _OneWriter:
    """In place of a lock: the folder of a search has one writer."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _drop_torn_line(journal: Path) -> None:
    """What a killed process had half written."""
    if not journal.is_file():
        return
    content = journal.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        with journal.open("r+b") as file:
            file.truncate(len(whole))


def _sampler(search: SearchFile, number: int) -> BaseSampler:
    """Optuna's sampler, begun anew for each trial so that a search that goes on draws as if it had never stopped."""
    import numpy as np
    from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

    seed = int(np.random.default_rng([search.seed, number]).integers(_LARGEST_SEED))
    if search.sampler == "tpe":
        return TPESampler(seed=seed, n_startup_trials=max(5, min(10, search.trials // 4)))
    if search.sampler == "nsga2":
        return NSGAIISampler(seed=seed, population_size=max(4, min(50, search.trials // 5)))
    return RandomSampler(seed=seed)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells of each trial, and of parts of it that may change."""
    optuna = _optuna()
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
