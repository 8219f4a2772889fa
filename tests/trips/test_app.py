"""The camera app in a real browser: it names what the camera shows, learns on the device, and stays there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import MARKS, PIXEL, added, browsing, film, frames_of, handed, opened, running, served, until
from PIL import Image

from mobilenets.infer.engine import NumpyEngine

pytestmark = MARKS


def test_the_app_says_how_large_it_is_and_is_verified(phone: Any) -> None:
    folder, _, facts = phone
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    assert facts["files"] == {name: file.stat().st_size for name, file in files.items()}
    assert facts["bytes"] == sum(facts["files"].values())
    for builds in facts["certificates"].values():
        for one in builds.values():
            assert one["unverified"] is None
            assert all(error["largest"] == 0 for error in one["largest_error"].values())


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640)])
def test_it_names_what_the_camera_shows_as_the_reference_does_bit_for_bit(
    phone: Any, shown: dict[str, list[np.ndarray]], tmp_path: Path, width: int, height: int
) -> None:
    folder, model, _ = phone
    every = [picture for own in shown.values() for picture in own[:2]]
    camera = film(tmp_path / "camera.y4m", every, width, height, each=2)
    with served(folder) as address, browsing(camera, permissions=["camera"], **PIXEL) as context:
        page = opened(context, address, most=20)
        page.uncheck("#smooth")
        page.evaluate("seen.length = 0")
        until(page, "seen.length === 20")
        seen = frames_of(page)
        assert page.wrong == []
        assert {url for url in page.asked if not url.startswith((address, f"blob:{address}"))} == set()
    reference = NumpyEngine(model)
    assert len({one["pixels"] for one in seen}) >= 5
    for one in seen:
        assert one["frame"].shape == (height, width, 3)
        wanted = reference(one["frame"])
        np.testing.assert_array_equal(np.float32(one["logits"]), wanted["logits"])
        np.testing.assert_array_equal(np.float32(one["features"]), wanted["features"])
        best = float(wanted["logits"].max())
        unsure = model.threshold is not None and best < model.threshold
        assert one["label"] == ("Not sure" if unsure else model.labels[int(wanted["logits"].argmax())])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_stands_in_the_way_of_keyboards_and_screen_readers(
    phone: Any, camera: Path, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    folder, _, _ = phone
    how = {**PIXEL, "color_scheme": scheme, "permissions": ["camera"], "bypass_csp": True}
    with served(folder) as address, browsing(camera, **how) as context:
        page = opened(context, address)
        looks = axe.Axe()

        def wrong() -> list[tuple[str, str]]:
            found = looks.run(page).response["violations"]
            return [(one["id"], one["nodes"][0]["html"]) for one in found]

        def reached() -> set[str]:
            found = set()
            for _ in range(40):
                page.keyboard.press("Tab")
                found.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
            return found

        assert wrong() == []
        assert {"look", "teach", "freeze", "picture", "share", "smooth"} <= reached()
        page.click("#teach")
        added(page, None)
        assert wrong() == []
        assert {"look", "teach", "name", "hold", "files", "remove", "new", "undo", "import"} <= reached()
        page.evaluate(
            "document.querySelector('video').srcObject.getTracks()[0].dispatchEvent(new Event('ended'))"
        )
        page.wait_for_selector("#retry", state="visible")
        assert wrong() == []
        assert "retry" in reached()


REFUSED = (
    "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', 'NotAllowedError'); };"
)
HELD = REFUSED.replace("NotAllowedError", "NotReadableError")
NONE = REFUSED.replace("NotAllowedError", "NotFoundError")
FULL = "IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); };"
LATE = """
const { put } = IDBObjectStore.prototype;
IDBObjectStore.prototype.put = function (...given) {
    setTimeout(() => this.transaction.abort());
    return put.apply(this, given);
};
"""
CLOSED = """
const { transaction } = IDBDatabase.prototype;
let times = 0;
IDBDatabase.prototype.transaction = function (...given) {
    if (times++ === 3) this.close();
    return transaction.apply(this, given);
};
"""


@pytest.mark.parametrize(
    ("script", "text"),
    [(REFUSED, "was not allowed"), (HELD, "Another program"), (NONE, "no camera here")],
)
def test_without_a_camera_it_says_why_and_takes_pictures(
    phone: Any, shown: dict[str, list[np.ndarray]], tmp_path: Path, script: str, text: str
) -> None:
    folder, model, _ = phone
    file = tmp_path / "picture.png"
    Image.fromarray(shown["crab"][0]).save(file)
    with served(folder) as address, browsing(None, **PIXEL) as context:
        page = context.new_page()
        page.add_init_script(script)
        page.goto(address)
        until(page, "!document.querySelector('#trouble').hidden")
        assert text in page.inner_text("#why")
        assert page.is_visible("#retry")
        handed(page, "#picture", file)
        until(page, "document.querySelector('#bars li')")
        assert page.is_hidden("#trouble")
        best = model.labels[int(NumpyEngine(model)(shown["crab"][0])["logits"].argmax())]
        assert page.inner_text("#label") in (best, "Not sure")


@pytest.mark.parametrize(
    ("script", "said"), [(FULL, "storage is full"), (LATE, "keeps nothing here now"), (CLOSED, "Teach two")]
)
def test_a_camera_that_goes_away_and_what_storage_does_are_told(
    phone: Any, camera: Path, script: str, said: str
) -> None:
    folder, _, _ = phone
    with served(folder) as address, browsing(camera, permissions=["camera"]) as context:
        context.add_init_script(script)
        page = opened(context, address)
        page.click("#teach")
        added(page, None)
        until(page, f"document.querySelector('#told').textContent.includes('{said}')")
        page.evaluate(
            "document.querySelector('video').srcObject.getTracks()[0].dispatchEvent(new Event('ended'))"
        )
        until(page, "!document.querySelector('#trouble').hidden")
        assert "camera is gone" in page.inner_text("#why")
        page.click("#retry")
        until(page, "document.querySelector('#trouble').hidden")


@pytest.mark.parametrize("file", ["main.js", "words.js", "camera.js"])
def test_a_page_whose_own_code_does_not_come_says_so(phone: Any, file: str) -> None:
    folder, _, _ = phone
    with running(folder) as server, browsing(None) as context:
        del server.content[file]
        page = context.new_page()
        page.goto(f"http://localhost:{server.server_port}/")
        page.wait_for_timeout(3500)
        assert "Load the page again" in page.inner_text("body")
        assert page.is_visible("#stuck")
        assert page.is_hidden("main")


@pytest.mark.parametrize(
    ("file", "change", "text"),
    [
        (
            "worker.js",
            lambda data: data.replace(b"!WebAssembly.validate(SIMD)", b"true"),
            "lacks WebAssembly SIMD",
        ),
        ("models/five/net.js", lambda data: None, "did not arrive"),
        ("models/five/net.weights", lambda data: data[:1000], "did not arrive"),
        ("models/five/model.json", lambda data: data[:100], "did not arrive"),
        ("app.json", lambda data: b"", "did not arrive"),
        ("worker.js", lambda data: None, "did not arrive"),
        ("head.js", lambda data: data[:100], "did not arrive"),
    ],
)
def test_a_part_that_did_not_come_is_named_and_can_be_had_again(
    phone: Any, camera: Path, file: str, change: Callable[[bytes], bytes], text: str
) -> None:
    folder, _, _ = phone
    with running(folder) as server, browsing(camera, permissions=["camera"]) as context:
        whole = dict(server.content)
        server.content[file] = change(whole[file])
        del server.content["sw.js"]
        page = context.new_page()
        page.goto(f"http://localhost:{server.server_port}/")
        until(page, "!document.querySelector('#trouble').hidden")
        assert text in page.inner_text("#why")
        if "SIMD" in text:
            return  # another browser is the way on
        server.content.update(whole)
        page.click("#retry")
        until(page, "document.querySelector('#bars li')")
        assert page.is_hidden("#trouble")
