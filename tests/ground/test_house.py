"""The house stands: imports run downhill, printing stays under the roof, files stay small and well named."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "mobilenets"
PACKAGE = "mobilenets"

# What each floor may import beyond the standard library and itself, and what of that only inside a function.
FLOORS: dict[str, set[str]] = {
    "spec": set(),
    "costs": {"mobilenets.spec"},
    "infer": {"numpy", "PIL", "safetensors", "mobilenets.spec"},
    "data": {"numpy", "PIL", "mobilenets.spec", "mobilenets.infer"},
    "compile": {"numpy", "ziglang", "mobilenets.spec", "mobilenets.costs", "mobilenets.infer"},
    "model": {"torch", "numpy", "mobilenets.spec", "mobilenets.infer"},
    "train": {"torch", "numpy", "scipy", "threadpoolctl"}
    | {f"mobilenets.{room}" for room in ("spec", "costs", "infer", "data", "model")},
}
LATE: dict[str, set[str]] = {
    "compile": {"ziglang"},
    "infer": {"simplejpeg", "h5py"},
    "train": {"scipy", "threadpoolctl"},
}
HEAVY = {"ziglang", "torch", "matplotlib", "scipy", "keras", "mobilenets.model", "mobilenets.train"}
ROOF = {"app", "bench", "export", "report"}  # rooms under the roof, beside the modules at the top
PUBLIC = {"__version__", "cost", "evaluate", "load", "retrain"}
LONGEST = 450
NAMELESS = {"utils", "util", "common", "base", "helpers", "helper", "manager", "misc"}

FILES = sorted(SOURCE.rglob("*.py"))


def room(file: Path) -> str:
    """The floor a file stands on; `roof` for the top of the package."""
    inside = file.relative_to(SOURCE)
    return inside.parts[0] if len(inside.parts) > 1 and inside.parts[0] not in ROOF else "roof"


def imports(file: Path) -> Iterator[tuple[str, int, bool]]:
    """Every module a file imports, for types too: its name, its line, whether it waits in a function."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = [PACKAGE, *file.relative_to(SOURCE).parts[:-1]]

    def visit(node: ast.AST, late: bool) -> Iterator[tuple[str, int, bool]]:
        for child in ast.iter_child_nodes(node):
            waits = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            typing_only = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
            inner = late or waits or typing_only
            if isinstance(child, ast.Import):
                yield from ((alias.name, child.lineno, inner) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                start = ".".join(package[: len(package) - child.level + 1]) if child.level else ""
                module = ".".join(part for part in (start, child.module or "") if part)
                if module == PACKAGE:
                    yield from ((f"{module}.{alias.name}", child.lineno, inner) for alias in child.names)
                else:
                    yield module, child.lineno, inner
            elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith(
                ("import_module", "__import__", "find_spec")
            ):
                yield _named(child), child.lineno, inner
            yield from visit(child, inner)

    yield from visit(tree, False)


def _named(call: ast.Call) -> str:
    """The module a call like `import_module(f"PIL.{name}")` imports, as far as its text says; `?` if not."""
    value: ast.AST | None = call.args[0] if call.args else None
    if isinstance(value, ast.JoinedStr):
        value = value.values[0]
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value.rstrip(".")
    return "?"


def within(module: str, allowed: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


def uphill(file: Path) -> list[str]:
    """The arrows of one file that it may not have."""
    floor = room(file)
    found = []
    for module, line, late in imports(file):
        where = f"{file.relative_to(SOURCE.parent)}:{line} imports {module}"
        if module.split(".")[0] in sys.stdlib_module_names:
            continue
        if floor == "roof":
            if (
                within(module, HEAVY)
                and not late
                and file.name in ("cli.py", "entry.py", "predicting.py", "__init__.py")
            ):
                found.append(f"{where}: heavy, only inside the command that needs it")
            continue
        allowed = FLOORS[floor] | {f"{PACKAGE}.{floor}"} | (LATE.get(floor, set()) if late else set())
        if not within(module, allowed):
            found.append(where)
    return found


def test_every_import_runs_downhill() -> None:
    assert [arrow for file in FILES for arrow in uphill(file)] == []


def test_every_room_is_on_the_plan() -> None:
    assert {room(file) for file in FILES} - {"roof"} <= set(FLOORS)


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("spec/x.py", "import numpy"),
        ("spec/x.py", "from mobilenets.costs import count"),
        ("costs/x.py", "def f():\n    from mobilenets.infer import walk"),
        ("infer/x.py", "def f():\n    import torch.nn"),
        ("infer/x.py", "import h5py"),
        ("infer/x.py", "from mobilenets import train"),
        ("infer/x.py", "from ..train import run"),
        ("infer/x.py", "import importlib\nimportlib.import_module('torch')"),
        ("infer/x.py", "def f(x):\n    import_module(x)"),
        ("data/x.py", "from mobilenets.model.module import Module"),
        ("model/x.py", "from mobilenets.train import run"),
        ("train/x.py", "def f():\n    from mobilenets import report"),
        ("cli.py", "import torch"),
        ("cli.py", "from mobilenets.train.run import Run"),
    ],
)
def test_an_arrow_uphill_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, line: str
) -> None:
    monkeypatch.setitem(globals(), "SOURCE", tmp_path / PACKAGE)
    file = tmp_path / PACKAGE / place
    file.parent.mkdir(parents=True)
    file.write_text(line)
    assert len(uphill(file)) == 1


def test_nothing_below_the_roof_prints() -> None:
    printing = [
        f"{file.name}:{node.lineno}"
        for file in FILES
        if room(file) != "roof"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ("torch", "typer", "rich", "PIL", "scipy", "matplotlib", "h5py", "keras")
    script = f"import sys, mobilenets; print(*(set({heavy!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_command_line_starts_without_what_learns() -> None:
    heavy = ("torch", "scipy", "matplotlib", "h5py", "keras")
    script = f"import sys, mobilenets.cli; print(*(set({heavy!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_public_names_are_these_and_all_exist() -> None:
    script = (
        "import mobilenets; print(*mobilenets.__all__); [getattr(mobilenets, n) for n in mobilenets.__all__]"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    assert set(names) == PUBLIC
    assert len(names) == len(PUBLIC)


def test_one_version_is_told_everywhere() -> None:
    import mobilenets

    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert mobilenets.__version__ == told
    assert f"version: {told}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {told}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_file_is_short_named_for_a_thing_and_opens_with_what_it_knows() -> None:
    wrong = []
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        if text.count("\n") > LONGEST:
            wrong.append(f"{file.name}: {text.count(chr(10))} lines, more than {LONGEST}")
        if file.stem in NAMELESS:
            wrong.append(f"{file.name}: named for nothing")
        if not (ast.get_docstring(ast.parse(text)) or "").strip():
            wrong.append(f"{file.relative_to(SOURCE)}: does not say what it knows")
    assert wrong == []


def test_no_tracked_file_names_a_place_on_one_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("no git checkout: which files are tracked is not known")
    place = re.compile(rb"(?<![\w.])/(work|tmp/w|home/\w+|Users/\w+)/")
    naming = [
        name
        for name in listed.stdout.split("\0")
        if name and (ROOT / name).is_file() and place.search((ROOT / name).read_bytes())
    ]
    assert naming == []
