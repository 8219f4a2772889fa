"""A network of `spec` as a torch module; its state dict has the names and shapes of `spec.net.tensors`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any, TypeVar, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mobilenets.infer.fold import Weights
from mobilenets.infer.walk import check
from mobilenets.spec.net import Net, Node, shapes, tensors, weight_shape
from mobilenets.spec.op import (
    Activate,
    Activation,
    Add,
    Concat,
    Conv,
    Dense,
    Depthwise,
    Linear,
    MaxPool,
    MeanPool,
    Mul,
    Op,
    Pointwise,
    Pool,
    Shape,
    Shuffle,
    Slice,
    Weightless,
    around,
)

Made = TypeVar("Made", bound=nn.Module)
NORM_MOMENTUM = 0.1
"""Share of a batch's statistics in the running ones, where they are measured: PyTorch's."""


class Norm(nn.Module):
    """A batch norm with the four tensors of `spec.net.NORM_TENSORS`; torch's own carries a fifth, a count.

    `frozen` normalises by the running statistics in training too, and leaves them as they are; `momentum` is
    the share of a batch's own in them elsewhere.
    """

    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.frozen = False
        self.momentum = NORM_MOMENTUM
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    @property
    def measuring(self) -> bool:
        """Whether it normalises by the batch and keeps count."""
        return self.training and not self.frozen

    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.measuring,
            self.momentum,
            self.epsilon,
        )


Normed = Callable[[Tensor, Norm, Activation], Tensor]
"""A norm by the batch's own statistics, which it keeps, and the activation behind it; see `model.fused`."""


class Layer(nn.Module):
    """One node with weights: convolution or dense, then norm, then activation."""

    def __init__(self, node: Node, x: Shape, y: Shape) -> None:
        super().__init__()
        op = node.op
        shape = weight_shape(op, x)
        if not isinstance(op, Linear) or shape is None:
            raise ValueError(f"{node.name}: a {type(op).__name__} has no weights")
        self.op = op
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(y.channels)) if op.bias else None
        self.norm: Norm | None = None
        if not isinstance(op, Dense) and op.norm is not None:
            self.norm = Norm(y.channels, op.norm.epsilon)
        self._size = y.height, y.width
        self._pads = _pads(op, x)
        self._around, self._extra = _around(op, x)
        self.watcher: Callable[[Layer, Tensor], None] | None = None
        """Called with what the linear part gave, before the norm; statistics are measured so."""
        self.normed: Normed | None = None
        """What normalises while statistics are measured, in place of torch's own."""

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        if norm is None or self.watcher is not None or norm.measuring:
            y = self.linear(x, self.weight, self.bias)
            if self.watcher is not None:
                self.watcher(self, y)
            if norm is not None and norm.measuring and self.normed is not None:
                return self.normed(y, norm, self.op.activation)  # type: ignore[union-attr]  # no Dense has a norm
            if norm is not None:
                y = norm(y)
        else:
            # Running statistics are constants: the norm is a factor on each filter, almost for nothing.
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.epsilon)
            shift = norm.bias - norm.running_mean * scale
            if self.bias is not None:
                shift = shift + self.bias * scale
            y = self.linear(x, self.weight * scale.view(-1, 1, 1, 1), shift)
        return y if isinstance(self.op, Dense) else activated(y, self.op.activation)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolution or product alone, with these weights."""
        op = self.op
        if isinstance(op, Dense):
            return functional.linear(x.flatten(1), weight, bias)
        if isinstance(op, Pointwise):
            return functional.conv2d(x, weight, bias, groups=op.groups)
        groups = x.shape[1] if isinstance(op, Depthwise) else op.groups
        slow = isinstance(op, Depthwise) and op.stride > 1 and x.device.type == "cpu"
        if slow and torch.is_grad_enabled() and weight.requires_grad:
            return self._strided(x, weight, bias, op.stride)
        y = functional.conv2d(x, weight, bias, op.stride, self._around, 1, groups)
        top, left = self._extra
        return y[:, :, top : top + self._size[0], left : left + self._size[1]] if top or left else y

    def _strided(self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        """A depthwise convolution that leaves pixels out, on a CPU, such that going back is fast too.

        In bfloat16 torch goes back through it by a plain loop, in 24 ms where one that leaves none out takes
        one; in float32 padding slows it.
        """
        half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            middle = weight.shape[2] // 2
            if half and bias is None and weight.shape[2] % 2 and max(self._pads) <= middle:
                made: Tensor = _Strided.apply(x.bfloat16(), weight, self._pads, stride)  # type: ignore[no-untyped-call]  # torch leaves it untyped
                return made
            wide = functional.pad(x.to(weight.dtype), self._pads)
            return functional.conv2d(wide, weight, bias, stride, 0, 1, x.shape[1])


class _Strided(torch.autograd.Function):
    """A depthwise convolution with a stride; back as through the one without, its other outputs unused."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, pads: tuple[int, int, int, int], stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.pads, ctx.stride = pads, stride
        wide = functional.pad(x, pads)
        return functional.conv2d(wide, weight.to(x.dtype), None, stride, 0, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        middle, stride = weight.shape[2] // 2, ctx.stride
        whole = torch.zeros_like(x)
        # The window of output i is centred on input i · stride + middle - what is padded before.
        top, left = middle - ctx.pads[2], middle - ctx.pads[0]
        below, beyond = (
            first + (count - 1) * stride + 1
            for first, count in zip((top, left), given[0].shape[2:], strict=True)
        )
        whole[:, :, top:below:stride, left:beyond:stride] = given[0]
        own, around = weight.to(x.dtype), [middle, middle]
        back = torch.ops.aten.convolution_backward
        gx, gw, _ = back(
            whole, x, own, None, [1, 1], around, [1, 1], False, [0, 0], x.shape[1], [True, True, False]
        )
        return gx, gw.to(weight.dtype), None, None


class Module(nn.Module):
    """The torch form of a `Net`. Called on float32 [n, 3, height, width], already normalised.

    Gives every output by name, and nodes by name for `taps`; vectors are [n, channels].
    """

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net
        known = shapes(net)
        for node in net.nodes:
            if isinstance(node.op, Linear):
                attach(self, node.name, Layer(node, known[node.inputs[0]], known[node.name]))

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
        values: dict[str, Tensor] = {"image": x}
        for index, node in enumerate(self.net.nodes):
            given = [values[name] for name in node.inputs]
            if isinstance(node.op, Linear):
                values[node.name] = self.layer(node.name)(given[0])
            else:
                values[node.name] = weightless(node.op, given)
            for name in set(node.inputs):
                if name not in needed and last_use[name] == index:
                    del values[name]
        found = {output.name: vector(values[output.node]) for output in self.net.outputs}
        return found | {name: values[name] for name in wanted}


def weightless(op: Weightless, given: Sequence[Tensor]) -> Tensor:
    """What an operation without weights makes of maps [n, channels, height, width]."""
    x = given[0]
    match op:
        case Pool():
            return x.mean(dim=(2, 3), keepdim=True)
        case MaxPool() | MeanPool():
            return _pooled(op, x)
        case Add():
            return activated(reduce(torch.add, given), op.activation)
        case Mul():
            return x * given[1]
        case Concat():
            return torch.cat(list(given), dim=1)
        case Slice():
            return x[:, op.begin : op.end]
        case Shuffle():
            return functional.channel_shuffle(x, op.groups)
        case Activate():
            return activated(x.clone(), op.activation)
        case _:
            assert_never(op)


def _pooled(op: MaxPool | MeanPool, x: Tensor) -> Tensor:
    rows, columns = around(op, Shape(x.shape[2], x.shape[3], x.shape[1]))
    if isinstance(op, MaxPool):
        framed = functional.pad(x, (*columns, *rows), value=-torch.inf)
        return functional.max_pool2d(framed, op.kernel, op.stride)
    total, inside = (
        functional.avg_pool2d(functional.pad(one, (*columns, *rows)), op.kernel, op.stride)
        for one in (x, torch.ones_like(x[:1, :1]))
    )
    return total / inside


def module(net: Net, weights: Weights) -> Module:
    """A module filled with `weights`. Raises ValueError that lists what does not fit."""
    check(net, weights)
    made = Module(net)
    state = {name: torch.from_numpy(np.array(weights[name], np.float32)) for name in tensors(net)}
    made.load_state_dict(state)
    return made


def placed(made: Made, device: torch.device) -> Made:
    """The module itself, on a device, its filters laid out channels last."""
    return made.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # torch's overloads lack it


def weights_of(made: nn.Module) -> dict[str, NDArray[np.float32]]:
    """The weights of a module under our names, copied to numpy."""
    return {name: value.detach().float().cpu().numpy().copy() for name, value in made.state_dict().items()}


def random_weights(net: Net, seed: int) -> dict[str, NDArray[np.float32]]:
    """Weights to start learning from: He's normal for convolutions by fan-out, small normal for dense."""
    draw = np.random.default_rng(seed)
    made: dict[str, NDArray[np.float32]] = {}
    ops = {node.name: node.op for node in net.nodes}
    for name, shape in tensors(net).items():
        node, _, part = name.rpartition(".")
        if name.endswith((".norm.weight", ".norm.running_var")):
            value = np.ones(shape)
        elif part != "weight" or node.endswith(".norm"):
            value = np.zeros(shape)
        else:
            value = draw.normal(0.0, _spread(ops[node], shape), shape)
        made[name] = value.astype(np.float32)
    return made


def _spread(op: Op, shape: tuple[int, ...]) -> float:
    match op:
        case Conv() | Pointwise():
            return float(np.sqrt(2.0 / (shape[0] * np.prod(shape[2:]))))
        case Depthwise():
            return float(np.sqrt(2.0 / np.prod(shape[2:])))
        case Dense():
            return 0.01
        case _:
            return 0.0


def _pads(op: Linear, x: Shape) -> tuple[int, int, int, int]:
    """Left, right, top, bottom, as torch's pad takes them."""
    if not isinstance(op, Conv | Depthwise):
        return 0, 0, 0, 0
    rows, columns = around(op, x)
    return *columns, *rows


def _around(op: Linear, x: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
    """Zeros on both sides along height and width, and how many leading outputs they make too many.

    torch pads evenly; SAME at stride 2 wants nothing on the left and one on the right. Two on both sides give
    the same outputs after one that is dropped: cheaper forward than copying the map into a wider one.
    """
    left, right, top, bottom = _pads(op, x)
    stride = op.stride if isinstance(op, Conv | Depthwise) else 1
    extra = tuple(-(-max(0, after - before) // stride) for before, after in ((top, bottom), (left, right)))
    return (top + extra[0] * stride, left + extra[1] * stride), (extra[0], extra[1])


def attach(root: nn.Module, name: str, layer: Layer) -> None:
    """Make a layer part of a module, under a node's name."""
    *path, leaf = name.split(".")
    for step in path:
        if not hasattr(root, step):
            root.add_module(step, nn.Module())
        root = root.get_submodule(step)
    root.add_module(leaf, layer)


def activated(y: Tensor, activation: Activation) -> Tensor:
    """A map after an activation, which may overwrite it."""
    match activation:
        case "none":
            return y
        case "relu":
            return functional.relu(y, inplace=True)
        case "relu6":
            return functional.relu6(y, inplace=True)
        case "hswish":
            return functional.hardswish(y)
        case "hsigmoid":
            return functional.hardsigmoid(y)
        case "swish":
            return functional.silu(y)
        case "sigmoid":
            return torch.sigmoid(y)
        case _:
            assert_never(activation)


def vector(value: Tensor) -> Tensor:
    """A map of one pixel as [n, channels]."""
    return value.flatten(1) if value.dim() == 4 and value.shape[2:] == (1, 1) else value
