"""Batch norms put back where they were folded away, measured on pictures; the function stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from mobilenets.infer.fold import Weights
from mobilenets.model.module import Layer, Module, module
from mobilenets.spec.net import Net
from mobilenets.spec.op import BatchNorm, Conv, Depthwise, Pointwise


def unfold(net: Net, weights: Weights, batches: Iterable[Tensor], epsilon: float = 1e-3) -> Module:
    """A module of `net` with a batch norm after each folded convolution, in eval mode the same function.

    Mean μ and variance σ² of a convolution's output (bias apart) over all `batches` become the running
    statistics, √(σ² + ε) and bias + μ what the norm has learned, so that norm(y) = y + bias. `batches` are
    float32 [n, 3, height, width], already normalised.
    """
    folded = module(net, weights).eval()
    found = measured(folded, batches)
    restored = Module(with_norms(net, epsilon)).eval()
    state = {name: value for name, value in folded.state_dict().items() if name in restored.state_dict()}
    for name, (mean, variance) in found.items():
        bias = folded.layer(name).bias
        state[f"{name}.norm.weight"] = (variance + epsilon).sqrt()
        state[f"{name}.norm.bias"] = mean if bias is None else mean + bias.detach()
        state[f"{name}.norm.running_mean"] = mean
        state[f"{name}.norm.running_var"] = variance
    restored.load_state_dict(state)
    return restored


def with_norms(net: Net, epsilon: float) -> Net:
    """The network with a batch norm in place of each convolution's bias."""
    nodes = tuple(
        replace(node, op=replace(node.op, norm=BatchNorm(epsilon=epsilon), bias=False))
        if isinstance(node.op, Conv | Depthwise | Pointwise) and node.op.norm is None
        else node
        for node in net.nodes
    )
    return replace(net, nodes=nodes)


def restate(made: Module, batches: Iterable[Tensor]) -> None:
    """Measure the running statistics of every norm anew, layer after layer of the same pass.

    For weights that were averaged or moved since: each norm normalises by its batch while its layer's
    statistics are gathered, so that later layers see what they were trained on.
    """
    layers = {
        name: part for name, part in made.named_modules() if isinstance(part, Layer) and part.norm is not None
    }
    was = made.training
    made.train()
    frozen = {name: layer.norm.frozen for name, layer in layers.items() if layer.norm is not None}
    for layer in layers.values():
        if layer.norm is not None:
            layer.norm.frozen = False
    found = measured(made, batches, only=layers)
    for name, (mean, variance) in found.items():
        norm = layers[name].norm
        if norm is not None:
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.frozen = frozen[name]
    made.train(was)


def measured(
    made: Module, batches: Iterable[Tensor], only: Iterable[str] | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance of each channel a convolution gives, bias apart, over all pictures and places."""
    names = set(only) if only is not None else {n.name for n in made.net.nodes if _is_convolution(n.op)}
    sums: dict[str, tuple[Tensor, Tensor, int]] = {}

    def watch(name: str) -> Callable[[Layer, Tensor], None]:
        def note(layer: Layer, y: Tensor) -> None:
            plain = y if layer.bias is None else y - layer.bias.view(1, -1, 1, 1)
            plain = plain.cpu() if plain.device.type == "mps" else plain  # it has no float64
            first, second, count = sums.get(name, (torch.zeros(()), torch.zeros(()), 0))
            for single in plain:  # one by one: a batch of the widest maps in float64 is hundreds of MB
                own = single.double()
                first, second = first + own.sum(dim=(1, 2)), second + own.square().sum(dim=(1, 2))
            sums[name] = first, second, count + plain.numel() // plain.shape[1]

        return note

    for name in names:
        made.layer(name).watcher = watch(name)
    try:
        with torch.no_grad():
            for x in batches:
                made(x)
    finally:
        for name in names:
            made.layer(name).watcher = None
    found = {}
    for name, (first, second, count) in sums.items():
        mean = first / count
        variance = (second / count - mean.square()).clamp_min(0)
        found[name] = (mean.float(), variance.float())
    return found


def _is_convolution(op: object) -> bool:
    return isinstance(op, Conv | Depthwise | Pointwise)
