"""Charts of numbers as SVG for a page: colours by CSS variables, nothing fetched, no text but our own."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.score import interval
from mobilenets.report.labels import Box, around, placed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stand for CSS variables of the page; matplotlib only ever sees these.
INK, FAINT, GOOD, BAD = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
SERIES = ("#0a0b11", "#0a0b12", "#0a0b13", "#0a0b14", "#0a0b15", "#0a0b16")
VARIABLES = {INK: "ink", FAINT: "line", GOOD: "good", BAD: "bad"} | {
    colour: f"s{index}" for index, colour in enumerate(SERIES, 1)
}
MARKERS = "osD^vPX"
ON_WHITE = ("#2f6fdb", "#b7791f", "#1f7a5c", "#b83280", "#6b46c1", "#4a5568")
"""The page's colours of series by day, for pictures."""
FAMILIES = ("v1", "v2", "v3", "v4", "squeezenet", "shufflenet", "larger")
LED = 6
"""Points from which on a thin line leads from a point to its name."""
REACHES = (40.0, 40.0, 8.0)
"""How far away names may stand, by their worth; a name without a place is left to the table."""
LONGEST_BAR = 4
"""Times the shortest: a bar that is longer is cut, or nothing could be seen of the others."""


def calibration(before: NDArray[np.float64], after: NDArray[np.float64]) -> str:
    """Accuracy against score, before and after the temperature; rows as `score.reliability` gives.

    Thin strokes are 95 % intervals of what came true after it.
    """
    with _style():
        figure = _figure(4.2, 3.7)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        upper.plot([0, 1], [0, 1], color=FAINT, linewidth=1.2, linestyle="--")
        for rows, colour, marker, name in ((before, BAD, "s", "before"), (after, GOOD, "o", "after")):
            pictures, score, right = rows[rows[:, 0] > 0].T
            upper.plot(score, right, color=colour, marker=marker, markersize=4, linewidth=1.3, label=name)
            if rows is after:
                low, high = np.array([interval(*pair) for pair in zip(right, pictures, strict=True)]).T
                upper.vlines(score, low, high, color=colour, linewidth=0.9, alpha=0.6)
            lower.plot(score, pictures, color=colour, marker=marker, markersize=3, linewidth=1)
        upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="came true")
        lower.set(xlabel="score the model gave", ylabel="pictures", ylim=(0, None))
        upper.legend(loc="upper left")
        return _svg(figure, "calibration", "What came true against the score the model gave")


def regularisation(choices: Sequence[tuple[float, float, float]], chosen: float) -> str:
    """Validation accuracy and loss for each strength tried, (C, accuracy, loss); the chosen one marked."""
    ordered = sorted(choices)
    strengths = [choice[0] for choice in ordered]
    with _style():
        figure = _figure(4.2, 3.2)
        upper, lower = figure.subplots(2, 1, sharex=True)
        upper.plot(strengths, [100 * choice[1] for choice in ordered], color=GOOD, marker="o", markersize=4)
        lower.plot(strengths, [choice[2] for choice in ordered], color=SERIES[1], marker="s", markersize=4)
        for axes in (upper, lower):
            axes.axvline(chosen, color=BAD, linewidth=1, linestyle="--")
        upper.set(ylabel="accuracy, %")
        _at_most(upper, 100)
        lower.set(ylabel="loss", xlabel="C: more is freer", xscale="log")
        return _svg(figure, "regularisation", "Validation accuracy and loss for each strength tried")


def learning(epochs: Sequence[int], losses: Sequence[float], accuracies: Sequence[float]) -> str:
    """Training loss and validation accuracy by epoch."""
    with _style():
        figure = _figure(4.2, 3.2)
        upper, lower = figure.subplots(2, 1, sharex=True)
        upper.plot(epochs, [100 * value for value in accuracies], color=GOOD, marker="o", markersize=4)
        lower.plot(epochs, losses, color=SERIES[1], marker="s", markersize=4)
        upper.set(ylabel="validation, %")
        _at_most(upper, 100)
        lower.set(ylabel="training loss", xlabel="epoch")
        lower.xaxis.get_major_locator().set_params(integer=True)
        return _svg(figure, "learning", "Validation accuracy and training loss by epoch")


def scatter(
    points: Mapping[str, Sequence[tuple[float, float, str]]], along: str, best: Sequence[tuple[float, float]]
) -> str:
    """Accuracy in % against a cost: a line of (cost, accuracy, label) a name, the best as a band."""
    with _style():
        figure = _figure(4.2, 3.1)
        axes = figure.subplots()
        axes.plot([x for x, _ in best], [y for _, y in best], color=FAINT, linewidth=6, zorder=1)
        for index, (name, line) in enumerate(points.items()):
            colour, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
            xs, ys = [x for x, _, _ in line], [y for _, y, _ in line]
            axes.plot(xs, ys, color=colour, marker=marker, markersize=5, linewidth=1.2, label=name, zorder=2)
            ends = dict.fromkeys((line[0], line[-1]))  # all would overlap; a table has the rest
            for x, y, label in ends:
                axes.annotate(
                    label, (x, y), xytext=(3, 5), textcoords="offset points", fontsize=7.5, color=INK
                )
        axes.set(xlabel=along, ylabel="test accuracy, %", xscale="log")
        _plain_ticks(axes, [x for line in points.values() for x, _, _ in line])
        figure.legend(loc="outside upper left", title="width", ncols=len(points), alignment="left")
        axes.margins(0.12)
        _at_most(axes, 100)
        return _svg(figure, along, f"Test accuracy against {along}")


def latencies(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """Bars of milliseconds, the fastest above, strokes from the tenth to the ninetieth percentile.

    What goes on beyond `LONGEST_BAR` times the fastest ends in an arrow.
    """
    with _style():
        figure = _figure(4.6, 0.7 + 0.27 * len(rows))
        _bars(figure.subplots(), rows, GOOD, SERIES[5])
        return _svg(figure, name, f"Milliseconds of each engine, {name}")


def latencies_png(groups: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> bytes:
    """The same for several groups by name as one picture, on white."""
    ink, faint, good, other = "#1b2330", "#d7dce3", "#1f7a5c", "#7b8794"
    with _style(ink, faint):
        tall = [1.5 + len(rows) for rows in groups.values()]
        figure = _figure(6.6, 0.6 + 0.27 * sum(tall))
        parts = figure.subplots(len(groups), 1, squeeze=False, height_ratios=tall)[:, 0]
        for axes, (name, rows) in zip(parts, groups.items(), strict=True):
            _bars(axes, rows, good, other, ink)
            axes.set_title(name, loc="left", fontsize=9, color=ink)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, color=ink)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160, facecolor="white")
        return buffer.getvalue()


def retrainings_png(rows: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Seconds and accuracy of retrainings by width, on white: a line for each device, strokes for intervals,
    bands and dashed lines for what others published."""
    ink, faint, band = "#1b2330", "#d7dce3", "#f3ead2"
    colours = ("#1f7a5c", "#b4552d", "#3b6fb6", "#7b5ea7", "#7b8794", "#a6761d")
    with _style(ink, faint):
        figure = _figure(7.6, 3.7)
        left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
        ours = [row for row in rows if row["how"] != "published"]
        for index, name in enumerate(dict.fromkeys(row["device"] for row in ours)):
            own = sorted((row for row in ours if row["device"] == name), key=lambda row: row["width"])
            colour, marker = colours[index % len(colours)], MARKERS[index % len(MARKERS)]
            xs, ys = [row["width"] + 0.01 * index for row in own], [row["seconds"] for row in own]
            told = f"{name}, {own[0]['how']}"
            left.plot(xs, ys, color=colour, marker=marker, markersize=5, linewidth=1.2, label=told)
            if own[0]["seconds_low"] is not None:
                ends = [[row[key] for row in own] for key in ("seconds_low", "seconds_high")]
                left.vlines(xs, *ends, color=colour, linewidth=1)
            if own[0]["how"] == "measured":
                scored = [row for row in own if row["accuracy"] is not None]
                shares = [100 * row["accuracy"] for row in scored]
                right.plot([row["width"] for row in scored], shares, color=colour, marker=marker, label=told)
                for row in scored:
                    if row["accuracy_low"] is not None:
                        reach = (100 * row["accuracy_low"], 100 * row["accuracy_high"])
                        right.vlines(row["width"], *reach, color=colour, linewidth=1)
        for row in (row for row in rows if row["how"] == "published"):
            for axes, key, times in ((left, "seconds", 1), (right, "accuracy", 100)):
                low, high = row[f"published_{key}_low"], row[f"published_{key}_high"]
                told = f"{row['device']}, published" + (
                    " of one width, not told which" if low == high else ""
                )
                if low is None:
                    continue
                if low == high:
                    axes.axhline(times * low, color=ink, linewidth=1, linestyle="--", label=told)
                else:
                    axes.axhspan(times * low, times * high, color=band, zorder=0, label=told)
        sides = {row["width"]: f"{row['width']:g}\n{row['resolution']}" for row in ours}
        left.set(yscale="log", ylabel="seconds")
        left.yaxis.set_major_formatter("{x:g}")
        right.set(ylabel="test accuracy, %")
        _at_most(right, 100)
        for axes in (left, right):
            axes.set_xticks(list(sides), list(sides.values()))
            axes.set(xlabel="width, and pixels a side")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, color=ink)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160, facecolor="white")
        return buffer.getvalue()


def field(rows: Sequence[Mapping[str, Any]]) -> str:
    """Top-1 in % against multiply-accumulates, a colour for each family; the front is a line."""
    with _style():
        figure = _figure(8.2, 5.4)
        _networks(figure, rows, (*SERIES, INK), INK)
        return _svg(figure, "field", "Accuracy of each network against its multiply-accumulates")


def field_png(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The same as a PNG, on white."""
    ink, faint = "#1b2330", "#d7dce3"
    with _style(ink, faint):
        figure = _figure(8.2, 5.4)
        _networks(figure, rows, (*ON_WHITE, ink), ink)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160, facecolor="white")
        return buffer.getvalue()


def _networks(figure: Figure, rows: Sequence[Mapping[str, Any]], colours: Sequence[str], ink: str) -> None:
    axes = figure.subplots()
    known = [row for row in rows if row["accuracy"] is not None]
    for index, name in enumerate(sorted({row["family"] for row in rows}, key=FAMILIES.index)):
        own = [row for row in known if row["family"] == name]
        place = FAMILIES.index(name)
        xs, ys = [row["macs"] / 1e6 for row in own], [100 * row["accuracy"] for row in own]
        axes.plot(
            *(xs, ys, MARKERS[place]), color=colours[place], markersize=4.5, zorder=3 + index / 10, label=name
        )
    best = sorted((row["macs"] / 1e6, 100 * row["accuracy"]) for row in known if row["front"])
    axes.plot(
        *([x for x, _ in best], [y for _, y in best]),
        color=ink,
        linewidth=1,
        linestyle=":",
        zorder=2,
        label="front",
    )
    axes.set(xlabel="multiply-accumulates a picture, millions", ylabel="top-1 on ImageNet, %", xscale="log")
    axes.margins(0.09)
    if known:
        _plain_ticks(axes, [row["macs"] / 1e6 for row in known])
    figure.legend(loc="outside upper left", ncols=len(FAMILIES) + 1, handletextpad=0.4, columnspacing=1.2)
    if known:
        _label(figure, axes, known, ink)


def _label(figure: Figure, axes: Axes, known: Sequence[Mapping[str, Any]], ink: str) -> None:
    """Names beside the points, those of the front first, as far as there is room: a table has the rest."""
    figure.draw_without_rendering()  # only then places are known
    data = [(row["macs"] / 1e6, 100 * row["accuracy"]) for row in known]
    points = [(float(x), float(y)) for x, y in axes.transData.transform(data)]
    reach = 2.6 * figure.dpi / 72
    taken = [around(x, y, reach) for x, y in points]
    line = sorted(point for point, row in zip(points, known, strict=True) if row["front"])
    for one, other in pairwise(line):
        taken += [around(x, y, reach / 3) for x, y in np.linspace(one, other, 40).tolist()]
    worth = [_worth(known, number) for number in range(len(known))]
    order = sorted(range(len(known)), key=lambda number: (worth[number], number))
    style: dict[str, Any] = {"fontsize": 6.6, "color": ink, "ha": "left", "va": "bottom", "in_layout": False}
    texts = [axes.text(*data[number], known[number]["label"], **style) for number in order]
    extents = [text.get_window_extent() for text in texts]
    edge = axes.get_window_extent()
    boxes = placed(
        [points[number] for number in order],
        [(extent.width, extent.height) for extent in extents],
        [REACHES[worth[number]] for number in order],
        Box(edge.x0, edge.y0, edge.x1, edge.y1),
        taken,
    )
    for number, text, box in zip(order, texts, boxes, strict=True):
        if box is None:
            text.remove()
            continue
        x, y = points[number]
        near = min(max(x, box.left), box.right), min(max(y, box.bottom), box.top)
        ends = axes.transData.inverted().transform([box[:2], (x, y), near])
        text.set_position((float(ends[0, 0]), float(ends[0, 1])))
        if max(abs(near[0] - x), abs(near[1] - y)) > LED * figure.dpi / 72:
            axes.plot(*ends[1:].T, color=ink, alpha=0.45, linewidth=0.6, zorder=1)


def _worth(known: Sequence[Mapping[str, Any]], number: int) -> int:
    """Whose name matters: 0 is the front's, 1 the most accurate of each network, 2 the rest."""
    row = known[number]
    best = max(one["accuracy"] for one in known if one["net"] == row["net"])
    return 0 if row["front"] else 1 + (row["accuracy"] < best)


def _bars(axes: Axes, rows: Sequence[Mapping[str, Any]], own: str, other: str, ink: str = INK) -> None:
    ordered = sorted(rows, key=lambda row: -float(row["latency_ms"]))
    end = min(max(float(row["p90_ms"]) for row in ordered), LONGEST_BAR * float(ordered[-1]["latency_ms"]))
    for place, row in enumerate(ordered):
        middle, low, high = (float(row[key]) for key in ("latency_ms", "p10_ms", "p90_ms"))
        colour = own if row["engine"] == "ours" else other
        axes.barh(place, min(middle, end), color=colour, height=0.68, zorder=2)
        axes.hlines(place, min(low, end), min(high, end), color=ink, linewidth=1, zorder=3)
        if high > end:  # it goes on beyond what is shown
            axes.plot(end, place, color=ink, marker=">", markersize=3, zorder=3)
        share = row.get("peak_share")
        told = f"{middle:.3g} ms" + ("" if share is None else f", {100 * share:.0f} % of peak")
        axes.text(min(max(high, middle), end) + 0.02 * end, place, told, va="center", fontsize=7.5, color=ink)
    axes.set_yticks(range(len(ordered)), [row["engine"] + " (C)" * (row["call"] == "c") for row in ordered])
    axes.set(xlim=(0, 1.42 * end), xlabel="milliseconds")
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)


def _at_most(axes: Axes, most: float) -> None:
    """No scale of a share goes on above all of it, but a mark upon it is seen whole."""
    low, high = axes.get_ylim()
    if high > most:
        axes.set_ylim(low, most + 0.04 * (most - low))
        axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= most])


def _plain_ticks(axes: Axes, values: Sequence[float]) -> None:
    """1, 2 and 5 of each decade, as plain numbers; where the range holds too few, its ends."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(values), max(values)
    ticks = [m * 10.0**e for e in range(-4, 9) for m in (1, 2, 5) if low * 0.8 <= m * 10.0**e <= high * 1.25]
    axes.xaxis.set_major_locator(FixedLocator(ticks if len(ticks) > 1 else sorted({low, high})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 1000 else f"{x:.3g}"))


def _style(ink: str = INK, faint: str = FAINT) -> AbstractContextManager[None]:
    import matplotlib as mpl

    return mpl.rc_context(
        {
            "svg.fonttype": "none",
            "font.size": 9,
            "axes.edgecolor": faint,
            "axes.labelcolor": ink,
            "axes.grid": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": faint,
            "grid.linewidth": 0.5,
            "xtick.color": ink,
            "ytick.color": ink,
            "text.color": ink,
            "legend.frameon": False,
            "legend.fontsize": 8,
            "legend.title_fontsize": 8,
        }
    )


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an `<svg>` element for a page: no prologue, no metadata, colours as variables."""
    import matplotlib as mpl

    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    buffer = io.StringIO()
    empty = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata=empty)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text)
    # Anchors are hashes salted by the figure's name; the bare names of groups would repeat across figures.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r"(font: [^'\"]*?)'[^\"]*?(;|\")", r"\1var(--sans)\2", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    head = f'<svg role="img" aria-label="{description}" '
    return head + re.sub(r' (width|height)="[\d.]+pt"', "", text.removeprefix("<svg "), count=2)
