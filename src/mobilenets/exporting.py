"""`mobilenets export`: a model in, another runtime's file out that answers as the walk does, or nothing."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.compile import verify
from mobilenets.data.digests import Progress
from mobilenets.export.formats import FORMATS, Format, chosen, versioned
from mobilenets.export.making import made
from mobilenets.frames import frames
from mobilenets.infer.adopt import in_floats
from mobilenets.infer.artefact import Artefact, digest
from mobilenets.infer.image import normalise, prepare
from mobilenets.infer.walk import Walk
from mobilenets.placing import replaced
from mobilenets.spec.net import shapes

INTEGERS = ("uint8", "int8")
MANIFEST = "Manifest.json"
"""What makes a folder a package of Core ML's."""


def export_model(
    model: Artefact, given: str, out: Path, progress: Progress, *, to: str, images: Path | None = None
) -> dict[str, Any]:
    """Write the model, in float32, to `out` or into it, and tell what was written and how it compares.

    `given` is what the user called the model. Raises ValueError for what a user can mend, RuntimeError where
    the exporter or the comparison fails; nothing is left then.
    """
    form = chosen(to)
    if not model.weights:
        raise ValueError(f"{given}: a compiled model; give the model file that it was made of")
    for output in model.net.outputs:
        if (shape := shapes(model.net)[output.node])[:2] != (1, 1):
            raise ValueError(
                f"{given}: its output {output.name} is a map, {tuple(shape)}; vectors are exported"
            )
    target = _target(out, form, given)
    begun = time.perf_counter()
    floats = in_floats(model)
    with replaced(target) as path, tempfile.TemporaryDirectory(prefix="mobilenets-") as place:
        progress("export", 0, 2)
        shown, told = frames(images)
        values = normalise(np.stack([prepare(frame, model.preprocess) for frame in shown]), model.preprocess)
        answers = made(form, floats, values, path, Path(place))
        progress("export", 1, 2)
        differences: dict[str, verify.Difference] = {}
        if answers is not None:
            walk = Walk(floats.net, floats.weights)
            for number, one in enumerate(values):
                got = {name: value[number : number + 1] for name, value in answers.items()}
                verify.add(differences, got, walk(one[None]))
            verify.hold(differences, verify.AGREE, "the exported model")
        written = sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
    net, ran = model.net, answers is not None
    return {
        "format": form.name,
        "file": str(target),
        "bytes": written,
        "dtype": "float32",
        "dequantised_from": _integers(model),
        "net": net.name,
        "width": net.width,
        "resolution": net.resolution,
        "digest": digest(floats),
        "layout": form.layout,
        "outputs": [output.name for output in net.outputs],
        "labels": len(model.labels),
        "exporter": versioned(form.exporter),
        "verified_by": versioned(form.runtime) if form.runtime else None,
        "verified_on": told if ran else None,
        "unverified": None if ran else "written, not run: Core ML runs on Apple's systems only",
        "frames": len(shown) if ran else 0,
        "largest_error": {
            name: asdict(one) | {"relative": one.relative} for name, one in differences.items()
        },
        "seconds": round(time.perf_counter() - begun, 2),
    }


def _integers(model: Artefact) -> str | None:
    """The type of a quantised model that is read in float32, with the rounding of its maps left out."""
    if model.scales:
        return model.dtype
    kept = str(model.source.get("weights", ""))
    return kept if model.source.get("format") == "tflite" and kept in INTEGERS else None


def _target(out: Path, form: Format, given: str) -> Path:
    """The file to write: `out` where it is called as such a file is, else one in the folder `out`."""
    named = out.suffix == form.suffix and (form.folder or not out.is_dir())
    other = next((one for one in FORMATS.values() if one.suffix == out.suffix), form)
    if other is not form and not out.is_dir():
        raise ValueError(f"--out {out}: --to {form.name} writes {form.suffix}, not {other.suffix}")
    stem = Path(given).stem if Path(given).exists() else Path(given).name
    target = out if named else out / f"{stem}{form.suffix}"
    if target.exists():
        if Path(given).exists() and target.samefile(given):
            raise ValueError(f"--out {target}: is the model itself; give another --out")
        if target.is_dir() and not (form.folder and (target / MANIFEST).exists()):
            raise ValueError(f"--out {target}: a folder is in its way; give another --out")
    return target
