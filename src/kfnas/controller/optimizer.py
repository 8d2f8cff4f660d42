"""Adam whose moments survive, by name, with the rest of an agent's state."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

KEYS = ("step", "exp_avg", "exp_avg_sq")


class LazyAdam:
    """Adam, made when it is first needed: constructing one imports torch's compiler, which costs a process that only samples a second."""

    def __init__(self, module: nn.Module, learning_rate: float, *, fused: bool = False) -> None:
        """Adam for all parameters of `module`; `fused` runs it as one kernel, which is faster for large weights and rounds otherwise."""
        self._module, self._learning_rate, self._fused = module, learning_rate, fused
        self._optimizer: torch.optim.Adam | None = None
        self._moments: dict[str, dict[str, Tensor]] = {}

    def live(self) -> torch.optim.Adam:
        """The optimiser itself."""
        if self._optimizer is None:
            self._optimizer = torch.optim.Adam(self._module.parameters(), lr=self._learning_rate, fused=self._fused)
            for name, parameter in self._module.named_parameters():
                if name in self._moments:
                    self._optimizer.state[parameter] = self._moments[name]
        return self._optimizer

    def arrays(self) -> dict[str, np.ndarray]:
        """The moments, as `<parameter>.<key>`."""
        arrays = {}
        for name, parameter in self._module.named_parameters():
            moments = self._moments.get(name, {}) if self._optimizer is None else self._optimizer.state.get(parameter, {})
            for key, value in moments.items():
                arrays[f"{name}.{key}"] = np.asarray(value.detach().numpy()).copy()
        return arrays

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from what `arrays` gave."""
        names = [name for name, _ in self._module.named_parameters()]
        found = {name: {key: torch.from_numpy(np.array(arrays[f"{name}.{key}"])) for key in KEYS if f"{name}.{key}" in arrays} for name in names}
        self._optimizer, self._moments = None, {name: moments for name, moments in found.items() if moments}
