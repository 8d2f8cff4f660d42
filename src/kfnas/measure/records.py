"""Latency records: what was asked, what came out, under which conditions, and the key to find it by.

A record is looked up before anything is measured. Its key names the graph without its weights, the device and the protocol, so that equal questions meet across
searches and machines of a kind, and an answer never stands in for a question that it does not fit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from kfnas.config import Config, canonical_json, digest_of, parse
from kfnas.errors import DataError, MeasurementError, NotFound, StateVersionError, UserError

RECORD_VERSION = 1
PRECISION = "float32"


class LatencyConfig(Config):
    """How latency is taken. A window is `warmup` runs, then timed samples until there are `min_runs` and `min_seconds`, `max_runs` at the most.

    A sample is one run, or as many in a row as last `min_sample_ms`, whose mean counts. Many machines take the core away for some microseconds every few dozen
    of them: a graph of 6 us is then either hit or not, and neither is what it adds to a network.
    """

    provider: str = Field("CPUExecutionProvider", min_length=1, description="ONNX Runtime execution provider")
    threads: int = Field(1, ge=1, le=256, description="threads of one inference")
    batch: int = Field(1, ge=1, le=65536, description="images of one inference")
    warmup: int = Field(10, ge=0, le=10_000, description="runs before a window that are not timed")
    min_runs: int = Field(30, ge=5, le=100_000, description="timed samples of a window, at least")
    max_runs: int = Field(100, ge=5, le=100_000, description="timed samples of a window, at most")
    min_sample_ms: float = Field(0.25, ge=0, le=1000, description="shorter runs are timed several at once, so that a sample lasts so long; 0: each run alone")
    min_seconds: float = Field(0.2, ge=0, le=60, description="length of a window, unless max_runs come first")
    max_spread: float = Field(0.1, gt=0, le=10, description="widest interquartile range of a window's samples, as a share of their median")
    cpu_ratio_floor: float = Field(0.95, ge=0, le=1, description="least CPU time / wall time of a window on a CPU provider; below it the core was shared")
    retries: int = Field(12, ge=0, le=1000, description="windows after the first, when one is rejected")
    pin: bool = Field(True, description="keep the measuring thread on one core (`threads` cores) where the system can")

    @model_validator(mode="after")
    def _ordered(self) -> LatencyConfig:
        if self.max_runs < self.min_runs:
            raise ValueError(f"max_runs {self.max_runs} is below min_runs {self.min_runs}; raise max_runs or lower min_runs")
        return self

    @model_serializer(mode="wrap")
    def _without_the_usual_sample(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The default is left out: digests of configurations stay as they were before there was the field."""
        value: dict[str, Any] = handler(self)
        if self.min_sample_ms == LatencyConfig.model_fields["min_sample_ms"].default:
            value.pop("min_sample_ms", None)
        return value


class Provenance(Config):
    """The conditions of a measurement; of the accepted window, or of the last one when none was."""

    device: str = Field(description="the device's fingerprint")
    runtime: str = Field(description="name and version of what ran the graph")
    provider: str
    threads: int
    batch: int
    precision: str = PRECISION
    affinity: tuple[int, ...] | None = Field(None, description="cores it was pinned to; None when it was not")
    cpu_quota_cores: float | None = Field(None, description="the cgroup's CPU quota; None without one")
    num_throttled: int | None = Field(None, description="times that the cgroup was throttled during the window; None where that is not counted")
    cpu_ratio: float | None = Field(None, description="CPU time / wall time: of the thread, or of the process with several threads")
    involuntary_switches: int | None = Field(None, description="times that the scheduler took the core away during the window")
    rejected: tuple[str, ...] = Field((), description="why each rejected window was, in order")


class LatencyRecord(Config):
    """One answer. Times in milliseconds an inference of the whole batch; None when `unmeasured`."""

    version: int = RECORD_VERSION
    key: str
    graph: str = Field(description="digest of the graph without weights")
    status: Literal["ok", "unmeasured"]
    latency_ms: float | None = Field(None, gt=0, description="median over the samples of one window")
    p10_ms: float | None = None
    p90_ms: float | None = None
    spread: float | None = Field(None, ge=0, description="interquartile range / median")
    runs: int = Field(0, ge=0, description="timed runs of the window")
    runs_per_sample: int = Field(1, ge=1, description="runs that were timed together")
    attempts: int = Field(1, ge=1, description="windows taken, rejected ones included")
    reason: str | None = Field(None, description="why it is unmeasured")
    provenance: Provenance

    @model_validator(mode="after")
    def _complete(self) -> LatencyRecord:
        if (self.status == "ok") != (self.latency_ms is not None):
            raise ValueError(f"status {self.status!r} does not go with latency_ms {self.latency_ms}; `ok` has one, `unmeasured` has none")
        return self


def latency_key(graph: str, device: str, config: LatencyConfig) -> str:
    """Key of a record: sha256 (hex) of graph digest, device fingerprint (runtime version included) and protocol.

    How long and how strictly it was measured does not enter: the answer is the same quantity.
    """
    return digest_of(
        {
            "graph": graph,
            "device": device,
            "provider": config.provider,
            "threads": config.threads,
            "batch": config.batch,
            "precision": PRECISION,
        }
    )


def require_measured(records: Sequence[LatencyRecord], max_share: float = 0.25) -> None:
    """Refuse a batch of which more than `max_share` is unmeasured.

    Raises:
        MeasurementError: one line with the share and the last reason.
    """
    failed = [record for record in records if record.status == "unmeasured"]
    if len(failed) > max_share * len(records):
        raise MeasurementError(
            f"latency of {len(failed)} of {len(records)} networks could not be measured (last: {failed[-1].reason}); "
            "leave a core free while measuring, or give the pod whole CPUs without a quota, and resume"
        )


def export_records(records: Iterable[LatencyRecord]) -> bytes:
    """JSON Lines, sorted by key, one line a key: equal records give equal bytes."""
    lines = {record.key: canonical_json(record) for record in records}
    return "".join(f"{lines[key]}\n" for key in sorted(lines)).encode()


def load_records(data: bytes) -> tuple[LatencyRecord, ...]:
    """Records that `export_records` wrote, in its order.

    Raises:
        DataError: a line is no record, or a key comes twice with different answers.
        StateVersionError: a record was written by a newer kfnas.
    """
    records: dict[str, LatencyRecord] = {}
    for number, line in enumerate(data.decode("utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        record = _parse_line(line, number)
        if records.setdefault(record.key, record) != record:
            raise DataError(f"latency records, line {number}: key {record.key} has another answer above; keep one of the two lines")
    return tuple(records.values())


class ReplayDevice:
    """A `Device` that answers from records only: for a search repeated exactly, or on a machine that is not the target."""

    def __init__(self, records: Iterable[LatencyRecord], device: str | None = None) -> None:
        """`device` is the fingerprint to answer for; needed only when the records hold several.

        Raises:
            UserError: no records, several devices and none chosen, or a device that has no records.
        """
        self._records = {record.key: record for record in records}
        devices = sorted({record.provenance.device for record in self._records.values()})
        if not devices:
            raise UserError("no latency records to replay; export them from a search that measured")
        if device is None and len(devices) > 1:
            raise UserError(f"latency records of {len(devices)} devices; choose one of {', '.join(devices)}")
        if device is not None and device not in devices:
            raise UserError(f"no latency records of device {device}; there are some of {', '.join(devices)}")
        self._device = device or devices[0]

    def fingerprint(self) -> str:
        """Fingerprint of the device that the records were taken on."""
        return self._device

    def measure(self, model: bytes, config: LatencyConfig, *, graph: str) -> LatencyRecord:
        """The recorded answer; `model` is not run.

        Raises:
            NotFound: nothing was recorded for this graph, device and protocol.
        """
        record = self._records.get(latency_key(graph, self._device, config))
        if record is None:
            raise NotFound(
                f"no latency record of graph {graph[:12]} ({config.provider}, threads {config.threads}, batch {config.batch}) on {self._device} "
                f"among {len(self._records)}; measure it on that device and export the records again"
            )
        return record


def _parse_line(line: str, number: int) -> LatencyRecord:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"latency records, line {number}: no JSON ({error.msg}); export the records again") from None
    version = value.get("version") if isinstance(value, dict) else None
    if isinstance(version, int) and version > RECORD_VERSION:
        raise StateVersionError(f"latency records, line {number}: version {version}, this kfnas reads up to {RECORD_VERSION}; upgrade kfnas")
    try:
        return parse(LatencyRecord, value, source=f"latency records, line {number}")
    except UserError as error:
        raise DataError(str(error)) from None
