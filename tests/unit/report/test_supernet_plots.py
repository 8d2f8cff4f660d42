"""What the page says of searches on one supernet."""

from __future__ import annotations

import re

from matplotlib.figure import Figure

from kfnas.report import PathTrace, ReportData, plot_files, render_report
from kfnas.report.supernet_plots import draw_importance, draw_training
from kfnas.tracking import SearchRow

TRACE = PathTrace(
    "mixop3_24_40_2",
    ("MBConv_3_3", "MBConv_6_7"),
    steps=[1, 2, 3],
    alpha=[[0.1, -0.1], [0.2, -0.2], [0.3, None]],
    counts=[[1, 0], [1, 1], [2, 1]],
)


def row(index: int, accuracy: float | None) -> SearchRow:
    return SearchRow(round=index, id=str(index), architecture=f"toy:{index}-*", source="supernet", accuracy=accuracy, cost=2.0, reward=accuracy, status="ok")


def test_a_dropped_paths_importance_ends_and_its_count_stays() -> None:
    importance, training = Figure().subplots(1, 2)
    draw_importance(importance, ReportData("demo", trace=TRACE))
    draw_training(training, ReportData("demo", trace=TRACE))
    assert [line.get_xydata().tolist() for line in importance.lines] == [[[1, 0.1], [2, 0.2], [3, 0.3]], [[1, -0.1], [2, -0.2]]]
    assert [line.get_ydata().tolist() for line in training.lines] == [[1, 1, 2], [0, 1, 1]]
    assert [line.get_label() for line in importance.lines] == ["MBConv 3 3", "MBConv 6 7"]


def test_a_search_by_gradient_has_both_plots_and_says_which_block_they_are_of() -> None:
    data = ReportData("demo", samples=[row(0, None)], trace=TRACE)
    assert sorted(plot_files(data)) == ["plots/importance.png", "plots/training.png"]
    text = re.sub(r"\s+", " ", render_report(data))
    assert "Of the 2 paths of mixop3_24_40_2" in text
    assert "Nothing has been trained from scratch yet." in text


def test_what_was_scored_with_shared_weights_is_not_called_trained() -> None:
    data = ReportData("demo", samples=[row(0, 0.5), row(1, 0.6)])
    text = re.sub(r"\s+", " ", render_report(data)).partition("</style>")[2]
    assert "scored with shared weights" in text
    assert "known before" not in text
    assert "on the proxy task" not in text
    assert "best so far" in text
