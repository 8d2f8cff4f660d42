from __future__ import annotations

import numpy as np
import pytest

from kfnas.errors import UserError
from kfnas.studies.sharing import KINDS, RankedNetwork, compare_sharing


def networks(count: int = 24) -> list[RankedNetwork]:
    """Networks that `pcnas` ranks as they are, `oneshot` by chance, and `against` the other way round."""
    rng = np.random.default_rng(3)
    alone, chance = rng.uniform(0.7, 0.9, count), rng.uniform(0.2, 0.4, count)
    return [
        RankedNetwork(f"toy:{index}", alone[index], {"pcnas": alone[index] / 2, "oneshot": chance[index], "against": 1 - alone[index]})
        for index in range(count)
    ]


def test_shared_weights_that_rank_as_networks_alone_do_correlate_fully() -> None:
    figures = compare_sharing(networks(), ["pcnas", "oneshot", "against"])
    for kind in KINDS:
        assert figures.correlations["pcnas"][kind].value == pytest.approx(1)
        assert figures.correlations["against"][kind].value == pytest.approx(-1)
        assert abs(figures.correlations["oneshot"][kind].value) < 0.5
        assert figures.differences["oneshot"][kind].low > 0.3
        assert figures.differences["against"][kind].mid == pytest.approx(2)
    assert figures.correlations["oneshot"]["pearson"].value == pytest.approx(
        np.corrcoef([network.alone for network in networks()], [network.shared["oneshot"] for network in networks()])[0, 1]
    )


def test_one_search_alone_has_no_difference() -> None:
    assert compare_sharing(networks(), ["oneshot"]).differences == {}


def test_too_few_networks_are_refused() -> None:
    with pytest.raises(UserError):
        compare_sharing(networks(2), ["pcnas"])
