"""`kfnas resume` refuses what would spoil a search, before it starts anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kfnas.steps.config import load_run_config
from kfnas.steps.context import open_run
from kfnas.testing.sequence import StepSequence


@pytest.fixture
def held(configured, tmp_path: Path) -> Path:
    """Configuration of a search that this process holds."""
    path = configured()
    StepSequence(load_run_config(path), tmp_path / "artifacts").begin()
    return path


def test_a_search_that_another_live_run_holds_is_refused(held, refused):
    status, lines = refused("resume", held)
    assert status == 1
    assert len(lines) == 1
    assert f"search 'tiny' is held by run 'sequence' (process {os.getpid()} on host " in lines[0]
    assert "`kfnas resume --take-over`" in lines[0]


def test_another_configuration_is_refused_and_both_are_shown(held, refused):
    before = open_run(load_run_config(held).text).searches.head()
    status, lines = refused("resume", held, "--set", "proxy.steps=4", "--set", "seed=9")
    assert status == 1
    assert len(lines) == 1
    assert "proxy.steps: 3 then, 4 now; seed: 0 then, 9 now" in lines[0]
    assert load_run_config(held).digest in lines[0]
    assert load_run_config(held, ("proxy.steps=4", "seed=9")).digest in lines[0]
    assert open_run(load_run_config(held).text).searches.head() == before
