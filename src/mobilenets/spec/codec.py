"""Networks and preprocessing to plain JSON values and back; unknown keys and absurd sizes are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from mobilenets.spec.net import Decode, Net, Node, Output, shapes
from mobilenets.spec.op import (
    Activate,
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Depthwise,
    MaxPool,
    MeanPool,
    Mul,
    Op,
    Padding,
    Pointwise,
    Pool,
    Shape,
    Shuffle,
    Slice,
)
from mobilenets.spec.preprocess import Preprocess

Json = dict[str, Any]

OPS: dict[str, type[Op]] = {
    "conv": Conv,
    "depthwise": Depthwise,
    "pointwise": Pointwise,
    "pool": Pool,
    "dense": Dense,
    "add": Add,
    "mul": Mul,
    "maxpool": MaxPool,
    "meanpool": MeanPool,
    "concat": Concat,
    "shuffle": Shuffle,
    "slice": Slice,
    "activate": Activate,
}
LATER = {("conv", "across"), ("conv", "groups"), ("pointwise", "groups"), ("add", "activation")}
"""Fields that came after files had been written: left out where they say nothing."""
MOST_NODES = 4096
MOST_CHANNELS = 1 << 16
MOST_PIXELS = 4096
MOST_ELEMENTS = 1 << 30


def net_to_json(net: Net) -> Json:
    """The network as JSON values, keys in a fixed order."""
    return {
        "name": net.name,
        "width": net.width,
        "rounding": net.rounding,
        "input": list(net.input),
        "nodes": [
            {"name": n.name, "op": op_name(n.op), "inputs": list(n.inputs), **_fields(n.op)}
            for n in net.nodes
        ],
        "outputs": [dataclasses.asdict(o) for o in net.outputs],
    }


def net_from_json(value: object) -> Net:
    """The network that `net_to_json` wrote. Raises ValueError that names what is wrong."""
    top = _record(value, "net", ("name", "width", "rounding", "input", "nodes", "outputs"))
    nodes = _sequence(top["nodes"], "nodes")
    if len(nodes) > MOST_NODES:
        raise ValueError(f"net: {len(nodes)} nodes, more than {MOST_NODES}")
    sides = [_count(side, "input", MOST_PIXELS) for side in _sequence(top["input"], "input")]
    if len(sides) != 3:
        raise ValueError(f"net: input has {len(sides)} numbers, not three")
    net = Net(
        name=_text(top["name"], "name"),
        input=Shape(*sides),
        nodes=tuple(_node(n) for n in nodes),
        outputs=tuple(_output(o) for o in _sequence(top["outputs"], "outputs")),
        width=_number(top["width"], "width"),
        rounding=_text(top["rounding"], "rounding"),
    )
    for name, shape in shapes(net).items():
        if shape.elements > MOST_ELEMENTS:
            raise ValueError(f"net: {name} makes a map of {tuple(shape)}, more than {MOST_ELEMENTS} values")
    return net


def preprocess_to_json(pre: Preprocess) -> Json:
    """The preprocessing as JSON values."""
    values = dataclasses.asdict(pre)
    return {**values, "mean": list(pre.mean), "std": list(pre.std)}


def preprocess_from_json(value: object) -> Preprocess:
    """The preprocessing that `preprocess_to_json` wrote. Raises ValueError that names what is wrong."""
    names = tuple(f.name for f in dataclasses.fields(Preprocess))
    top = _record(value, "preprocess", names)
    return Preprocess(
        height=_count(top["height"], "height", MOST_PIXELS),
        width=_count(top["width"], "width", MOST_PIXELS),
        geometry=top["geometry"],
        fraction=_number(top["fraction"], "fraction"),
        fill=_count(top["fill"], "fill", 255, least=0),
        mean=_triple(top["mean"], "mean"),
        std=_triple(top["std"], "std"),
    )


def _fields(op: Op) -> Json:
    own, told = op_name(op), dataclasses.asdict(op)
    silent = [f.name for f in dataclasses.fields(op) if (own, f.name) in LATER and told[f.name] == f.default]
    return {name: value for name, value in told.items() if name not in silent}


def op_name(op: Op) -> str:
    """What an operation is called in files and in tables."""
    return next(name for name, kind in OPS.items() if isinstance(op, kind))


def _node(value: object) -> Node:
    if not isinstance(value, Mapping) or value.get("op") not in list(OPS):
        raise ValueError(f"net: no such operation in {str(value)[:80]!r}; known: {', '.join(OPS)}")
    kind = OPS[value["op"]]
    names = (f.name for f in dataclasses.fields(kind))
    fields = [name for name in names if name in value or (value["op"], name) not in LATER]
    record = _record(value, "node", ("name", "op", "inputs", *fields))
    inputs = tuple(_text(i, "inputs") for i in _sequence(record["inputs"], "inputs"))
    return Node(_text(record["name"], "name"), kind(**{f: _field(f, record[f]) for f in fields}), inputs)


def _field(name: str, value: object) -> Any:
    match name:
        case "out":
            return _count(value, name, MOST_CHANNELS)
        case "kernel" | "stride":
            return _count(value, name, 64)
        case "across":
            return None if value is None else _count(value, name, 64)
        case "groups" | "end":
            return _count(value, name, MOST_CHANNELS)
        case "begin":
            return _count(value, name, MOST_CHANNELS, least=0)
        case "bias":
            if isinstance(value, bool):
                return value
        case "padding":
            if value in get_args(Padding):
                return value
        case "activation":
            if value in get_args(Activation):
                return value
        case "norm":
            if value is None:
                return None
            return BatchNorm(epsilon=_number(_record(value, "norm", ("epsilon",))["epsilon"], "epsilon"))
    raise ValueError(f"net: {name} = {str(value)[:40]!r} is not a value it can have")


def _output(value: object) -> Output:
    record = _record(value, "output", ("name", "node", "decode"))
    if record["decode"] not in get_args(Decode):
        raise ValueError(
            f"net: an output is decoded as {', '.join(get_args(Decode))}, not {record['decode']!r}"
        )
    return Output(_text(record["name"], "name"), _text(record["node"], "node"), record["decode"])


def _record(value: object, what: str, keys: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{what}: not an object")
    missing, extra = set(keys) - set(value), set(value) - set(keys)
    if missing or extra:
        raise ValueError(f"{what}: missing {sorted(missing)}, unknown {sorted(extra)}")
    return value


def _sequence(value: object, what: str) -> Sequence[object]:
    if not isinstance(value, list):
        raise ValueError(f"{what}: not a list")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        raise ValueError(f"{what}: not a short text: {str(value)[:40]!r}")
    return value


def _count(value: object, what: str, most: int, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{what}: {str(value)[:40]} is not a whole number in {least}…{most}")
    return value


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise ValueError(f"{what}: {str(value)[:40]} is not a number")
    return float(value)


def _triple(value: object, what: str) -> tuple[float, float, float]:
    numbers = [_number(v, what) for v in _sequence(value, what)]
    if len(numbers) != 3:
        raise ValueError(f"{what}: {len(numbers)} numbers, not three")
    return numbers[0], numbers[1], numbers[2]
