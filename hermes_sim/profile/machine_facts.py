"""What a machine does apart from operators: copies, launches, threads, collectives, power."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from time import perf_counter, sleep
from typing import Final

from hermes_sim.profile.backend import Backend, Call, Timing
from hermes_sim.profile.case import Case
from hermes_sim.profile.kernel_cases import decode_case, gemm_case
from hermes_sim.profile.numpy_backend import NumpyBackend, copy_chunk, host_seconds, triad_chunk
from hermes_sim.profile.power import PowerMeter
from hermes_sim.profile.session import Session

COPY_BYTES: Final = tuple(4**power for power in range(5, 15))
"""1 KiB to 256 MiB."""
COLLECTIVE_BYTES: Final = tuple(4**power for power in range(4, 15))
GRAPH_KERNELS: Final = (1, 10, 100, 1000)
THREAD_BYTES: Final = (2**18, 2**20, 2**22, 2**24, 2**26, 2**28)
NUM_REPEATS = 15
REPEATS_BUDGET_S = 0.2
POWER_SECONDS = 1.5


def measure_copies(session: Session) -> None:
    """Copies inside the device's memory, to and from the host's pinned memory, to another device."""
    most_bytes = session.backend.free_bytes() / 16.0
    for num_bytes in (size for size in COPY_BYTES if size <= most_bytes):
        for kind, call in session.backend.copies(num_bytes).items():
            if not session.in_time:
                return
            _time(session, "copy", kind, "", {"num_bytes": num_bytes}, [call], graph=False)
        session.backend.release()


def measure_collectives(session: Session) -> None:
    """All-reduces between the devices of this machine, by one process, launched one by one."""
    for num_bytes in COLLECTIVE_BYTES:
        for num_devices, call in session.backend.collectives(num_bytes).items():
            shape: dict[str, object] = {
                "num_devices": num_devices,
                "num_bytes": num_bytes,
                "devices_per_node": num_devices,
                "library": "nccl",
            }
            _time(session, "all_reduce", "nccl", "bf16", shape, [call], graph=False)


def measure_launches(session: Session) -> None:
    """An empty kernel launched by the host, in a graph, and the replay of graphs of more and more kernels."""
    backend = session.backend
    call = backend.small_kernel()
    _time(session, "launch", "kernel_eager", "", {"num_kernels": 1}, [call], graph=False)
    if not backend.captures:
        return
    _time(session, "launch", "kernel_in_graph", "", {"num_kernels": 1}, [call], graph=True)
    for num_kernels in GRAPH_KERNELS:
        replay = backend.capture(_repeated(call, num_kernels))
        _time(session, "launch", "graph_replay", "", {"num_kernels": num_kernels}, [replay], graph=False)
        waited = _waited(backend, replay)
        _time(session, "launch", "graph_replay_and_wait", "", {"num_kernels": num_kernels}, [waited], graph=False)


def measure_threads(session: Session) -> None:
    """STREAM copy and triad by size and number of threads, on the CPU (McCalpin 1995)."""
    backend = session.backend
    if not isinstance(backend, NumpyBackend):
        return
    most = backend.num_threads
    counts = sorted({1, *(2**power for power in range(1, 9) if 2**power < most), most})
    for num_bytes in THREAD_BYTES:
        arrays = [backend.random((num_bytes // 12,), "fp32") for _ in range(3)]
        for num_threads in counts:
            for name, chunk, used in (("copy", copy_chunk, 2), ("triad", triad_chunk, 3)):
                shape: dict[str, object] = {"num_threads": num_threads, "num_bytes": 4 * used * arrays[0].size}
                if not session.in_time:
                    return
                if session.holds("threads", name, "fp32", shape):
                    session.num_found += 1
                    continue

                call = partial(backend.in_threads, num_threads, chunk, *arrays[:used])
                seconds = host_seconds([call], NUM_REPEATS, REPEATS_BUDGET_S, backend.clock, num_threads)
                session.add("threads", name, "fp32", shape, Timing(seconds, "eager"))


def measure_power(session: Session) -> None:
    """Board power and clock: idle, and while one kernel is repeated for a second and a half, by NVML."""
    meter = PowerMeter.open()
    if meter is None or not session.backend.captures:
        return
    with meter:
        if not session.holds("power", "idle", "", {}):
            _add_power(session, "idle", "", 0.0, "", *meter.watch(_idle))
        for name, case, work, unit in _loads(session.backend):
            if session.holds("power", name, case.dtype, {}):
                session.num_found += 1
                continue
            calls = case.prepare(session.backend, 4)
            start_s = perf_counter()
            num_calls, seconds, power_w, clock_hz = _under_load(session.backend, calls, meter)
            session.add(
                "power",
                name,
                case.dtype,
                {"power_w": power_w, "clock_hz": clock_hz, "work_per_s": work * num_calls / seconds, "work_unit": unit},
                Timing([perf_counter() - start_s], "graph"),
            )
            del calls
            session.backend.release()


def _loads(backend: Backend) -> list[tuple[str, Case, float, str]]:
    size = 8192
    loads = [
        (f"gemm_{dtype}", gemm_case("", dtype, size, size, size), 2.0 * size**3, "flop/s")
        for dtype in backend.gemm_dtypes
    ]
    skinny = gemm_case("", backend.dtype, 16, 28672, 8192)
    loads.append(("gemm_16_rows", skinny, skinny.buffer_bytes, "byte/s"))
    decode = decode_case("", backend.dtype, [4096] * 32, (32, 8, 128), paged=True)
    loads.append(("decode_attention", decode, decode.buffer_bytes, "byte/s"))
    return loads


def _under_load(backend: Backend, calls: Sequence[Call], meter: PowerMeter) -> tuple[int, float, float, float]:
    """Calls done, their seconds, mean power and clock; the first third warms up and is left out of the power."""
    num_calls = 0

    def work(end_s: float) -> None:
        nonlocal num_calls
        while perf_counter() < end_s:
            for call in calls:
                call()
            backend.synchronize()
            num_calls += len(calls)

    work(perf_counter() + POWER_SECONDS / 3.0)
    num_calls = 0
    start_s = perf_counter()
    power_w, clock_hz = meter.watch(lambda: work(perf_counter() + POWER_SECONDS))
    return num_calls, perf_counter() - start_s, power_w, clock_hz


def _add_power(
    session: Session, name: str, dtype: str, work_per_s: float, unit: str, power_w: float, clock_hz: float
) -> None:
    shape: dict[str, object] = {
        "power_w": power_w,
        "clock_hz": clock_hz,
        "work_per_s": work_per_s,
        "work_unit": unit,
    }
    session.add("power", name, dtype, shape, Timing([POWER_SECONDS], "eager"))


def _idle() -> None:
    sleep(POWER_SECONDS)


def _time(
    session: Session,
    operator: str,
    kernel: str,
    dtype: str,
    shape: dict[str, object],
    calls: Sequence[Call],
    *,
    graph: bool,
) -> None:
    session.measure(Case(operator, kernel, dtype, shape, 0.0, 0.0, lambda backend, num_buffers: calls), graph=graph)


def _repeated(call: Call, count: int) -> Call:
    def run() -> None:
        for _ in range(count):
            call()

    return run


def _waited(backend: Backend, call: Call) -> Call:
    def run() -> None:
        call()
        backend.synchronize()

    return run
