"""Results in words: what the commands say where no JSON was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenets.compile.target import TARGETS
from mobilenets.console import percent, say, size, table
from mobilenets.costs.count import Cost
from mobilenets.costs.forecast import Forecast

if TYPE_CHECKING:
    from mobilenets.choosing import Choice

NOTHING = "–"
FEW = 32
"""Pictures to calibrate on below which a user is told."""


def show_run(run: Any, out: Path) -> None:
    """A retraining in short."""
    counts = {part: sum(numbers) for part, numbers in run.counts.items()}
    table(
        ("part", "pictures", "accuracy"),
        [(part, counts[part], percent(share)) for part, share in run.accuracy.items()],
        title=f"{run.net['name']} {run.net['width']:g} at {run.net['resolution']}, {len(run.labels)} classes",
    )
    if run.interval is not None:
        low, high = run.interval
        five = f"; top-5 {percent(run.top5)}" if len(run.labels) > 5 else ""
        say(f"test accuracy lies between {percent(low)} and {percent(high)} with 95 %{five}")
    if run.sweep:
        rows = [
            (
                f"{v.width:g}",
                v.resolution,
                f"{v.macs / 1e6:.0f} M",
                f"{v.params / 1e6:.2f} M",
                size(v.size_bytes),
                f"{v.latency_ms:.1f} ms",
                percent(v.val_accuracy),
                percent(v.test_accuracy),
                "by val" if v.model == run.model else "",
            )
            for v in run.sweep
        ]
        table(
            ("width", "resolution", "MACs", "params", "file", "numpy, one thread", "val", "test", "chosen"),
            rows,
            left=0,
        )
    if run.unknown is not None and run.unknown["threshold"] is not None:
        away = run.unknown["strangers_turned_away"]
        say(
            f"a greatest logit below {run.unknown['threshold']:.2f} means unknown: "
            f"{percent(run.unknown['known_kept'])} of test pictures are answered, "
            + ("strangers not measured" if away is None else f"{percent(away)} of strangers turned away")
        )
    if run.energy is not None:
        say(f"energy {run.energy['joules']:.0f} J: {run.energy['watts']:g} W ({run.energy['watts_from']})")
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in run.seconds.items())
    say(stages + ("" if run.peak_rss_mb is None else f"; peak memory {run.peak_rss_mb:.0f} MB"))
    for aside in run.set_aside[:5]:
        say(f"set aside: {aside.file}: {aside.reason}")
    if len(run.set_aside) > 5:
        say(f"… and {len(run.set_aside) - 5} more set aside (report.html lists all)")
    for note in run.notes:
        say(f"note: {note}")
    say(f"model   {out / 'model.safetensors'} ({size(run.net['file_bytes'])})")
    say(f"report  {out / 'report.html'}")


def mistaken(found: Any, label: str) -> tuple[int, str]:
    """How many pictures of a class were judged, and what else they were mostly taken for."""
    row = found.confusion[list(found.labels).index(label)].copy()
    n = int(row.sum())
    row[list(found.labels).index(label)] = 0
    return n, found.labels[int(row.argmax())] if row.any() else ""


def show_cost(counted: Cost, net: str, by_layer: bool) -> None:
    """What a network costs."""
    if by_layer:
        rows = [
            (
                r.name,
                r.kind,
                "×".join(map(str, r.output)),
                f"{r.macs:,}",
                f"{r.params:,}",
                size(r.bytes_read),
                size(r.bytes_written),
            )
            for r in counted.rows
        ]
        table(("layer", "kind", "output", "MACs", "params", "read", "written"), rows, left=3)
    rows_of = [
        (
            kind,
            f"{s.macs:,}",
            percent(s.macs / counted.macs, 2),
            f"{s.params:,}",
            percent(s.params / counted.params, 2),
        )
        for kind, s in counted.by_kind.items()
    ]
    side, made = counted.rows[0].input[0], counted.rows[-1].output[-1]
    table(("kind", "MACs", "", "params", ""), rows_of, title=f"{net} at {side}, {made} classes")
    say(f"{counted.macs:,} MACs, {counted.params:,} parameters")
    say(f"weights {size(counted.float32_bytes)} in float32, {size(counted.int8_bytes)} in int8")
    say(f"activations {size(counted.activation_bytes)} at their peak, float32")


def show_targets(rows: list[dict[str, str]]) -> None:
    """What code is built for."""
    cells = [(one["name"], one["says"], one["verified"]) for one in rows]
    table(("target", "what it is", "its code is verified"), cells, left=3)


def show_devices(rows: list[dict[str, Any]]) -> None:
    """Devices and what is known of them."""
    table(
        ("device", "what it is", "memory", "power", "target", "forecast by figures of"),
        [
            (
                r["name"],
                r["says"],
                _memory(r),
                "" if r["busy_w"] is None else f"{r['busy_w']:g} W",
                r["target"],
                r["runtime"] or "nobody yet",
            )
            for r in rows
        ],
        left=2,
    )
    say("the source of each figure: mobilenets devices --json")


def _memory(row: dict[str, Any]) -> str:
    if row["ram_kb"] is not None:
        return f"{row['ram_kb']} KB, {row['flash_kb']} KB flash"
    return "" if row["copy_gb_s"] is None else f"{row['copy_gb_s']:g} GB/s copied"


def show_forecast(found: Forecast, net: str, device: str, by_layer: bool) -> None:
    """A forecast, and that it is one."""
    if by_layer:
        rows = [(r.name, r.kind, f"{r.ms:.3f}", r.bound) for r in found.layers]
        table(("layer", "kind", "ms", "mostly"), rows, left=2)
    say(f"{net}, {found.dtype}, on {device}, {found.threads} thread{'s' * (found.threads > 1)}:")
    say(f"about {found.ms:.3g} ms, {found.low:.3g} to {found.high:.3g}, by {found.runtime}")
    if found.energy_mj is not None:
        say(f"about {found.energy_mj:.3g} mJ")
    say(f"an estimate from {found.rests_on}")
    for note in found.notes:
        say(note)


LIMITS = {
    "latency_ms": ("a picture", "ms"),
    "size_kb": ("weights", "KB"),
    "ram_kb": ("maps", "KB"),
    "energy_mj": ("energy", "mJ"),
}


def show_choice(found: Choice) -> None:
    """Which variants fit, or what comes closest and which limits it breaks."""
    budget = found.budget
    if found.closest is not None:
        limits = ", ".join(_limit(name, limit) for name, limit in budget.limits.items())
        say(f"nothing fits {limits} on {found.device.says}; this comes closest:")
    rows = [
        (
            f"{one.variant[0]} {one.variant[1]:g} at {one.variant[2]}",
            f"{one.dtype}{', not built yet' if one.refused else ''}",
            "measured" if one.measured else "forecast",
            percent(one.accuracy),
            f"{one.latency_ms:.3g} ms",
            "" if one.low_ms is None else f"{one.low_ms:.3g} to {one.high_ms:.3g}",
            f"{one.size_kb:,.0f} KB",
            f"{one.ram_kb:,.0f} KB",
            "" if one.energy_mj is None else f"{one.energy_mj:.3g} mJ",
        )
        for one in (found.fitting or [one for one in (found.closest,) if one is not None])
    ]
    table(
        ("network", "type", "latency is", "accuracy", "a picture", "interval", "weights", "maps", "energy"),
        rows,
        left=3,
        title=found.device.says,
    )
    if found.closest is not None:
        for name, share in found.closest.shares(budget).items():
            if share > 1:
                taken, limit = share * budget.limits[name], budget.limits[name]
                say(f"{_limit(name, taken)}, {percent(share - 1, 0)} over {limit:g}")
    say(f"accuracy: {found.scores}; in int8 taken for that of float32")
    for note in found.notes:
        say(note)


def _limit(name: str, limit: float) -> str:
    what, unit = LIMITS[name]
    return f"{what} {limit:.4g} {unit}"


def show_race(found: dict[str, Any]) -> None:
    """A race in tables: every engine's row, the best of the others against ours, who could not take part."""
    model = found["model"]
    if found["host"]:
        held = ", ".join(f"{dtype} {one['held']}" for dtype, one in found["verified"].items())
        say(f"on {found['host']}, {found['machine']}; answers are the reference's: {held}")
    for dtype, threads in dict.fromkeys((row["dtype"], row["threads"]) for row in found["rows"]):
        group = [row for row in found["rows"] if (row["dtype"], row["threads"]) == (dtype, threads)]
        told = [_told(row) for row in sorted(group, key=lambda row: row["latency_ms"])]
        shown = [name for name in told[0] if any(row[name] != NOTHING for row in told)]
        table(
            shown,
            [[row[name] for name in shown] for row in told],
            left=2,
            title=f"{model['name']}, {dtype}, {threads} thread{'' if threads == 1 else 's'}",
        )
    for source, watts in {row["watts_from"]: row["watts"] for row in found["rows"] if row["watts"]}.items():
        measured = "" if source.startswith("counter") else f" {watts:g} W,"
        say(f"energy: milliseconds times{measured} {source}")
    if found["unpowered"]:
        say(f"no energy: {found['unpowered']}")
    for best in found["best"]:
        say(
            f"{best['dtype']}, threads {best['threads']}: the fastest of the others, {best['engine']}, takes "
            f"{best['times']:.2f} times as long as ours ({best['low']:.2f} to {best['high']:.2f})"
        )
    for row in found["skipped"]:
        said = f" with threads {row['threads']}" if "threads" in row else ""
        say(f"not raced: {row['engine']} {row['dtype']}{said}: {row['reason']}")


def _told(row: dict[str, Any]) -> dict[str, str]:
    """What a table shows of a row of a race, by column."""
    return {
        "engine": row["engine"],
        "call": row["call"],
        "ms": f"{row['latency_ms']:.3f}",
        "p10": f"{row['p10_ms']:.3f}",
        "p90": f"{row['p90_ms']:.3f}",
        "n": str(row["n"]),
        "energy, mJ": NOTHING if row["energy_mj"] is None else f"{row['energy_mj']:.3g}",
        "of peak": percent(row["peak_share"]),
        "cold start, s": NOTHING if row["cold_start_s"] is None else f"{row['cold_start_s']:.3f}",
        "memory, MB": NOTHING if row["peak_rss_mb"] is None else f"{row['peak_rss_mb']:.0f}",
        "file": size(row["artefact_bytes"]),
        "installed": size(row["install_bytes"]),
    }


def show_compiled(made: dict[str, Any], out: Path) -> None:
    """What `compile` wrote, how it was verified, and what to do with it."""
    parts = f"{size(made['code_bytes'])} of code, {size(made['weight_bytes'])} of weights"
    say(f"{out / (made['library'] or made['name'] + '.c')}: {parts}")
    if calibrated := made.get("calibration"):
        say(
            f"calibrated in {calibrated['seconds']:.1f} s on {calibrated['pictures']} pictures, "
            f"the float network by {calibrated['float_ran_by']}"
        )
        if aside := calibrated["set_aside"]:
            say(f"{len(aside)} set aside, which cannot be read: {aside[0]}{' and others' * (len(aside) > 1)}")
        if calibrated["pictures"] < FEW:
            say(f"so few pictures show little of what maps can hold: {FEW} or more, of all kinds, do better")
    say(f"built in {made['compile_s']:.1f} s by {made['compiler']}")
    if made["verified_on"]:
        worst = max(one["relative"] for one in made["largest_error"].values())
        by = ", ".join(made["ran_by"])
        said = (
            f"largest error {worst:.1e} of the largest output"
            if worst
            else "equal to the reference bit for bit"
        )
        say(f"{said}, on {made['verified_on']}, by {by}")
    else:
        say(f"built but not verified, it never ran: {made['unverified']}")
    if made["checked"]:
        say(f"by its own bytes: {made['checked']['form']}, with {made['checked']['names']} names")
    if "part" in made:
        part = made["part"]
        for what in ("flash", "ram"):
            here, there = size(made[f"{what}_bytes"]), size(part[f"{what}_bytes"])
            say(f"{what:5} {here} of {there} that the {part['name']} has")
    use, library = TARGETS[made["target"]].use, out / str(made["library"])
    told = use.format(folder=out, name=made["name"], library=library)
    say(f"try it  {told}{' --features' * ('predict' in told and not made['labels'])}")


def show_exported(made: dict[str, Any]) -> None:
    """What `export` wrote and how its runtime's answers compare with the reference's."""
    read = f", read from {made['dequantised_from']}" if made["dequantised_from"] else ""
    say(f"{made['file']}: {size(made['bytes'])}, float32{read}, by {made['exporter']}")
    say(f"input {made['layout']}; gives {', '.join(made['outputs'])}; how to feed it is in its metadata")
    if made["unverified"]:
        say(made["unverified"])
        return
    worst = max(one["relative"] for one in made["largest_error"].values())
    by = made["verified_by"]
    say(f"largest error {worst:.1e} of the largest output, on {made['verified_on']}, by {by}")
