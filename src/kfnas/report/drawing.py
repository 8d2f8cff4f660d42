"""Architectures as cards, one for each block: a glyph for blocks of the mobile inverted-bottleneck family, the bare choices for any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kfnas.report.data import Choice

GLYPH_WIDTH, BAR_HEIGHT, BAR_GAP = 108, 9, 5
_FULL_BAR = 66.0
_MOBILE = frozenset({"op", "kernel", "se", "skip", "width", "layers"})
_OPERATORS = {"conv": ("Conv", "conv"), "sep": ("Separable", "sep"), "mb3": ("MBConv 3", "mb3"), "mb6": ("MBConv 6", "mb6")}


@dataclass(frozen=True)
class Bar:
    """One layer of a glyph, in pixels."""

    x: float
    y: float
    width: float


@dataclass(frozen=True)
class Card:
    """One block: `facts` are (label, value) lines; without `bars` it is drawn by its facts alone. `style` names a colour of the page."""

    name: str
    facts: tuple[tuple[str, str], ...]
    title: str = ""
    style: str = "other"
    bars: tuple[Bar, ...] = ()
    skip: str = "none"
    has_se: bool = False

    @property
    def height(self) -> int:
        """Pixels of the glyph's height."""
        return len(self.bars) * (BAR_HEIGHT + BAR_GAP) + BAR_GAP

    @property
    def summary(self) -> str:
        """The block in words, for readers who cannot see it."""
        return f"{self.name}: " + ", ".join([*([self.title] if self.title else []), *(f"{label} {value}".strip() for label, value in self.facts)])


def cards(choices: Mapping[str, Choice]) -> list[Card]:
    """Cards in the order of the decisions; a decision named without "/" is a block of its own."""
    blocks: dict[str, dict[str, Choice]] = {}
    for name, value in choices.items():
        block, _, decision = name.rpartition("/")
        blocks.setdefault(block or name, {})[decision if block else ""] = value
    widest = max((float(block["width"]) for block in blocks.values() if _is_mobile(block)), default=1.0)
    return [_mobile(name, block, widest) if _is_mobile(block) else _bare(name, block) for name, block in blocks.items()]


def _is_mobile(block: Mapping[str, Choice]) -> bool:
    numbers = all(isinstance(block.get(key), int | float) for key in ("kernel", "se", "width", "layers"))
    return set(block) == _MOBILE and numbers and str(block["op"]) in _OPERATORS and float(block["width"]) > 0 and 0 < int(block["layers"]) <= 12


def _mobile(name: str, block: Mapping[str, Choice], widest: float) -> Card:
    title, style = _OPERATORS[str(block["op"])]
    layers, kernel, width, skip = int(block["layers"]), int(block["kernel"]), float(block["width"]), str(block["skip"])
    length = _FULL_BAR * width / widest
    bars = tuple(Bar((GLYPH_WIDTH - length) / 2, BAR_GAP + index * (BAR_HEIGHT + BAR_GAP), length) for index in range(layers))
    facts = (
        ("", f"{kernel}×{kernel}, {layers} layer{'s' if layers > 1 else ''}"),
        ("width", f"×{width:g}"),
        ("SE", f"{float(block['se']):g}" if block["se"] else "none"),
        ("skip", skip),
    )
    return Card(name, facts, title, style, bars, skip, bool(block["se"]))


def _bare(name: str, block: Mapping[str, Choice]) -> Card:
    return Card(name, tuple((decision, str(value)) for decision, value in block.items()))
