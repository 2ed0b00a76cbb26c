"""Searches led by a verifier: who goes on from what, whose KV is found again, what counts as thought and as answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim import Results, simulate
from hermes_sim.core.errors import ConfigError
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim.lower import Lowered, lower
from hermes_sim.state.hashes import block_content
from hermes_sim.workload.requests import request_table
from tests import scenarios as s

WRITER, VERIFIER = "llama_3_8b", "qwen-2-7b"
CLUSTER = s.cluster(s.llm(), s.llm("verifier", model=VERIFIER))
PROMPT, STEP, ASKED = 100, 10, 8
SEARCH = {
    "name": "search", "kind": "tree_search", "model": WRITER, "verifier": VERIFIER, "num_beams": 2, "width": 3,
    "rounds": 3, "num_output_tokens": STEP, "num_verifier_tokens": ASKED,
}  # fmt: skip
ANSWER = [{**s.PREFILL, "model": WRITER, "after": ["search"]}, {**s.DECODE, "model": WRITER}]
LONE = {
    **s.traffic(num_requests=1),
    "lengths": {"kind": "fixed", "num_prompt_tokens": PROMPT, "num_output_tokens": 20},
}
SELECTIONS = ("beam", "each_beam", "tree")


def lowered(**keys: Any) -> Lowered:
    scenario = load_scenario(CLUSTER, s.workload({**SEARCH, **keys}, *ANSWER))
    return lower(scenario, request_table([0.0] * 40, [PROMPT] * 40, [20] * 40))


def run(*stages: s.Document, cluster: s.Document = CLUSTER, **keys: Any) -> Results:
    return simulate(cluster, s.workload({**SEARCH, **keys}, *(stages or ANSWER), traffic=LONE))


def rows_of(run: Lowered, request: int, place: int) -> list[int]:
    """Rows of a visit: its own, and its further ones."""
    visit = int(run.first_row[request]) + place
    return [visit, *(run.num_visits + np.flatnonzero(run.row_parent == visit)).tolist()]


def text(run: Lowered, row: int, num_tokens: int) -> list[int]:
    """What the first tokens of a row are, token by token."""
    return [int(block_content(run.state.handle, row, index, 1)) for index in range(num_tokens)]


class TestTexts:
    @pytest.mark.parametrize("selection", SELECTIONS)
    def test_a_beam_reads_what_one_candidate_has_written(self, selection: str) -> None:
        run = lowered(selection=selection)
        for request in range(10):
            for place in (1, 2):
                written = [row for one in range(place) for row in rows_of(run, request, 3 * one + 1)]
                for beam in rows_of(run, request, 3 * place):
                    length = int(run.state.row_prompt[beam])
                    ends = [int(run.state.row_prompt[row] + run.state.row_output[row]) for row in written]
                    own = text(run, beam, length)
                    same = [row for row, end in zip(written, ends, strict=True) if text(run, row, end) == own]
                    assert len(same) == 1

    def test_candidates_share_their_beam_and_nothing_else(self) -> None:
        run = lowered()
        beams, candidates, scored = (rows_of(run, 0, place) for place in (3, 4, 5))
        assert (len(beams), len(candidates), len(scored)) == (2, 6, 6)
        length = PROMPT + STEP
        of_beams = [text(run, beam, length) for beam in beams]
        assert of_beams[0][:PROMPT] == of_beams[1][:PROMPT]
        assert not set(of_beams[0][PROMPT:]) & set(of_beams[1][PROMPT:])
        texts = [text(run, row, length + STEP) for row in candidates]
        assert [one[:length] for one in texts] == [of_beams[0]] * 3 + [of_beams[1]] * 3
        assert len({one[length] for one in texts}) == 6
        assert [text(run, row, length + STEP) for row in scored] == texts
        assert run.state.row_prompt[scored].tolist() == [length + STEP + ASKED] * 6

    def test_the_answer_follows_the_best_path(self) -> None:
        run = lowered()
        for request in range(10):
            prefill, decode = (int(run.first_row[request]) + place for place in (9, 10))
            whole = PROMPT + 3 * STEP
            assert run.state.row_prompt[prefill] == whole
            last = [text(run, row, whole) for row in rows_of(run, request, 7)]
            assert last.count(text(run, prefill, whole)) == 1
            assert text(run, prefill, whole + 20) == text(run, decode, whole + 20)

    def test_lookahead_is_judged_and_not_read_again(self) -> None:
        state = (run := lowered(num_lookahead_tokens=25)).state
        assert state.row_output[rows_of(run, 0, 1)].tolist() == [STEP + 25] * 6
        assert state.row_prompt[rows_of(run, 0, 2)].tolist() == [PROMPT + STEP + 25 + ASKED] * 6
        assert state.row_prompt[rows_of(run, 0, 3)].tolist() == [PROMPT + STEP] * 2
        beam, written = rows_of(run, 0, 3)[0], rows_of(run, 0, 1)
        assert text(run, beam, PROMPT + STEP) in [text(run, row, PROMPT + STEP) for row in written]


class TestSelection:
    def parents(self, selection: str) -> list[np.ndarray[Any, Any]]:
        """[num_requests, num_beams] row that each beam of the rounds after the first goes on from, less that visit's
        first row; over all rounds."""
        run = lowered(selection=selection)
        found = []
        for place in (3, 6):
            of_all = []
            for request in range(40):
                own = [row for one in range(0, place, 3) for row in rows_of(run, request, one + 1)]
                of_all.append([own.index(int(run.state.row_text[beam])) for beam in rows_of(run, request, place)])
            found.append(np.array(of_all))
        return found

    def test_the_best_of_the_round(self) -> None:
        second, third = self.parents("beam")
        assert (second[:, 0] != second[:, 1]).all()
        assert ((third >= 6) & (third[:, :1] != third[:, 1:])).all()
        same_beam = (third[:, 0] - 6) // 3 == (third[:, 1] - 6) // 3
        # both from one beam: of 6 candidates, 2 of the other 5 share the first one's beam
        assert abs(same_beam.mean() - 2 / 5) < 0.25

    def test_the_best_of_each_beam(self) -> None:
        for place, parents in enumerate(self.parents("each_beam")):
            assert (np.sort((parents - 6 * place) // 3, axis=1) == [0, 1]).all()

    def test_a_tree_goes_back_and_never_twice_from_one(self) -> None:
        second, third = self.parents("tree")
        assert (third < 6).any()
        assert (third >= 6).any()
        for one, other in zip(second, third, strict=True):
            assert len({*one, *other}) == 4


class TestRuns:
    def test_what_is_thought_kept_and_thrown_away(self) -> None:
        request = run().requests.iloc[0]
        assert request["num_candidates"] == 3 * 6
        assert request["num_thought_tokens"] == 3 * 6 * STEP
        assert request["num_discarded_tokens"] == 3 * 6 * STEP - 3 * STEP
        assert request["num_output_tokens"] == 3 * 6 * STEP + 20
        assert request["num_prompt_tokens"] == PROMPT + 3 * STEP + ASKED
        assert request["ttfat_s"] > request["ttft_s"]

    def test_whole_blocks_of_kept_prefixes_are_found_again(self) -> None:
        engines = run().engines.set_index("engine")

        def whole(num_tokens: int) -> int:
            return num_tokens // 16 * 16

        # two beams in rounds 2 and 3, and the answer: all of a text but its last token has KV
        beams = 2 * whole(PROMPT + STEP - 1) + 2 * whole(PROMPT + 2 * STEP - 1) + whole(PROMPT + 3 * STEP - 1)
        assert engines["num_cached_tokens"]["llm[0]"] == beams
        # of the first six texts five find the prompt of the first; then all find the prefix that was scored before
        scored = 5 * whole(PROMPT) + 6 * whole(PROMPT + STEP) + 6 * whole(PROMPT + 2 * STEP)
        assert engines["num_cached_tokens"]["verifier[0]"] == scored
        computed = 6 * (3 * PROMPT + 6 * STEP + 3 * ASKED) - scored
        assert engines["num_prompt_tokens"]["verifier[0]"] == computed

    def test_one_round_writes_as_the_samples_of_a_decode(self) -> None:
        # best of six: the same sequences in the same steps; the verifier follows
        samples = s.workload(
            {**s.PREFILL, "model": WRITER}, {**s.DECODE, "model": WRITER, "num_samples": 6}, traffic=LONE
        )
        plain = simulate(CLUSTER, samples)
        best = simulate(
            CLUSTER, s.workload({**SEARCH, "rounds": 1, "num_output_tokens": None, "writes": "answer"}, traffic=LONE)
        )
        end_s = best.visits.set_index("stage")["finish_s"]
        assert end_s["search.decode"] == plain.requests["finish_s"][0]
        assert best.requests["first_token_s"][0] == plain.requests["first_token_s"][0]
        # nobody knows the answer before the verdict
        assert best.requests["first_answer_token_s"][0] == end_s["search.verify"] == best.requests["finish_s"][0]
        writer = best.engines.set_index("engine")["energy_j"]["llm[0]"]
        assert writer > 0

    def test_a_verdict_in_words_is_a_note(self) -> None:
        request = run(num_verdict_tokens=4).requests.iloc[0]
        assert request["num_note_tokens"] == 3 * 6 * 4
        assert request["num_output_tokens"] == 3 * 6 * STEP + 20

    def test_energy_is_all_handed_out(self) -> None:
        results = simulate(CLUSTER, s.workload(SEARCH, *ANSWER, traffic=s.traffic(rate="20 /s", num_requests=40)))
        taken = results.requests[["energy_j", "idle_energy_j", "cost_usd"]].sum()
        assert taken["energy_j"] + taken["idle_energy_j"] == pytest.approx(results.engines["energy_j"].sum())
        assert taken["cost_usd"] == pytest.approx(results.engines["cost_usd"].sum())
        tokens = results.timeline.groupby("engine")["num_output_tokens"].sum()
        assert tokens["llm[0]"] == pytest.approx(results.requests["num_output_tokens"].sum())

    def test_short_of_blocks_all_still_end(self) -> None:
        few = s.cluster(s.llm(kv_cache={"num_gpu_blocks": 40}), s.llm("verifier", model=VERIFIER))
        results = simulate(few, s.workload(SEARCH, *ANSWER, traffic={**LONE, "num_requests": 12}))
        assert (results.requests["status"] == "finished").all()
        assert results.requests["num_preemptions"].sum() > 0

    def test_a_path_that_no_engine_can_hold_is_rejected(self) -> None:
        few = s.cluster(s.llm(kv_cache={"num_gpu_blocks": 8}), s.llm("verifier", model=VERIFIER))
        assert run(cluster=few).requests["status"].tolist() == ["rejected"]


class TestRefusals:
    def refused(self, words: str, cluster: s.Document = CLUSTER, stages: list[s.Document] | None = None) -> None:
        with pytest.raises(ConfigError, match=words):
            load_scenario(cluster, s.workload(*(stages or [SEARCH])))

    def test_decode_elsewhere(self) -> None:
        apart = [s.llm("p", serves=["prefill"]), s.llm("d", serves=["decode"])]
        self.refused("must serve decode too", s.cluster(*apart, s.llm("verifier", model=VERIFIER)))

    def test_engines_that_fail(self) -> None:
        availability = {"failures": [{"engine": "verifier", "mtbf": "1 h", "repair": "1 min"}]}
        self.refused("failures amid a search", {**CLUSTER, "availability": availability})

    @pytest.mark.parametrize(
        ("keys", "words"),
        [
            ({"num_beams": 32, "width": 32}, "more than 256 candidates"),
            ({"num_output_tokens": None}, "the length of one step"),
            ({"rounds": {"kind": "output_share", "share_frac": 0.1}}, "rounds need an upper bound"),
            ({"verifier": "llama_3_70b"}, "no engine that serves 'prefill' hosts"),
        ],
    )
    def test_keys_that_cannot_be(self, keys: s.Document, words: str) -> None:
        self.refused(words, stages=[{**SEARCH, **keys}])

    def test_a_search_inside_rounds(self) -> None:
        self.refused(
            "is not a kind of a stage in a round",
            stages=[{"name": "again", "kind": "repeat", "rounds": 2, "stages": [SEARCH]}],
        )
