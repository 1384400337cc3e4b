"""Pictures as inline SVG: they grow with the page, and their text keeps its size.

A picture is an `<svg width="100%">` of fixed height whose places are percentages, so letters are
never scaled. Lines are drawn in an inner `<svg>` of 100 by 100 that is stretched, with strokes that
are not. Each has `role="img"` and says in words what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor, isfinite, log10

from prune_report.html import Html, element, join

__all__ = ["Line", "bar", "channels", "lines", "series_class"]

SERIES = 8
"""How many colours there are for lines; those after that are drawn pale."""

_MOST_PIECES = 240


def bar(before: float, after: float, most: float, said: str) -> Html:
    """A bar of what was, with what is left drawn over it.

    Args:
        before: What was.
        after: What is left.
        most: What the whole width stands for.
        said: What it shows, in words.
    """
    whole, part = (100 * min(1.0, value / most) if most > 0 else 0 for value in (before, after))
    return _picture(
        12,
        said,
        element("rect", class_="pr-gone", width=f"{whole:.2f}%", height=12, rx=3),
        element("rect", class_="pr-kept", width=f"{part:.2f}%", height=12, rx=3) if part else None,
        class_="pr-bar",
    )


def channels(before: int, removed: Sequence[int], most: int, said: str) -> Html:
    """A layer as a strip of its channels, those that went shaded, centred like a slice of a body.

    Args:
        before: How many channels there were.
        removed: Which went.
        most: How many channels the whole width stands for.
        said: What it shows, in words.
    """
    width = min(100.0, max(1.5, 100 * before / max(1, most)))
    left = (100 - width) / 2
    gone = set(removed)
    pieces = min(before, _MOST_PIECES)
    kept: list[tuple[int, int, float]] = []
    for at in range(pieces):
        first, last = at * before // pieces, (at + 1) * before // pieces
        share = sum(each not in gone for each in range(first, last)) / max(1, last - first)
        if kept and kept[-1][2] == share:
            kept[-1] = kept[-1][0], at + 1, share
        else:
            kept.append((at, at + 1, share))
    return _picture(
        18,
        said,
        element("rect", class_="pr-gone", x=f"{left:.2f}%", width=f"{width:.2f}%", height=18),
        *(
            element(
                "rect",
                class_="pr-kept",
                x=f"{left + width * first / pieces:.3f}%",
                width=f"{width * (last - first) / pieces:.3f}%",
                height=18,
                opacity=None if share == 1 else f"{share:.2f}",
            )
            for first, last, share in kept
            if share
        ),
        class_="pr-strip",
    )


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart.

    Attributes:
        name: What it is.
        points: (x, y), by ascending x.
        dots: Whether only its points are drawn.
        steps: Whether it jumps from point to point.
    """

    name: str
    points: Sequence[tuple[float, float]]
    dots: bool = False
    steps: bool = False


def lines(
    given: Sequence[Line],
    said: str,
    *,
    x_label: str,
    y_label: str,
    percent_x: bool = False,
    percent_y: bool = False,
) -> Html:
    """Lines over one pair of axes, with a legend where there are several.

    Args:
        given: The lines.
        said: What the chart shows, in words.
        x_label: What goes to the right.
        y_label: What goes up.
        percent_x: Whether x is a share.
        percent_y: Whether y is a share.
    """
    clean = [
        Line(each.name, [(x, y) for x, y in each.points if isfinite(x) and isfinite(y)],
             each.dots, each.steps)
        for each in given
    ]  # fmt: skip
    points = [point for each in clean for point in each.points]
    if not points:
        return Html("")
    across, up = _axis([x for x, _ in points], 4), _axis([y for _, y in points], 5)
    height, top, bottom = 220, 10, 26
    inner = height - top - bottom
    drawn = [_drawn(each, at, across, up) for at, each in enumerate(clean)]
    heights = [(tick, top + inner * (1 - up.place(tick))) for tick in up.ticks]
    axis = element(
        "svg",
        *(
            element("text", _tick(tick, up, percent_y), class_="pr-tick", x=44, y=f"{y + 4:.1f}",
                    text_anchor="end")
            for tick, y in heights
        ),
        width=52,
        height=height,
        aria_hidden="true",
    )  # fmt: skip
    grid = [
        element("line", class_="pr-grid", x2="100%", y1=f"{y:.1f}", y2=f"{y:.1f}")
        for _, y in heights
    ]
    dots = [
        element("circle", cx=f"{100 * across.place(x):.2f}%", r=3.5, class_=series_class(at),
                cy=f"{top + inner * (1 - up.place(y)):.1f}")
        for at, each in enumerate(clean)
        if each.dots or len(each.points) == 1
        for x, y in each.points
    ]  # fmt: skip
    stretched = element(
        "svg",
        *drawn,
        y=top,
        width="100%",
        height=inner,
        viewBox="0 0 100 100",
        preserveAspectRatio="none",
        overflow="visible",
    )
    marks = [_mark(tick, across, percent_x, height - 6) for tick in across.ticks]
    return element(
        "figure",
        element("figcaption", f"{y_label} over {x_label}", class_="pr-axes"),
        element(
            "div",
            axis,
            _picture(height, said, *grid, stretched, *dots, *marks, class_="pr-plot"),
            class_="pr-plotted",
        ),
        _legend(clean) if len(clean) > 1 else None,
        class_="pr-chart",
    )


def _mark(tick: float, across: _Axis, percent: bool, y: int) -> Html:
    """A number below the plot, which does not stick out of it."""
    share = across.place(tick)
    anchor = "start" if share < 0.06 else "end" if share > 0.94 else "middle"
    return element(
        "text",
        _tick(tick, across, percent),
        class_="pr-tick",
        x=f"{100 * share:.2f}%",
        y=y,
        text_anchor=anchor,
    )


def series_class(at: int) -> str:
    """The class that gives a line its colour."""
    return f"pr-s{at}" if at < SERIES else "pr-pale"


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    ticks: list[float]
    digits: int

    def place(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)


def _axis(values: Sequence[float], most: int) -> _Axis:
    """From a round number to a round number, in so many steps at most."""
    low, high = min(values), max(values)
    if low == high:
        pad = abs(low) * 0.1 or 0.5
        low, high = low - pad, high + pad
    step = 10 ** floor(log10((high - low) / 3))
    for factor in (1, 2, 5, 10, 20):
        if (high - low) / (step * factor) <= most:
            step *= factor
            break
    first, last = floor(low / step + 1e-9), -floor(-high / step + 1e-9)
    digits = max(0, -floor(log10(step) + 1e-9))
    return _Axis(first * step, last * step, [n * step for n in range(first, last + 1)], digits)


def _tick(value: float, axis: _Axis, percent: bool) -> str:
    if percent:
        return f"{100 * value:.{max(0, axis.digits - 2)}f} %"
    if abs(axis.high) >= 1e5 or (axis.digits > 4):
        return f"{value:.2g}"
    return f"{value:,.{axis.digits}f}"


def _drawn(line: Line, at: int, across: _Axis, up: _Axis) -> Html | None:
    if line.dots:
        return None
    places = [(100 * across.place(x), 100 * (1 - up.place(y))) for x, y in line.points]
    if line.steps:
        corners = [(x, before[1]) for before, (x, _) in pairwise(places)]
        pairs = zip(places, [*corners, places[-1]], strict=True)
        places = [place for pair in pairs for place in pair]
    return element(
        "polyline",
        points=" ".join(f"{x:.2f},{y:.2f}" for x, y in places),
        class_=f"pr-line {series_class(at)}",
        vector_effect="non-scaling-stroke",
    )


def _legend(given: Sequence[Line]) -> Html:
    named = [
        element("li", element("span", class_=f"pr-key {series_class(at)}"), each.name)
        for at, each in enumerate(given[:SERIES])
    ]
    if more := len(given) - SERIES:
        others = f"{more} more" if more > 0 else None
        if others:
            named.append(element("li", element("span", class_="pr-key pr-pale"), others))
    return element("ul", *named, class_="pr-legend")


def _picture(height: int, said: str, *children: Html | None, class_: str) -> Html:
    return element(
        "svg",
        element("title", said),
        join(children),
        xmlns="http://www.w3.org/2000/svg",
        width="100%",
        height=height,
        role="img",
        aria_label=said,
        class_=class_,
    )
