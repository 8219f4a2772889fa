"""Every command says what it does, and speaks JSON with the keys that others rely on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilenets.spec import zoo

COMMANDS = ("cost", "models", "doctor", "retrain", "evaluate", "predict", "info", "demo", "export")
Ask = Callable[..., Any]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_shows_an_example_of_itself(ask: Ask, command: str) -> None:
    told = ask(command, "--help")
    assert re.search(rf"Example: mobilenets {command}\b", told.out)
    assert "--json" in told.out


def test_help_lists_every_command_and_no_arguments_ask_for_help(ask: Ask) -> None:
    told = ask("--help")
    assert all(re.search(rf"^\W*{command}\b", told.out, re.MULTILINE) for command in COMMANDS)


def test_options_of_the_retraining_are_the_promised_ones(ask: Ask) -> None:
    promised = (
        *("out", "net", "width", "resolution", "weights", "finetune", "sweep", "split", "class-weights"),
        *("unknown", "device", "resume", "seed", "threads", "json"),
    )
    told = ask("retrain", "--help")
    assert [name for name in promised if f"--{name}" not in told.out] == []


def test_cost_prints_the_published_figures_of_v1(ask: Ask) -> None:
    facts = ask("cost", "v1", "--json").facts
    assert round(facts["macs"] / 1e6) == 569
    assert facts["params"] == 4_231_976
    assert facts["size_bytes"]["float32"] > 3.9 * facts["size_bytes"]["int8"]
    assert facts["activation_bytes"] == 4 * 112 * 112 * (32 + 64)
    for kind in ("pointwise", "depthwise", "conv", "dense"):
        assert facts["by_kind"][kind]["macs"] > 0
        assert facts["by_kind"][kind]["params"] > 0
    assert sum(kind["macs"] for kind in facts["by_kind"].values()) == facts["macs"]


def test_cost_by_layer_adds_up_to_the_whole(ask: Ask) -> None:
    facts = ask(
        "cost", "v1", "--width", 0.5, "--resolution", 160, "--classes", 7, "--by-layer", "--json"
    ).facts
    layers = facts["layers"]
    assert sum(row["macs"] for row in layers) == facts["macs"]
    assert sum(row["params"] for row in layers) == facts["params"]
    assert len(ask("cost", "v1", "--by-layer").out.splitlines()) > len(layers)


def test_models_lists_networks_and_weights_with_licence_and_home(ask: Ask) -> None:
    rows = ask("models", "--json").facts["models"]
    assert {row["name"] for row in rows if row["kind"] == "network"} == set(zoo.NETS)
    weights = [row for row in rows if row["kind"] == "weights"]
    assert len(weights) >= 16
    assert all(row["licence"] and row["url"].startswith(("https://", "package:")) for row in weights)
    assert {row["name"] for row in weights if row["on_disk"]} == {
        "mobilenets/v1-0.25-128",
        "mobilenets/v1-0.5-128",
    }


def test_a_table_in_a_pipe_keeps_its_words_whole(ask: Ask) -> None:
    out = ask("models").out
    assert "timm/mobilenetv1_100" in out
    assert "published top-1" in out


def test_a_terminal_that_knows_ascii_alone_still_gets_its_answer(ask: Ask) -> None:
    env = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert "timm/mobilenetv1_100" in ask("models", env=env).out
    assert ask("models", "--json", env=env).facts["models"]


def test_info_shows_what_a_model_file_holds(ask: Ask, taught: Any, body25: Path) -> None:
    facts = ask("info", taught.model, "--json").facts
    assert facts["labels"] == ["Faces", "ant", "barrel", "bonsai", "crab"]
    assert (facts["net"], facts["width"], facts["resolution"]) == ("v1", 0.25, 128)
    assert facts["digest"] == taught.facts["digest"]
    assert facts["scores"]["accuracy"] == taught.facts["accuracy"]
    assert facts["recipe"]["seed"] == 0
    assert body25.name in ask("info", taught.model).out


def test_info_reads_the_files_of_others(ask: Ask, body25: Path) -> None:
    facts = ask("info", body25, "--json").facts
    assert len(facts["labels"]) == 1000


def test_doctor_names_what_is_wrong_by_kind(ask: Ask, slice_of: Any, tmp_path: Path) -> None:
    folder = slice_of(tmp_path / "set", 3, 6)
    (folder / "ant" / "empty.jpg").write_bytes(b"")
    copied = sorted((folder / "barrel").iterdir())[0]
    (folder / "crab").mkdir()
    (folder / "crab" / "one.webp").write_bytes(copied.read_bytes())
    facts = ask("doctor", folder, "--json").facts
    assert facts["classes"] == 4
    assert facts["images"] >= 19
    kinds = {problem["kind"]: problem["files"] for problem in facts["problems"]}
    assert kinds["empty"] == ["ant/empty.jpg"]
    assert kinds["exact-duplicates"] == [f"barrel/{copied.name}", "crab/one.webp"]
    assert "ant/empty.jpg" in ask("doctor", folder).out


@pytest.mark.slow
def test_doctor_flags_the_set_whose_halves_come_from_different_sources(
    ask: Ask, material: Path, tmp_path: Path
) -> None:
    import tarfile

    with tarfile.open(material / "data" / "road-or-not.tar") as archive:
        by_class: dict[str, list[tarfile.TarInfo]] = {}
        for member in archive.getmembers():
            if member.isfile():
                by_class.setdefault(Path(member.name).parent.name, []).append(member)
        for members in by_class.values():
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 brought it
            archive.extractall(tmp_path, members[:150])
    facts = ask("doctor", tmp_path / "road-or-not", "--json").facts
    assert "leak" in {problem["kind"] for problem in facts["problems"]}
