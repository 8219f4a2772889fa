"""A taught model quantised and compiled, a quantised file compiled as it is, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Ask = Callable[..., Any]
Refuse = Callable[..., str]

if shutil.which("cc") is None:
    pytest.skip("no C compiler on this machine", allow_module_level=True)


@pytest.fixture(scope="module")
def compiled(ask: Ask, taught: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The taught model in int8, compiled for this machine: its folder and what the command said."""
    out = tmp_path_factory.mktemp("int8")
    words = ("--dtype", "int8", "--calibrate", taught.folder, "--out", out, "--name", "five", "--json")
    return out, ask("compile", taught.model, *words).facts


def best(facts: Any) -> list[str]:
    return [row["predictions"][0]["label"] for row in facts["results"]]


@pytest.mark.slow
def test_a_model_quantised_on_its_pictures_answers_as_the_float_one_does(
    ask: Ask, taught: Any, compiled: Any
) -> None:
    out, _ = compiled
    wanted = best(ask("predict", taught.model, taught.folder, "--json").facts)
    got = best(ask("predict", out / "five.so", taught.folder, "--json").facts)
    assert sum(a == b for a, b in zip(got, wanted, strict=True)) >= 0.97 * len(wanted) > 20
    assert ask("info", out / "five.so", "--json").facts["source"]["compiled"] == "int8"


@pytest.mark.slow
def test_the_certificate_of_integers_says_bit_for_bit_and_how_they_were_found(compiled: Any) -> None:
    out, facts = compiled
    assert facts["dtype"] == "int8"
    assert all(error["largest"] == 0 for error in facts["largest_error"].values())
    assert facts["calibration"]["pictures"] > 20
    assert facts["calibration"]["seconds"] > 0
    assert facts["weight_bytes"] == (out / "five.weights").stat().st_size
    assert facts["code_bytes"] <= 200_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "runner"), [("host", "cc"), ("c", "cc"), ("aarch64", "qemu-aarch64"), ("wasm", "node")]
)
def test_a_quantised_file_is_compiled_in_its_own_integers_for_every_target(
    ask: Ask, body25: Path, tmp_path: Path, target: str, runner: str
) -> None:
    if target in ("aarch64", "wasm"):
        pytest.importorskip("ziglang")
    if shutil.which(runner) is None:
        pytest.skip(f"no {runner} on this machine")
    facts = ask("compile", body25, "--dtype", "int8", "--target", target, "--out", tmp_path, "--json").facts
    assert facts["dtype"] == "int8"
    assert facts["unverified"] is None
    assert {error["largest"] for error in facts["largest_error"].values()} == {0}
    assert "calibration" not in facts


@pytest.mark.slow
def test_bad_pictures_to_calibrate_on_are_set_aside_by_name(
    ask: Ask, slice_of: Any, taught: Any, tmp_path: Path
) -> None:
    folder = slice_of(tmp_path / "set", 2, 6)
    whole = sorted((folder / "ant").iterdir())[0]
    (folder / "ant" / "cut.webp").write_bytes(whole.read_bytes()[:300])
    (folder / "ant" / "empty.jpg").write_bytes(b"")
    (folder / "Faces" / "text.png").write_text("no picture")
    words = ("--dtype", "int8", "--calibrate", folder, "--out", tmp_path / "out", "--json")
    told = ask("compile", taught.model, *words).facts["calibration"]
    assert told["pictures"] == 12
    named = {line.partition(": ")[0] for line in told["set_aside"]}
    assert {Path(name).name for name in named} == {"cut.webp", "empty.jpg", "text.png"}
    assert told["float_ran_by"].startswith("compiled C, ")


def test_what_cannot_be_quantised_is_refused_in_one_line(
    refuse: Refuse, taught: Any, body25: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert "needs --calibrate" in refuse("compile", taught.model, "--dtype", "int8", "--out", out)
    assert "known: float32, int8" in refuse("compile", taught.model, "--dtype", "int4", "--out", out)
    assert "is for --dtype int8" in refuse(
        "compile", taught.model, "--dtype", "float32", "--calibrate", taught.folder, "--out", out
    )
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.jpg").write_bytes(b"no picture")
    words = ("compile", taught.model, "--dtype", "int8", "--out", out, "--calibrate")
    assert "can be used" in refuse(*words, bad)
    assert "no pictures" in refuse(*words, tmp_path / "nothing") or not (tmp_path / "nothing").exists()
    assert not out.exists()
