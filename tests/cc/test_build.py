"""The C compiler: found, or its absence told."""

from __future__ import annotations

import pytest

from mobilenets.compile import build
from mobilenets.compile.build import _compiler
from mobilenets.compile.target import TARGETS
from mobilenets.compiling import named


def test_without_any_compiler_the_message_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"no C compiler.*mobilenets\[cc\]"):
        _compiler(TARGETS["host"])
    with pytest.raises(ValueError, match=r"x86-64 needs the cross compiler.*mobilenets\[cc\]"):
        _compiler(TARGETS["x86-64"])


def test_a_compiler_that_is_asked_for_is_taken_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "ccache gcc -m64")
    assert _compiler(TARGETS["host"]) == ["ccache", "gcc", "-m64"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("out/model.safetensors", "model"),
        ("mobilenet_v1_1.0_224.tflite", "mobilenet_v1_1_0_224"),
        ("9 lives.safetensors", "model_9_lives"),
        ("Bäume.safetensors", "b_ume"),
        ("木.safetensors", "model"),
        ("timm/mobilenetv1_100", "mobilenetv1_100"),
    ],
)
def test_a_library_is_named_after_its_model(path: str, name: str) -> None:
    assert named(path) == name
