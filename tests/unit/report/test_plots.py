from __future__ import annotations

from kfnas.report import ReportData, plot_files
from kfnas.report.canvas import svg
from kfnas.report.plots import draw_pareto
from kfnas.tracking import SearchRow


def rows(number: int, **changes: object) -> list[SearchRow]:
    values: dict[str, object] = {"accuracy": 0.5, "cost": 2.0, "reward": 0.25, "status": "ok", "source": "policy", **changes}
    return [SearchRow(round=index // 4, id=str(index), architecture=f"toy:{index}", **values) for index in range(number)]  # type: ignore[arg-type]


def test_plots_are_png_files_for_a_tracker() -> None:
    files = plot_files(ReportData("demo", samples=rows(8), target=2.5))
    assert sorted(files) == ["plots/pareto.png", "plots/reward.png"]
    assert all(data.startswith(b"\x89PNG") for data in files.values())
    assert files == plot_files(ReportData("demo", samples=rows(8), target=2.5))


def test_a_plot_with_nothing_to_show_is_left_out() -> None:
    assert plot_files(ReportData("demo")) == {}
    assert sorted(plot_files(ReportData("demo", samples=rows(2, cost=None)))) == ["plots/reward.png"]


def test_a_cloud_of_points_does_not_make_the_page_heavy() -> None:
    text = svg(draw_pareto, ReportData("demo", samples=rows(5000)), name="pareto")
    assert len(text) < 200_000
    assert "data:image/png" in text
