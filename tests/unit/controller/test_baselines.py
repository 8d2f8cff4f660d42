"""Random search, evolution and local search behind the agent's verbs."""

import numpy as np

from kfnas.controller.agents import Scored
from kfnas.controller.baselines import EvolutionAgent, LocalSearchAgent, RandomAgent
from kfnas.controller.config import EvolutionConfig
from kfnas.space import Space

SPACE = Space.from_decisions({f"decision{index}": [0, 1, 2] for index in range(6)})
ALL = frozenset(tuple(int(digit) for digit in np.base_repr(index, 3).zfill(6)) for index in range(3**6))


class _Known:
    """The set of architectures with an answer."""

    def __init__(self) -> None:
        self.tokens: set[tuple[int, ...]] = set()

    def __call__(self, tokens: tuple[int, ...]) -> bool:
        return tokens in self.tokens


def _run(agent: RandomAgent | EvolutionAgent | LocalSearchAgent, batches: int, size: int = 8) -> list[tuple[int, ...]]:
    known, drawn = _Known(), []
    for _ in range(batches):
        draws = agent.propose(size, known)
        known.tokens.update(draw.tokens for draw in draws)
        drawn += [draw.tokens for draw in draws]
        agent.learn([Scored(draw, float(sum(draw.tokens))) for draw in draws], 0.0)
    return drawn


def test_random_search_proposes_each_architecture_once_while_there_are_new_ones() -> None:
    drawn = _run(RandomAgent(SPACE, np.random.default_rng(0)), 60)
    assert len(set(drawn)) == len(drawn) == 480


def test_evolution_starts_at_random_and_then_changes_one_decision() -> None:
    agent = EvolutionAgent(SPACE, EvolutionConfig(population=16, sample=4), np.random.default_rng(0))
    drawn = _run(agent, 2)
    children = [draw.tokens for draw in agent.propose(8, _Known())]
    for child in children:
        assert min(sum(a != b for a, b in zip(child, parent, strict=True)) for parent in drawn) == 1


def test_evolution_keeps_the_youngest() -> None:
    agent = EvolutionAgent(SPACE, EvolutionConfig(population=16, sample=4), np.random.default_rng(0))
    drawn = _run(agent, 5)
    assert [tuple(tokens) for tokens, _ in agent.state().values["population"]] == drawn[-16:]


def test_evolution_and_local_search_find_the_best_of_729() -> None:
    # The maximum of a sum; random search would see it in 160 draws with odds 0.22.
    for agent in (EvolutionAgent(SPACE, EvolutionConfig(population=16, sample=4), np.random.default_rng(0)), LocalSearchAgent(SPACE, np.random.default_rng(0))):
        assert (2,) * 6 in _run(agent, 20)


def test_local_search_of_one_at_a_time_moves_at_the_first_improvement() -> None:
    agent = LocalSearchAgent(SPACE, np.random.default_rng(0))
    known = _Known()
    current: tuple[int, ...] | None = None
    for _ in range(60):
        (draw,) = agent.propose(1, known)
        known.tokens.add(draw.tokens)
        if current is not None and agent.state().values["restart"] == []:
            assert sum(a != b for a, b in zip(draw.tokens, current, strict=True)) == 1
        agent.learn([Scored(draw, float(sum(draw.tokens)))], 0.0)
        state = agent.state().values["current"]
        better = current is None or sum(draw.tokens) > sum(current)
        current = tuple(state[0])
        if better:
            assert current == draw.tokens


def test_local_search_restarts_when_the_neighbourhood_is_used_up() -> None:
    tiny = Space.from_decisions({"a": [0, 1], "b": [0, 1], "c": [0, 1]})
    agent = LocalSearchAgent(tiny, np.random.default_rng(0))
    known, drawn = _Known(), set()
    for _ in range(8):
        draws = agent.propose(2, known)
        known.tokens.update(draw.tokens for draw in draws)
        drawn.update(draw.tokens for draw in draws)
        agent.learn([Scored(draw, float(draw.tokens == (1, 1, 1))) for draw in draws], 0.0)
    assert len(drawn) == 8


def test_baselines_go_on_identically_from_their_state() -> None:
    makers = [
        lambda seed: RandomAgent(SPACE, np.random.default_rng(seed)),
        lambda seed: EvolutionAgent(SPACE, EvolutionConfig(population=8, sample=2), np.random.default_rng(seed)),
        lambda seed: LocalSearchAgent(SPACE, np.random.default_rng(seed)),
    ]
    for make in makers:
        first, second = make(0), make(1)
        _run(first, 3)
        second.restore(first.state())
        assert _run(first, 3) == _run(second, 3)


def test_all_known_is_still_a_proposal() -> None:
    for agent in (RandomAgent(SPACE, np.random.default_rng(0)), LocalSearchAgent(SPACE, np.random.default_rng(0))):
        known = _Known()
        known.tokens.update(ALL)
        assert agent.propose(4, known)
