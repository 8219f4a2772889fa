"""`mobilenets app`: models in, a folder with a web app out, or nothing."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from mobilenets.app.icon import icon
from mobilenets.app.parts import variant
from mobilenets.compiling import typed
from mobilenets.data.digests import Progress
from mobilenets.infer.artefact import Artefact
from mobilenets.placing import replaced

PAGE = (
    "index.html",
    "app.css",
    "main.js",
    "network.js",
    "worker.js",
    "page.js",
    "camera.js",
    "teaching.js",
    "lesson.js",
    "head.js",
    "file.js",
    "store.js",
    "words.js",
)
WORKER, TOLD, MANIFEST = "sw.js", "app.json", "manifest.webmanifest"
ICONS = (192, 512)
CODE = (".html", ".js", ".css", ".wasm")
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)
"""What browsers let the page and its workers load, and from where: of their own host alone."""
BUDGET_MS = 33.0
"""For a frame: thirty of them a second."""
MOST_TITLE = 60
MOST_SLUG = 40
SHORT = 30
"""Letters of a title that stands in one line of a phone."""


def make_app(
    models: Sequence[tuple[str, Artefact]],
    out: Path,
    progress: Progress,
    *,
    title: str | None = None,
    dtype: str | None = None,
    calibrate: Path | None = None,
    images: Path | None = None,
) -> dict[str, Any]:
    """Write an app of models, each with the name a user gave it, to the folder `out`; tell what is in it.

    Its title is of its classes, where they are few, unless one is given.
    Raises ValueError for what a user can mend, RuntimeError where the compiler or the verification fails;
    an app that was there stays then.
    """
    for name, model in models:
        if not model.labels:
            raise ValueError(f"{name}: a body without classes; `mobilenets retrain` gives it some")
    title = (title or _titled(models[0])).strip()
    if not title or len(title) > MOST_TITLE:
        raise ValueError(f"--title: 1 to {MOST_TITLE} letters, not {len(title)}")
    if any(unicodedata.category(letter) == "Cc" for letter in title):
        raise ValueError(f"--title {title!r}: control characters cannot be shown")
    _ours(out)
    content: dict[str, bytes] = {}
    rows: list[dict[str, Any]] = []
    certificates: dict[str, Any] = {}
    if len({model.labels for _, model in models}) > 1:
        raise ValueError("the models of one app answer by the same classes, in the same order")
    for number, (name, model) in enumerate(models, 1):
        made, calibrated = typed(model, dtype or model.dtype, calibrate, progress)
        one = variant(made, name, progress, images)
        folder = f"models/{slug(name)}" + (f"-{number}" if len(models) > 1 else "")
        content |= {f"{folder}/{file}": data for file, data in one.files.items()}
        called = f"{made.net.called}, {made.dtype}"
        rows.append({"name": called, "folder": folder, "digest": one.digest, "macs": one.macs})
        certificates[folder.removeprefix("models/")] = one.certificates | calibrated
    if len({row["digest"] for row in rows}) < len(rows):
        raise ValueError("the same model was given twice")
    rows.sort(key=lambda row: row["macs"])
    content |= _page(title, rows, content)
    with replaced(out.absolute()) as place:
        for file, data in content.items():
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (place / file).write_bytes(data)
    return {
        "title": title,
        "version": json.loads(content[TOLD])["version"],
        "out": str(out),
        "bytes": sum(map(len, content.values())),
        "gzip_bytes": sum(map(_zipped, content.values())),
        "code_bytes": sum(len(data) for file, data in content.items() if Path(file).suffix in CODE),
        "variants": rows,
        "certificates": certificates,
        "files": {file: len(data) for file, data in sorted(content.items())},
    }


def _page(title: str, rows: Sequence[dict[str, Any]], models: dict[str, bytes]) -> dict[str, bytes]:
    """All files but the models': the version is of all their bytes, those of the models too."""
    source = files("mobilenets.app") / "page"
    made = {file: (source / file).read_bytes() for file in PAGE}
    made["index.html"] = (
        made["index.html"].replace(b"@title@", escape(title).encode()).replace(b"@policy@", POLICY.encode())
    )
    made |= {f"icon-{side}.png": icon(side) for side in ICONS}
    pictures = [{"src": f"icon-{side}.png", "sizes": f"{side}x{side}", "type": "image/png"} for side in ICONS]
    manifest = {
        "name": title,
        "short_name": title[:12],
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": "#111417",
        "theme_color": "#111417",
        "icons": [*pictures, *(one | {"purpose": "maskable"} for one in pictures)],
    }
    made[MANIFEST] = json.dumps(manifest).encode()
    worker = (source / WORKER).read_text(encoding="utf-8").replace("@policy@", POLICY)
    digests = {file: _digest(data) for file, data in sorted((made | models).items())}
    facts = {"budget_ms": BUDGET_MS, "variants": rows, "files": digests}
    version = _digest((json.dumps(facts) + worker).encode())[:16]
    made[TOLD] = json.dumps({"version": version, **facts}, indent=1).encode()
    made[WORKER] = worker.replace("@version@", _digest(made[TOLD])).encode()
    return made


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def slug(name: str) -> str:
    """A name as a part of an address; where letters had to go, its digest keeps it apart from others."""
    whole = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    if len(whole) <= MOST_SLUG and not any(letter.isalnum() for letter in name if not letter.isascii()):
        return whole or "app"
    return f"{whole[:MOST_SLUG].strip('-') or 'app'}-{_digest(name.encode())[:6]}"


def _titled(first: tuple[str, Artefact]) -> str:
    """What its classes are, or what the file is called where they are many."""
    name, model = first
    said = " or ".join(model.labels)
    return (said if len(said) <= SHORT else name)[:MOST_TITLE]


def _zipped(data: bytes) -> int:
    return min(len(data), len(gzip.compress(data, 9)))


def _ours(out: Path) -> None:
    """Raises where `out` is something that an app must not take the place of."""
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(20, "a file is in its way; give another --out", str(out))
    if not out.exists() or not any(out.iterdir()):
        return
    told = told_of(out)
    if told is None:
        raise ValueError(f"--out {out}: holds other files and no app; give an empty folder or a new one")
    there = {file.relative_to(out).as_posix() for file in out.rglob("*") if not file.is_dir()}
    if others := sorted(there - {TOLD, WORKER, *told["files"]}):
        raise ValueError(f"--out {out}: holds {others[0]}, which is no file of its app; give another folder")


def title_of(folder: Path) -> str:
    """The name of the app in a folder. Raises ValueError where its manifest says none."""
    try:
        return str(json.loads((folder / MANIFEST).read_bytes())["name"])
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{folder}: {MANIFEST} is missing or damaged; make the app anew") from error


def told_of(folder: Path) -> dict[str, Any] | None:
    """What `app.json` says of the app in a folder; None where there is no app."""
    try:
        told = json.loads((folder / TOLD).read_bytes())
    except (OSError, ValueError):
        return None
    whole = isinstance(told, dict) and isinstance(told.get("files"), dict) and "variants" in told
    return told if whole else None
