"""What a race was asked for: engines, threads and types as lists, how long, where the input comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

from mobilenets.bench.ssh import host
from mobilenets.costs.device import Device, device
from mobilenets.spec.option import flag

Dtype = Literal["float32", "int8"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
FAMILIES = ("ours", "onnxruntime", "openvino", "litert", "ncnn", "executorch", "torch")
MOST_THREADS = 64
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """The options of `mobilenets bench`, as the command line gives them."""

    engines: str = flag("all", f"Which engines, of {','.join(FAMILIES)}.")
    threads: str = flag("1", "Numbers of threads, such as 1,2.")
    dtype: str = flag("float32", "Types: float32, int8 or both.")
    width: float | None = flag(None, "Width, where MODEL is the name of a network.")
    resolution: int | None = flag(None, "Input side in pixels, where MODEL is the name of a network.")
    calibrate: Path | None = flag(None, "Pictures to calibrate int8 on; frames drawn here unless given.")
    native: bool = flag(False, "Call engines that have a C interface from C instead of from Python.")
    rounds: int = flag(20, "Turns of each engine.")
    turn_ms: int = flag(60, "How long a turn lasts.")
    heats: int = flag(3, "In how many parts the turns come, each with processes started anew.")
    starts: int = flag(5, "Processes started for cold start and memory; 0 leaves them out.")
    seed: int = flag(0, "Of the order of turns, and of random weights.")

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("turn_ms", 1), ("heats", 1), ("starts", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: at least {least}")
        for lists in (families, threads, dtypes):
            lists(self)  # a slip in a list is told before any work


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardOptions:
    """Where `mobilenets bench` measures, as the command line gives it."""

    on: str | None = flag(None, "user@board[:port], or a Host of ssh's configuration: our code, timed there.")
    device: str | None = flag(
        None, "Which board this is, or the one of --on, by a name of `mobilenets devices`."
    )

    def __post_init__(self) -> None:
        if self.on is not None:
            host(self.on)
        where = self.where
        if where is not None and where.ram_kb is not None:
            raise ValueError(f"--device {where.name}: a microcontroller, on which nothing here can be timed")

    @property
    def where(self) -> Device | None:
        """The device of that name; ValueError for an unknown one."""
        return None if self.device is None else device(self.device)


def families(options: BenchOptions) -> tuple[str, ...]:
    """The engines asked for, in the order of the table. ValueError names one that is unknown."""
    words = _words(options.engines, "--engines")
    if "all" in words:
        words = [*FAMILIES, *(word for word in words if word != "all")]
    for word in words:
        if word not in FAMILIES:
            raise ValueError(f"--engines {word}: unknown; known: all, {', '.join(FAMILIES)}")
    return tuple(name for name in FAMILIES if name in words)


def threads(options: BenchOptions) -> tuple[int, ...]:
    """The numbers of threads asked for, each once."""
    found = []
    for word in _words(options.threads, "--threads"):
        if not word.isdecimal() or not 1 <= int(word) <= MOST_THREADS:
            raise ValueError(f"--threads {word}: whole numbers from 1 to {MOST_THREADS}, such as 1,2")
        found.append(int(word))
    return tuple(dict.fromkeys(found))


def dtypes(options: BenchOptions) -> tuple[Dtype, ...]:
    """The types asked for, in the order of the table."""
    words = _words(options.dtype, "--dtype")
    for word in words:
        if word not in DTYPES:
            raise ValueError(f"--dtype {word}: unknown; known: {', '.join(DTYPES)}")
    return tuple(dtype for dtype in DTYPES if dtype in words)


def _words(text: str, name: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ValueError(f"{name}: an empty list")
    return words
