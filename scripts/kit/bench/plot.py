"""Lines over a few numbers of clients, as SVG by hand: readable in light and dark, and without colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

# Okabe and Ito's colours for the colour-blind, those that show on white and on near-black; marks differ too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("", "7 4", "2 4", "10 4 2 4", "4 2", "12 6")

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .title { font-size: 16px; font-weight: 600 } .small { font-size: 12px }
.paper { fill: #ffffff } .grid { stroke: #d0d7de; stroke-width: 1 } .axis { stroke: #57606a; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .paper { fill: #0d1117 } .grid { stroke: #30363d } .axis { stroke: #8b949e } }
"""

PANEL_WIDTH, PANEL_HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 34, 44  # inside a panel, around the plot


@dataclass(frozen=True)
class Series:
    """One line. values: one for each place on the x axis; None leaves a gap."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Panel:
    """One pair of axes. places: the labels of the x axis, at equal distances. Series of one name look alike in all panels."""

    title: str
    x_label: str
    y_label: str
    places: Sequence[str]
    series: Sequence[Series]


def svg(title: str, notes: Sequence[str], panels: Sequence[Panel]) -> str:
    """The panels side by side under a title, a legend and the notes below. Every text is escaped."""
    names = list(dict.fromkeys(series.name for panel in panels for series in panel.series))
    width = PANEL_WIDTH * len(panels) + 20
    legend_top = 44 + PANEL_HEIGHT + 16
    height = legend_top + 20 * len(names) + 18 * len(notes) + 14
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{height}"/>',
        _text(16, 28, title, "title"),
    ]
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate({10 + number * PANEL_WIDTH} 44)">')
        parts += _panel(panel, names)
        parts.append("</g>")
    for number, name in enumerate(names):
        y = legend_top + 20 * number
        parts += [_line([(20, y), (56, y)], number), _mark(38, y, number), _text(66, y + 4, name)]
    for number, note in enumerate(notes):
        parts.append(_text(16, legend_top + 20 * len(names) + 18 * number + 4, note, "small"))
    return "\n".join([*parts, "</svg>", ""])


def ticks(highest: float) -> list[float]:
    """From 0 to at least `highest`, in four to six round steps."""
    if highest <= 0:
        return [0.0, 1.0]
    rough = highest / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [round(step * number, 10) for number in range(math.ceil(highest / step) + 1)]


def _panel(panel: Panel, names: Sequence[str]) -> list[str]:
    values = [value for series in panel.series for value in series.values if value is not None]
    scale = ticks(max(values, default=0))
    inner_width, inner_height = PANEL_WIDTH - LEFT - RIGHT, PANEL_HEIGHT - TOP - BOTTOM
    bottom = TOP + inner_height

    def x(place: int) -> float:
        return LEFT + inner_width * (place + 0.5) / len(panel.places)

    def y(value: float) -> float:
        return bottom - inner_height * value / scale[-1]

    parts = [_text(LEFT, 16, panel.title)]
    for tick in scale:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + inner_width}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(_text(LEFT - 8, y(tick) + 4, f"{tick:g}", "small", "end"))
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{LEFT + inner_width}" y1="{bottom}" y2="{bottom}"/>')
    parts += [_text(x(place), bottom + 18, label, "small", "middle") for place, label in enumerate(panel.places)]
    parts.append(_text(LEFT + inner_width / 2, bottom + 36, panel.x_label, "small", "middle"))
    middle = TOP + inner_height / 2
    parts.append(
        f'<text class="small" text-anchor="middle" transform="translate(14 {middle}) rotate(-90)">{escape(panel.y_label)}</text>'
    )
    for series in panel.series:
        look = names.index(series.name)
        places = [(x(place), y(value)) for place, value in enumerate(series.values) if value is not None]
        if len(places) > 1:
            parts.append(_line(places, look))
        parts += [_mark(*place, look) for place in places]
    return parts


def _line(places: Sequence[tuple[float, float]], look: int) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    colour, dash = COLOURS[look % len(COLOURS)], DASHES[look % len(DASHES)]
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}"/>'


def _mark(x: float, y: float, look: int) -> str:
    colour = COLOURS[look % len(COLOURS)]
    if look % 3 == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>'
    if look % 3 == 1:
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="{colour}"/>'
    return f'<path d="M {x:.1f} {y - 5.5:.1f} l 5 9 h -10 z" fill="{colour}"/>'


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'
