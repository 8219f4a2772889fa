"""Optimisers by a recipe's `Steps`: which weights decay, at which rate each of them moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Muon, Optimizer

from mobilenets.model.module import Layer
from mobilenets.spec.op import Conv, Dense, Pointwise
from mobilenets.spec.training import Course, Steps


class RMSprop(Optimizer):
    """RMSprop as TensorFlow has it, which the papers used: v ← s·v + (1 − s)·g², begun at one;
    m ← μ·m + rate · g / √(v + ε); w ← w − m.

    torch's own adds ε to the root and starts from zero.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float,
        smooth: float,
        eps: float,
        weight_decay: float = 0,
    ) -> None:
        given = {"lr": lr, "momentum": momentum, "smooth": smooth, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, given)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # none is used
        """One step from the gradients that are there."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            grads: Any = [p.grad for p in params]
            if group["weight_decay"]:
                grads = torch._foreach_add(grads, params, alpha=group["weight_decay"])
            for p in params:
                if not self.state[p]:
                    self.state[p] = {"square": torch.ones_like(p), "moved": torch.zeros_like(p)}
            square = [self.state[p]["square"] for p in params]
            moved = [self.state[p]["moved"] for p in params]
            torch._foreach_mul_(square, group["smooth"])
            torch._foreach_addcmul_(square, grads, grads, 1 - group["smooth"])
            root = torch._foreach_add(square, group["eps"])
            torch._foreach_sqrt_(root)
            torch._foreach_mul_(moved, group["momentum"])
            torch._foreach_addcdiv_(moved, grads, root, group["lr"])
            torch._foreach_sub_(params, moved)


class Stepper:
    """The optimisers of one module. `step(share)` moves its weights at that share of the full rates."""

    def __init__(self, made: nn.Module, steps: Steps) -> None:
        self._steps = steps
        self._made = made
        self._flat: list[tuple[nn.Parameter, nn.Parameter]] = []
        heavy: list[nn.Parameter] = []
        light: list[nn.Parameter] = []
        dense: list[nn.Parameter] = []
        ops = {id(layer.weight): layer.op for layer in _layers(made)}
        for value in made.parameters():
            match ops.get(id(value)):
                case Conv() | Pointwise():
                    heavy.append(value)
                case Dense():
                    dense.append(value)
                case _:
                    light.append(value)
        self.optimizers = self._made_by(heavy, dense, light)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["full"] = group["lr"]

    def _made_by(
        self, heavy: list[nn.Parameter], dense: list[nn.Parameter], light: list[nn.Parameter]
    ) -> list[Optimizer]:
        steps = self._steps
        both = heavy + dense if steps.method != "muon" else dense
        groups = [{"params": both, "weight_decay": steps.decay}, {"params": light, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
        match steps.method:
            case "rmsprop":
                return [RMSprop(groups, steps.rate, steps.momentum, steps.smooth, steps.epsilon)]
            case "sgd":
                return [SGD(groups, lr=steps.rate, momentum=steps.momentum, nesterov=steps.momentum > 0)]
            case "adamw":
                return [AdamW(groups, lr=steps.rate, betas=(steps.momentum, steps.smooth), eps=steps.epsilon)]
            case "muon":
                # It wants matrices: a filter's matrix is its outputs by all that they read.
                # The longest first, where threads share them out.
                heavy = sorted(heavy, key=Tensor.numel, reverse=True)
                self._flat = [(value, nn.Parameter(_matrix(value))) for value in heavy]
                own = [
                    Muon([matrix], lr=steps.rate, momentum=steps.momentum, weight_decay=steps.decay)
                    for _, matrix in self._flat
                ]
                betas = (steps.momentum, steps.smooth)
                rest = AdamW(groups, lr=steps.aside, betas=betas, eps=steps.epsilon)
                return [*own, rest]

    def step(self, share: float, pool: ThreadPoolExecutor | None = None) -> None:
        """One step from the gradients that are there, which are gone after it.

        A pool's threads share out the matrices of `muon`, each of which is some thirty products.
        """
        for value, matrix in self._flat:
            matrix.grad = None if value.grad is None else _matrix(_laid(value.grad))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["full"] * share
        steps: list[Callable[[], Any]] = [optimizer.step for optimizer in self.optimizers]
        if pool is None:
            for step in steps:
                step()
        else:
            for done in [pool.submit(step) for step in steps]:
                done.result()
        for parameter in self._made.parameters():
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Everything that it remembers, by names that `restore` takes."""
        return {
            f"{number}.{index}.{name}": torch.as_tensor(value)
            for number, optimizer in enumerate(self.optimizers)
            for index, own in optimizer.state_dict()["state"].items()
            for name, value in own.items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what another's `state` gave."""
        for number, optimizer in enumerate(self.optimizers):
            whole = optimizer.state_dict()
            whole["state"] = {}
            for key, value in state.items():
                which, index, name = key.split(".", 2)
                if int(which) == number:
                    # A file has no numbers without a shape.
                    kept = value.reshape(()) if value.numel() == 1 and name == "step" else value
                    whole["state"].setdefault(int(index), {})[name] = kept
            optimizer.load_state_dict(whole)
            for parameter, own in optimizer.state.items():
                for name, value in own.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        # As it lay: sums in another order of memory end in other bits.
                        own[name] = torch.empty_like(parameter).copy_(value)


def share_of_rate(course: Course, epoch: float, epochs: int) -> float:
    """The share of the highest rate at a point of the run, in epochs from its start."""
    if epoch < course.warmup:
        return (epoch + 1e-3) / (course.warmup + 1e-3)
    if course.form == "stairs":
        return float(course.factor ** ((epoch - course.warmup) // course.every))
    done = min(1.0, (epoch - course.warmup) / max(1e-9, epochs - course.warmup))
    left = 0.5 * (1 + cos(pi * done)) if course.form == "cosine" else 1 - done
    return course.last + (1 - course.last) * left


def _layers(made: nn.Module) -> list[Layer]:
    return [part for part in made.modules() if isinstance(part, Layer)]


def _laid(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


def _matrix(value: Tensor) -> Tensor:
    """The same memory as [outputs, what each reads]; filters lie channels last."""
    flat = value.detach()
    flat = flat.permute(0, 2, 3, 1) if flat.dim() == 4 else flat
    return flat.view(flat.shape[0], -1)  # raises where it would have to copy: a copy would not learn
