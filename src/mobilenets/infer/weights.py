"""Where weights come from, in order: a given file or name, the cache, a download, the packaged body."""

from __future__ import annotations

import difflib
import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from mobilenets.infer import adopt
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.sealed import write_whole
from mobilenets.spec.published import PACKAGE, PUBLISHED, Published, by_name, for_net, stand_in

Origin = Literal["file", "cache", "download", "packaged"]
Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes there will be (None where the server doesn't say)."""

MOST_BYTES = 256 << 20
CHUNK = 1 << 16
TIMEOUT_S = 30.0
BODIES = Path(__file__).parents[1] / "bodies"
"""The weights that come with this package."""
TRUE = ("1", "true", "yes", "on")


@dataclass(frozen=True, slots=True)
class Found:
    """A file of weights on this disk, how it came to be found, and the published set it is (None for a
    user's)."""

    path: Path
    origin: Origin
    entry: Published | None


def find(
    option: str | None,
    net: str,
    width: float,
    resolution: int,
    *,
    any_width: bool = False,
    progress: Progress | None = None,
    allowed: Callable[[str], bool] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Found:
    """Weights for a network: the option (a local file always serves), the cache, a download, the packaged
    body.

    The packaged body stands in for what was not named, of this width, or the widest where `any_width` will
    do.
    `allowed` says which addresses may be fetched: https ones, unless a caller knows better. Raises
    NoWeightsError, one line that names all four places and what was tried at each.
    """
    if option is not None and _is(option, Path.is_file):
        return Found(Path(option), "file", None)
    entries = [_entry(option)] if option is not None else for_net(net, width, resolution)
    what = option or f"{net} of width {width:g} at {resolution}"
    said = f"--weights {option} (no such file, a known name)" if option is not None else "--weights not given"
    for entry in entries:
        there = cached(entry, environment)
        if there is not None and entry.packaged:  # sealed, and nobody else's
            return Found(there, "packaged", entry)
        if there is not None:
            return Found(_held(there, entry), "cache", entry)
    tried = [f"1. the option: {said}", f"2. the cache: {_not_cached(entries, environment)}"]
    if not entries:
        tried.append(f"3. a download: no published weights for {net} of width {width:g}")
    elif offline(environment):
        tried.append(
            f"3. a download of {entries[0].name}: offline mode is on (MOBILENETS_OFFLINE, HF_HUB_OFFLINE)"
        )
    else:
        try:
            path = fetch(entries[0], progress=progress, allowed=allowed, environment=environment)
            return Found(path, "download", entries[0])
        except DownloadError as error:
            tried.append(f"3. a download of {entries[0].name}: {error}")
    own = stand_in(net, None if any_width else width) if option is None else None
    if own is not None and (there := cached(own, environment)) is not None:
        return Found(there, "packaged", own)
    known = ", ".join(f"{e.net} {e.width:g}" for e in PUBLISHED if e.packaged)
    tried.append(f"4. the packaged body: this release has {known or 'none'}")
    raise NoWeightsError(
        f"no weights for {what}: {'; '.join(tried)}. "
        "Get a file on another machine and give it with --weights FILE; `mobilenets models` lists their homes"
    )


def load(found: Found, *, integers: bool = False) -> Artefact:
    """The model in a file that `find` found; its `source` also says name, home and licence.

    A quantised `.tflite` keeps its integers where `integers` says so.
    """
    model = adopt.read(found.path, integers=integers)
    if found.entry is None:
        return model
    entry = found.entry
    return replace(
        model,
        source={**model.source, "name": entry.name, "url": entry.url, "licence": entry.licence},
    )


def cache_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """MOBILENETS_CACHE, else `mobilenets` in XDG_CACHE_HOME, else ~/.cache/mobilenets. Nothing is created."""
    own = environment.get("MOBILENETS_CACHE")
    if own:
        return Path(own)
    shared = environment.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "mobilenets"


def offline(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether MOBILENETS_OFFLINE or HF_HUB_OFFLINE forbids the network."""
    return any(environment.get(key, "").lower() in TRUE for key in ("MOBILENETS_OFFLINE", "HF_HUB_OFFLINE"))


def cached(entry: Published, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Where a set lies on this disk, None where it does not: in our cache, the Hugging Face hub's or
    Keras'."""
    return next((path for path in _places(entry, environment) if path.is_file()), None)


def fetch(
    entry: Published,
    *,
    progress: Progress | None = None,
    allowed: Callable[[str], bool] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Path:
    """Download a set into the cache: read and recorded before it is used, whole or not at all.

    Raises DownloadError in one line: no network, an address that is not allowed, a file that is cut short,
    too large, no V1, or not the one that was recorded.
    """
    # The address carries the revision: plain https does what a hub's client would do, without its weight.
    target = cache_dir(environment) / "weights" / entry.file
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{entry.file[:64]}.", suffix=".part")
    except OSError as error:
        raise DownloadError(f"cannot write to {target.parent}: {error.strerror or error}") from error
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            digest = _streamed(entry.url, file, progress, allowed or _https)
        wanted = entry.sha256 or _recorded(target)
        if wanted is not None and digest != wanted:
            raise DownloadError(_other(entry.url, digest, wanted, target))
        _check(part, entry)
        write_whole(_sidecar(target), f"{digest}  {entry.file}\n".encode())
        part.replace(target)  # after the record, so that no file lies there unrecorded
    except OSError as error:
        raise DownloadError(f"cannot write to {target.parent}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return target


def _is(option: str, kind: Callable[[Path], bool]) -> bool:
    try:
        return kind(Path(option))
    except (OSError, ValueError):  # too long a name, a zero byte
        return False


class DownloadError(ValueError):
    """A download that brought nothing that can be used; the text says why."""


class NoWeightsError(ValueError):
    """None of the four places has the weights; the text names each and what was tried there."""


def _entry(option: str) -> Published:
    try:
        return by_name(option)
    except KeyError:
        near = difflib.get_close_matches(option, [entry.name for entry in PUBLISHED], 3, 0.5)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        if _is(option, Path.is_dir):
            hint = ": a folder, so name one of its files, or add --sweep to try all"
        raise ValueError(
            f"--weights {option}: no such file, and no known name{hint}. Weights come from 1. the option: a "
            "file or a name that `mobilenets models` lists; without it 2. the cache, 3. a download, 4. the "
            "packaged body"
        ) from None


def _places(entry: Published, environment: Mapping[str, str]) -> list[Path]:
    if entry.packaged:
        return [BODIES / entry.url.removeprefix(PACKAGE)]
    places = [cache_dir(environment) / "weights" / entry.file]
    address = urlsplit(entry.url)
    parts = address.path.strip("/").split("/")
    if address.hostname == "huggingface.co" and "resolve" in parts:
        home = Path(environment.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
        hub = Path(environment.get("HF_HUB_CACHE") or home / "hub")
        places.append(hub / f"models--{parts[0]}--{parts[1]}" / "snapshots" / parts[3] / parts[4])
    elif parts[-1].endswith(".h5"):
        places.append(Path(environment.get("KERAS_HOME") or Path.home() / ".keras") / "models" / parts[-1])
    return places


def _not_cached(entries: list[Published], environment: Mapping[str, str]) -> str:
    folder = cache_dir(environment) / "weights"
    return (
        f"{', '.join(entry.name for entry in entries[:4])} not in {folder}"
        if entries
        else "nothing to look for"
    )


def _held(path: Path, entry: Published) -> Path:
    """The cached file, if it still is what was recorded; one that someone put there is recorded now."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    wanted = entry.sha256 or _recorded(path)
    if wanted is not None and digest != wanted:
        raise ValueError(_other(str(path), digest, wanted, path))
    if wanted is None and path.name == entry.file:
        with suppress(OSError):  # a cache that cannot be written to still serves
            write_whole(_sidecar(path), f"{digest}  {path.name}\n".encode())
    return path


def _other(place: str, digest: str, wanted: str, target: Path) -> str:
    return (
        f"{place} has SHA-256 {digest[:16]}…, recorded is {wanted[:16]}…: altered or damaged; "
        f"delete {target} and {_sidecar(target).name} if you trust the new one"
    )


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _recorded(path: Path) -> str | None:
    try:
        text = _sidecar(path).read_text("ascii", "replace").split()
    except OSError:
        return None
    return text[0] if text and len(text[0]) == 64 else None


def _check(part: Path, entry: Published) -> None:
    """Raises DownloadError where the file is not the set that it should be, before anything is recorded."""
    try:
        model = adopt.read(part)
    except ValueError as error:
        if entry.needs == "h5py" and "pip install h5py" in str(error):
            return  # it can be fetched now and read later
        text = str(error).removeprefix(f"{part}: ")
        raise DownloadError(f"{entry.url} gave something else: {text}") from error
    if model.net.width != entry.width or model.net.name != entry.net:
        raise DownloadError(f"{entry.url} gave {model.net.name} of width {model.net.width:g}")


def _https(url: str) -> bool:
    return urlsplit(url).scheme == "https"


def _streamed(url: str, file: IO[bytes], progress: Progress | None, allowed: Callable[[str], bool]) -> str:
    class Redirect(HTTPRedirectHandler):
        """Follows redirects to allowed addresses only: a hub sends its files from another host."""

        def redirect_request(
            self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
        ) -> Request | None:
            if not allowed(newurl):
                fp.close()
                raise DownloadError(f"{url} sends on to {newurl[:80]}, which is not https")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    if not allowed(url):
        raise DownloadError(f"{url}: only https addresses are fetched")
    try:
        request = Request(url, headers={"User-Agent": "mobilenets"})
        with closing(build_opener(Redirect).open(request, timeout=TIMEOUT_S)) as reply:
            length = reply.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            if total is not None and total > MOST_BYTES:
                raise DownloadError(f"{url} is {total} bytes, more than {MOST_BYTES}")
            return _copied(url, reply, file, total, progress)
    except HTTPError as error:
        error.close()
        raise DownloadError(f"{url} answers {error.code} {' '.join(str(error.reason).split())}") from error
    except URLError as error:
        raise DownloadError(f"{url} cannot be reached ({error.reason})") from error
    except (HTTPException, TimeoutError, ConnectionError) as error:
        raise DownloadError(f"{url} broke off ({error or type(error).__name__})") from error


def _copied(url: str, reply: Any, file: IO[bytes], total: int | None, progress: Progress | None) -> str:
    digest, done = hashlib.sha256(), 0
    while chunk := reply.read(CHUNK):
        done += len(chunk)
        if done > MOST_BYTES:
            raise DownloadError(f"{url} sends more than {MOST_BYTES} bytes")
        file.write(chunk)
        digest.update(chunk)
        if progress is not None:
            progress(done, total)
    if total is not None and done != total:
        raise DownloadError(f"{url} broke off after {done} of {total} bytes")
    return digest.hexdigest()
