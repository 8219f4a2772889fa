"""The camera app in a real browser: it names what the camera shows, learns on the device, and stays there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import PIXEL, WATCH, browsing, film, frames_of, running, served, until
from PIL import Image

from mobilenets.data.calibration import listed, pictures
from mobilenets.infer import artefact
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.image import decode
from mobilenets.infer.quantise import quantise

Ask = Callable[..., Any]
pytest.importorskip("ziglang", reason="ziglang, the cross compiler, is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")
pytestmark = [
    pytest.mark.slow,
    # playwright leaves pipes of its own to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def phone(taught: Any, ask: Ask, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of five classes in bytes, and the app of it."""
    place = tmp_path_factory.mktemp("phone")
    model = artefact.load(taught.model)
    small = quantise(model, pictures(listed(taught.folder), model.preprocess, most=48).levels)
    artefact.save(small, place / "five.safetensors")
    facts = ask(
        "app", place / "five.safetensors", "--out", place / "app", "--title", "Five things", "--json"
    ).facts
    return place / "app", artefact.load(place / "five.safetensors"), facts


@pytest.fixture(scope="module")
def shown(five: Path) -> dict[str, list[np.ndarray]]:
    """Four pictures of each class."""
    return {
        folder.name: [decode(file.read_bytes()) for file in sorted(folder.iterdir())[:4]]
        for folder in sorted(five.iterdir())
    }


@pytest.fixture(scope="module")
def camera(shown: dict[str, list[np.ndarray]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of two of each class."""
    every = [picture for own in shown.values() for picture in own[:2]]
    return film(tmp_path_factory.mktemp("film") / "camera.y4m", every)


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


def test_the_app_is_small_and_says_how_large_it_is(phone: Any) -> None:
    folder, _, facts = phone
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    assert facts["files"] == {name: file.stat().st_size for name, file in files.items()}
    assert facts["bytes"] == sum(facts["files"].values())
    assert facts["code_bytes"] <= 120_000
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


def test_it_is_taught_two_classes_and_what_it_learned_is_a_model(
    phone: Any, shown: dict[str, list[np.ndarray]], ask: Ask, tmp_path: Path
) -> None:
    folder, model, _ = phone
    names = ("Faces", "crab")
    places = {name: [tmp_path / f"{name}{i}.png" for i in range(4)] for name in names}
    for name, files in places.items():
        for picture, file in zip(shown[name], files, strict=True):
            Image.fromarray(picture).save(file)
    camera = film(tmp_path / "crab.y4m", [shown["crab"][0]], each=10)
    with served(folder) as address, browsing(camera, permissions=["camera"], **PIXEL) as context:
        page = opened(context, address)
        page.click("#teach")
        for number, name in enumerate(names):
            page.click("#new")
            page.locator(".name").nth(number).fill(name)
            page.locator(".name").nth(number).blur()
        with page.expect_file_chooser() as chooser:
            page.locator(".files").nth(0).click()
        chooser.value.set_files(places["Faces"])
        until(page, "document.querySelectorAll('.count')[0].textContent.startsWith('4 ')")
        hold = page.locator(".hold").nth(1)
        hold.scroll_into_view_if_needed()
        box = hold.bounding_box()
        page.mouse.move(box["x"] + 9, box["y"] + 9)
        page.mouse.down()
        page.wait_for_timeout(1500)
        page.mouse.up()
        until(page, "document.querySelector('#told').textContent.startsWith('Learned')")
        until(page, "document.querySelector('#label').textContent === 'crab'")
        with page.expect_download() as saved:
            page.click("#export")
        file = tmp_path / "taught.safetensors"
        saved.value.save_as(file)
        counts = page.locator(".count").all_inner_texts()

        page.click("#undo")  # the crabs are gone, and with them the lesson
        until(page, "document.querySelectorAll('.count')[1].textContent.startsWith('0 ')")
        assert page.is_disabled("#export")
        with page.expect_file_chooser() as chooser:
            page.click("#import")
        chooser.value.set_files(file)
        until(page, "document.querySelector('#told').textContent.includes('Faces, crab')")
        until(page, "document.querySelector('#label').textContent === 'crab'")
        with page.expect_file_chooser() as chooser:
            page.click("#picture")
        chooser.value.set_files(places["Faces"][0])
        until(page, "document.querySelector('#label').textContent === 'Faces'")
        assert page.wrong == []

    learned = artefact.load(file)
    assert learned.labels == names
    assert learned.threshold is None
    assert learned.dtype == "int8"
    assert learned.weights["head.weight"].dtype == np.float32
    for name, value in model.weights.items():
        if not name.startswith("head."):
            np.testing.assert_array_equal(learned.weights[name], value)
    assert counts[0].startswith("4 ")
    assert learned.recipe["taught"] == {"Faces": 4, "crab": int(counts[1].split()[0])}
    facts = ask("info", file, "--json").facts
    assert facts["dtype"] == "int8"
    for name, files in places.items():
        (tmp_path / "test" / name).mkdir(parents=True)
        for picture in files:
            shutil.copy(picture, tmp_path / "test" / name)
    assert ask("evaluate", file, tmp_path / "test", "--json").facts["top1"] >= 0.75
    built = ask("compile", file, "--out", tmp_path / "compiled", "--json").facts
    assert all(error["largest"] == 0 for error in built["largest_error"].values())


def test_what_was_taught_is_there_another_day_and_offline(phone: Any, camera: Path, tmp_path: Path) -> None:
    folder, _, _ = phone
    home = tmp_path / "home"
    with served(folder) as address, browsing(camera, home=home, permissions=["camera"]) as context:
        page = opened(context, address)
        page.evaluate("navigator.serviceWorker.ready")
        page.click("#teach")
        page.click("#new")
        until(page, "document.querySelectorAll('.name').length === 1")
        until(page, "navigator.serviceWorker.controller !== null")
    with browsing(camera, home=home, permissions=["camera"]) as context:  # nobody serves it any more
        page = opened(context, address)
        page.click("#teach")
        assert page.locator(".name").count() == 1
        assert page.evaluate("crossOriginIsolated")
        assert page.wrong == []


def test_a_newer_version_is_used_from_the_next_start_on(phone: Any, camera: Path) -> None:
    folder, _, _ = phone
    with running(folder) as server, browsing(camera, permissions=["camera"]) as context:
        address = f"http://localhost:{server.server_port}/"
        page = opened(context, address)
        until(page, "navigator.serviceWorker.controller !== null")
        for file, old, new in (
            ("index.html", b"Five things", b"Five others"),
            ("sw.js", b'VERSION = "', b'VERSION = "1'),
        ):
            assert old in server.content[file]
            server.content[file] = server.content[file].replace(old, new)
        page.reload()  # the old one still, while the new one is fetched
        assert page.inner_text("h1") == "Five things"
        until(page, "navigator.serviceWorker.getRegistration().then((one) => one.waiting !== null)")
        until(page, "document.querySelector('#engine').textContent.includes('newer version')")
        page.close()
        page = opened(context, address)
        assert page.inner_text("h1") == "Five others"
        assert page.evaluate("caches.keys().then((names) => names.length)") == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_stands_in_the_way_of_keyboards_and_screen_readers(
    phone: Any, camera: Path, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    folder, _, _ = phone
    how = {**PIXEL, "color_scheme": scheme, "permissions": ["camera"], "bypass_csp": True}
    with served(folder) as address, browsing(camera, **how) as context:
        page = opened(context, address)
        page.click("#teach")
        page.click("#new")
        page.wait_for_selector(".hold")
        found = axe.Axe().run(page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
        page.keyboard.press("Tab")
        reached = set()
        for _ in range(40):
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
            page.keyboard.press("Tab")
        assert {
            "look",
            "teach",
            "freeze",
            "picture",
            "share",
            "smooth",
            "name",
            "hold",
            "files",
            "remove",
            "new",
        } <= reached


REFUSED = (
    "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', 'NotAllowedError'); };"
)
HELD = REFUSED.replace("NotAllowedError", "NotReadableError")
NONE = REFUSED.replace("NotAllowedError", "NotFoundError")
FULL = "IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); };"


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
        with page.expect_file_chooser() as chooser:
            page.click("#picture")
        chooser.value.set_files(file)
        until(page, "document.querySelector('#bars li')")
        assert page.is_hidden("#trouble")
        best = model.labels[int(NumpyEngine(model)(shown["crab"][0])["logits"].argmax())]
        assert page.inner_text("#label") in (best, "Not sure")


def test_a_camera_that_goes_away_and_a_full_storage_are_told(phone: Any, camera: Path) -> None:
    folder, _, _ = phone
    with served(folder) as address, browsing(camera, permissions=["camera"]) as context:
        context.add_init_script(FULL)
        page = opened(context, address)
        page.click("#teach")
        page.click("#new")
        until(page, "document.querySelector('#told').textContent.includes('storage')")
        page.evaluate(
            "document.querySelector('video').srcObject.getTracks()[0].dispatchEvent(new Event('ended'))"
        )
        until(page, "!document.querySelector('#trouble').hidden")
        assert "camera is gone" in page.inner_text("#why")
        page.click("#retry")
        until(page, "document.querySelector('#trouble').hidden")


@pytest.mark.parametrize(
    ("file", "change", "text"),
    [
        (
            "worker.mjs",
            lambda data: data.replace(b"!WebAssembly.validate(SIMD)", b"true"),
            "lacks WebAssembly SIMD",
        ),
        ("models/five/net.weights", lambda data: data[:1000], "did not arrive"),
        ("models/five/model.json", lambda data: data[:100], "did not arrive"),
        ("app.json", lambda data: b"", "did not arrive"),
    ],
)
def test_a_part_that_did_not_come_is_named_and_can_be_had_again(
    phone: Any, camera: Path, tmp_path: Path, file: str, change: Callable[[bytes], bytes], text: str
) -> None:
    folder, _, _ = phone
    site = tmp_path / "site"
    shutil.copytree(folder, site)
    whole = (site / file).read_bytes()
    (site / file).write_bytes(change(whole))
    (site / "sw.js").unlink()
    with served(site) as address, browsing(camera, permissions=["camera"]) as context:
        page = context.new_page()
        page.goto(address)
        until(page, "!document.querySelector('#trouble').hidden")
        assert text in page.inner_text("#why")
        assert page.is_visible("#retry")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda data: data[:-9], "digest does not match"),
        (lambda data: b"GIF89a" + data, "no header"),
        (lambda data: b"", "too short"),
        (lambda data: _sealed(data, lambda meta, _: meta.update(format=99)), "format (99)"),
        (
            lambda data: _sealed(data, lambda _, tensors: tensors["block1.pointwise.weight"].fill(1)),
            "another network",
        ),
    ],
)
def test_files_that_are_no_models_of_the_app_are_refused_in_a_sentence(
    phone: Any, camera: Path, tmp_path: Path, change: Callable[[bytes], bytes], text: str
) -> None:
    folder, _, _ = phone
    file = tmp_path / "other.safetensors"
    file.write_bytes(change((folder.parent / "five.safetensors").read_bytes()))
    with served(folder) as address, browsing(camera, permissions=["camera"]) as context:
        page = opened(context, address)
        page.click("#teach")
        with page.expect_file_chooser() as chooser:
            page.click("#import")
        chooser.value.set_files(file)
        until(page, "document.querySelector('#told').textContent.length > 0")
        until(page, f"document.querySelector('#told').textContent.includes({json.dumps(text)})")


def _sealed(data: bytes, change: Callable[[Any, Any], object]) -> bytes:
    from mobilenets.infer.sealed import pack, unpack

    meta, tensors = unpack(data)
    tensors = {name: value.copy() for name, value in tensors.items()}
    change(meta, tensors)
    return pack(meta, tensors)
