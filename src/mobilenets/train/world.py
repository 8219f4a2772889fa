"""The processes that learn together: one alone, or those that `torchrun` started."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True, slots=True)
class World:
    """How many processes there are and which of them this is. Alone, nothing is exchanged."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether it is this process that writes and speaks."""
        return self.rank == 0

    def sum(self, values: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one exchange."""
        if self.count == 1:
            return
        flat = torch.cat([value.reshape(-1) for value in values])
        distributed.all_reduce(flat)
        begin = 0
        for value in values:
            value.copy_(flat[begin : begin + value.numel()].view_as(value))
            begin += value.numel()

    def wait(self) -> None:
        """Until every process has come here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The world that the environment tells of (`torchrun` sets it): gloo on CPUs, else nccl."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield World()
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
