"""A device whose latencies are known beforehand, to try operator latency tables with."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import onnx

from kfnas.measure import LatencyConfig, LatencyRecord, Provenance, latency_key

_MS_PER_WEIGHT = 1e-4


class AdditiveDevice:
    """Answers from the graph alone: `session_ms` a run, `bias_ms` more for a whole network, and each convolution and linear layer its own share.

    Args:
        fingerprint: what it says it is.
        session_ms: what every run takes beside its operations.
        bias_ms: added to whole networks.
        slowdown: whole networks' operations take so many times what they take alone.
        noise: standard deviation of each answer, a share of it.
        drift: factor on each answer by the number of answers before.
        unstable: digests of graphs that it cannot measure.
        seed: of the noise.

    Attributes:
        asked: digests of all graphs in the order in which they were measured.
    """

    def __init__(
        self,
        fingerprint: str = "additive",
        *,
        session_ms: float = 0.004,
        bias_ms: float = 0.0,
        slowdown: float = 1.0,
        noise: float = 0.0,
        drift: Callable[[int], float] | None = None,
        unstable: Collection[str] = (),
        seed: int = 0,
    ) -> None:
        self._fingerprint = fingerprint
        self._session_ms, self._bias_ms, self._slowdown, self._noise = session_ms, bias_ms, slowdown, noise
        self._drift, self._unstable = drift or (lambda _: 1.0), unstable
        self._rng = np.random.default_rng(seed)
        self.asked: list[str] = []

    def fingerprint(self) -> str:
        """What it says it is."""
        return self._fingerprint

    def measure(self, model: bytes, config: LatencyConfig, *, graph: str) -> LatencyRecord:
        """See `kfnas.measure.Device`."""
        time = len(self.asked)
        self.asked.append(graph)
        whole = onnx.load_model_from_string(model).graph
        latency = self._session_ms + operations_ms(whole) * (self._slowdown if whole.name == "network" else 1.0)
        latency += self._bias_ms if whole.name == "network" else 0.0
        latency *= self._drift(time) * (1 + self._noise * self._rng.standard_normal())
        stable = graph not in self._unstable
        return LatencyRecord(
            key=latency_key(graph, self._fingerprint, config),
            graph=graph,
            status="ok" if stable else "unmeasured",
            latency_ms=latency if stable else None,
            reason=None if stable else "it is unstable",
            provenance=Provenance(device=self._fingerprint, runtime="additive 1", provider=config.provider, threads=config.threads, batch=config.batch),
        )


def operations_ms(graph: onnx.GraphProto) -> float:
    """What the convolutions and linear layers of a graph take: their weights, weighted by kernel and width so that no simpler count foretells it."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    total = 0.0
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            shape = shapes[node.input[1]]
            total += np.prod(shape, dtype=float) * (1.0 + 0.5 * np.sin(sum(shape)))
    return _MS_PER_WEIGHT * float(total)
