"""A client's cap on requests in flight under planned arrivals: users who wait until their request is due."""

import numpy as np

from hermes_sim.sim.clock import Clock
from hermes_sim.sim.traffic import TrafficSource
from hermes_sim.workload.requests import ClosedLoop, request_table


def sent_at_s(planned_s: list[float], cap: int, service_s: float) -> list[float]:
    """When each request is sent, if every one is answered `service_s` later."""
    number = len(planned_s)
    loop = ClosedLoop(cap, np.zeros(number), np.array(planned_s))
    table = request_table(np.full(number, np.nan), [8] * number, [2] * number, closed_loop=loop)
    clock = Clock()
    sent: list[float] = [float("nan")] * number

    def arrived(request: int) -> None:
        sent[request] = float(clock.now)
        clock.timeout(service_s).callbacks.append(lambda _: source.ended(request, float(clock.now)))

    source = TrafficSource(clock, table, arrived)
    source.start()
    clock.run()
    return sent


def test_below_the_cap_arrivals_are_as_planned() -> None:
    assert sent_at_s([0.0, 1.0, 2.5, 9.0], 2, 0.5) == [0.0, 1.0, 2.5, 9.0]


def test_at_the_cap_the_next_is_sent_when_one_has_ended() -> None:
    assert sent_at_s([0.0, 0.1, 0.2, 0.3], 2, 1.0) == [0.0, 0.1, 1.0, 1.1]


def test_the_backlog_drains() -> None:
    assert sent_at_s([0.0, 0.1, 0.2, 5.0], 1, 1.0) == [0.0, 1.0, 2.0, 5.0]
