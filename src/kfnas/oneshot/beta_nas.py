"""BetaNAS: importance of every path by gradient, weights trained on all remaining paths alike, unlikely paths dropped for good (its algorithm 1).

alpha[l, m] is the importance of path m of block l, p[l, :] the softmax of alpha[l, :] over the paths that remain. Two phases alternate.

1. Weights: a step along a path drawn uniformly from the remaining ones (equation 2).
2. Importance: weights fixed, a path drawn by p (equation 3), alpha moves against (equations 4 and 6)

       dL/dalpha_m = sum_j dL/dg_j p_j (delta_mj - p_m),    L = cross-entropy + beta * expected cost,

   where g is the one-hot gate that lets the drawn path through; then paths of low p are dropped (equation 7).

`proxyless_nas` gives ProxylessNAS's update (Cai et al., arXiv:1812.00332, section 3.2) for comparison: weights are trained on paths drawn by p, two paths
a block are compared at a time, nothing is dropped.

Ours, where the paper gives no value: alpha starts at 0; a cost is a share of the mean path's; a path is dropped when p < 0.5 / M', with M' paths
remaining, after a warm-up, and a block always keeps one; beta is given, or steered towards a wanted cost. Where a cost is wanted, no path is dropped
without which it could not be met, and the result is the most likely path within a tenth of it.

Shapes: L blocks, M choices of the widest block. Arrays [L, M] are padded: what a block does not have never remains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from kfnas.config import Config, canonical_json
from kfnas.errors import ConfigError, ConfigMismatch, UserError
from kfnas.oneshot.likeliest import likeliest_within
from kfnas.oneshot.packing import Packed, pack, unpack
from kfnas.oneshot.paths import Path
from kfnas.space.mixop_costs import OperatorCosts

Floats: TypeAlias = npt.NDArray[np.float64]
_ADAM_EPSILON = 1e-8
_BETA_RANGE = (-1e4, 1e4)


class BetaNASConfig(Config):
    """Length, update and drop. Adam's rate is the paper's."""

    num_steps: int = Field(ge=1, description="alternations of the two phases")
    weight_steps: int = Field(1, ge=1, description="weight steps of one alternation")
    importance_steps: int = Field(1, ge=1, description="importance steps of one alternation")
    learning_rate: float = Field(1e-3, gt=0, description="of alpha")
    momentum: float = Field(0.9, ge=0, lt=1, description="Adam's first decay")
    second_momentum: float = Field(0.999, ge=0, lt=1, description="Adam's second decay")
    gates: Literal["all", "two"] = Field("all", description="paths of a block whose gradient is computed at one step: all that remain, or two drawn by p")
    training_paths: Literal["uniform", "importance"] = Field("uniform", description="how phase 1 draws among the remaining paths: alike, or by p")
    drop_factor: float = Field(0.5, ge=0, description="a path is dropped when p is below this share of the uniform probability; 0: never")
    drop_warmup: float = Field(0.2, ge=0, le=1, description="share of the importance steps in which nothing is dropped")
    beta: float = Field(1.0, ge=0, description="weight of the expected cost, as a share of the mean path's; the first value where a target is set")
    latency_target: float | None = Field(
        None, gt=0, description="wanted cost, in the unit of the costs: steers beta, below 0 too where the cost falls short; None: beta stays"
    )
    target_tolerance: float = Field(0.1, gt=0, lt=1, description="share by which the result's cost may differ from the wanted one")
    damping: float = Field(50.0, ge=0, description="what a relative error of the cost of 1 adds to beta while it lasts")
    steering: float = Field(10.0, ge=0, description="what it adds to beta for good in 1 / learning_rate importance steps")


def proxyless_nas(config: BetaNASConfig) -> BetaNASConfig:
    """The comparison mode: ProxylessNAS's own update, everything else as in `config`."""
    return config.model_copy(update={"gates": "two", "training_paths": "importance", "drop_factor": 0.0})


class Draw(NamedTuple):
    """What one importance step looks at.

    Attributes:
        path: the drawn path.
        compared: for each block the choices whose gates get a gradient; the path's is among them.
    """

    path: Path
    compared: tuple[tuple[int, ...], ...]


class StepRecord(NamedTuple):
    """What is logged at every importance step, for figure 5.

    Attributes:
        step: number of importance steps done.
        alpha: [L, M], NaN where a block has no such choice.
        probability: [L, M], 0 for dropped paths.
        counts: weight steps on each path so far, int64 [L, M].
        beta: weight of the expected cost that was used.
        expected_cost: under p, in the unit of the costs; None without costs.
        loss: cross-entropy of the drawn path.
        dropped: (block, choice) of the paths dropped by this step.
    """

    step: int
    alpha: Floats
    probability: Floats
    counts: npt.NDArray[np.int64]
    beta: float
    expected_cost: float | None
    loss: float
    dropped: tuple[tuple[int, int], ...]


def importance_gradient(gate_gradients: Floats, probability: Floats) -> Floats:
    """Equation 4, right-hand side: dL/dalpha [K] of gate gradients dL/dg [K] and softmax probabilities [K] of K paths.

    sum_j dL/dg_j p_j (delta_mj - p_m) = p_m (dL/dg_m - sum_j p_j dL/dg_j).
    """
    gradient: Floats = probability * (gate_gradients - gate_gradients @ probability)
    return gradient


def softmax(alpha: Floats) -> Floats:
    """Softmax over the last axis; -inf has probability 0."""
    raised = np.exp(alpha - alpha.max(axis=-1, keepdims=True))
    probability: Floats = raised / raised.sum(axis=-1, keepdims=True)
    return probability


class BetaNAS:
    """The search's state: importance, remaining paths, counts, beta. Weights are somebody else's.

    Args:
        num_choices: of each block.
        config: of the search.
        costs: of every path; None leaves cost out.

    Raises:
        ConfigError: a target without costs, or one that no path can meet.
    """

    def __init__(self, num_choices: Sequence[int], config: BetaNASConfig, *, costs: OperatorCosts | None = None) -> None:
        self.num_choices = tuple(num_choices)
        self.config = config
        self._costs = costs
        if config.latency_target is not None:
            if costs is None:
                raise ConfigError(f"latency_target {config.latency_target:g} is set and nothing says what a path costs; give a table of costs")
            low, high = costs.range
            if not low <= config.latency_target <= high:
                raise ConfigError(f"latency_target {config.latency_target:g} is out of reach; paths cost {low:g} to {high:g}")
        shape = (len(self.num_choices), max(self.num_choices))
        self.remaining = np.arange(shape[1]) < np.asarray(self.num_choices)[:, None]
        self.alpha: Floats = np.zeros(shape)
        self.counts = np.zeros(shape, dtype=np.int64)
        self.num_steps_done = 0
        self.beta = config.beta
        self._first: Floats = np.zeros(shape)
        self._second: Floats = np.zeros(shape)
        self._updates = np.zeros(shape, dtype=np.int64)
        self._cost_entries: Floats = np.zeros(shape)
        for block, row in enumerate(costs.entries if costs is not None else ()):
            self._cost_entries[block, : len(row)] = row

    @property
    def probability(self) -> Floats:
        """p [L, M]: softmax of alpha over the remaining paths, 0 elsewhere."""
        return softmax(np.where(self.remaining, self.alpha, -np.inf))

    @property
    def expected_cost(self) -> float | None:
        """Equation 6's expected cost under p, with the fixed part, in the unit of the costs."""
        return None if self._costs is None else self._costs.fixed + float((self.probability * self._cost_entries).sum())

    def likeliest(self) -> Path:
        """The remaining path of the highest alpha in each block; ties go to the lower choice."""
        return tuple(np.where(self.remaining, self.alpha, -np.inf).argmax(axis=1).tolist())

    def result(self, factor: float = 1.0) -> Path:
        """The likeliest path; where a cost is wanted, the likeliest within the tolerance of it, if there is one.

        `factor` is how many times its predicted cost a network is known to cost.
        """
        path = self.likeliest()
        if self._costs is None or self.config.latency_target is None:
            return path
        low, high = (end / factor for end in self._band())
        if low <= self._costs(path) <= high:
            return path
        return likeliest_within(self.probability, self._costs, low, high) or path

    def training_path(self, rng: np.random.Generator) -> Path:
        """Path of one weight step (phase 1)."""
        probability = self.probability if self.config.training_paths == "importance" else self.remaining / self.remaining.sum(axis=1, keepdims=True)
        return tuple(int(rng.choice(len(row), p=row)) for row in probability)

    def count(self, paths: Sequence[Path]) -> None:
        """Count weight steps on `paths`."""
        for path in paths:
            self.counts[np.arange(len(path)), path] += 1

    def draw(self, rng: np.random.Generator) -> Draw:
        """What the next importance step looks at (phase 2)."""
        path, compared = [], []
        for row in self.probability:
            choices = np.flatnonzero(row)
            if self.config.gates == "two" and len(choices) > 2:
                choices = np.sort(rng.choice(len(row), size=2, replace=False, p=row))
            path.append(int(rng.choice(choices, p=row[choices] / row[choices].sum())))
            compared.append(tuple(choices.tolist()))
        return Draw(tuple(path), tuple(compared))

    def update(self, draw: Draw, gate_gradients: Sequence[npt.ArrayLike], loss: float) -> StepRecord:
        """Move alpha, steer beta, drop paths.

        Args:
            draw: what was looked at.
            gate_gradients: dL/dg of the cross-entropy for each block, in the order of `draw.compared`.
            loss: cross-entropy along `draw.path`.

        Raises:
            UserError: a gradient that is no finite number, or a path that does not remain.
        """
        used_beta = self._effective_beta()
        share = self._cost_entries / self._costs.mean if self._costs is not None else self._cost_entries
        for block, (choices, gradients) in enumerate(zip(draw.compared, gate_gradients, strict=True)):
            compared = np.asarray(choices)
            total = np.asarray(gradients, dtype=np.float64) + used_beta * share[block, compared]
            if not np.isfinite(total).all() or not self.remaining[block, compared].all():
                raise UserError(
                    f"block {block}: gate gradients {total.tolist()} of choices {list(choices)} cannot be used; give finite ones of remaining paths"
                )
            self._move(block, compared, total)
        self.num_steps_done += 1
        dropped = self._drop()
        self._steer()
        alpha = np.where(np.arange(self.alpha.shape[1]) < np.asarray(self.num_choices)[:, None], self.alpha, np.nan)
        return StepRecord(self.num_steps_done, alpha, self.probability, self.counts.copy(), used_beta, self.expected_cost, loss, dropped)

    def _move(self, block: int, compared: npt.NDArray[np.int64], gate_gradients: Floats) -> None:
        """One Adam step (Kingma and Ba, arXiv:1412.6980, algorithm 1) of the compared paths' alpha; the others' probabilities keep their values."""
        config, before = self.config, self.alpha[block, compared]
        gradient = importance_gradient(gate_gradients, softmax(before))
        self._updates[block, compared] += 1
        self._first[block, compared] = config.momentum * self._first[block, compared] + (1 - config.momentum) * gradient
        self._second[block, compared] = config.second_momentum * self._second[block, compared] + (1 - config.second_momentum) * gradient**2
        first = self._first[block, compared] / (1 - config.momentum ** self._updates[block, compared])
        second = self._second[block, compared] / (1 - config.second_momentum ** self._updates[block, compared])
        after = before - config.learning_rate * first / (np.sqrt(second) + _ADAM_EPSILON)
        if len(compared) < self.remaining[block].sum():
            # ProxylessNAS, section 3.2.1: shifted so that the two together are as likely as before.
            after += np.logaddexp.reduce(before) - np.logaddexp.reduce(after)
        self.alpha[block, compared] = after

    def _drop(self) -> tuple[tuple[int, int], ...]:
        if not self.config.drop_factor or self.num_steps_done <= self.config.drop_warmup * self.num_importance_steps:
            return ()
        probability = self.probability
        unlikely = self.remaining & (probability < self.config.drop_factor / self.remaining.sum(axis=1, keepdims=True))
        unlikely[np.arange(len(unlikely)), self.likeliest()] = False
        dropped = []
        for block, choice in np.argwhere(unlikely).tolist():
            self.remaining[block, choice] = False
            if self._target_in_reach():
                dropped.append((block, choice))
            else:
                self.remaining[block, choice] = True
        return tuple(dropped)

    def _band(self) -> tuple[float, float]:
        """Lowest and highest cost of a result."""
        assert self.config.latency_target is not None
        return self.config.latency_target * (1 - self.config.target_tolerance), self.config.latency_target * (1 + self.config.target_tolerance)

    def _target_in_reach(self) -> bool:
        """Whether the remaining paths cost from at most the highest to at least the lowest cost wanted."""
        if self._costs is None or self.config.latency_target is None:
            return True
        cheapest = self._costs.fixed + np.where(self.remaining, self._cost_entries, np.inf).min(axis=1).sum()
        dearest = self._costs.fixed + np.where(self.remaining, self._cost_entries, -np.inf).max(axis=1).sum()
        low, high = self._band()
        return bool(cheapest <= high and dearest >= low)

    @property
    def num_importance_steps(self) -> int:
        """Importance steps of the whole search."""
        return self.config.num_steps * self.config.importance_steps

    def _cost_error(self) -> float:
        """Relative error of the cost: of the expected one at the start, more and more of the path that would be chosen now, which is what counts at the end."""
        assert self._costs is not None and self.config.latency_target is not None and self.expected_cost is not None
        decided = min(1.0, self.num_steps_done / self.num_importance_steps)
        cost = (1 - decided) * self.expected_cost + decided * self._costs(self.likeliest())
        return cost / self.config.latency_target - 1

    def _effective_beta(self) -> float:
        if self.config.latency_target is None:
            return self.beta
        return float(np.clip(self.beta + self.config.damping * self._cost_error(), *_BETA_RANGE))

    def _steer(self) -> None:
        """Beta follows the error of the cost: its integral here, its value in `_effective_beta`."""
        if self.config.latency_target is not None:
            self.beta = float(np.clip(self.beta + self.config.learning_rate * self.config.steering * self._cost_error(), *_BETA_RANGE))

    def save(self) -> bytes:
        """The whole state as one blob; equal states give equal bytes."""
        values = {**self._identity(), "steps_done": self.num_steps_done, "beta": self.beta}
        arrays: dict[str, npt.NDArray[Any]] = {
            "alpha": self.alpha,
            "remaining": self.remaining.astype(np.uint8),
            "counts": self.counts,
            "first": self._first,
            "second": self._second,
            "updates": self._updates,
        }
        return pack(Packed(values, arrays))

    def restore(self, data: bytes) -> None:
        """Become what `save` was called on.

        Raises:
            CorruptError: the bytes are damaged.
            ConfigMismatch: they are of another search.
        """
        values, arrays = unpack(data)
        expected = self._identity()
        if differing := sorted(key for key in expected if values.get(key) != expected[key]):
            shown = "; ".join(f"{key}: {values.get(key)} there, {expected[key]} here" for key in differing)
            raise ConfigMismatch(f"the saved state belongs to another search ({shown}); use its configuration, or start anew")
        self.num_steps_done, self.beta = values["steps_done"], values["beta"]
        self.alpha, self._first, self._second = (arrays[name].copy() for name in ("alpha", "first", "second"))
        self.counts, self._updates = arrays["counts"].copy(), arrays["updates"].copy()
        self.remaining = arrays["remaining"].astype(bool)

    def _identity(self) -> dict[str, Any]:
        costs = None if self._costs is None else [self._costs.fixed, [list(row) for row in self._costs.entries]]
        return {"config": canonical_json(self.config), "num_choices": list(self.num_choices), "costs": costs}


def records_as_arrays(records: Sequence[StepRecord]) -> Mapping[str, npt.NDArray[Any]]:
    """Records as arrays with a first axis of steps, for plots: step, alpha, probability, counts, beta, expected_cost (NaN without costs), loss."""
    return {
        "step": np.array([record.step for record in records], dtype=np.int64),
        "alpha": np.stack([record.alpha for record in records]),
        "probability": np.stack([record.probability for record in records]),
        "counts": np.stack([record.counts for record in records]),
        "beta": np.array([record.beta for record in records]),
        "expected_cost": np.array([np.nan if record.expected_cost is None else record.expected_cost for record in records]),
        "loss": np.array([record.loss for record in records]),
    }
