"""The report of one retraining or training: one HTML file that holds all it shows and fetches nothing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer import score
from mobilenets.infer.sealed import write_whole
from mobilenets.report import confusion, figure, sweep
from mobilenets.report.markup import (
    bar,
    document,
    duration,
    facts,
    kilojoules,
    listing,
    megabytes,
    millions,
    number,
    percent,
    plural,
    table,
    thumbnail,
)
from mobilenets.train.run import Run

Pictures = Callable[[str], "NDArray[np.uint8] | None"]
"""From a file of the run to its pixels, uint8 [h, w, 3]; None where it can no longer be shown."""

MOST_MISTAKES = 24
MOST_PAIRS = 15
MOST_FILES = 2000
PICTURES_A_STEP = 25
PARTS = ("train", "val", "test")
LEARNED = {"retraining": "retrained", "training": "trained"}
WORDS = {
    "train": "training",
    "val": "validation",
    "test": "test",
    "scan": "reading the folder",
    "features": "features of every picture",
    "fit": "fitting the head",
    "finetune": "fine-tuning",
    "decode": "decoding every picture",
    "teacher": "asking the teacher",
    "judge": "scoring, writing and checking the model",
    "sweep": "sweep",
    "report": "this report",
}


def write_report(run: Run, path: Path, pictures: Pictures) -> None:
    """Write the report of `run` to `path`, whole or not at all.

    `pictures` gives the pixels of a file of `run.test`; only the worst mistakes are asked for.
    Raises OSError where the file cannot be written.
    """
    # Names from a file system may hold halves of characters that no encoding has.
    write_whole(path, report(run, pictures).encode("utf-8", "replace"))


def report(run: Run, pictures: Pictures) -> str:
    """The report as one HTML text."""
    found = [
        ("Data", _data(run)),
        ("Accuracy", _accuracy(run)),
        ("Worst mistakes", _mistakes(run, pictures)),
        ("Confusion", _confusion(run)),
        ("Classes", _classes(run)),
        ("Trust in its scores", _calibration(run)),
        ("Unknown", _unknown(run)),
        ("How it learned", _learning(run)),
        ("Sweep", sweep.section(run)),
        ("Cost", _cost(run)),
        ("Time", _time(run)),
        ("Repeat it", _repeat(run)),
    ]
    return document(_headline(run), _header(run), found)


def _said(run: Run) -> NDArray[np.int64]:
    return np.asarray(run.test.scores.argmax(axis=1), np.int64)


def _tested(run: Run) -> int:
    return len(run.test.truth)


def _headline(run: Run) -> str:
    share = run.accuracy.get("test")
    return f"{percent(share)} on {Path(run.folder).name or run.folder}"


def _header(run: Run) -> str:
    count, share = _tested(run), run.accuracy.get("test")
    if share is not None and run.interval is not None:
        low, high = run.interval
        told = (
            f"{round(share * count)} of {count} test pictures, none of which the model had seen, were named "
            f"right. 95 % interval: {percent(low)} to {percent(high)}."
        )
    else:
        told = "There was no test part, so nothing says how it does on pictures it has not seen."
    used = sum(sum(counts) for counts in run.counts.values())
    net = run.net
    drawn = "" if run.energy is None else f", {kilojoules(run.energy['joules'])}"
    known = [
        ("classes", str(len(run.labels))),
        ("pictures used", str(used)),
        ("files set aside", str(len(run.set_aside))),
        ("model file", megabytes(net.get("file_bytes", net["float32_bytes"]))),
        ("MACs a picture", millions(net["macs"])),
        (f"total time{drawn}", duration(run.seconds.get("total", math.nan))),
    ]
    notes = "".join(f"<p>{escape(note)}</p>" for note in run.notes)
    return (
        f"<header><h1>MobileNet {escape(str(net['name']))}, width {net['width']:g}, "
        f"{net['resolution']} pixels, {LEARNED[run.kind]} on {escape(run.folder)}</h1>"
        f'<div class="score">{percent(share)} <small>right</small></div><p>{told}</p>'
        f'<div class="facts">{facts(known)}</div>'
        + (f'<div class="notes">{notes}</div>' if notes else "")
        + "</header>"
    )


def _data(run: Run) -> str:
    parts = [part for part in PARTS if part in run.counts]
    rows = []
    for part in parts:
        counts = np.asarray(run.counts[part], np.int64)
        least, most = (int(counts.min()), int(counts.max())) if counts.size else (0, 0)
        rows.append([WORDS[part], str(int(counts.sum())), f"{least} … {most}"])
    text = table(["part", "pictures", "in a class"], rows)
    if run.duplicates:
        text += (
            f"<p>{run.duplicates} {plural(run.duplicates, 'group')} of near duplicates kept on one side of "
            "the split, so that no test picture has a twin among those learned from.</p>"
        )
    text += "<h3>Set aside</h3>"
    if not run.set_aside:
        return text + '<p class="soft">Nothing: every file that was found was used.</p>'
    kinds = defaultdict(list)
    for item in run.set_aside:
        kinds[item.kind].append(item)
    total = len(run.set_aside)
    text += f"<p>{total} {plural(total, 'file')} could not be used; each is named with the reason.</p>"
    for kind, items in sorted(kinds.items(), key=lambda entry: -len(entry[1])):
        lines = "".join(f"<li>{escape(item.file)}: {escape(item.reason)}</li>" for item in items[:MOST_FILES])
        rest = f"<li>… and {len(items) - MOST_FILES} more</li>" if len(items) > MOST_FILES else ""
        text += (
            f"<details><summary>{escape(kind)}: {len(items)} {plural(len(items), 'file')}</summary>"
            f'<div class="long"><ul>{lines}{rest}</ul></div></details>'
        )
    return text


def _accuracy(run: Run) -> str:
    scored = [part for part in PARTS if part in run.accuracy]
    if run.kind == "training":  # it sees other views of what it learns from than of what it is judged by
        scored.remove("train")
    rows = [[WORDS[part], percent(run.accuracy[part], 2)] for part in scored]
    if _tested(run) and len(run.labels) > 5:
        rows.append(["test, right among the first five", percent(run.top5, 2)])
    text = table(["part", "right"], rows)
    share = run.accuracy.get("test")
    if share is None or run.interval is None:
        return text
    low, high = run.interval
    # The scale starts at a round number below the interval, so that its width can be seen.
    start = max(0.0, math.floor(10 * low - 1) / 10)

    def at(value: float) -> str:
        return f"{100 * (value - start) / (1 - start):.2f}%" if start < 1 else "100%"

    return text + (
        f'<div class="interval"><i></i><i class="span" style="left:{at(low)};right:calc(100% - {at(high)})">'
        "</i>"
        f'<i class="at" style="left:{at(share)}"></i><span style="left:0">{percent(start, 0)}</span>'
        '<span style="right:0">100 %</span></div>'
        f"<p>Test accuracy {percent(share, 2)}, 95 % interval {percent(low, 2)} to {percent(high, 2)}: one "
        "pass over one view of each picture, by the model file itself.</p>"
    )


def _mistakes(run: Run, pictures: Pictures) -> str:
    if not _tested(run):
        return ""
    said = _said(run)
    wrong = np.flatnonzero(said != run.test.truth)
    if not len(wrong):
        return f"<p>None: all {_tested(run)} test pictures were named right.</p>"
    sure = run.test.scores.max(axis=1)
    order = wrong[np.argsort(-sure[wrong], kind="stable")][:MOST_MISTAKES]
    shots = []
    for index in order:
        file = run.test.files[index]
        frame = pictures(file)
        truth, answer = run.labels[run.test.truth[index]], run.labels[said[index]]
        shown = (
            "no longer there"
            if frame is None
            else f'<img src="{thumbnail(frame)}" alt="{escape(truth)}, taken for {escape(answer)}">'
        )
        own = float(run.test.scores[index, run.test.truth[index]])
        shots.append(
            f'<li><div class="shot">{shown}</div><p><b class="said">{escape(answer)}</b> '
            f'{percent(float(sure[index]), 0)}<br>is <b class="truth">{escape(truth)}</b> '
            f"{percent(own, 0)}<br><small>{escape(file)}</small></p></li>"
        )
    told = f"{len(wrong)} of {_tested(run)} test pictures were named wrong"
    which = "these are they" if len(order) == len(wrong) else f"these are the {len(order)} it was surest of"
    return (
        f"<p>{told}; {which}. First what the model said, then what the folder says it is: "
        f'some may be mistakes of the folder.</p><ul class="pictures">{"".join(shots)}</ul>'
    )


def _confusion(run: Run) -> str:
    if not _tested(run):
        return ""
    counts = score.confusion(run.test.scores, run.test.truth)
    pairs = confusion.worst_pairs(counts, MOST_PAIRS)
    text = confusion.drawn(counts, run.labels)
    if pairs:
        rows = [
            [escape(run.labels[p.truth]), escape(run.labels[p.said]), str(p.pictures), str(p.of)]
            for p in pairs
        ]
        text += "<h3>Most often confused</h3>" + table(["it is", "it was called", "pictures", "of"], rows, 2)
    return text


def _classes(run: Run) -> str:
    truth, said = run.test.truth, _said(run) if _tested(run) else run.test.truth
    rows = []
    for index, label in enumerate(run.labels):
        own = truth == index
        tested, right = int(own.sum()), int((said[own] == index).sum())
        called = int((said == index).sum())
        rows.append((right / tested if tested else math.inf, index, label, tested, right, called))
    lines = []
    for share, index, label, tested, right, called in sorted(rows):
        learned = run.counts["train"][index] if "train" in run.counts else 0
        lines.append(
            [
                escape(label),
                bar(share) if tested else "",
                percent(share) if tested else "–",
                f"{right} of {tested}",
                percent(right / called) if called else "–",
                str(learned),
            ]
        )
    head = ["class", "", "found", "", "right when said", "learned from"]
    told = (
        "<p>Worst first. <i>Found</i>: the share of a class's test pictures that were named right (recall). "
        "<i>Right when said</i>: the share of right ones among those given its name (precision).</p>"
    )
    if len(lines) <= 24:
        return told + table(head, lines)
    rest = (
        f"<details><summary>The other {len(lines) - 15} classes</summary>{table(head, lines[15:])}</details>"
    )
    return told + table(head, lines[:15]) + rest


def _calibration(run: Run) -> str:
    if not _tested(run):
        return ""
    # Scores are softmax(z / T): raised to the power T and made to sum to one they are those before.
    logs = np.log(np.maximum(run.test.scores.astype(np.float64), 1e-300)) * run.temperature
    raw = np.exp(logs - logs.max(axis=1, keepdims=True))
    raw /= raw.sum(axis=1, keepdims=True)
    # A step of few pictures would draw chance; the error itself keeps its usual steps.
    steps = min(max(_tested(run) // PICTURES_A_STEP, 4), score.BINS)
    before = score.reliability(np.asarray(raw, np.float32), run.test.truth, steps)
    after = score.reliability(run.test.scores, run.test.truth, steps)
    rows = [[when, percent(run.calibration_error.get(when), 2)] for when in ("before", "after")]
    return (
        "<p>A score of 80 % should come true four times in five. The model's logits are divided by one "
        f"number, its temperature {run.temperature:.3f}, chosen on the validation part; what is still off, "
        "on average over the test pictures, is the calibration error.</p>"
        f'<div class="charts"><div>{figure.calibration(before, after)}</div>'
        f"<div>{table(['temperature', 'calibration error'], rows)}</div></div>"
    )


def _unknown(run: Run) -> str:
    if run.unknown is None:
        return ""
    rows = [(name.replace("_", " "), value) for name, value in run.unknown.items()]
    told = [
        (name, f"{value:.3f}" if name == "threshold" and value is not None else percent(value))
        for name, value in rows
    ]
    return (
        "<p>Where no logit reaches the threshold the model says <i>unknown</i>, not a label. Strangers "
        "are pictures of classes that were left out of training; a tuned body has seen them all.</p>"
        f"{listing(told)}"
    )


def _share(run: Run) -> str:
    if not run.epochs:
        return ""
    kept = {0.0: "the one that learned with the body", 1.0: "this one"}
    mixed = f"the mean of this one ({percent(run.refitted, 0)}) and the one that learned with the body"
    return f" Of the heads after fine-tuning the model has {kept.get(run.refitted, mixed)}."


def _learning(run: Run) -> str:
    charts = []
    if run.choices:
        rows = [[f"{c:g}", percent(a, 2), f"{loss:.4f}"] for c, a, loss in sorted(run.choices)]
        chosen = [i for i, choice in enumerate(sorted(run.choices)) if choice[0] == run.chosen_c]
        charts.append(
            f"<div><h3>The head</h3><p>Multinomial logistic regression; of {len(run.choices)} strengths "
            f"tried on the validation part, C = {run.chosen_c:g} was chosen.{_share(run)}</p>"
            f"{figure.regularisation(run.choices, run.chosen_c)}"
            f"<details><summary>All of them</summary>{table(['C', 'accuracy', 'loss'], rows, 0, chosen)}"
            "</details></div>"
        )
    if run.epochs:
        rows = [
            [str(e.epoch), f"{e.loss:.4f}", percent(e.val_accuracy, 2), duration(e.seconds)]
            for e in run.epochs
        ]
        head = ["epoch", "training loss", "validation", "time"]
        chart = figure.learning(
            [e.epoch for e in run.epochs],
            [e.loss for e in run.epochs],
            [number(e.val_accuracy) for e in run.epochs],
        )
        told = {
            "retraining": ("Fine-tuning", "Body and head together"),
            "training": ("Training", _taught(run)),
        }
        title, how = told[run.kind]
        charts.append(
            f"<div><h3>{title}</h3><p>{how}, {len(run.epochs)} "
            f"{plural(len(run.epochs), 'epoch')}.</p>{chart}"
            f"<details><summary>Every epoch</summary>{table(head, rows, 0)}</details></div>"
        )
    return f'<div class="charts">{"".join(charts)}</div>' if charts else ""


def _taught(run: Run) -> str:
    options = run.options
    began = "random weights" if options.get("weights") == "random" else f"weights {options.get('weights')}"
    who = f", taught by {options['teacher']} ({options['distil']})" if options.get("teacher") else ""
    return escape(f"All weights, by the recipe {options.get('recipe')}, from {began}{who}")


def _cost(run: Run) -> str:
    net = run.net
    rows = [
        (
            "network",
            f"{net['name']}, width {net['width']:g}, {net['resolution']} × {net['resolution']} pixels",
        ),
        ("multiply-accumulates", f"{net['macs']:,} a picture".replace(",", " ")),
        ("parameters", f"{net['params']:,}".replace(",", " ")),
        ("size, float32", megabytes(net["float32_bytes"])),
        ("size, int8 (computed)", megabytes(net["int8_bytes"])),
        ("peak activations, float32", megabytes(net["activation_bytes"])),
    ]
    if "latency_ms" in net:
        rows.append(
            ("time, one picture", f"{net['latency_ms']:.1f} ms by {net['latency_engine']}, measured here")
        )
    return "<p>Counts are exact, from the network's table.</p>" + listing(rows)


def _time(run: Run) -> str:
    stages = [(name, seconds) for name, seconds in run.seconds.items() if name != "total" and seconds > 0]
    total = run.seconds.get("total", sum(seconds for _, seconds in stages))
    rest = total - sum(seconds for _, seconds in stages)
    if stages and rest > 0.01 * total:
        stages.append(("everything else", rest))
    longest = max([seconds for _, seconds in stages] or [1.0]) or 1.0
    rows = [
        [escape(WORDS.get(name, name)), bar(seconds / longest, "time"), duration(seconds)]
        for name, seconds in stages
    ]
    rows.append(["<b>total, up to this page</b>", "", f"<b>{duration(total)}</b>"])
    of = (
        "worker processes included" if "linux" in run.machine.get("system", "").lower() else "without workers"
    )
    peak = "" if run.peak_rss_mb is None else f"<p>Peak memory {run.peak_rss_mb:.0f} MB, {of}.</p>"
    ran = f"<p>Features by {escape(run.engine)}.</p>" if run.engine else ""
    if run.kind == "training":
        ran = (
            f"<p>Learned by {escape(run.engine)}: {run.throughput['images_per_second']:g} pictures a second, "
            f"{percent(run.throughput['waiting'])} of the time waiting for them.</p>"
        )
    energy = "" if run.energy is None else f"<p>{_energy(run.energy)}</p>"
    return table(["stage", "", "time"], rows) + ran + peak + energy


def _energy(known: Mapping[str, Any]) -> str:
    return (
        f"Energy, up to this page: {kilojoules(known['joules'])}, {known['watts']:g} W "
        f"({escape(known['watts_from'])}) times the total."
    )


def _repeat(run: Run) -> str:
    def listed(title: str, values: Mapping[str, Any]) -> str:
        return f"<div><h3>{title}</h3>{listing(values.items())}</div>" if values else ""

    options = {name: "not given" if value is None else value for name, value in run.options.items()}
    known = [("fine-tuning", run.identity)] if run.identity else []
    return (
        f"<pre>{escape(run.command)}</pre>"
        f"{listing([('model', run.model), ('digest', run.digest), *known])}"
        f'<div class="two">{listed("Options", options)}{listed("Weights it began with", run.source)}'
        f"{listed('Machine', run.machine)}{listed('Versions', run.versions)}</div>"
    )
