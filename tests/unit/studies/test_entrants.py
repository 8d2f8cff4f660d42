"""Who takes part: labels, agents, settings, donors."""

from __future__ import annotations

from pathlib import Path

import pytest

from kfnas.controller import SearchConfig
from kfnas.errors import ConfigError
from kfnas.space import Space
from kfnas.studies.entrants import AGENTS, Donor, code_digest, parse_entrants, with_donors
from kfnas.studies.objectives import Objective
from kfnas.studies.peers import RidgeConfig

SPACE = Space.from_decisions({"a": [0, 1, 2], "b": [0, 1]})


def donor_objective() -> Objective:
    return Objective.of_functions("donor", SPACE, lambda tokens, seed: float(sum(tokens)))


def test_every_agent_can_be_named() -> None:
    entrants = parse_entrants([",".join(AGENTS)])
    assert [entrant.agent for entrant in entrants] == list(AGENTS)
    assert {"random", "evolution", "local_search", "mnas", "mnas+uac", "mnas+aeb", "fnas", "ridge", "tpe"} == set(AGENTS)


def test_settings_are_nested_fields_and_a_label_replaces_the_text() -> None:
    plain, preset, wide, ridge = parse_entrants(["mnas, fnas:preset=paper", "wide=mnas:ppo.epochs=3:policy.hidden_units=20", "ridge:start=4"])
    assert (plain.label, preset.label, wide.label, ridge.label) == ("mnas", "fnas:preset=paper", "wide", "ridge:start=4")
    assert plain.config == SearchConfig(agent="mnas")
    assert preset.config == SearchConfig(agent="fnas", preset="paper")
    assert isinstance(wide.config, SearchConfig)
    assert (wide.config.ppo.epochs, wide.config.policy.hidden_units) == (3, 20)
    assert ridge.config == RidgeConfig(start=4)


def test_the_label_decides_nothing_and_a_setting_does() -> None:
    one, other, changed = parse_entrants(["a=mnas", "b=mnas", "c=mnas:ppo.epochs=3"])
    assert one.settings() == other.settings() != changed.settings()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["mnas,nas"], "unknown agent 'nas'"),
        ([""], "none is given; choose of random"),
        (["mnas,mnas"], "'mnas' is given twice"),
        (["=mnas"], "empty label"),
        (["mnas:ppo.epochs"], "'ppo.epochs' in 'mnas:ppo.epochs' is no setting"),
        (["mnas:ppo.epochs=["], "has no YAML as its value"),
        (["mnas:ppo.epoch=3"], r"ppo\.epoch: unknown field"),
        (["mnas:ppo.epochs=0"], r"ppo\.epochs: .*greater than or equal to 1"),
        (["mnas:ppo=3:ppo.epochs=2"], "set twice"),
        (["ridge:noise=-1"], "noise: .*greater than 0"),
        (["mnas:reward.target=3"], r"sets reward\.target \(3\); a comparison is of scores alone"),
    ],
)
def test_what_cannot_take_part_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_entrants(texts)


def test_agents_with_a_critic_enter_once_more_with_a_donor() -> None:
    donor = Donor(donor_objective, 4)
    entrants = with_donors(parse_entrants(["mnas,fnas"]), donor, also_shuffled=True, space=SPACE)
    assert [entrant.label for entrant in entrants] == ["mnas", "fnas", "fnas + donor", "fnas + shuffled donor"]
    assert [entrant.donor is not None for entrant in entrants] == [False, False, True, True]
    assert len({str(entrant.settings()) for entrant in entrants}) == 4


def test_a_donor_that_cannot_help_is_refused() -> None:
    fnas = parse_entrants(["fnas"])
    with pytest.raises(ConfigError, match="has another space"):
        with_donors(fnas, Donor(donor_objective, 4), also_shuffled=False, space=Space.from_decisions({"a": [0, 1]}))
    with pytest.raises(ConfigError, match="none of mnas, ridge has a critic"):
        with_donors(parse_entrants(["mnas,ridge"]), Donor(donor_objective, 4), also_shuffled=False, space=SPACE)
    with pytest.raises(ConfigError, match="7 samples; give 1 to 6"):
        with_donors(fnas, Donor(donor_objective, 7), also_shuffled=False, space=SPACE)


def test_comments_and_docstrings_do_not_change_the_code(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name / "module.py" for name in ("one", "same", "other"))
    for path, text in (
        (one, "def f():\n    return 1\n"),
        (same, '"""Doc."""\n\ndef f():\n    "Doc."\n    # why\n    return 1'),
        (other, "def f():\n    return 2\n"),
    ):
        path.parent.mkdir()
        path.write_text(text)
    assert code_digest([one]) == code_digest([same]) != code_digest([other])
