"""What a person does with the camera app: turn the camera, light, freeze, pictures instead, share."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import MARKS, PIXEL, WATCH, added, browsing, film, frames_of, handed, opened, served, until
from PIL import Image

from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.image import decode

pytestmark = MARKS
ORIENTATION = 0x0112
TORCH = """
globalThis.lights = [];
const { getCapabilities } = MediaStreamTrack.prototype;
MediaStreamTrack.prototype.getCapabilities = function () {
    return { ...getCapabilities.call(this), torch: true };
};
MediaStreamTrack.prototype.applyConstraints = async ({ advanced: [{ torch }] }) => { lights.push(torch); };
"""
ASKED = """
globalThis.sides = [];
{
const { mediaDevices } = navigator, { getUserMedia } = mediaDevices;
mediaDevices.getUserMedia = (how) => (sides.push(how.video.facingMode), getUserMedia.call(mediaDevices, how));
}
"""
ONE_WAY = """
const { getSettings } = MediaStreamTrack.prototype;
MediaStreamTrack.prototype.getSettings = function () {
    return { ...getSettings.call(this), facingMode: "user" };
};
"""
DEVICE = "document.querySelector('video').srcObject?.getVideoTracks()[0]?.getSettings().deviceId"
SHARES = """
globalThis.shares = [];
navigator.canShare = ({ files }) => files.length === 1;
navigator.share = async ({ files: [file] }) => { shares.push([file.name, file.type, file.size]); };
"""
DROP = """
([name, type, text]) => {
    const given = new DataTransfer();
    given.items.add(new File([Uint8Array.from(atob(text), (one) => one.charCodeAt(0))], name, { type }));
    for (const kind of ["dragover", "drop"])
        document.querySelector("#view").dispatchEvent(
            new DragEvent(kind, { dataTransfer: given, bubbles: true, cancelable: true }));
}
"""


def test_a_second_camera_and_a_light_are_offered_where_there_are_some(phone: Any, camera: Path) -> None:
    folder, _, _ = phone
    two = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream=device-count=2")
    with served(folder) as address, browsing(None, *two, permissions=["camera"]) as context:
        context.add_init_script(TORCH)
        context.add_init_script(ASKED)
        page = opened(context, address)
        before = page.evaluate(DEVICE)
        page.click("#flip")
        until(page, "sides.length === 2")
        until(page, f"{DEVICE} !== undefined && {DEVICE} !== '{before}'")
        page.click("#torch")
        until(page, "document.querySelector('#torch').getAttribute('aria-pressed') === 'true'")
        page.click("#torch")
        until(page, "lights.length === 2")
        assert page.evaluate("lights") == [True, False]
    with served(folder) as address, browsing(None, *two, permissions=["camera"]) as context:
        context.add_init_script(ONE_WAY)
        context.add_init_script(ASKED)
        page = opened(context, address)
        for _ in range(3):
            before = page.evaluate(DEVICE)
            page.click("#flip")
            until(page, f"{DEVICE} !== undefined && {DEVICE} !== '{before}'")
        assert page.evaluate("sides[1]") == "environment"  # the one that looks the other way, were there one
    with served(folder) as address, browsing(camera, permissions=["camera"]) as context:
        page = opened(context, address)
        assert page.is_hidden("#torch")
        assert page.is_hidden("#flip")


SLOW = """
globalThis.streams = [];
const { mediaDevices } = navigator, { getUserMedia } = mediaDevices;
mediaDevices.getUserMedia = async (how) => {
    const stream = await getUserMedia.call(mediaDevices, how);
    streams.push(stream);
    await new Promise((done) => setTimeout(done, 1500));
    return stream;
};
"""


def test_of_two_openings_the_later_stays_and_a_picture_is_not_taken_away(
    phone: Any, shown: dict[str, list[np.ndarray]], camera: Path, tmp_path: Path
) -> None:
    folder, _, _ = phone
    Image.fromarray(shown["ant"][0]).save(tmp_path / "ant.png")
    alive = "streams.flatMap((one) => one.getTracks()).filter((one) => one.readyState === 'live').length"
    with served(folder) as address, browsing(camera, permissions=["camera"]) as context:
        context.add_init_script(SLOW)
        page = context.new_page()
        page.goto(address)
        until(page, "streams.length === 1")
        handed(page, "#picture", tmp_path / "ant.png")
        page.wait_for_timeout(2500)
        assert page.is_visible("#still")
        assert page.evaluate(alive) == 0
        assert "ms for this picture" in page.inner_text("#pace")
        for _ in range(2):
            page.locator("#camera").dispatch_event("click")
        until(page, "document.querySelector('#pace').textContent.includes('frames a second')")
        page.wait_for_timeout(2000)
        assert page.evaluate(alive) == 1


def test_a_frozen_frame_has_an_answer_of_its_own(
    phone: Any, shown: dict[str, list[np.ndarray]], tmp_path: Path
) -> None:
    folder, model, _ = phone
    pictures = [picture for group in shown.values() for picture in group]
    camera = film(tmp_path / "all.y4m", pictures, each=3)
    with served(folder) as address, browsing(camera, permissions=["camera"]) as context:
        page = opened(context, address, most=5000)
        for _ in range(6):
            page.wait_for_timeout(700)
            page.click("#freeze")
            page.wait_for_timeout(300)
            scores = np.float32(page.evaluate("seen.at(-1).logits"))
            share = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
            assert page.inner_text("#bars li:first-child").split("\n") == [
                model.labels[int(scores.argmax())],
                f"{100 * share.max():.0f} %",
            ]
            page.click("#freeze")
        assert page.wrong == []


def test_a_frozen_frame_stays_and_can_be_taught(phone: Any, camera: Path) -> None:
    folder, _, _ = phone
    with served(folder) as address, browsing(camera, permissions=["camera"], **PIXEL) as context:
        page = opened(context, address, most=1000)
        page.click("#freeze")
        page.wait_for_timeout(300)
        before = page.evaluate("seen.length")
        page.wait_for_timeout(800)
        assert page.evaluate("seen.length") == before
        page.click("#teach")
        added(page, None)
        hold = page.locator(".hold")
        hold.scroll_into_view_if_needed()
        hold.dispatch_event("pointerdown", {"pointerId": 1})
        until(page, "document.querySelector('.count').textContent.startsWith('1 ')")
        hold.dispatch_event("pointerup", {"pointerId": 1})
        page.click("#freeze")
        until(page, f"seen.length > {before + 3}")
        assert page.inner_text(".count").startswith("1 ")


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_a_picture_is_turned_as_its_camera_was_held(
    phone: Any, shown: dict[str, list[np.ndarray]], tmp_path: Path, turn: int
) -> None:
    folder, model, _ = phone
    told = Image.Exif()
    told[ORIENTATION] = turn
    file = tmp_path / "turned.jpg"
    Image.fromarray(shown["Faces"][0]).save(file, quality=95, subsampling=0, exif=told)
    wanted = decode(file.read_bytes())
    with served(folder) as address, browsing(None) as context:
        page = context.new_page()
        page.add_init_script(WATCH.replace("MOST", "9"))
        page.goto(address)
        until(page, "!document.querySelector('#picture').disabled")
        handed(page, "#picture", file)
        until(page, "seen.length")
        [seen] = frames_of(page)
    assert seen["frame"].shape == wanted.shape
    assert np.abs(seen["frame"].astype(int) - wanted).max() <= 2
    np.testing.assert_array_equal(np.float32(seen["logits"]), NumpyEngine(model)(seen["frame"])["logits"])


def test_a_picture_that_is_dropped_is_looked_at_and_the_camera_comes_back(
    phone: Any, shown: dict[str, list[np.ndarray]], camera: Path
) -> None:
    folder, model, _ = phone
    with served(folder) as address, browsing(camera, permissions=["camera"], **PIXEL) as context:
        page = opened(context, address, most=1000)
        data = io.BytesIO()
        Image.fromarray(shown["ant"][0]).save(data, "PNG")
        page.evaluate(DROP, ["ant.png", "image/png", base64.b64encode(data.getvalue()).decode()])
        page.wait_for_selector("#still", state="visible")
        until(page, f"seen.at(-1).width === {shown['ant'][0].shape[1]}")
        seen = frames_of(page)[-1]
        np.testing.assert_array_equal(seen["frame"], shown["ant"][0])
        wanted = NumpyEngine(model)(shown["ant"][0])["logits"]
        np.testing.assert_array_equal(np.float32(seen["logits"]), wanted)
        clear = np.dstack([shown["ant"][0], np.full(shown["ant"][0].shape[:2], 255, np.uint8)])
        clear[: len(clear) // 2, :, 3] = 0  # on white, as where a model learns
        data = io.BytesIO()
        Image.fromarray(clear).save(data, "PNG")
        before = page.evaluate("seen.length")
        page.evaluate(DROP, ["clear.png", "image/png", base64.b64encode(data.getvalue()).decode()])
        until(page, f"seen.length > {before}")
        np.testing.assert_array_equal(frames_of(page)[-1]["frame"], decode(data.getvalue()))
        page.evaluate(DROP, ["notes.txt", "text/plain", base64.b64encode(b"no picture").decode()])
        page.wait_for_selector("#trouble", state="visible")
        assert "notes.txt cannot be read as a picture" in page.inner_text("#why")
        page.click("#retry")
        until(page, "seen.at(-1).width === 640")
        assert page.wrong == []


def test_a_snapshot_is_shared_or_saved_with_its_answer_below(
    phone: Any, shown: dict[str, list[np.ndarray]], tmp_path: Path
) -> None:
    folder, _, _ = phone
    camera = film(tmp_path / "camera.y4m", shown["barrel"][:1])
    with served(folder) as address, browsing(camera, permissions=["camera"]) as context:
        page = opened(context, address)
        page.click("#freeze")
        with page.expect_download() as saved:
            page.click("#share")
        label = page.inner_text("#label")
        assert saved.value.suggested_filename == f"{label}.png"
        saved.value.save_as(tmp_path / "snapshot.png")
        with Image.open(tmp_path / "snapshot.png") as snapshot:
            assert snapshot.size == (640, 540)
            levels = np.asarray(snapshot.convert("RGB")).astype(int)
        barrel = np.asarray(Image.fromarray(shown["barrel"][0]).resize((640, 480))).astype(int)
        assert np.abs(levels[:480] - barrel).mean() < 10  # it went through a film's colours
        assert levels[480:].max() > 200  # the answer, in white
        page.evaluate(f"(() => {{ {SHARES} }})()")
        page.click("#share")
        until(page, "shares.length")
        [[name, kind, size]] = page.evaluate("shares")
        assert (name, kind) == (f"{label}.png", "image/png")
        assert size > 10_000
