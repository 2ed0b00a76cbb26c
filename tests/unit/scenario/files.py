"""A small cluster and workload as YAML text, to be changed by one line a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_sim.core.errors import ConfigError
from hermes_sim.scenario.load import Overrides, load_scenario
from hermes_sim.scenario.scenario import Scenario

CLUSTER = """\
name: two_engines
nodes:
  - name: dgx
    devices: {gpu: {profile: a100_sxm_80gb, count: 8}, cpu: {profile: epyc_7742, count: 2}}
    links:
      - {between: [gpu, gpu], profile: nvlink3}
      - {between: [gpu, cpu], profile: pcie4_x16}
      - {between: [cpu, cpu], profile: xgmi2_epyc}
engines:
  - name: llm
    serves: [prefill, decode]
    model: llama_3_70b
    replicas: 2
    placement: {gpu: 4}
    parallel: {tp: 4}
    batching: {kind: chunked_prefill, max_num_seqs: 256, max_num_batched_tokens: 2048}
  - name: retriever
    serves: [embed, retrieve, rerank]
    placement: {cpu: {devices: 2, cores: 96}}
"""

WORKLOAD = """\
name: rag
traffic:
  arrivals: {kind: poisson, rate: 4 /s}
  num_requests: 20
  lengths: {kind: fixed, num_prompt_tokens: 100, num_output_tokens: 10}
pipelines:
  - name: rag
    stages:
      - {name: embed, kind: embed, model: e5_base, num_tokens: 64}
      - name: retrieve
        kind: retrieve
        after: [embed]
        top_k: 8
        tokens_per_document: 256
        index: {kind: ivf_pq, num_vectors: 1e8, dim: 768, nlist: 65536, nprobe: 32, code_bytes: 64}
      - {name: prefill, kind: prefill, after: [retrieve]}
      - {name: decode, kind: decode, after: [prefill]}
slo: {ttft: {p99: 2 s}, tpot: {p99: 50 ms}}
"""


class Folder:
    """The working directory of a test, with cluster.yaml and workload.yaml in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def load(self, *changes: tuple[str, str], overrides: Overrides = ()) -> Scenario:
        """Each change replaces text that one of the two files holds."""
        texts = {"cluster.yaml": CLUSTER, "workload.yaml": WORKLOAD}
        for old, new in changes:
            assert any(old in text for text in texts.values()), f"{old!r} is in neither file"
            texts = {name: text.replace(old, new) for name, text in texts.items()}
        for name, text in texts.items():
            self.write(name, text)
        return load_scenario("cluster.yaml", "workload.yaml", overrides=overrides)

    def problems(self, *changes: tuple[str, str], overrides: Overrides = ()) -> list[str]:
        """What is wrong after these changes, a line each."""
        with pytest.raises(ConfigError) as caught:
            self.load(*changes, overrides=overrides)
        return str(caught.value).splitlines()
