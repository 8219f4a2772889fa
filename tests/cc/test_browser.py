"""Compiled WebAssembly in a real browser: a page loads it, with and without threads, and asks it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import numpy as np
import pytest

from mobilenets.compile.build import build, write
from mobilenets.compile.source import compiled
from mobilenets.compile.target import TARGETS, family
from mobilenets.infer.engine import NumpyEngine
from mobilenets.spec import zoo
from mobilenets.spec.head import classify

from .conftest import filled

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage")
LIMIT_S = 60.0
SIDE = 48
PAGE = """<!doctype html><title>page</title><script type="module">
const told = {};
try {
    const { load } = await import("./tested.mjs");
    const pixels = new Uint8Array(await (await fetch("frame.rgba")).arrayBuffer());
    const net = await load({ threads: THREADS });
    for (let i = 0; i < 20; i++) told.logits = Array.from(net.run(pixels, 70, 50).logits);
    told.labels = net.labels;
    net.close();
} catch (error) {
    told.error = String(error);
}
await fetch("told", { method: "POST", body: JSON.stringify(told) });
</script>"""


class Handler(SimpleHTTPRequestHandler):
    """Files of a folder, isolated from other origins; what a page posts goes into a queue."""

    def __init__(self, told: Queue[Any], *rest: Any, **named: Any) -> None:
        self._told = told
        super().__init__(*rest, **named)

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def do_POST(self) -> None:
        self._told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Queue[Any]]]:
    told: Queue[Any] = Queue()
    (tmp_path / "site").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, told, directory=str(tmp_path / "site")))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", told
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("name", "threads"), [("wasm", 1), ("wasm-threads", 1), ("wasm-threads", 2)])
def test_a_page_gets_the_references_outputs(
    served: tuple[str, Queue[Any]], tmp_path: Path, name: str, threads: int
) -> None:
    pytest.importorskip("ziglang", reason="ziglang, the cross compiler, is not installed")
    program = next((found for found in map(shutil.which, NAMES) if found), None)
    if program is None:
        pytest.skip("no browser on this machine")
    address, told = served
    site = tmp_path / "site"
    model = filled(classify(zoo.v1(0.25, SIDE), 3), labels=("one", "two", "Bäumchen 🌳"))
    source = compiled(model, "tested", family(TARGETS[name]))
    write(source, site)
    build(source, TARGETS[name], site)
    frame = np.random.default_rng(0).integers(0, 256, (50, 70, 4), dtype=np.uint8)
    (site / "frame.rgba").write_bytes(frame.tobytes())
    (site / "index.html").write_text(PAGE.replace("THREADS", str(threads)))
    words = [program, *FLAGS, f"--user-data-dir={tmp_path / 'home'}", address]
    browser = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        got = told.get(timeout=LIMIT_S)
    finally:
        browser.kill()
        browser.wait()
    assert "error" not in got, got
    assert got["labels"] == list(model.labels)
    wanted = NumpyEngine(model)(np.ascontiguousarray(frame[:, :, :3]))["logits"]
    assert got["logits"] == pytest.approx(wanted.tolist(), abs=1e-5)
