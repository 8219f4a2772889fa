"""The camera app learns on the device; what it learned is a model file, kept, and opened again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import MARKS, PIXEL, added, at, browsing, film, handed, opened, rows, running, served, until
from PIL import Image

from mobilenets.infer import artefact

Ask = Callable[..., Any]
MANY = """
async () => {
    const { fit, logits } = await import("./head.js"), count = 140, channels = 1024;
    let seed = 1;
    const drawn = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
    const features = Array.from({ length: count }, () => Float32Array.from({ length: channels }, drawn));
    const head = fit(features, features.map((_, c) => c), count);
    const best = (z) => z.indexOf(Math.max(...z));
    return features.filter((one, c) => best(logits(head, one, 1)) === c).length;
}
"""
pytestmark = MARKS


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
        added(page, *names)
        handed(page, ".files", places["Faces"])
        until(page, "document.querySelectorAll('.count')[0].textContent.startsWith('4 ')")
        pressed(page, 1)
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
        handed(page, "#import", file)
        until(page, "document.querySelector('#told').textContent.includes('Faces, crab')")
        until(page, "document.querySelector('#label').textContent === 'crab'")
        handed(page, "#picture", places["Faces"][0])
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


def test_two_classes_taught_by_the_camera_are_told_apart_by_the_camera(
    phone: Any, shown: dict[str, list[np.ndarray]], tmp_path: Path
) -> None:
    folder, _, _ = phone
    names = ("barrel", "bonsai")
    learned = {name: film(tmp_path / f"{name}.y4m", shown[name][:3], each=4) for name in names}
    asked = {name: film(tmp_path / f"other {name}.y4m", shown[name][3:], each=4) for name in names}
    home = tmp_path / "home"
    with served(folder) as address:
        for number, name in enumerate(names):
            with browsing(learned[name], home=home, permissions=["camera"], **PIXEL) as context:
                page = opened(context, address)
                page.click("#teach")
                added(page, name)
                pressed(page, number, 15)  # all of the film
                assert page.locator("#video").bounding_box()["y"] >= 0  # what is taught stays in sight
                until(page, "document.querySelector('#told').textContent !== 'Learning …'")
                assert page.wrong == []
        for name, camera in [*learned.items(), *asked.items()]:
            with browsing(camera, home=home, permissions=["camera"], **PIXEL) as context:
                page = opened(context, address)
                assert page.is_checked("#mine")
                until(page, f"document.querySelector('#label').textContent === '{name}'")
                page.wait_for_timeout(1500)
                assert page.inner_text("#label") == name


def pressed(page: Any, number: int, more: int = 3) -> None:
    """Holds a class's button down until so many examples more are counted."""
    enough = counts(page)[number] + more
    hold = page.locator(".hold").nth(number)
    hold.scroll_into_view_if_needed()
    box = hold.bounding_box()
    page.mouse.move(box["x"] + 9, box["y"] + 9)
    page.mouse.down()
    until(page, f"parseInt(document.querySelectorAll('.count')[{number}].textContent) >= {enough}")
    page.mouse.up()


def counts(page: Any) -> list[int]:
    return [int(text.split()[0]) for text in page.locator(".count").all_inner_texts()]


def test_each_class_gets_what_was_collected_for_it_and_each_change_is_undone(
    phone: Any, camera: Path
) -> None:
    folder, _, _ = phone
    with served(folder) as address, browsing(camera, permissions=["camera"], **PIXEL) as context:
        page = opened(context, address)
        page.click("#teach")
        added(page, None, None)
        tops = "[...document.querySelectorAll('.hold')].map((it) => it.getBoundingClientRect().top + scrollY)"
        until(page, "document.querySelectorAll('#bars li').length === 3")
        pressed(page, 0)
        before = page.evaluate(tops)
        for number in (1, 0):  # one right after the other, while the last is being learned
            other = counts(page)[1 - number]
            pressed(page, number)
            assert counts(page)[1 - number] == other
        first, second = counts(page)
        until(page, f"document.querySelector('#told').textContent.startsWith('Learned {first + second} ')")
        until(page, "document.querySelectorAll('#bars li').length === 2")
        assert page.evaluate(tops) == before  # no button goes away from under a finger
        assert counts(page) == [first, second]
        page.evaluate(
            "((one) => (one.click(), one.click()))(document.querySelector('.remove'))"
        )  # a double click
        rows(page, 1)
        assert counts(page) == [second]
        until(page, "document.querySelector('#mine').disabled")
        for _ in range(9):
            page.locator("#undo").dispatch_event("click")
        rows(page, 0)
        assert page.is_disabled("#undo")
        added(page, None)
        assert page.wrong == []


def test_what_was_deleted_comes_back_another_day_and_an_unlearned_change_is_learned(
    phone: Any, camera: Path, tmp_path: Path
) -> None:
    folder, _, _ = phone
    with (
        served(folder) as address,
        browsing(camera, home=tmp_path / "home", permissions=["camera"]) as context,
    ):
        page = opened(context, address)
        page.click("#teach")
        for number in range(2):
            added(page, None)
            pressed(page, number)
        before = counts(page)
        until(page, f"document.querySelector('#told').textContent.startsWith('Learned {sum(before)} ')")
        page.locator(".remove").nth(0).click()
        rows(page, 1)
        page.wait_for_timeout(300)
        page.close()
        page = opened(context, address)
        page.click("#teach")
        assert counts(page) == before[1:]
        page.click("#undo")
        rows(page, 2)
        until(page, "document.querySelector('#told').textContent.startsWith('Learned')")
        assert counts(page) == before
        hold = page.locator(".hold").nth(1)
        hold.scroll_into_view_if_needed()
        hold.click()  # a tap takes one
        until(page, f"document.querySelectorAll('.count')[1].textContent.startsWith('{before[1] + 1} ')")
        page.wait_for_timeout(300)
        page.close()
        page = opened(context, address)
        assert counts(page) == [before[0], before[1] + 1]
        until(page, f"document.querySelector('#told').textContent.startsWith('Learned {sum(before) + 1} ')")
        assert page.wrong == []


def test_keys_collect_while_they_are_held_and_the_focus_stays(phone: Any, camera: Path) -> None:
    folder, _, _ = phone
    with served(folder) as address, browsing(camera, permissions=["camera"]) as context:
        page = opened(context, address)
        page.click("#teach")
        added(page, None)
        hold = page.locator(".hold")
        hold.focus()
        for key in ("Space", "Enter"):
            before = counts(page)[0]
            page.keyboard.down(key)
            until(page, f"parseInt(document.querySelector('.count').textContent) >= {before + 3}")
            page.keyboard.up(key)
            held = counts(page)[0]
            page.wait_for_timeout(2500)  # in which a click that follows would collect a burst
            assert counts(page)[0] == held
            assert page.evaluate("document.activeElement.className") == "hold"
        hold.dispatch_event("click")  # as a screen reader clicks
        until(page, f"document.querySelector('.count').textContent.startsWith('{held + 10} ')")
        page.locator(".remove").focus()
        page.keyboard.press("Enter")
        rows(page, 0)
        assert page.evaluate("document.activeElement.id") == "new"


def test_names_are_of_one_class_each_and_pictures_of_any_shape_are_taken(
    phone: Any, camera: Path, tmp_path: Path
) -> None:
    folder, _, _ = phone
    thin, none = tmp_path / "thin.png", tmp_path / "none.png"
    Image.fromarray(np.full((900, 4, 3), 99, np.uint8)).save(thin)
    none.write_bytes(b"no picture")
    with (
        served(folder) as address,
        browsing(camera, home=tmp_path / "home", permissions=["camera"]) as context,
    ):
        page = opened(context, address)
        page.click("#teach")
        added(page, None, None)
        page.locator(".name").nth(0).fill("Class 2")
        page.locator(".name").nth(0).blur()
        assert page.locator(".name").nth(0).input_value() == "Class 1"
        assert "a class Class 2 already" in page.inner_text("#told")
        page.locator(".remove").nth(0).click()
        rows(page, 1)
        added(page, None)
        assert page.locator(".name").nth(1).input_value() == "Class 3"
        handed(page, ".files", [thin, none])
        until(page, "document.querySelector('#told').textContent.includes('none.png cannot be read')")
        assert counts(page) == [1, 0]
        page.close()
        page = opened(context, address)
        page.click("#teach")
        assert counts(page) == [1, 0]
        assert page.wrong == []


def test_pictures_of_a_class_that_was_deleted_meanwhile_are_nobodys(
    phone: Any, shown: dict[str, list[np.ndarray]], camera: Path, tmp_path: Path
) -> None:
    folder, _, _ = phone
    files = [tmp_path / f"{i}.png" for i in range(60)]
    for file in files:
        Image.fromarray(shown["ant"][0]).save(file)
    with served(folder) as address, browsing(camera, permissions=["camera"]) as context:
        page = opened(context, address)
        page.click("#teach")
        added(page, None)
        handed(page, ".files", files)
        until(page, "document.querySelector('#told').textContent.includes('/ 60')")
        page.click(".remove")
        rows(page, 0)
        added(page, None)
        until(page, "document.querySelector('#told').textContent.includes('/ 60')")
        until(page, "!document.querySelector('#told').textContent.includes('/ 60')")
        page.wait_for_timeout(300)
        assert counts(page) == [0]
        assert page.wrong == []


def test_of_two_windows_one_keeps_what_is_taught(phone: Any, camera: Path) -> None:
    folder, _, _ = phone
    with served(folder) as address, browsing(camera, permissions=["camera"]) as context:
        page, other = opened(context, address), opened(context, address)
        page.click("#teach")
        other.click("#teach")
        added(page, "first")
        added(other, "second")
        until(other, "document.querySelector('#told').textContent.includes('Another window')")
        other.close()
        page.reload()
        until(page, "document.querySelectorAll('.name').length === 1")
        page.click("#teach")
        assert page.locator(".name").input_value() == "first"
        added(page, None)
        until(page, "!document.querySelector('#told').textContent.includes('Another')")


NO_BASE = "indexedDB.open = () => { throw new DOMException('no', 'SecurityError'); };"


def test_where_nothing_is_kept_or_a_part_is_lacking_it_says_so(phone: Any, camera: Path) -> None:
    folder, _, _ = phone
    with running(folder) as server, browsing(camera, permissions=["camera"]) as context:
        context.add_init_script(NO_BASE)
        del server.content["sw.js"]
        page = opened(context, at(server))
        page.click("#teach")
        for number in range(2):
            added(page, None)
            until(page, "document.querySelector('#told').textContent.includes('keeps nothing here')")
            pressed(page, number)
        until(page, "!document.querySelector('#export').disabled")
        del server.content["models/five/rest.bin"]
        page.click("#export")
        until(page, "document.querySelector('#told').textContent.includes('did not arrive')")
        assert "rest.bin" in page.inner_text("#told")


def test_a_head_of_many_classes_is_learned(phone: Any, camera: Path) -> None:
    folder, _, _ = phone
    with served(folder) as address, browsing(None) as context:
        page = context.new_page()
        page.goto(address)
        right = page.evaluate(MANY)
        assert right == 140


def test_what_was_taught_is_there_another_day_and_offline(phone: Any, camera: Path, tmp_path: Path) -> None:
    folder, _, _ = phone
    home = tmp_path / "home"
    with served(folder) as address, browsing(camera, home=home, permissions=["camera"]) as context:
        page = opened(context, address)
        page.evaluate("navigator.serviceWorker.ready")
        page.click("#teach")
        added(page, None)
        until(page, "navigator.serviceWorker.controller !== null")
    with browsing(camera, home=home, permissions=["camera"]) as context:  # nobody serves it any more
        page = opened(context, address)
        page.click("#teach")
        assert page.locator(".name").count() == 1
        assert page.evaluate("crossOriginIsolated")
        assert page.wrong == []


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
        (
            lambda data: _sealed(data, lambda meta, _: meta["preprocess"].update(mean=[1, 2, 3])),
            "another network",
        ),
        (lambda data: _sealed(data, lambda meta, _: meta.update(labels=[])), "names no classes"),
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
        handed(page, "#import", file)
        until(page, "document.querySelector('#told').textContent.length > 0")
        until(page, f"document.querySelector('#told').textContent.includes({json.dumps(text)})")


def _sealed(data: bytes, change: Callable[[Any, Any], object]) -> bytes:
    from mobilenets.infer.sealed import pack, unpack

    meta, tensors = unpack(data)
    tensors = {name: value.copy() for name, value in tensors.items()}
    change(meta, tensors)
    return pack(meta, tensors)
