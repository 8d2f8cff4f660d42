"""The two plots of any search: reward along samples, accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from kfnas.report import module_plots, supernet_plots
from kfnas.report.canvas import BAD, BEST, BUDGET, DOT, FRONT, MEAN, TRUSTED, legend, png, scatter, zoom
from kfnas.report.data import ReportData, Sample
from kfnas.report.figures import cost_name, cost_text, known, millions


def plot_files(data: ReportData) -> dict[str, bytes]:
    """PNG files by relative path, for a tracker; the plots that have nothing to show are left out."""
    drawn = {
        "plots/reward.png": (has_rewards, draw_rewards),
        "plots/pareto.png": (has_costs, draw_pareto),
        "plots/sources.png": (module_plots.has_sources, module_plots.draw_sources),
        "plots/calibration.png": (module_plots.has_critic, module_plots.draw_calibration),
        "plots/critic_error.png": (module_plots.has_critic, module_plots.draw_critic_error),
        "plots/pool.png": (module_plots.has_pool, module_plots.draw_pool),
        "plots/importance.png": (supernet_plots.has_trace, supernet_plots.draw_importance),
        "plots/training.png": (supernet_plots.has_trace, supernet_plots.draw_training),
    }
    return {path: png(draw, data) for path, (has, draw) in drawn.items() if has(data)}


def has_rewards(data: ReportData) -> bool:
    """Whether any sample has a reward."""
    return any(known(sample.reward) for sample in data.samples)


def has_costs(data: ReportData) -> bool:
    """Whether any sample has both accuracy and cost."""
    return any(known(sample.accuracy) and known(sample.cost) for sample in data.samples)


def draw_rewards(axes: Axes, data: ReportData) -> None:
    """Reward of each sample, the best one so far, and each round's mean."""
    points = [(index + 1, sample) for index, sample in enumerate(data.samples) if known(sample.reward)]
    good = [(number, sample.reward) for number, sample in points if sample.activated and sample.status == "ok"]
    trusted = [(number, sample.reward) for number, sample in points if sample.source == "trusted" and sample.status == "ok"]
    seen = [(number, sample.reward) for number, sample in points if not sample.activated and sample.source != "trusted" and sample.status == "ok"]
    shared = [(number, value) for number, value in seen if supernet_plots.is_shared(data.samples[number - 1])]
    seen = [(number, value) for number, value in seen if not supernet_plots.is_shared(data.samples[number - 1])]
    bad = [(number, sample.reward) for number, sample in points if sample.status != "ok"]
    scatter(axes, good, label="trained", color=DOT, s=16, linewidths=0)
    scatter(axes, shared, label="scored with shared weights", color=DOT, s=16, linewidths=0)
    scatter(axes, seen, label="known before", facecolors="none", edgecolors=DOT, s=14, linewidths=0.8)
    scatter(axes, trusted, label="trusted", color=TRUSTED, marker="+", s=18, linewidths=0.9)
    scatter(axes, bad, label="over budget, failed or unmeasured", color=BAD, marker="x", s=14, linewidths=0.9, alpha=0.7)
    means = _round_means(points)
    axes.plot(*zip(*means, strict=True), color=MEAN, linewidth=1.6, label="mean of the round", marker="o", markersize=3 if len(means) < 60 else 0)
    best = _running_best(good or shared)
    if best:
        best.append((len(data.samples), best[-1][1]))
        axes.step(*zip(*best, strict=True), where="post", color=BEST, linewidth=1.8, label="best so far")
    axes.set_xlabel("sample")
    axes.set_ylabel("reward")
    axes.set_xlim(0, len(data.samples) + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    zoom(axes, [value for _, value in good + shared + seen + trusted])
    legend(axes)


def draw_pareto(axes: Axes, data: ReportData) -> None:
    """Accuracy against cost on the proxy task, the front, the budget, and the finalists."""
    shown = [sample for sample in data.samples if known(sample.accuracy) and known(sample.cost)]
    cloud = [(sample.cost, sample.accuracy) for sample in shown]
    on_supernet = any(map(supernet_plots.is_shared, shown))
    scatter(axes, cloud, label="scored with shared weights" if on_supernet else "trained", color=DOT, s=16, linewidths=0)
    front = sorted(_places([sample for sample in shown if sample.id in set(data.pareto)]))
    if front:
        axes.step(*zip(*front, strict=True), where="post", color=FRONT, linewidth=1.6, label="Pareto front")
        scatter(axes, front, color=FRONT, s=22, zorder=3, linewidths=0)
    if data.target:
        axes.axvline(data.target, color=BUDGET, linewidth=1.3, linestyle=(0, (5, 3)), label=f"budget {cost_text(data.target, data.cost)}")
    by_architecture = {sample.architecture: sample for sample in shown}
    chosen = [final for final in data.finals if final.kind == "searched" and final.architecture in by_architecture]
    for number, final in enumerate(chosen, 1):
        ((x, y),) = _places([by_architecture[final.architecture]])
        axes.scatter([x], [y], s=110, facecolors="white", edgecolors=BEST, linewidths=1.6, zorder=4, label="retrained" if number == 1 else None)
        axes.annotate(str(number), (x, y), ha="center", va="center_baseline", fontsize=8, color=BEST, weight="bold", zorder=5)
    axes.set_xlabel("latency (ms)" if data.cost == "latency_ms" else cost_name(data.cost).lower(), parse_math=False)
    axes.set_ylabel(f"{data.quality} {'with shared weights' if on_supernet else 'on the proxy task'}", parse_math=False)
    if all(0 <= y <= 1 for _, y in _places(shown)):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol=" %"))
    if data.cost != "latency_ms":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: millions(value)))
    zoom(axes, [y for _, y in cloud])
    legend(axes)


def _places(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    return [(float(sample.cost or 0.0), float(sample.accuracy or 0.0)) for sample in samples]


def _round_means(points: Sequence[tuple[int, Sample]]) -> list[tuple[float, float]]:
    rounds: dict[int, list[tuple[int, float]]] = {}
    for number, sample in points:
        rounds.setdefault(sample.round, []).append((number, float(sample.reward or 0.0)))
    return [(sum(number for number, _ in items) / len(items), sum(value for _, value in items) / len(items)) for items in rounds.values()]


def _running_best(points: Sequence[tuple[int, float | None]]) -> list[tuple[int, float]]:
    best: list[tuple[int, float]] = []
    for number, value in points:
        if value is not None and (not best or value > best[-1][1]):
            best.append((number, value))
    return best
