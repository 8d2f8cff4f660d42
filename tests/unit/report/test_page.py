from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from kfnas.report import DataSummary, Drawing, Finalist, ReportData, render_report
from kfnas.tracking import SearchRow

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&$\\frac$"
MOBILE = {"op": "mb6", "kernel": 5, "se": 0.25, "skip": "pool", "width": 1.25, "layers": 3}
CHOICES: dict[str, Any] = {f"block{block}/{name}": value for block in range(7) for name, value in MOBILE.items()}
VOID = {"meta", "img", "br", "rect", "circle", "path", "use", "image", "input"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; unbalanced elements are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def sample(index: int, **changes: Any) -> SearchRow:
    values: dict[str, Any] = {"accuracy": 0.7 + index / 100, "cost": 1.0 + index, "reward": 0.6, "status": "ok", "source": "policy"}
    values |= {"device_seconds": 3600.0, "epochs": 1.0, "round": index // 4, "id": f"{index // 4}-{index % 4}", "architecture": f"toy:{index}"}
    return SearchRow(**{**values, **changes})


def report(**changes: Any) -> ReportData:
    samples = [sample(index) for index in range(8)]
    samples[3] = sample(3, status="failed", accuracy=None, reward=0.0, reason="out of memory at batch 64")
    samples[5] = sample(5, status="infeasible", accuracy=None, reward=0.2, device_seconds=0.0, epochs=0.0)
    finals = (
        Finalist("first", "searched", "toy:1", CHOICES, 6_100_000, 210_000, 0.912, 0.995, 2.31, 2.31),
        Finalist("skeleton", "reference", "toy:0", CHOICES, 7_900_000, 380_000, 0.897, 0.991, 2.39, 2.39, note="width ×0.62"),
        Finalist("lucky", "random", "toy:7", CHOICES, 6_400_000, 300_000, 0.881, 0.989, 2.20, 2.20),
    )
    values: dict[str, Any] = {"state": "finished", "agent": "mnas", "seed": 0, "target": 2.4, "samples": samples, "finals": finals, "pareto": ("0-0", "0-1")}
    return ReportData("demo", **{**values, **changes})


def test_a_whole_report_says_all_that_it_must() -> None:
    data = report(
        config={"space": {"name": "toy"}},
        code_version="kfnas 1.2.3",
        config_digest="c0ffee",
        data=DataSummary("digits", 10, 2, 3, (1, 8, 8), ("0", "1"), "d1ce"),
    )
    text = Page(render_report(data)).text
    assert (
        "first reaches 91.20 % on the test set at 2.31 ms, 96 % of the budget; 1.50 points more than the scaled skeleton, 3.10 points more than the random"
        in text
    )
    for words in (
        "6.10 M",
        "210 k",
        "99.50 %",
        "0.963",
        "LAT/T",
        "width ×0.62",
        "out of memory at batch 64",
        "digits; 1×8×8",
        "kfnas 1.2.3",
        "c0ffee",
        "d1ce",
        "name: toy",
    ):
        assert words in text
    assert "7 activated samples" in text
    assert "7.0 h of device time" in text
    assert "1 failed, 1 infeasible, 6 ok." in text


def test_the_page_needs_nothing_from_outside_and_no_script() -> None:
    text = render_report(report())
    page = Page(text)
    assert "script" not in page.tags
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not re.search(r"https?:|//www|@import|url\((?!#)", text)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("#", "data:image/png")), (tag, name, value)


def test_every_text_of_a_user_is_escaped() -> None:
    samples = [sample(0, reason=EVIL, status="failed", accuracy=None, architecture=EVIL, id=EVIL), sample(1, architecture=EVIL, id=EVIL)]
    choices = {f"{EVIL}/{EVIL}": EVIL, EVIL: EVIL, **{f"{EVIL}2/{name}": value for name, value in MOBILE.items()}}
    data = ReportData(
        EVIL,
        state=EVIL,
        agent=EVIL,
        reward=EVIL,
        data=DataSummary(EVIL, 1, 1, 1, (1,), (EVIL, "b"), EVIL),
        metric=EVIL,
        cost=EVIL,
        target=2.0,
        samples=samples,
        pareto=(EVIL,),
        finals=(Finalist(EVIL, "searched", EVIL, choices, top1=0.5, status=EVIL, reason=EVIL, note=EVIL), Finalist(EVIL, EVIL, EVIL, top1=0.1)),
        config={EVIL: [EVIL]},
        config_digest=EVIL,
        code_version=EVIL,
        device={EVIL: EVIL},
        generated_at=EVIL,
    )
    page = Page(render_report(data))
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert page.text.count("<script>alert") > 20


def test_credentials_of_an_address_are_not_shown() -> None:
    secret = "http://me:hunter2@host/x"
    rows = [sample(0, status="failed", reason=f"cannot reach {secret}", accuracy=None)]
    text = render_report(report(samples=rows, config={"uri": secret}, device={"uri": secret}, reward=secret))
    assert "hunter2" not in text
    assert "http://***@host/x" in text


@pytest.mark.parametrize(
    "data",
    [
        ReportData("empty"),
        report(finals=(), state="running"),
        report(finals=(), best=(Drawing("best", "toy:1", CHOICES),), target=None),
        report(samples=(), pareto=()),
        report(samples=[sample(0, accuracy=None, reward=None, cost=None, status="unmeasured")], pareto=(), finals=(Finalist("a", "searched", "toy:1"),)),
        report(samples=[sample(0, accuracy=float("nan"), reward=float("inf"))]),
        report(samples=[sample(0, accuracy=-3.5, reward=-3.5)], metric="score", cost="joules", target=None),
        report(finals=(Finalist("a", "searched", "toy:1", status="failed", reason="diverged"),)),
    ],
    ids=["empty", "running", "no target", "no samples", "nothing measured", "not finite", "another metric", "failed final"],
)
def test_an_unfinished_search_is_shown_as_far_as_it_has_come(data: ReportData) -> None:
    text = Page(render_report(data)).text
    assert data.name in text
    assert "None" not in text.replace("None: every child", "")
    assert " nan" not in text


def test_a_supernet_search_that_scores_no_network_has_no_empty_plot_of_rewards() -> None:
    paths = [sample(0, accuracy=None, reward=None, status="ok", source="supernet")]
    assert "Reward along samples" not in Page(render_report(report(samples=paths, pareto=()))).text
    assert "No sample has a reward yet." in Page(render_report(ReportData("empty"))).text


def test_an_empty_search_says_so() -> None:
    text = Page(render_report(ReportData("empty"))).text
    assert "No child has been trained yet." in text
    assert "Nothing has been tried yet." in text


def test_a_winner_is_one_that_meets_the_budget() -> None:
    over = Finalist("over", "searched", "toy:2", top1=0.99, cost=2.5)
    within = Finalist("within", "searched", "toy:1", top1=0.90, cost=2.4)
    assert "within reaches 90.00 %" in render_report(report(finals=(over, within)))
    assert "over reaches 99.00 % on the test set at 2.50 ms, 104 % of the budget" in render_report(report(finals=(over,)))


def test_where_less_is_better_the_winner_has_the_least() -> None:
    near, far, plain = (
        Finalist("near", "searched", "toy:1", top1=3.5, cost=2.0),
        Finalist("far", "searched", "toy:2", top1=4.25, cost=2.0),
        Finalist("skeleton", "reference", "toy:0", top1=4.0, cost=2.0),
    )
    words = render_report(report(finals=(far, near, plain), metric="mean_error", higher_is_better=False))
    assert "near reaches mean_error 3.5 on the test set at 2.00 ms, 83 % of the budget; 0.5 less than the scaled skeleton." in words
    assert "1 / (1 + mean_error) on the proxy task" in words


def test_the_same_data_gives_the_same_page() -> None:
    assert render_report(report()) == render_report(report())


def test_long_lists_of_failures_are_cut_and_counted() -> None:
    many = [sample(index, status="failed", accuracy=None, reason=f"reason{index}") for index in range(250)]
    text = Page(render_report(report(samples=many))).text
    assert "The first 200 of 250." in text
    assert "reason199" in text
    assert "reason200" not in text


def test_an_architecture_that_was_sampled_twice_is_listed_once() -> None:
    rows = [sample(0, reward=0.5), sample(1, reward=0.9, architecture="toy:0"), sample(2, reward=0.7)]
    text = render_report(dataclasses.replace(report(samples=rows), finals=(), pareto=()))
    listed = text[text.index("Samples of highest reward") : text.index("Failed and unmeasured")]
    assert re.findall(r"toy:\d", listed) == ["toy:0", "toy:2"]
