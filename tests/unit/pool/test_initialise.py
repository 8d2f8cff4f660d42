"""From trained children to the initial weights of others."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kfnas.errors import PoolMismatch, SpaceError
from kfnas.nn import build_network
from kfnas.pool import EMPTY, Pool, blocks_of, coverage, initialise, initialise_all
from kfnas.space import Architecture, Space, mnas_v2
from kfnas.storage import MemoryStore
from kfnas.testing.faults import FaultPlan, FaultyStore


def load(spec, weights):
    """A network with these weights over random ones; names that it lacks are refused."""
    network = build_network(spec, torch.Generator().manual_seed(99))
    missing, unexpected = network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()}, strict=False)
    assert not unexpected
    return network, set(missing)


def test_an_identical_architecture_gets_its_own_weights_back(pool: Pool, space: Space, children) -> None:
    for child in children:
        alone = Pool(MemoryStore(), "alone")
        alone.push(child.entries, space=space.digest, iterations=50)
        start = initialise(alone.at(), space, child.architecture, child.spec, floor=1.0)
        network, missing = load(child.spec, start.weights)
        assert missing == {"classifier.0.weight", "classifier.0.bias"}
        state = network.state_dict()
        assert all(np.array_equal(state[name].numpy(), array) for name, array in child.weights.items() if name not in missing)
        assert (start.queried, start.matched, start.hits, start.similarities) == (7, 7, 7, (1.0,) * 7)
        assert (start.filled, start.sources, start.problems) == (1.0, (child.entries[0].source,), ())


def test_any_other_architecture_gets_weights_that_fit(pool: Pool, space: Space, make_child: Callable) -> None:
    rng, snapshot, left_out = np.random.default_rng(8), pool.at(), 0
    for _ in range(5):
        other = make_child(space.random(rng), 77)
        start = initialise(snapshot, space, other.architecture, other.spec, floor=0.0)
        network, missing = load(other.spec, start.weights)
        assert {"classifier.0.weight", "classifier.0.bias"} <= missing
        assert not any(name.startswith("classifier") for name in start.weights)
        network.eval()
        with torch.no_grad():
            assert torch.isfinite(network(torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(1)))).all()
        assert start.queried == 7
        assert 0 < start.filled <= 1
        given = {name.split(".")[1] for name in start.weights if name.startswith("blocks.")}
        known = coverage(snapshot, space, [(other.architecture, other.spec)], floor=0.0)
        assert start.matched == known.matched == len(given), "a match that gives nothing is none"
        left_out += 7 - len(given)
    assert left_out > 0


def test_a_floor_leaves_out_what_is_less_similar(pool: Pool, space: Space, children, make_child: Callable) -> None:
    child = children[0]
    tokens = list(child.architecture.tokens)
    block = space.block(2)
    tokens[block.start : block.stop] = [(token + 1) % space.num_choices[block.start + index] for index, token in enumerate(tokens[block.start : block.stop])]
    other = make_child(Architecture(space.name, tuple(tokens)), 77)
    alone = Pool(MemoryStore(), "alone")
    alone.push(child.entries, space=space.digest, iterations=50)
    start = initialise(alone.at(), space, other.architecture, other.spec, floor=0.5)
    assert start.similarities[2] == 0
    assert (start.queried, start.matched) == (7, 6)
    assert not any(name.startswith("blocks.2.") for name in start.weights)
    known = coverage(alone.at(), space, [(other.architecture, other.spec)] * 2, floor=0.5)
    assert (known.queried, known.matched, known.hits) == (14, 12, 2 * start.hits)
    assert known.similarities == start.similarities * 2


def test_fixed_parts_are_optional_both_ways(space: Space, children) -> None:
    child = children[0]
    pool = Pool(MemoryStore(), "pool")
    pool.push(child.entries, space=space.digest, iterations=50)
    start = initialise(pool.at(), space, child.architecture, child.spec, floor=0.0, fixed_parts=False)
    assert {name.split(".")[0] for name in start.weights} == {"blocks"}
    bare = blocks_of(space, child.architecture, child.spec, child.weights, source="x", iterations=50, fixed_parts=False)
    assert [entry.block for entry in bare] == list(range(7))


def test_an_empty_pool_matches_nothing(space: Space, children) -> None:
    snapshot = Pool(MemoryStore(), "pool").at()
    start = initialise(snapshot, space, children[0].architecture, children[0].spec, floor=0.0)
    assert snapshot.version == EMPTY
    assert (start.weights, start.queried, start.matched, start.similarities) == ({}, 7, 0, (0.0,) * 7)


def test_a_pool_of_another_space_is_refused(pool: Pool, children) -> None:
    other = mnas_v2()
    assert other.reference is not None
    with pytest.raises(PoolMismatch, match="'mnas_v2' is"):
        initialise(pool.at(), other, other.reference, children[0].spec, floor=0.0)
    with pytest.raises(PoolMismatch):
        coverage(pool.at(), other, [], floor=0.0)


def test_weights_of_another_network_are_refused(space: Space, children) -> None:
    child = children[0]
    with pytest.raises(SpaceError, match=r"'blocks\.0\.0\..*' is missing"):
        blocks_of(space, child.architecture, child.spec, {}, source="x", iterations=1)
    wrong = {**child.weights, "stem.conv.conv.weight": np.zeros((1, 1, 3, 3))}
    with pytest.raises(SpaceError, match=r"'stem\.conv\.conv\.weight' is of shape \(1, 1, 3, 3\)"):
        blocks_of(space, child.architecture, child.spec, wrong, source="x", iterations=1)


def test_equal_versions_give_equal_weights_whatever_the_order_of_pushes(pool: Pool, space: Space, children, make_child: Callable) -> None:
    backwards = Pool(MemoryStore(), "backwards")
    for child in reversed(children):
        backwards.push(child.entries, space=space.digest, iterations=50)
    assert backwards.head().digest == pool.head().digest
    other = make_child(space.random(np.random.default_rng(4)), 1)
    starts = [initialise(each.at(), space, other.architecture, other.spec, floor=0.0, rng=np.random.default_rng(7)) for each in (pool, backwards, pool)]
    for start in starts[1:]:
        assert start.weights.keys() == starts[0].weights.keys()
        assert all(np.array_equal(array, starts[0].weights[name]) for name, array in start.weights.items())


def test_a_batch_gets_what_each_would_get_alone_and_reads_each_donor_once(pool: Pool, space: Space, make_child: Callable) -> None:
    rng = np.random.default_rng(6)
    others = [make_child(space.random(rng), seed) for seed in range(5)] * 2
    networks = [(child.architecture, child.spec) for child in others]
    counted = FaultyStore(pool.access.store, FaultPlan(kinds=("get",), key="packs/"))
    together = initialise_all(Pool(counted, "shared").at(), space, networks, floor=0.3)
    assert len(counted.operations) <= pool.info().num_packs
    for start, (architecture, spec) in zip(together, networks, strict=True):
        alone = initialise(pool.at(), space, architecture, spec, floor=0.3)
        assert start.weights.keys() == alone.weights.keys()
        assert all(np.array_equal(array, alone.weights[name]) for name, array in start.weights.items())
        assert (start.matched, start.hits, start.similarities) == (alone.matched, alone.hits, alone.similarities)


def test_a_damaged_donor_gives_way_to_the_next_and_is_reported(pool: Pool, space: Space, children) -> None:
    store, child = pool.access.store, children[-1]
    before = initialise(pool.at(), space, child.architecture, child.spec, floor=0.0)
    assert before.hits == 7
    own = {row.pack for row in pool.at().rows if row.source == before.sources[0]}
    for pack in own:
        store.put(f"pools/shared/{pack}", store.get(f"pools/shared/{pack}")[:-100] + b"x" * 100)
    start = initialise(pool.at(), space, child.architecture, child.spec, floor=0.0)
    assert start.problems
    assert all("differ from their digest" in problem for problem in start.problems)
    assert start.matched == 7
    assert start.hits < 7
    load(child.spec, start.weights)


def test_a_pool_whose_packs_are_gone_matches_nothing(pool: Pool, space: Space, children) -> None:
    for key in list(pool.access.store.list("pools/shared/packs/")):
        pool.access.store.delete(key)
    start = initialise(pool.at(), space, children[0].architecture, children[0].spec, floor=0.0)
    assert (start.matched, start.weights, start.queried) == (0, {}, 7)
    assert all("is missing" in problem for problem in start.problems)


def test_a_child_trains_from_what_a_pool_gives(pool: Pool, space: Space, make_child: Callable, tmp_path: Path) -> None:
    from kfnas.train import Classification, ProxyConfig, image_data, train_child

    other = make_child(space.random(np.random.default_rng(4)), 1)
    start = initialise(pool.at(), space, other.architecture, other.spec, floor=0.0)
    rng = np.random.default_rng(0)
    pixels, targets = torch.from_numpy(rng.integers(0, 255, (80, 1, 28, 28)).astype(np.uint8)), torch.from_numpy(rng.integers(10, size=80))
    meta = {"task": "classification", "classes": [str(number) for number in range(10)], "augmentation": {"crop_padding": 1, "flip": False}}
    data = image_data(pixels[16:], targets[16:], pixels[:16], targets[:16], seed=0, meta=meta, num_train=32, num_val=16)
    weights = {name: torch.from_numpy(array) for name, array in start.weights.items()}
    outcome = train_child(other.spec, data, Classification(), ProxyConfig(steps=1, batch_size=16, learning_rate=1e-9), seed=0, initial_weights=weights)
    assert outcome.status == "ok", outcome.reason
    assert outcome.weights is not None
    name = "stem.conv.conv.weight"
    assert torch.allclose(outcome.weights[name], weights[name], atol=1e-5)
