"""One rank of a supernet's training, run by torchrun: `torchrun --nproc-per-node 2 two_ranks.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from kfnas.nn import build_supernet
from kfnas.oneshot.batches import TensorBatches
from kfnas.oneshot.beta_nas import Draw
from kfnas.oneshot.gates import SupernetGates
from kfnas.oneshot.ranks import ProcessGroup, Ranks
from kfnas.oneshot.recipe import SupernetConfig
from kfnas.oneshot.training import SupernetTraining
from kfnas.space import MixopSpace, NetworkArguments
from kfnas.space.mixop_operators import Bottleneck, Identity
from kfnas.space.mixop_skeletons import MixopSkeleton, Stage


def trained(ranks: Ranks) -> bytes:
    """Saved weights after four steps of two parts, and the gate gradients of one batch behind them."""
    operators = (Identity(), Bottleneck("MBConv", 3, 3), Bottleneck("NConv", 1, 3))
    space = MixopSpace("toy", MixopSkeleton("toy", 8, 8, (Stage(8, 2, 1), Stage(16, 2, 2)), 16, dropout=0.3), operators, reference="MBConv_3_3")
    supernet = build_supernet(space, NetworkArguments(resolution=10, in_channels=1, num_outputs=3))
    generator = torch.Generator().manual_seed(0)
    images, targets = torch.randn(32, 1, 10, 10, generator=generator), torch.randint(0, 3, (32,), generator=generator)
    batches = TensorBatches(images, targets, batch_size=16, num_parts=2, seed=0)
    config = SupernetConfig(num_parts=2, max_grad_norm=1.0)
    training = SupernetTraining(supernet, batches, F.cross_entropy, config, num_steps=4, seed=0, ranks=ranks)
    training.train(lambda rng: tuple(rng.integers(0, space.num_choices).tolist()), until=2)
    gates = SupernetGates(supernet, batches, F.cross_entropy, num_parts=2, ranks=ranks)
    found = gates.gradients(Draw((1, 0, 1, 1), ((0, 1, 2), (0, 1), (0, 1), (1, 2))), 0)
    return training.save() + np.concatenate([[found.loss], *found.gradients]).tobytes()


def main(folder: str) -> None:
    """Meet the other ranks as torchrun says, train, write the result under the rank's number."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    (Path(folder) / f"rank{torch.distributed.get_rank()}").write_bytes(trained(ProcessGroup()))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
