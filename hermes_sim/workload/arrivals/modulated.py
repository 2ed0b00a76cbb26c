"""Markov-modulated Poisson arrivals: a hidden state sets the rate and changes after exponential dwell times.

The states are drawn apart from the arrivals, which come where the mean number of arrivals reaches those of a Poisson
process of rate 1: a higher rate brings the same arrivals, each earlier, in the same bursts.

Source: W. Fischer, K. Meier-Hellstern, "The Markov-modulated Poisson process (MMPP) cookbook", Performance
Evaluation 18 (1993), section 1.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from hermes_sim.core.rng import stream
from hermes_sim.core.schema import Description, Seconds
from hermes_sim.workload.arrivals.process import ArrivalRate, Arrivals, before, gaps_beyond
from hermes_sim.workload.paths import ResolvePath
from hermes_sim.workload.requests import FloatArray

_FIRST_BLOCK, _LARGEST_BLOCK = 256, 65536


class MmppState(Description):
    """A state of the hidden chain."""

    rate_per_s: ArrivalRate = Field(alias="rate")
    dwell_s: Annotated[Seconds, Field(gt=0.0)] = Field(alias="dwell")
    """Mean of the exponential time spent in it."""


class Modulated(Arrivals):
    """Poisson arrivals whose rate follows a Markov chain that starts in its stationary state."""

    @abstractmethod
    def hidden_states(self) -> tuple[MmppState, ...]:
        """The states of the chain."""

    def chain(self) -> FloatArray:
        """[num_states, num_states] probabilities of the next state: each goes to the next, the last to the first."""
        return np.roll(np.eye(len(self.hidden_states())), 1, axis=1)

    def time_shares(self) -> FloatArray:
        """[num_states] long-run share of time in each state: visits of the embedded chain times dwell time."""
        visits = _stationary(self.chain())
        time = visits * [state.dwell_s for state in self.hidden_states()]
        return np.asarray(time / time.sum())

    @property
    def mean_rate_per_s(self) -> float:
        return float(self.time_shares() @ [state.rate_per_s for state in self.hidden_states()])

    def times(
        self,
        rng: np.random.Generator,
        num_requests: int | None,
        duration_s: float | None,
        resolve_path: ResolvePath,
    ) -> FloatArray:
        rates_per_s = np.array([state.rate_per_s for state in self.hidden_states()])
        if not rates_per_s.any() or num_requests == 0:
            return np.zeros(0)
        path = self._hidden_path(stream(int(rng.integers(2**63)), "hidden states"), rates_per_s)
        if num_requests is not None:
            due = np.cumsum(rng.standard_exponential(num_requests))
            starts_s, counts = next((s, c) for s, c in path if c[-1] > due[-1] or s[-1] > (duration_s or np.inf))
        else:
            starts_s, counts = next((s, c) for s, c in path if s[-1] > (duration_s or 0.0))
            due = np.cumsum(gaps_beyond(rng.standard_exponential, float(counts[-1])))
        return before(np.interp(due[due < counts[-1]], counts, starts_s), num_requests, duration_s)

    def _hidden_path(
        self, rng: np.random.Generator, rates_per_s: FloatArray
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Times at which the state changes, and the mean number of arrivals until each; longer and longer."""
        dwells_s = np.array([state.dwell_s for state in self.hidden_states()])
        rows = np.cumsum(self.chain(), axis=1)[:, :-1].tolist()
        state = bisect_right(np.cumsum(self.time_shares())[:-1].tolist(), rng.random())
        lasting_s, arriving, num_dwells = np.zeros(1), np.zeros(1), _FIRST_BLOCK
        while True:
            visited = [state]
            for draw in rng.random(num_dwells).tolist():
                visited.append(bisect_right(rows[visited[-1]], draw))
            state = visited.pop()
            drawn_s = rng.standard_exponential(num_dwells) * dwells_s[visited]
            lasting_s = np.concatenate([lasting_s, drawn_s])
            arriving = np.concatenate([arriving, drawn_s * rates_per_s[visited]])
            yield np.cumsum(lasting_s), np.cumsum(arriving)
            num_dwells = min(2 * num_dwells, _LARGEST_BLOCK)


class Mmpp(Modulated):
    """Any number of states, in turn or by stated probabilities."""

    kind: Literal["mmpp"] = "mmpp"
    states: tuple[MmppState, ...] = Field(min_length=1)
    transitions: tuple[tuple[float, ...], ...] | None = None
    """[state][next state] probabilities; if not given, each state goes to the next one, the last to the first."""

    @model_validator(mode="after")
    def _check_transitions(self) -> Self:
        if self.transitions is None:
            return self
        num_states = len(self.states)
        if len(self.transitions) != num_states or any(len(row) != num_states for row in self.transitions):
            raise ValueError(f"transitions must be {num_states} rows of {num_states} probabilities")
        for row in self.transitions:
            if min(row) < 0.0 or not math.isclose(sum(row), 1.0, abs_tol=1e-9):
                raise ValueError(f"a row of transitions must be probabilities that sum to 1, not {list(row)}")
        if abs(np.linalg.det(_balance(np.array(self.transitions)))) < 1e-12:
            raise ValueError("transitions must not fall apart into sets of states that never reach each other")
        return self

    def hidden_states(self) -> tuple[MmppState, ...]:
        return self.states

    def chain(self) -> FloatArray:
        return super().chain() if self.transitions is None else np.array(self.transitions)

    def scaled(self, factor: float) -> Self:
        """The rates of all states; bursts last as long as they do."""
        states = tuple(state.model_copy(update={"rate_per_s": state.rate_per_s * factor}) for state in self.states)
        return self.model_copy(update={"states": states})

    def describe(self) -> str:
        return f"MMPP {self.mean_rate_per_s:.4g}/s ({len(self.states)} states)"


class OnOff(Modulated):
    """Bursts: Poisson arrivals at `rate` while on, none while off; both last exponential times."""

    kind: Literal["on_off"] = "on_off"
    rate_per_s: ArrivalRate = Field(alias="rate")
    """While on."""
    on_s: Annotated[Seconds, Field(gt=0.0)] = Field(alias="on_time")
    """Mean time on. Not `on`, which other YAML readers take for true."""
    off_s: Annotated[Seconds, Field(gt=0.0)] = Field(alias="off_time")

    def hidden_states(self) -> tuple[MmppState, ...]:
        on = MmppState.model_construct(rate_per_s=self.rate_per_s, dwell_s=self.on_s)
        off = MmppState.model_construct(rate_per_s=0.0, dwell_s=self.off_s)
        return on, off

    def scaled(self, factor: float) -> Self:
        """The rate of the bursts; they last as long as they do."""
        return self.model_copy(update={"rate_per_s": self.rate_per_s * factor})

    def describe(self) -> str:
        return f"on-off {self.mean_rate_per_s:.4g}/s (bursts of {self.rate_per_s:.4g}/s)"


def _balance(chain: FloatArray) -> FloatArray:
    """Matrix A of A @ stationary = (0, ..., 0, 1): balance equations, the last replaced by the sum of shares."""
    equations = chain.T - np.eye(len(chain))
    equations[-1] = 1.0
    return equations


def _stationary(chain: FloatArray) -> FloatArray:
    right_side = np.zeros(len(chain))
    right_side[-1] = 1.0
    return np.asarray(np.linalg.solve(_balance(chain), right_side))
