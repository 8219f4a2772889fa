"""The processes that learn together: one alone, or those that `torchrun` started."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

MEETING, PATIENCE = timedelta(minutes=5), timedelta(days=1)
"""How long others are waited for, at the start and then: one decodes pictures or asks a teacher, for hours.
A process that ends breaks its connections, of which the others hear at once."""


@dataclass(frozen=True, slots=True)
class World:
    """How many processes there are, which of them this is, and where it computes. Alone, nothing is
    exchanged."""

    rank: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")
    group: distributed.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether it is this process that writes and speaks."""
        return self.rank == 0

    def sum(self, values: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one exchange."""
        if self.count == 1:
            return
        flat = torch.cat([value.reshape(-1) for value in values]).to(self.device)
        with _together():
            distributed.all_reduce(flat, group=self.group)
        begin = 0
        for value in values:
            value.copy_(flat[begin : begin + value.numel()].view_as(value))
            begin += value.numel()

    def wait(self) -> None:
        """Until every process has come here."""
        if self.count > 1:
            with _together():
                distributed.barrier(self.group)

    def agree(self, what: str) -> None:
        """Raises ValueError in every process where they do not all say the same."""
        own = int(hashlib.sha256(what.encode()).hexdigest()[:6], 16)  # squares of it add up within 64 bits
        told = torch.tensor([own, own * own], dtype=torch.int64)
        self.sum([told])
        if self.count * int(told[1]) != int(told[0]) ** 2:  # equal where all are, else greater
            raise ValueError(
                "the processes that are to learn together see different pictures, options or checkpoints; "
                "start them alike, with one --out that all of them reach"
            )

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process does what is inside, then the others: they find what it has kept."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()


def others() -> int:
    """Processes that `torchrun` started on this machine beside this one."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1


def speaks() -> bool:
    """Whether this process is the one that writes and speaks, as far as the environment tells."""
    return os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1"


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The world that the environment tells of (`torchrun` sets it): gloo on CPUs, else nccl."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield World(device=device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    with _together():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=MEETING)
        group = distributed.new_group(timeout=PATIENCE)
    try:
        yield World(distributed.get_rank(), distributed.get_world_size(), device, group)
    finally:
        distributed.destroy_process_group()


@contextmanager
def _together() -> Iterator[None]:
    """What the others' silence means, in words. torch's errors here are RuntimeErrors."""
    try:
        yield
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise RuntimeError(
            f"another process of this training has ended or cannot be reached ({first}); "
            "its own last line says why; --resume goes on from the last checkpoint"
        ) from error
