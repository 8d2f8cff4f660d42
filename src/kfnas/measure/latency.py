"""Latency on this machine with ONNX Runtime.

One session, input and output bound, one pinned core, warm-up, then one window of samples whose median is the answer. A sample is one run, or several short
ones timed together. Load on other cores hardly matters to a pinned thread; load on its own core ruins a window, and shows: the thread's CPU time falls behind
the wall clock. Such a window is rejected and taken again on another core, and when none is clean the network is `unmeasured`: bad windows are never averaged
into an answer.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from kfnas.config import canonical_json
from kfnas.errors import ConfigError, UserError
from kfnas.measure.host import accelerator_models, allowed_cores, cpu_limits, cpu_model, current_core, involuntary_switches, pinned
from kfnas.measure.records import LatencyConfig, LatencyRecord, Provenance, latency_key

_logger = logging.getLogger(__name__)

_ON_THE_CPU = frozenset({"CPUExecutionProvider", "XnnpackExecutionProvider", "DnnlExecutionProvider", "ACLExecutionProvider", "ArmNNExecutionProvider"})
_CUDA = frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"})
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5
_MAX_RUNS_PER_SAMPLE = 1000


class Device(Protocol):
    """A machine that latency is taken on."""

    def fingerprint(self) -> str:
        """What it is, as text that is equal for machines whose records may stand in for each other; runtime version included."""
        ...

    def measure(self, model: bytes, config: LatencyConfig, *, graph: str) -> LatencyRecord:
        """Time `model` (ONNX) and answer under `latency_key(graph, self.fingerprint(), config)`.

        Args:
            model: ONNX file; weights do not matter, but must not be denormal.
            config: the protocol; its batch is the model's.
            graph: digest of the model without weights: `graph_digest` of its specification, or `model_digest` of a file.
        """
        ...


@dataclass(frozen=True)
class Clock:
    """Where time comes from, in seconds; a test passes its own."""

    wall: Callable[[], float] = time.perf_counter
    thread_cpu: Callable[[], float] = time.thread_time
    process_cpu: Callable[[], float] = time.process_time
    sleep: Callable[[float], None] = time.sleep


class Window(NamedTuple):
    """Timed samples in a row and what disturbed them; see `Provenance` for the fields' meaning. Durations are of one run."""

    durations_ms: npt.NDArray[np.float64]
    cpu_ratio: float
    involuntary_switches: int | None
    num_throttled: int | None
    affinity: tuple[int, ...] | None
    runs_per_sample: int = 1

    @property
    def spread(self) -> float:
        """Interquartile range / median."""
        low, middle, high = np.percentile(self.durations_ms, (25, 50, 75))
        return float((high - low) / middle) if middle > 0 else float("inf")


class LocalDevice:
    """The machine that this process runs on."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()

    @cached_property
    def _fingerprint(self) -> str:
        parts = {
            "arch": platform.machine(),
            "cores": os.cpu_count(),
            "cpu": cpu_model(),
            "quota_cores": cpu_limits().quota_cores,
            "runtime": _runtime(),
            "system": platform.system(),
        }
        accelerators = accelerator_models()
        return canonical_json(parts | ({"accelerators": accelerators} if accelerators else {}))

    def fingerprint(self) -> str:
        """JSON of architecture, cores, processor, CPU quota, GPUs, system and runtime version."""
        return self._fingerprint

    def measure(self, model: bytes, config: LatencyConfig, *, graph: str) -> LatencyRecord:
        """See `Device`. Restores the thread's affinity.

        Raises:
            ConfigError: the provider is not available here, or there are fewer cores than threads.
            UserError: `model` is no ONNX graph that the runtime can load, or its batch is not the configuration's.
        """
        _require_provider(config.provider)
        cores = allowed_cores()
        if config.threads > len(cores):
            raise ConfigError(f"latency.threads: {config.threads} threads on {len(cores)} usable cores would wait for each other; give {len(cores)} or fewer")
        first = current_core()
        start = cores.index(first) if first in cores else 0
        rejected: list[str] = []
        for attempt in range(config.retries + 1):
            chosen = [cores[(start + attempt + offset) % len(cores)] for offset in range(config.threads)]
            window = self._window(model, config, chosen)
            reason = rejection(window, config)
            if reason is None:
                return self._record(config, graph, window, rejected, accepted=True)
            rejected.append(reason)
            _logger.debug("window %d of graph %s rejected: %s", attempt + 1, graph[:12], reason)
            if attempt < config.retries:
                self._clock.sleep(min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**attempt))
        return self._record(config, graph, window, rejected, accepted=False)

    def _window(self, model: bytes, config: LatencyConfig, cores: list[int]) -> Window:
        # The session is made under the pin: its worker threads inherit the affinity of the thread that makes them.
        with pinned(cores) if config.pin else nullcontext(None) as affinity:
            run = _bound_session(model, config)
            for _ in range(config.warmup):
                run()
            with _no_garbage_collection():
                return self._timed(run, config, affinity)

    def _timed(self, run: Callable[[], None], config: LatencyConfig, affinity: tuple[int, ...] | None) -> Window:
        wall = self._clock.wall
        cpu = self._clock.process_cpu if config.threads > 1 else self._clock.thread_cpu
        throttled_before = cpu_limits().num_throttled
        repeats = self._runs_per_sample(run, config)
        switches_before = involuntary_switches(whole_process=config.threads > 1)
        durations: list[float] = []
        cpu_start = cpu()
        start = last = wall()
        while True:
            for _ in range(repeats):
                run()
            now = wall()
            durations.append((now - last) / repeats)
            last = now
            enough = len(durations) >= config.min_runs and now - start >= config.min_seconds
            if enough or len(durations) >= config.max_runs:
                break
        cpu_seconds = cpu() - cpu_start
        switches = involuntary_switches(whole_process=config.threads > 1)
        return Window(
            durations_ms=np.asarray(durations) * 1e3,
            cpu_ratio=cpu_seconds / max(last - start, 1e-9),
            involuntary_switches=_difference(switches, switches_before),
            num_throttled=_difference(cpu_limits().num_throttled, throttled_before),
            affinity=affinity,
            runs_per_sample=repeats,
        )

    def _runs_per_sample(self, run: Callable[[], None], config: LatencyConfig) -> int:
        """As many as last `min_sample_ms`, by one run."""
        start = self._clock.wall()
        run()
        seconds = max(self._clock.wall() - start, 1e-9)
        return max(1, min(_MAX_RUNS_PER_SAMPLE, math.ceil(config.min_sample_ms / 1e3 / seconds)))

    def _record(self, config: LatencyConfig, graph: str, window: Window, rejected: list[str], *, accepted: bool) -> LatencyRecord:
        p10, p50, p90 = (float(value) for value in np.percentile(window.durations_ms, (10, 50, 90))) if accepted else (None, None, None)
        return LatencyRecord(
            key=latency_key(graph, self.fingerprint(), config),
            graph=graph,
            status="ok" if accepted else "unmeasured",
            latency_ms=p50,
            p10_ms=p10,
            p90_ms=p90,
            spread=window.spread if accepted else None,
            runs=len(window.durations_ms) * window.runs_per_sample,
            runs_per_sample=window.runs_per_sample,
            attempts=len(rejected) + accepted,
            reason=None if accepted else f"all {len(rejected)} windows rejected, the last because {rejected[-1]}",
            provenance=Provenance(
                device=self.fingerprint(),
                runtime=_runtime(),
                provider=config.provider,
                threads=config.threads,
                batch=config.batch,
                affinity=window.affinity,
                cpu_quota_cores=cpu_limits().quota_cores,
                num_throttled=window.num_throttled,
                cpu_ratio=window.cpu_ratio,
                involuntary_switches=window.involuntary_switches,
                rejected=tuple(rejected),
            ),
        )


def rejection(window: Window, config: LatencyConfig) -> str | None:
    """Why a window does not count, or None when it does.

    The CPU ratio is judged on CPU providers only: elsewhere the host may sleep while the accelerator works. With several threads it is the process's ratio, and
    what it is in a clean window depends on how well the network parallelises: the floor is then necessary, not sufficient, and the spread decides.
    """
    if config.provider in _ON_THE_CPU and window.cpu_ratio < config.cpu_ratio_floor:
        return f"CPU time / wall time is {window.cpu_ratio:.3f}, below {config.cpu_ratio_floor} ({_disturbance(window)})"
    if window.num_throttled:
        return f"the CPU quota throttled it {window.num_throttled} times"
    if window.spread > config.max_spread:
        return f"the spread is {window.spread:.3f} of the median, above {config.max_spread} ({_disturbance(window)})"
    return None


def model_digest(model: bytes) -> str:
    """Sha256 (hex) of an ONNX file without its weights, for files that were not built from a specification. Integers and scalars count as structure.

    Raises:
        UserError: `model` is no ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise UserError(f"{len(model)} bytes are no ONNX file ({error}); give what build_onnx or export_onnx made") from error
    if not proto.graph.node:
        raise UserError(f"{len(model)} bytes are an ONNX file without a graph; give what build_onnx or export_onnx made")
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims:
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()


def _disturbance(window: Window) -> str:
    switches, throttled = window.involuntary_switches, window.num_throttled
    return f"involuntary context switches: {'not counted' if switches is None else switches}, throttled: {'not counted' if throttled is None else throttled}"


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before


def _runtime() -> str:
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def _require_provider(provider: str) -> None:
    import onnxruntime

    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise ConfigError(
            f"latency.provider: {provider!r} is not available in this {_runtime()}; choose one of {', '.join(available)}, or install the runtime that has it"
        )


def _session_options(config: LatencyConfig) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if config.threads > 1:
        # Spinning threads lose their time slices under load: 96 ms instead of 12 for the same network.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _bound_session(model: bytes, config: LatencyConfig) -> Callable[[], None]:
    """A function that runs one inference with input and output bound."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    providers = [config.provider] if config.provider == "CPUExecutionProvider" else [config.provider, "CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(model, _session_options(config), providers=providers)
    except (errors.InvalidProtobuf, errors.InvalidGraph, errors.InvalidArgument, errors.Fail, errors.NotImplemented, errors.RuntimeException) as error:
        cause = " ".join(str(error).split())
        raise UserError(f"{_runtime()} cannot load the model of {len(model)} bytes ({cause}); give a valid ONNX graph, such as build_onnx makes") from error
    if session.get_providers()[0] != config.provider:
        raise ConfigError(f"latency.provider: {config.provider!r} is installed but does not start here; mend its driver, or choose CPUExecutionProvider")
    device = "cuda" if config.provider in _CUDA else "cpu"
    binding = session.io_binding()
    for value in session.get_inputs():
        array = np.random.default_rng(0).standard_normal(_fixed_shape(value, config.batch), dtype=np.float32)
        binding.bind_ortvalue_input(value.name, onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0))
    for value in session.get_outputs():
        binding.bind_output(value.name, device)

    def run() -> None:
        session.run_with_iobinding(binding)
        if device != "cpu":
            binding.synchronize_outputs()

    return run


def _fixed_shape(value: Any, batch: int) -> list[int]:
    """Shape of an input, the batch in place of a free first dimension."""
    if value.type != "tensor(float)":
        raise UserError(f"model input {value.name!r} is {value.type}; only float32 inputs can be timed")
    shape = [batch if index == 0 and not isinstance(size, int) else size for index, size in enumerate(value.shape)]
    if not all(isinstance(size, int) for size in shape):
        raise UserError(f"model input {value.name!r} has free dimensions {value.shape}; fix all but the batch")
    if shape and shape[0] != batch:
        raise UserError(f"model input {value.name!r} is made for batch {shape[0]}, the protocol says {batch}; build the graph with batch={batch}")
    return shape


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
