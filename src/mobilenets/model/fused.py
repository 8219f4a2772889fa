"""Batch norms with the activations behind them, in one pass each way, by a library of `compile/norms.c`.

torch goes over a map eight times for what takes five: twice as long, where memory is what a step waits for.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mobilenets.model.module import Norm, activated
from mobilenets.spec.op import Activation

KINDS: tuple[Activation, ...] = ("none", "relu", "relu6", "hswish")
"""Activations that the library knows, by their numbers in it; others follow by torch."""
DTYPES = (torch.float32, torch.bfloat16)
CLOSE = {torch.float32: 1e-3, torch.bfloat16: 2e-2}
"""How far from torch's own, as a share of the largest, before the library is refused."""
COMPARED, EPSILON = (4, 21, 32, 32), 1e-3
"""A map long enough that its sums are taken in parts."""
AT_CORNERS = 5
"""Of its numbers, so many may fall to the other side of where an activation bends."""
POINTER, COUNT, NUMBER, WHOLE = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_float, ctypes.c_int
SHAPE = (COUNT, COUNT, WHOLE, WHOLE, NUMBER)


class Norms:
    """A library as what a layer normalises by (`model.module.Normed`); maps are float32 or bfloat16."""

    def __init__(self, library: Path) -> None:
        """Raises OSError for what is no library, ValueError for one that says other things than torch."""
        made = ctypes.CDLL(str(library))
        try:
            self.forward, self.backward = made.norm_forward, made.norm_backward
        except AttributeError as error:
            raise ValueError(f"norms: a library without them was built here: {error}") from error
        self.forward.argtypes = (*[POINTER] * 2, *SHAPE, *[POINTER] * 4)
        self.backward.argtypes = (*[POINTER] * 3, *SHAPE, *[POINTER] * 6)
        for dtype in DTYPES:
            for kind in KINDS:
                self._compare(dtype, kind)

    def __call__(self, x: Tensor, norm: Norm, activation: Activation) -> Tensor:
        """x [n, channels, height, width] by its own statistics; they join the norm's running ones."""
        own = norm.weight.dtype == norm.running_mean.dtype == torch.float32
        if x.dtype not in DTYPES or not own or x.dim() != 4 or x.device.type != "cpu":
            return activated(norm(x), activation)
        count = x.numel() // max(1, x.shape[1])
        if count < 2:
            raise ValueError("a norm of one number a channel has nothing to learn from")
        known = activation in KINDS
        y, mean, variance = _Fused.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
            x, norm.weight, norm.bias, norm.epsilon, KINDS.index(activation) if known else 0, self
        )
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
        return y if known else activated(y, activation)

    def _compare(self, dtype: torch.dtype, activation: Activation) -> None:
        """Raises ValueError where outputs, gradients or statistics are not torch's."""
        draw = torch.Generator().manual_seed(0)
        x, back = (torch.randn(COMPARED, generator=draw) for _ in range(2))
        x = (x + 1).to(dtype)
        found = []
        for ours in (False, True):
            norm = Norm(COMPARED[1], EPSILON)
            torch.nn.init.constant_(norm.weight, 3.0)  # past every corner of an activation
            given = (x if ours else x.float()).detach().requires_grad_()
            y = self(given, norm, activation) if ours else activated(norm(given), activation)
            (y.float() * back).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            vectors = (norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var)
            found.append([one.detach().float() for one in (given.grad, y, *vectors) if one is not None])
        for place, (wanted, own) in enumerate(zip(*found, strict=True)):
            apart = (own - wanted).abs().flatten().sort().values
            apart = apart if place else apart[:-AT_CORNERS]
            if not bool((apart <= CLOSE[dtype] * wanted.abs().max()).all()):
                raise ValueError(f"norms: built here, {activation} in {dtype} is not what torch says")


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, bias: Tensor, epsilon: float, kind: int, norms: Norms
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        y, mean, variance = torch.empty_like(x), torch.empty_like(gain), torch.empty_like(gain)
        ctx.shape = x.numel() // x.shape[1], x.shape[1], x.dtype == torch.bfloat16, kind, epsilon
        vectors = [one.data_ptr() for one in (gain, bias, mean, variance)]
        if norms.forward(x.data_ptr(), y.data_ptr(), *ctx.shape, *vectors):
            raise MemoryError(f"no memory for a norm of {x.shape[1]} channels")
        ctx.save_for_backward(x, gain, bias, mean, variance)
        ctx.norms = norms
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        x, *known = ctx.saved_tensors
        back = given[0].contiguous(memory_format=torch.channels_last)
        gx, ggain, gbias = torch.empty_like(x), torch.empty_like(known[0]), torch.empty_like(known[0])
        maps = [one.data_ptr() for one in (x, back, gx)]
        vectors = [one.data_ptr() for one in (*known, ggain, gbias)]
        if ctx.norms.backward(*maps, *ctx.shape, *vectors):
            raise MemoryError(f"no memory for a norm of {x.shape[1]} channels")
        return gx, ggain, gbias, None, None, None
