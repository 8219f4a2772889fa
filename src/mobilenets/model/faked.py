"""A quantised network that learns: in float32 it computes what its integers compute, and has gradients.

Forward is `infer.integer`, number by number: maps are whole numbers less their zeros, held in floats that are
exact; every multiplier, bound and slope comes from `rescale` there. Backward takes rounding for nothing and
stops where a value is cut off (straight through, arXiv:1308.3432). A row's step follows its greatest weight,
so that no weight is ever cut; a map's step is learned (arXiv:1902.08153) in logarithms (arXiv:1903.08066),
its zero stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from mobilenets.infer import rounding
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.integer import (
    EXACT,
    Kept,
    Rescale,
    check,
    dequantised,
    fixed,
    image_zero,
    rescale,
)
from mobilenets.infer.scale import MOST, Scale
from mobilenets.infer.taught import is_taught
from mobilenets.infer.trial import kept_together, least_steps
from mobilenets.model.module import Layer, attach, vector, weightless
from mobilenets.spec.net import Node, shapes
from mobilenets.spec.op import Add, Linear, MeanPool, Mul, Pool, Shape, around

Given = Sequence[Tensor]
PACE = 10.0
"""How much faster a map's step moves, in logarithms, than what is learned of it."""


class Row(NamedTuple):
    """What a layer's weights are in integers: weight and bias as whole numbers, a step for each row."""

    weight: Tensor
    bias: Tensor
    step: NDArray[np.float32]


class Maps(nn.Module):
    """The scales of a network's maps, a number for each that is one: what joins maps gives them one scale.

    step = `begun` · exp(PACE · `grown`), of which `grown` is learned from zero, so that decay means to stay.
    """

    def __init__(self, net_scales: Sequence[Scale]) -> None:
        super().__init__()
        self.grown = nn.Parameter(torch.zeros(len(net_scales)))
        self.begun: Tensor
        self.zero: Tensor
        self.register_buffer("begun", torch.tensor([scale.step for scale in net_scales], dtype=torch.float32))
        self.register_buffer("zero", torch.tensor([float(scale.zero) for scale in net_scales]))

    def scales(self) -> list[Scale]:
        """Each scale as it is now."""
        with torch.no_grad():
            steps = (self.begun * (PACE * self.grown).exp()).tolist()
        return [Scale(step, int(zero)) for step, zero in zip(steps, self.zero.tolist(), strict=True)]

    def ones(self) -> tuple[Tensor, ...]:
        """A 1 for each scale: what is multiplied by it grows as the step does, as gradients see it."""
        return (PACE * (self.grown - self.grown.detach())).exp().unbind()


class Faked(nn.Module):
    """A quantised model, as `quantise` makes it, as a module to train; it begins with the model's answers.

    Called on float32 [n, 3, height, width], already normalised, it gives every output by name as real values,
    and nodes by name for `taps`, less their zeros, in steps of their scales. Its state has the names of
    `spec.net.tensors`, so that it is the float network's too; beside them `maps`, and of each layer `most`,
    the greatest whole number in each row. Computes in float32 whatever autocast says; in eval mode sums that
    float32 might not hold are float64's.
    """

    def __init__(self, model: Artefact) -> None:
        """Raises ValueError where the model is not quantised, or doesn't hold together."""
        super().__init__()
        if not model.scales:
            raise ValueError(
                f"{model.net.name}: not quantised; give it to `quantise` with some pictures first"
            )
        check(model.net, model.weights, model.scales)
        for node in model.net.nodes:
            if is_taught(node, model.weights):
                raise ValueError(
                    f"{node.name}: has weights in float32 on a body of bytes and cannot learn with it; begin "
                    "with the float32 model"
                )
        self.net = model.net
        self.like = replace(model, weights={}, scales={}, scores={})
        """What `integers` fills in: all that does not learn."""
        self._known = shapes(self.net)
        self._place: dict[str, int] = {}
        """Of each node with a scale, its place in `maps`."""
        alike = kept_together(self.net)
        begun: list[Scale] = []
        for name in (node.name for node in self.net.nodes):
            if name in model.scales and name not in self._place:
                self._place |= {one: len(begun) for one in alike[name] if one in model.scales}
                begun.append(model.scales[name])
        self.maps = Maps(begun)
        floats = dequantised(self.net, model.weights, model.scales, model.preprocess)
        for node in self.net.nodes:
            if isinstance(node.op, Linear):
                layer = Layer(node, self._known[node.inputs[0]], self._known[node.name])
                layer.bias = nn.Parameter(torch.from_numpy(floats[f"{node.name}.bias"]))
                layer.weight = nn.Parameter(torch.from_numpy(floats[f"{node.name}.weight"]))
                layer.register_buffer("most", torch.from_numpy(_greatest(node, model.weights)))
                attach(self, node.name, layer)

    def layer(self, name: str) -> Layer:
        """The layer of the node called `name`."""
        found = self.get_submodule(name)
        if not isinstance(found, Layer):
            raise KeyError(f"{self.net.name}: {name!r} is no layer with weights")
        return found

    def forward(self, x: Tensor, taps: Iterable[str] = ()) -> dict[str, Tensor]:
        wanted = set(taps)
        needed = wanted | {output.node for output in self.net.outputs}
        last_use = {name: i for i, node in enumerate(self.net.nodes) for name in node.inputs}
        with torch.autocast(x.device.type, enabled=False):
            scales = self.scales()
            ones = self.maps.ones()
            by = {name: ones[place] for name, place in self._place.items()}
            values = {"image": self._levels(x)}
            for index, node in enumerate(self.net.nodes):
                values[node.name] = self._run(node, [values[name] for name in node.inputs], scales, by)
                for name in set(node.inputs):
                    if name not in needed and last_use[name] == index:
                        del values[name]
            found = {}
            for output in self.net.outputs:
                value, scale = vector(values[output.node]), scales.get(output.node)
                found[output.name] = value if scale is None else value * (scale.step * by[output.node])
        return found | {name: values[name] for name in wanted}

    def scales(self) -> dict[str, Scale]:
        """The scale of each node that has one, as it is now."""
        every = self.maps.scales()
        return {name: every[place] for name, place in self._place.items()}

    def row(self, node: Node, source: float, by: Tensor) -> Row:
        """A layer in integers; `source` is the step of what it reads, `by` the 1 that grows as it does."""
        layer = self.layer(node.name)
        weight: Tensor = layer.weight
        bias: Tensor | None = layer.bias
        if bias is None:
            raise ValueError(f"{node.name}: has no bias; a quantised layer has one")
        if node.inputs[0] == "image":
            weight, bias = self._of_levels(weight, bias)
        with torch.no_grad():
            greatest = weight.abs().flatten(1).amax(1, keepdim=True).cpu().double().numpy()
            shift = bias.cpu().double().numpy()
        least = least_steps(node.op, shift, source)
        step = rounding.steps(
            greatest, least, rounding.MOST / layer.get_buffer("most").cpu().double().numpy()
        )
        each = torch.from_numpy(step).to(weight.device)
        whole = _rounded(weight / each.view(-1, *(1,) * (weight.dim() - 1)))
        return Row(whole, _rounded(bias / (each * (source * by))), step)

    def _of_levels(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer's weights for levels less their zeros, where it was for what is normalised."""
        pre = self.like.preprocess
        factor = weight.new_tensor([1 / std for std in pre.std])
        off = factor * weight.new_tensor(np.array(pre.mean) - image_zero(pre))
        bias = bias - weight.flatten(2).sum(2) @ off if weight.dim() > 2 else bias - weight @ off
        return weight * factor.view(1, 3, *(1,) * (weight.dim() - 2)), bias

    def _levels(self, x: Tensor) -> Tensor:
        """Normalised pictures as levels less their zeros, each rounded to one that a picture can have."""
        pre = self.like.preprocess
        x = x.detach().float()
        mean, std, zero = (x.new_tensor(of).view(3, 1, 1) for of in (pre.mean, pre.std, image_zero(pre)))
        return (x * std + mean).round_().clamp_(0, MOST) - zero

    def _run(self, node: Node, given: Given, scales: Mapping[str, Scale], by: Mapping[str, Tensor]) -> Tensor:
        op = node.op
        if isinstance(op, Kept):
            return weightless(op, given)
        own: dict[str, NDArray[Any]] = {}
        one = given[0].new_ones(())
        reads = [by.get(source, one) for source in node.inputs]
        sums = given[0]
        match op:
            case Pool():
                wide = self._wide(MOST * sums.shape[2] * sums.shape[3])
                sums = sums.sum(dim=(2, 3), keepdim=True, dtype=wide).float()
            case MeanPool():
                rows, columns = around(op, Shape(sums.shape[2], sums.shape[3], sums.shape[1]))
                framed = functional.pad(sums, (*columns, *rows))
                sums = functional.avg_pool2d(framed, op.kernel, op.stride, divisor_override=1)
            case Mul():
                sums = sums * given[1]
            case _ if isinstance(op, Linear):
                source = node.inputs[0]
                row = self.row(node, 1.0 if source == "image" else scales[source].step, reads[0])
                own[f"{node.name}.step"] = row.step
                sums = self._sums(self.layer(node.name), sums, row)
        made = rescale(self.net, node, own, scales, self._known)
        per_step = by[node.name] if made.zero is not None else one
        grows = one if made.curve is not None else per_step
        factor = torch.from_numpy(made.multiplier).to(sums.device)
        if isinstance(op, Add):
            # Whole numbers of 2**-shift: what float32 cannot hold of their sum float64 does.
            weights, shift = fixed(made.multiplier)
            wide = self._wide(float(EXACT))
            parts = (
                x.to(wide) * (float(w) * 2.0**-shift * r / grows)
                for x, w, r in zip(given, weights, reads, strict=True)
            )
            return _upward(reduce(torch.add, parts), made).float()
        across = isinstance(op, MeanPool)
        factor = factor.squeeze(-1) if across else factor.view(-1, *(1,) * (sums.dim() - 2))
        return _rescaled(sums * (factor * (reduce(torch.mul, reads) / grows)), made, per_step)

    def _sums(self, layer: Layer, x: Tensor, row: Row) -> Tensor:
        """A layer's sums with their biases; whole numbers, but for those that float32 rounds in training."""
        if self.training:
            return layer.linear(x, row.weight, row.bias)
        largest = MOST * row.weight.detach().abs().flatten(1).sum(1)
        wide = self._wide(float(largest.max()))
        sums = layer.linear(x.to(wide), row.weight.to(wide), None)
        wide = self._wide(float((largest + row.bias.detach().abs()).max()))
        return (sums.to(wide) + row.bias.to(wide).view(-1, *(1,) * (sums.dim() - 2))).float()

    def _wide(self, largest: float) -> torch.dtype:
        """What holds whole numbers up to `largest`; in training float32 must do."""
        return torch.float64 if largest >= EXACT and not self.training else torch.float32


def integers(made: Faked) -> Artefact:
    """What a module has learned, as a quantised model that gives what the module gives in eval mode."""
    scales = made.scales()
    one = torch.ones((), device=made.maps.begun.device)
    tensors: dict[str, NDArray[Any]] = {}
    for node in made.net.nodes:
        if not isinstance(node.op, Linear):
            continue
        source = node.inputs[0]
        with torch.no_grad():
            row = made.row(node, 1.0 if source == "image" else scales[source].step, one)
        tensors[f"{node.name}.weight"] = row.weight.cpu().numpy().astype(np.int8)
        tensors[f"{node.name}.step"] = row.step
        tensors[f"{node.name}.bias"] = row.bias.cpu().numpy().astype(np.int32)
    check(made.net, tensors, scales)
    return replace(made.like, weights=tensors, scales=scales)


def _greatest(node: Node, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """The greatest whole number of each row; of weights about zeros of their own, and of nothing, all."""
    weight = tensors[f"{node.name}.weight"]
    most = np.abs(weight.astype(np.float32)).reshape(len(weight), -1).max(1)
    own = f"{node.name}.zero" not in tensors
    return np.where((most > 0) & (most < rounding.MOST) & own, most, np.float32(rounding.MOST))


def _rescaled(scaled: Tensor, made: Rescale, by: Tensor) -> Tensor:
    """What `Rescale.rounded` gives, less the zero; `by` is the 1 that stands for the result's step."""
    if made.curve is not None:
        bent = (scaled + 3).clamp(0, 6)
        bent = bent * scaled if made.curve == "hswish" else bent
        scaled = bent * (float(made.slope) / by)
    return scaled if made.zero is None else _held(scaled, made.least, made.most)


def _upward(sums: Tensor, made: Rescale) -> Tensor:
    """A sum of maps clipped and rounded, halves up; gradients pass where nothing was cut off."""
    held = sums.clamp(made.least, made.most)
    return held + ((sums + 0.5).floor().clamp(made.least, made.most) - held).detach()


def _rounded(x: Tensor) -> Tensor:
    """To the nearest, halves to even; gradients pass."""
    return _Rounded.apply(x)  # type: ignore[no-untyped-call,no-any-return]  # torch leaves it untyped


def _held(x: Tensor, least: int, most: int) -> Tensor:
    """Clipped and rounded; gradients pass where nothing was cut off."""
    return _Held.apply(x, least, most)  # type: ignore[no-untyped-call,no-any-return]  # torch leaves it untyped


class _Rounded(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class _Held(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, least: int, most: int) -> Tensor:
        ctx.save_for_backward((x >= least) & (x <= most))
        return x.clamp(least, most).round_()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return grad * inside, None, None
