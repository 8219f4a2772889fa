"""Compiled models from Python: libraries that `mobilenets compile` built, run through ctypes.

A library is code: load those that you built, as you would any program.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import struct
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.resize import Frame
from mobilenets.infer.scale import Scale
from mobilenets.spec.preprocess import Preprocess

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from mobilenets.infer.artefact import Artefact

Rows = dict[str, NDArray[np.float32]]
"""Outputs by name."""
FORMAT = 1
"""Of what is read here of a library's memory; one of another number is not touched."""
MAGIC = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe")
MACHINES = {3: "x86", 40: "32-bit ARM", 62: "x86-64", 183: "64-bit ARM", 243: "RISC-V"}
"""By their number in a library's head (ELF's `e_machine`)."""
HUGE = 2 << 20
MOST_SIDE = 32767
"""Of a frame, in generated C."""
ERRORS = {
    -1: "a null pointer",
    -2: "a frame of a size that cannot be",
    -3: "its memory is too small or not aligned",
    -4: "a number of threads that cannot be had",
    -5: "its weights are not aligned, or another model's",
    -6: "an instruction set that this processor lacks",
}


class _Output(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_char_p),
        ("rank", ctypes.c_int),
        ("shape", ctypes.c_int * 4),
        ("scale", ctypes.c_float),
        ("zero", ctypes.c_int),
        ("stride", ctypes.c_int * 4),
    )


class CompiledEngine:
    """An `Engine` (see `infer.engine`) in compiled C. Calls from several threads take turns."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Raises ValueError where the file is no library of a compiled model, or threads cannot be had."""
        self._library, self.name, self.about = _opened(path)
        self._functions: dict[str, Any] = {}
        label = self._call("label", ctypes.c_char_p)
        self.labels = tuple(label(i).decode("utf-8", "surrogateescape") for i in range(self.about["labels"]))
        self.threshold: float | None = self.about["threshold"]
        self._input = tuple(self.about["net"]["input"])
        known = self.about["preprocess"]
        self.preprocess = Preprocess(**{**known, "mean": tuple(known["mean"]), "std": tuple(known["std"])})
        self._file = path.name
        self._threads, self._lock = threads, threading.Lock()
        self._isa, self._scales = "", dict[str, Scale | None]()
        self._net, self._largest = ctypes.c_void_p(), (0, 0)
        self._arena: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._fit(self.preprocess.width, self.preprocess.height)

    def __call__(self, frame: Frame) -> Rows:
        frame = np.ascontiguousarray(frame)
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            raise ValueError(f"a frame is uint8 [height, width, 3], not {frame.dtype} {list(frame.shape)}")
        height, width = frame.shape[:2]
        if max(height, width) > MOST_SIDE:
            raise ValueError(f"{self.name}: a frame of {width} × {height}; sides go to {MOST_SIDE}")
        with self._lock:
            if width > self._largest[0] or height > self._largest[1]:
                self._fit(max(width, self._largest[0]), max(height, self._largest[1]))
            self._check(
                self._call("run")(self._net, _address(frame), width, height, ctypes.c_ssize_t(3 * width))
            )
            return self._made()

    def many(self, frames: Sequence[Frame]) -> Rows:
        """Outputs of several frames of any size, each with a leading axis."""
        rows = [self(frame) for frame in frames]
        return {name: np.stack([row[name] for row in rows]) for name in self._outputs}

    def levels(self, prepared: Frame, into: Rows | None = None) -> Rows:
        """Outputs for what `infer.image.prepare` has made, uint8 [height, width, 3]; `into` takes its own."""
        if prepared.dtype != np.uint8 or prepared.shape != self._input:
            raise ValueError(f"{self.name} takes uint8 {list(self._input)}")
        with self._lock:
            self._check(self._call("run_levels")(self._net, _address(np.ascontiguousarray(prepared))))
            if into is None:
                return self._made()
            for name, row in into.items():
                scale, values = self._scales[name], self._outputs[name]
                row[...] = values if scale is None else scale.values(values)
            return into

    def input(self, values: NDArray[np.float32]) -> Rows:
        """Outputs for an input that is prepared and normalised, float32 [height, width, 3]."""
        if values.dtype != np.float32 or values.shape != self._input:
            raise ValueError(f"{self.name} takes float32 {list(self._input)}")
        with self._lock:
            self._check(self._call("run_input")(self._net, _address(np.ascontiguousarray(values))))
            return self._made()

    @cached_property
    def model(self) -> Artefact:
        """What is known of the model; its weights are in the library."""
        # Nobody who only asks about pictures waits for these.
        from mobilenets.infer.artefact import Artefact
        from mobilenets.spec.codec import net_from_json

        about = self.about
        return Artefact(
            net=net_from_json(about["net"]),
            weights={},
            preprocess=self.preprocess,
            labels=self.labels,
            threshold=self.threshold,
            source={
                "file": self._file,
                "compiled": about["dtype"],
                "digest": about["digest"],
                "made_from": about["source"],
            },
            scores=about["scores"],
        )

    def __del__(self) -> None:
        if getattr(self, "_net", None):
            self._call("free")(self._net)

    def use(self, isa: str) -> None:
        """Run by another instruction set than the best. Raises ValueError where this processor lacks it."""
        with self._lock:
            self._check(self._call("use")(self._net, isa.encode()))
            self._isa = isa

    @property
    def isas(self) -> tuple[str, ...]:
        """The instruction sets there is code for, best first, of those this processor has."""
        known = tuple(self.about["isas"])
        with self._lock:
            found = tuple(isa for isa in known if not self._call("use")(self._net, isa.encode()))
            self._call("use")(self._net, (self._isa or found[0]).encode())
        return found

    def _fit(self, width: int, height: int) -> None:
        """Memory for frames up to this size."""
        size = self._call("arena_size", ctypes.c_size_t)(width, height, self._threads)
        if not size:
            raise ValueError(f"{self.name}: {self._threads} threads cannot be had")
        arena = mmap.mmap(-1, size)
        if size >= HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
            arena.madvise(mmap.MADV_HUGEPAGE)
        memory = np.frombuffer(arena, np.uint8)
        made = ctypes.c_void_p()
        where = (ctypes.byref(made), _address(memory), ctypes.c_size_t(size))
        self._check(self._call("init")(*where, None, width, height, self._threads))
        if self._net:
            self._call("free")(self._net)
        self._net, self._arena, self._largest = made, memory, (width, height)
        self._outputs = self._listed()
        if self._isa:
            self._check(self._call("use")(self._net, self._isa.encode()))

    def _listed(self) -> Rows:
        """Each output's values where the network leaves them."""
        kinds = self._call("outputs", ctypes.POINTER(_Output))()
        found = {}
        for index in range(int(self.about["outputs"])):
            rank = kinds[index].rank
            shape, stride = tuple(kinds[index].shape[:rank]), tuple(kinds[index].stride[:rank])
            at = self._call("output", ctypes.c_void_p)(self._net, index)
            name, dtype = kinds[index].name.decode(), kinds[index].dtype.decode()
            kind = ctypes.c_uint8 if dtype == "uint8" else ctypes.c_float
            first = np.ctypeslib.as_array((kind * 1).from_address(at))
            strides = tuple(first.itemsize * one for one in stride)
            found[name] = np.lib.stride_tricks.as_strided(first, shape, strides, writeable=False)
            self._scales[name] = Scale(kinds[index].scale, kinds[index].zero) if dtype == "uint8" else None
        return found

    def _made(self) -> Rows:
        return {
            name: values.copy() if (scale := self._scales[name]) is None else scale.values(values)
            for name, values in self._outputs.items()
        }

    def rows(self, count: int, names: Iterable[str] | None = None) -> Rows:
        """Room for outputs of so many pictures, for all outputs unless named."""
        chosen = self._outputs if names is None else names
        return {name: np.empty((count, *self._outputs[name].shape), np.float32) for name in chosen}

    def _call(self, what: str, gives: Any = ctypes.c_int) -> Any:
        found = self._functions.get(what)
        if found is None:
            found = self._functions[what] = getattr(self._library, f"{self.name}_{what}")
            found.restype = gives
        return found

    def _check(self, code: int) -> None:
        if code:
            raise ValueError(f"{self.name}: {ERRORS.get(code, f'error {code}')}")


class CompiledBody:
    """A body for many pictures at once: `streams` networks of one thread each, on frames or on levels."""

    batch = 8
    resizes = MOST_SIDE

    def __init__(self, path: Path, streams: int, *, exact: bool = True) -> None:
        """`exact` tells whether the outputs are those of float32, to the last digits."""
        self.streams, self.exact = streams, exact
        engines = [CompiledEngine(path) for _ in range(streams)]
        self.told = f"compiled C, {engines[0].isas[0]}{'' if exact else ' with products in bfloat16'}"
        self._free: SimpleQueue[CompiledEngine] = SimpleQueue()
        for engine in engines:
            self._free.put(engine)

    def many(self, frames: Sequence[Frame]) -> Rows:
        """Outputs of several frames of any size, each with a leading axis."""
        with self._one() as engine:
            return engine.many(frames)

    def prepared(self, levels: NDArray[np.uint8], names: Iterable[str] | None = None) -> Rows:
        """Outputs for levels [n, height, width, 3], each with a leading axis; all of them unless named."""
        with self._one() as engine:
            made = engine.rows(len(levels), names=names)
            for index, one in enumerate(levels):
                engine.levels(one, {name: rows[index] for name, rows in made.items()})
        return made

    @contextmanager
    def _one(self) -> Iterator[CompiledEngine]:
        engine = self._free.get()
        try:
            yield engine
        finally:
            self._free.put(engine)

    def pool(self) -> ThreadPoolExecutor:
        """Threads to call `prepared` from."""
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(self.streams)


def _opened(path: Path) -> tuple[ctypes.CDLL, str, dict[str, Any]]:
    """The library, by its content: the system would give an older one of the same path again."""
    try:
        seen = path.stat()
        with path.open("rb") as file:
            head = file.read(64)
        if not _whole(head, seen.st_size):
            raise ValueError(path)
        with tempfile.TemporaryDirectory(prefix="mobilenets-") as place:
            # Another name for each state of the file; the same file under it is still opened once.
            link = Path(place) / f"{seen.st_ino}-{seen.st_mtime_ns}{path.suffix}"
            link.symlink_to(path.absolute())
            library = ctypes.CDLL(str(link))
        name = ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(library, "mobilenets_name"))).decode()
        about = getattr(library, f"{name}_about")
        about.restype = ctypes.c_char_p
        told: dict[str, Any] = json.loads(about())
    except OSError as error:
        if error.filename or error.errno:
            raise
        why = str(error).rpartition(": ")[2]  # without the name that it was opened by
        why = f"it was built for {MACHINES[head[18]]}" if _foreign(head) else why
        raise ValueError(f"{path}: cannot be loaded here: {why}") from error
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path}: no library that `mobilenets compile` built, or not all of it") from error
    if told.get("format") != FORMAT:
        raise ValueError(f"{path}: built by another version of mobilenets; compile the model anew")
    return library, name, told


def _foreign(head: bytes) -> bool:
    """Whether a file's head names another kind of processor than this program's own does."""
    try:
        with Path(sys.executable).open("rb") as file:
            own = file.read(20)
    except OSError:
        return False
    return own[:4] == head[:4] == MAGIC[0] and own[18] != head[18] and head[18] in MACHINES


def _whole(head: bytes, size: int) -> bool:
    """Whether a file is as long as its head says: the system maps a shorter one and dies of it."""
    if head[:5] != b"\x7fELF\x02":
        return head.startswith(MAGIC)
    if len(head) < 64:
        return False
    table, (entry, entries) = struct.unpack_from("<Q", head, 0x28)[0], struct.unpack_from("<HH", head, 0x3A)
    return bool(table + entry * entries <= size)


def _address(values: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.ctypes.data)
