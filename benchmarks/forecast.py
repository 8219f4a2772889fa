"""Fits the factors of forecasts to published and measured figures, and checks them on others.

    python benchmarks/forecast.py [--keep]

Published: results/published.csv, figures of boards with their sources. Those of three boards (Raspberry Pi 3
and 4, four Cortex-A53 at 2 GHz) are left out of every fit and forecast from the others. Measured: the rows of
this package's code in results/race.csv, the last of each network; every second network is fitted, the others
are forecast. What was forecast beside what it is goes to results/forecast.csv and docs/forecast.png; --keep
writes the factors into the package, where `mobilenets forecast` finds them. How far a forecast may be off is
found by leaving each device out of a fit in turn.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rows import keep

from mobilenets.costs.count import Cost, cost
from mobilenets.costs.device import device
from mobilenets.costs.forecast import Factors, forecast
from mobilenets.forecasting import Figure, fit, left_out, spread
from mobilenets.measured import OURS, Row, factors, read
from mobilenets.spec import zoo

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
FACTORS = ROOT / "src" / "mobilenets" / "costs" / "factors.json"
LEFT_OUT = ("raspberry-pi-3", "raspberry-pi-4", "a53-2ghz")
FREE: dict[str, float] = {"overhead": 3e4, "scaling": 0.95, "read": 1, "write": 1, "overlap": 0.1}
STARTS = (
    Factors(
        runtime="ncnn",
        product={"a53": {"float32": 2, "int8": 2.5}, "a72": {"float32": 3, "int8": 4}},
        depthwise={"a53": {"float32": 0.6, "int8": 0.8}, "a72": {"float32": 1.5, "int8": 1.5}},
        spread=0,
        rests_on="",
        **FREE,
    ),
    Factors(
        runtime="ncnn",
        product={"skylake": {"float32": 8}},
        depthwise={"skylake": {"float32": 3}},
        spread=0,
        rests_on="",
        **FREE,
    ),
    Factors(
        runtime="STM32Cube.AI 10",
        product={"m7": {"int8": 0.7}},
        depthwise={"m7": {"int8": 0.5}},
        spread=0,
        rests_on="",
        **FREE,
    ),
    Factors(
        runtime="ncnn",
        product={"a76": {"float32": 6, "float16": 12, "int8": 16}},
        depthwise={"a76": {"float32": 3, "float16": 6, "int8": 3}},
        spread=0,
        rests_on="",
        **FREE,
    ),
)


@cache
def counted(net: str, width: float, resolution: int, classes: int) -> Cost:
    return cost(zoo.net(net, width, resolution, classes))


def published(start: Factors) -> list[Figure]:
    """Figures of the runtime on the kinds of core that `start` has factors of."""
    with (RESULTS / "published.csv").open(encoding="utf-8", newline="") as file:
        return [
            Figure(
                device=device(row["device"]),
                counted=counted(row["net"], float(row["width"]), int(row["resolution"]), int(row["classes"])),
                dtype=row["dtype"],
                threads=int(row["threads"]),
                ms=float(row["ms"]),
                told=f"{row['net']} {float(row['width']):g} at {row['resolution']}",
            )
            for row in csv.DictReader(file)
            if row["runtime"] == start.runtime and device(row["device"]).kind in start.product
        ]


def kept_rows(figures: Sequence[Figure], factors: Factors, fitted: bool) -> list[dict[str, Any]]:
    made = []
    for figure in figures:
        found = forecast(figure.counted, figure.device, figure.dtype, figure.threads, factors)
        made.append(
            {
                "device": found.device,
                "runtime": found.runtime,
                "net": figure.told,
                "dtype": found.dtype,
                "threads": found.threads,
                "figure_ms": figure.ms,
                "forecast_ms": round(found.ms, 4),
                "low_ms": round(found.low, 4),
                "high_ms": round(found.high, 4),
                "error": round(found.ms / figure.ms - 1, 4),
                "within": found.low <= figure.ms <= found.high,
                "fitted": fitted,
                "date": time.strftime("%Y-%m-%d"),
                "command": "python benchmarks/forecast.py",
            }
        )
    return made


def halves(threads: int) -> tuple[list[Row], list[Row]]:
    """This package's code here, by the latest rows of the race: every second network, the others."""
    own = [row for row in read([RESULTS / "race.csv"]) if (row.engine, row.threads) == (OURS, threads)]
    nets = sorted({row.net for row in own})
    given = [row for row in own if nets.index(row.net) % 2 == 0]
    return given, [row for row in own if row not in given]


def drawn(rows: Sequence[dict[str, Any]], place: Path) -> None:
    """Forecasts with their intervals against figures; only of those that no fit has seen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 5.2), layout="constrained")
    new = [row for row in rows if not row["fitted"]]
    ends = [0.7 * min(row["figure_ms"] for row in new), 1.4 * max(row["figure_ms"] for row in new)]
    axes.fill_between(
        ends, [0.8 * end for end in ends], [1.2 * end for end in ends], color="0.92", label="± 20 %"
    )
    axes.plot(ends, ends, color="0.6", linewidth=1)
    for number, name in enumerate(dict.fromkeys(row["device"] for row in new)):
        own = [row for row in new if row["device"] == name]
        places, found = [row["figure_ms"] for row in own], [row["forecast_ms"] for row in own]
        reach = np.abs(np.array([[row["low_ms"], row["high_ms"]] for row in own]).T - found)
        style = {"fmt": "osD^"[number % 4], "markersize": 5, "linewidth": 1, "capsize": 2}
        axes.errorbar(places, found, yerr=reach, label=f"{name} ({own[0]['runtime']})", **style)
    axes.set(xscale="log", yscale="log", xlim=ends, xlabel="published or measured, ms", ylabel="forecast, ms")
    axes.set_title("What no fit has seen", loc="left")
    axes.legend(frameon=False, loc="upper left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(place, dpi=150)


def short(value: Any) -> Any:
    """Numbers to four digits, which is more than is known of them."""
    if isinstance(value, dict):
        return {key: short(one) for key, one in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def told(what: str, rows: Sequence[dict[str, Any]]) -> None:
    off = np.abs([row["error"] for row in rows])
    within = np.mean([row["within"] for row in rows])
    print(
        f"{what}: {len(rows)} figures, median error {np.median(off):.1%}, worst {off.max():.1%}, "
        f"{within:.0%} within the interval",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    rows, all_factors = [], []
    for start in STARTS:
        figures = published(start)
        given = [one for one in figures if one.device.name not in LEFT_OUT]
        boards = dict.fromkeys(one.device.name for one in given)
        off = left_out(given, start)
        found = replace(
            fit(given, start),
            spread=round(spread(off), 4),
            rests_on=f"{len(given)} published figures of {', '.join(boards)}",
        )
        all_factors.append(found)
        rows += (own := kept_rows(given, found, True))
        told(f"{start.runtime} on {', '.join(start.product)}, fitted", own)
        each = np.abs(np.expm1(np.concatenate(off)))
        print(
            f"    each device left out in turn: median error {np.median(each):.1%}, worst {each.max():.1%}",
            flush=True,
        )
        if others := [one for one in figures if one.device.name in LEFT_OUT]:
            rows += (own := kept_rows(others, found, False))
            told(f"{start.runtime} on {', '.join(start.product)}, left out", own)
    for threads in (1, 2):
        given, others = halves(threads)
        where, found = factors(given, "float32", threads)
        for fitted, part in ((True, given), (False, others)):
            figures = [Figure(where, row.counted, row.dtype, threads, row.ms, row.net) for row in part]
            rows += (own := kept_rows(figures, found, fitted))
            told(f"{where.name}, {threads} threads, {'fitted' if fitted else 'left out'}", own)
    for row in rows:
        keep(RESULTS / "forecast.csv", row)
    drawn(rows, ROOT / "docs" / "forecast.png")
    if args.keep:
        text = json.dumps([short(asdict(one)) for one in all_factors], indent=1)
        FACTORS.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
