"""What a network costs: mult-adds and parameters by counting, latency by measuring on the target or looking an earlier measurement up."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfnas.config import parse
from kfnas.errors import ConfigError, MeasurementError, UserError
from kfnas.measure import Device, LatencyRecord, OperatorTable, ReplayDevice, build_onnx, graph_digest, latency_key, load_records
from kfnas.plugins import DEVICES, resolve
from kfnas.space import NetworkSpec, mult_adds, num_params
from kfnas.steps.context import Run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Costs:
    """What one network costs.

    Attributes:
        mult_adds: of one forward pass at batch 1.
        params: trainable ones.
        latency: as it was measured; None where that was not asked for.
        foretold_ms: latency by a table of operators; None where that was not asked for, or `missing` says why.
        missing: why a table could not foretell it.
    """

    mult_adds: int
    params: int
    latency: LatencyRecord | None
    foretold_ms: float | None = None
    missing: str | None = None

    @property
    def reason(self) -> str:
        """Why there is no latency, where there is none."""
        measured = self.latency.reason if self.latency is not None else None
        return measured or self.missing or "no latency was taken"

    def of(self, cost: str) -> float | None:
        """The cost that the search goes by: `latency_ms` (measured, else foretold), `mult_adds` or `params`; None when it could not be measured."""
        if cost == "mult_adds":
            return float(self.mult_adds)
        if cost == "params":
            return float(self.params)
        return self.latency.latency_ms if self.latency is not None else self.foretold_ms


class CostMeter:
    """Takes the costs of networks on the run's device. Nothing of the trainer's is held meanwhile: measuring is a task of its own."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._device: Any = None

    def costs(self, spec: NetworkSpec, *, latency: bool) -> Costs:
        """Count, and with `latency` measure, a network."""
        return Costs(mult_adds(spec), num_params(spec), self.latency(spec) if latency else None)

    def foretold(self, spec: NetworkSpec, table: OperatorTable) -> Costs:
        """Count a network, and foretell its latency; an operator that the table could not measure leaves it without one."""
        try:
            return Costs(mult_adds(spec), num_params(spec), None, foretold_ms=table.latency_ms(spec))
        except MeasurementError as unstable:
            return Costs(mult_adds(spec), num_params(spec), None, missing=str(unstable))

    def latency(self, spec: NetworkSpec) -> LatencyRecord:
        """The record of this graph on this device under this protocol: looked up, else measured and kept.

        Only good measurements are kept: an unmeasured network is tried again by the next run that needs it.
        """
        if self._device is None:
            self._device = open_device(self._run)
        protocol = self._run.config.latency
        graph = graph_digest(spec, protocol.batch)
        key = latency_key(graph, self._device.fingerprint(), protocol)
        known = self._run.searches.record("latency", key)
        if known is not None:
            return parse(LatencyRecord, known, source=f"latency record {key}")
        record = self._device.measure(build_onnx(spec, None, batch=protocol.batch).SerializeToString(), protocol, graph=graph)
        if record.status != "ok":
            logger.warning("latency %s: %s", key[:12], record.reason)
            return record
        self._run.searches.put_record("latency", key, record.model_dump(mode="json"))
        kept = self._run.searches.record("latency", key)
        return parse(LatencyRecord, kept, source=f"latency record {key}") if kept is not None else record


def open_device(run: Run) -> Device:
    """The device that latencies are taken on: an installed one by name, or a file of records that is replayed.

    Raises:
        PluginError: no such device is installed.
        ConfigError: the file of records cannot be read, or holds none of one device.
    """
    replay = run.config.device.replay
    if replay is None:
        return resolve(DEVICES, run.config.device.name)()
    try:
        return ReplayDevice(load_records(Path(replay).read_bytes()))
    except OSError as error:
        raise ConfigError(f"device.replay: {replay} cannot be read ({error.strerror}); give a file that `kfnas records export` wrote") from None
    except UserError as error:
        raise ConfigError(f"device.replay: {replay}: {error}") from None
