"""What learns: a network in floats, or one in bytes that computes what its integers compute."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from mobilenets.infer.artefact import Artefact
from mobilenets.model.faked import Faked, integers
from mobilenets.model.module import Layer, Module, module, placed, weights_of
from mobilenets.spec.net import at_resolution

Student = Module | Faked


def student(model: Artefact, device: torch.device) -> Student:
    """A model as a module that learns, on a device; a quantised one learns in bytes."""
    if model.scales:
        return placed(Faked(model), device)
    return placed(module(model.net, model.weights), device)


def learned(made: Student, like: Artefact) -> Artefact:
    """What a module has become, as a model with all else of `like`."""
    if isinstance(made, Faked):
        found = integers(made)
        return replace(like, weights=found.weights, scales=found.scales)
    return replace(like, weights=weights_of(made))


def copied(made: Student) -> Student:
    """A module of its own with the same numbers."""
    if isinstance(made, Faked):
        return deepcopy(made)
    copy = placed(Module(made.net), next(made.parameters()).device)
    copy.load_state_dict(made.state_dict())
    return copy


def sharing(made: Student, side: int | None = None) -> Student:
    """A module on another's weights, for pictures of `side` pixels, with gradients and statistics of its own.

    After a pass in train mode its statistics are those of that one batch. A network in bytes has one size.
    """
    copy = copied(made)
    if isinstance(made, Module) and side is not None and side != made.net.resolution:
        copy = placed(Module(at_resolution(made.net, side)), next(made.parameters()).device)
    for own, value in zip(copy.parameters(), made.parameters(), strict=True):
        own.data = value.data
        own.requires_grad_(value.requires_grad)
    for layer in copy.modules():
        if isinstance(layer, Layer) and layer.norm is not None:
            layer.norm.momentum = 1.0
    return copy


def statistics(made: Student) -> list[Tensor]:
    """The running statistics of every norm, in order."""
    return [buffer for name, buffer in made.named_buffers() if ".norm." in name]
