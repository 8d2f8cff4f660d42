"""What every `Device` does: a user's own can be added to `DEVICES`."""

from collections.abc import Callable

import pytest

from kfnas.measure import Device, LatencyConfig, LatencyRecord, LocalDevice, ReplayDevice, build_onnx, graph_digest, latency_key
from kfnas.space import ConvSpec, LayerSpec, LinearSpec, NetworkSpec
from kfnas.testing.table_device import AdditiveDevice

CONFIG = LatencyConfig(cpu_ratio_floor=0, max_spread=10, min_runs=5, max_runs=5, warmup=0)
SPEC = NetworkSpec(3, 8, (LayerSpec("stem", (ConvSpec("conv", 3, 4),), 3, 4, 1, 8, 8),), (LinearSpec(4, 2),))


def _measured(device: Device) -> LatencyRecord:
    return device.measure(build_onnx(SPEC).SerializeToString(), CONFIG, graph=graph_digest(SPEC))


DEVICES: dict[str, Callable[[], Device]] = {
    "local": LocalDevice,
    "additive": AdditiveDevice,
    "replay": lambda: ReplayDevice([_measured(LocalDevice())]),
}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Device:
    return DEVICES[request.param]()


def test_a_fingerprint_is_stable_text(device: Device) -> None:
    assert device.fingerprint() and device.fingerprint() == device.fingerprint()


def test_an_answer_is_found_by_the_key_of_its_question(device: Device) -> None:
    record = _measured(device)
    assert record.key == latency_key(graph_digest(SPEC), device.fingerprint(), CONFIG)
    assert record.graph == graph_digest(SPEC)
    assert record.provenance.device == device.fingerprint()


def test_an_answer_has_a_positive_latency_or_a_reason(device: Device) -> None:
    record = _measured(device)
    assert (record.status == "ok" and (record.latency_ms or 0) > 0) or record.reason
