"""One way to quantise a network, carried out: scales for its maps, whole numbers for its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer import rounding
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.calibrate import Moments, Observed, Ranges, batches, in_threads, looked_at, moments_of
from mobilenets.infer.integer import (
    LEAST_MULTIPLIER,
    MOST_BIAS,
    IntegerLayer,
    Kept,
    activation_of,
    image_zero,
)
from mobilenets.infer.resize import Frame
from mobilenets.infer.rounding import Rounded
from mobilenets.infer.scale import MOST, Scale
from mobilenets.infer.spare import Copies, copies
from mobilenets.infer.walk import Map
from mobilenets.spec.net import Net, Node
from mobilenets.spec.op import PLAIN, Add, Conv, Depthwise, Linear, Op, Pointwise

Equalised = Literal["none", "depthwise", "all"]
LEAST_RATIO = 1 / 64
"""A channel is never stretched by more than this."""
MARGIN = 1.1
"""Of a channel's own range: one channel is seen less often than all of a map."""
ROOM = 4
"""Of the biases that there may be, the part that a float bias may take: correction moves it a little."""
Tensors = dict[str, NDArray[Any]]
Ratios = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to quantise.

    `corrected` biases make up for the mean error of the weights. `equalised` maps give each channel its own
    range where the layer that reads them can take the ratio into its weights: a `depthwise` one, which loses
    nothing by it; in `all` also a pointwise one, by the square root of the ratio. `spare` channels carry
    copies. `in_turn`, each layer is rounded for what the layers before it, rounded already, give it.
    """

    ranges: Ranges = "min-max"
    rounding: Literal["nearest", "second-order"] = "nearest"
    corrected: bool = False
    equalised: Equalised = "none"
    spare: bool = False
    in_turn: bool = False

    def __str__(self) -> str:
        said = [self.ranges, self.rounding, f"equalised {self.equalised}" * (self.equalised != "none")]
        said += ["biases corrected" * self.corrected, "spare channels" * self.spare, "in turn" * self.in_turn]
        return ", ".join(part for part in said if part)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as the integers see it: weight [rows, terms] and bias, for what bytes of `source` stand for."""

    node: Node
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    shape: tuple[int, ...]
    source: Scale


@dataclass(frozen=True, slots=True)
class Material:
    """A folded model with a bias in every layer, the pictures to learn from, and what it makes of them."""

    model: Artefact
    pictures: Frame
    observed: Observed
    threads: int = 1
    rounded: dict[tuple[str, Choice], Rounded] = field(default_factory=dict)
    """What was rounded before, for choices that make no difference to a layer's weights."""

    @property
    def zero(self) -> Map:
        return np.array(image_zero(self.model.preprocess), np.float32)


def built(material: Material, choice: Choice) -> Artefact:
    """The model quantised in one way."""
    return _Trial(material, choice).run()


class _Trial:
    def __init__(self, material: Material, choice: Choice) -> None:
        self._material, self._choice = material, choice
        self._net = material.model.net
        spreads = material.observed.spreads
        found = copies(self._net, material.model.weights, spreads) if choice.spare else {}
        self._copies: dict[str, Copies] = {}
        """By the node whose map holds them: before and after the depthwise layer."""
        for node in self._net.nodes:
            if node.name in found:
                self._copies |= {node.inputs[0]: found[node.name], node.name: found[node.name]}
        self._spreads = {
            name: spread.of(self._copies[name].of) if name in self._copies else spread
            for name, spread in spreads.items()
        }
        self._scales, self._ratios = self._decided()

    def run(self) -> Artefact:
        """All layers at once; `in_turn`, one after the other, and the pictures go along."""
        tensors: Tensors = {}
        nodes, threads = self._net.nodes, self._material.threads
        if not self._choice.in_turn:
            for made in in_threads(self._made, nodes, threads):
                tensors |= made
        else:
            running = _Running(self._material, self._scales)
            for node in nodes:
                made = self._made(node, running.moments(node) if isinstance(node.op, Linear) else None)
                tensors |= made
                running.give(node, made)
        return replace(self._material.model, weights=tensors, scales=self._scales)

    def _made(self, node: Node, given: Moments | None = None) -> Tensors:
        """The tensors of one layer; `given` are the moments of what it will read, where that is known."""
        if not isinstance(node.op, Linear):
            return {}
        layer, seen = self._layer(node), self._seen(node)
        whole = self._rounded(layer, seen if given is None else given, given is not None)
        bias = layer.bias
        before, after = self._copies.get(node.inputs[0]), self._copies.get(node.name)
        ratio = self._ratios.get(node.name, np.ones(1))
        if self._choice.corrected:
            bias = bias + _mean_sums(layer.weight, seen)
            bias = bias - _mean_sums(whole.values, seen if given is None else given)
        if (
            before is not None
            and isinstance(node.op, Depthwise)
            and (given is None or not self._choice.corrected)
        ):
            bias = bias - whole.values.sum(1) * before.offset * layer.source.step
        if after is not None:
            bias = bias + after.offset * ratio * self._scales[node.name].step
        step = whole.step.astype(np.float64)
        return {
            f"{node.name}.weight": np.ascontiguousarray(whole.whole.reshape(layer.shape)),
            f"{node.name}.step": (step / ratio).astype(np.float32),
            f"{node.name}.bias": np.rint(bias / (step * layer.source.step)).astype(np.int32),
        }

    def _decided(self) -> tuple[dict[str, Scale], dict[str, NDArray[np.float64]]]:
        """A scale for each map, and the ratio of each channel's own step to it where they are equalised."""
        scales: dict[str, Scale] = {}
        ratios: dict[str, NDArray[np.float64]] = {}
        given = {output.node: output.decode for output in self._net.outputs}
        alike = kept_together(self._net)
        for node in self._net.nodes:
            readers = [other for other in self._net.nodes if node.name in other.inputs]
            logits = not readers and given.get(node.name) == "classes" and len(alike[node.name]) == 1
            if logits and not isinstance(node.op, Add):  # whose sums are of whole numbers alone
                continue
            spread = self._spreads[node.name]
            power = 0.0
            if node.name not in given and not spread.signed and len(readers) == len(alike[node.name]) == 1:
                power = _power(readers[0], self._choice.equalised)
            if power and isinstance(node.op, Linear) and activation_of(node.op) in PLAIN:
                limits = spread.limits(self._choice.ranges)
                most = float(limits.max(initial=0))
                limits = np.minimum(MARGIN * limits, most)
                if most > 0:
                    ratios[node.name] = (
                        np.where(limits > 0, np.maximum(limits / most, LEAST_RATIO), 1) ** power
                    )
                scales[node.name] = _scale(0.0, most)
            else:
                together = [self._spreads[name] for name in alike[node.name]]
                most = max(float(one.joined().limits(self._choice.ranges)[0]) for one in together)
                least = min(float(one.least.min()) for one in together)
                scales[node.name] = _scale(min(least, 0.0), most)
        return scales, ratios

    def _layer(self, node: Node) -> Layer:
        """A layer with copies made, and the ratios of what it reads in its weights."""
        model, source = self._material.model, node.inputs[0]
        weight = model.weights[f"{node.name}.weight"].astype(np.float64)
        bias = model.weights[f"{node.name}.bias"].astype(np.float64)
        before, after = self._copies.get(source), self._copies.get(node.name)
        if after is not None:
            weight, bias = weight[after.of], bias[after.of]
        if before is not None and not isinstance(node.op, Depthwise):
            weight = weight[:, before.of] * before.share[None, :, None, None]
        factor = self._ratios.get(source, np.ones(1))
        if source == "image":
            factor = 1 / np.array(model.preprocess.std)
            off = factor * (np.array(model.preprocess.mean) - self._material.zero)
            bias = bias - np.tensordot(weight.reshape(*weight.shape[:2], -1).sum(2), off, 1)
        across = (-1, 1) if isinstance(node.op, Depthwise) else (1, -1)
        weight = weight * factor.reshape(*across, *(1,) * (weight.ndim - 2))
        scale = self._scales.get(source, Scale(1.0, 0))
        return Layer(node, weight.reshape(len(weight), -1), bias, weight.shape, scale)

    def _seen(self, node: Node) -> Moments:
        """The moments of what a layer reads in the float network, in the units that its weights want."""
        source = node.inputs[0]
        moments = self._material.observed.moments[node.name]
        if source in self._copies:
            moments = moments.of(self._copies[source].of)
        if source not in self._ratios:
            return moments
        inverse = 1 / self._ratios[source]
        if isinstance(node.op, Depthwise):
            return moments.scaled(np.broadcast_to(inverse[:, None], moments.total.shape))
        return moments.scaled(np.repeat(inverse, moments.total.shape[1] // len(inverse))[None])

    def _rounded(self, layer: Layer, given: Moments, measured: bool) -> Rounded:
        least = least_steps(layer.node.op, layer.bias, layer.source.step)
        if self._choice.rounding == "nearest":
            return rounding.nearest(layer.weight, least)
        if measured:
            return rounding.second_order(layer.weight, least, given.covariance)
        # Without equalisation the ranges of maps change no weight, and the correction of biases never does.
        ranges = self._choice.ranges if self._choice.equalised != "none" else "min-max"
        key = layer.node.name, replace(self._choice, ranges=ranges, corrected=False)
        if key not in self._material.rounded:
            self._material.rounded[key] = rounding.second_order(layer.weight, least, given.covariance)
        return self._material.rounded[key]


class _Running:
    """The pictures on their way through the layers that are quantised already."""

    def __init__(self, material: Material, scales: Mapping[str, Scale]) -> None:
        self._material, self._scales = material, scales
        self._maps: dict[str, list[NDArray[np.uint8]]] = {"image": list(batches(material.pictures))}

    def moments(self, node: Node) -> Moments:
        """The moments of what a layer reads, in the units that its weights want."""
        source = node.inputs[0]
        zero = self._material.zero if source == "image" else np.float32(self._scales[source].zero)

        def seen(numbered: tuple[int, NDArray[np.uint8]]) -> Moments:
            return moments_of(looked_at(node, numbered[1] - zero, numbered[0]))

        found = reduce(add, in_threads(seen, enumerate(self._maps[source]), self._material.threads))
        step = 1.0 if source == "image" else self._scales[source].step
        return found.scaled(np.full(found.total.shape, step))

    def give(self, node: Node, tensors: Tensors) -> None:
        """Run a layer whose tensors are decided; a map is kept no longer than it is read."""
        if node.name not in self._scales:
            return
        net = self._material.model.net
        zero = self._material.zero if "image" in node.inputs else None
        layer = IntegerLayer(net, node, tensors, self._scales, zero)
        parts = zip(*(self._maps[source] for source in node.inputs), strict=True)
        self._maps[node.name] = list(in_threads(lambda part: layer(*part), parts, self._material.threads))
        for source in set(node.inputs):
            if [other for other in net.nodes if source in other.inputs][-1] is node:
                del self._maps[source]


def least_steps(op: Op, bias: NDArray[np.float64], source: float) -> NDArray[np.float64]:
    """Below these a row's step would make of its bias, or of a curve's multiplier, what integers don't hold.

    `source` is the step of what the layer reads.
    """
    least = np.abs(bias) * ROOM / (source * MOST_BIAS)
    return least if activation_of(op) in PLAIN else np.maximum(least, 2 * LEAST_MULTIPLIER / source)


def kept_together(net: Net) -> dict[str, tuple[str, ...]]:
    """Of each node those whose maps have its scale, itself among them: what joins and picks copies bytes."""
    found: dict[str, tuple[str, ...]] = {node.name: (node.name,) for node in net.nodes}
    for node in net.nodes:
        if isinstance(node.op, Kept):
            together = sorted({one for name in (*node.inputs, node.name) for one in found[name]})
            found |= {name: tuple(together) for name in together}
    return found


def _mean_sums(weight: NDArray[np.float64], moments: Moments) -> NDArray[np.float64]:
    """The mean result of each row, without bias; of the rows as many in turn have each group's moments."""
    grouped = weight.reshape(len(moments.mean), -1, weight.shape[1])
    return np.asarray((grouped * moments.mean[:, None]).sum(2).ravel())


def _scale(low: float, high: float) -> Scale:
    step = (high - low) / MOST
    if not step > np.finfo(np.float32).tiny:
        return Scale(1 / MOST, 0)  # nothing was ever seen but zeros
    return Scale(step, round(-low / step))


def _power(reader: Node, equalised: Equalised) -> float:
    if isinstance(reader.op, Depthwise):
        return 0.0 if equalised == "none" else 1.0
    whole = isinstance(reader.op, Conv | Pointwise) and reader.op.groups == 1
    return 0.5 if equalised == "all" and whole else 0.0
