"""Where learning starts from: the body that the options name, at their resolution, fed their way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mobilenets.data.digests import Progress
from mobilenets.infer import adopt, weights
from mobilenets.infer.artefact import Artefact
from mobilenets.spec import zoo
from mobilenets.spec.head import headless
from mobilenets.spec.net import Net, at_resolution, tensors
from mobilenets.spec.preprocess import SLIM, Preprocess
from mobilenets.spec.recipe import BodyOptions, LearnOptions

RANDOM = "random"
STANDS_IN = (
    "no ImageNet weights were to be had, so {name} of this package stands in for them: a body taught on "
    "tiny pictures of 200 classes, worth less (docs/recipes.md); `mobilenets models` lists others, and "
    "--weights takes them"
)


def starting_body(options: BodyOptions, learn: LearnOptions, progress: Progress) -> Artefact:
    """The body that learning starts from, at the resolution asked for, with its own preprocessing.

    Raises ValueError where weights cannot be found or are of another network than was asked for.
    """
    if options.resolution is not None and not 1 <= options.resolution <= 4096:
        raise ValueError(
            f"--resolution {options.resolution}: give 1 to 4096 pixels; the papers use 128 to 224"
        )
    if options.weights == RANDOM:
        if learn.finetune < 1:
            raise ValueError("--weights random: nothing would be learned but the head; add --finetune EPOCHS")
        net = zoo.body(options.net, 1.0 if options.width is None else options.width, options.resolution)
        from mobilenets.model.module import random_weights

        made = random_weights(net, learn.seed)
        return Artefact(net, made, _fed(SLIM, net, options), source={"name": "random weights"})
    known_width = 1.0 if options.width is None else options.width
    default = zoo.DEFAULTS[options.net][0] if options.net in zoo.DEFAULTS else 224
    found = weights.find(
        options.weights,
        options.net,
        known_width,
        options.resolution or default,
        any_width=options.width is None,
        progress=lambda done, total: progress("download", done, total or done),
    )
    model = adopt.in_floats(weights.load(found))
    if model.net.name != options.net or (options.width is not None and model.net.width != options.width):
        wanted = options.net if options.width is None else f"{options.net} of width {options.width:g}"
        its = f"--net {model.net.name} --width {model.net.width:g}"
        raise ValueError(
            f"{found.path}: weights of {model.net.name} of width {model.net.width:g}, "
            f"but {wanted} was asked for; give {its}, or other weights"
        )
    net = headless(at_resolution(model.net, options.resolution or model.net.resolution))
    own = {name: model.weights[name] for name in tensors(net)}
    source = model.source
    if found.origin == "packaged" and options.weights is None:
        source = {**source, "stands_in": STANDS_IN.format(name=found.entry.name if found.entry else "")}
    return Artefact(net, own, _fed(model.preprocess, net, options), source=source)


def _fed(pre: Preprocess, net: Net, options: BodyOptions) -> Preprocess:
    # The CIFAR net reads 28 of 32 pixels; elsewhere what lies at the edges is worth more than proportions.
    geometry: Any = options.geometry or ("crop" if net.name == "v1-cifar" else "stretch")
    if geometry not in ("stretch", "crop", "letterbox"):
        raise ValueError(f"--geometry {geometry}: known are stretch, crop, letterbox")
    return replace(pre, height=net.input.height, width=net.input.width, geometry=geometry)
