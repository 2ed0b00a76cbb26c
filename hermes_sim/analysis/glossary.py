"""The words of results and files, defined: `hermes-sim define TERM` and docs/glossary.md come from here."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from difflib import get_close_matches

from hermes_sim.core.errors import HermesError


@dataclass(frozen=True, slots=True)
class Term:
    """One word, what it means here, and the other spellings it is asked for by."""

    name: str
    definition: str
    see: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


def _terms(*terms: Term) -> dict[str, Term]:
    return {_key(term.name): term for term in terms}


def _key(word: str) -> str:
    """`Goodput`, `KV-block` and `kv_block` are one word each."""
    return " ".join(word.lower().replace("_", " ").replace("-", " ").split())


TERMS: dict[str, Term] = _terms(
    Term("request", "One query of a user, from its arrival to its last token.", ("pipeline", "visit", "session")),
    Term(
        "pipeline",
        "The stages a request passes, in order: a directed acyclic graph by `after`. A workload may mix several by "
        "weight.",
        ("stage",),
    ),
    Term(
        "stage",
        "One kind of work in a pipeline, such as embed, retrieve, rerank, prefill or decode. A stage states its work, "
        "never its time: that depends on the engine it runs on.",
        ("visit", "engine"),
    ),
    Term(
        "visit",
        "A request's pass through one stage: one row of the visits table. From arriving at the engine to leaving it, "
        "its time is service (in steps that scheduled it) and queue (the rest); moving its input there comes before.",
        ("queue", "service", "transfer"),
        ("visits",),
    ),
    Term(
        "engine",
        "An executor of stages on a group of devices, with its own queue and batching: vLLM's engine, Vidur's "
        "replica, the client of the HERMES paper. `llm[0]` is the first replica of the engine `llm`.",
        ("step", "batch"),
        ("replica", "client"),
    ),
    Term("step", "One forward pass of an engine over the sequences scheduled in it.", ("batch",), ("iteration",)),
    Term(
        "batch",
        "The sequences (or jobs) of one step. The results give the mean over steps, weighted by their time.",
        ("step",),
        ("batch size", "mean batch"),
    ),
    Term(
        "TTFT",
        "Time to first token: first_token_s - arrival_s, seen from the front door: queueing, retrieval and transfers "
        "are included. The first token appears at the end of the step that computes the last part of the prompt. A "
        "request without output tokens has none. With prefill and decode on different engines, the first token comes "
        "from the prefill engine.",
        ("TPOT", "ITL", "E2E", "where TTFT goes"),
        ("time to first token",),
    ),
    Term(
        "TPOT",
        "Time per output token after the first: (finish_s - first_token_s) / (num_output_tokens - 1), one value per "
        "request. A request of fewer than two tokens has none. Moving the KV cache from a prefill engine to a decode "
        "engine counts here.",
        ("ITL", "TTFT"),
        ("time per output token",),
    ),
    Term(
        "ITL",
        "Inter-token latency: each gap between consecutive output tokens of a request, one value per gap. Its mean is "
        "exact, over the measured requests; its percentiles come from a histogram of the gaps that ended in the "
        "measured window (in the whole run where arrivals depend on answers: closed loops, sessions), and the summary "
        "states the width of its bins, which bounds their error.",
        ("TPOT",),
        ("inter token latency",),
    ),
    Term(
        "E2E",
        "End-to-end latency: finish_s - arrival_s, of requests that finished.",
        ("TTFT",),
        ("latency", "end to end latency"),
    ),
    Term(
        "percentile",
        "p99 is the value that 99% of the measured requests do not exceed, by linear interpolation between order "
        "statistics. A run is called short for a percentile when fewer than ten requests are expected beyond it: "
        "1,000 requests for p99, 100 for p90.",
        ("measured window",),
        ("p50", "p90", "p95", "p99"),
    ),
    Term(
        "SLO",
        "Service-level objective: an upper bound on a latency at a percentile (or the mean), as a time (`ttft: {p99: "
        "2 s}`) or as a multiple of the same request on an empty machine (`ttft: {p99: 6 x}`). It is met if that "
        "percentile of the measured requests keeps the bound; requests that were rejected or never finished count as "
        "infinitely late. A multiple is judged on each request's ratio to its own unloaded latency.",
        ("goodput", "unloaded", "attainment"),
        ("objective", "service level objective"),
    ),
    Term(
        "attainment",
        "Share of the measured requests within the bound of one objective. `slo_met` of a request: it finished within "
        "the bounds of all latencies it has; where a latency has several percentiles, the loosest of their bounds. "
        "ITL has no single value per request and is judged over all gaps only.",
        ("SLO", "goodput"),
        ("slo met",),
    ),
    Term(
        "unloaded",
        "The same request alone on the same cluster, nothing else running and no prefix cached. Up to 2,000 requests "
        "are simulated alone; where there are more, each is compared with the nearest of them by prompt and output "
        "length.",
        ("SLO",),
    ),
    Term(
        "throughput",
        "Requests that finished, and output tokens made, inside the measured window per second of it. The tokens of a "
        "request are taken as evenly spread from its first to its last.",
        ("goodput", "measured window"),
        ("requests per second", "tokens per second"),
    ),
    Term(
        "goodput",
        "Requests per second that finished inside the measured window and met every SLO threshold (as in DistServe).",
        ("throughput", "SLO"),
    ),
    Term(
        "measured window",
        "What is left of a run after workload.measure has cut off a warm-up and a cool-down, each a time or a share "
        "of the requests. Latencies are of requests that arrived in it, rates of what happened in it. Without a cut "
        "it is the whole run, from 0 to the last event, draining included. Energy, cost and engines are of the whole "
        "run.",
        ("warm-up",),
        ("measure", "window"),
    ),
    Term(
        "warm-up",
        "The first part of a run, while the machine fills up. It is measured unless workload.measure.warm_up cuts it "
        "off; the summary says so when it matters: when more than 5% of the requests arrived within one mean E2E of "
        "the first arrival.",
        ("measured window",),
        ("cool down",),
    ),
    Term(
        "saturated",
        "The queues kept growing until the last arrival, so that latencies tell the length of the run, not the "
        "system. Said when a straight line through the number of waiting visits grows by more than 2% of the arrivals "
        "and by more than three times the square root of their number, which is what a queue in balance drifts by "
        "chance.",
        ("queue",),
        ("saturation", "overload"),
    ),
    Term(
        "queue",
        "Time of a visit at its engine in which no step scheduled it: waiting for its first step, for a place in the "
        "batch, or after a preemption.",
        ("service", "preemption"),
        ("queueing",),
    ),
    Term(
        "service",
        "Time of the steps that scheduled a visit, cut by what limited them: compute, memory, network, host.",
        ("compute", "memory", "network", "host"),
    ),
    Term("compute", "Time in which arithmetic limited a step (the compute side of the roofline).", ("roofline",)),
    Term("memory", "Time in which memory bandwidth limited a step (the memory side of the roofline).", ("roofline",)),
    Term("network", "Time in which moving data between devices limited a step: collectives, pipeline hand-overs."),
    Term("host", "Time in which the CPU that drives the devices limited a step: scheduling, launching, sampling."),
    Term(
        "transfer",
        "Time to move a visit's input to its engine before it arrives there: retrieved documents, or a KV cache.",
        ("visit",),
    ),
    Term(
        "where TTFT goes",
        "The critical path of the first token, walked back from it: each visit whose end the next one waited for. "
        "Queue, host and transfer time add up over the path; the rest of the steps goes to the stage's kind; what no "
        "visit covers is `other`. Means over the measured requests; the shares add up to the mean TTFT.",
        ("TTFT", "queue"),
        ("ttft parts", "critical path"),
    ),
    Term(
        "bottleneck",
        "Where requests spend most of their time: over all measured visits, the stage and part (queue, transfer, or "
        "service by limiting resource) with the largest sum, and the busiest engine that serves the stage. A large "
        "service part need not mean overload (a decode alone is limited by memory bandwidth too); a large queue does.",
        ("utilization", "queue"),
        ("most time goes to",),
    ),
    Term(
        "utilization",
        "Share of the run in which an engine was running steps; with several workers, of their time together. A busy "
        "engine need not be an efficient one: see MFU and MBU.",
        ("MFU", "MBU"),
        ("utilisation", "busy"),
    ),
    Term(
        "MFU",
        "Model FLOPs utilization: FLOPs computed over the whole run, per dense peak of the engine's devices times the "
        "duration of the run.",
        ("MBU", "utilization"),
        ("model flops utilization",),
    ),
    Term(
        "MBU",
        "Memory bandwidth utilization: bytes moved over the whole run, per memory bandwidth of the engine's devices "
        "times the duration of the run.",
        ("MFU", "utilization"),
        ("memory bandwidth utilization",),
    ),
    Term(
        "roofline",
        "The lower bound on a time from the dense peak of the precision used and the bandwidth of the memory used: no "
        "step is faster.",
        ("compute", "memory"),
    ),
    Term(
        "KV block",
        "A fixed number of tokens' keys and values in an engine's memory, allocated and shared whole, as in vLLM.",
        ("prefix hit", "preemption"),
        ("kv cache", "block", "kv used"),
    ),
    Term(
        "prefix hit",
        "Prompt tokens whose KV blocks an earlier request has left in the engine's cache, so that they are not "
        "computed again. The share is over all prompt tokens.",
        ("KV block",),
        ("prefix caching", "prefix hits", "cached tokens"),
    ),
    Term(
        "preemption",
        "A running sequence gives its KV blocks back because another needs them; it waits and is computed again.",
        ("KV block",),
        ("preempted",),
    ),
    Term(
        "rejected",
        "A request that can never be served, for instance one that does not fit an engine's memory. It is counted, "
        "has no latency, and misses every SLO.",
    ),
    Term(
        "unfinished",
        "A request that was still inside when the run ended. It misses every SLO.",
    ),
    Term(
        "clipped",
        "A prompt cut to the model's limit, retrieved documents included. The tokens cut off are counted.",
    ),
    Term(
        "disaggregation",
        "Prefill and decode on different engines, with the KV cache moved between them (DistServe, Splitwise).",
        ("transfer",),
        ("disaggregated",),
    ),
    Term("session", "Requests of one conversation or agent: each sent after the one before it, with its context."),
    Term(
        "provenance",
        "Where a step time comes from: measured (a measured point), interpolated (between measured points), analytic "
        "(a formula with fitted or stated efficiencies) or estimate. The trust line weighs them by the service time "
        "of the visits. Every hardware number names its own source: datasheet, measured, fitted or estimate.",
        (),
        ("trust", "source", "estimate"),
    ),
    Term(
        "energy per output token",
        "Energy of the engines' devices over the whole run, idle time included, times the PUE, over all output "
        "tokens.",
        ("PUE",),
        ("energy", "j/output token"),
    ),
    Term("PUE", "Power usage effectiveness: energy of the facility over that of its devices.", (), ("pue",)),
    Term(
        "carbon",
        "Grams of CO2 equivalent of the facility's energy by the carbon intensity of its power, per finished request. "
        "Making the hardware is not counted.",
        ("energy per output token",),
        ("gco2e", "gco2"),
    ),
    Term(
        "cost",
        "Rent of the engines' devices for the whole run, per million output tokens or per finished request. A "
        "request's own cost_usd is its share by the engine time it used.",
        (),
        ("price", "cost per million output tokens"),
    ),
    Term(
        "replications",
        "The same scenario under other seeds. The summary gives the mean of each metric and the half-width of its 95% "
        "confidence interval by Student's t.",
        (),
        ("confidence interval", "seeds"),
    ),
)  # fmt: skip

_BY_ALIAS = {_key(alias): key for key, term in TERMS.items() for alias in term.aliases} | {key: key for key in TERMS}


def define(word: str) -> Term:
    """The term a word stands for, case and hyphens aside. Raises HermesError with the nearest ones if there is none."""
    key = _key(word)
    if key not in _BY_ALIAS:
        near = get_close_matches(key, _BY_ALIAS, n=1, cutoff=0.6)
        names = ", ".join(term.name for term in TERMS.values())
        guess = f" Did you mean '{TERMS[_BY_ALIAS[near[0]]].name}'?" if near else f" Defined are: {names}."
        raise HermesError(f"no definition of '{word}'.{guess}")
    return TERMS[_BY_ALIAS[key]]


def definition_text(term: Term, width: int = 100) -> str:
    """A definition for the terminal."""
    lines = textwrap.wrap(term.definition, width - 2, initial_indent="  ", subsequent_indent="  ")
    see = [f"  see also: {', '.join(term.see)}"] if term.see else []
    return "\n".join([term.name, *lines, *see])


def glossary_markdown() -> str:
    """The page docs/glossary.md."""
    lines = [
        "# Glossary",
        "",
        "What the words of results, files and screens mean here; `hermes-sim define TERM` shows one of them.",
        "Generated from `hermes_sim/analysis/glossary.py`.",
    ]
    for term in sorted(TERMS.values(), key=lambda term: term.name.lower()):
        lines += ["", f"## {term.name}", "", *textwrap.wrap(term.definition, 120)]
        if term.see:
            lines += ["", f"See also: {', '.join(f'[{name}](#{_anchor(name)})' for name in term.see)}."]
    return "\n".join(lines) + "\n"


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")
