"""The camera app on hosts of all kinds: a newer version, several networks, a folder further down."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from browser import MARKS, added, at, browsing, opened, running, until

from mobilenets.data.calibration import listed, pictures
from mobilenets.infer import artefact
from mobilenets.infer.quantise import quantise

Ask = Callable[..., Any]
pytestmark = MARKS
SMALL = 96
MEASURED = """
globalThis.said = [];
addEventListener("DOMContentLoaded", () => {
    const label = document.querySelector("#label"), how = { childList: true, subtree: true };
    new MutationObserver(() => said.push(label.textContent)).observe(label, how);
});
"""


@pytest.fixture(scope="module")
def both(phone: Any, taught: Any, ask: Ask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app of the model and of a smaller one, that sees less of a picture."""
    folder = phone[0]
    place = tmp_path_factory.mktemp("both")
    whole = artefact.load(taught.model)
    seen = replace(whole.preprocess, height=SMALL, width=SMALL)
    net = replace(whole.net, input=whole.net.input._replace(height=SMALL, width=SMALL))
    less = replace(whole, net=net, preprocess=seen, threshold=None)
    artefact.save(
        quantise(less, pictures(listed(taught.folder), seen, most=48).levels), place / "less.safetensors"
    )
    out = place / "app"
    facts = ask(
        "app", folder.parent / "five.safetensors", place / "less.safetensors", "--out", out, "--json"
    ).facts
    assert [row["folder"] for row in facts["variants"]] == ["models/less-2", "models/five-1"]
    return out


@pytest.mark.parametrize(("budget", "side"), [(1e9, 128), (1e-9, SMALL)])
def test_the_largest_network_that_holds_the_budget_is_measured_once_and_remembered(
    both: Path, camera: Path, budget: float, side: int
) -> None:
    with running(both) as server, browsing(camera, permissions=["camera"]) as context:
        _told(server.content, budget_ms=budget)
        address = at(server)
        context.add_init_script(MEASURED)
        page = opened(context, address)
        assert f" at {side}, int8" in page.inner_text("#engine")
        assert "Measuring this device …" in page.evaluate("said")
        page.close()
        page = opened(context, address)
        assert f" at {side}, int8" in page.inner_text("#engine")
        assert "Measuring this device …" not in page.evaluate("said")


@contextmanager
def updating(folder: Path, newer: Path, camera: Path) -> Iterator[Any]:
    """A server of an app, one of another that may take its place, and a page that keeps the first."""
    with (
        running(folder) as server,
        running(newer) as other,
        browsing(camera, permissions=["camera"]) as context,
    ):
        page = opened(context, at(server))
        until(page, "navigator.serviceWorker.controller !== null")
        yield server, other, page


def again(page: Any) -> Any:
    """The same page, opened anew."""
    page.close()
    return opened(page.context, page.url)


def test_a_newer_version_with_another_model_is_used_from_the_next_start_on(
    phone: Any, both: Path, camera: Path
) -> None:
    with updating(phone[0], both, camera) as (server, newer, old):
        assert old.inner_text("h1") == "Five things"
        assert " at 128, int8" in old.inner_text("#engine")
        server.content = newer.content
        _told(server.content, budget_ms=1e-9)
        old.reload()  # the old one still, while the new one is fetched
        assert old.inner_text("h1") == "Five things"
        until(old, "navigator.serviceWorker.getRegistration().then((one) => one.waiting !== null)")
        until(old, "document.querySelector('#engine').textContent.includes('newer version')")
        page = again(old)
        assert page.inner_text("h1") == "five"
        assert f" at {SMALL}, int8" in page.inner_text("#engine")
        assert page.evaluate("caches.keys().then((names) => names.length)") == 1
        assert page.wrong == []


def test_an_update_that_breaks_off_changes_nothing(phone: Any, both: Path, camera: Path) -> None:
    with updating(phone[0], both, camera) as (server, newer, old):
        broken = dict(newer.content)
        broken["models/less-2/net.weights"] = broken["models/less-2/net.weights"][:-9]
        server.content = broken
        page = old
        for _ in range(2):  # what is of the length of another version is not taken for a part of this one
            page = again(page)
            page.wait_for_timeout(500)
            assert page.inner_text("h1") == "Five things"
        server.content = newer.content
        page.reload()
        until(page, "navigator.serviceWorker.getRegistration().then((one) => one.waiting !== null)")
        page = again(page)
        assert page.inner_text("h1") == "five"


def test_it_works_from_a_folder_of_any_host_and_has_threads_from_the_second_start_on(
    phone: Any, camera: Path, tmp_path: Path
) -> None:
    folder, _, _ = phone
    shutil.copytree(folder, tmp_path / "site" / "deep" / "app")
    (tmp_path / "site" / "index.html").write_text("<!doctype html><title>another page of this host</title>")
    plain = partial(SimpleHTTPRequestHandler, directory=tmp_path / "site")
    with ThreadingHTTPServer(("127.0.0.1", 0), plain) as host:
        thread = Thread(target=host.serve_forever)
        thread.start()
        root = f"http://localhost:{host.server_port}/"
        with browsing(camera, permissions=["camera"]) as context:
            page = opened(context, f"{root}deep/app/")
            assert not page.evaluate("crossOriginIsolated")
            until(page, "navigator.serviceWorker.controller !== null")
            assert {
                url for url in page.asked if not url.startswith((f"{root}deep/app/", f"blob:{root}"))
            } == set()
            page.close()
            page = opened(context, f"{root}deep/app/?from=home")
            assert page.evaluate("crossOriginIsolated")
            assert page.wrong == []
            page.goto(root)
            assert page.title() == "another page of this host"
        host.shutdown()
        thread.join()


def test_a_first_visit_that_breaks_off_is_made_good_by_the_next(phone: Any, camera: Path) -> None:
    folder, _, _ = phone
    with running(folder) as server, browsing(camera, permissions=["camera"]) as context:
        whole = dict(server.content)
        server.content["models/five/net.weights"] = whole["models/five/net.weights"][:-9]
        page = context.new_page()
        page.goto(at(server))
        page.wait_for_selector("#trouble", state="visible")
        page.wait_for_timeout(1000)  # in which the page would be kept for offline use
        server.content.update(whole)
        page.click("#retry")
        until(page, "document.querySelector('#bars li')")
        page.close()
        page = opened(context, at(server))
        until(page, "navigator.serviceWorker.controller !== null")


def test_where_threads_cannot_be_had_one_does(phone: Any, camera: Path) -> None:
    folder, _, _ = phone
    with running(folder) as server, browsing(camera, permissions=["camera"]) as context:
        own = server.content["models/five/net.js"]
        refusing = own.replace(
            b"const memory = new",
            b'if (shared) throw new RangeError("could not allocate memory");\n    const memory = new',
        )
        assert refusing != own
        server.content["models/five/net.js"] = refusing
        page = opened(context, at(server))
        assert page.evaluate("crossOriginIsolated")
        assert ", 1 of " in page.inner_text("#engine")


def test_neither_page_nor_worker_reaches_another_origin(phone: Any, camera: Path) -> None:
    folder, _, _ = phone
    with (
        running(folder) as server,
        running(folder) as other,
        browsing(camera, permissions=["camera"]) as context,
    ):
        reach = f'\nfetch("http://localhost:{other.server_port}/", {{ mode: "no-cors" }}).catch(() => {{}});'
        asked: list[str] = []
        send = other.RequestHandlerClass.do_GET
        other.RequestHandlerClass = type(
            "Counted",
            (other.RequestHandlerClass,),
            {"do_GET": lambda own: (asked.append(own.path), send(own))},
        )
        for file in ("main.js", "worker.js", "models/five/net.js"):
            server.content[file] += reach.encode()
        page = opened(context, at(server))
        page.wait_for_timeout(1000)
        assert len([one for one in page.wrong if "Content Security Policy" in one]) >= 1
        assert asked == []
        page.goto(at(other))
        assert asked


def test_what_was_taught_stays_with_its_network(both: Path, camera: Path) -> None:
    with running(both) as server, browsing(camera, permissions=["camera"]) as context:
        _told(server.content, budget_ms=1e-9)
        address = at(server)
        context.add_init_script(
            "navigator.serviceWorker.register = async () => ({});"
        )  # each start is of the newest
        page = opened(context, address)
        page.click("#teach")
        added(page, None)
        _told(server.content, budget_ms=1e9, version="another")  # the larger one would be taken from now on
        page.close()
        page = opened(context, address)
        assert f" at {SMALL}, int8" in page.inner_text("#engine")
        assert page.locator(".name").count() == 1
        variants = json.loads(server.content["app.json"])["variants"]
        kept = [row for row in variants if row["folder"] == "models/five-1"]
        _told(server.content, version="third", variants=kept)
        page.close()
        page = opened(context, address)
        page.click("#teach")
        assert page.locator(".name").count() == 0
        until(page, "document.querySelector('#told').textContent.includes('belongs to another network')")


def _told(content: dict[str, bytes], **others: object) -> None:
    """Changes what the app tells of itself, and the digest by which it is kept."""
    before = content["app.json"]
    content["app.json"] = json.dumps(json.loads(before) | others).encode()
    old, new = (sha256(one).hexdigest().encode() for one in (before, content["app.json"]))
    assert old in content["sw.js"]
    content["sw.js"] = content["sw.js"].replace(old, new)
