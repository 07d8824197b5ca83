"""Inline SVG charts for the report: text in, text out, no dependency.

Colours are classes (`c0`..`c5`, `axis`, `grid`) that the page's style sheet fills, so light and dark both work. Every
label passes `safe`: names come from data files and may be markup.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 14, 40
NUM_COLOURS = 6
STAGES = ("train", "val")  # a stage has one colour in every chart


def line_chart(
    series: Mapping[str, Sequence[Point]], x_label: str = "epoch", y_label: str = "", log_x: bool = False
) -> str:
    """One line per name; points that are not finite (or not positive on a log axis) are left out."""
    drawn = {
        name: [p for p in points if math.isfinite(p[0]) and math.isfinite(p[1]) and (p[0] > 0 or not log_x)]
        for name, points in series.items()
    }
    drawn = {name: points for name, points in drawn.items() if points}
    if not drawn:
        return ""
    everything = [p for points in drawn.values() for p in points]
    axes = Axes.around(everything, log_x=log_x)
    parts = [axes.frame(x_label, y_label)]
    for index, (name, points) in enumerate(drawn.items()):
        colour = _colour(name, index)
        path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in thin(points))
        label = safe(f"{name}: {short(points[-1][1])}")
        parts.append(f'<polyline class="line {colour}" points="{path}"><title>{label}</title></polyline>')
        if len(points) < 30:
            parts += [axes.dot(point, f"dot {colour}", 2.2) for point in points]
    return svg("".join(parts)) + _legend(list(drawn))


def scatter(points: Sequence[Point], x_label: str, y_label: str, diagonal: bool = False) -> str:
    """Dots; `diagonal` adds the line on which both are equal."""
    if not points:
        return ""
    axes = Axes.around([*points, *((b, a) for a, b in points)] if diagonal else points)
    parts = [axes.frame(x_label, y_label)]
    if diagonal:
        parts.append(axes.segment((axes.low[0], axes.low[0]), (axes.high[0], axes.high[0]), "ideal"))
    parts += [axes.dot(point, "mark c0", 2) for point in points]
    return svg("".join(parts))


def histogram(edges: Sequence[float], counts: Sequence[int], x_label: str) -> str:
    """Bars between successive edges."""
    if not counts or not max(counts):
        return ""
    axes = Axes((edges[0], 0.0), (edges[-1], max(counts) * 1.05))
    parts = [axes.frame(x_label, "rows")]
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        left, top = axes.x(low), axes.y(count)
        size = f'width="{max(axes.x(high) - left - 0.6, 0.4):.1f}" height="{axes.y(0) - top:.1f}"'
        parts.append(
            f'<rect class="bar c0" x="{left:.1f}" y="{top:.1f}" {size}>'
            f"<title>{short(low)} to {short(high)}: {count}</title></rect>"
        )
    if edges[0] < 0 < edges[-1]:
        parts.append(axes.segment((0, 0), (0, axes.high[1]), "ideal"))
    return svg("".join(parts))


def calibration(bins: Sequence[Mapping[str, float]]) -> str:
    """Claimed probability against how often it came true; dot area grows with the number of rows."""
    if not bins:
        return ""
    axes = Axes((0.0, 0.0), (1.0, 1.0))
    most = max(row["count"] for row in bins)
    parts = [axes.frame("claimed probability", "came true"), axes.segment((0, 0), (1, 1), "ideal")]
    path = " ".join(f"{axes.x(row['claimed']):.1f},{axes.y(row['true']):.1f}" for row in bins)
    parts.append(f'<polyline class="line c0" points="{path}"/>')
    for row in bins:
        radius = 2 + 6 * math.sqrt(row["count"] / most)
        tip = f"{row['count']:.0f} rows: claimed {row['claimed']:.3f}, true {row['true']:.3f}"
        parts.append(axes.dot((row["claimed"], row["true"]), "mark c0", radius, tip))
    return svg("".join(parts))


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """A cell per (true, predicted) class, shaded by its share of the true class's rows."""
    num = len(classes)
    cell = max(16, min(64, 330 // max(num, 1)))
    longest = max((len(name) for name in classes), default=1)
    left = min(140, 24 + 7 * longest)
    top = 26 if longest * 7 < cell else min(110, 20 + 6 * longest)
    parts = []
    for i, row in enumerate(matrix):
        total = sum(row)
        at = f'x="{left - 8}" y="{top + (i + 0.5) * cell + 4:.1f}"'
        parts.append(f'<text class="tick" {at} text-anchor="end">{_name(classes[i])}</text>')
        for j, count in enumerate(row):
            share = count / total if total else 0.0
            x, y = left + j * cell, top + i * cell
            tip = safe(f"true {classes[i]}, predicted {classes[j]}: {count} ({share:.1%})")
            shade = f'class="{"hit" if i == j else "miss"}" fill-opacity="{0.06 + 0.84 * share:.2f}"'
            place = f'x="{x}" y="{y}" width="{cell - 2}" height="{cell - 2}" rx="2"'
            parts.append(f"<rect {shade} {place}><title>{tip}</title></rect>")
            if cell >= 30:
                ink = "cell over" if share > 0.5 else "cell"
                at = f'x="{x + cell / 2 - 1:.1f}" y="{y + cell / 2 + 3:.1f}"'
                parts.append(f'<text class="{ink}" {at} text-anchor="middle">{count}</text>')
    for j, name in enumerate(classes):
        centre = left + (j + 0.5) * cell
        turn = "" if longest * 7 < cell else f' transform="rotate(-45 {centre:.1f} {top - 8})"'
        anchor = "start" if turn else "middle"
        at = f'x="{centre:.1f}" y="{top - 8}" text-anchor="{anchor}"{turn}'
        parts.append(f'<text class="tick" {at}>{_name(name)}</text>')
    return svg("".join(parts), left + num * cell + 60, top + num * cell + 8)


def safe(text: object) -> str:
    """Text for HTML: markup escaped, control and other unprintable characters replaced."""
    shown = str(text)
    return escape(shown if shown.isprintable() else "".join(c if c.isprintable() else "�" for c in shown))


def short(value: float | None) -> str:
    """A number as people read it: four significant digits, no exponent where it can be helped; a dash for None."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    if 1e4 <= abs(value) < 1e7:
        return f"{value:.0f}"
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e4 else f"{value:.3g}"


def tick(value: float) -> str:
    """A number beside an axis: 350000 is 350k, 1200000 is 1.2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= max(size, 1e4):
            return f"{value / size:.4g}{letter}"
    return short(value)


def ticks(low: float, high: float, about: int = 5, least: float = 0.0) -> list[float]:
    """Round numbers from `low` to `high`, some `about` of them, at least `least` apart."""
    if high <= low:
        return [low]
    raw = max((high - low) / about, least)
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * 0.75)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Axes:
    """Maps data to pixels between the corners `low` and `high`."""

    low: Point
    high: Point
    log_x: bool = False
    whole_x: bool = False

    @classmethod
    def around(cls, points: Sequence[Point], log_x: bool = False) -> Axes:
        """Axes that hold all points, with a little air above and below."""
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        pad_y = (max(ys) - min(ys)) * 0.05 or abs(ys[0]) * 0.1 or 1.0
        pad_x = 0.0 if max(xs) > min(xs) else 0.5 * (abs(xs[0]) if log_x else 1.0)
        whole = all(x == int(x) for x in xs)
        return cls((min(xs) - pad_x, min(ys) - pad_y), (max(xs) + pad_x, max(ys) + pad_y), log_x, whole)

    def x(self, value: float) -> float:
        low, high = self.low[0], self.high[0]
        if self.log_x:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return LEFT + (value - low) / ((high - low) or 1.0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.low[1]) / ((self.high[1] - self.low[1]) or 1.0) * (HEIGHT - TOP - BOTTOM)

    def dot(self, point: Point, css: str, radius: float, tip: str = "") -> str:
        """A circle at a point in data units."""
        title = f"<title>{safe(tip)}</title>" if tip else ""
        at = f'cx="{self.x(point[0]):.1f}" cy="{self.y(point[1]):.1f}" r="{radius:.1f}"'
        return f'<circle class="{css}" {at}>{title}</circle>'

    def segment(self, start: Point, end: Point, css: str) -> str:
        """A straight line in data units."""
        a, b, c, d = self.x(start[0]), self.y(start[1]), self.x(end[0]), self.y(end[1])
        return f'<line class="{css}" x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>'

    def frame(self, x_label: str, y_label: str) -> str:
        """Grid, ticks and axis labels."""
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        parts = [f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>']
        for value in ticks(self.low[1], self.high[1]):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 7}" y="{y + 3.5:.1f}" text-anchor="end">{tick(value)}</text>')
        for value, text in self.x_ticks():
            x = self.x(value)
            parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{text}</text>')
        middle = (LEFT + right) / 2
        parts.append(f'<text class="label" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{safe(x_label)}</text>')
        if y_label:
            turn = f"rotate(-90 12 {(TOP + bottom) / 2})"
            at = f'x="12" y="{(TOP + bottom) / 2}"'
            parts.append(f'<text class="label" {at} text-anchor="middle" transform="{turn}">{safe(y_label)}</text>')
        return "".join(parts)

    def x_ticks(self) -> list[tuple[float, str]]:
        """Where the x axis has a number, and its text."""
        if not self.log_x:
            values = ticks(self.low[0], self.high[0], 6, least=1.0 if self.whole_x else 0.0)
        else:
            first, last = math.ceil(math.log10(self.low[0]) - 1e-9), math.floor(math.log10(self.high[0]) + 1e-9)
            values = [10.0**power for power in range(first, last + 1)] or [self.low[0], self.high[0]]
        return [(value, tick(value)) for value in values]


def svg(content: str, width: float = WIDTH, height: float = HEIGHT) -> str:
    """A picture of a size in pixels, smaller where the page is."""
    return f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">{content}</svg>'


def _legend(names: Sequence[str]) -> str:
    if len(names) < 2 and names[0] not in STAGES:
        return ""
    items = (f'<span><i class="{_colour(name, i)}"></i>{safe(name)}</span>' for i, name in enumerate(names))
    return f'<p class="legend">{"".join(items)}</p>'


def _colour(name: str, index: int) -> str:
    return f"c{(STAGES.index(name) if name in STAGES else index) % NUM_COLOURS}"


def _name(text: str) -> str:
    return safe(text if len(text) <= 18 else text[:17] + "…")


def thin(points: Sequence[Point], most: int = 400) -> Sequence[Point]:
    """At most `most` points: a thousand epochs look the same and cost less; the last one stays."""
    if len(points) <= most:
        return points
    step = math.ceil(len(points) / most)
    return [*points[:-1:step], points[-1]]
