"""What the trips share: the command line as a process, slices of real pictures, one model taught once."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CLASSES = ("Faces", "ant", "barrel", "bonsai", "crab")
PER_CLASS = 40
TINY_CLASSES = ("n01443537", "n01629819", "n01641577")
LIMIT_S = 300


@dataclass(frozen=True)
class Told:
    """What one command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> dict[str, Any]:
        """The one JSON object on stdout; numbers that are not finite are an error."""
        assert self.out.count("\n") == 1, self.out
        assert self.out.endswith("\n")
        made = json.loads(self.out, parse_constant=_refused)
        assert isinstance(made, dict)
        return made


class Quiet:
    """What hears of progress and keeps it to itself."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...

    def row(self, head: object, cells: object) -> None: ...


def _refused(name: str) -> None:
    raise AssertionError(f"{name} in JSON")


@dataclass(frozen=True)
class Taught:
    """A model that was retrained once for all: its data set, where it lies, what `--json` said."""

    folder: Path
    out: Path
    facts: dict[str, Any]

    @property
    def model(self) -> Path:
        return self.out / "model.safetensors"


@pytest.fixture(scope="session", autouse=True)
def _interrupts() -> Iterator[None]:
    """Behind a shell's `&` interrupts are ignored, and every command would inherit that."""
    own = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, own)


@pytest.fixture(scope="session")
def unpacked(material: Path) -> Callable[[Path, int], Path]:
    """Three classes of small pictures with parts of their own: so many to learn from, ten or fewer to judge
    by."""

    def into(folder: Path, learned: int) -> Path:
        with tarfile.open(material / "data" / "tiny-imagenet-22k.tar") as archive:
            members = [
                m for m in archive.getmembers() if m.isfile() and m.name.split("/")[-2] in TINY_CLASSES
            ]
            for part, most in (("train", learned), ("val", 10)):
                for label in TINY_CLASSES:
                    own = [m for m in members if m.name.split("/")[-3:-1] == [part, label]]
                    for member in sorted(own, key=lambda m: m.name)[:most]:
                        data = archive.extractfile(member)
                        assert data is not None
                        place = folder / part / label / Path(member.name).name
                        place.parent.mkdir(parents=True, exist_ok=True)
                        place.write_bytes(data.read())
        return folder

    return into


@pytest.fixture(scope="session")
def tiny(unpacked: Callable[[Path, int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With few pictures, so that an epoch is short."""
    return unpacked(tmp_path_factory.mktemp("tiny"), 24)


@pytest.fixture(scope="session")
def quiet() -> Quiet:
    return Quiet()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def surroundings(cache: Path) -> dict[str, str]:
    """The environment of every command: a cache of its own, no network, nothing of the user's."""
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "XDG_CACHE_HOME")}
    home = cache.parent
    own = {"MOBILENETS_CACHE": str(cache), "MOBILENETS_OFFLINE": "1", "HF_HOME": str(home / "hf")}
    return {**kept, **own, "KERAS_HOME": str(home / "keras"), "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="session")
def ask(surroundings: dict[str, str]) -> Callable[..., Told]:
    """Runs `mobilenets …`; fails where the exit code is another than `code`, or a traceback shows."""

    def run(
        *arguments: object,
        stdin: bytes = b"",
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        code: int = 0,
        before: Callable[[], None] | None = None,
    ) -> Told:
        done = subprocess.run(
            [sys.executable, "-m", "mobilenets", *map(str, arguments)],
            input=stdin,
            capture_output=True,
            cwd=cwd,
            env={**surroundings, **(env or {})},
            timeout=LIMIT_S,
            check=False,
            preexec_fn=before,
        )
        told = Told(done.returncode, done.stdout.decode(), done.stderr.decode(errors="backslashreplace"))
        assert "Traceback" not in told.err, told.err
        assert "Warning" not in told.err, told.err
        assert told.code == code, f"exit code {told.code}: {told.err}"
        return told

    return run


@pytest.fixture(scope="session")
def refuse(ask: Callable[..., Told]) -> Callable[..., str]:
    """Runs a command that is a user's mistake: exit code 2, an empty stdout, and one line, which it gives."""

    def run(*arguments: object, **how: Any) -> str:
        told = ask(*arguments, code=2, **how)
        assert told.out == ""
        return _one_complaint(told.err)

    return run


@pytest.fixture(scope="session")
def refuse_each(surroundings: dict[str, str]) -> Callable[..., list[str]]:
    """`refuse` for many commands in one process, so that a process need not start for each of them."""

    def run(*commands: Sequence[object], env: dict[str, str] | None = None) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", EACH],
            input="\n".join(json.dumps([str(part) for part in command]) for command in commands),
            capture_output=True,
            env={**surroundings, **(env or {})},
            timeout=LIMIT_S,
            check=False,
            text=True,
        )
        assert done.stdout == ""
        said = done.stderr.split("\0")
        assert [part[0] for part in said[1:]] == ["2"] * len(commands), done.stderr
        return [_one_complaint(text if number == 0 else text[1:]) for number, text in enumerate(said[:-1])]

    return run


EACH = """
import json, sys
from mobilenets.entry import run
for line in sys.stdin.read().splitlines():
    print(end=f"\\0{run(json.loads(line))}", file=sys.stderr, flush=True)
"""


def _one_complaint(err: str) -> str:
    """The one line that is no progress."""
    lines = [line for line in err.splitlines() if not re.fullmatch(r"\w+ \d+/\d+", line)]
    assert len(lines) == 1, err
    assert lines[0].startswith("mobilenets: ")
    assert err.endswith("\n")
    return lines[0]


@pytest.fixture(scope="session")
def body25(material: Path) -> Path:
    """The smallest weights: V1 0.25 at 128."""
    return material / "weights" / "mobilenet_v1_0.25_128_quant.tflite"


@pytest.fixture(scope="session")
def five(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five classes of Caltech-101 with forty pictures each. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("five")
    with tarfile.open(material / "data" / "caltech101.tar") as archive:
        chosen = [one for one in archive.getmembers() if Path(one.name).parent.name in CLASSES]
        for label in CLASSES:
            own = sorted((m for m in chosen if Path(m.name).parent.name == label), key=lambda m: m.name)
            for member in own[:PER_CLASS]:
                data = archive.extractfile(member)
                assert data is not None
                place = folder / label / Path(member.name).name
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(data.read())
    return folder


@pytest.fixture(scope="session")
def slice_of(five: Path) -> Callable[..., Path]:
    """Copies some pictures of some classes; `names` renames classes."""

    def copy(
        to: Path,
        classes: int = 3,
        each: int = 8,
        *,
        first: int = 0,
        names: Sequence[str] = CLASSES,
    ) -> Path:
        for label, name in list(zip(CLASSES, names, strict=True))[:classes]:
            (to / name).mkdir(parents=True, exist_ok=True)
            for picture in sorted((five / label).iterdir())[first : first + each]:
                shutil.copy(picture, to / name / picture.name)
        return to

    return copy


@pytest.fixture(scope="session")
def taught(
    five: Path, body25: Path, ask: Callable[..., Told], tmp_path_factory: pytest.TempPathFactory
) -> Taught:
    """One features-only retraining on two hundred pictures, seed 0, with a threshold for `unknown`."""
    out = tmp_path_factory.mktemp("taught") / "out"
    told = ask("retrain", five, "--out", out, "--weights", body25, "--unknown", "--watts", 2.1, "--json")
    return Taught(five, out, told.facts)


@pytest.fixture(scope="session")
def phone(taught: Any, ask: Callable[..., Told], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of five classes in bytes, and the app of it."""
    from mobilenets.data.calibration import listed, pictures
    from mobilenets.infer import artefact
    from mobilenets.infer.quantise import quantise

    pytest.importorskip("ziglang", reason="ziglang, the cross compiler, is not installed")
    place = tmp_path_factory.mktemp("phone")
    model = artefact.load(taught.model)
    small = quantise(model, pictures(listed(taught.folder), model.preprocess, most=48).levels)
    artefact.save(small, place / "five.safetensors")
    facts = ask(
        "app", place / "five.safetensors", "--out", place / "app", "--title", "Five things", "--json"
    ).facts
    return place / "app", artefact.load(place / "five.safetensors"), facts


@pytest.fixture(scope="session")
def shown(five: Path) -> dict[str, list[Any]]:
    """Four pictures of each class."""
    from mobilenets.infer.image import decode

    return {
        folder.name: [decode(file.read_bytes()) for file in sorted(folder.iterdir())[:4]]
        for folder in sorted(five.iterdir())
    }


@pytest.fixture(scope="session")
def camera(shown: dict[str, list[Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of two of each class."""
    from browser import film

    every = [picture for own in shown.values() for picture in own[:2]]
    return film(tmp_path_factory.mktemp("film") / "camera.y4m", every)


BAN = """
import sys
BANNED = {banned!r}
class Ban:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BANNED:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Ban())
"""


@pytest.fixture
def without(surroundings: dict[str, str], tmp_path: Path) -> Callable[..., dict[str, str]]:
    """An environment in which some modules cannot be imported, as on a machine that never got them."""

    def banned(*names: str) -> dict[str, str]:
        place = tmp_path / "banned"
        place.mkdir(exist_ok=True)
        (place / "sitecustomize.py").write_text(BAN.format(banned=names))
        rest = surroundings.get("PYTHONPATH")
        return {"PYTHONPATH": f"{place}{os.pathsep}{rest}" if rest else str(place)}

    return banned


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A place where no folder can be made or written, by root neither."""
    if os.geteuid() == 0:  # may write everywhere, but not make a folder in there
        if not Path("/proc/self").exists():
            pytest.skip("root may write everywhere, and there is no /proc")
        return Path("/proc/mobilenets")
    out = tmp_path / "closed"
    out.mkdir(0o500)
    return out
