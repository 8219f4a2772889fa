"""An Android package of an app: its files behind a WebView, built and signed by Debian's tools, no SDK."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from mobilenets.app.certificate import of_packages
from mobilenets.app.icon import icon
from mobilenets.app.making import TOLD, slug, title_of
from mobilenets.data.digests import Progress
from mobilenets.infer.sealed import write_whole

TOOLS = {
    "aapt": "aapt",
    "smali": "libsmali-java",
    "zipalign": "zipalign",
    "apksigner": "apksigner",
}
"""Programs, and Debian's packages that have them."""
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")
ICON_SIDE = 192
BEGUN = 1_700_000_000
"""Seconds of 1970 from which versions count minutes: a later build takes an earlier one's place."""
LIMIT_S = 120


def equipped() -> None:
    """Raises ValueError where a tool that packages are made by is missing."""
    if lacking := [f"{debian} ({name})" for name, debian in TOOLS.items() if not shutil.which(name)]:
        raise ValueError(f"--apk wants Debian's {', '.join(lacking)}: apt-get install them")
    if not FRAMEWORK.exists():
        raise ValueError(f"--apk wants {FRAMEWORK}: apt-get install android-framework-res")


def package(folder: Path, out: Path, progress: Progress) -> dict[str, Any]:
    """Write the app in `folder` as a signed package to `out`, whole or not at all; tell what is in it.

    Raises ValueError where a tool or a part of the app is missing, RuntimeError where a tool fails or the
    package does not verify.
    """
    equipped()
    title = title_of(folder)
    version = json.loads((folder / TOLD).read_bytes())["version"]
    name = f"org.mobilenets.camera.{_identifier(title)}"
    source = files("mobilenets.app") / "android"
    steps = 5
    with tempfile.TemporaryDirectory(prefix="mobilenets-") as scratch:
        place = Path(scratch)
        progress("package", 0, steps)
        shutil.copytree(folder, place / "assets")
        (place / "res" / "drawable").mkdir(parents=True)
        (place / "res" / "drawable" / "icon.png").write_bytes(icon(ICON_SIDE))
        manifest = (source / "AndroidManifest.xml").read_text(encoding="utf-8")
        code = str((int(time.time()) - BEGUN) // 60)
        facts = {
            "package": name,
            "code": code,
            "version": version,
            # else a resource's name or, of a backslash, another letter
            "title": "\\" * (title[:1] in "@?") + escape(title.replace("\\", "\\\\")),
        }
        for word, value in facts.items():
            manifest = manifest.replace(f"@{word}@", value)
        (place / "AndroidManifest.xml").write_text(manifest, encoding="utf-8")
        texts = [file for file in source.iterdir() if file.name.endswith(".smali")]
        for file in texts:
            (place / file.name).write_bytes(file.read_bytes())
        _run(["smali", "assemble", "-o", "classes.dex", *sorted(file.name for file in texts)], place)
        progress("package", 1, steps)
        words = ["aapt", "package", "-f", "-M", "AndroidManifest.xml", "-S", "res", "-A", "assets"]
        _run([*words, "-I", str(FRAMEWORK), "-F", "plain.apk"], place)
        _run(["aapt", "add", "plain.apk", "classes.dex"], place)
        progress("package", 2, steps)
        _run(["zipalign", "-f", "-p", "4", "plain.apk", "aligned.apk"], place)
        key, certificate = of_packages(place)
        signing = ["apksigner", "sign", "--key", str(key), "--cert", str(certificate), "--out", "signed.apk"]
        _run([*signing, "aligned.apk"], place)
        progress("package", 3, steps)
        found = _run(["apksigner", "verify", "--verbose", "--print-certs", "signed.apk"], place)
        told = _run(["aapt", "dump", "badging", "signed.apk"], place)
        progress("package", 4, steps)
        if (
            f"name='{name}'" not in told
            or "launchable-activity: name='org.mobilenets.camera.Main'" not in told
        ):
            raise RuntimeError("the package that was made has no activity to start")
        data = (place / "signed.apk").read_bytes()
    write_whole(out, data)
    permissions = re.findall(r"uses-permission: name='([^']+)'", told)
    return {
        "file": str(out),
        "bytes": len(data),
        "package": name,
        "version_code": int(code),
        "permissions": permissions,
        "schemes": re.findall(r"Verified using (v\d(?:\.\d)?) scheme[^:]*: true", found),
        "certificate_sha256": (re.findall(r"certificate SHA-256 digest: (\w+)", found) or [None])[0],
    }


def _identifier(title: str) -> str:
    """A title as a part of a package's name: small letters and digits, a letter first."""
    plain = slug(title).replace("-", "_")
    return plain if plain[:1].isalpha() else f"app_{plain}"


def _run(words: Sequence[str], place: Path) -> str:
    """A tool's output. Raises RuntimeError with its first complaint."""
    try:
        done = subprocess.run(
            words, cwd=place, capture_output=True, text=True, errors="replace", timeout=LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"{words[0]} did not run: {error}") from error
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise RuntimeError(f"{words[0]} failed ({done.returncode}): {(lines or ['it said nothing'])[0]}")
    return done.stdout
