"""What critics of either kind have in common: whose evidence they stand on, and when their word may be taken."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from kfnas.controller.config import CriticConfig
from kfnas.controller.evidence import Floats, OwnSamples, PriorSamples, Scale, agreement, scale_of

AGREES = 2.5
"""Standard errors by which predictions that stand on a prior must go with this search's rewards before they are trusted."""


class Standing(ABC):
    """A critic's evidence, and its judgement of a prior.

    A prior is kept once it has predicted this search's rewards well enough, and given up where it has not by `min_samples`.
    """

    def __init__(self, config: CriticConfig, prior: PriorSamples | None) -> None:
        self._config = config
        self._own = OwnSamples()
        self._prior = prior
        self._judged = prior is None
        self._num_fits = 0

    def __len__(self) -> int:
        """Trained draws of this search that it was fitted on."""
        return len(self._own)

    @property
    def has_prior(self) -> bool:
        """Whether it stands on an earlier search's samples."""
        return self._prior is not None

    @property
    def scale(self) -> Scale | None:
        """Mean and deviation of this search's rewards; None before there are two."""
        return scale_of(self._own.rewards) if len(self._own) >= 2 else None

    def prepare(self) -> None:
        """Fit a prior's samples, once: what came with them was fitted to another search's reward."""
        if self._prior is not None and self._num_fits == 0:
            self._fit()

    def threshold(self, uncertainties: Floats) -> float:
        """Uncertainty, in the reward's unit, above which a draw is not trusted.

        Args:
            uncertainties: of a large sample of the current policy, [N].
        """
        wanted = self._config.threshold
        if wanted.quantile is not None:
            return float(np.quantile(uncertainties, wanted.quantile))
        assert wanted.fixed is not None
        return wanted.fixed * scale_of(self._own.rewards).deviation

    def _judge(self) -> None:
        """Keep the prior, give it up, or wait for more samples."""
        if self._judged:
            return
        predicted = np.asarray(self._own.predicted)
        known = ~np.isnan(predicted)
        if agreement(predicted[known], np.asarray(self._own.rewards)[known]) >= AGREES:
            self._judged = True
        elif len(self._own) >= self._config.min_samples:
            self._judged, self._prior = True, None
            self._begin_again()

    @abstractmethod
    def _fit(self) -> None:
        """Fit on the samples."""

    @abstractmethod
    def _begin_again(self) -> None:
        """Forget what a prior that was given up has taught."""
