"""The agent's policy: a one-layer LSTM that writes an architecture token by token, each decision with a softmax over its own choices.

Shapes: N architectures, D decisions, K choices of the widest decision, H hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kfnas.controller.config import PolicyConfig


class PolicyOutput(NamedTuple):
    """Log-probabilities [N] of whole architectures, and entropies [N] in nats: of each decision given the ones before it, summed over
    decisions."""

    log_prob: Tensor
    entropy: Tensor


class Policy(nn.Module):
    """p(architecture) = product over decisions of p(token | tokens before it)."""

    def __init__(self, num_choices: Sequence[int], config: PolicyConfig, generator: torch.Generator) -> None:
        """Build a nearly uniform policy.

        Args:
            num_choices: choices of each decision, in order.
            config: sizes.
            generator: the only source of the initial weights.
        """
        super().__init__()
        self.num_choices = tuple(num_choices)
        hidden, widest, total = config.hidden_units, max(num_choices), sum(num_choices)
        # Given weights, or on "meta" first: modules would otherwise fill their weights from torch's global generator.
        self.embedding = nn.Embedding(1 + total, hidden, _weight=torch.empty(1 + total, hidden))
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True, device="meta").to_empty(device="cpu")
        self.head_weight = nn.Parameter(torch.empty(len(self.num_choices), widest, hidden))
        self.head_bias = nn.Parameter(torch.empty(len(self.num_choices), widest))
        for name, parameter in self.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)
            else:
                nn.init.uniform_(parameter, -config.init_scale, config.init_scale, generator=generator)
        sizes = torch.tensor(self.num_choices)
        self.register_buffer("offsets", torch.cumsum(sizes, 0) - sizes + 1, persistent=False)
        self.register_buffer("absent", torch.arange(widest) >= sizes[:, None], persistent=False)

    offsets: Tensor
    absent: Tensor

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw architectures, all at once, token by token.

        Returns:
            Tokens [count, D], int64.
        """
        tokens = torch.empty(count, len(self.num_choices), dtype=torch.long)
        inputs = torch.zeros(count, dtype=torch.long)
        carry: tuple[Tensor, Tensor] | None = None
        for position in range(len(self.num_choices)):
            hidden, carry = self.lstm(self.embedding(inputs)[:, None], carry)
            logits = hidden[:, 0] @ self.head_weight[position].T + self.head_bias[position]
            probabilities = logits.masked_fill(self.absent[position], -torch.inf).softmax(-1)
            tokens[:, position] = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
            inputs = tokens[:, position] + self.offsets[position]
        return tokens

    def forward(self, tokens: Tensor) -> PolicyOutput:
        """Log-probabilities and entropies of architectures `tokens` [N, D]."""
        start = torch.zeros(len(tokens), 1, dtype=torch.long)
        inputs = torch.cat([start, tokens[:, :-1] + self.offsets[:-1]], dim=1)
        hidden, _ = self.lstm(self.embedding(inputs))
        logits = torch.einsum("ndh,dkh->ndk", hidden, self.head_weight) + self.head_bias
        log_probs = logits.masked_fill(self.absent, -torch.inf).log_softmax(-1)
        chosen = log_probs.gather(-1, tokens[..., None])[..., 0]
        finite = log_probs.masked_fill(self.absent, 0.0)
        entropy = -(finite.exp().masked_fill(self.absent, 0.0) * finite).sum(-1)
        return PolicyOutput(chosen.sum(-1), entropy.sum(-1))
