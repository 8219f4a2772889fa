"""Training end to end from a fitted head: the loop, its average of weights, exact resuming after a kill."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import cos, isfinite, pi
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mobilenets.data.augment import Job, Levels
from mobilenets.data.catalog import Item
from mobilenets.data.crew import Crew, Died, release_freed_memory
from mobilenets.data.digests import Progress
from mobilenets.infer.image import normalise
from mobilenets.infer.sealed import ArtefactError, pack, unpack, write_whole
from mobilenets.model.module import Layer, Module, placed
from mobilenets.model.unfold import restate
from mobilenets.spec.op import Conv, Dense, Pointwise
from mobilenets.spec.preprocess import Preprocess
from mobilenets.spec.recipe import Tune
from mobilenets.train.body import one_thread_each
from mobilenets.train.material import Part
from mobilenets.train.run import Epoch
from mobilenets.train.stream import streamed

MICRO = 8
"""Pictures at a time where norms are frozen: gradients add up to the same step in a quarter of the memory."""
RESTATE_PICTURES = 1024
Pictures = Crew[Job, Levels | None]


class Tuner:
    """One training run; `run` yields each finished epoch, `averaged` is the model to keep.

    After each epoch everything that decides the rest is written to `checkpoint`; a run with the same inputs
    that finds it there goes on from it, and on one machine ends with the same numbers to the last bit.
    """

    def __init__(
        self,
        made: Module,
        recipe: Tune,
        *,
        crew: Pictures,
        target: Preprocess,
        seed: int,
        device: str,
        checkpoint: Path,
        identity: str,
        class_weights: NDArray[np.float32] | None = None,
        frozen_norms: bool = True,
        streams: int = 1,
    ) -> None:
        self.made = placed(made, torch.device(device))
        self.averaged = placed(Module(made.net), torch.device(device))
        self.averaged.load_state_dict(self.made.state_dict())
        self._recipe, self._crew, self._target = recipe, crew, target
        self._seed, self._device = seed, torch.device(device)
        self._checkpoint, self._identity = checkpoint, identity
        self._weights = None if class_weights is None else torch.from_numpy(class_weights).to(self._device)
        self._frozen_norms = frozen_norms
        self._layers = {n: part for n, part in self.made.named_modules() if isinstance(part, Layer)}
        for layer in self._layers.values():
            if layer.norm is not None:
                layer.norm.frozen = frozen_norms
        self._optimizer = torch.optim.SGD(
            self._groups(), lr=recipe.rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0
        )
        # A thread for each copy, one core for each thread: no thread ever waits for another inside a layer.
        streams = streams if self._device.type == "cpu" else 1
        self._copies = [self.made, *(_sharing(self.made) for _ in range(streams - 1))]
        self._pool = one_thread_each(streams)
        self._half = False
        self._steps = 0
        self.notice = ""
        """What a user should know of resuming."""

    def run(self, train: Part, val: Part, *, resume: bool, progress: Progress) -> Iterator[Epoch]:
        """Train; epochs that an earlier, cut-off run finished are yielded again first."""
        done = self._resumed() if resume else []
        if not done:
            self._half = half_is_native(self._device)
        yield from done
        batches = max(1, len(train.items) // self._recipe.batch)
        for epoch in range(len(done), self._recipe.epochs):
            begun = time.perf_counter()
            loss = self._epoch(epoch, batches, train, progress)
            release_freed_memory()  # learning and scoring cut memory into other pieces
            if not self._frozen_norms and epoch + 1 == self._recipe.epochs:
                self._restate(train)
            right = None
            if len(val.items):
                right = float((self.scores(val.items).argmax(axis=1) == val.truth).mean())
            release_freed_memory()
            done.append(Epoch(epoch + 1, loss, right, time.perf_counter() - begun))
            self._save(done)
            yield done[-1]

    def _restate(self, train: Part) -> None:
        """Measure the averaged model's statistics anew: averaged ones belong to no weights that ever were."""
        some = train.items[:: max(1, len(train.items) // RESTATE_PICTURES)]
        restate(self.averaged, self._plain(some, 2 * MICRO))

    def scores(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """Logits [n, classes] of the averaged model on plain pictures."""
        self.averaged.eval()
        rows = list(streamed(self._pool, self._logits, self._plain(items, MICRO), 2 * len(self._copies)))
        return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)

    def _logits(self, x: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode():
            return self.averaged(x)["logits"].float().cpu().numpy()  # type: ignore[no-any-return]  # torch's

    def _groups(self) -> list[dict[str, Any]]:
        groups = []
        layers = list(self._layers.values())
        for layer in layers[: self._recipe.still]:
            layer.requires_grad_(False)
        for depth, layer in enumerate(reversed(layers[self._recipe.still :])):
            rate = self._recipe.rate * self._recipe.lower**depth
            heavy = isinstance(layer.op, Conv | Pointwise | Dense)
            rest = [p for p in layer.parameters() if p is not layer.weight]
            decay = self._recipe.decay if heavy else 0.0
            groups.append({"params": [layer.weight], "lr": rate, "weight_decay": decay, "full": rate})
            groups.append({"params": rest, "lr": rate, "weight_decay": 0.0, "full": rate})
        return [group for group in groups if group["params"]]

    def _epoch(self, epoch: int, batches: int, train: Part, progress: Progress) -> float:
        for copy in self._copies:
            copy.train()
        order = np.random.default_rng([self._seed, epoch]).permutation(len(train.items))
        jobs = [Job(train.items[i], (self._seed, epoch, int(i))) for i in order]
        size, total = self._recipe.batch, 0.0
        views = self._crew.map(jobs, ahead=2 * size)
        for number in range(batches):
            last = len(order) if number == batches - 1 else (number + 1) * size
            chosen = order[number * size : last]
            # `chosen` first: zip must not draw a view that the next batch is owed.
            pairs = [(made, int(train.truth[i])) for i, made in zip(chosen, views, strict=False)]
            good = [(made, label) for made, label in pairs if made is not None and not isinstance(made, Died)]
            if good:
                total += self._step(good, epoch * batches + number, self._recipe.epochs * batches)
            if not isfinite(total):
                raise ValueError(
                    f"fine-tuning diverged in step {epoch * batches + number + 1}: the loss is no number "
                    "any more; try another --seed, a larger train part, or leave out --finetune"
                )
            progress("finetune", epoch * batches + number + 1, self._recipe.epochs * batches)
        return total / batches

    def _step(self, pairs: Sequence[tuple[Levels, int]], step: int, steps: int) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = group["full"] * _schedule(step, steps, self._recipe.warmup)
        streams = len(self._copies)
        share = -(-len(pairs) // streams)
        size = min(MICRO, share) if self._frozen_norms else max(MICRO, share)  # norms need some to measure by
        micros = [pairs[first : first + size] for first in range(0, len(pairs), size)]
        # Each copy takes the same micro-batches every time, sums are taken in order: so a run repeats.
        losses = list(
            self._pool.map(
                lambda copy, own: [self._backward(copy, micro, len(pairs)) for micro in own],
                self._copies,
                [micros[number::streams] for number in range(streams)],
            )
        )
        for first, *others in zip(*(copy.parameters() for copy in self._copies), strict=True):
            for other in others:
                if other.grad is not None:
                    first.grad = other.grad if first.grad is None else first.grad.add_(other.grad)
                    other.grad = None
        torch.nn.utils.clip_grad_norm_(self.made.parameters(), self._recipe.clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._average()
        return sum(sum(own) for own in losses)

    def _backward(self, copy: Module, micro: Sequence[tuple[Levels, int]], whole: int) -> float:
        x = self._input(np.stack([levels for levels, _ in micro]))
        truth = torch.tensor([label for _, label in micro], device=self._device)
        loss = self._loss(copy, x, truth) / whole
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return float(loss.detach())

    def _loss(self, copy: Module, x: Tensor, truth: Tensor) -> Tensor:
        """The sum over pictures: a mean would divide by the class weights of whatever came together."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            logits = copy(x)["logits"]
        return functional.cross_entropy(
            logits.float(), truth, self._weights, reduction="sum", label_smoothing=self._recipe.smoothing
        )

    def _average(self) -> None:
        """The average follows fast at first, then slowly, as TensorFlow's does with a step count."""
        self._steps += 1
        keep = min(self._recipe.average, (1 + self._steps) / (10 + self._steps))
        with torch.no_grad():
            for mean, value in zip(
                self.averaged.state_dict().values(), self.made.state_dict().values(), strict=True
            ):
                mean.lerp_(value, 1 - keep)

    def _plain(self, items: Sequence[Item], size: int) -> Iterator[Tensor]:
        batch: list[Levels] = []
        for made in self._crew.map([Job(item) for item in items]):
            lost = made is None or isinstance(made, Died)
            # A file that was there a minute ago keeps its place, so that rows stay in step with items.
            batch.append(np.zeros((self._target.height, self._target.width, 3), np.uint8) if lost else made)  # type: ignore[arg-type]
            if len(batch) == size:
                yield self._input(np.stack(batch))
                batch = []
        if batch:
            yield self._input(np.stack(batch))

    def _input(self, levels: Levels) -> Tensor:
        return torch.from_numpy(normalise(levels, self._target)).permute(0, 3, 1, 2).to(self._device)

    def _save(self, done: Sequence[Epoch]) -> None:
        tensors = {f"made.{n}": _numpy(v) for n, v in self.made.state_dict().items()}
        tensors |= {f"averaged.{n}": _numpy(v) for n, v in self.averaged.state_dict().items()}
        for name, parameter in self.made.named_parameters():
            moved = self._optimizer.state.get(parameter, {}).get("momentum_buffer")
            if moved is not None:
                tensors[f"momentum.{name}"] = _numpy(moved)
        meta = {
            "checkpoint": 1,
            "identity": self._identity,
            "half": self._half,
            "steps": self._steps,
            "epochs": [asdict(epoch) for epoch in done],
        }
        write_whole(self._checkpoint, pack(meta, tensors))

    def _resumed(self) -> list[Epoch]:
        """The epochs a checkpoint of this very run holds, its state taken over; none where there is none."""
        try:
            meta, tensors = unpack(self._checkpoint.read_bytes())
        except (FileNotFoundError, ArtefactError):
            return []
        if meta.get("identity") != self._identity or meta.get("checkpoint") != 1:
            self.notice = "the checkpoint was of other options, pictures or versions: fine-tuning began anew"
            return []
        parts: dict[str, dict[str, Tensor]] = {"made": {}, "averaged": {}, "momentum": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = torch.from_numpy(value.copy()).to(self._device)
        self.made.load_state_dict(parts["made"])
        self.averaged.load_state_dict(parts["averaged"])
        for name, parameter in self.made.named_parameters():
            if name in parts["momentum"]:
                buffer = torch.empty_like(parameter).copy_(parts["momentum"][name])
                self._optimizer.state[parameter]["momentum_buffer"] = buffer
        self._half, self._steps = bool(meta["half"]), int(meta["steps"])
        return [Epoch(**epoch) for epoch in meta["epochs"]]


def _sharing(made: Module) -> Module:
    """A module on the same weights and statistics, with gradients of its own."""
    copy = placed(Module(made.net), torch.device("cpu"))
    for (name, own), value in zip(copy.named_parameters(), made.parameters(), strict=True):
        own.data = value.data
        own.requires_grad_(value.requires_grad)
        norm = name.rpartition(".norm.")[0]
        if norm:
            copy.layer(norm).norm.frozen = made.layer(norm).norm.frozen  # type: ignore[union-attr]  # it has one
    if all(layer.norm is None or layer.norm.frozen for layer in _layers(made)):
        for name, buffer in made.named_buffers():
            holder, _, leaf = name.rpartition(".")
            copy.get_submodule(holder)._buffers[leaf] = buffer
    return copy


def _layers(made: Module) -> list[Layer]:
    return [part for part in made.modules() if isinstance(part, Layer)]


def half_is_native(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 itself: 13 ms a picture against 48 (V1 1.0/224, Zen 4).

    Told by the processor and not by a stopwatch, so that a run comes out the same twice.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type != "cpu":
        return False
    # torch has no public name for these yet; where they are missing, float32 is always right.
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in asked)


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the full rate: linear up, then half a cosine down to nothing."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + cos(pi * (step - rise) / max(1, steps - rise)))


def _numpy(value: Tensor) -> NDArray[Any]:
    return value.detach().cpu().contiguous().numpy()
