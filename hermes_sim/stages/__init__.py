"""Kinds of work. One file a stage; this table is the list."""

from __future__ import annotations

from hermes_sim.stages.decode import Decode
from hermes_sim.stages.diffusion import Diffusion
from hermes_sim.stages.embed import Embed
from hermes_sim.stages.encode import Encode
from hermes_sim.stages.guard import Guard
from hermes_sim.stages.kv_retrieval import KvRetrieval
from hermes_sim.stages.prefill import Prefill
from hermes_sim.stages.repeat import STAGES, Repeat
from hermes_sim.stages.rerank import Rerank
from hermes_sim.stages.retrieve import Retrieve
from hermes_sim.stages.route import Route
from hermes_sim.stages.stage import Stage
from hermes_sim.stages.text import Detokenize, Filter, Tokenize
from hermes_sim.stages.timed import Timed
from hermes_sim.stages.tree_search import TreeSearch

STAGES |= {
    "decode": Decode,
    "detokenize": Detokenize,
    "diffusion": Diffusion,
    "embed": Embed,
    "encode": Encode,
    "filter": Filter,
    "guard": Guard,
    "kv_retrieval": KvRetrieval,
    "prefill": Prefill,
    "repeat": Repeat,
    "rerank": Rerank,
    "retrieve": Retrieve,
    "route": Route,
    "timed": Timed,
    "tokenize": Tokenize,
    "tree_search": TreeSearch,
}

__all__ = ["STAGES", "Stage"]
