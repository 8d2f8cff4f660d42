"""Records: keys, export, replay, refusals."""

from typing import Any

import pytest

from kfnas.config import parse
from kfnas.errors import ConfigError, DataError, MeasurementError, NotFound, StateVersionError, UserError
from kfnas.measure import LatencyConfig, LatencyRecord, Provenance, ReplayDevice, export_records, latency_key, load_records, require_measured

CONFIG = LatencyConfig()


def make_record(graph: str = "g", device: str = "d", config: LatencyConfig = CONFIG, **changes: Any) -> LatencyRecord:
    values: dict[str, Any] = {
        "key": latency_key(graph, device, config),
        "graph": graph,
        "status": "ok",
        "latency_ms": 0.1 + 0.2,
        "p10_ms": 0.29,
        "p90_ms": 0.35,
        "spread": 0.01,
        "runs": 100,
        "provenance": Provenance(
            device=device, runtime="onnxruntime 1", provider=config.provider, threads=config.threads, batch=config.batch, affinity=(1,), rejected=("load",)
        ),
    }
    return LatencyRecord(**values | changes)


def unmeasured(graph: str) -> LatencyRecord:
    return make_record(graph, status="unmeasured", latency_ms=None, p10_ms=None, p90_ms=None, spread=None, reason="too noisy")


def test_the_key_follows_graph_device_and_protocol() -> None:
    keys = [
        latency_key("g", "d", CONFIG),
        latency_key("h", "d", CONFIG),
        latency_key("g", "e", CONFIG),
        *(latency_key("g", "d", LatencyConfig(**{name: value})) for name, value in (("threads", 2), ("batch", 4), ("provider", "CUDAExecutionProvider"))),
    ]
    assert len(set(keys)) == len(keys)


def test_the_key_does_not_follow_how_strictly_it_was_measured() -> None:
    assert latency_key("g", "d", LatencyConfig(max_runs=500, retries=0, max_spread=0.02, pin=False)) == latency_key("g", "d", CONFIG)


def test_exported_records_come_back_exactly() -> None:
    records = [make_record("b"), make_record("a"), unmeasured("c")]
    data = export_records(records)
    assert data == export_records(reversed(records))
    loaded = load_records(data)
    assert set(loaded) == set(records)
    assert export_records(loaded) == data


def test_no_records_are_an_empty_file() -> None:
    assert load_records(export_records([])) == ()


def test_a_line_that_is_no_record_is_named_by_number() -> None:
    good = export_records([make_record()])
    with pytest.raises(DataError, match="line 2: no JSON"):
        load_records(good + b"{broken\n")
    with pytest.raises(DataError, match="line 2: colour: unknown field"):
        load_records(good + good.replace(b'{"attempts"', b'{"colour":1,"attempts"'))


def test_a_record_of_a_newer_version_is_refused() -> None:
    with pytest.raises(StateVersionError, match="version 99, this kfnas reads up to 1; upgrade"):
        load_records(export_records([make_record()]).replace(b'"version":1', b'"version":99'))


def test_two_answers_to_one_key_are_refused() -> None:
    first, second = export_records([make_record()]), export_records([make_record(latency_ms=5.0)])
    assert len(load_records(first + first)) == 1
    with pytest.raises(DataError, match=r"line 2: key .* has another answer"):
        load_records(first + second)


def test_status_and_latency_go_together() -> None:
    with pytest.raises(ValueError, match="`unmeasured` has none"):
        make_record(status="unmeasured")
    with pytest.raises(ValueError, match="greater than 0"):
        make_record(latency_ms=0.0)


def test_replay_answers_from_records_alone() -> None:
    records = load_records(export_records([make_record("a"), unmeasured("b")]))
    device = ReplayDevice(records)
    assert device.fingerprint() == "d"
    assert device.measure(b"", CONFIG, graph="a") == make_record("a")
    assert device.measure(b"", CONFIG, graph="b").status == "unmeasured"


def test_replay_refuses_what_was_not_recorded() -> None:
    device = ReplayDevice([make_record("a")])
    with pytest.raises(NotFound, match=r"no latency record of graph other .*threads 1, batch 1.* among 1; measure it"):
        device.measure(b"", CONFIG, graph="other")
    with pytest.raises(NotFound, match="threads 2"):
        device.measure(b"", LatencyConfig(threads=2), graph="a")


def test_replay_asks_which_of_several_devices() -> None:
    records = [make_record("a", "phone"), make_record("a", "server", latency_ms=2.0)]
    with pytest.raises(UserError, match="choose one of phone, server"):
        ReplayDevice(records)
    assert ReplayDevice(records, device="server").measure(b"", CONFIG, graph="a").latency_ms == 2.0
    with pytest.raises(UserError, match="no latency records of device watch"):
        ReplayDevice(records, device="watch")
    with pytest.raises(UserError, match="no latency records to replay"):
        ReplayDevice([])


def test_more_than_a_quarter_unmeasured_stops_with_one_line() -> None:
    good = [make_record(str(index)) for index in range(3)]
    require_measured([*good, unmeasured("x")])
    require_measured([])
    with pytest.raises(MeasurementError, match=r"latency of 2 of 5 networks could not be measured \(last: too noisy\)") as caught:
        require_measured([*good, unmeasured("x"), unmeasured("y")])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"threads": 0}, "threads: .*greater than or equal to 1"),
        ({"cpu_ratio_floor": 1.5}, "cpu_ratio_floor: .*less than or equal to 1"),
        ({"max_spread": 0}, "max_spread: .*greater than 0"),
        ({"min_runs": 50, "max_runs": 40}, "max_runs 40 is below min_runs 50"),
        ({"thread": 1}, "thread: unknown field"),
    ],
)
def test_a_bad_configuration_is_refused_by_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(LatencyConfig, fields)
