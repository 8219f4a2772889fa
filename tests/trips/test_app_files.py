"""What serves an app serves nothing else; an Android package of it verifies; mistakes are one line."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from mobilenets.app.making import slug
from mobilenets.app.serving import server
from mobilenets.infer import artefact

Ask = Callable[..., Any]
TITLE, PLACE = '@Crabs & "ants" home', "/crabs-ants-home/"
pytest.importorskip("ziglang", reason="ziglang, the cross compiler, is not installed")


@pytest.fixture(scope="module")
def app(taught: Any, ask: Ask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app of a float32 model."""
    out = tmp_path_factory.mktemp("app") / "site"
    ask("app", taught.model, "--out", out, "--title", TITLE)
    return out


@pytest.fixture
def running(app: Path) -> Iterator[tuple[str, int]]:
    with server(app) as made:
        assert made.place == PLACE
        thread = Thread(target=made.serve_forever)
        thread.start()
        yield made.server_address[0], made.server_port
        made.shutdown()
        thread.join()


def asked(port: int, path: str, method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as line:
        line.putrequest(method, path)
        line.endheaders()
        answer = line.getresponse()
        return answer, answer.read()


def test_each_file_is_served_with_its_type_and_isolated(app: Path, running: tuple[str, int]) -> None:
    host, port = running
    assert host == "127.0.0.1"
    types = {
        ".html": "text/html",
        ".js": "text/javascript",
        ".wasm": "application/wasm",
    }
    for file in (one for one in app.rglob("*") if one.is_file()):
        answer, data = asked(port, PLACE + file.relative_to(app).as_posix())
        assert (answer.status, data) == (200, file.read_bytes())
        assert answer.headers["Content-Type"].startswith(types.get(file.suffix, ""))
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
    assert asked(port, PLACE)[1] == (app / "index.html").read_bytes()
    answer, data = asked(port, "/")
    assert (answer.status, answer.headers["Location"], data) == (302, PLACE, b"")
    answer, data = asked(port, PLACE + "main.js", "HEAD")
    assert (answer.status, data) == (200, b"")
    assert int(answer.headers["Content-Length"]) == (app / "main.js").stat().st_size


@pytest.mark.parametrize(
    "path",
    [
        "/main.js",
        f"{PLACE}../{PLACE}main.js",
        f"{PLACE}/main.js",
        f"{PLACE}../pyproject.toml",
        "/../pyproject.toml",
        "/..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/models",
        "/models/",
        "/%2e%2e/secret",
        "/main.js/",
        "/main.js%00.html",
        "/.",
        "/\\..\\secret",
    ],
)
def test_nothing_beside_its_files_is_served(running: tuple[str, int], path: str) -> None:
    answer, _ = asked(running[1], path)
    assert answer.status == 404


def test_an_address_that_is_none_is_refused(running: tuple[str, int]) -> None:
    with socket.create_connection(running, timeout=10) as line:
        line.sendall(b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert line.recv(99).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_other_methods_are_refused(running: tuple[str, int], method: str) -> None:
    assert asked(running[1], PLACE + "main.js", method)[0].status in (405, 501)


def test_a_file_that_comes_into_the_folder_later_is_not_served(app: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(app, site)
    with server(site) as made:
        (site / "late.html").write_text("late")
        Thread(target=made.serve_forever).start()
        assert asked(made.server_port, made.place + "late.html")[0].status == 404
        made.shutdown()


def test_to_the_network_it_speaks_https_by_a_certificate_that_stays(
    app: Path, surroundings: dict[str, str], cache: Path
) -> None:
    seen = []
    for _ in range(2):
        words = [sys.executable, "-m", "mobilenets", "app", str(app), "--serve", "--lan", "--port", "0"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=surroundings) as run:
            assert run.stdout is not None
            address = run.stdout.readline().strip()
            host, port = address.removeprefix("https://").removesuffix(PLACE).split(":")
            told = "".join(iter(run.stdout.readline, "Ctrl+C ends it\n"))
            assert "▀" in told
            assert "SHA-256" in told
            certificate = ssl.get_server_certificate((host, int(port)))
            line = http.client.HTTPSConnection(
                host, int(port), context=ssl._create_unverified_context(), timeout=10
            )
            line.request("GET", PLACE)
            assert line.getresponse().read() == (app / "index.html").read_bytes()
            line.close()
            run.send_signal(2)
            assert run.wait(10) == 0
        seen.append(certificate)
    assert seen[0] == seen[1]
    assert {file.stat().st_mode & 0o077 for file in (cache / "app").iterdir()} == {0}


def test_a_package_for_android_verifies_and_asks_for_the_camera_alone(
    app: Path, ask: Ask, tmp_path: Path
) -> None:
    tools = ("aapt", "apksigner", "zipalign", "smali")
    if lacking := [name for name in tools if shutil.which(name) is None]:
        pytest.skip(f"no {', '.join(lacking)} on this machine")
    out = tmp_path / "crabs.apk"
    facts = ask("app", app, "--apk", out, "--json").facts["apk"]
    assert facts["bytes"] == out.stat().st_size
    assert facts["permissions"] == ["android.permission.CAMERA"]
    assert {"v2", "v3"} <= set(facts["schemes"])
    with zipfile.ZipFile(out) as archive:
        for file in (one for one in app.rglob("*") if one.is_file()):
            assert archive.read(f"assets/{file.relative_to(app).as_posix()}") == file.read_bytes()
        assert archive.read("classes.dex")[:4] == b"dex\n"
    told = subprocess.run(["aapt", "dump", "badging", out], capture_output=True, text=True, check=True).stdout
    assert "application-label:'@Crabs & \\\"ants\\\" home'" in told  # aapt escapes what it prints
    again = ask("app", app, "--apk", tmp_path / "again.apk", "--json").facts["apk"]
    assert again["certificate_sha256"] == facts["certificate_sha256"]
    damaged = bytearray(out.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    out.write_bytes(damaged)
    assert subprocess.run(["apksigner", "verify", out], capture_output=True, check=False).returncode != 0


def test_a_network_of_a_phone_makes_a_small_app_and_package(
    slice_of: Callable[..., Path], material: Path, ask: Ask, tmp_path: Path
) -> None:
    tools = ("aapt", "apksigner", "zipalign", "smali")
    if lacking := [name for name in tools if shutil.which(name) is None]:
        pytest.skip(f"no {', '.join(lacking)} on this machine")
    photos = slice_of(tmp_path / "photos", classes=2, each=20)
    weights = material / "weights" / "mobilenet_v1_0.5_160_quant.tflite"
    out = tmp_path / "out"
    ask("retrain", photos, "--weights", weights, "--resolution", 128, "--out", out)
    words = (
        "app",
        out / "model.safetensors",
        "--dtype",
        "int8",
        "--calibrate",
        photos,
        "--apk",
        tmp_path / "a.apk",
    )
    facts = ask(*words, "--out", tmp_path / "app", "--json").facts
    assert facts["title"] == "Faces or ant"
    assert facts["variants"][0]["name"] == "v1 0.5 at 128, int8"
    assert facts["bytes"] <= 1_300_000
    assert facts["gzip_bytes"] <= 1_100_000
    assert facts["code_bytes"] <= 120_000
    assert facts["apk"]["bytes"] <= 2_000_000


def test_an_app_takes_the_place_of_an_app_and_of_nothing_else(
    app: Path, taught: Any, ask: Ask, refuse: Callable[..., str], tmp_path: Path
) -> None:
    site = tmp_path / "site"
    shutil.copytree(app, site)
    old = next((site / "models").iterdir())
    old.rename(site / "models" / "older")
    told = json.loads((site / "app.json").read_text())
    told["files"] = {
        file.replace(f"models/{old.name}/", "models/older/"): digest for file, digest in told["files"].items()
    }
    (site / "app.json").write_text(json.dumps(told))
    facts = ask("app", taught.model, "--out", site, "--json").facts
    assert not (site / "models" / "older").exists()
    assert facts["title"] == "model"  # its classes are too many for a title
    assert "<title>model</title>" in (site / "index.html").read_text()
    other = tmp_path / "photos"
    other.mkdir()
    (other / "photo.jpg").write_bytes(b"mine")
    assert "holds other files and no app" in refuse("app", taught.model, "--out", other)
    (other / "app.json").write_text('{"expo": {"name": "another program\'s"}}')
    assert "holds other files and no app" in refuse("app", taught.model, "--out", other)
    (site / ".git").mkdir()
    (site / ".git" / "HEAD").write_text("ref")
    assert "holds .git/HEAD, which is no file of its app" in refuse("app", taught.model, "--out", site)
    assert (site / ".git" / "HEAD").exists()
    assert "control characters" in refuse("app", taught.model, "--out", tmp_path / "x", "--title", "a\tb")
    assert slug("Street or not?") == "street-or-not"
    assert len({slug(title) for title in ("猫 または 犬", "Кошки", "x" * 41, "x" * 42)}) == 4
    assert "a file is in its way" in refuse("app", taught.model, "--out", other / "photo.jpg")
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_mistakes_are_one_line(
    app: Path,
    taught: Any,
    refuse: Callable[..., str],
    refuse_each: Callable[..., list[str]],
    tmp_path: Path,
) -> None:
    other = artefact.load(taught.model)
    artefact.save(replace(other, labels=tuple("abcde")), tmp_path / "other.safetensors")
    out = tmp_path / "out"
    damaged = tmp_path / "damaged"
    shutil.copytree(app, damaged)
    (damaged / "manifest.webmanifest").write_text("{}")
    told = refuse_each(
        ("app", taught.model),
        ("app", app, "--out", out),
        ("app", taught.model, "--lan", "--out", out),
        ("app", tmp_path / "none.safetensors", "--out", out),
        ("app", taught.model, "--out", out, "--title", "x" * 61),
        ("app", taught.model, taught.model, "--out", out),
        ("app", taught.model, tmp_path / "other.safetensors", "--out", out),
        ("app", taught.model, "--dtype", "int8", "--out", out),
        ("app", damaged, "--serve", "--port", 0),
        env={"OMP_NUM_THREADS": "2"},
    )
    reasons = (
        "--out FOLDER for the app",
        "an app already",
        "--lan goes with --serve",
        "no such file",
        "--title: 1 to 60 letters, not 61",
        "the same model was given twice",
        "answer by the same classes",
        "--dtype int8 needs --calibrate",
        "manifest.webmanifest is missing or damaged",
    )
    for line, reason in zip(told, reasons, strict=True):
        assert reason in line
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = ("app", taught.model, "--out", out, "--serve", "--port", taken.getsockname()[1])
        assert "another program has it" in refuse(*words)
    words = ("app", taught.model, "--out", out, "--apk", tmp_path / "a.apk")
    assert "aapt (aapt), libsmali-java (smali)" in refuse(*words, env={"PATH": str(tmp_path)})
    assert not out.exists()  # told before the app was made
