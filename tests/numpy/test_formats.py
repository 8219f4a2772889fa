"""Files for other runtimes hold the same network: run by its own interpreter each answers as the walk."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mobilenets.bench.formats import ncnn as ncnn_file
from mobilenets.bench.formats import onnx as onnx_file
from mobilenets.bench.formats import tflite as tflite_file
from mobilenets.bench.subject import random_weights
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.walk import Walk
from mobilenets.spec import zoo
from mobilenets.spec.net import Net, Node, Output
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
    Padding,
    Pointwise,
    Pool,
    Shape,
    Shuffle,
    Slice,
)
from mobilenets.spec.preprocess import Preprocess

Values = np.ndarray
Run = Callable[[Artefact, Values, Path], Values]


def by_litert(model: Artefact, x: Values, folder: Path) -> Values:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert")
    tflite_file.write(model, folder / "model.tflite")
    one = interpreter.Interpreter(model_path=str(folder / "model.tflite"), num_threads=1)
    one.allocate_tensors()
    one.set_tensor(one.get_input_details()[0]["index"], x[None])
    one.invoke()
    return one.get_tensor(one.get_output_details()[0]["index"])


def by_ncnn(model: Artefact, x: Values, folder: Path) -> Values:
    ncnn = pytest.importorskip("ncnn", reason="needs ncnn")
    last = ncnn_file.write(model, folder)
    net = ncnn.Net()
    net.opt.num_threads, net.opt.use_vulkan_compute = 1, False
    for half in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{half}", False)
    assert not net.load_param(str(folder / "model.param"))
    assert not net.load_model(str(folder / "model.bin"))
    planes = np.ascontiguousarray(x.transpose(2, 0, 1))
    given = ncnn.Mat(planes).clone()
    extractor = net.create_extractor()
    extractor.input("image", given)
    return np.array(extractor.extract(last)[1])


def by_onnxruntime(model: Artefact, x: Values, folder: Path) -> Values:
    pytest.importorskip("onnx", reason="needs onnx")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    onnx_file.write(model, folder / "model.onnx")
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": x.transpose(2, 0, 1)[None]})[0]


RUNTIMES: dict[str, Run] = {"litert": by_litert, "ncnn": by_ncnn, "onnxruntime": by_onnxruntime}


@cache
def subject(name: str) -> tuple[Artefact, Values, Values]:
    return _subject(zoo.net(name, 0.25, 64, 7))


def _subject(net: Net) -> tuple[Artefact, Values, Values]:
    x = np.random.default_rng(0).normal(0, 1, (2, *net.input)).astype(np.float32)
    weights = random_weights(net, 0, x)
    model = Artefact(net, weights, Preprocess(height=net.input.height, width=net.input.width))
    return model, x[0], Walk(net, weights)(x[:1])[net.outputs[0].name][0]


def assert_alike(found: Values, wanted: Values) -> None:
    assert wanted.std() > 0
    np.testing.assert_allclose(found.ravel(), wanted.ravel(), atol=1e-4 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", zoo.NETS)
def test_every_network_of_the_zoo_runs_elsewhere_as_here(tmp_path: Path, name: str, runtime: str) -> None:
    model, x, wanted = subject(name)
    assert_alike(RUNTIMES[runtime](model, x, tmp_path), wanted)


ACTIVATIONS: tuple[Activation, ...] = ("relu", "relu6", "hswish", "hsigmoid", "swish", "sigmoid")
PADDINGS: tuple[Padding, ...] = ("same", "symmetric", "valid", "ceil")


def everything(side: int, activation: Activation, padding: Padding) -> Net:
    """A net with an operation of each kind."""
    nodes = (
        Node(
            "wide",
            Conv(out=8, kernel=5, across=3, padding=padding, stride=2, activation=activation),
            ("image",),
        ),
        Node("grouped", Conv(out=8, groups=2, activation=activation), ("wide",)),
        Node("mixed", Pointwise(out=8, groups=4, activation=activation, bias=True), ("grouped",)),
        Node("alone", Activate(activation=activation), ("mixed",)),
        Node("sum", Add(activation=activation), ("mixed", "alone", "grouped")),
        Node("greatest", MaxPool(kernel=3, stride=2, padding=padding), ("sum",)),
        Node("mean", MeanPool(kernel=3, stride=2, padding=padding), ("sum",)),
        Node("joined", Concat(), ("greatest", "mean", "mean")),
        Node("dealt", Shuffle(groups=3), ("joined",)),
        Node("part", Slice(begin=3, end=19), ("dealt",)),
        Node("filtered", Depthwise(kernel=3, activation=activation), ("part",)),
        Node("gate.pool", Pool(), ("filtered",)),
        Node("gate.layer", Pointwise(out=16, activation=activation, bias=True), ("gate.pool",)),
        Node("gated", Mul(), ("filtered", "gate.layer")),
        Node("pool", Pool(), ("gated",)),
        Node("both", Add(activation=activation), ("pool", "gate.pool")),
        Node("head", Dense(out=5), ("both",)),
    )
    return Net("everything", Shape(side, side + 3, 3), nodes, (Output("out", "head", "vector"),))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("activation", "padding"), [*zip(ACTIVATIONS, PADDINGS + PADDINGS[:2], strict=True)])
def test_every_operation_runs_elsewhere_as_here(
    tmp_path: Path, activation: Activation, padding: Padding, runtime: str
) -> None:
    model, x, wanted = _subject(everything(21, activation, padding))
    assert_alike(RUNTIMES[runtime](model, x, tmp_path), wanted)
