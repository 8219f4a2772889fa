"""What a person reads of one race: a page with charts and tables, and a picture of the charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mobilenets.report import figure
from mobilenets.report.markup import GAP, document, facts, listing, megabytes, millions, percent, table

UNSTEADY = 2.0
"""Quotients of the same two engines that lie further apart, from turn to turn, compare nothing."""
Rows = Sequence[Mapping[str, Any]]


def groups(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """Rows that were raced against one another, fastest first: of one type, with one number of threads."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: float(row["latency_ms"])):
        found.setdefault(_group(row), []).append(row)
    return dict(sorted(found.items()))


def picture(found: Mapping[str, Any]) -> bytes:
    """The charts of a race as a PNG."""
    return figure.latencies_png(groups(found["rows"]), f"{found['model']['name']}, {found['machine']}")


def page(found: Mapping[str, Any]) -> str:
    """The page of a race, as HTML."""
    return document(
        f"{found['model']['name']}: race",
        _header(found),
        [
            ("Speed", _speed(found)),
            ("Start and size", _size(found)),
            ("Not raced", _skipped(found)),
            ("How it was measured", _method(found)),
            ("Repeat it", _repeat(found)),
        ],
    )


def _group(row: Mapping[str, Any]) -> str:
    return f"{row['dtype']}, {row['threads']} thread{'' if row['threads'] == 1 else 's'}"


def _header(found: Mapping[str, Any]) -> str:
    model = found["model"]
    told = f"<p>On {escape(found['host'])}: {escape(found['machine'])}.</p>" if found["host"] else ""
    told += "".join(
        f"<p>{_group(best)}: the fastest of the others, {escape(best['engine'])}, takes {best['times']:.2f} "
        f"times as long ({best['low']:.2f} to {best['high']:.2f} from turn to turn"
        f"{'' if _steady(best) else ': the machine was too busy for a comparison'}).</p>"
        for best in found["best"]
    )
    away = dict.fromkeys(row["engine"] for row in found["skipped"])
    told += f"<p>Not in the race, see below: {escape(', '.join(away))}.</p>" if away else ""
    first = next((best for best in found["best"] if _steady(best)), None)
    score = (
        f'<div class="score">{first["times"]:.2f} <small>× as fast as {escape(first["engine"])}, '
        f"{_group(first)}</small></div>"
        if first
        else ""
    )
    known = [
        ("engines and settings", str(len(found["rows"]))),
        ("MACs a picture", millions(model["macs"])),
        *((f"GOP/s, {_group(peak)}", f"{peak['gops']:.0f}") for peak in found["peaks"]),
    ]
    return (
        f"<header><h1>MobileNet {escape(model['name'])}, weights: {escape(model['weights'])}</h1>"
        f"{score}{told}"
        f'<div class="facts">{facts(known)}</div></header>'
    )


def _steady(best: Mapping[str, Any]) -> bool:
    """Whether turns agree well enough on how two engines compare."""
    return bool(best["high"] <= UNSTEADY * best["low"])


def _speed(found: Mapping[str, Any]) -> str:
    text = ""
    for name, rows in groups(found["rows"]).items():
        best = [index for index, row in enumerate(rows) if row["engine"] == "ours"]
        drawn = any(row["energy_mj"] is not None for row in rows)
        cells = [
            [
                escape(row["engine"]),
                "C" if row["call"] == "c" else "Python",
                *(f"{row[key]:.3f}" for key in ("latency_ms", "p10_ms", "p90_ms")),
                str(row["n"]),
                *([_energy(row)] if drawn else []),
                percent(row["peak_share"]),
                _error(row),
            ]
            for row in rows
        ]
        head = ["engine", "called from", "ms", "p10", "p90", "n", *(["energy"] if drawn else [])]
        head += ["of the peak", "off the reference"]
        text += f'<h3>{name}</h3><div class="charts"><div>{figure.latencies(rows, name)}</div></div>'
        text += table(head, cells, 2, best)
    return text


def _energy(row: Mapping[str, Any]) -> str:
    return "–" if row["energy_mj"] is None else f"{row['energy_mj']:.3g}{GAP}mJ"


def _error(row: Mapping[str, Any]) -> str:
    if row["difference"] is None:
        return "–"
    return (
        f"{row['difference']:.0e}" if row["dtype"] == "float32" else f"correlation {row['correlation']:.4f}"
    )


def _size(found: Mapping[str, Any]) -> str:
    rows = {}
    for row in found["rows"]:
        if row["threads"] == min(one["threads"] for one in found["rows"]):
            rows[row["engine"], row["dtype"], row["call"]] = row
    cells = [
        [
            escape(row["engine"]),
            row["dtype"],
            "C" if row["call"] == "c" else "Python",
            "–" if row["cold_start_s"] is None else f"{row['cold_start_s']:.3f}{GAP}s",
            "–" if row["peak_rss_mb"] is None else f"{row['peak_rss_mb']:.0f}{GAP}MB",
            megabytes(row["artefact_bytes"]),
            megabytes(row["install_bytes"]) if row["install_bytes"] else "nothing",
            escape(row["version"]),
        ]
        for row in rows.values()
    ]
    head = ["engine", "type", "called from", "cold start", "most memory", "model", "installed", "version"]
    bare = found["interpreter"]
    told = (
        ""
        if bare is None
        else f"<p>Python with numpy alone: {bare['cold_start_s']:.3f} s, {bare['peak_rss_mb']:.0f} MB.</p>"
    )
    return table(head, cells, 3) + told


def _skipped(found: Mapping[str, Any]) -> str:
    rows = [
        [escape(row["engine"]), row["dtype"], str(row.get("threads", "")), escape(row["reason"])]
        for row in found["skipped"]
    ]
    return table(["engine", "type", "threads", "why"], rows, 4) if rows else ""


def _method(found: Mapping[str, Any]) -> str:
    return f"<p>{_there(found) if found['host'] else HERE.format(**found)} {_drawn(found)}</p>"


HERE = (
    "Each engine runs in a process of its own, kept alive and stopped while others run. They take "
    "turns in random order: {rounds} turns of about {turn_ms} ms, some calls before "
    "each that are not counted. A call runs a picture that is prepared and lies in memory as the engine "
    "likes it best, and fetches the answer. Milliseconds are the median over all calls, each turn "
    "counting the same. Every engine's first answer was compared with the numpy walk's. The peak is that "
    "of multiply-adds in registers, measured in turns with the engines; the share is two operations a "
    "multiply-accumulate; none is given where an engine was faster than the peak that was found, on a "
    "machine that was busy. Cold start "
    "is from the start of a process to its first answer, files in the system's cache."
)


def _there(found: Mapping[str, Any]) -> str:
    held = "; ".join(
        f"{dtype} {one['held']}, by {escape(', '.join(one['isas']))}"
        for dtype, one in found["verified"].items()
    )
    return (
        f"A static program for {escape(found['target'])} was copied to {escape(found['host'])} over ssh, and "
        f"removed afterwards. Its answers there were compared with the numpy walk's ({held}). "
        "Programs of each "
        f"type and number of threads took turns in random order: {found['rounds']} turns of about "
        f"{found['turn_ms']} ms by the board's own clock, some calls before each that are not counted. "
        "A call runs a picture that is prepared and lies in memory. Milliseconds are the median over all "
        "calls, each turn counting the same. Memory is the largest resident set up to the first answer."
    )


def _drawn(found: Mapping[str, Any]) -> str:
    """How watts were known, where they were."""
    known = {row["watts_from"]: row["watts"] for row in found["rows"] if row["watts"] is not None}
    told = [
        f"Energy is milliseconds times {'mean watts' if name.startswith('counter') else f'{watts:g} W'} "
        f"({escape(name)}){COUNTED if name.startswith('counter') else ''}."
        for name, watts in known.items()
    ]
    return " ".join(told)


COUNTED = ", over an engine's turns: the whole processor, and whatever else ran on it meanwhile"


def _repeat(found: Mapping[str, Any]) -> str:
    known = [("machine", found["machine"]), ("date", found["date"]), ("digest", found["model"]["digest"])]
    known += [("device", found["device"])] if found["device"] else []
    return f"<pre>{escape(found['command'])}</pre>{listing([*known, *found['versions'].items()])}"
