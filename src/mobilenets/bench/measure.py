"""One race from the options to its rows: who takes part, who can't and why, what came out."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np

from mobilenets import energy
from mobilenets.bench import engines as table
from mobilenets.bench import making, native, options
from mobilenets.bench.agreement import Agreement, agreement
from mobilenets.bench.options import BenchOptions, Dtype
from mobilenets.bench.race import Times, raced
from mobilenets.bench.starting import Start, started
from mobilenets.bench.subject import Subject
from mobilenets.bench.team import Job, Worker, WorkerError, close_all
from mobilenets.data.digests import Progress
from mobilenets.energy import Counter, Power
from mobilenets.train.meter import machine_line, versions


@dataclass(slots=True)
class Found:
    """What is known so far: reasons of those left out, answers compared, times and starts of the others."""

    skipped: list[dict[str, Any]] = field(default_factory=list)
    agreements: dict[Job, Agreement] = field(default_factory=dict)
    times: dict[Job, Times] = field(default_factory=dict)
    starts: dict[Job, Start] = field(default_factory=dict)
    peaks: dict[tuple[Dtype, int], float] = field(default_factory=dict)
    """Operations a second of the machine, by type and threads."""
    counter: Counter | None = None
    power: Power = Power()
    """Of a machine without one."""

    def skip(self, name: str, dtype: str, reason: str, threads: int | None = None) -> None:
        row: dict[str, Any] = {"engine": name, "dtype": dtype}
        if threads is not None:
            row["threads"] = threads
        self.skipped.append(row | {"reason": reason})


def measured(
    subject: Subject, asked: BenchOptions, power: Power, progress: Progress, command: str
) -> dict[str, Any]:
    """Race `subject` as asked: rows, the best of the others against ours, those skipped with the reason.

    `power` is what is known of the machine's where it has no counter of energy. Raises ValueError for options
    that can't be, RuntimeError where nothing is left to race.
    """
    families, threads, dtypes = options.families(asked), options.threads(asked), options.dtypes(asked)
    found, order = Found(), random.Random(asked.seed)
    jobs = _jobs(subject, families, threads, dtypes, asked.native, found, progress)
    found.counter, uncounted = energy.counter()
    found.power = power if power.watts is not None else Power(None, uncounted or power.source)
    # Where the memory of a process happens to lie decides some percent of its speed: each gets several.
    heats = min(asked.heats, asked.rounds)
    for heat in range(heats):
        rounds = (asked.rounds + heat) // heats
        jobs = _heat(jobs, subject, replace(asked, rounds=rounds), order, found, progress)
    found.peaks = _believed(found, subject.macs)
    first = Job(table.NOTHING, subject.folder, subject.folder, 1)
    if asked.starts:
        cold = [first, *found.times]
        found.starts = started(
            cold, asked.starts, order, lambda job, reason: _aside(found, job, reason), progress
        )
    return _told(subject, asked, found, found.starts.get(first), command)


def _heat(
    jobs: list[Job],
    subject: Subject,
    asked: BenchOptions,
    order: random.Random,
    found: Found,
    progress: Progress,
) -> list[Job]:
    """The turns of freshly started processes, added to the times there are; the jobs that are still there."""
    workers: list[Worker] = []
    try:
        workers = _opened(jobs, subject, found, progress)
        if not any(worker.job.engine.module != "peak" for worker in workers):
            reasons = dict.fromkeys(
                f"{row['engine']} ({row['dtype']}): {row['reason']}" for row in found.skipped
            )
            raise RuntimeError(f"no engine is left to race: {'; '.join(reasons)}")

        def aside(worker: Worker, reason: str) -> None:
            _aside(found, worker.job, reason)

        times = raced(workers, asked.rounds, asked.turn_ms / 1e3, order, aside, progress, found.counter)
    finally:
        close_all(workers)
    left = {worker.job for worker in times}
    found.times = {job: own for job, own in found.times.items() if job in left}
    for worker, own in times.items():
        job = worker.job
        if job.engine.module == "peak":
            key = job.engine.dtype, job.threads
            found.peaks[key] = max(_peak(worker, own), found.peaks.get(key, 0.0))
        else:
            found.times[job] = own if job not in found.times else found.times[job] + own
    return [job for job in jobs if job in left]


def _jobs(
    subject: Subject,
    families: Iterable[str],
    threads: Iterable[int],
    dtypes: Iterable[Dtype],
    in_c: bool,
    found: Found,
    progress: Progress,
) -> list[Job]:
    """Every engine of the families with its file made, and what measures the machine."""
    chosen = [
        e
        for e in table.ENGINES
        if e.family in set(families)
        and e.dtype in set(dtypes)
        and (subject.quantised or e.kind != table.GIVEN)
    ]
    for family in families:
        for dtype in dtypes:
            if not any(e.family == family and e.dtype == dtype for e in chosen):
                found.skip(family, dtype, f"raced in float32 only: {family} has no int8 here")
    jobs: list[Job] = []
    chosen += [table.peak_of(dtype) for dtype in dtypes]
    for number, engine in enumerate(chosen):
        progress("prepare", number, len(chosen))
        reason = table.missing(engine)
        if not reason and subject.wanted is None and engine.module not in ("ours", "peak"):
            reason = "a compiled model's weights are in its library; bench the model file it was made of"
        if reason:
            found.skip(engine.name, engine.dtype, reason)
            continue
        try:
            place = making.made(engine, subject.folder)
            for count in threads:
                words = native.words(engine, place, subject.folder, count) if in_c and engine.native else ()
                jobs.append(Job(engine, place, subject.folder, count, words))
        except RuntimeError as error:
            found.skip(engine.name, engine.dtype, str(error))
    progress("prepare", len(chosen), len(chosen))
    return jobs


def _opened(jobs: list[Job], subject: Subject, found: Found, progress: Progress) -> list[Worker]:
    """A worker for each job, after its first answer was compared, waiting for its turn."""
    workers: list[Worker] = []
    for number, job in enumerate(jobs):
        progress("open", number, len(jobs))
        worker = Worker(job)
        try:
            _, told = worker.first()
            answer = np.asarray(told["answer"])
            if job.engine.module == "peak":
                worker.operations = float(answer[0])
            elif subject.wanted is not None:
                got = answer.astype(np.float32)
                found.agreements[job] = agreement(got, subject.wanted, job.engine.dtype)
        except (WorkerError, ValueError) as error:
            worker.close()
            _aside(found, job, str(error))
            continue
        except BaseException:
            worker.close()
            close_all(workers)
            raise
        worker.stop()
        workers.append(worker)
    progress("open", len(jobs), len(jobs))
    return workers


def _aside(found: Found, job: Job, reason: str) -> None:
    found.skip(job.engine.name, job.engine.dtype, reason, job.threads)


def _peak(worker: Worker, times: Times) -> float:
    """What the machine can do, so of its best calls in a hundred: others take their share of the rest."""
    return worker.operations / times.at(0.01)[0]


def _believed(found: Found, macs: int) -> dict[tuple[Dtype, int], float]:
    """The peaks but those that an engine exceeds: there the machine was too busy to find out."""
    fastest: dict[tuple[Dtype, int], float] = {}
    for job, times in found.times.items():
        key = job.engine.dtype, job.threads
        fastest[key] = max(fastest.get(key, 0.0), 2 * macs / times.at(0.5)[0])
    return {key: speed for key, speed in found.peaks.items() if speed >= fastest.get(key, 0.0)}


def _told(
    subject: Subject, asked: BenchOptions, found: Found, first: Start | None, command: str
) -> dict[str, Any]:
    rows = [_row(subject, found, job) for job in found.times]
    return described(subject, asked, command) | {
        "rows": rows,
        "best": _best(found),
        "peaks": [
            {"dtype": dtype, "threads": threads, "gops": round(speed / 1e9, 1)}
            for (dtype, threads), speed in found.peaks.items()
        ],
        "interpreter": None
        if first is None
        else {"cold_start_s": round(first.seconds, 3), "peak_rss_mb": first.peak_rss_mb},
        "skipped": found.skipped,
        "unpowered": found.power.source if found.counter is None and found.power.watts is None else "",
        "machine": machine_line(),
    }


def described(subject: Subject, asked: BenchOptions, command: str) -> dict[str, Any]:
    """What was measured, how, by which versions, when; wherever that was."""
    net = subject.model.net
    return {
        "model": {
            "name": subject.name,
            "net": net.name,
            "width": net.width,
            "resolution": net.resolution,
            "macs": subject.macs,
            "weights": subject.weights,
            "digest": subject.digest,
        },
        "host": None,
        "device": None,
        "rounds": asked.rounds,
        "turn_ms": asked.turn_ms,
        "versions": versions(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "command": command,
    }


def _row(subject: Subject, found: Found, job: Job) -> dict[str, Any]:
    engine, times = job.engine, found.times[job]
    peak = found.peaks.get((engine.dtype, job.threads))
    start = found.starts.get(job)
    power = found.power
    if found.counter is not None and times.watts:
        power = Power(median(times.watts), found.counter.source)
    return row(
        job,
        times,
        found.agreements.get(job),
        power,
        peak_share=None if peak is None else round(2 * subject.macs / times.at(0.5)[0] / peak, 4),
        cold_start_s=None if start is None else round(start.seconds, 3),
        peak_rss_mb=None if start is None else start.peak_rss_mb,
        artefact_bytes=making.artefact_bytes(job.place, subject.folder),
        # From C our own code needs nothing but the library that was built.
        install_bytes=0 if job.words and not engine.packages else table.install_bytes(engine),
    )


def row(job: Job, times: Times, agreed: Agreement | None, power: Power, **more: Any) -> dict[str, Any]:
    """What one engine's row says, wherever it ran; `more` are the columns that only its place can tell."""
    engine = job.engine
    low, middle, high = (round(1e3 * one, 4) for one in times.at(0.1, 0.5, 0.9))
    return {
        "engine": engine.name,
        "dtype": engine.dtype,
        "threads": job.threads,
        "call": job.call,
        "latency_ms": middle,
        "p10_ms": low,
        "p90_ms": high,
        "n": times.n,
        **more,
        "difference": None if agreed is None else float(f"{agreed.relative:.2e}"),
        "correlation": None if agreed is None else round(agreed.correlation, 5),
        "version": table.version(engine),
        **energy.of_picture(power, middle),
    }


def _best(found: Found) -> list[dict[str, Any]]:
    """For each type and number of threads the fastest of the others against ours.

    `times` is the quotient of the medians; low and high are the tenth and ninetieth percentile of the
    quotients of one round's medians.
    """
    rows = []
    groups = dict.fromkeys((job.engine.dtype, job.threads) for job in found.times)
    for dtype, threads in groups:
        group = {j: t for j, t in found.times.items() if (j.engine.dtype, j.threads) == (dtype, threads)}
        own = next((job for job in group if job.engine.family == "ours"), None)
        others = [job for job in group if job.engine.family != "ours"]
        if own is None or not others:
            continue
        rival = min(others, key=lambda job: group[job].at(0.5))
        pairs = zip(group[rival].medians, group[own].medians, strict=True)
        low, high = np.percentile([theirs / ours for theirs, ours in pairs], (10, 90))
        rows.append(
            {
                "dtype": dtype,
                "threads": threads,
                "engine": rival.engine.name,
                "times": round(group[rival].at(0.5)[0] / group[own].at(0.5)[0], 3),
                "low": round(float(low), 3),
                "high": round(float(high), 3),
            }
        )
    return rows
