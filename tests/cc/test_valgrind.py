"""The example under valgrind: nothing is read that was not written, and all memory is given back."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mobilenets.compile.build import FLAGS, WARNINGS, write
from mobilenets.compile.source import compiled
from mobilenets.compile.target import TARGETS, family
from mobilenets.infer.engine import NumpyEngine
from mobilenets.spec import zoo
from mobilenets.spec.head import classify

from .cases import EVERYTHING
from .conftest import filled, in_bytes

FOUND = 99
VALGRIND = (
    "valgrind",
    "--quiet",
    f"--error-exitcode={FOUND}",
    "--leak-check=full",
    "--errors-for-leak-kinds=all",
)
LABELS = ("a", "b", "c", "d", "e")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("target", ["host", "c"])
def test_valgrind_finds_nothing_in_a_network(tmp_path: Path, target: str, dtype: str) -> None:
    """By AVX2 and by plain C; valgrind's processor has no AVX-512, and the network asks before it chooses."""
    if shutil.which("valgrind") is None:
        pytest.skip("no valgrind on this machine")
    net = EVERYTHING if (target, dtype) == ("host", "int8") else classify(zoo.v1(0.25, 33), len(LABELS))
    model = filled(net, labels=LABELS)
    model = in_bytes(model) if dtype == "int8" else model
    write(compiled(model, "tested", family(TARGETS[target], dtype)), tmp_path)
    flags = [*FLAGS, *WARNINGS, "-O1", "-g"]
    words = ["cc", *flags, "main.c", "tested.c", "-o", "example", "-lpthread"]
    subprocess.run(words, cwd=tmp_path, check=True)
    for height, width in ((33, 33), (1, 1), (120, 70)):
        frame = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        (tmp_path / "frame.rgb").write_bytes(frame.tobytes())
        words = [*VALGRIND, "./example", "frame.rgb", str(width), str(height)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        logits = NumpyEngine(model)(frame)["logits"]
        named = [line.split(maxsplit=1)[1] for line in done.stdout.splitlines()]
        assert named == [LABELS[i] for i in np.argsort(-logits, kind="stable")]


def test_what_valgrind_finds_ends_the_program_with_its_code(tmp_path: Path) -> None:
    """Else the test above would prove nothing: a value never written, a block never given back."""
    if shutil.which("valgrind") is None:
        pytest.skip("no valgrind on this machine")
    wrong = {
        "read": "int *a = malloc(4); int b = *a > 3; free(a); return b ? 1 : 2;",
        "kept": "volatile char *a = malloc(4); a[0] = 1; a = 0; return 0;",
    }
    for name, body in wrong.items():
        (tmp_path / "wrong.c").write_text(f"#include <stdlib.h>\nint main(void) {{ {body} }}\n")
        subprocess.run(["cc", "-O0", "wrong.c", "-o", name], cwd=tmp_path, check=True)
        words = [*VALGRIND, f"./{name}"]
        assert subprocess.run(words, cwd=tmp_path, capture_output=True, check=False).returncode == FOUND
