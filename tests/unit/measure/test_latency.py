"""Timing on this machine: what a window must be, what becomes of a bad one, refusals. No test depends on how fast or how idle the machine is."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

from kfnas import plugins
from kfnas.errors import ConfigError, UserError
from kfnas.measure import Clock, LatencyConfig, LocalDevice, build_onnx, graph_digest, latency_key, model_digest
from kfnas.measure.latency import Window, _session_options, rejection
from kfnas.space import NetworkSpec

MakeSpec = Callable[..., NetworkSpec]
LENIENT = LatencyConfig(cpu_ratio_floor=0, max_spread=10, min_runs=5, max_runs=20, min_seconds=0, warmup=1)


@pytest.fixture
def spec(make_spec: MakeSpec) -> NetworkSpec:
    return make_spec()


@pytest.fixture
def model(spec: NetworkSpec) -> bytes:
    return bytes(build_onnx(spec).SerializeToString())


class FakeClock:
    """A wall clock that steps by `steps` (cycled) each time it is read, and a CPU clock that runs at `share` of it."""

    def __init__(self, steps: list[float], shares: list[float]) -> None:
        self._steps = itertools.cycle(steps)
        self._shares = itertools.chain(shares, itertools.repeat(shares[-1]))
        self._now = 0.0
        self._window_start: float | None = None
        self._cpu = 0.0
        self.pauses: list[float] = []

    def wall(self) -> float:
        self._now += next(self._steps)
        return self._now

    def cpu(self) -> float:
        if self._window_start is None:
            self._window_start = self._now
        else:
            self._cpu += next(self._shares) * (self._now - self._window_start)
            self._window_start = None
        return self._cpu

    def clock(self) -> Clock:
        return Clock(wall=self.wall, thread_cpu=self.cpu, process_cpu=self.cpu, sleep=self.pauses.append)


def test_a_measurement_records_its_conditions(spec: NetworkSpec, model: bytes) -> None:
    device = LocalDevice()
    record = device.measure(model, LENIENT, graph=graph_digest(spec))
    assert record.status == "ok" and record.reason is None
    assert record.key == latency_key(graph_digest(spec), device.fingerprint(), LENIENT)
    assert record.latency_ms is not None and record.p10_ms is not None and record.p90_ms is not None
    assert 0 < record.p10_ms <= record.latency_ms <= record.p90_ms
    assert 5 <= record.runs / record.runs_per_sample <= 20
    provenance = record.provenance
    assert provenance.device == device.fingerprint()
    assert provenance.runtime == f"onnxruntime {onnxruntime.__version__}"
    assert (provenance.provider, provenance.threads, provenance.batch, provenance.precision) == ("CPUExecutionProvider", 1, 1, "float32")
    assert provenance.cpu_ratio is not None and provenance.cpu_ratio > 0
    if sys.platform == "linux":
        assert provenance.affinity is not None and len(provenance.affinity) == 1
        assert provenance.involuntary_switches is not None


def test_the_median_of_a_quiet_window_is_the_latency(spec: NetworkSpec, model: bytes) -> None:
    fake = FakeClock(steps=[0.002], shares=[0.99])
    record = LocalDevice(fake.clock()).measure(model, LatencyConfig(pin=False), graph="g")
    assert record.latency_ms == pytest.approx(2.0)
    assert (record.runs, record.attempts, record.status) == (100, 1, "ok")
    assert record.provenance.affinity is None


def test_a_window_lasts_for_enough_runs_and_seconds(model: bytes) -> None:
    for step, runs in ((0.05, 30), (0.004, 50), (0.0001, 100)):
        record = LocalDevice(FakeClock([step], [1.0]).clock()).measure(model, LatencyConfig(), graph="g")
        assert abs(record.runs / record.runs_per_sample - runs) <= 1


def test_short_runs_are_timed_together_and_the_mean_of_a_sample_counts(model: bytes) -> None:
    for step, together in ((0.002, 1), (0.0001, 3), (0.00001, 25)):
        fake = FakeClock([step], [1.0])
        record = LocalDevice(fake.clock()).measure(model, LatencyConfig(min_runs=5, max_runs=5), graph="g")
        assert (record.runs_per_sample, record.runs) == (together, 5 * together)
        assert record.latency_ms == pytest.approx(1e3 * step / together)
    alone = LocalDevice(FakeClock([0.00001], [1.0]).clock()).measure(model, LatencyConfig(min_sample_ms=0), graph="g")
    assert (alone.runs_per_sample, alone.latency_ms) == (1, pytest.approx(0.01))


def test_a_shared_core_is_rejected_and_measured_again(model: bytes) -> None:
    fake = FakeClock(steps=[0.002], shares=[0.5, 0.6, 1.0])
    record = LocalDevice(fake.clock()).measure(model, LatencyConfig(), graph="g")
    assert (record.status, record.attempts) == ("ok", 3)
    assert len(record.provenance.rejected) == 2
    assert "CPU time / wall time is 0.50" in record.provenance.rejected[0]
    assert fake.pauses == [0.05, 0.1]


def test_a_spread_that_stays_wide_ends_unmeasured_and_is_never_averaged(model: bytes) -> None:
    fake = FakeClock(steps=[0.001, 0.003], shares=[1.0])
    record = LocalDevice(fake.clock()).measure(model, LatencyConfig(retries=3), graph="g")
    assert (record.status, record.latency_ms, record.p10_ms, record.p90_ms) == ("unmeasured", None, None, None)
    assert record.attempts == 4
    assert record.reason is not None and "all 4 windows rejected" in record.reason and "spread" in record.reason
    assert max(fake.pauses) <= 0.5


def test_no_retries_means_one_window(model: bytes) -> None:
    fake = FakeClock(steps=[0.002], shares=[0.1])
    record = LocalDevice(fake.clock()).measure(model, LatencyConfig(retries=0), graph="g")
    assert (record.status, record.attempts, fake.pauses) == ("unmeasured", 1, [])


def _window(durations: list[float] | None = None, cpu_ratio: float = 1.0, num_throttled: int | None = 0) -> Window:
    return Window(np.array(durations or [1.0, 1.0, 1.0, 1.01]), cpu_ratio, 0, num_throttled, (0,))


def test_a_quiet_window_is_accepted() -> None:
    assert rejection(_window(), LatencyConfig()) is None
    assert rejection(_window(num_throttled=None), LatencyConfig()) is None


def test_a_throttled_window_is_rejected() -> None:
    assert rejection(_window(num_throttled=2), LatencyConfig()) == "the CPU quota throttled it 2 times"


def test_one_outlier_does_not_reject_a_window() -> None:
    assert rejection(_window([1.0] * 50 + [40.0]), LatencyConfig()) is None


def test_the_cpu_ratio_does_not_judge_an_accelerator() -> None:
    idle_host = _window(cpu_ratio=0.2)
    assert rejection(idle_host, LatencyConfig()) is not None
    assert rejection(idle_host, LatencyConfig(provider="CUDAExecutionProvider")) is None


def test_a_provider_that_is_not_installed_is_refused_with_the_available_ones(model: bytes) -> None:
    with pytest.raises(ConfigError, match=r"'QuantumExecutionProvider' is not available .*CPUExecutionProvider"):
        LocalDevice().measure(model, LatencyConfig(provider="QuantumExecutionProvider"), graph="g")


def test_more_threads_than_cores_are_refused(model: bytes) -> None:
    with pytest.raises(ConfigError, match="256 threads on"):
        LocalDevice().measure(model, LatencyConfig(threads=256), graph="g")


@pytest.mark.parametrize("data", [b"", b"no onnx graph at all", b"\x00" * 64])
def test_bytes_that_are_no_graph_are_refused(data: bytes) -> None:
    with pytest.raises(UserError, match=r"cannot load the model of \d+ bytes"):
        LocalDevice().measure(data, LENIENT, graph="g")


def test_a_graph_with_an_unknown_operator_is_refused(spec: NetworkSpec) -> None:
    broken = build_onnx(spec)
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(UserError, match="NoSuchOperator"):
        LocalDevice().measure(broken.SerializeToString(), LENIENT, graph="g")


def test_a_graph_of_another_batch_is_refused(spec: NetworkSpec, model: bytes) -> None:
    with pytest.raises(UserError, match="made for batch 1, the protocol says 8"):
        LocalDevice().measure(model, LENIENT.model_copy(update={"batch": 8}), graph="g")


def test_a_free_batch_takes_the_protocols(spec: NetworkSpec) -> None:
    free = build_onnx(spec, batch=4)
    for value in (*free.graph.input, *free.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    record = LocalDevice().measure(free.SerializeToString(), LENIENT.model_copy(update={"batch": 4}), graph="g")
    assert record.status == "ok"


@pytest.mark.parametrize("change", ["type", "size"])
def test_an_input_that_cannot_be_made_up_is_refused(spec: NetworkSpec, change: str) -> None:
    shape = [1, "height"] if change == "size" else [1, 4]
    kind = onnx.TensorProto.FLOAT if change == "size" else onnx.TensorProto.INT64
    x, y = (onnx.helper.make_tensor_value_info(name, kind, shape) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    data = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    with pytest.raises(UserError, match="free dimensions" if change == "size" else "only float32"):
        LocalDevice().measure(data, LENIENT, graph="g")


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_affinity_is_restored(model: bytes) -> None:
    before = os.sched_getaffinity(0)
    LocalDevice().measure(model, LENIENT, graph="g")
    with pytest.raises(UserError):
        LocalDevice().measure(b"broken", LENIENT, graph="g")
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_two_threads_do_not_spin_and_are_pinned_to_two_cores(model: bytes) -> None:
    two = LENIENT.model_copy(update={"threads": 2})
    assert _session_options(two).get_session_config_entry("session.intra_op.allow_spinning") == "0"
    record = LocalDevice().measure(model, two, graph="g")
    assert record.status == "ok"
    if sys.platform == "linux":
        assert len(record.provenance.affinity or ()) == 2


def test_a_provider_that_falls_back_silently_is_refused(model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime answers with the CPU when a GPU's driver is missing: such a time would be kept under the GPU's key."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    fallback = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: fallback)
    with pytest.raises(ConfigError, match="is installed but does not start"):
        LocalDevice().measure(model, LatencyConfig(provider="CUDAExecutionProvider"), graph="g")


def test_the_digest_of_a_file_follows_the_graph_and_not_the_weights(make_spec: MakeSpec, make_weights: Callable[..., dict[str, np.ndarray]]) -> None:
    spec = make_spec()
    digests = {model_digest(build_onnx(spec, make_weights(spec, seed)).SerializeToString()) for seed in (0, 1)}
    digests.add(model_digest(build_onnx(spec).SerializeToString()))
    assert len(digests) == 1
    assert model_digest(build_onnx(make_spec(resolution=16)).SerializeToString()) not in digests
    assert model_digest(build_onnx(spec, batch=2).SerializeToString()) not in digests
    for data in (b"no onnx graph at all", b""):
        with pytest.raises(UserError, match=r"no ONNX file|without a graph"):
            model_digest(data)


def test_the_local_device_is_found_by_name() -> None:
    assert plugins.resolve(plugins.DEVICES, "local") is LocalDevice


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, kfnas.measure; print(sorted({'torch', 'onnx', 'onnxruntime', 'kfnas.nn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
