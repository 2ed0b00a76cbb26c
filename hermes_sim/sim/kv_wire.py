"""KV on the wire between two engines: bytes, conversions, and what of a layer-wise transfer still shows.

A layer-wise transfer is n equal pieces (layers x chunks of the prompt) through a line of two machines, the engine with
T / n each and the wire with p each (proportionate flow shop; Pinedo, Scheduling, section 6.1): the last piece is there
at T + p, or, where the wire is slower, at T / n + n p.
"""

from __future__ import annotations

from dataclasses import dataclass

from hermes_sim.batching import TokenBatching
from hermes_sim.core.schema import DTYPE_BYTES
from hermes_sim.models.parameters import state_bytes_per_sequence
from hermes_sim.perf.memory import device_kv_bytes_per_token
from hermes_sim.scenario.kv_transfer import KvTransfer
from hermes_sim.sim.replicas import Replica, kv_dtype, kv_transfer_bytes


@dataclass(frozen=True, slots=True)
class Wire:
    """What every transfer from one engine to another has in common."""

    bytes_per_token: float
    """On the wire, copies for every device of the target that keeps its own included."""
    bytes_per_sequence: float
    """Recurrent states."""
    convert_s_per_token: float
    """Both sides."""
    num_layers: int
    chunk_tokens: int
    """Most tokens of a step of the prefill engine; 0: prompts are computed whole."""

    def num_bytes(self, num_tokens: int) -> float:
        """Of a prompt."""
        return num_tokens * self.bytes_per_token + self.bytes_per_sequence

    def num_pieces(self, num_tokens: int) -> int:
        """Of a layer-wise transfer."""
        num_chunks = -(-num_tokens // self.chunk_tokens) if self.chunk_tokens > 0 else 1
        return self.num_layers * max(num_chunks, 1)


def wire(source: Replica, target: Replica, transfer: KvTransfer) -> Wire:
    """Between these engines. KV heads are cut over the target's devices and copied where there are fewer; latents are
    copied to each (vLLM's and SGLang's ranks fetch what each of them keeps)."""
    model = source.model
    assert model is not None
    on_wire = transfer.dtype or kv_dtype(source)
    tp = target.engine.parallel.tp
    whole = kv_transfer_bytes(target, 1)
    copies = device_kv_bytes_per_token(model, kv_dtype(target), tp=tp) * tp / whole if whole > 0.0 else 1.0
    scale = DTYPE_BYTES[on_wire] / DTYPE_BYTES[kv_dtype(source)]
    per_token = kv_transfer_bytes(source, 1) * scale
    convert_s = 0.0
    for replica, times in ((source, 1.0), (target, copies)):
        if kv_dtype(replica) != on_wire:
            moved = (kv_transfer_bytes(replica, 1) + per_token) * times
            device = replica.device
            rate = device.memory.bandwidth_bytes_per_s * device.cost_model.elementwise_memory_frac
            convert_s += moved / (rate * replica.num_devices)
    batching = source.engine.batching
    assert isinstance(batching, TokenBatching)
    return Wire(
        bytes_per_token=per_token * copies,
        bytes_per_sequence=state_bytes_per_sequence(model) * copies,
        convert_s_per_token=convert_s,
        num_layers=model.num_layers,
        chunk_tokens=batching.max_num_batched_tokens if batching.switches().chunk_prefill else 0,
    )


def shown_s(computed_s: float, wire_s: float, num_pieces: int) -> float:
    """From the end of the compute until the last piece is there. computed_s, wire_s: of all pieces."""
    piece_s = wire_s / num_pieces
    return max(piece_s, wire_s - computed_s * (num_pieces - 1) / num_pieces)
