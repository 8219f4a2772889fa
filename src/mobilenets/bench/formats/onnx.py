"""A network as ONNX: folded weights, one input [1, 3, height, width], its outputs as vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_never

import numpy as np

from mobilenets.infer.artefact import Artefact
from mobilenets.infer.fold import fold
from mobilenets.spec.net import shapes
from mobilenets.spec.op import (
    Activate,
    Activation,
    Add,
    Concat,
    Conv,
    Dense,
    Depthwise,
    MaxPool,
    MeanPool,
    Mul,
    Pointwise,
    Pool,
    Shape,
    Shuffle,
    Slice,
    Windowed,
    around,
    sides,
)

OPSET, IR_VERSION = 17, 8
INPUT, OUTPUT = "image", "output"


def write(
    model: Artefact,
    path: Path,
    outputs: Mapping[str, str] | None = None,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write `model` as ONNX, checked by onnx itself.

    `outputs` names nodes, the first output's is called OUTPUT unless they are given; `facts` go into the
    file's metadata.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    net, weights = fold(model.net, model.weights)
    known = shapes(net)
    outputs = outputs or {OUTPUT: net.outputs[0].node}
    public = {node: name for name, node in outputs.items()}
    nodes: list[Any] = []
    constants = [
        numpy_helper.from_array(np.float32(0), "zero"),
        numpy_helper.from_array(np.float32(6), "six"),
    ]

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(name: str, values: list[int]) -> str:
        constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def activated(x: str, activation: Activation, name: str = "") -> str:
        name = name or f"{x}.{activation}"
        match activation:
            case "none":
                return x
            case "relu":
                return add("Relu", [x], name)
            case "relu6":
                return add("Clip", [x, "zero", "six"], name)
            case "hswish":
                return add("HardSwish", [x], name)
            case "hsigmoid":
                return add("HardSigmoid", [x], name, alpha=1 / 6, beta=0.5)
            case "sigmoid":
                return add("Sigmoid", [x], name)
            case "swish":
                return add("Mul", [x, add("Sigmoid", [x], f"{name}.gate")], name)
            case _:
                assert_never(activation)

    values = {"image": INPUT}
    for node in net.nodes:
        op, x, shape = node.op, values[node.inputs[0]], known[node.inputs[0]]
        inputs = [x]
        for part in ("weight", "bias"):
            if f"{node.name}.{part}" in weights:
                value = weights[f"{node.name}.{part}"]
                constants.append(numpy_helper.from_array(value, f"{node.name}.{part}"))
                inputs.append(f"{node.name}.{part}")
        match op:
            case Conv() | Depthwise() | Pointwise():
                slides = {"kernel_shape": [1, 1]} if isinstance(op, Pointwise) else _slides(op, shape)
                group = shape.channels if isinstance(op, Depthwise) else op.groups
                y = activated(add("Conv", inputs, node.name, group=group, **slides), op.activation)
            case Pool():
                y = add("GlobalAveragePool", inputs, node.name)
            case MaxPool():
                y = add("MaxPool", inputs, node.name, **_slides(op, shape))
            case MeanPool():
                y = add("AveragePool", inputs, node.name, **_slides(op, shape), count_include_pad=0)
            case Dense():
                inputs[0] = add("Flatten", [x], f"{node.name}.vector")
                y = add("Gemm", inputs, public.get(node.name, node.name), transB=1)
            case Add():
                kind = "Add" if len(node.inputs) == 2 else "Sum"
                y = activated(add(kind, [values[n] for n in node.inputs], node.name), op.activation)
            case Mul():
                y = add("Mul", [values[n] for n in node.inputs], node.name)
            case Concat():
                y = add("Concat", [values[n] for n in node.inputs], node.name, axis=1)
            case Slice():
                ends = [constant(f"{node.name}.{part}", [getattr(op, part)]) for part in ("begin", "end")]
                y = add("Slice", [x, *ends, constant(f"{node.name}.axis", [1])], node.name)
            case Shuffle():
                each = shape.channels // op.groups
                dealt = [1, op.groups, each, *shape[:2]]
                y = add("Reshape", [x, constant(f"{node.name}.dealt", dealt)], f"{node.name}.groups")
                y = add("Transpose", [y], f"{node.name}.turned", perm=[0, 2, 1, 3, 4])
                whole = [1, shape.channels, *shape[:2]]
                y = add("Reshape", [y, constant(f"{node.name}.whole", whole)], node.name)
            case Activate():
                y = activated(x, op.activation, node.name)
            case _:
                assert_never(op)
        values[node.name] = y
    for name, node_name in outputs.items():
        if values[node_name] != name:
            add("Flatten", [values[node_name]], name)
    graph = helper.make_graph(
        nodes,
        net.name,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 3, *net.input[:2]])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, known[node_name].elements])
            for name, node_name in outputs.items()
        ],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    made.ir_version = IR_VERSION
    helper.set_model_props(made, dict(facts or {}))
    onnx.checker.check_model(made)
    onnx.save(made, str(path))


def _slides(op: Windowed, x: Shape) -> dict[str, list[int]]:
    """How a window moves over a map, as ONNX has it."""
    rows, columns = around(op, x)
    return {
        "kernel_shape": list(sides(op)),
        "strides": [op.stride, op.stride],
        "pads": [rows[0], columns[0], rows[1], columns[1]],
    }
