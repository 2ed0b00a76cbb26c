"""Who sends the requests: shares by Zipf's law, one client a session, the clients that a trace names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from hermes_sim.workload.clients import Clients
from hermes_sim.workload.requests import request_table, select_requests
from hermes_sim.workload.scaling import scale_rate
from tests.unit.workload.laws import FIXED, read_trace, requests_of

POISSON = {"kind": "poisson", "rate": "4 /s"}


def clients_of(number: int, seed: int = 1, **clients: Any) -> np.ndarray[Any, Any]:
    table = requests_of(seed, arrivals=POISSON, lengths=FIXED, num_requests=number, clients=clients)
    assert table.client is not None
    return table.client


def test_shares_follow_zipf() -> None:
    # 1, 1/2, 1/4 over 7/4
    np.testing.assert_allclose(Clients(count=3, skew=0.0).shares(), [1 / 3] * 3)
    np.testing.assert_allclose(Clients(count=4, skew=1.0).shares(), np.array([12, 6, 4, 3]) / 25)


def test_clients_are_drawn_by_their_shares() -> None:
    number = 20_000
    counts = np.bincount(clients_of(number, count=4, skew=1.0), minlength=4)
    expected = np.array([12, 6, 4, 3]) / 25 * number
    # five standard deviations of a multinomial count
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_a_requests_client_does_not_depend_on_how_many_follow() -> None:
    np.testing.assert_array_equal(clients_of(50, count=8, skew=0.7), clients_of(500, count=8, skew=0.7)[:50])


def test_clients_change_neither_arrivals_nor_lengths() -> None:
    plain = requests_of(arrivals=POISSON, lengths=FIXED, num_requests=50)
    drawn = requests_of(arrivals=POISSON, lengths=FIXED, num_requests=50, clients={"count": 3})
    assert plain.client is None
    np.testing.assert_array_equal(plain.arrival_s, drawn.arrival_s)
    np.testing.assert_array_equal(plain.num_prompt_tokens, drawn.num_prompt_tokens)


def test_turns_of_a_session_are_one_clients() -> None:
    table = requests_of(
        arrivals=POISSON, lengths=FIXED, num_requests=400, sessions={"mean_num_turns": 4}, clients={"count": 5}
    )
    assert table.client is not None
    for session in np.unique(table.session):
        assert len(np.unique(table.client[table.session == session])) == 1
    assert len(np.unique(table.client)) == 5


def test_a_table_names_its_clients(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,num_prompt_tokens,num_output_tokens,client\n2,5,1,bob\n0,5,1,ann\n3,5,1,\n1,5,1,bob\n")
    table = read_trace("table", path)
    assert table.client is not None
    # in order of arrival: ann, bob, bob, nobody
    assert table.client[1] == table.client[2] != table.client[0]
    assert table.client[3] == -1
    path.write_text("arrival_s,num_prompt_tokens,num_output_tokens\n2,5,1\n")
    assert read_trace("table", path).client is None


def test_clients_take_the_place_of_those_of_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    rows = "".join(f"{second},5,1,ann\n" for second in range(60))
    path.write_text("arrival_s,num_prompt_tokens,num_output_tokens,client\n" + rows)
    table = requests_of(trace={"format": "table", "path": str(path)}, clients={"count": 3})
    assert table.client is not None
    assert set(table.client.tolist()) == {0, 1, 2}


def test_clients_stay_with_their_requests() -> None:
    table = request_table([0.0, 1.0, 2.0], [1, 2, 3], [1, 1, 1], client=[7, -1, 9])
    chosen = select_requests(table, np.array([0, 2]))
    assert chosen.client is not None
    assert chosen.client.tolist() == [7, 9]
    copied = scale_rate(table, 2.0, np.random.default_rng(1))
    assert copied.client is not None
    of_prompt = {1: 7, 2: -1, 3: 9}
    assert [of_prompt[prompt] for prompt in copied.num_prompt_tokens.tolist()] == copied.client.tolist()


@pytest.mark.parametrize("clients", [{}, {"count": 0}, {"count": 2, "skew": -1}])
def test_senseless_clients_are_refused(clients: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Clients.model_validate(clients)
