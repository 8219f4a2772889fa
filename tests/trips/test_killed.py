"""A kill at any moment, a full disk: nothing half-written is read, the next run ends as if undisturbed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Ask = Callable[..., Any]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here"),
]
SABOTAGE = """
import os, signal, sys
if "mobilenets" in " ".join(sys.orig_argv):
    kind, number = {kind!r}, {number}
    real, seen = getattr(os, kind), [0]
    def sabotaged(*arguments, **options):
        seen[0] += 1
        if seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    setattr(os, kind, sabotaged)
"""


@pytest.fixture
def killed_at(surroundings: dict[str, str], tmp_path: Path) -> Callable[..., None]:
    """Runs a command that is killed just before the n-th call of a function of `os`."""

    def run(kind: str, number: int, *arguments: object) -> None:
        place = tmp_path / f"sabotage-{kind}-{number}"
        place.mkdir()
        (place / "sitecustomize.py").write_text(SABOTAGE.format(kind=kind, number=number))
        rest = surroundings.get("PYTHONPATH")
        path = f"{place}{os.pathsep}{rest}" if rest else str(place)
        done = subprocess.run(
            [sys.executable, "-m", "mobilenets", *map(str, arguments)],
            env={**surroundings, "PYTHONPATH": path},
            capture_output=True,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()

    return run


def _session_is_gone(session: int, within_s: float = 15) -> bool:
    """Whether every process of a session has ended."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if not any(
            _session_of(Path("/proc") / name) == session for name in os.listdir("/proc") if name.isdigit()
        ):
            return True
        time.sleep(0.1)
    return False


def _session_of(process: Path) -> int | None:
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[3])


def test_runs_killed_at_any_moment_leave_no_worker_and_no_false_model(
    ask: Ask, slice_of: Any, body25: Path, tmp_path: Path, surroundings: dict[str, str]
) -> None:
    """Killed while it reads, computes features, fits and writes, always on the same cache and folder."""
    folder = slice_of(tmp_path / "set", 5, 12)
    command = ("retrain", folder, "--weights", body25, "--out")
    began = time.monotonic()
    ask(*command, tmp_path / "calm", env={"MOBILENETS_CACHE": str(tmp_path / "calm-cache")})
    took = time.monotonic() - began
    calm = (tmp_path / "calm" / "model.safetensors").read_bytes()
    env = {"MOBILENETS_CACHE": str(tmp_path / "cache")}
    model = tmp_path / "out" / "model.safetensors"
    for share in (0.4, 0.6, 0.8):
        process = subprocess.Popen(
            [sys.executable, "-m", "mobilenets", *map(str, command), str(tmp_path / "out")],
            env={**surroundings, **env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(share * took)
        process.kill()
        process.wait()
        if Path("/proc/self/stat").exists():
            assert _session_is_gone(process.pid), f"workers live on after a kill at {share} of a run"
        assert not model.exists() or model.read_bytes() == calm
    facts = ask(*command, tmp_path / "out", "--json", env=env).facts
    assert model.read_bytes() == calm
    assert facts["images"] == {"used": 60, "set_aside": 0}
    assert not any("damaged" in note for note in facts["notes"])


def test_a_kill_at_each_step_of_writing_leaves_the_old_model_or_the_new_one(
    ask: Ask, killed_at: Any, taught: Any, body25: Path, tmp_path: Path
) -> None:
    """The model's bytes are synced, then put in its place; the report, the split and the record follow."""
    old = taught.model.read_bytes()
    out = tmp_path / "out"
    shutil.copytree(taught.out, out)
    command = ("retrain", taught.folder, "--out", out, "--weights", body25, "--seed", 1)
    killed_at("fsync", 1, *command)
    assert (out / "model.safetensors").read_bytes() == old
    killed_at("replace", 2, *command)
    new = (out / "model.safetensors").read_bytes()
    assert new != old
    assert (out / "run.json").read_bytes() == (taught.out / "run.json").read_bytes()
    facts = ask(*command, "--json").facts
    assert (out / "model.safetensors").read_bytes() == new
    assert ask("info", out / "model.safetensors", "--json").facts["digest"] == facts["digest"]


def test_a_fine_tuning_that_was_killed_goes_on_to_the_last_bit(
    ask: Ask, refuse: Any, killed_at: Any, slice_of: Any, body25: Path, tmp_path: Path
) -> None:
    """Killed while the second epoch's checkpoint is written: `--resume` goes on from the first, or starts
    clean where that is cut short."""
    folder = slice_of(tmp_path / "set", 3, 8)

    def command(out: str) -> tuple[object, ...]:
        return "retrain", folder, "--weights", body25, "--finetune", 3, "--out", tmp_path / out

    def losses(facts: dict[str, Any]) -> list[tuple[float, float]]:
        return [(epoch["loss"], epoch["val_accuracy"]) for epoch in facts["epochs"]]

    calm = ask(*command("calm"), "--json").facts
    assert len(set(losses(calm))) == 3
    killed_at("replace", 2, *command("out"))
    checkpoint = tmp_path / "out" / "tuning.safetensors"
    assert checkpoint.exists()
    shutil.copytree(tmp_path / "out", tmp_path / "cut")
    content = checkpoint.read_bytes()
    (tmp_path / "cut" / checkpoint.name).write_bytes(content[: len(content) // 2])
    for out in ("out", "cut"):
        facts = ask(*command(out), "--resume", "--json").facts
        assert losses(facts) == losses(calm)
        resumed = (tmp_path / out / "model.safetensors").read_bytes()
        assert resumed == (tmp_path / "calm" / "model.safetensors").read_bytes()
        assert not (tmp_path / out / checkpoint.name).exists()
        first = calm["epochs"][0]["seconds"] != facts["epochs"][0]["seconds"]
        assert first  # no clock is part of what is compared
    assert "came to its end" in refuse(*command("out"), "--resume")
    for change in (("--seed", 1), ("--split", "60/20/20")):  # nothing is there of these yet
        assert losses(ask(*command("out"), "--resume", *change, "--json").facts) != losses(calm)
    assert "no such" in refuse(*("retrain", tmp_path / "nowhere", *command("out")[2:]), "--resume")


def test_a_sweep_that_was_killed_keeps_what_its_variants_learned(
    ask: Ask, killed_at: Any, slice_of: Any, body25: Path, tmp_path: Path
) -> None:
    """Killed in the second variant: the first goes on from its last epoch, which is its end."""
    folder, out = slice_of(tmp_path / "set", 3, 8), tmp_path / "out"
    command = ("retrain", folder, "--weights", body25, "--finetune", 1, "--out", out, "--sweep")
    killed_at("replace", 8, *command)  # a variant's checkpoint, model, report, split, record and row are six
    records = [out / f"v1-0.25-{side}" / "run.json" for side in (128, 160)]
    assert [record.exists() for record in records] == [True, False]
    before = json.loads(records[0].read_text())
    facts = ask(*command, "--resume", "--json").facts
    after = json.loads(records[0].read_text())
    assert after["epochs"] == before["epochs"]  # their seconds too
    assert after["digest"] == before["digest"]
    assert len(facts["sweep"]) == 4
    assert not list(out.rglob("tuning.safetensors"))


def test_an_interrupt_is_one_line_and_ends_every_worker(
    slice_of: Any, body25: Path, tmp_path: Path, surroundings: dict[str, str]
) -> None:
    folder = slice_of(tmp_path / "set", 2, 6)
    options = ("--out", tmp_path / "out", "--weights", body25, "--finetune", 2000)
    process = subprocess.Popen(
        [sys.executable, "-m", "mobilenets", "retrain", *map(str, (folder, *options))],
        env=surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    until = time.monotonic() + 120
    while not (tmp_path / "out" / "tuning.safetensors").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == b""
    assert err.decode().splitlines()[-1] == "mobilenets: interrupted; what was finished is kept"
    assert b"Traceback" not in err
    if Path("/proc/self/stat").exists():
        assert _session_is_gone(process.pid)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A disk of six megabytes, or None where this user or this system may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = sys.platform == "linux" and os.geteuid() == 0 and shutil.which("mount") is not None
    if mounted:
        mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)]
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    yield place if mounted else None
    if mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _short_files() -> None:
    """No file of this process may grow beyond half a megabyte: what a full disk looks like to a writer."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))


def test_a_full_disk_leaves_the_old_model_whole_and_says_so(
    ask: Ask, taught: Any, body25: Path, small_disk: Path | None, tmp_path: Path
) -> None:
    out = (small_disk or tmp_path) / "out"
    shutil.copytree(taught.out, out)
    old = {path.name: path.read_bytes() for path in sorted(out.iterdir())}
    if small_disk is not None:
        free = shutil.disk_usage(small_disk).free
        (small_disk / "filler").write_bytes(bytes(free - (1 << 19)))
    told = ask(
        *("retrain", taught.folder, "--out", out, "--weights", body25, "--seed", 1, "--json"),
        code=2,
        before=None if small_disk is not None else _short_files,
    )
    assert told.out == ""
    complaint = told.err.splitlines()[-1]
    assert complaint.startswith("mobilenets: ")
    assert "No space left" in complaint or "File too large" in complaint
    assert {path.name: path.read_bytes() for path in sorted(out.iterdir())} == old
    assert ask("info", out / "model.safetensors", "--json").facts["digest"] == taught.facts["digest"]


def test_a_full_disk_under_the_cache_costs_the_cache_alone(
    ask: Ask, taught: Any, body25: Path, small_disk: Path | None, tmp_path: Path
) -> None:
    cache = (small_disk or tmp_path) / "cache"
    if small_disk is not None:
        (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - (1 << 15)))
    else:
        cache.write_text("a file, so that nothing can be kept in it")
    facts = ask(
        *("retrain", taught.folder, "--out", tmp_path / "out", "--weights", body25, "--unknown", "--json"),
        env={"MOBILENETS_CACHE": str(cache)},
    ).facts
    assert facts["digest"] == taught.facts["digest"]
    assert any("cache" in note for note in facts["notes"])
