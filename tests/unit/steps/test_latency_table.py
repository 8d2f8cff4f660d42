"""Taking an operator latency table through the store: once, resumably, and for a search to go by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kfnas.config import digest_of
from kfnas.errors import BudgetError, ConfigError, NotFound, UserError
from kfnas.measure import LatencyConfig, LatencyRecord, OperatorTable, build_onnx, export_records, graph_digest
from kfnas.space import MixopSpace, NetworkSpec
from kfnas.space.mixop_operators import PC_NAS_SMALL
from kfnas.space.mixop_skeletons import small_skeleton
from kfnas.steps import context, costs, latency_table
from kfnas.steps.config import LOCATION_FIELDS, RunConfig, load_run_config, trial_of
from kfnas.steps.context import open_run, read_json
from kfnas.steps.latency_table import RECORD_SIZE, ROUNDS, TABLES, table_of_config
from kfnas.testing.sequence import StepSequence, outcome_of, small_search
from kfnas.testing.table_device import AdditiveDevice

TABLE = {"fit_networks": 5, "held_out": 5}


def tiny_space(_name: str = "") -> MixopSpace:
    return MixopSpace("tiny_mixop", small_skeleton(6), PC_NAS_SMALL[:4])


class Killed(BaseException):
    """What a kill is to the code that it ends."""


class KilledDevice(AdditiveDevice):
    """Ends after so many answers."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        self._answers = answers

    def measure(self, model: bytes, config: LatencyConfig, *, graph: str) -> LatencyRecord:
        if len(self.asked) == self._answers:
            raise Killed
        return super().measure(model, config, graph=graph)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Puts a device in the place of the configured one, and a tiny space in that of the named one."""
    monkeypatch.setattr(context, "load_space", tiny_space)
    monkeypatch.setattr("kfnas.steps.preflight.open_device", lambda _run: AdditiveDevice())

    def put(device: AdditiveDevice) -> AdditiveDevice:
        monkeypatch.setattr(costs, "open_device", lambda _run: device)
        monkeypatch.setattr(latency_table, "open_device", lambda _run: device)
        return device

    return put


def by_table(store: Path, **fields: object) -> RunConfig:
    return small_search(store, **{"cost": "latency_ms", "table": TABLE, "space": {"name": "mnas_small", "width": 0.25}, **fields})


def test_a_table_is_taken_once_and_then_found(machine, tmp_path: Path) -> None:
    config, device = by_table(tmp_path / "store"), machine(AdditiveDevice(bias_ms=0.3, slowdown=1.2))
    told: list[str] = []
    first = table_of_config(config.text, tell=told.append)
    measured = len(device.asked)
    assert measured == 3 * (len(first.entries) + 1 + 10)
    assert told[-1].endswith(f"{measured // 3} of {measured // 3} measured")
    assert table_of_config(config.text) == first
    assert table_of_config(by_table(tmp_path / "store", name="another", seed=5).text) == first
    assert len(device.asked) == measured
    assert table_of_config(by_table(tmp_path / "store", table={**TABLE, "seed": 1}).text) != first
    assert len(device.asked) > measured


@pytest.mark.parametrize("answers", [RECORD_SIZE - 1, RECORD_SIZE + 3, 100])
def test_a_killed_table_is_taken_up_where_it_was_and_comes_out_the_same(answers: int, machine, tmp_path: Path) -> None:
    config = by_table(tmp_path / "store")
    whole = machine(AdditiveDevice())
    expected = table_of_config(by_table(tmp_path / "undisturbed").text)
    killed = machine(KilledDevice(answers))
    with pytest.raises(Killed):
        table_of_config(config.text)
    resumed = machine(AdditiveDevice())
    assert table_of_config(config.text) == expected
    kept = sum(len(open_run(config.text).searches.record(ROUNDS, key)["latencies"]) for key in list(open_run(config.text).searches.records(ROUNDS)))
    assert kept == len(whole.asked)
    assert len(whole.asked) <= len(killed.asked) + len(resumed.asked) < len(whole.asked) + RECORD_SIZE


def test_another_device_or_protocol_has_a_table_of_its_own(machine, tmp_path: Path) -> None:
    machine(AdditiveDevice("a"))
    first = table_of_config(by_table(tmp_path / "store").text)
    machine(AdditiveDevice("b"))
    second = table_of_config(by_table(tmp_path / "store").text)
    threads = table_of_config(by_table(tmp_path / "store", latency={"threads": 2}).text)
    assert {table.question.device for table in (first, second)} == {"a", "b"}
    assert len(list(open_run(by_table(tmp_path / "store").text).searches.records(TABLES))) == 3
    assert threads.question.threads == 2


def test_a_record_under_a_key_that_is_not_its_own_is_refused(machine, tmp_path: Path) -> None:
    machine(AdditiveDevice("a"))
    config = by_table(tmp_path / "store")
    other = table_of_config(config.text)
    key = other.question.model_copy(update={"device": "b"}).key
    open_run(config.text).searches.put_record(TABLES, key, other.model_dump(mode="json"))
    machine(AdditiveDevice("b"))
    with pytest.raises(UserError, match="device is a, not b"):
        table_of_config(config.text)


def test_replayed_latencies_go_with_a_table_of_their_device_alone(machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = machine(AdditiveDevice())
    config = by_table(tmp_path / "store")
    spec = a_network()
    record = device.measure(build_onnx(spec).SerializeToString(), LatencyConfig(), graph=graph_digest(spec))
    (tmp_path / "records.jsonl").write_bytes(export_records([record]))
    replayed = by_table(tmp_path / "store", device={"replay": str(tmp_path / "records.jsonl")})
    monkeypatch.undo()
    monkeypatch.setattr(context, "load_space", tiny_space)
    with pytest.raises(NotFound, match="replay measures nothing"):
        table_of_config(replayed.text)
    monkeypatch.setattr(latency_table, "open_device", lambda _run: device)
    taken = table_of_config(config.text)
    monkeypatch.undo()
    monkeypatch.setattr(context, "load_space", tiny_space)
    assert table_of_config(replayed.text) == taken


def a_network() -> NetworkSpec:
    from kfnas.space import NetworkArguments

    space = tiny_space()
    assert space.reference is not None
    return space.network(space.reference, NetworkArguments(resolution=8, in_channels=1))


def test_a_search_goes_by_the_table_and_measures_its_finalists_whole(machine, tmp_path: Path) -> None:
    device = machine(AdditiveDevice(bias_ms=0.3, slowdown=1.2))
    config = by_table(tmp_path / "store")
    table = table_of_config(config.text)
    before = len(device.asked)
    sequence = StepSequence(config, tmp_path / "artifacts")
    sequence.run()
    run = open_run(config.text)
    rows = read_json(sequence.plan)["rows"]
    for row in rows:
        spec = run.network(row["tokens"], context.read_data(sequence.data))
        assert row["cost"] == table.latency_ms(spec)
    (finalist,) = (run.searches.record("final", "plan") or {})["finalists"]
    assert len(device.asked) == before + 1
    record = LatencyRecord.model_validate(run.searches.record("latency", next(iter(run.searches.records("latency")))))
    assert finalist["latency_ms"] == finalist["cost"] == record.latency_ms


def test_a_search_takes_the_table_that_is_not_there_yet(machine, tmp_path: Path) -> None:
    machine(AdditiveDevice())
    config = by_table(tmp_path / "store")
    sequence = StepSequence(config, tmp_path / "artifacts")
    sequence.begin()
    sequence.open_round()
    assert len(list(open_run(config.text).searches.records(TABLES))) == 1


def test_an_architecture_that_turns_out_too_slow_gives_way_to_the_next_best(machine, tmp_path: Path) -> None:
    machine(AdditiveDevice())
    config = by_table(tmp_path / "store", rounds=3, search={"batch_size": 2, "agent": "random", "reward": {"target": 1000.0}})
    sequence = StepSequence(config, tmp_path / "artifacts")
    sequence.begin()
    for _ in range(3):
        for shard in sequence.open_round():
            sequence.train(shard)
        sequence.close_round()
    run = open_run(config.text)
    best, second, *_ = list(run.load_search(sequence.pointer).history.sort_values("reward", ascending=False, kind="stable")["tokens"])

    class SlowOnce(AdditiveDevice):
        def measure(self, model: bytes, config: LatencyConfig, *, graph: str) -> LatencyRecord:
            record = super().measure(model, config, graph=graph)
            return record.model_copy(update={"latency_ms": 2000.0}) if len(self.asked) == 1 else record

    machine(SlowOnce())
    sequence.finish()
    chosen = outcome_of(config).finalists["searched-1"]
    assert list(chosen["tokens"]) == list(second) != list(best)


def test_no_finalist_within_the_limit_is_an_error_that_says_so(machine, tmp_path: Path) -> None:
    machine(AdditiveDevice())
    config = by_table(tmp_path / "store", search={"batch_size": 2, "agent": "random", "reward": {"target": 1000.0}})
    sequence = StepSequence(config, tmp_path / "artifacts")
    sequence.begin()
    for _ in range(2):
        for shard in sequence.open_round():
            sequence.train(shard)
        sequence.close_round()
    machine(AdditiveDevice(bias_ms=5000.0))
    with pytest.raises(BudgetError, match="measured whole"):
        sequence.finish()


def test_the_step_writes_the_table_with_its_metrics(machine, tmp_path: Path) -> None:
    machine(AdditiveDevice(noise=0.01))
    config = by_table(tmp_path / "store")
    sequence = StepSequence(config, tmp_path / "artifacts")
    sequence.begin()
    latency_table.latency_table(config.text, sequence.data, tmp_path / "table.json")
    written = read_json(tmp_path / "table.json")
    table = OperatorTable.model_validate(written["table"])
    errors = table.errors()
    assert errors is not None
    assert written["key"] == table.question.key
    assert written["metrics"]["mean_absolute"] == errors.mean_absolute
    assert written["metrics"]["num_networks"] == 5


def test_a_table_is_refused_where_the_cost_is_no_latency(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps({"name": "a", "task": {"name": "classification", "source": "digits"}, "cost": "mult_adds", "table": {}}))
    with pytest.raises(ConfigError, match="cost is mult_adds"):
        load_run_config(path)


def test_a_table_that_is_not_used_leaves_the_digest_alone(tmp_path: Path) -> None:
    plain = small_search(tmp_path, cost="latency_ms")
    fields = plain.model_dump(mode="json", exclude={*LOCATION_FIELDS, "algorithm", "oneshot", "pool", "prior", "table"})
    assert plain.digest == digest_of(fields)
    assert by_table(tmp_path).digest != small_search(tmp_path, cost="latency_ms", space={"name": "mnas_small", "width": 0.25}).digest
    assert trial_of(by_table(tmp_path)).table is None
