"""The page of a study: self-contained, escaped, with its tables and figures in order."""

from __future__ import annotations

from html.parser import HTMLParser

from kfnas.report.study_page import StudyReport, StudyRow, StudySection, StudyTable, render_study, study_files
from kfnas.report.study_plots import Pair, Plot, Series, curves, pairs

EVIL = "<script>alert(1)</script>"
PLOT = Plot("one", curves([Series(EVIL, [1, 2], [0.1, 0.2], [0.0, 0.1], [0.2, 0.3])], x="spent", y="best"), f"curves of {EVIL}", "a caption")
OPERATORS = Plot("two", pairs([Pair(f"a/op {EVIL}", 0.1, 0.9)], first=EVIL, second="other", x="operators", y="share"), "operators")


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def report(**fields: object) -> StudyReport:
    table = StudyTable(("Row", EVIL, "n"), [StudyRow(EVIL, [EVIL, "3"], note=EVIL, own=True)], EVIL, frozenset({EVIL}))
    sections = (StudySection(EVIL, [table], [PLOT, OPERATORS], text=EVIL), StudySection("Nothing", empty="There is nothing yet."))
    return StudyReport(EVIL, "Ablation", "s3://user:secret@host/x is where", sections=sections, facts=[("Where", EVIL)], config={"a": EVIL}, **fields)


def tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(page)
    return parser.tags


def test_every_text_is_escaped_and_nothing_is_fetched():
    page = render_study(report(numbers=[("3", EVIL)], provenance=[("Code", EVIL)]))
    assert EVIL not in page
    found = tags(page)
    assert not {"script", "iframe", "link", "object"} & {tag for tag, _ in found}
    assert not [attributes for _, attributes in found if any(name in ("src", "onload", "onclick") for name in attributes)]
    assert not [value for _, attributes in found for value in attributes.values() if value and value.startswith(("http:", "https:"))]
    assert "secret" not in page


def test_a_table_has_a_cell_for_every_column_and_texts_are_aligned_left():
    page = render_study(report())
    (row,) = [line for line in page.splitlines() if '<th scope="row">' in line]
    assert row.count("<td") == 2
    assert row.count('<td class="w">') == 1


def test_a_section_without_anything_says_so():
    assert "There is nothing yet." in render_study(report())
    assert page_without_sections().count("<section>") == 1


def page_without_sections() -> str:
    return render_study(StudyReport("s", "Ablation", "nothing"))


def test_figures_are_on_the_page_and_beside_it():
    files = study_files(report())
    assert set(files) == {"report.html", "plots/one.png", "plots/two.png"}
    assert files["report.html"].count(b"<svg") == 2
    assert all(data.startswith(b"\x89PNG") for name, data in files.items() if name.startswith("plots/"))


def test_places_are_named_one_by_one_only_where_there_is_room():
    few, many = ([Pair(f"operator-{index}", 0.1, 0.9) for index in range(count)] for count in (40, 41))
    pages = [Plot("p", pairs(places, first="a", second="b", x="all operators", y="share"), "").svg() for places in (few, many)]
    assert ["operator-39" in page for page in pages] == [True, False]
    assert ["all operators" in page for page in pages] == [False, True]


def test_the_same_study_gives_the_same_page():
    assert render_study(report()) == render_study(report())


def test_an_unknown_state_becomes_no_class_of_the_page():
    assert 'class="state running"' in render_study(report(state='x" onload="y'))
