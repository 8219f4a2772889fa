"""Heads: what is put on a body's features to answer a question."""

from __future__ import annotations

from dataclasses import replace

from mobilenets.spec.net import Net, Node, Output, needed
from mobilenets.spec.op import Dense, Pointwise, Pool

HEAD = "head"
"""The name of a classifier's node in every net of the zoo."""


def classify(body: Net, classes: int) -> Net:
    """The body with one dense layer of `classes` logits on its features."""
    if classes < 1:
        raise ValueError(f"{body.name}: a head needs at least one class, not {classes}")
    features = body.output("features").node
    return replace(
        body,
        nodes=(*body.nodes, Node(HEAD, Dense(out=classes), (features,))),
        outputs=(Output("logits", HEAD, "classes"), *body.outputs),
    )


def convolved(body: Net, classes: int) -> Net:
    """The body with SqueezeNet's classifier: a rectified pointwise layer of `classes`, then the mean."""
    if classes < 1:
        raise ValueError(f"{body.name}: a head needs at least one class, not {classes}")
    pool = next(node for node in body.nodes if node.name == body.output("features").node)
    layer = Node(f"{HEAD}.pointwise", Pointwise(out=classes, bias=True, activation="relu"), pool.inputs)
    return replace(
        body,
        nodes=(*body.nodes, layer, Node(f"{HEAD}.pool", Pool(), (layer.name,))),
        outputs=(Output("logits", f"{HEAD}.pool", "classes"), *body.outputs),
    )


def headless(net: Net) -> Net:
    """The body alone: every node that the features need, and no other output."""
    features = net.output("features")
    return replace(net, nodes=needed(net, [features.node]), outputs=(features,))
