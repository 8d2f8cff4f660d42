"""FNAS's Table 5 with real training: searches on animal shapes that start from a search on Fashion-MNIST, against one that starts from nothing.

    scripts/fetch_animal_shapes.sh
    OMP_NUM_THREADS=1 python benchmarks/all_together.py                     the search that the others start from is one of these
    OMP_NUM_THREADS=1 python benchmarks/transfer_images.py --folder runs/all_together
    kfnas prove knowledge benchmarks/transfer_images.yaml --set base.store=runs/all_together/store --report        operators and critic errors of the same

The donor has searched Fashion-MNIST with critic, buffer and pool; each row searches the animals with the same seeds: with nothing of it (fresh), with its
critic (uac), with its pool (akp) and with both. Quality is as in `retrained_study.py`; `transfer_images.yaml` has the searches.
"""

from __future__ import annotations

from pathlib import Path

from retrained_study import main

if __name__ == "__main__":
    main("transfer", Path(__file__).with_suffix(".yaml"), __doc__)
