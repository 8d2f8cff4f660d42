"""The page of a study: tables and figures in order, then the template. Every text goes through the template's escaping; only our own SVG is markup."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kfnas.report.study_plots import Plot

_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s'\"<>]*@")


@dataclass(frozen=True)
class StudyRow:
    """A line of a table: its heading, a note under it, and the other cells as text. `own` lines stand out."""

    heading: str
    cells: Sequence[str]
    note: str = ""
    own: bool = False


@dataclass(frozen=True)
class StudyTable:
    """A table: `columns` are the headings of all cells, the row's own heading first; those in `texts` are aligned left, those in `codes` set as code."""

    columns: Sequence[str]
    rows: Sequence[StudyRow]
    caption: str = ""
    texts: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class StudySection:
    """A heading with sentences, tables and figures under it; `empty` is said where there is neither."""

    title: str
    tables: Sequence[StudyTable] = ()
    plots: Sequence[Plot] = ()
    text: str = ""
    empty: str = ""


@dataclass(frozen=True)
class StudyReport:
    """What the page of a study is made of: plain values, gathered by the caller.

    `state` is `running | finished | failed`; `facts` are (label, value) lines of the header, `numbers` (value, what it counts), `provenance` what the
    figures hang on.
    """

    name: str
    kicker: str
    headline: str
    state: str = "running"
    facts: Sequence[tuple[str, str]] = ()
    numbers: Sequence[tuple[str, str]] = ()
    sections: Sequence[StudySection] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    provenance: Sequence[tuple[str, str]] = ()


def render_study(data: StudyReport) -> str:
    """One self-contained HTML page: no outside address, no script, every text of the user escaped, user parts of addresses hidden."""
    environment = Environment(loader=PackageLoader("kfnas.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(hidden=lambda text: _USERINFO.sub(r"\1***@", str(text)), inline=lambda plot: Markup(plot.svg()))
    config = yaml.safe_dump(dict(data.config), sort_keys=False, allow_unicode=True, width=110) if data.config else ""
    return environment.get_template("study.html.j2").render(data=data, config=config)


def study_files(data: StudyReport) -> dict[str, bytes]:
    """The page and its plots as PNG, by relative path: what a tracker is given."""
    files = {"report.html": render_study(data).encode()}
    for section in data.sections:
        files |= {f"plots/{plot.name}.png": plot.png() for plot in section.plots}
    return files
