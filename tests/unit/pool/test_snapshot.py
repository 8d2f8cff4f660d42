"""Queries are exact, and ties have one answer."""

import itertools

import numpy as np
import pytest

from kfnas.errors import UserError
from kfnas.pool import Match, Pool, PoolEntry, PoolSnapshot
from kfnas.storage import MemoryStore

COUNTS = (4, 2, 3)


def one_hot(tokens: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([np.eye(count, dtype=np.float32)[token] for count, token in zip(COUNTS, tokens, strict=True)])


def entry(tokens: tuple[int, ...], block: int = 0, **fields: object) -> PoolEntry:
    values = {"source": "a", "iterations": 1, "shape": "s", **fields}
    return PoolEntry(block, tokens, one_hot(tokens), {"0.w": np.zeros(1, dtype=np.float32)}, **values)  # type: ignore[arg-type]


def snapshot_of(*entries: PoolEntry) -> PoolSnapshot:
    pool = Pool(MemoryStore(), "demo")
    pool.push(entries, space="s" * 64, iterations=1)
    return pool.at()


def found(match: Match | None) -> tuple[int, ...]:
    assert match is not None
    return match.row.key.tokens


def test_the_answer_is_the_one_of_highest_cosine_by_tokens_and_by_embedding() -> None:
    rng = np.random.default_rng(0)
    stored = sorted({tuple(int(value) for value in rng.integers(0, COUNTS)) for _ in range(9)})
    snapshot = snapshot_of(*map(entry, stored))
    for wanted in itertools.product(*map(range, COUNTS)):
        embedding = one_hot(wanted)
        cosines = [float(embedding @ one_hot(each) / (np.linalg.norm(embedding) * np.linalg.norm(one_hot(each)))) for each in stored]
        match = snapshot.query(0, wanted)
        assert match is not None
        assert np.isclose(match.similarity, max(cosines))
        assert found(match) == stored[int(np.argmax(np.round(cosines, 6)))]
        assert found(snapshot.query(0, embedding=embedding)) == found(match)


def test_any_embedding_may_be_asked_for() -> None:
    snapshot = snapshot_of(entry((0, 0, 0)), entry((3, 1, 2)))
    match = snapshot.query(0, embedding=one_hot((3, 1, 2)) * 5 + one_hot((0, 0, 0)))
    assert found(match) == (3, 1, 2)
    assert match is not None
    assert np.isclose(match.similarity, 5 / np.sqrt(26))


def test_only_the_same_position_answers() -> None:
    snapshot = snapshot_of(entry((0, 0, 0), block=1), entry((3, 1, 2), block=0))
    assert found(snapshot.query(0, (0, 0, 0))) == (3, 1, 2)
    assert snapshot.query(2, (0, 0, 0)) is None
    assert snapshot.query(0, (3, 1, 2), part="stem") is None


def test_ties_go_by_operations_then_shape_then_task_then_order() -> None:
    first, second = (0, 0, 1), (0, 0, 2)
    assert found(snapshot_of(entry(second), entry(first)).query(0, (0, 0, 0))) == first
    assert found(snapshot_of(entry(first), entry(second, task="t")).query(0, (0, 0, 0), task="t")) == second
    assert found(snapshot_of(entry(first, task="t"), entry(second, shape="z")).query(0, (0, 0, 0), task="t", shape="z")) == second
    snapshot = snapshot_of(entry(first, shape="z", operations="conv"), entry(second, operations="expand+project"))
    assert found(snapshot.query(0, (0, 0, 0), shape="z", operations="expand+depthwise+project")) == second


def test_operations_count_layer_by_layer() -> None:
    first, second = (0, 0, 1), (0, 0, 2)
    snapshot = snapshot_of(entry(first, operations="a+b"), entry(second, operations="a/b"))
    assert found(snapshot.query(0, (0, 0, 0), operations="a/b")) == second
    assert found(snapshot.query(0, (0, 0, 0), operations="a+b/a")) == first


def test_similarity_comes_before_everything_else() -> None:
    snapshot = snapshot_of(entry((0, 0, 2)), entry((0, 1, 1), shape="z", task="t", operations="conv"))
    assert found(snapshot.query(0, (0, 0, 0), shape="z", task="t", operations="conv")) == (0, 0, 2)


def test_exact_means_tokens_and_shape() -> None:
    snapshot = snapshot_of(entry((0, 0, 0)))
    cases = [((0, 0, 0), "s", True), ((0, 0, 0), "z", False), ((0, 0, 1), "s", False)]
    assert [snapshot.query(0, tokens, shape=shape).exact for tokens, shape, _ in cases] == [exact for _, _, exact in cases]  # type: ignore[union-attr]


def test_what_shares_no_operation_is_no_donor_however_similar() -> None:
    snapshot = snapshot_of(entry((0, 0, 0), operations="conv/"), entry((0, 0, 0), block=1))
    donors = {"conv/": True, "conv+se/conv": True, "expand/conv": False, "expand/": False, "": True}
    assert {operations: snapshot.query(0, (0, 0, 1), operations=operations).counts(0.6) for operations in donors} == donors  # type: ignore[union-attr]
    assert not snapshot.query(0, (0, 0, 1), operations="conv/").counts(0.7)  # type: ignore[union-attr]
    assert snapshot.query(1, (0, 0, 1), operations="conv").counts(0.6), "nothing is known of the entry's"  # type: ignore[union-attr]


def test_a_query_that_cannot_be_answered_is_refused() -> None:
    snapshot = snapshot_of(entry((0, 0, 0)))
    with pytest.raises(UserError, match="either tokens or an embedding"):
        snapshot.query(0)
    with pytest.raises(UserError, match="either tokens or an embedding"):
        snapshot.query(0, (0, 0, 0), embedding=one_hot((0, 0, 0)))
    with pytest.raises(UserError, match="2 tokens meets entries of 3"):
        snapshot.query(0, (0, 0))
    with pytest.raises(UserError, match=r"shape \(4,\) meets embeddings of shape \(9,\)"):
        snapshot.query(0, embedding=np.ones(4))
