"""The README's code runs as it stands."""

import re
from pathlib import Path

import yaml

from kfnas.config import parse
from kfnas.steps.config import RunConfig
from kfnas.steps.fidelity_config import FidelityConfig

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_search_example_runs_and_its_state_loads(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 11
    namespace: dict[str, object] = {}
    exec(example, namespace)
    assert namespace["search"].num_activated >= 100
    assert "custom:" in capsys.readouterr().out
    loaded = type(namespace["search"]).load("my-search")
    assert loaded.digest() == namespace["search"].digest()


def test_the_configuration_of_the_readme_and_the_examples_are_valid():
    (example,) = blocks("yaml")
    assert parse(RunConfig, yaml.safe_load(example)).search.reward.target == 2.5
    for path in (Path(__file__).parents[2] / "examples").glob("*.yaml"):
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
        parse(FidelityConfig if "truth" in value else RunConfig, value, source=path.name)
