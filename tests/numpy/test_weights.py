"""Weights are sought in four places in a stated order, downloaded whole, and held to the record."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from mobilenets.infer import artefact, weights
from mobilenets.infer.artefact import Artefact
from mobilenets.spec import zoo
from mobilenets.spec.net import tensors
from mobilenets.spec.preprocess import Preprocess
from mobilenets.spec.published import PACKAGE, PUBLISHED, UNPINNED, Published, by_name, for_net


def _bytes(seed: int = 0) -> bytes:
    net, rng = zoo.v1(0.25, 32), np.random.default_rng(seed)
    made = {name: rng.uniform(0.5, 1, shape).astype(np.float32) for name, shape in tensors(net).items()}
    return artefact.to_bytes(Artefact(net, made, Preprocess(height=32, width=32)))


@dataclass
class Home:
    """A web server on this machine, standing for a public home."""

    url: str
    content: bytes
    status: int = 200
    announced: int | None = None
    location: str = ""
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def home() -> Iterator[Home]:
    state = Home("", _bytes())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            self.send_response(302 if state.location else state.status)
            if state.location:
                self.send_header("Location", state.location)
            self.send_header("Content-Length", str(state.announced or len(state.content)))
            self.end_headers()
            self.wfile.write(state.content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1.safetensors"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def entry(home: Home) -> Published:
    return Published("test/v1_025", "v1", 0.25, 32, home.url, "Apache-2.0", None, "none")


@pytest.fixture
def here(tmp_path: Path) -> dict[str, str]:
    """An environment whose caches are all in an empty folder."""
    return {
        "MOBILENETS_CACHE": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "hub"),
        "KERAS_HOME": str(tmp_path / "keras"),
    }


def _local(url: str) -> bool:
    return urlsplit(url).hostname == "127.0.0.1"


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_download_is_recorded_and_found_in_the_cache_afterwards(
    home: Home, entry: Published, here: dict[str, str]
) -> None:
    seen: list[tuple[int, int | None]] = []
    path = weights.fetch(
        entry, progress=lambda done, total: seen.append((done, total)), allowed=_local, environment=here
    )
    assert path.read_bytes() == home.content
    assert _names(path.parent) == [entry.file, f"{entry.file}.sha256"]
    recorded = (path.parent / f"{entry.file}.sha256").read_text().split()[0]
    assert recorded == hashlib.sha256(home.content).hexdigest()
    assert seen[-1] == (len(home.content), len(home.content))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert weights.cached(entry, here) == path


def test_another_file_under_the_recorded_name_is_refused(
    home: Home, entry: Published, here: dict[str, str]
) -> None:
    path = weights.fetch(entry, allowed=_local, environment=here)
    path.unlink()
    home.content = _bytes(seed=1)
    with pytest.raises(weights.DownloadError, match="recorded is"):
        weights.fetch(entry, allowed=_local, environment=here)
    assert _names(path.parent) == [f"{entry.file}.sha256"]


def test_a_pinned_digest_is_held_to_at_the_first_download(
    home: Home, entry: Published, here: dict[str, str]
) -> None:
    good = hashlib.sha256(home.content).hexdigest()
    assert weights.fetch(replace(entry, sha256=good), allowed=_local, environment=here).is_file()
    with pytest.raises(weights.DownloadError, match="recorded is 0000000000000000"):
        weights.fetch(replace(entry, sha256="0" * 64), allowed=_local, environment=here)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": 404}, "answers 404"),
        ({"announced": 1 << 40}, "more than"),
        ({"content": b"<html>sign in</html>"}, "gave something else.*web page"),
        ({"content": b""}, "empty"),
        ({"location": "ftp://example.org/x"}, "not https"),
        ({"location": "http://example.org/x"}, "not https"),
        ({"location": "file:///etc/passwd"}, "not allowed"),
    ],
)
def test_a_download_that_brings_nothing_usable_leaves_nothing(
    home: Home, entry: Published, here: dict[str, str], change: dict[str, object], said: str
) -> None:
    for name, value in change.items():
        setattr(home, name, value)
    with pytest.raises(weights.DownloadError, match=said) as error:
        weights.fetch(entry, allowed=_local, environment=here)
    assert "\n" not in str(error.value)
    assert _names(Path(here["MOBILENETS_CACHE"]) / "weights") == []


def test_a_download_cut_short_leaves_nothing(home: Home, entry: Published, here: dict[str, str]) -> None:
    home.announced = len(home.content) + 10
    with pytest.raises(weights.DownloadError, match="broke off"):
        weights.fetch(entry, allowed=_local, environment=here)
    assert _names(Path(here["MOBILENETS_CACHE"]) / "weights") == []


def test_a_file_of_another_width_than_announced_is_refused(entry: Published, here: dict[str, str]) -> None:
    with pytest.raises(weights.DownloadError, match=r"gave v1 of width 0\.25"):
        weights.fetch(replace(entry, width=1.0), allowed=_local, environment=here)


def test_plain_http_and_an_unreachable_home_are_refused(entry: Published, here: dict[str, str]) -> None:
    with pytest.raises(weights.DownloadError, match="only https"):
        weights.fetch(entry, environment=here)
    closed = replace(entry, url="http://127.0.0.1:9/none")
    with pytest.raises(weights.DownloadError, match="cannot be reached"):
        weights.fetch(closed, allowed=_local, environment=here)


def test_a_cache_that_cannot_be_made_is_one_line(entry: Published, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(weights.DownloadError, match="cannot write"):
        weights.fetch(entry, allowed=_local, environment={"MOBILENETS_CACHE": str(tmp_path / "file")})


def test_a_local_file_always_serves(tmp_path: Path, here: dict[str, str]) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(_bytes())
    found = weights.find(str(path), "v1", 0.25, 32, environment={**here, "MOBILENETS_OFFLINE": "1"})
    assert (found.path, found.origin, found.entry) == (path, "file", None)
    assert weights.load(found).net == zoo.v1(0.25, 32)


@pytest.mark.parametrize("key", ["MOBILENETS_OFFLINE", "HF_HUB_OFFLINE"])
def test_the_error_names_all_four_places(here: dict[str, str], key: str) -> None:
    with pytest.raises(ValueError, match="no weights for v1") as error:
        weights.find(None, "v1", 0.75, 160, environment={**here, key: "1"})
    text = str(error.value)
    for part in ("1. the option", "2. the cache", "3. a download", "offline", "4. the packaged body"):
        assert part in text
    assert "keras/mobilenet_7_5_160" in text
    assert "\n" not in text


def test_nothing_is_asked_of_the_network_in_offline_mode(here: dict[str, str]) -> None:
    asked: list[str] = []
    with pytest.raises(ValueError, match="offline mode is on"):
        weights.find(
            "timm/mobilenetv1_100",
            "v1",
            1.0,
            224,
            allowed=lambda url: asked.append(url) or False,
            environment={**here, "HF_HUB_OFFLINE": "1"},
        )
    assert asked == []


def test_bodies_of_this_package_stand_in_where_nothing_else_is_to_be_had(here: dict[str, str]) -> None:
    own = [entry for entry in PUBLISHED if entry.packaged]
    closed = {**here, "MOBILENETS_OFFLINE": "1"}
    total = 0
    for entry in own:
        found = weights.find(None, "v1", entry.width, 224, environment=closed)
        assert (found.origin, found.entry) == ("packaged", entry)
        assert weights.find(entry.name, "v1", 1.0, 224, environment=closed) == found
        model = weights.load(found)
        assert (model.net.name, model.net.width, model.net.resolution) == ("v1", entry.width, 128)
        assert model.dtype == "int8"
        assert [output.name for output in model.net.outputs] == ["features"]
        total += found.path.stat().st_size
    assert 0 < total <= 1.5e6
    widest = weights.find(None, "v1", 1.0, 224, any_width=True, environment=closed)
    assert widest.entry == max(own, key=lambda entry: entry.width)
    with pytest.raises(ValueError, match="offline mode is on"):  # a name is never answered by another
        weights.find("keras/mobilenet_2_5_128", "v1", 0.25, 128, environment=closed)


def test_the_cache_comes_before_a_download(here: dict[str, str]) -> None:
    # What is there serves, though another resolution would be nearer.
    near, far = by_name("keras/mobilenet_2_5_160"), by_name("keras/mobilenet_2_5_128")
    folder = Path(here["MOBILENETS_CACHE"]) / "weights"
    folder.mkdir(parents=True)
    (folder / far.file).write_bytes(b"content")
    found = weights.find(None, "v1", 0.25, 160, environment=here)
    assert (found.origin, found.entry) == ("cache", far)
    (folder / near.file).write_bytes(b"other")
    assert weights.find(None, "v1", 0.25, 160, environment=here).entry == near


def test_a_cached_file_that_was_altered_is_refused(here: dict[str, str]) -> None:
    entry = by_name("keras/mobilenet_2_5_128")
    folder = Path(here["MOBILENETS_CACHE"]) / "weights"
    folder.mkdir(parents=True)
    (folder / entry.file).write_bytes(b"content")
    weights.find(entry.name, "v1", 0.25, 128, environment=here)
    (folder / entry.file).write_bytes(b"Content")
    with pytest.raises(ValueError, match="altered or damaged"):
        weights.find(entry.name, "v1", 0.25, 128, environment=here)


def test_the_hubs_and_keras_caches_serve_too(here: dict[str, str]) -> None:
    entry = by_name("timm/mobilenetv1_100")
    revision = entry.url.split("/")[-2]
    hub = Path(here["HF_HOME"]) / "hub" / "models--timm--mobilenetv1_100.ra4_e3600_r224_in1k"
    place = hub / "snapshots" / revision / "model.safetensors"
    assert weights.cached(entry, here) is None
    place.parent.mkdir(parents=True)
    place.write_bytes(b"content")
    assert weights.cached(entry, here) == place
    keras = Path(here["KERAS_HOME"]) / "models" / "mobilenet_7_5_192_tf.h5"
    keras.parent.mkdir(parents=True)
    keras.write_bytes(b"content")
    assert weights.cached(by_name("keras/mobilenet_7_5_192"), here) == keras


def test_an_unknown_name_is_refused_with_the_nearest(here: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="did you mean timm/mobilenetv1_100"):
        weights.find("timm/mobilnetv1_100", "v1", 1.0, 224, environment=here)


@pytest.mark.parametrize("option", ["x" * 5000, "a\0b", "", "."])
def test_an_option_that_can_be_no_file_is_one_line(here: dict[str, str], option: str) -> None:
    with pytest.raises(ValueError, match=r"no known name.*the option.*cache.*download.*packaged"):
        weights.find(option, "v1", 1.0, 224, environment=here)


def test_the_cache_follows_the_environment() -> None:
    assert weights.cache_dir({"MOBILENETS_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert weights.cache_dir({"XDG_CACHE_HOME": "/b"}) == Path("/b/mobilenets")
    assert weights.cache_dir({}) == Path.home() / ".cache" / "mobilenets"


def test_every_published_set_is_pinned_or_held_and_comes_over_https() -> None:
    assert len({entry.name for entry in PUBLISHED}) == len({entry.file for entry in PUBLISHED}) == 57
    homes = [entry.url.rpartition("/")[0].rpartition("/")[2] for entry in PUBLISHED if entry.needs == "h5py"]
    assert {home: homes.count(home) for home in homes} == {
        "mobilenet": 16,
        "mobilenet_v2": 22,
        "mobilenet_v3": 6,
    }
    for entry in PUBLISHED:
        assert entry.url.startswith(PACKAGE if entry.packaged else "https://")
        assert entry.licence == "Apache-2.0"
        assert entry.top1 is None or 0.3 < entry.top1 < 0.9
        if "huggingface.co" in entry.url:
            revision = entry.url.split("/resolve/")[1].split("/")[0]
            assert len(revision) == 40 or revision == UNPINNED


def test_the_nearest_resolution_of_the_right_width_is_chosen() -> None:
    assert for_net("v1", 0.5, 150)[0].name == "keras/mobilenet_5_0_160"
    assert for_net("v1", 1.0, 224)[0].name == "timm/mobilenetv1_100"
    assert for_net("v1", 0.33, 224) == []
    assert for_net("v2", 0.5, 224)[0].name == "timm/mobilenetv2_050"
    assert for_net("v4-conv-medium", 1.0, 256)[0].resolution == 256
    assert for_net("v2", 1.0, 96)[0].name == "keras/mobilenet_v2_1.0_96"
    assert for_net("v2", 1.4, 224)[0].name == "timm/mobilenetv2_140"
    assert for_net("v3-small-minimalistic", 1.0, 224)[0].file.endswith(
        "--weights_mobilenet_v3_small_minimalistic_224_1.0_float.h5"
    )
    assert for_net("v1-cifar", 1.0, 28) == []
