"""What a user of an exported file must know and no format has a place for, as texts by name."""

from __future__ import annotations

from mobilenets.infer.artefact import Artefact, digest
from mobilenets.spec.codec import preprocess_to_json
from mobilenets.spec.text import json_text


def facts(model: Artefact, layout: str) -> dict[str, str]:
    """How a picture becomes the input, what the outputs mean, which model it was: JSON or plain text."""
    net = model.net
    told = {
        "net": net.called,
        "digest": digest(model),
        "input": f"float32 {layout}, RGB: turned as its EXIF says, cut or fitted by geometry, resized by "
        "an antialiased triangle, then (level - mean) / std with levels 0 to 255",
        "outputs": json_text([output.name for output in net.outputs]),
    }
    told |= {name: json_text(value) for name, value in preprocess_to_json(model.preprocess).items()}
    told["geometry"] = model.preprocess.geometry
    if model.labels:
        told["labels"] = json_text(list(model.labels))
    if model.threshold is not None:
        told["threshold"] = json_text(model.threshold)
    return told
