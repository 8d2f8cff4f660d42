"""The page: numbers put in order, then the template. Every text goes through the template's escaping; only our own SVG is taken as markup."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kfnas.report import drawing, figures, module_plots, plots, supernet_plots
from kfnas.report.canvas import Draw, svg
from kfnas.report.data import METRIC_NAMES, Drawing, Finalist, ReportData, Sample

MAX_LISTED = 200
NUM_BEST = 10
MAX_CLASSES = 100
_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s'\"<>]*@")
_KINDS = {"searched": "searched", "reference": "the skeleton's own, scaled to the budget", "random": "random, within the budget"}


@dataclass(frozen=True)
class DrawnArchitecture:
    """An architecture and its cards."""

    title: str
    architecture: str
    note: str
    cards: Sequence[drawing.Card]


def render_report(data: ReportData) -> str:
    """One self-contained HTML page: no outside address, no script, every text of the user escaped, user parts of addresses hidden."""
    environment = Environment(loader=PackageLoader("kfnas.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        percent=figures.percent,
        millions=figures.millions,
        milliseconds=figures.milliseconds,
        plain=figures.plain,
        hours=figures.hours,
        grouped=figures.grouped,
        count=figures.count,
        hidden=lambda text: _USERINFO.sub(r"\1***@", str(text)),
    )
    environment.globals.update(cost=lambda value: figures.cost_text(value, data.cost), ratio=lambda value: figures.ratio(value, data.target))
    return environment.get_template("page.html.j2").render(
        data=data,
        facts=_facts(data),
        headline=_headline(data),
        kinds=_KINDS,
        cost_name=figures.cost_name(data.cost),
        metric_name=METRIC_NAMES.get(data.metric, data.metric),
        reward_plot=_plot(plots.draw_rewards, data, "reward") if plots.has_rewards(data) else None,
        pareto_plot=_plot(plots.draw_pareto, data, "pareto") if plots.has_costs(data) else None,
        best=_best_samples(data.samples),
        drawn=_drawn(data),
        glyph=drawing,
        unlucky=_unlucky(data.samples),
        max_listed=MAX_LISTED,
        statuses=sorted(Counter(sample.status for sample in data.samples).items()),
        config=_text(data.config),
        provenance=_provenance(data),
        num_rounds=len({sample.round for sample in data.samples}),
        has_ratio=bool(data.target),
        **_module_plots(data),
        **_supernet_plots(data),
    )


def _plot(draw: Draw, data: ReportData, name: str) -> Markup:
    return Markup(svg(draw, data, name=name))


def _module_plots(data: ReportData) -> dict[str, Any]:
    """What the page says of critic, buffer and pool; None stands for a part that the search did without."""
    has_critic, has_pool = module_plots.has_critic(data), module_plots.has_pool(data)
    return {
        "sources_plot": _plot(module_plots.draw_sources, data, "sources") if module_plots.has_sources(data) else None,
        "calibration_plot": _plot(module_plots.draw_calibration, data, "calibration") if has_critic else None,
        "critic_plot": _plot(module_plots.draw_critic_error, data, "critic") if has_critic else None,
        "pool_plot": _plot(module_plots.draw_pool, data, "pool") if has_pool else None,
        "coverage": module_plots.coverage(data.samples),
        "num_judged": len(module_plots.judged(data.samples)),
        "num_trusted": sum(sample.source == "trusted" for sample in data.samples),
        "num_exploited": sum(sample.source == "exploited" for sample in data.samples),
        "warm_since": module_plots.warm_since(data.pool),
    }


def _supernet_plots(data: ReportData) -> dict[str, Any]:
    """What the page says of a search on one supernet; None stands for a part that the search did without."""
    has_trace = supernet_plots.has_trace(data)
    return {
        "importance_plot": _plot(supernet_plots.draw_importance, data, "importance") if has_trace else None,
        "training_plot": _plot(supernet_plots.draw_training, data, "training") if has_trace else None,
        "on_supernet": any(map(supernet_plots.is_shared, data.samples)),
    }


def _facts(data: ReportData) -> list[tuple[str, str]]:
    """The header's lines, those without a value left out."""
    target = f"{figures.cost_name(data.cost)} at most {figures.cost_text(data.target, data.cost)}" if data.target else "none: accuracy alone counts"
    facts = [
        ("Algorithm", data.agent),
        ("Seed", "" if data.seed is None else str(data.seed)),
        ("Data", _data_line(data)),
        ("Target", target),
        ("Reward", data.reward),
        ("Code", data.code_version),
    ]
    return [(label, value) for label, value in facts if value]


def _provenance(data: ReportData) -> list[tuple[str, str]]:
    """What the numbers hang on, those without a value left out."""
    classes = ", ".join(data.data.classes[:MAX_CLASSES]) + (f" and {len(data.data.classes) - MAX_CLASSES} more" if len(data.data.classes) > MAX_CLASSES else "")
    lines = [
        ("Code", data.code_version),
        ("Seed", "" if data.seed is None else str(data.seed)),
        ("Data digest", data.data.digest),
        ("Classes", classes),
        ("Configuration digest", data.config_digest),
        *((f"Device: {name}", str(value)) for name, value in data.device.items() if value is not None),
        ("Written", data.generated_at),
    ]
    return [(label, value) for label, value in lines if value]


def _data_line(data: ReportData) -> str:
    summary = data.data
    sizes = [(summary.num_train, "to train"), (summary.num_val, "to validate"), (summary.num_test, "to test")]
    shown = [f"{figures.grouped(size)} {what}" for size, what in sizes if size is not None]
    parts = [summary.name, "×".join(map(str, summary.shape)), ", ".join(shown), f"{len(summary.classes)} classes" if summary.classes else ""]
    return "; ".join(part for part in parts if part)


def _headline(data: ReportData) -> str:
    """What the search has come to, in one sentence."""
    sign = 1.0 if data.higher_is_better else -1.0

    def score(final: Finalist) -> float:
        return -math.inf if final.top1 is None else sign * final.top1

    trained = [final for final in data.finals if final.top1 is not None]
    winner = max((final for final in trained if final.kind == "searched" and _fits(final, data)), key=score, default=None)
    if winner is None:
        winner = max((final for final in trained if final.kind == "searched"), key=score, default=None)
    if winner is None:
        return _interim(data)
    words = f"{winner.name} reaches {_measure(data)}{figures.percent(winner.top1)} on the test set"
    if winner.cost is not None:
        words += f" at {figures.cost_phrase(winner.cost, data.cost)}"
        words += f", {100 * winner.cost / data.target:.0f} % of the budget" if data.target else ""
    gains = [_gain(winner, other) for kind in ("reference", "random") for other in trained if other.kind == kind]
    return f"{words}{'; ' if gains else ''}{', '.join(gains)}."


def _gain(winner: Finalist, other: Finalist) -> str:
    assert winner.top1 is not None
    assert other.top1 is not None
    than = {"reference": "the scaled skeleton", "random": "the random network"}[other.kind]
    if not (0 <= winner.top1 <= 1 and 0 <= other.top1 <= 1):
        difference = winner.top1 - other.top1
        return f"{abs(difference):.4g} {'more' if difference > 0 else 'less'} than {than}" if difference else f"as much as {than}"
    points = 100 * (winner.top1 - other.top1)
    if abs(points) < 0.005:
        return f"as much as {than}"
    return f"{abs(points):.2f} points {'more' if points > 0 else 'less'} than {than}"


def _interim(data: ReportData) -> str:
    best = _best_samples(data.samples)[:1]
    if not best:
        return (
            "Nothing has been trained from scratch yet." if data.trace or any(map(supernet_plots.is_shared, data.samples)) else "No child has been trained yet."
        )
    measure = _measure(data) if data.higher_is_better else f"{data.quality} = "
    shown = f"The best child so far reaches {measure}{figures.percent(best[0].accuracy)} on the proxy task"
    return shown + (f" at {figures.cost_phrase(best[0].cost, data.cost)}." if best[0].cost is not None else ".")


def _measure(data: ReportData) -> str:
    """What a figure in a sentence is of; an accuracy goes without saying."""
    return "" if data.metric in METRIC_NAMES else f"{data.metric} "


def _fits(final: Finalist, data: ReportData) -> bool:
    return data.target is None or (final.cost is not None and final.cost <= data.target)


def _best_samples(samples: Sequence[Sample]) -> list[Sample]:
    """Trained samples of highest reward, each architecture once."""
    trained = [sample for sample in samples if sample.activated and sample.status == "ok" and figures.known(sample.reward)]
    best: dict[str, Sample] = {}
    for sample in sorted(trained, key=lambda sample: -(sample.reward or 0.0)):
        best.setdefault(sample.architecture, sample)
    return list(best.values())[:NUM_BEST]


def _unlucky(samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.status in ("failed", "unmeasured")]


def _drawn(data: ReportData) -> list[DrawnArchitecture]:
    searched = [Drawing(final.name, final.architecture, final.choices, final.note) for final in data.finals if final.kind != "random" and final.choices]
    return [DrawnArchitecture(item.title, item.architecture, item.note, drawing.cards(item.choices)) for item in searched or data.best]


def _text(config: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=110) if config else ""
