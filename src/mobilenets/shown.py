"""Results in words: what the commands say where no JSON was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mobilenets.compile.target import TARGETS
from mobilenets.console import percent, say, size, table


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


def show_race(found: dict[str, Any]) -> None:
    """A race in tables: every engine's row, the best of the others against ours, who could not take part."""
    model = found["model"]
    for dtype, threads in dict.fromkeys((row["dtype"], row["threads"]) for row in found["rows"]):
        group = [row for row in found["rows"] if (row["dtype"], row["threads"]) == (dtype, threads)]
        table(
            (
                *("engine", "call", "ms", "p10", "p90", "n", "of peak"),
                *("cold start, s", "memory, MB", "file", "installed"),
            ),
            [
                (
                    row["engine"],
                    row["call"],
                    *(f"{row[key]:.3f}" for key in ("latency_ms", "p10_ms", "p90_ms")),
                    row["n"],
                    percent(row["peak_share"]),
                    "–" if row["cold_start_s"] is None else f"{row['cold_start_s']:.3f}",
                    "–" if row["peak_rss_mb"] is None else f"{row['peak_rss_mb']:.0f}",
                    size(row["artefact_bytes"]),
                    size(row["install_bytes"]),
                )
                for row in sorted(group, key=lambda row: row["latency_ms"])
            ],
            left=2,
            title=f"{model['name']}, {dtype}, {threads} thread{'' if threads == 1 else 's'}",
        )
    for best in found["best"]:
        say(
            f"{best['dtype']}, threads {best['threads']}: the fastest of the others, {best['engine']}, takes "
            f"{best['times']:.2f} times as long as ours ({best['low']:.2f} to {best['high']:.2f})"
        )
    for row in found["skipped"]:
        said = f" with threads {row['threads']}" if "threads" in row else ""
        say(f"not raced: {row['engine']} {row['dtype']}{said}: {row['reason']}")


def show_compiled(made: dict[str, Any], out: Path) -> None:
    """What `compile` wrote, how it was verified, and what to do with it."""
    parts = f"{size(made['code_bytes'])} of code, {size(made['weight_bytes'])} of weights"
    say(f"{out / (made['library'] or made['name'] + '.c')}: {parts}")
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
    say(f"try it  {use.format(folder=out, name=made['name'], library=library)}")
