from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest

from kfnas.errors import PluginError, SpaceError
from kfnas.space import Architecture, Block, Choice, Decision, NetworkArguments, Space, load_space

DECISIONS: dict[str, list[Choice]] = {"stem": ["narrow", "wide"], "block0/op": ["conv", "mb3"], "block0/kernel": [3, 5, 7], "block1/op": ["conv"]}


def at_most_one_large_choice(choices: Mapping[str, Choice]) -> bool:
    return not (choices["stem"] == "wide" and choices["block0/kernel"] == 7)


@pytest.fixture
def space() -> Space:
    return Space.from_decisions(DECISIONS, name="toy")


def test_blocks_are_runs_of_one_prefix_and_a_plain_name_is_its_own_block(space: Space) -> None:
    assert space.blocks == (Block("stem", 0, 1), Block("block0", 1, 3), Block("block1", 3, 4))
    assert space.num_choices == (2, 2, 3, 1)
    assert space.size == 12


def test_the_block_of_a_decision_is_all_before_the_last_slash() -> None:
    assert Decision("stage1/block0/op", ("a", "b")).block == "stage1/block0"


def test_choices_of_names_every_decision_in_order(space: Space) -> None:
    architecture = space.architecture([1, 0, 2, 0])
    assert list(space.choices_of(architecture).items()) == [("stem", "wide"), ("block0/op", "conv"), ("block0/kernel", 7), ("block1/op", "conv")]


def test_embedding_is_the_concatenated_one_hot_encoding(space: Space) -> None:
    embedding = space.embed(space.architecture([1, 0, 2, 0]))
    assert embedding.dtype == np.float32
    assert embedding.tolist() == [0, 1, 1, 0, 0, 0, 1, 1]


def test_embedding_of_a_block_is_its_slice_by_index_and_by_name(space: Space) -> None:
    architecture = space.architecture([1, 1, 0, 0])
    assert space.embed_block(architecture, "block0").tolist() == [0, 1, 1, 0, 0]
    assert space.embed_block(architecture, 1).tolist() == [0, 1, 1, 0, 0]
    slices = [space.embed_block(architecture, index) for index in range(len(space.blocks))]
    assert np.concatenate(slices).tolist() == space.embed(architecture).tolist()


def test_embeddings_of_different_architectures_differ(space: Space) -> None:
    rng = np.random.default_rng(0)
    found = {space.random(rng) for _ in range(200)}
    assert len(found) == space.size
    assert len({space.embed(architecture).tobytes() for architecture in found}) == space.size


def test_an_unknown_block_is_refused(space: Space) -> None:
    with pytest.raises(SpaceError, match=r"no block 'block9'; it has stem, block0, block1"):
        space.embed_block(space.architecture([0, 0, 0, 0]), "block9")


def test_printed_architectures_parse_to_themselves(space: Space) -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        architecture = space.random(rng)
        assert Architecture.parse(str(architecture)) == architecture
    assert str(space.architecture([1, 0, 2, 0])) == "toy:1-0-2-0"
    assert Architecture.parse("toy:10-0\n") == Architecture("toy", (10, 0))


@pytest.mark.parametrize("text", ["", "toy", "toy:", ":1-2", "toy:1--2", "toy:1-x", "toy:-1", "toy:1.0", "toy:1- 2", "toy:²"])
def test_text_that_is_no_architecture_is_refused(text: str) -> None:
    with pytest.raises(SpaceError, match="is not an architecture; write"):
        Architecture.parse(text)


def test_architectures_are_hashable_and_take_numpy_integers() -> None:
    assert {Architecture("toy", tuple(np.array([1, 2]))): "found"}[Architecture("toy", (1, 2))] == "found"
    assert all(type(token) is int for token in Architecture("toy", tuple(np.array([1, 2]))).tokens)


@pytest.mark.parametrize("tokens", [(0.0, 1), (True, 0), (-1, 0), ("0", 1)])
def test_tokens_that_are_no_indices_are_refused(tokens: tuple[int, ...]) -> None:
    with pytest.raises(SpaceError, match="is not an index"):
        Architecture("toy", tokens)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [([0, 0, 3, 0], "token 3 of decision 'block0/kernel' is out of range; give 0 to 2"), ([0, 0], "2 tokens; give 4"), ([0] * 5, "5 tokens; give 4")],
)
def test_tokens_outside_the_space_are_refused(space: Space, tokens: list[int], message: str) -> None:
    assert not space.is_valid(tokens)
    with pytest.raises(SpaceError, match=message):
        space.architecture(tokens)


def test_an_architecture_of_another_space_is_refused(space: Space) -> None:
    with pytest.raises(SpaceError, match="is of space 'other', not 'toy'"):
        space.embed(Architecture("other", (0, 0, 0, 0)))


def test_what_the_rule_refuses_is_no_architecture() -> None:
    space = Space.from_decisions(DECISIONS, is_valid=at_most_one_large_choice)
    assert space.has_rule
    assert not space.is_valid((1, 0, 2, 0))
    with pytest.raises(SpaceError, match=r"custom:1-0-2-0: the space's rule refuses .*'block0/kernel': 7"):
        space.architecture((1, 0, 2, 0))


def test_random_is_uniform_over_the_valid_architectures() -> None:
    space = Space.from_decisions(DECISIONS, is_valid=at_most_one_large_choice)
    rng = np.random.default_rng(7)
    counts = Counter(space.random(rng).tokens for _ in range(5000))
    assert len(counts) == 10
    # Each count is binomial(5000, 0.1) with standard deviation 21: six of them, so a false alarm is below 1e-7.
    assert all(abs(count - 500) < 6 * 21.3 for count in counts.values())


def test_random_repeats_under_the_same_generator(space: Space) -> None:
    draws = [[space.random(rng) for _ in range(20)] for rng in (np.random.default_rng(3), np.random.default_rng(3), np.random.default_rng(4))]
    assert draws[0] == draws[1] != draws[2]


def test_a_rule_that_nothing_meets_is_an_error_and_not_an_endless_loop() -> None:
    space = Space.from_decisions(DECISIONS, is_valid=lambda choices: False)
    with pytest.raises(SpaceError, match="random architectures broke its rule; loosen is_valid"):
        space.random(np.random.default_rng(0))


def test_neighbors_are_all_changes_of_one_decision(space: Space) -> None:
    neighbors = [architecture.tokens for architecture in space.neighbors(space.architecture((0, 0, 1, 0)))]
    assert neighbors == [(1, 0, 1, 0), (0, 1, 1, 0), (0, 0, 0, 0), (0, 0, 2, 0)]


def test_neighbors_obey_the_rule() -> None:
    space = Space.from_decisions(DECISIONS, is_valid=at_most_one_large_choice)
    neighbors = [architecture.tokens for architecture in space.neighbors(space.architecture((0, 0, 2, 0)))]
    assert (1, 0, 2, 0) not in neighbors
    assert len(neighbors) == 3


def test_neighbors_are_canonical_come_once_and_are_never_the_architecture_itself() -> None:
    # The kernel does not matter under op conv (token 0).
    space = Space.from_decisions(DECISIONS, canonical=lambda tokens: tokens if tokens[1] else (*tokens[:2], 0, tokens[3]))
    assert [found.tokens for found in space.neighbors(space.architecture((0, 0, 2, 0)))] == [(1, 0, 0, 0), (0, 1, 2, 0)]
    assert [found.tokens for found in space.neighbors(space.architecture((0, 1, 2, 0)))] == [(1, 1, 2, 0), (0, 0, 0, 0), (0, 1, 0, 0), (0, 1, 1, 0)]


def test_neighbors_are_lazy() -> None:
    asked: list[Mapping[str, Choice]] = []
    space = Space.from_decisions({f"d{index}": [0, 1] for index in range(100)}, is_valid=lambda choices: not asked.append(choices))  # type: ignore[func-returns-value]
    start = space.architecture([0] * 100)
    asked.clear()
    next(space.neighbors(start))
    assert len(asked) == 1


def test_without_a_canonical_function_every_architecture_stands_for_itself(space: Space) -> None:
    architecture = space.architecture((1, 1, 1, 0))
    assert space.canonical(architecture) == architecture


def test_a_canonical_function_that_leaves_the_space_is_reported() -> None:
    space = Space.from_decisions(DECISIONS, canonical=lambda tokens: (9, *tokens[1:]))
    with pytest.raises(SpaceError, match=r"canonical\(custom:0-0-0-0\) is no architecture of the space"):
        space.canonical(space.architecture((0, 0, 0, 0)))


def test_the_digest_goes_by_decisions_and_their_order_and_not_by_the_name(space: Space) -> None:
    assert Space.from_decisions(DECISIONS, name="other").digest == space.digest
    assert Space.from_decisions(dict(reversed(DECISIONS.items()))).digest != space.digest
    assert Space.from_decisions({**DECISIONS, "stem": ["wide", "narrow"]}).digest != space.digest
    assert Space.from_decisions({"a": [1, 2]}).digest != Space.from_decisions({"a": [1.0, 2.0]}).digest


def test_the_digest_does_not_change_between_versions(space: Space) -> None:
    assert space.digest == "dea6bda793d4da727b8ae5cd28a270c6edc8ab8e133f981ed0787c7f395d8e4c"


def test_decisions_survive_json(space: Space) -> None:
    for value in (space.to_json(), json.dumps(space.to_json())):
        loaded = Space.from_json(value)
        assert (loaded.name, loaded.decisions, loaded.digest) == (space.name, space.decisions, space.digest)
    mixed = Space.from_decisions({"a": ["x", 1, 0.25, False]})
    assert Space.from_json(json.dumps(mixed.to_json())).digest == mixed.digest


@pytest.mark.parametrize("value", ["{", "[]", {"name": "toy"}, {"name": "toy", "decisions": [1]}, 3])
def test_json_that_holds_no_space_is_refused(value: object) -> None:
    with pytest.raises(SpaceError, match=r"is not a space .*; give what Space.to_json\(\) returned"):
        Space.from_json(value)  # type: ignore[arg-type]


def test_numpy_choices_become_plain_values() -> None:
    space = Space.from_decisions({"a": list(np.array([1, 2])), "b": [np.float64(0.5)]})
    assert [type(choice) for choice in (*space.decisions[0].choices, *space.decisions[1].choices)] == [int, int, float]


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        ({}, "has no decisions"),
        ({"a": []}, "'a' has no choices"),
        ({"a": ["x", "x"]}, "names a choice twice"),
        ({"a": [1, True]}, "names a choice twice"),
        ({"a": "xy"}, "choices are 'xy'; give a list"),
        ({"a": [None]}, "choice None cannot be written down"),
        ({"a": [float("nan")]}, "choice nan cannot be written down"),
        ({"": ["x"]}, "decision name '' is not usable"),
        ({"a/": ["x"]}, "decision name 'a/' is not usable"),
        ({"a/op": ["x"], "b/op": ["x"], "a/k": ["x"]}, r"blocks \['a'\] do not stand together"),
        ({"a": ["x"], "a/k": ["x"]}, "'a' is a block of its own"),
    ],
)
def test_decisions_that_make_no_space_are_refused(decisions: dict[str, list[Choice]], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        Space.from_decisions(decisions)


def test_two_decisions_of_one_name_are_refused() -> None:
    with pytest.raises(SpaceError, match=r"\['a'\] are named twice"):
        Space([Decision("a", (1, 2)), Decision("a", (1, 2))])


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\n"])
def test_a_space_name_that_would_not_parse_is_refused(name: str) -> None:
    with pytest.raises(SpaceError, match="space name"):
        Space.from_decisions(DECISIONS, name=name)


def test_a_reference_outside_the_space_is_refused() -> None:
    with pytest.raises(SpaceError, match="out of range"):
        Space.from_decisions(DECISIONS, reference=(0, 0, 3, 0))


def test_a_tabular_space_builds_no_networks(space: Space) -> None:
    assert not space.has_networks
    assert space.reference is None
    with pytest.raises(SpaceError, match="builds no networks"):
        space.network(space.architecture((0, 0, 0, 0)), NetworkArguments())


def test_named_spaces_come_from_installed_entry_points() -> None:
    assert load_space("mnas_small").name == "mnas_small"
    with pytest.raises(PluginError, match=r"space 'mnas_smal' is not installed; known are .*mnas_small"):
        load_space("mnas_smal")


def test_importing_spaces_does_not_import_torch() -> None:
    code = "import sys, kfnas.space; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
