from __future__ import annotations

import subprocess
import sys


def test_the_algorithms_and_their_configurations_do_not_import_torch() -> None:
    code = "import sys, kfnas.oneshot; from kfnas.oneshot import BetaNASConfig, EvolutionConfig, PCNASConfig, PCNASState; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_every_public_name_can_be_imported() -> None:
    import kfnas.oneshot

    assert all(getattr(kfnas.oneshot, name) is not None for name in kfnas.oneshot.__all__)
