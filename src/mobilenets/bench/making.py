"""The file that each engine reads, made once by a process of its own and kept under the model's digest."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from importlib import import_module, metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

from mobilenets.bench.engines import Engine, version
from mobilenets.bench.keeping import made_whole

LIMIT_S = 900
MADE_BY = ("onnx", "onnxruntime", "openvino", "nncf", "ai-edge-quantizer", "torchao")
"""What a file depends on besides the engine itself."""


def made(engine: Engine, source: Path) -> Path:
    """The folder with the file of `engine`. Raises RuntimeError, one line, where it cannot be made."""
    place = source / f"{engine.module}-{engine.kind}-{_key(engine)}"
    if place.exists():
        return place
    with made_whole(place) as part:
        job = {"module": engine.module, "source": str(source), "place": str(part), "dtype": engine.kind}
        words = [sys.executable, "-m", "mobilenets.bench.making", json.dumps(job)]
        try:
            done = subprocess.run(words, capture_output=True, timeout=LIMIT_S, check=False, text=True)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"its file was not made within {LIMIT_S} s") from error
        if done.returncode:
            raise RuntimeError(last_line(done.stderr) or f"making its file ended with {done.returncode}")
    return place


def artefact_bytes(place: Path, source: Path) -> int:
    """Bytes of what an engine reads: of its own file, or of the model file where it has none."""
    own = [file for file in place.rglob("*") if file.is_file()]
    library = [file for file in own if file.suffix == ".so"]
    model = source / "model.safetensors"
    chosen = library or own or ([model] if model.exists() else [])
    return sum(file.stat().st_size for file in chosen)


def last_line(text: str) -> str:
    """What a process said last, which is where Python names its error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _key(engine: Engine) -> str:
    """What the file depends on besides the model: versions, and for ours the compiler itself."""
    total = hashlib.sha256(f"{version(engine)} {os.environ.get('CC', '')}".encode())
    for name in MADE_BY:
        try:
            total.update(f"{name} {metadata.version(name)}".encode())
        except metadata.PackageNotFoundError:
            continue
    rooms = ["mobilenets.bench.peers", "mobilenets.bench.formats", "mobilenets.bench.native"]
    own = ["mobilenets.compile", "mobilenets.infer"]
    if engine.module == "ours":
        rooms = own
    elif engine.module == "board":
        rooms += own
    for room in rooms:
        for file in sorted(files(room).iterdir(), key=lambda file: file.name):
            if file.name.endswith((".py", ".c", ".h")):
                total.update(file.read_bytes())
    return total.hexdigest()[:12]


def main() -> None:
    job: dict[str, Any] = json.loads(sys.argv[1])
    peer = import_module(f"mobilenets.bench.peers.{job['module']}")
    try:
        peer.make(Path(job["source"]), Path(job["place"]), job["dtype"])
    except ModuleNotFoundError as error:
        sys.exit(f"its file needs {error.name}: pip install 'mobilenets[bench]'")
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(" ".join(str(error).split()))


if __name__ == "__main__":
    main()
