"""Saved searches: the same bytes, the same continuation, clear refusals."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kfnas.controller import CriticConfig, PolicyConfig, Result, Search, SearchConfig
from kfnas.controller.state import CHUNK_ROWS, SavedState, read_state, write_state
from kfnas.errors import AccessDenied, CorruptError, NotFound, SpaceError, StateVersionError, StorageFull
from kfnas.space import Space

AGENTS = ["random", "evolution", "local_search", "mnas", "mnas+uac", "mnas+aeb", "fnas"]
SPACE = Space.from_decisions({f"block{block}/{name}": ["a", "b", "c"] for block in range(3) for name in ("op", "kernel")})

CRITIC = CriticConfig(model="networks", hidden_units=8, min_samples=6, fit_steps=4, fit_batch=8)
BAYESIAN = CriticConfig(model="bayesian", min_samples=6)


def _search(agent: str = "mnas", space: Space = SPACE) -> Search:
    return Search(space, SearchConfig(agent=agent, batch_size=8, policy=PolicyConfig(hidden_units=16), critic=BAYESIAN if agent == "fnas" else CRITIC), seed=0)  # type: ignore[arg-type]


def _step(search: Search) -> None:
    search.update([Result(item.id, accuracy=sum(item.tokens) / 12, cost=1.0, metrics={"loss": 0.1}, fidelity=1) for item in search.suggest()])


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("agent", AGENTS)
def test_a_loaded_search_goes_on_identically_and_saves_the_same_bytes(agent: str, tmp_path: Path) -> None:
    search = _search(agent)
    for _ in range(4):
        _step(search)
    search.save(tmp_path / "first")
    loaded = Search.load(tmp_path / "first")
    loaded.save(tmp_path / "second")
    assert _bytes(tmp_path / "first") == _bytes(tmp_path / "second")
    assert loaded.digest() == search.digest()
    assert loaded.history.equals(search.history)
    assert loaded.metrics == search.metrics
    for item in (search, loaded):
        _step(item)
        item.save(tmp_path / "third" / str(item is loaded))
    assert _bytes(tmp_path / "third" / "True") == _bytes(tmp_path / "third" / "False")
    assert loaded.digest() == search.digest()


@pytest.mark.parametrize("agent", AGENTS)
def test_saving_between_any_two_results_changes_nothing(agent: str, tmp_path: Path) -> None:
    whole, stepwise = _search(agent), _search(agent)
    for _ in range(3):
        batch = whole.suggest()
        results = [Result(item.id, accuracy=sum(item.tokens) / 12) for item in batch]
        whole.update(results)
        for result in results[::-1]:
            stepwise.suggest()
            stepwise.save(tmp_path)
            stepwise = Search.load(tmp_path)
            stepwise.update([result])
    assert stepwise.digest() == whole.digest()


def test_partial_results_in_any_order_save_the_same_bytes(tmp_path: Path) -> None:
    first, second = _search(), _search()
    results = [Result(item.id, accuracy=0.5) for item in first.suggest()[:3]]
    second.suggest()
    first.update(results)
    second.update(results[::-1])
    first.save(tmp_path / "first")
    second.save(tmp_path / "second")
    assert _bytes(tmp_path / "first") == _bytes(tmp_path / "second")


def test_durations_and_places_do_not_change_the_digest() -> None:
    plain, timed = _search(), _search()
    for item in plain.suggest():
        plain.update([Result(item.id, accuracy=0.5)])
    for item in timed.suggest():
        timed.update([Result(item.id, accuracy=0.5, device_seconds=12.5, artifacts={"weights": "s3://somewhere"}, reason="took 3 s")])
        assert timed.num_activated
    assert plain.digest() == timed.digest()


def test_an_accuracy_or_an_open_batch_changes_the_digest() -> None:
    first, second = _search(), _search()
    digests = {first.digest()}
    batch = first.suggest()
    digests.add(first.digest())
    first.update([Result(batch[0].id, accuracy=0.5)])
    digests.add(first.digest())
    second.suggest()
    second.update([Result(batch[0].id, accuracy=0.6)])
    assert len({*digests, second.digest()}) == 4


def test_full_history_files_never_change_again(tmp_path: Path) -> None:
    lines = [json.dumps({"row": index}) for index in range(2 * CHUNK_ROWS + 5)]
    write_state(tmp_path / "a", SavedState({}, {}, lines[: CHUNK_ROWS + 1]))
    write_state(tmp_path / "b", SavedState({}, {}, lines))
    assert sorted(path.name for path in (tmp_path / "b").glob("history-*")) == [f"history-0000{index}.jsonl" for index in range(3)]
    assert (tmp_path / "a" / "history-00000.jsonl").read_bytes() == (tmp_path / "b" / "history-00000.jsonl").read_bytes()
    assert read_state(tmp_path / "b").lines == lines


def test_a_shorter_state_leaves_nothing_of_a_longer_one_behind(tmp_path: Path) -> None:
    write_state(tmp_path, SavedState({}, {}, ["{}"] * (CHUNK_ROWS + 1)))
    write_state(tmp_path, SavedState({}, {}, ["{}"]))
    assert sorted(_bytes(tmp_path)) == ["history-00000.jsonl", "state.json", "weights.safetensors"]
    assert len(read_state(tmp_path).lines) == 1


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    _search().save(tmp_path)
    state = json.loads((tmp_path / "state.json").read_bytes())
    (tmp_path / "state.json").write_text(json.dumps({**state, "format": 2}))
    with pytest.raises(StateVersionError, match="newer kfnas"):
        Search.load(tmp_path)


@pytest.mark.parametrize("name", ["state.json", "weights.safetensors", "history-00000.jsonl"])
def test_a_damaged_file_is_refused(name: str, tmp_path: Path) -> None:
    search = _search()
    _step(search)
    search.save(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptError, match=name):
        Search.load(tmp_path)


def test_a_state_that_lacks_a_field_is_refused(tmp_path: Path) -> None:
    _search().save(tmp_path)
    state = json.loads((tmp_path / "state.json").read_bytes())
    del state["seed"]
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(CorruptError, match="seed"):
        Search.load(tmp_path)


def test_a_state_cannot_name_files_outside_its_folder(tmp_path: Path) -> None:
    _search().save(tmp_path)
    state = json.loads((tmp_path / "state.json").read_bytes())
    state["files"]["../outside"] = "0" * 64
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(CorruptError, match="outside"):
        Search.load(tmp_path)


def test_a_missing_state_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"state\.json"):
        Search.load(tmp_path)


def test_another_space_is_refused(tmp_path: Path) -> None:
    _search().save(tmp_path)
    with pytest.raises(SpaceError, match="give the space it was saved for"):
        Search.load(tmp_path, space=Space.from_decisions({"a": [0, 1]}))


def test_a_space_with_a_rule_must_be_given_again(tmp_path: Path) -> None:
    space = Space.from_decisions({"a": [0, 1, 2], "b": [0, 1, 2]}, is_valid=lambda choices: choices["a"] != choices["b"])
    search = _search("random", space)
    search.save(tmp_path)
    with pytest.raises(SpaceError, match="space="):
        Search.load(tmp_path)
    assert Search.load(tmp_path, space=space).digest() == search.digest()


def test_a_full_disk_is_said_and_leaves_the_earlier_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = _search()
    search.save(tmp_path)
    before = _bytes(tmp_path)
    _step(search)
    write_bytes, written = Path.write_bytes, []

    def full_after_one_file(path: Path, data: bytes) -> int:
        written.append(path)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full_after_one_file)
        with pytest.raises(StorageFull, match="no room left"):
            search.save(tmp_path)
    assert _bytes(tmp_path) == before
    assert Search.load(tmp_path).round == 0


def test_a_file_in_the_folders_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(AccessDenied, match="cannot be written"):
        _search("random").save(tmp_path / "state")


def test_reading_a_saved_search_does_not_import_torch(tmp_path: Path) -> None:
    search = _search()
    _step(search)
    search.save(tmp_path)
    code = (
        "import sys; from kfnas.controller import Search; "
        f"search = Search.load({str(tmp_path)!r}); search.best(); search.digest(); search.save({str(tmp_path / 'again')!r}); "
        "assert 'torch' not in sys.modules; print(search.digest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == search.digest()
    assert _bytes(tmp_path / "again") == _bytes(tmp_path)
