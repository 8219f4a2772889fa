"""What a TensorFlow Lite file holds: tensors, operators in order, constants dequantised to float32.

The slots below are the field numbers of TensorFlow's schema, tensorflow/compiler/mlir/lite/schema/schema.fbs.
uint8 and int8 weights become (q − zero) × scale, per channel where the file says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.flatbuffer import DamagedError, Table, root

MOST_OPERATORS = 4096
DTYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 9: "i1"}
QUANTISED = ("u1", "i1", "<i4")
OPERATORS = {
    0: "ADD", 1: "AVERAGE_POOL_2D", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 6: "DEQUANTIZE",
    9: "FULLY_CONNECTED", 14: "LOGISTIC", 17: "MAX_POOL_2D", 18: "MUL", 19: "RELU", 21: "RELU6",
    22: "RESHAPE", 23: "RESIZE_BILINEAR", 25: "SOFTMAX", 32: "CUSTOM", 34: "PAD", 39: "TRANSPOSE", 40: "MEAN",
    41: "SUB", 43: "SQUEEZE", 114: "QUANTIZE", 117: "HARD_SWISH",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor's entry: its shape, its type, its quantisation; its values where the file holds them."""

    shape: tuple[int, ...]
    dtype: str
    scale: NDArray[np.float32]
    zero: NDArray[np.int64]
    axis: int
    values: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Operator:
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Table | None


class Graph:
    """The first subgraph of a file: tensors on demand, operators in order, constants in float32."""

    def __init__(self, data: bytes) -> None:
        model = root(data)
        graphs = model.tables(2)
        if not graphs:
            raise DamagedError("no subgraph")
        self._data = data
        self._buffers = model.tables(4)
        self._tensors = graphs[0].tables(0)
        self._bytes_left = len(data)
        self.inputs = _indices(graphs[0], 1)
        codes = [_operator_name(code) for code in model.tables(1)]
        entries = graphs[0].tables(3)
        if len(entries) > MOST_OPERATORS:
            raise DamagedError(f"{len(entries)} operators")
        self.operators = []
        for entry in entries:
            code = entry.count(0)
            if code >= len(codes):
                raise DamagedError(f"operator code {code} of {len(codes)}")
            self.operators.append(
                Operator(codes[code], _indices(entry, 1), _indices(entry, 2), entry.table(4))
            )

    def tensor(self, index: int) -> Entry:
        """The entry of tensor `index`."""
        if not 0 <= index < len(self._tensors):
            raise DamagedError(f"tensor {index} of {len(self._tensors)}")
        entry = self._tensors[index]
        kind = entry.count(1, "b")
        if kind not in DTYPES:
            raise ValueError(f"tensor {entry.text(3)[:60]!r} is of a type ({kind}) that no V1 has")
        if entry.table(6) is not None:
            raise ValueError(f"tensor {entry.text(3)[:60]!r} is sparse; convert the model without sparsity")
        quant = entry.table(4)
        buffer = entry.count(2)
        if buffer >= len(self._buffers):
            raise DamagedError(f"buffer {buffer} of {len(self._buffers)}")
        if quant is not None and quant.count(4, "B"):
            raise ValueError(f"tensor {entry.text(3)[:60]!r} is quantised in a way that no V1 is")
        return Entry(
            shape=tuple(int(side) for side in entry.numbers(0, "<i4")[:8]),
            dtype=DTYPES[kind],
            scale=np.empty(0, np.float32) if quant is None else quant.numbers(2, "<f4").astype(np.float32),
            zero=np.empty(0, np.int64) if quant is None else quant.numbers(3, "<i8").astype(np.int64),
            axis=0 if quant is None else quant.count(6, "i"),
            values=self._values(self._buffers[buffer]),
        )

    def _values(self, buffer: Table) -> memoryview:
        start, size = buffer.count(1, "Q"), buffer.count(2, "Q")
        if start > 1:  # kept behind the tables, as converters do with large models
            if start + size > len(self._data):
                raise DamagedError(f"a buffer at byte {start} of {len(self._data)}")
            return memoryview(self._data)[start : start + size]
        return memoryview(buffer.numbers(0, "u1"))  # type: ignore[arg-type]  # numpy arrays are buffers

    def constant(self, index: int, channel_scale: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """A constant in float32. A quantised bias without a scale of its own takes `channel_scale`."""
        values = self.plain(index)
        entry = self.tensor(index)
        if entry.dtype not in QUANTISED:
            return _finite(values.astype(np.float32))
        scale = entry.scale if len(entry.scale) else channel_scale
        if scale is None or not len(scale):
            raise ValueError("an integer weight without a scale")
        return _finite(_dequantised(values, scale, entry.zero, entry.axis))

    def plain(self, index: int) -> NDArray[Any]:
        """A constant as the file has it."""
        entry = self.tensor(index)
        count = math.prod(entry.shape)
        if len(entry.values) != count * np.dtype(entry.dtype).itemsize or min(entry.shape, default=1) < 1:
            raise DamagedError(f"{len(entry.values)} bytes for a constant of {list(entry.shape)}")
        self._bytes_left -= len(entry.values)
        if self._bytes_left < 0:
            raise DamagedError("operators that share their weights")
        return np.frombuffer(entry.values, entry.dtype).reshape(entry.shape)

    def integers(self, index: int) -> list[int]:
        """A short integer constant, such as axes or paddings."""
        entry = self.tensor(index)
        if entry.dtype not in ("<i4", "<i8") or len(entry.values) > 256:
            raise DamagedError("an option that is no list of whole numbers")
        if len(entry.values) % np.dtype(entry.dtype).itemsize:
            raise DamagedError("an option cut short")
        return [int(value) for value in np.frombuffer(entry.values, entry.dtype)]

    def is_constant(self, index: int) -> bool:
        return index >= 0 and len(self.tensor(index).values) > 0


def _dequantised(
    values: NDArray[Any], scale: NDArray[np.float32], zero: NDArray[np.int64], axis: int
) -> NDArray[np.float32]:
    if len(scale) > 1:
        if (
            not 0 <= axis < values.ndim
            or values.shape[axis] != len(scale)
            or len(zero) not in (0, 1, len(scale))
        ):
            raise DamagedError(f"{len(scale)} scales for {list(values.shape)}")
        shape = [1] * values.ndim
        shape[axis] = len(scale)
        scale = scale.reshape(shape)
        zero = zero.reshape(shape) if len(zero) > 1 else zero
    offset = zero if len(zero) else np.zeros(1, np.int64)
    if abs(offset).max() > 1 << 31:
        raise DamagedError("a zero point beyond 32 bits")
    # float64 holds every 32-bit bias and the product before the one rounding to float32.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray((values.astype(np.float64) - offset) * scale, np.float32).reshape(values.shape)


def _finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise DamagedError("a weight that is not finite")
    return values


def _indices(table: Table, slot: int) -> tuple[int, ...]:
    return tuple(int(i) for i in table.numbers(slot, "<i4")[:4096])


def _operator_name(code: Table) -> str:
    number = max(code.count(0, "b"), code.count(3, "i"))
    if number == 32:
        return code.text(1) or "CUSTOM"
    return OPERATORS.get(number, f"operator {number}")
