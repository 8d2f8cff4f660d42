"""Device-seconds that FNAS, MNAS and random search need for equal quality on Fashion-MNIST, with real training.

    OMP_NUM_THREADS=1 python benchmarks/all_together.py                     about 40 minutes on two cores; killed, it goes on
    python benchmarks/all_together.py --folder /tmp/tiny --set base.rounds=1 --set base.proxy.steps=2 --set base.retrain.steps=2 --retrainings 1

Quality is the mean top-1 on the test set of several retrainings from scratch of the best child so far within a budget of mult-adds; see `retrained_study.py`,
and `all_together.yaml` for the searches. Prints a markdown table and draws the curves.
"""

from __future__ import annotations

from pathlib import Path

from retrained_study import main

if __name__ == "__main__":
    main("ablation", Path(__file__).with_suffix(".yaml"), __doc__)
