"""Which network of the zoo a chain of layers is, told by what the layers do and not by their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer import imagenet
from mobilenets.spec import head, inverted, zoo
from mobilenets.spec.building import Rounding
from mobilenets.spec.net import Net, shape_after, tensors
from mobilenets.spec.op import Add, Conv, Dense, Depthwise, Op, Padding, Pointwise, Pool, Shape, pads

Tensor = NDArray[Any]
"""float32, but for the parts of a layer of integers."""
MOST_DIFFERENCES = 3
BACKGROUND = 1001
"""TensorFlow's ImageNet classifiers have this many classes; the first is "background"."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer as a file has it: what it does, and its tensors by the end of their names, in our order.

    `reads` are the numbers of the layers that it reads, in their order; none where that is the one before.
    """

    op: Op
    tensors: dict[str, Tensor]
    reads: tuple[int, ...] = ()


def recognise(layers: Sequence[Layer], image: Shape) -> tuple[Net, dict[str, Tensor]]:
    """The network that these layers are, on this input, and their tensors under its names.

    Widths, blocks, rounding, padding and activation are found out; a classifier of 1001 classes loses its
    background. Raises ValueError that says where the layers differ from the nearest network there is.
    """
    nearest: tuple[tuple[int, int], Net, list[str]] | None = None
    for candidate in _candidates(layers, image):
        different = differences(candidate, layers)
        if not different:
            return _named(candidate, layers)
        distance = (
            different[0][0],
            -len(different),
        )  # the longest common beginning, then the fewest differences
        if nearest is None or distance > nearest[0]:
            nearest = (distance, candidate, [text for _, text in different])
    if nearest is None:
        raise ValueError("it has no layer with a weight")
    _, net, texts = nearest
    more = f"; and {len(texts) - MOST_DIFFERENCES} more" if len(texts) > MOST_DIFFERENCES else ""
    raise ValueError(
        f"it is no V1 or V2 that the zoo knows; from the nearest, {net.name} of width {net.width:g}, "
        f"it differs: {'; '.join(texts[:MOST_DIFFERENCES])}{more}"
    )


def differences(net: Net, layers: Sequence[Layer]) -> list[tuple[int, str]]:
    """Where the layers are not the network's: the layer's number, and how they differ in words."""
    found = []
    x = net.input
    numbers = {node.name: number for number, node in enumerate(net.nodes)}
    for index in range(max(len(net.nodes), len(layers))):
        if index >= len(layers):
            found.append((index, f"missing {net.nodes[index].name}"))
            continue
        mine = layers[index].op
        if index >= len(net.nodes):
            found.append((index, f"extra {described(mine)} at the end"))
            continue
        want = net.nodes[index]
        if _settled(mine, x) != _settled(want.op, x):
            found.append((index, f"{want.name} is a {described(want.op)}, here it is a {described(mine)}"))
        elif (reads := layers[index].reads) and reads != tuple(sorted(numbers[n] for n in want.inputs)):
            found.append((index, f"{want.name} sums {' and '.join(want.inputs)}, here other maps"))
        x = shape_after(want.op, [x])
    return found


def described(op: Op) -> str:
    """An operation in a few words."""
    match op:
        case Conv() | Depthwise():
            kind = f"conv of {op.out}" if isinstance(op, Conv) else "depthwise"
            padding = "SAME" if op.padding == "same" else op.padding
            return f"{op.kernel}×{op.kernel} {kind}, stride {op.stride}, {padding}, {op.activation}"
        case Pointwise():
            return f"pointwise of {op.out}, {op.activation}"
        case Dense():
            return f"dense of {op.out}"
        case Pool():
            return "average pool"
        case Add():
            return "sum of maps"
        case _:
            return type(op).__name__.lower()


def renamed(net: Net, names: Mapping[str, str], found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `net` out of another library's; `names` maps ours to theirs, `found` is already in our
    order.

    A classifier of 1001 classes keeps its background here: see `without_background`. Raises ValueError that
    lists what is missing, extra or of another shape, under their names.
    """
    wanted = tensors(net)
    missing = [their for ours, their in names.items() if ours in wanted and their not in found]
    used = {names[ours] for ours in wanted}
    extra = [their for their in found if their not in used]
    wrong = [
        f"{names[ours]} is {list(found[names[ours]].shape)}, wanted {list(shape)}"
        for ours, shape in wanted.items()
        if names[ours] in found and found[names[ours]].shape != shape
    ]
    parts = (("missing", missing), ("extra", extra), ("wrong shape", wrong))
    if missing or extra or wrong:
        listed = "; ".join(f"{what}: {_few(texts)}" for what, texts in parts if texts)
        raise ValueError(f"its tensors are not those of {net.name} of width {net.width:g}: {listed}")
    for their in used:
        if not np.isfinite(found[their]).all():
            raise ValueError(f"its tensor {their} holds values that are not finite")
    return {ours: found[names[ours]] for ours in wanted}


def without_background(net: Net, weights: dict[str, Tensor]) -> tuple[Net, dict[str, Tensor]]:
    """An ImageNet classifier of 1001 classes without its first, "background"; any other as it is."""
    last = net.nodes[-1]
    if not isinstance(last.op, Dense) or last.op.out != BACKGROUND:
        return net, weights
    cut = {name: value[1:] if name.startswith(f"{last.name}.") else value for name, value in weights.items()}
    return head.classify(head.headless(net), BACKGROUND - 1), cut


def _few(texts: Sequence[str], most: int = 4) -> str:
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def labels_for(net: Net) -> tuple[str, ...]:
    """The ImageNet names for a published classifier of 1000 classes, else none."""
    classes = next((node.op.out for node in net.nodes if isinstance(node.op, Dense)), 0)
    return imagenet.labels() if classes == imagenet.CLASSES else ()


def _settled(op: Op, x: Shape) -> Op:
    """The op with one spelling for paddings that are the same on this input."""
    if isinstance(op, Conv | Depthwise):
        both = [[pads(side, op.kernel, op.stride, kind) for side in x[:2]] for kind in ("same", "symmetric")]
        if both[0] == both[1]:
            return replace(op, padding="same")
    return op


def _candidates(layers: Sequence[Layer], image: Shape) -> Iterator[Net]:
    convolutions = [layer.op for layer in layers if isinstance(layer.op, Conv | Depthwise | Pointwise)]
    outs = [op.out for op in convolutions if not isinstance(op, Depthwise)]
    if not outs:
        return
    first = convolutions[0]
    classes = next((layer.op.out for layer in layers if isinstance(layer.op, Dense)), None)
    paddings: tuple[Padding, ...] = ("same", "symmetric")
    if any(isinstance(layer.op, Add) for layer in layers):
        for padding, width in product(paddings, _widths(outs, V2_CHANNELS)):
            made = inverted.v2(width, image.height, padding=padding, activation=first.activation)
            yield _fitted(made, image, first, classes)
        return
    for padding, width, (blocks, name, full, last), rule in product(
        paddings, _widths(outs), _SHAPES, _ROUNDINGS
    ):
        made = zoo.v1(
            width,
            image.height,
            blocks=blocks,
            name=name,
            full=full,
            last=last,
            rounding=rule,
            padding=padding,
            activation=first.activation,
            epsilon=first.norm.epsilon if first.norm else 1e-3,
        )
        yield _fitted(made, image, first, classes)


def _fitted(made: Net, image: Shape, first: Conv | Depthwise | Pointwise, classes: int | None) -> Net:
    """A body on this input, without norms where `first` has none, with a head where there is one."""
    made = replace(made, input=image)
    if first.norm is None:
        made = without_norms(made)
    return made if classes is None else head.classify(made, classes)


_SHAPES = (
    (zoo.V1_BLOCKS, "v1", False, False),
    (zoo.V1_SHALLOW_BLOCKS, "v1-shallow", False, False),
    (zoo.V1_BLOCKS, "v1", False, True),
    (zoo.V1_BLOCKS, "v1-full", True, False),
    (zoo.V1_CIFAR_BLOCKS, "v1-cifar", False, False),
)
_ROUNDINGS: tuple[Rounding, ...] = ("slim", "keras", "divisible")


V1_CHANNELS = ((-1, 1024), (0, zoo.V1_STEM))
V2_CHANNELS = ((-2, inverted.V2_ROWS[-1][1]), (-1, inverted.V2_LAST), (0, inverted.V2_STEM))
"""Channels that telling layers have at width 1: each one's number, and how many."""


def _widths(outs: Sequence[int], channels: Sequence[tuple[int, int]] = V1_CHANNELS) -> list[float]:
    """Widths worth trying, likeliest first: the multiples of 0.05 near those of telling layers."""
    found: list[float] = []
    for ratio in (outs[number] / at_one for number, at_one in channels if len(outs) >= abs(number)):
        for width in (round(ratio * 20) / 20, round(ratio, 2), ratio):
            if 0 < width <= 8 and width not in found:
                found.append(width)
    return found


def without_norms(net: Net) -> Net:
    """The same network with its batch norms folded: biases in their place."""
    return replace(
        net,
        nodes=tuple(
            replace(node, op=replace(node.op, norm=None, bias=True))
            if isinstance(node.op, Conv | Depthwise | Pointwise)
            else node
            for node in net.nodes
        ),
    )


def _named(net: Net, layers: Sequence[Layer]) -> tuple[Net, dict[str, Tensor]]:
    return without_background(
        net,
        {
            f"{node.name}.{part}": value
            for node, layer in zip(net.nodes, layers, strict=True)
            for part, value in layer.tensors.items()
        },
    )
