"""The words of results and files and what they mean here, one entry each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Term:
    """One word, what it means here, and the other spellings it is asked for by."""

    name: str
    definition: str
    see: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


def _terms(*terms: Term) -> dict[str, Term]:
    return {key_of(term.name): term for term in terms}


def key_of(word: str) -> str:
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
        ("kind", "serves"),
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
        "replica, the client of the HERMES paper. `llm[0]` is the first replica of the engine `llm`; `llm[0].dp1` is "
        "its second rank of data-parallel attention, with a queue and KV blocks of its own.",
        ("step", "batch"),
        ("replica", "rank", "devices"),
    ),
    Term(
        "engine preset",
        "Defaults of a named serving engine (vllm_v1, vllm_v0, sglang, trtllm, orca, distserve) for the keys of an "
        "engine, each with its source; what the file states wins. `hermes-sim show preset/vllm_v1` prints one.",
        ("engine", "policy"),
        ("preset",),
    ),
    Term(
        "policy",
        "Who runs in a step (batching), or which engine a request goes to (routing). `hermes-sim list policies` names "
        "them; your own are twenty lines of Python (docs/writing-a-policy.md).",
        ("engine", "step"),
        ("batching policy", "routing policy", "router", "scheduler", "plug-in", "plugin"),
    ),
    Term(
        "client",
        "Whoever sent a request, as a trace names it; -1 where it does not. Fair queueing divides an engine among "
        "clients. (What the HERMES paper calls a client is an engine here.)",
        ("engine", "request"),
    ),
    Term(
        "sample",
        "One of several answers to the same prompt, generated side by side: they share the prompt's KV blocks, and a "
        "block that is part full is copied when a sample first writes to it (copy on write). A request's "
        "num_output_tokens are those of all its samples; it ends with the last of them; its TPOT is by the longest "
        "(num_longest_sample_tokens).",
        ("KV block", "TPOT"),
        ("samples", "parallel samples", "longest sample tokens", "copy on write", "copied blocks"),
    ),
    Term(
        "status",
        "What became of a request: finished, rejected (at the front door, or because no engine can hold it), failed "
        "(lost to failures too often), left (its client hung up), or unfinished; `reason` says why not finished.",
        ("rejected", "unfinished", "failure", "front door", "patience"),
        ("finished", "reason"),
    ),
    Term(
        "service class",
        "A kind of requests with a priority, a promise (SLO) and a patience of its own, claimed by pipeline or drawn "
        "by weight (`classes` of a workload). Each has its own goodput; objectives are judged over its own requests.",
        ("SLO", "goodput", "front door", "patience"),
        ("class", "classes", "priority"),
    ),
    Term(
        "front door",
        "Where a cluster takes requests in or rejects them (`admission`): a rate limit (reason rate_limit), places "
        "inside (queue_full, or shed: turned out for a higher class), a first token that would come too late "
        "(too_late).",
        ("status", "service class", "rejected"),
        ("admission", "rate limit", "early rejection", "shed"),
    ),
    Term(
        "hedge",
        "A copy of a visit that is sent to a second engine when the first has not answered in time; the first answer "
        "counts, the other is taken back (`routing: {hedge: ...}`).",
        ("visit", "status"),
        ("hedges", "hedged request"),
    ),
    Term(
        "patience",
        "How long a client waits for its first token or its last one before it hangs up; its request is then taken "
        "back from wherever it is, and its KV blocks are free (reasons no_first_token and no_end).",
        ("status", "service class"),
        ("left", "hang up"),
    ),
    Term(
        "timestamp",
        "A moment of the run in seconds from its start. arrival_s: the request was sent, or a visit came to its "
        "engine. start_s: the first step that scheduled the visit began (of an interval: its begin). first_token_s "
        "and finish_s of a request: the client received the first and the last token; engine_first_token_s: the "
        "engine's step ended.",
        ("TTFT", "visit", "timeline"),
        ("arrival", "start", "end", "finish", "first token", "engine first token", "time", "duration"),
    ),
    Term(
        "tokens",
        "num_prompt_tokens of a request: as the language model saw them, documents and images included, after "
        "clipping; of an engine: those it computed, cache hits not included. num_output_tokens: generated and kept. "
        "num_tokens of a step: all it computed, prompt tokens, one a decode, drafts.",
        ("clipped", "prefix hit", "sample", "speculative decoding"),
        ("prompt tokens", "output tokens", "prefill tokens", "prefill", "decode", "decode context tokens",
         "decode context"),
    ),
    Term(
        "image tokens",
        "Tokens of a prompt that stand for images or sound: computed and cached like others; no text repeats them.",
        ("tokens", "encoder"),
        ("multimodal",),
    ),
    Term(
        "encoder",
        "A network that turns images or sound into vectors that join a prompt (stage `encode`). num_images: images, or "
        "clips of sound, that a request brings for it; num_cached_images: of these, found in its cache, so that they "
        "are neither computed nor sent.",
        ("image tokens", "transfer"),
        ("encode", "images", "cached images", "vision encoder"),
    ),
    Term(
        "adapter",
        "A low-rank adapter (LoRA) that a request names: small matrices beside those of the model. An engine holds "
        "some in slots; num_adapter_hits: sequences that joined the running ones and found theirs there; "
        "num_adapter_loads: those for which it was copied there first, which their step waited for.",
        ("engine",),
        ("lora", "adapters", "adapter loads", "adapter hits", "adapter hit"),
    ),
    Term(
        "refusal",
        "A guard's verdict that a prompt must not be answered, or an answer not be given: num_refusals of a request "
        "are the guards that said so. What the pipeline leaves out then takes no time; the request counts as finished.",
        ("status", "stage"),
        ("refusals", "guard", "refused"),
    ),
    Term(
        "diffusion",
        "Making images from noise, step by step (stage `diffusion`). num_drawn_images: images made for a request; "
        "num_denoising_steps: the steps that they took together, those left out because a similar finished image was "
        "found not counted.",
        ("stage",),
        ("drawn images", "denoising steps", "denoising"),
    ),
    Term(
        "step",
        "One forward pass of an engine over the sequences scheduled in it.",
        ("batch", "decision"),
        ("iteration", "steps"),
    ),
    Term(
        "decision",
        "What the scheduler did in a step, recorded by `--steps`: scheduled (tokens), admitted (tokens found in the "
        "prefix cache, or whose KV came from elsewhere), preempted (computed tokens lost), swapped_out and swapped_in "
        "(KV blocks), accepted (drafts), finished (output tokens). A sequence that was given tokens and preempted "
        "later in the same step is not scheduled in it.",
        ("step", "preemption", "prefix hit", "swap", "speculative decoding"),
        ("decisions", "amount", "admitted", "scheduled", "steps table"),
    ),
    Term(
        "running",
        "A sequence is running from its admission into the batch until its end or a preemption, whether or not a step "
        "gives it tokens; before that it is waiting (vLLM's words). In the timeline num_waiting counts visits before "
        "their first step and num_preempted those that wait to go on: how long each was preempted is exact, when is "
        "taken as spread evenly over its service.",
        ("queue", "preemption", "batch"),
        ("waiting",),
    ),
    Term(
        "timeline",
        "What every engine did in each of up to 200 equal intervals of the run. Sums over the intervals (seconds, "
        "steps, tokens, preemptions, blocks, drafts) are the engine's totals; a step across an edge counts in both "
        "intervals by its time in each. mean_batch and mean_kv_used_frac are means over the busy time, utilization, "
        "MFU and MBU over all of it.",
        ("utilization", "batch", "running"),
        ("over time", "interval"),
    ),    Term(
        "batch",
        "The sequences (or jobs) of one step. The results give the mean over steps, weighted by their time.",
        ("step",),
        ("batch size", "mean batch"),
    ),
    Term(
        "TTFT",
        "Time to first token: first_token_s - arrival_s, as the client sees it, from sending the request to receiving "
        "the first message: tokenising, queueing, retrieval, transfers and detokenising are included. The first token "
        "appears at the end of the step that computes the last part of the prompt; engine_ttft_s ends there. A request "
        "without output tokens has none. With prefill and decode on different engines, the first token comes from the "
        "prefill engine. Other tools stop the clock elsewhere: compare like with like.",
        ("TPOT", "ITL", "E2E", "front end", "where TTFT goes"),
        ("time to first token", "engine ttft"),
    ),
    Term(
        "TTFAT",
        "Time to first answer token: first_answer_token_s - arrival_s. Reasoning models write thoughts before the "
        "answer; TTFT ends with the first token of either. Without thoughts both are the same.",
        ("TTFT", "thought"),
        ("time to first answer token", "first answer token"),
    ),
    Term(
        "thought",
        "Output tokens of a decode that `writes: thought`: reasoning that the client sees before the answer. They are "
        "part of num_output_tokens. Those of a decode that `writes: note` (a rewritten query, a grade) are not: the "
        "client never sees them.",
        ("TTFAT", "pass", "tokens"),
        ("thought tokens", "note", "note tokens", "reasoning"),
    ),
    Term(
        "pass",
        "One prompt that a language model reads and what it writes then: a prefill with the decodes behind it. "
        "num_passes of a request counts those whose tokens the client sees. decode_s adds up the time from first to "
        "last token of each; where there are several, with retrieval or tools between them, TPOT is decode_s / (tokens "
        "- passes).",
        ("TPOT", "round", "thought"),
        ("passes", "decode time"),
    ),
    Term(
        "early exit",
        "A decode may end before the tokens that its law draws: a reduction writes fewer, a checkpoint writes a trial "
        "answer and ends the reasoning if the model is sure. num_saved_tokens were left unwritten; num_probe_tokens, "
        "part of num_output_tokens, are the trial answers.",
        ("thought", "tokens"),
        ("reduction", "checkpoint", "saved tokens", "probe tokens"),
    ),
    Term(
        "wait",
        "While a tool runs or a user thinks, a request is away from the engine between two passes. kv_cache."
        "while_waiting says what becomes of its KV: left to the prefix cache, kept, dropped, offloaded to the host. "
        "num_kept_waits, num_dropped_waits and num_offloaded_waits of an engine count what was done; kept_block_s adds "
        "up blocks times the seconds that they were kept for somebody away.",
        ("prefix hit", "swap", "round"),
        ("waits", "while waiting", "kept waits", "dropped waits", "offloaded waits", "kept block"),
    ),
    Term(
        "search",
        "A `tree_search` writes several candidates of each step of a solution, a verifier scores them, and the best "
        "are gone on from. num_candidates of a request counts those that were scored; num_discarded_tokens, part of "
        "num_output_tokens, those of candidates that are not on the path kept at the end, and lookahead.",
        ("sample", "thought", "round"),
        ("tree search", "beam", "candidate", "candidates", "discarded tokens", "verifier"),
    ),
    Term(
        "round",
        "A `repeat` sends a request several times through the same stages; a visit's round says which time it is, "
        "from 0.",
        ("visit", "pass"),
        ("rounds", "repeat", "hop"),
    ),
    Term(
        "route",
        "A stage that gives every request one of several outcomes: by chance, by the length of its prompt, by load. "
        "Later stages say `when` they run. A cascade asks a small model first and a large one `when` the small one is "
        "not sure.",
        ("quality", "pass"),
        ("outcome", "cascade", "when"),
    ),
    Term(
        "quality",
        "Proxy for how good an answer is: what the decode that gave it states for its model (accuracy on a benchmark, "
        "say). An input, not a result: it stands beside latency and cost where a route chooses between models.",
        ("route",),
        ("answer quality", "mean quality"),
    ),
    Term(
        "front end",
        "What stands between client and engine: tokenisers before it (tokenize_s of a visit, waiting for one "
        "included), detokenisers and streaming behind it. Without host.tokenize and host.detokenize in the cluster "
        "file it takes no time. Utilizations are those of the workers over the run.",
        ("TTFT", "host"),
        ("tokenize", "tokenizer utilization", "detokenizer utilization", "tokenizer", "detokenizer", "detokenize",
         "streaming"),
    ),
    Term(
        "TPOT",
        "Time per output token after the first: (finish_s - first_token_s) / (num_output_tokens - 1), one value per "
        "request; of several samples the longest counts. A request of fewer than two tokens has none. Moving the KV "
        "cache from a prefill engine to a decode engine counts here.",
        ("ITL", "TTFT"),
        ("time per output token",),
    ),
    Term(
        "ITL",
        "Inter-token latency: each gap between consecutive output tokens of a request, one value per gap. Its mean is "
        "exact, over the measured requests; its percentiles come from a histogram of the gaps that ended in the "
        "measured window (in the whole run where arrivals depend on answers: closed loops, sessions; from its start "
        "where the warm-up is found afterwards), and the summary states the width of its bins, which bounds their "
        "error.",
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
        "the first arrival. `warm_up: auto` cuts it where MSER-5 finds that the run has settled.",
        ("measured window", "MSER-5"),
        ("cool down",),
    ),
    Term(
        "MSER-5",
        "The rule behind `warm_up: auto`: of all cuts the one behind which the mean is known best, on means of five "
        "requests each, taken over the logarithms of TTFT and of E2E and over the number of requests inside at each "
        "arrival; the latest of the three counts. A best cut in the later half of a latency, or queues that grow to "
        "the end, are no steady state: nothing is cut, and the summary says so.",
        ("warm-up", "steady state"),
        ("warm up auto", "mser", "requests inside"),
    ),
    Term(
        "steady state",
        "The part of a run whose statistics do not change any more with time. Intervals from one run assume it; a "
        "saturated run has none.",
        ("MSER-5", "saturated", "confidence interval"),
    ),
    Term(
        "confidence interval",
        "What chance allows: an interval that holds the true value in 95 of 100 runs. Of one run: batch means, since "
        "its requests depend on each other; of replications: Student's t over the seeds, which takes its place. Not "
        "the error of the model against a real machine, which the lines `trust` of the summary speak of.",
        ("batch means", "significant", "steady state", "provenance"),
        ("confidence", "half width", "confidence 95%"),
    ),
    Term(
        "batch means",
        "The requests of a run in order of arrival, cut into 30, 20 or 10 equal batches, as many as show no "
        "correlation between neighbours; the spread of the batches' means tells how well the mean is known. Where "
        "even ten are correlated the run is too short to say.",
        ("confidence interval",),
    ),
    Term(
        "significant",
        "Beyond chance: a difference as large would be seen in fewer than one of twenty comparisons of runs that do "
        "not differ. Where several metrics or runs are compared the limit holds for all of them together (Holm). "
        "Runs with the same requests are compared request by request, replications seed by seed.",
        ("confidence interval",),
        ("significance", "p value", "holm", "paired", "within chance"),
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
        ("service", "preemption", "held line"),
        ("queueing",),
    ),
    Term(
        "held line",
        "Of the time from arriving at a token engine to the first step there, what held the head of its line: "
        "kv_wait_s, too few free KV blocks; batch_wait_s, a full batch (max_num_seqs, adapter slots, a static batch "
        "under way); budget_wait_s, prompts ahead that took the token budget of the steps. What is left of it was "
        "spent on the step in flight. Under a policy of your own nothing is told apart.",
        ("queue", "KV block", "batch"),
        ("kv wait", "batch wait", "budget wait", "line"),
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
        "Model FLOPs utilization: FLOPs of useful tokens over the whole run, per dense peak of the engine's devices "
        "times the duration of the run. Padding, dummy steps of idle ranks and drafts that were thrown away are no "
        "useful work; what is computed again after a preemption counts.",
        ("MBU", "utilization"),
        ("model flops utilization", "flops"),
    ),
    Term(
        "MBU",
        "Memory bandwidth utilization: bytes moved over the whole run, per memory bandwidth of the engine's devices "
        "times the duration of the run.",
        ("MFU", "utilization"),
        ("memory bandwidth utilization", "bytes"),
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
        ("prefix hit", "preemption", "swap"),
        ("kv cache", "block", "blocks", "kv used", "mean kv used", "peak kv used", "free blocks"),
    ),
    Term(
        "KV store",
        "Memory beside the engines that keeps the KV of prompts in chunks of some hundred tokens: host DRAM, a CXL "
        "pool, SSDs, storage of a rack or of all. `host_dram[0]` is the instance of the first engine, node or rack. "
        "num_asked_tokens: prompt tokens looked up there that the engine's own cache did not hold; num_hit_tokens: of "
        "these, held there and by no store asked before; num_read_tokens: of these, sent, the others were computed "
        "sooner. num_reloaded_tokens of a request: those that stores have sent for it; num_cached_tokens stays what "
        "the engine's own cache had. Chunks are evicted for room, and expire where nobody uses them for a ttl.",
        ("prefix hit", "KV block", "transfer"),
        ("kv stores", "store", "medium", "asked tokens", "hit tokens", "hit", "read tokens", "reloaded tokens", "read",
         "written", "written chunks", "evicted chunks", "expired chunks", "read utilization", "write utilization",
         "capacity", "used", "peak used", "kv retrieval", "chunk"),
    ),
    Term(
        "prefix hit",
        "Prompt tokens whose KV blocks an earlier request has left in the engine's cache, so that they are not "
        "computed again. The share is over all prompt tokens. By blocks (prefix_hit_frac of an engine): full blocks "
        "found over full blocks looked for, at every admission, those after a preemption included.",
        ("KV block", "KV store"),
        ("prefix caching", "prefix hits", "cached tokens", "hit blocks", "looked up blocks"),
    ),
    Term(
        "preemption",
        "A running sequence gives its KV blocks back because another needs them; it waits and is computed again, or "
        "its KV comes back from the host where the engine swaps.",
        ("KV block", "swap"),
        ("preempted", "preemptions", "recomputed tokens"),
    ),
    Term(
        "swap",
        "Preemption that copies the KV blocks to the host's memory, and back when the sequence goes on; the copies are "
        "part of the steps they come before (network time). num_swapped_blocks counts each way.",
        ("preemption", "KV block"),
        ("swapped blocks", "swapped in blocks", "swapped out blocks", "swapped in", "swapped out"),
    ),
    Term(
        "speculative decoding",
        "A cheap drafter proposes several tokens of each sequence, one pass of the model verifies them, and the "
        "leading ones that are right are kept, with one more from the model itself (Leviathan et al., 2023). "
        "acceptance_frac: drafts kept over drafts made. tokens_per_decode: output tokens per sequence and decode "
        "step, 1 without drafts.",
        ("tokens", "step"),
        ("speculation", "acceptance", "drafted tokens", "accepted tokens", "accepted", "tokens per decode", "drafts",
         "speculation speedup"),
    ),
    Term(
        "draft device",
        "A device of its own that drafts for an engine, in the same box or at the client's (`on` of a draft model); "
        "the engine verifies. draft_wait_s of a visit: from the end of each of its steps until the next drafts were "
        "there, messages to and fro included. num_draft_rounds: such round trips; draft_round_s: their mean wait; "
        "num_sent_drafts: what came with them. num_pre_drafts: rounds in which the device drafted ahead while the "
        "engine verified; num_pre_drafts_right: those of use. draft_busy_s, draft_utilization_frac, draft_energy_j and "
        "draft_devices are of all such devices of an engine; their energy and rent are part of the engine's.",
        ("speculative decoding", "link"),
        ("draft wait", "draft rounds", "draft round", "sent drafts", "pre drafts", "pre drafts right", "draft devices",
         "draft busy", "draft utilization", "draft energy"),
    ),
    Term(
        "link",
        "One direction of a connection between devices, nodes or switches. The links table holds what was moved "
        "between engines and stores (KV caches): busy_s is the time that any transfer was on the link, bytes those "
        "that went layer by layer beside a prompt's compute too. Collectives inside a step are part of its network "
        "time; where they meet transfers on a link, both are slower.",
        ("transfer", "network", "fabric"),
        ("links", "transfers"),
    ),
    Term(
        "device group",
        "Equal devices of a node under one name. An engine may span several, each with some of the model's operators "
        "(operators_on); activations that go between them are network time. The device_groups table has the work, "
        "energy and rent of each.",
        ("operator", "sub-batch interleaving", "active energy"),
        ("device groups", "operators on", "group", "device"),
    ),
    Term(
        "sub-batch interleaving",
        "Two halves of a batch take turns on two kinds of devices: one attends while the other has everything else, so "
        "that the longer side counts instead of the sum (NeuPIMs, 2024). In a step with prompts, decodes attend beside "
        "them.",
        ("device group", "step"),
        ("interleaving", "interleave sub batches", "side by side"),
    ),
    Term(
        "active energy",
        "Energy of a device above its idle power: by operation in arrays that count it, else seconds at work times the "
        "power above idle while that limits. With the idle power of all groups it makes the engine's energy.",
        ("energy per output token", "device group"),
        ("active energy j",),
    ),
    Term(
        "fabric",
        "The switches between nodes, level by level: leaf-spine, fat tree, rail-optimised. oversubscription: what "
        "comes into a switch from below over what it can send up. Flows take one of several equal paths (ECMP, "
        "static) or a part of each (spray). Without one the network has full bisection bandwidth.",
        ("link",),
        ("oversubscription", "ecmp", "rails", "leaf spine", "fat tree", "uplink"),
    ),
    Term(
        "operator",
        "One kind of kernel of a step, all layers together. The operators table prices a representative step of every "
        "engine and stage: its mean batch, with the mean number of drafts where it verifies some. `bound` is the "
        "resource that limits it. kv_write has bytes but no time of its own: attention was measured with it.",
        ("step", "provenance", "roofline"),
        ("operators", "bound", "kv write"),
    ),
    Term(
        "rejected",
        "A request that can never be served, for instance one that does not fit an engine's memory. It is counted, "
        "has no latency, and misses every SLO.",
    ),
    Term(
        "failure",
        "A replica loses all that it holds, KV cache included, and takes nothing until it is repaired (`availability` "
        "of the cluster file). Passes and jobs that were in it are sent again from their prompt when it has been "
        "noticed: num_retries of a request. One that is lost more often than max_retries has failed, and misses every "
        "SLO. Energy and engine time of lost attempts stay with the request.",
        ("status", "autoscaling"),
        ("failed", "retries", "retried", "outage", "maintenance"),
    ),
    Term(
        "autoscaling",
        "Replicas that come and go with the load (`autoscaling` of an engine). on_s of an engine is the part of the "
        "run in which it was paid for and drew power: from the decision to start it until it has ended what it had; "
        "up_frac the share in which it took requests.",
        ("failure", "cost"),
        ("on", "on time", "cold start", "up"),
    ),
    Term(
        "unfinished",
        "A request that was still inside when the run ended. It misses every SLO.",
    ),
    Term(
        "clipped",
        "A prompt cut to the model's limit, retrieved documents included. The tokens cut off are counted.",
        (),
        ("clipped tokens",),
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
        "Energy of the engines' devices over the whole run, idle time included, and of transfers between them, times "
        "the PUE, over all output tokens. A request's energy_j is its share of the steps it was in, idle_energy_j of "
        "what else its engines used, link_energy_j of its transfers: together they add up to the whole.",
        ("PUE",),
        ("energy", "j/output token", "idle energy", "link energy"),
    ),
    Term("PUE", "Power usage effectiveness: energy of the facility over that of its devices.", (), ("pue",)),
    Term(
        "carbon",
        "Grams of CO2 equivalent of the facility's energy by the carbon intensity of its power at that hour, per "
        "finished request. A request's own carbon_g is that of its energy; all add up to the whole. Making the "
        "hardware is not counted.",
        ("energy per output token",),
        ("gco2e", "gco2"),
    ),
    Term(
        "cost",
        "Rent of the engines' devices for the time they were on, or capital written off in that time and electricity "
        "where devices are owned, per million output tokens or per finished request. A request's own cost_usd is its "
        "share, of rent and capital by the engine time it used, of electricity by energy; all add up to the whole.",
        (),
        ("price", "cost per million output tokens", "electricity"),
    ),
    Term(
        "replications",
        "The same scenario under other seeds. The summary gives the mean of each metric and the half-width of its 95% "
        "confidence interval by Student's t.",
        (),
        ("seeds",),
    ),
)  # fmt: skip
