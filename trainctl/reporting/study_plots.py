"""Charts of a study as inline SVG, in the style of `plots`: history, curves, importances, slices, coordinates, front.

A trial is an entry of study.json. Trials that were stopped are faint, the best is c1 everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainctl.reporting.plots import BOTTOM, HEIGHT, WIDTH, Axes, Point, safe, short, svg, thin, tick

Trial = Mapping[str, Any]
Dimension = Mapping[str, Any]

MOST_CURVES, MOST_LINES, MOST_TIPS, MOST_AXES = 150, 300, 300, 12
_WIDE, _TALL = 960, 360
_SIDE, _CEILING, _FLOOR = 88, 52, 46


def history(trials: Sequence[Trial], objective: str, direction: str) -> str:
    """Each trial's value by its number, the best so far as a line; a tick on the axis for each that failed."""
    valued = [(t["number"], t["value"], t["status"]) for t in trials if t["value"] is not None]
    if not valued:
        return ""
    low, high = limits([value for _, value, _ in valued], direction)
    kept = [(number, value, status) for number, value, status in valued if low <= value <= high]
    last = max(trial["number"] for trial in trials)
    axes = Axes((-0.5, low), (last + 0.5, high), whole_x=True)
    parts = [axes.frame("trial", objective)]
    for number, value, status in kept:
        tip = f"trial {number}: {short(value)}" + ("" if status == "completed" else f" ({status})")
        faint = ' opacity=".35"' if status != "completed" else ""
        parts.append(f"<g{faint}>{axes.dot((number, value), 'mark c0', 2.6, tip)}</g>")
    parts.append(_best_so_far(kept, last, direction, axes))
    failed = [trial["number"] for trial in trials if trial["status"] == "failed"]
    bottom = HEIGHT - BOTTOM
    parts += [
        f'<rect class="bar c3" x="{axes.x(number) - 1:.1f}" y="{bottom - 7}" width="2" height="7">'
        f"<title>trial {number} failed</title></rect>"
        for number in failed
    ]
    stopped = any(status != "completed" for _, _, status in kept)
    completed = any(status == "completed" for _, _, status in kept)
    items = [
        ("c0", "trial"),
        *([("c1", "best so far")] if completed else []),
        *([("c0 faint", "stopped")] if stopped else []),
    ]
    return svg("".join(parts)) + legend([*items, *([("c3", "failed")] if failed else [])])


def _best_so_far(kept: Sequence[tuple[int, float, str]], last: int, direction: str, axes: Axes) -> str:
    sign = -1.0 if direction == "maximize" else 1.0
    best = math.inf
    steps: list[Point] = []
    for number, value, status in kept:
        if status == "completed" and sign * value < best:
            steps += [(number, sign * best)] if steps else []
            best = sign * value
            steps.append((number, value))
    if not steps:
        return ""
    steps.append((last, steps[-1][1]))
    return f'<polyline class="line c1" points="{_path(axes, steps)}"/>'


def curves(
    found: Mapping[int, Sequence[Point]], trials: Sequence[Trial], best: int | None, objective: str, direction: str
) -> str:
    """The objective over the epochs of each trial; of very many, an even choice."""
    drawn = [(t, found.get(t["number"], ())) for t in trials]
    drawn = [(t, [p for p in points if math.isfinite(p[1])]) for t, points in drawn]
    drawn = [(t, points) for t, points in drawn if points]
    if not drawn or max(len(points) for _, points in drawn) < 2:
        return ""
    step = math.ceil(len(drawn) / MOST_CURVES)
    drawn = [pair for i, pair in enumerate(drawn) if i % step == 0 or pair[0]["number"] == best]
    drawn.sort(key=lambda pair: pair[0]["number"] == best)
    low, high = limits([value for _, points in drawn for _, value in points], direction)
    epochs = [epoch for _, points in drawn for epoch, _ in points]
    axes = Axes((min(epochs), low), (max(*epochs, min(epochs) + 1), high), whole_x=True)
    inside = f'x="{axes.x(min(epochs)) - 3:.0f}" y="0" width="{WIDTH}" height="{HEIGHT - BOTTOM}"'
    clip = f'<clipPath id="plot"><rect {inside}/>'
    parts = [f"{clip}</clipPath>", axes.frame("epoch", objective), '<g clip-path="url(#plot)">']
    opacity = max(0.18, min(0.6, 12 / len(drawn)))
    for trial, points in drawn:
        one = trial["number"] == best
        css = "line c1" if one else "line c5" if trial["status"] in ("stopped", "failed") else "line c0"
        faint = "" if one else f' opacity="{opacity:.2f}"'
        tip = safe(f"trial {trial['number']} ({trial['status']}): {short(points[-1][1])}")
        parts.append(
            f'<polyline class="{css}"{faint} points="{_path(axes, thin(points, 80))}"><title>{tip}</title></polyline>'
        )
        if len(points) == 1:
            parts.append(f"<g{faint}>{axes.dot(points[0], css.replace('line', 'mark'), 2)}</g>")
    statuses = {trial["status"] for trial, _ in drawn}
    items = [("c1", f"best (trial {best})")] if best is not None else []
    items += [("c0", "completed")] if any(t["number"] != best and t["status"] == "completed" for t, _ in drawn) else []
    items += [("c5 faint", "stopped or failed")] if statuses & {"stopped", "failed"} else []
    return svg("".join(parts) + "</g>") + legend(items)


def importances(shares: Mapping[str, float]) -> str:
    """A bar per hyperparameter, the most important first."""
    if not shares:
        return ""
    rows = sorted(shares.items(), key=lambda pair: -pair[1])
    left, height = 170, 14 + 26 * len(rows)
    room = WIDTH - left - 56
    most = max(max(shares.values()), 1e-12)
    parts = []
    for index, (name, share) in enumerate(rows):
        y, width = 8 + 26 * index, max(room * max(share, 0.0) / most, 1)
        parts.append(f'<text class="label" x="{left - 8}" y="{y + 13}" text-anchor="end">{_cut(name, 24)}</text>')
        parts.append(f'<rect class="bar c0" x="{left}" y="{y}" width="{width:.1f}" height="18" rx="2"/>')
        parts.append(f'<text class="tick" x="{left + width + 6:.1f}" y="{y + 13}">{100 * share:.0f} %</text>')
    return svg("".join(parts), WIDTH, height)


@dataclass(frozen=True)
class Scale(Axes):
    """Axes whose x axis is a dimension: a range, or names at 0, 1, 2, ..."""

    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, dimension: Dimension, low: float, high: float) -> Scale:
        """The axes of a dimension and of values between `low` and `high`."""
        if dimension["kind"] == "choice":
            names = tuple(dimension["choices"])
            return cls((-0.6, low), (len(names) - 0.4, high), names=names)
        left, right, log = float(dimension["low"]), float(dimension["high"]), bool(dimension["log"])
        if right <= left:
            left, right = (left / 2, right * 2) if log else (left - 0.5, right + 0.5)
        air = (right / left) ** 0.03 if log else (right - left) * 0.03
        ends = (left / air, right * air) if log else (left - air, right + air)
        return cls((ends[0], low), (ends[1], high), log_x=log, whole_x=dimension["kind"] == "int")

    def place(self, value: Any) -> float | None:
        """Where a trial's value lies on the x axis; None when it is not on it."""
        if self.names:
            return float(self.names.index(str(value))) if str(value) in self.names else None
        fits = isinstance(value, int | float) and (value > 0 or not self.log_x)
        return float(value) if fits else None

    def x_ticks(self) -> list[tuple[float, str]]:
        """The names, as many letters of each as there is room for; numbers as usual."""
        if not self.names:
            return super().x_ticks()
        every = math.ceil(len(self.names) / 12)
        room = max(4, int(60 / len(self.names) * every))
        return [(float(i), _cut(name, room)) for i, name in enumerate(self.names) if i % every == 0]


def slices(trials: Sequence[Trial], dimension: Dimension, best: int | None, objective: str, direction: str) -> str:
    """The value of each completed trial against one dimension."""
    good = [t for t in trials if t["status"] == "completed" and t["value"] is not None]
    good = [t for t in good if t["params"].get(dimension["name"]) is not None]
    if not good:
        return ""
    low, high = limits([t["value"] for t in good], direction)
    axes = Scale.of(dimension, low, high)
    parts = [axes.frame(dimension["name"], objective)]
    seen: dict[str, int] = {}
    for trial in sorted(good, key=lambda t: t["number"] == best):
        value = trial["params"][dimension["name"]]
        x = axes.place(value)
        if x is None or not low <= trial["value"] <= high:
            continue
        if axes.names:  # side by side where many have one name
            seen[str(value)] = seen.get(str(value), 0) + 1
            x += 0.24 * ((seen[str(value)] * 0.618034) % 1 - 0.5) * (len(good) > len(axes.names))
        css, radius = ("mark c1 best", 4.5) if trial["number"] == best else ("mark c0", 2.8)
        tip = f"trial {trial['number']}: {short(trial['value'])}" if len(good) <= MOST_TIPS else ""
        parts.append(axes.dot((x, trial["value"]), css, radius, tip))
    return svg("".join(parts))


def coordinates(
    trials: Sequence[Trial], dimensions: Sequence[Dimension], best: int | None, objective: str, direction: str
) -> str:
    """A line per completed trial through all dimensions to its value; the better, the stronger."""
    good = [t for t in trials if t["place"] is not None]
    if not good or not dimensions:
        return ""
    good = sorted(good, key=lambda t: t["place"])[:MOST_LINES]
    low, high = limits([t["value"] for t in good], direction)
    last = {"name": objective, "kind": "float", "low": low, "high": high, "log": False}
    shown = [*dimensions[:MOST_AXES], last]
    scales = [Scale.of(dimension, 0, 1) for dimension in shown]
    apart = (_WIDE - 2 * _SIDE) / (len(shown) - 1)
    lines = []
    for rank, trial in reversed(list(enumerate(good))):
        row = [*(trial["params"].get(d["name"]) for d in shown[:-1]), min(max(trial["value"], low), high)]
        at = [
            (_SIDE + apart * i, _height(scale, value)) for i, (scale, value) in enumerate(zip(scales, row, strict=True))
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        strength = (0.08 + 0.7 * (1 - rank / len(good)) ** 2) * min(1.0, (60 / len(good)) ** 0.5)
        css = 'class="line c1"' if trial["number"] == best else f'class="line c0" opacity="{strength:.2f}"'
        tip = f"<title>trial {trial['number']}: {short(trial['value'])}</title>" if len(good) <= MOST_TIPS else ""
        lines.append(f'<polyline {css} points="{path}">{tip}</polyline>')
    if any(t["params"].get(d["name"]) is None for t in good for d in shown[:-1]):
        lines.append(f'<text class="tick" x="{_SIDE - 6}" y="{_TALL - 8}" text-anchor="end">not set</text>')
    axes = [_axis(dimension, scale, _SIDE + apart * i, apart, i, len(shown))
            for i, (dimension, scale) in enumerate(zip(shown, scales, strict=True))]  # fmt: skip
    return svg("".join([*lines, *axes]), _WIDE, _TALL)


def _height(scale: Scale, value: Any) -> float:
    """Where a value lies on an upright axis; below its foot when the trial does not have it."""
    place = scale.place(value)
    if place is None:
        return _TALL - 12
    low, high = scale.low[0], scale.high[0]
    if scale.log_x:
        low, high, place = math.log10(low), math.log10(high), math.log10(place)
    return _TALL - _FLOOR - (place - low) / ((high - low) or 1.0) * (_TALL - _FLOOR - _CEILING)


def _axis(dimension: Dimension, scale: Scale, x: float, apart: float, index: int, count: int) -> str:
    """An upright axis; names stand high and low in turn, so that each has the room of two."""
    end = index == count - 1
    name, room = dimension["name"], int((apart * 2 if 0 < index and not end else apart + _SIDE) / 6.8) - 2
    parts = [f'<line class="axis" x1="{x:.1f}" y1="{_CEILING}" x2="{x:.1f}" y2="{_TALL - _FLOOR}"/>']
    anchor = "end" if end else "middle" if index else "start"
    at = f'x="{x + (0 if 0 < index and not end else _SIDE - 6 if end else 6 - _SIDE):.1f}" y="{14 + 16 * (index % 2)}"'
    text = _cut(name, max(room, 6))
    parts.append(f'<text class="label" {at} text-anchor="{anchor}">{text}<title>{safe(name)}</title></text>')
    marks = [(value, text) for value, text in scale.x_ticks() if scale.low[0] <= value <= scale.high[0]]
    side, beside = ("start", x + 6) if end else ("end", x - 6)
    for value, text in marks[:: math.ceil(len(marks) / 10)]:
        text = _cut(scale.names[int(value)], max(6, int(min(apart, _SIDE) / 7))) if scale.names else text
        y = _height(scale, scale.names[int(value)] if scale.names else value) + 3.5
        parts.append(f'<text class="tick halo" x="{beside:.1f}" y="{y:.1f}" text-anchor="{side}">{text}</text>')
    return "".join(parts)


def front(trials: Sequence[Trial], chosen: Sequence[int], objectives: Sequence[str], pair: tuple[int, int]) -> str:
    """Two objectives against each other, the trials on the Pareto front joined."""
    good = [t for t in trials if t["status"] == "completed" and len(t["values"]) == len(objectives)]
    good = [t for t in good if None not in t["values"]]
    if not good:
        return ""
    a, b = sorted(pair, key=lambda i: -_spread([t["values"][i] for t in good]))  # the wide one has the log axis
    points = {t["number"]: (float(t["values"][a]), float(t["values"][b])) for t in good}
    axes = Axes.around(list(points.values()), log_x=_spread([x for x, _ in points.values()]) > 50)
    parts = [axes.frame(objectives[a], objectives[b])]
    parts += [axes.dot(p, "mark c0", 2.6, _pair_tip(n, p)) for n, p in points.items() if n not in chosen]
    best = sorted(points[number] for number in chosen if number in points)
    if len(objectives) == 2:
        parts.append(f'<polyline class="line c1" points="{_path(axes, best)}"/>')
    parts += [axes.dot(points[n], "dot c1", 4, _pair_tip(n, points[n])) for n in chosen if n in points]
    return svg("".join(parts)) + legend([("c1", "Pareto front"), ("c0", "other trials")])


def _spread(values: Sequence[float]) -> float:
    """How many times the lowest value the highest is; 1 when that says nothing."""
    return max(values) / min(values) if min(values) > 0 else 1.0


def limits(values: Sequence[float], direction: str = "minimize") -> tuple[float, float]:
    """The ends of an axis for these values; a few bad ones far away do not press the others flat."""
    ordered = sorted(value for value in values if math.isfinite(value)) or [0.0]
    low, high = ordered[0], ordered[-1]
    if len(ordered) >= 5:
        spread = ordered[int(len(ordered) * 0.8)] - ordered[int(len(ordered) * 0.2)]
        spread = spread or abs(ordered[len(ordered) // 2]) * 0.1
        if direction == "maximize" and spread > 0:
            low = max(low, ordered[int(len(ordered) * 0.2)] - 3 * spread)
        elif spread > 0:
            high = min(high, ordered[int(len(ordered) * 0.8)] + 3 * spread)
    air = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    return low - air, high + air


def legend(items: Sequence[tuple[str, str]]) -> str:
    """Colours and what they mean."""
    cells = "".join(f'<span><i class="{css}"></i>{safe(text)}</span>' for css, text in items)
    return f'<p class="legend">{cells}</p>' if len(items) > 1 else ""


def _pair_tip(number: int, point: Point) -> str:
    return f"trial {number}: {tick(point[0])}, {short(point[1])}"


def _path(axes: Axes, points: Sequence[Point]) -> str:
    return " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)


def _cut(name: str, room: int) -> str:
    """The end of a long name: `optimizer.weight_decay` is known by its last part."""
    return safe(name if len(name) <= room else "…" + name[-(room - 1) :])
