"""A real browser for tests: films for its fake camera, an app's folder served, what pages saw."""

from __future__ import annotations

import base64
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ALWAYS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage")
OFFLINE = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
FAKE = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
PIXEL = {"viewport": {"width": 412, "height": 915}, "device_scale_factor": 2.6, "has_touch": True}
MARKS = [
    pytest.mark.slow,
    # playwright leaves pipes of its own to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
WATCH = """
globalThis.seen = [];
globalThis.onseen = ({ pixels, width, height, label, logits, features, ms }) => {
    let text = "";
    const some = (at) => String.fromCharCode(...pixels.subarray(at, at + 32768));
    for (let at = 0; at < pixels.length; at += 32768) text += some(at);
    const answer = { label, logits: [...logits], features: [...features], ms };
    if (seen.length < MOST) seen.push({ pixels: btoa(text), width, height, ...answer });
};
"""


def film(place: Path, pictures: Sequence[Any], width: int = 640, height: int = 480, each: int = 3) -> Path:
    """Pictures, `each` of them for so many frames at ten a second, as a file that stands for a camera."""
    with place.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F10:1 Ip A1:1 C420jpeg\n".encode())
        for picture in pictures:
            levels = np.asarray(Image.fromarray(picture).resize((width, height)).convert("YCbCr"))
            chroma = levels[:, :, 1:].reshape(height // 2, 2, width // 2, 2, 2).mean((1, 3)).round()
            planes = (levels[:, :, 0], chroma[:, :, 0].astype(np.uint8), chroma[:, :, 1].astype(np.uint8))
            file.write((b"FRAME\n" + b"".join(plane.tobytes() for plane in planes)) * each)
    return place


@contextmanager
def running(folder: Path) -> Iterator[Any]:
    """A server of an app's files, whose `content` a test may change."""
    from mobilenets.app.serving import server

    with server(folder) as made:
        thread = Thread(target=made.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()


def at(server: Any) -> str:
    """Where the app of a server is."""
    return f"http://localhost:{server.server_port}{server.place}"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of an app's files."""
    with running(folder) as made:
        yield at(made)


@contextmanager
def browsing(camera: Path | None, *flags: str, home: Path | None = None, **how: Any) -> Iterator[Any]:
    """A browser's context, with a film for its camera; `home` keeps what it stores."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next((found for found in map(shutil.which, NAMES) if found), None)
    if program is None:
        pytest.skip("no browser on this machine")
    films = [*FAKE, f"--use-file-for-fake-video-capture={camera}"] if camera else []
    options = {"executable_path": program, "args": [*ALWAYS, *OFFLINE, *films, *flags]}
    with playwright.sync_playwright() as run:
        if home is not None:
            context = run.chromium.launch_persistent_context(str(home), **options, **how)
            yield context
            context.close()
            return
        browser = run.chromium.launch(**options)
        yield browser.new_context(**how)
        browser.close()


def opened(context: Any, address: str, most: int = 0) -> Any:
    """A page of the app that has begun to answer; all that it asked for, and all that went wrong, is kept."""
    page = context.new_page()
    page.asked, page.wrong = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda one: page.wrong.append(one.text) if one.type == "error" else None)
    if most:
        page.add_init_script(WATCH.replace("MOST", str(most)))
    page.goto(address)
    until(page, "document.querySelector('#bars li')")
    return page


def until(page: Any, true: str, seconds: float = 60) -> None:
    """Waits until an expression is true; the page's policy lets playwright's own waiting evaluate nothing."""
    ends = time.monotonic() + seconds
    while not page.evaluate(true):
        assert time.monotonic() < ends, f"{true} is not true: {page.inner_text('body')}"
        page.wait_for_timeout(50)


def rows(page: Any, count: int) -> None:
    """Waits until so many classes are shown."""
    until(page, f"document.querySelectorAll('.hold').length === {count}")


def added(page: Any, *names: str | None) -> None:
    """New classes after those there are, each with its name or, for None, with the app's."""
    for name in names:
        number = page.locator(".hold").count()
        page.click("#new")
        rows(page, number + 1)
        if name is not None:
            page.locator(".name").nth(number).fill(name)
            page.locator(".name").nth(number).blur()


def handed(page: Any, button: str, files: Any, number: int = 0) -> None:
    """Files, to one of the buttons that ask for some."""
    with page.expect_file_chooser() as chooser:
        page.locator(button).nth(number).click()
    chooser.value.set_files(files)


def frames_of(page: Any) -> list[dict[str, Any]]:
    """What a page that runs WATCH has seen: each frame's RGB and what was answered."""
    found = page.evaluate("globalThis.seen")
    for one in found:
        levels = np.frombuffer(base64.b64decode(one["pixels"]), np.uint8)
        one["frame"] = np.ascontiguousarray(levels.reshape(one["height"], one["width"], 4)[:, :, :3])
    return found  # type: ignore[no-any-return]
