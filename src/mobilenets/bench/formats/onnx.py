"""A network as ONNX: folded weights, one input [1, 3, height, width], its outputs as vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_never

import numpy as np

from mobilenets.infer.artefact import Artefact
from mobilenets.infer.fold import fold
from mobilenets.spec.net import shapes
from mobilenets.spec.op import Add, Conv, Dense, Depthwise, Pointwise, Pool, pads

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
                kernel, stride = (1, 1) if isinstance(op, Pointwise) else (op.kernel, op.stride)
                around = [0, 0, 0, 0]
                if not isinstance(op, Pointwise):
                    rows = pads(shape.height, kernel, stride, op.padding)
                    columns = pads(shape.width, kernel, stride, op.padding)
                    around = [rows[0], columns[0], rows[1], columns[1]]
                y = add(
                    "Conv",
                    inputs,
                    node.name,
                    kernel_shape=[kernel, kernel],
                    strides=[stride, stride],
                    pads=around,
                    group=shape.channels if isinstance(op, Depthwise) else 1,
                )
                if op.activation == "relu":
                    y = add("Relu", [y], f"{node.name}.relu")
                elif op.activation == "relu6":
                    y = add("Clip", [y, "zero", "six"], f"{node.name}.relu6")
            case Pool():
                y = add("GlobalAveragePool", inputs, node.name)
            case Dense():
                inputs[0] = add("Flatten", [x], f"{node.name}.vector")
                y = add("Gemm", inputs, public.get(node.name, node.name), transB=1)
            case Add():
                y = add(
                    "Add" if len(node.inputs) == 2 else "Sum", [values[n] for n in node.inputs], node.name
                )
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
