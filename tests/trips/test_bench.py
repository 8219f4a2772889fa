"""A small race as a user runs it: what is told, what is kept, what is refused, what a dead worker leaves."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilenets.bench import engines, making, measure, options, record
from mobilenets.bench.agreement import agreement
from mobilenets.bench.race import raced
from mobilenets.bench.subject import Subject, opened
from mobilenets.bench.team import Job, Worker, WorkerError
from mobilenets.energy import Power

Ask = Callable[..., Any]
Refuse = Callable[..., str]
KEYS = {
    *("engine", "dtype", "threads", "latency_ms", "p10_ms", "p90_ms", "n", "peak_share", "cold_start_s"),
    *("peak_rss_mb", "version", "artefact_bytes", "install_bytes", "call", "difference", "correlation"),
    *("energy_mj", "watts", "watts_from"),
}
SMALL = ("--width", 0.25, "--resolution", 32)
SHORT = ("--rounds", 2, "--turn-ms", 3, "--starts", 1)
# Lowering for ExecuTorch takes half a minute, which is more than all else here.
FAMILIES = [name for name in options.FAMILIES if name != "executorch"]
KNOWN = [e for e in engines.ENGINES if e.family in FAMILIES]
HERE = [e for e in KNOWN if not engines.missing(e)]

if shutil.which("cc") is None:
    pytest.skip("no C compiler on this machine", allow_module_level=True)


@pytest.fixture(scope="module")
def race(ask: Ask, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A race of what is installed, in float32: its folder and what the command said."""
    out = tmp_path_factory.mktemp("race")
    words = ("--engines", ",".join(FAMILIES), "--threads", "1,2", "--out", out, "--json")
    return out, ask("bench", "v1", *SMALL, *SHORT, *words).facts


@pytest.fixture(scope="module")
def subject(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILENETS_CACHE", str(cache))
        yield opened("v1", width=0.25, resolution=32, seed=0, calibrate=None)


def test_every_engine_that_is_here_has_its_rows_and_the_others_a_reason(race: Any) -> None:
    facts = race[1]
    wanted = {(e.name, n) for e in HERE if e.dtype == "float32" for n in (1, 2)}
    assert {(row["engine"], row["threads"]) for row in facts["rows"]} == wanted
    assert ("ours", 1) in wanted
    for row in facts["rows"]:
        assert set(row) == KEYS
        assert 0 < row["p10_ms"] <= row["latency_ms"] <= row["p90_ms"]
        assert row["n"] >= 2 * 3
        assert row["difference"] <= 1e-3
        assert row["peak_share"] is None or 0 < row["peak_share"] <= 1
        assert row["cold_start_s"] > 0
        assert row["peak_rss_mb"] > 10
        assert row["artefact_bytes"] > 100_000
        assert row["install_bytes"] > 100_000
    missing = {e.name for e in KNOWN if e.dtype == "float32" and engines.missing(e)}
    assert {row["engine"] for row in facts["skipped"]} == missing
    assert all("not installed" in row["reason"] for row in facts["skipped"])
    assert facts["model"]["weights"] == "random, seed 0"
    assert facts["interpreter"]["peak_rss_mb"] < min(row["peak_rss_mb"] for row in facts["rows"])


def test_rows_a_picture_and_a_page_are_kept_and_rows_add_up(ask: Ask, race: Any) -> None:
    out, facts = race
    assert json.loads((out / "rows.json").read_text()) == facts
    assert (out / "race.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "race.html").read_text()
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    for row in facts["rows"]:
        assert f"{row['latency_ms']:.3f}" in page
    ask("bench", "v1", *SMALL, *SHORT, "--engines", "ours", "--native", "--out", out)
    with (out / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(facts["rows"]) + 1
    assert rows[-1]["call"] == "c"
    assert rows[-1]["machine"] == facts["machine"]
    assert "bench v1" in rows[-1]["command"]


def test_a_table_of_an_older_release_gets_the_columns_that_it_lacks(tmp_path: Path) -> None:
    old = "model,engine,latency_ms,gone\nv1,ours,1.5,x\n"
    (tmp_path / "rows.csv").write_text(old)
    record.append(tmp_path / "rows.csv", [{"model": "v1", "engine": "ours", "latency_ms": 2, "host": "b"}])
    assert (tmp_path / "rows.csv").read_text() == (
        "model,engine,latency_ms,gone,host\nv1,ours,1.5,x,\nv1,ours,2,,b\n"
    )


def test_int8_of_others_is_that_network_in_int8(ask: Ask) -> None:
    if find_spec("onnxruntime") is None or find_spec("onnx") is None:
        pytest.skip("onnxruntime and onnx are not installed")
    facts = ask(
        *("bench", "v1", *SMALL, *SHORT[:4], "--starts", 0),
        *("--engines", "ours,onnxruntime,torch", "--dtype", "int8", "--native", "--json"),
    ).facts
    row = next(row for row in facts["rows"] if row["engine"] == "onnxruntime")
    assert row["call"] == "c"
    assert 0.9 <= row["correlation"] < 0.99999
    assert row["cold_start_s"] is None
    assert any(row["engine"] == "torch" and "float32 only" in row["reason"] for row in facts["skipped"])


@pytest.mark.parametrize(
    ("net", "side", "engine"),
    [
        (net, side, engine)
        for net, side in (("v1-full", 17), ("v1-cifar", 9), ("v1-shallow", 33), ("v2", 65))
        for engine in HERE
        if engine.dtype == "float32" and engine.module not in ("ours", "torch")
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_files_written_for_others_hold_the_same_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, net: str, side: int, engine: engines.Engine
) -> None:
    monkeypatch.setenv("MOBILENETS_CACHE", str(tmp_path))
    one = opened(net, width=0.25, resolution=side, seed=1, calibrate=None)
    worker = Worker(Job(engine, making.made(engine, one.folder), one.folder, 1), once=True)
    try:
        answer = np.array(worker.first()[1]["answer"], np.float32)
    finally:
        worker.close()
    assert one.wanted is not None
    assert agreement(answer, one.wanted, "float32").relative < 1e-3


def test_a_compiled_model_and_a_given_tflite_are_raced_as_they_are(
    ask: Ask, body25: Path, tmp_path: Path
) -> None:
    ask("compile", body25, "--out", tmp_path, "--name", "given")
    facts = ask("bench", tmp_path / "given.so", *SHORT, "--engines", "ours,torch", "--json").facts
    assert [row["engine"] for row in facts["rows"]] == ["ours"]
    assert "weights are in its library" in facts["skipped"][0]["reason"]
    if find_spec("ai_edge_litert") is None:
        return
    facts = ask("bench", body25, *SHORT, "--engines", "litert", "--dtype", "int8", "--json").facts
    given = next(row for row in facts["rows"] if row["engine"] == "litert-given")
    assert given["artefact_bytes"] == body25.stat().st_size
    assert given["correlation"] > 0.9


def test_options_that_cannot_be_are_told_in_a_line(
    refuse_each: Callable[..., list[str]], refuse: Refuse, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    said = refuse_each(
        ("bench", "v1", "--engines", "ours,tensorrt"),
        ("bench", "v1", "--threads", "1,zero"),
        ("bench", "v1", "--threads", "0"),
        ("bench", "v1", "--dtype", "float16"),
        ("bench", "v1", "--engines", ","),
        ("bench", "v1", "--rounds", "0"),
        ("bench", "nonesuch"),
        ("bench", "v1", "--width", "-1"),
        ("bench", "v1", "--out", str(tmp_path / "file")),
        ("bench", "v1", "--calibrate", str(tmp_path / "nothing")),
    )
    for line, words in zip(
        said,
        (
            *(
                "--engines tensorrt: unknown; known: all, ours",
                "--threads zero",
                "--threads 0",
                "--dtype float16",
            ),
            *("an empty list", "--rounds 0: at least 1", "no such file", "width must lie in", "in its way"),
            "no such file or folder",
        ),
        strict=True,
    ):
        assert words in line
    assert "float32 only" in refuse("bench", "v1", *SMALL, "--engines", "torch", "--dtype", "int8")


def test_what_is_not_installed_is_named_and_the_others_race(ask: Ask, without: Callable[..., Any]) -> None:
    facts = ask(
        *("bench", "v1", *SMALL, *SHORT, "--engines", "ours,ncnn,onnxruntime", "--json"),
        env=without("ncnn", "onnxruntime"),
    ).facts
    assert [row["engine"] for row in facts["rows"]] == ["ours"]
    assert {row["engine"]: row["reason"].partition(";")[0] for row in facts["skipped"]} == {
        "ncnn": "not installed: ncnn",
        "onnxruntime": "not installed: onnxruntime",
    }
    assert facts["best"] == []


def test_a_worker_that_is_killed_falls_out_and_the_others_go_on(subject: Subject) -> None:
    workers = [Worker(Job(engines.NOTHING, subject.folder, subject.folder, 1)) for _ in range(2)]
    try:
        for worker in workers:
            worker.first()
            worker.stop()
        os.kill(workers[0].pid, signal.SIGKILL)
        aside: dict[Worker, str] = {}
        times = raced(workers, 3, 0.001, random.Random(0), aside.__setitem__, lambda stage, done, total: None)
    finally:
        for worker in workers:
            worker.close()
    assert aside == {workers[0]: "python (float32, 1 thread): its process was ended by SIGKILL"}
    assert list(times) == [workers[1]]
    assert len(times[workers[1]].turns) == 3


def test_each_heat_has_processes_of_its_own_and_who_falls_out_of_one_leaves_nothing(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, set[int]]] = []

    def watched(workers: list[Worker], rounds: int, *others: Any) -> Any:
        seen.append((rounds, {worker.pid for worker in workers}))
        if len(seen) == 2:
            os.kill(next(w.pid for w in workers if w.job.threads == 2), signal.SIGKILL)
        return raced(workers, rounds, *others)

    monkeypatch.setattr(measure, "raced", watched)
    asked = options.BenchOptions(engines="ours", threads="1,2", rounds=7, turn_ms=3, starts=0, heats=3)
    facts = measure.measured(subject, asked, Power(), lambda *_: None, "")
    assert [rounds for rounds, _ in seen] == [2, 2, 3]
    assert not set.intersection(*(pids for _, pids in seen))
    assert [row["threads"] for row in facts["rows"]] == [1]
    assert facts["rows"][0]["n"] >= 3 * 7  # three calls of a turn at least
    assert [(row["threads"], "SIGKILL" in row["reason"]) for row in facts["skipped"]] == [(2, True)]


def test_a_stopped_worker_takes_no_time_and_one_that_cannot_start_says_why(subject: Subject) -> None:
    peak = engines.peak_of("float32")
    worker = Worker(Job(peak, making.made(peak, subject.folder), subject.folder, 2))
    try:
        worker.first()
        worker.turn(3)
        used = [_ticks(worker.pid), (signal.sigtimedwait([], 0.3), _ticks(worker.pid))[1]]
    finally:
        worker.close()
    assert used[1] - used[0] <= 1
    broken = Worker(Job(engines.ENGINES[0], subject.folder / "nothing", subject.folder, 1))
    try:
        with pytest.raises(
            WorkerError, match=r"ours \(float32, 1 thread\): its process ended with 1: .*nothing"
        ):
            broken.first()
    finally:
        broken.close()


def _ticks(pid: int) -> int:
    """Processor time of a process, in ticks of the system's clock."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(words[11]) + int(words[12])


def test_an_answer_of_another_network_or_picture_is_refused() -> None:
    random_ = np.random.default_rng(0)
    wanted = random_.normal(size=(4, 50)).astype(np.float32)
    assert agreement(wanted[0], wanted, "float32").relative == 0
    assert agreement(np.append(np.float32(0), wanted[0]), wanted, "float32").relative == 0
    shares = np.exp(wanted[0]) / np.exp(wanted[0]).sum()
    assert agreement(shares.astype(np.float32), wanted, "float32").relative < 1e-6
    for got, dtype, words in (
        (wanted[0] * np.float32(1.01), "float32", "differs from the reference"),
        (wanted[0, :7], "float32", "gives 7 values"),
        (wanted[0] * np.float32("nan"), "int8", "no numbers"),
        (wanted[1], "int8", "correlates"),
    ):
        with pytest.raises(ValueError, match=words):
            agreement(got, wanted, dtype)  # type: ignore[arg-type]
    near = np.stack([wanted[0], wanted[0] + np.float32(0.01) * wanted[1]])
    with pytest.raises(ValueError, match="another picture"):
        agreement(near[1], near, "int8")
