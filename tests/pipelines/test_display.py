import io
from dataclasses import replace

import pytest

from kfnas.steps.status import Progress
from kfnas_pipelines.display import BarDisplay, LineDisplay, duration, open_display, remaining_seconds

START = Progress(
    exists=True,
    rounds_done=2,
    rounds_total=6,
    children_done=8,
    children_failed=0,
    finalists_done=0,
    finalists_total=0,
    best_accuracy=None,
    best_cost=None,
    exhausted=False,
    finished=False,
    held_by=None,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_a_pipe_gets_lines_and_a_terminal_gets_a_bar():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(open_display("latency_ms", io.StringIO()), LineDisplay)
    assert isinstance(open_display("latency_ms", Terminal()), BarDisplay)


def test_a_line_is_written_for_news_only(clock):
    stream = io.StringIO()
    display = LineDisplay("latency_ms", stream, clock)
    display.update(START)
    clock.now += 5
    display.update(replace(START, children_done=10))
    assert lines(stream) == ["kfnas: round 2/6, 8 children, 0s gone"]


def test_a_long_round_says_every_minute_that_it_lives(clock):
    stream = io.StringIO()
    display = LineDisplay("latency_ms", stream, clock)
    display.update(START)
    clock.now += 61
    display.update(replace(START, children_done=11))
    assert lines(stream)[-1] == "kfnas: round 2/6, 11 children, 1m01s gone"


def test_rounds_children_best_and_time_left_are_shown(clock):
    stream = io.StringIO()
    display = LineDisplay("latency_ms", stream, clock)
    display.update(START)
    clock.now += 50
    display.update(replace(START, rounds_done=3, children_done=12, children_failed=1, best_accuracy=0.81234, best_cost=2.4567))
    assert lines(stream)[-1] == "kfnas: round 3/6, 12 children (1 failed), best 0.8123 at latency_ms 2.457, 50s gone, about 2m30s left"


def test_a_search_on_one_supernet_is_shown_without_children(clock):
    stream = io.StringIO()
    display = LineDisplay("mult_adds", stream, clock)
    display.update(replace(START, children_done=0, algorithm="pcnas", best_accuracy=0.5))
    assert lines(stream) == ["kfnas: round 2/6, pcnas, best 0.5000 with shared weights, 0s gone"]


def test_the_final_training_and_the_end_are_shown(clock):
    stream = io.StringIO()
    display = LineDisplay("mult_adds", stream, clock)
    searched = replace(START, rounds_done=6)
    display.update(searched)
    display.update(replace(searched, finalists_total=5, finalists_done=2))
    display.update(replace(searched, finalists_total=5, finalists_done=5, finished=True))
    assert [line.split(",")[0] for line in lines(stream)] == ["kfnas: final training 0/?", "kfnas: final training 2/5", "kfnas: finished"]


def test_the_pace_is_that_of_this_run_not_of_rounds_done_before():
    assert remaining_seconds(START, START, 100.0) is None
    assert remaining_seconds(START, replace(START, rounds_done=4), 100.0) == pytest.approx(100.0)
    assert remaining_seconds(START, replace(START, rounds_done=6), 100.0) is None


def test_the_bar_shows_the_same_and_changes_over_to_the_finalists():
    stream = io.StringIO()
    with BarDisplay("latency_ms", stream) as display:
        display.update(START)
        display.update(replace(START, rounds_done=3, best_accuracy=0.9, best_cost=2.0))
        display.note("a word")
        display.update(replace(START, rounds_done=6, finalists_total=5, finalists_done=1))
    text = stream.getvalue()
    assert "round 2/6" in text
    assert "best 0.9000 at latency_ms 2" in text
    assert "kfnas: a word" in text
    assert "final training 1/5" in text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (59.4, "59s"), (59.6, "1m00s"), (3599, "59m59s"), (7500, "2h05m")])
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text
