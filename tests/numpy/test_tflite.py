"""TensorFlow Lite files: read as the interpreter runs them, and nothing else is ever read as a V1."""

from __future__ import annotations

import copy
import tarfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mobilenets.bench.formats import tflite as formats_tflite
from mobilenets.bench.subject import random_weights
from mobilenets.infer import integer, tflite
from mobilenets.infer.artefact import Artefact, from_bytes, to_bytes
from mobilenets.infer.image import decode, normalise, prepare
from mobilenets.infer.integer import IntegerWalk
from mobilenets.infer.walk import Walk, check
from mobilenets.spec import zoo
from mobilenets.spec.op import Conv, Depthwise, Pointwise
from mobilenets.spec.preprocess import Preprocess

QUANTISED = (
    "mobilenet_v1_0.25_128_quant",
    "mobilenet_v1_0.5_160_quant",
    "mobilenet_v1_0.75_192_quant",
    "mobilenet_v1_1.0_224_quant",
)
V2 = "mobilenet_v2_1.0_224_quant"
FLOAT = "mobilenet_v1_0.25_224_float"
PICTURES = 24


@cache
def _pictures(material: Path) -> list[Any]:
    with tarfile.open(material / "data" / "imagenet-500.tar") as tar:
        members = [m for m in tar.getmembers() if m.isfile()]
        step = len(members) // PICTURES
        return [decode(tar.extractfile(m).read()) for m in members[::step][:PICTURES]]


def _prepared(material: Path, pre: Preprocess) -> np.ndarray:
    return np.stack([prepare(frame, pre) for frame in _pictures(material)])


class Oracle:
    """The LiteRT interpreter with its plain kernels, giving the values before a closing softmax."""

    def __init__(self, data: bytes, kernels: str = "BUILTIN_WITHOUT_DEFAULT_DELEGATES") -> None:
        interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that keeping all maps takes memory
            self._run = interpreter.Interpreter(
                model_content=data,
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=getattr(interpreter.OpResolverType, kernels),
            )
        self._run.allocate_tensors()
        self.input = self._run.get_input_details()[0]
        softmax = [op for op in self._run._get_ops_details() if op["op_name"] == "SOFTMAX"]
        self._place = int(softmax[-1]["inputs"][0]) if softmax else self._run.get_output_details()[0]["index"]
        self._scale, self._zero = self._run._get_tensor_details(self._place, 0)["quantization"]

    def maps(self) -> list[np.ndarray]:
        """What each layer gave last, in order, as unsigned bytes."""
        layers = ("CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "AVERAGE_POOL_2D", "MEAN", "FULLY_CONNECTED")
        places = [op["outputs"][0] for op in self._run._get_ops_details() if op["op_name"] in layers]
        found = [self._run.get_tensor(int(place)) for place in places]
        return [(y.astype(np.int16) + 128 * (y.dtype == np.int8)).astype(np.uint8) for y in found]

    def __call__(self, prepared: np.ndarray, pre: Preprocess) -> np.ndarray:
        """Logits [n, classes] for uint8 pictures [n, height, width, 3]."""
        rows = []
        for picture in prepared:
            match np.dtype(self.input["dtype"]).name:
                case "uint8":
                    x = picture
                case "int8":
                    x = (picture.astype(np.int16) - 128).astype(np.int8)
                case _:
                    x = normalise(picture, pre)
            self._run.set_tensor(self.input["index"], x[None])
            self._run.invoke()
            y = self._run.get_tensor(self._place).reshape(-1)
            rows.append((y.astype(np.float32) - self._zero) * self._scale if self._scale else y)
        return np.stack(rows)


def _data(material: Path, name: str) -> bytes:
    return (material / "weights" / f"{name}.tflite").read_bytes()


def _logits(model: Artefact, prepared: np.ndarray) -> np.ndarray:
    return Walk(model.net, model.weights)(normalise(prepared, model.preprocess))["logits"]


def _compared(material: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the same pictures: the interpreter's (without background) and ours."""
    data = _data(material, name)
    model = tflite.read(data)
    prepared = _prepared(material, model.preprocess)
    theirs = Oracle(data)(prepared, model.preprocess)
    return theirs[:, -model.net.nodes[-1].op.out :], _logits(model, prepared)


def test_the_float_file_gives_the_interpreters_logits(material: Path) -> None:
    theirs, ours = _compared(material, FLOAT)
    assert ours.shape == (PICTURES, 1000)
    assert np.abs(theirs - ours).max() < 1e-3
    assert (theirs.argmax(1) == ours.argmax(1)).all()


@pytest.mark.parametrize("name", [*QUANTISED, V2])
def test_a_dequantised_file_names_what_the_interpreter_names_but_for_close_calls(
    material: Path, name: str
) -> None:
    theirs, ours = _compared(material, name)
    same = theirs.argmax(1) == ours.argmax(1)
    assert same.mean() >= 0.9
    # Where they part, ours is among the interpreter's first five.
    firsts = np.argsort(-theirs[~same], axis=1)[:, :5]
    assert all(mine in first for mine, first in zip(ours[~same].argmax(1), firsts, strict=True))
    assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.97


def test_the_person_detectors_agree_with_the_interpreter(material: Path) -> None:
    theirs, ours = _compared(material, "vww_96_float")
    assert np.abs(theirs - ours).max() < 1e-3
    theirs, ours = _compared(material, "vww_96_int8")
    # Its output saturates: eight bits hold −1.80…1.93 of logits that go beyond.
    assert np.abs(theirs - np.clip(ours, theirs.min(), theirs.max())).max() < 0.5
    assert (theirs.argmax(1) == ours.argmax(1)).mean() >= 0.9


@pytest.mark.parametrize("name", [*QUANTISED, V2, "vww_96_int8"])
def test_in_its_own_integers_a_file_gives_the_interpreters_bytes_in_every_layer(
    material: Path, name: str
) -> None:
    data = _data(material, name)
    model = tflite.read(data, integers=True)
    prepared = _prepared(material, model.preprocess)
    oracle = Oracle(data, "BUILTIN")  # with XNNPACK, as it comes
    walk = IntegerWalk(model.net, model.weights, model.scales, model.preprocess)
    names = [node.name for node in model.net.nodes]
    for picture in prepared:
        oracle(picture[None], model.preprocess)
        ours = walk(picture[None], names)
        for name_, theirs in zip(names, oracle.maps(), strict=True):
            mine = ours[name_].ravel()
            np.testing.assert_array_equal(mine, theirs.ravel()[-mine.size :], err_msg=name_)


def test_the_plain_kernels_of_the_interpreter_round_twice_and_part_from_it(material: Path) -> None:
    """What is promised is the interpreter as it comes; how far its own two ways are apart bounds the rest."""
    data = _data(material, QUANTISED[0])
    pre = tflite.read(data).preprocess
    prepared = _prepared(material, pre)
    one, other = Oracle(data)(prepared, pre), Oracle(data, "BUILTIN")(prepared, pre)
    assert (one != other).any()
    assert (one.argmax(1) == other.argmax(1)).mean() >= 0.8


def test_integers_are_kept_where_they_are_asked_for_and_there(material: Path) -> None:
    assert tflite.read(_data(material, QUANTISED[0])).dtype == "float32"
    assert tflite.read(_data(material, FLOAT), integers=True).dtype == "float32"
    made = tflite.read(_data(material, QUANTISED[0]), integers=True)
    assert made.dtype == "int8"
    assert made.scales.keys() == {node.name for node in made.net.nodes}
    assert len(made.labels) == 1000
    again = from_bytes(to_bytes(made))
    assert again.scales == made.scales


def test_a_relu_of_its_own_between_integers_is_refused(material: Path) -> None:
    schema, model = _opened(material, QUANTISED[0])
    graph = model.subgraphs[0]
    place = 0
    old = graph.operators[place]
    old.builtinOptions.fusedActivationFunction = 0
    relu = schema.OperatorT()
    relu.opcodeIndex = _code(schema, model, schema.BuiltinOperator.RELU6)
    between = copy.copy(graph.tensors[old.outputs[0]])
    graph.tensors.append(between)
    relu.outputs, old.outputs = list(old.outputs), [len(graph.tensors) - 1]
    relu.inputs = list(old.outputs)
    graph.operators.insert(place + 1, relu)
    data = _packed(model)
    assert tflite.read(data).dtype == "float32"
    with pytest.raises(ValueError, match="RELU6 rounds between layers"):
        tflite.read(data, integers=True)


@pytest.mark.parametrize("name", [*QUANTISED, FLOAT, "vww_96_float", "vww_96_int8"])
def test_width_resolution_and_classes_come_from_the_content(material: Path, name: str) -> None:
    model = tflite.read(_data(material, name))
    check(model.net, model.weights)
    parts = name.split("_")
    width, resolution = (0.25, 96) if parts[0] == "vww" else (float(parts[2]), int(parts[3]))
    assert (model.net.name, model.net.width, model.net.resolution) == ("v1", width, resolution)
    assert model.net.nodes[-1].op.out == (2 if parts[0] == "vww" else 1000)
    assert len(model.labels) == (0 if parts[0] == "vww" else 1000)


def test_the_input_is_what_the_files_quantisation_says(material: Path) -> None:
    assert tflite.read(_data(material, QUANTISED[0])).preprocess.mean == (128.0,) * 3
    assert tflite.read(_data(material, QUANTISED[0])).preprocess.std == (128.0,) * 3
    assert tflite.read(_data(material, "vww_96_int8")).preprocess.mean == (0.0,) * 3
    assert tflite.read(_data(material, "vww_96_int8")).preprocess.std == (255.0,) * 3
    assert tflite.read(_data(material, FLOAT)).preprocess.mean == (127.5,) * 3


def test_a_detector_is_refused_by_the_name_of_its_operator(material: Path) -> None:
    with pytest.raises(ValueError, match="TFLite_Detection_PostProcess") as error:
        tflite.read(_data(material, "coco_ssd_mobilenet_v1_1.0_quant_2018_06_29"))
    assert "\n" not in str(error.value)


def test_v2_is_read_with_its_sums(material: Path) -> None:
    model = tflite.read(_data(material, V2))
    assert (model.net.name, model.net.width, model.net.resolution) == ("v2", 1.0, 224)
    assert model.labels[0].startswith("tench")
    own = tflite.read(_data(material, V2), integers=True)
    assert own.net == model.net
    assert own.dtype == "int8"
    assert own.scales.keys() == {node.name for node in own.net.nodes}
    again = from_bytes(to_bytes(own))
    assert again.scales == own.scales


def test_sums_of_other_maps_are_refused_by_name(material: Path) -> None:
    _, model = _opened(material, V2)
    graph = model.subgraphs[0]
    sums = [one for one in graph.operators if len(one.inputs) == 2 and one.builtinOptionsType == 11]
    # Blocks 8 and 9 keep their map's shape: the second one's sum may as well take what came into the first.
    sums[4].inputs = [place if place != sums[3].outputs[0] else sums[3].inputs[0] for place in sums[4].inputs]
    with pytest.raises(ValueError, match=r"block\d+\.add sums .*, here other maps"):
        tflite.read(_packed(model))


@pytest.mark.parametrize("width", [0.35, 0.5, 1.4])
def test_a_v2_in_floats_gives_the_interpreters_logits(tmp_path: Path, width: float) -> None:
    pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert")
    x = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    net = zoo.net("v2", width, 64)
    written = Artefact(net, random_weights(net, 0, x), Preprocess(height=64, width=64))
    formats_tflite.write(written, tmp_path / "model.tflite")
    data = (tmp_path / "model.tflite").read_bytes()
    model = tflite.read(data)
    assert (model.net.name, model.net.width, model.net.resolution) == ("v2", width, 64)
    from ai_edge_litert.interpreter import Interpreter

    one = Interpreter(model_content=data)
    one.allocate_tensors()
    for image in x:
        one.set_tensor(one.get_input_details()[0]["index"], image[None])
        one.invoke()
        theirs = one.get_tensor(one.get_output_details()[0]["index"])
        ours = Walk(model.net, model.weights)(image[None])["logits"]
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * float(np.abs(theirs).max()))


# Variants of the real files, made with the schema's own Python classes; the interpreter runs them as well.


def _opened(material: Path, name: str) -> Any:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="needs ai-edge-litert")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(_data(material, name), 0))
    for operator in model.subgraphs[0].operators:
        operator.inputs = [int(index) for index in operator.inputs]  # they come as read-only arrays
    return schema, model


def _packed(model: Any) -> bytes:
    flatbuffers = pytest.importorskip("flatbuffers", reason="needs flatbuffers")
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _constant(schema: Any, model: Any, values: np.ndarray, kind: int, name: str) -> int:
    buffer, tensor = schema.BufferT(), schema.TensorT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    tensor.shape, tensor.type, tensor.name = list(values.shape), kind, name.encode()
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def _code(schema: Any, model: Any, builtin: int) -> int:
    code = schema.OperatorCodeT()
    code.deprecatedBuiltinCode = code.builtinCode = builtin
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _same_as_interpreter(material: Path, data: bytes) -> None:
    model = tflite.read(data)
    prepared = _prepared(material, model.preprocess)[:3]
    theirs = Oracle(data)(prepared, model.preprocess)
    np.testing.assert_allclose(theirs, _logits(model, prepared), atol=1e-3)


def test_same_padding_written_as_pad_and_valid_is_the_same_network(material: Path) -> None:
    schema, model = _opened(material, "vww_96_float")
    graph = model.subgraphs[0]
    place = next(i for i, op in enumerate(graph.operators) if i and op.builtinOptions.strideH == 2)
    old = graph.operators[place]
    of_input = graph.tensors[old.inputs[0]]
    amounts = np.array([[0, 0], [0, 1], [0, 1], [0, 0]], np.int32)
    pad, padded = schema.OperatorT(), schema.TensorT()
    shape = list(of_input.shape)
    padded.shape, padded.type, padded.name = [1, shape[1] + 1, shape[2] + 1, shape[3]], 0, b"padded"
    graph.tensors.append(padded)
    out = len(graph.tensors) - 1
    pad.opcodeIndex = _code(schema, model, schema.BuiltinOperator.PAD)
    pad.inputs = [old.inputs[0], _constant(schema, model, amounts, schema.TensorType.INT32, "amounts")]
    pad.outputs, pad.builtinOptionsType = [out], schema.BuiltinOptions.PadOptions
    pad.builtinOptions = schema.PadOptionsT()
    old.inputs[0] = out
    old.builtinOptions.padding = schema.Padding.VALID
    graph.operators.insert(place, pad)
    data = _packed(model)
    assert tflite.read(data).net == tflite.read(_data(material, "vww_96_float")).net
    _same_as_interpreter(material, data)


def test_a_mean_over_the_map_is_the_pool(material: Path) -> None:
    schema, model = _opened(material, "vww_96_float")
    graph = model.subgraphs[0]
    old = next(op for op in graph.operators if isinstance(op.builtinOptions, schema.Pool2DOptionsT))
    axes = _constant(schema, model, np.array([1, 2], np.int32), schema.TensorType.INT32, "axes")
    old.opcodeIndex, old.inputs = _code(schema, model, schema.BuiltinOperator.MEAN), [old.inputs[0], axes]
    old.builtinOptionsType, old.builtinOptions = (
        schema.BuiltinOptions.ReducerOptions,
        schema.ReducerOptionsT(),
    )
    old.builtinOptions.keepDims = True
    _same_as_interpreter(material, _packed(model))


def test_half_precision_weights_behind_a_dequantize_are_read(material: Path) -> None:
    schema, model = _opened(material, "vww_96_float")
    graph, made = model.subgraphs[0], []
    code = _code(schema, model, schema.BuiltinOperator.DEQUANTIZE)
    model.operatorCodes[code].version = 3
    for op in graph.operators:
        if not isinstance(op.builtinOptions, schema.Conv2DOptionsT):
            continue
        tensor = graph.tensors[op.inputs[1]]
        full = np.frombuffer(np.asarray(model.buffers[tensor.buffer].data, np.uint8).tobytes(), np.float32)
        half = full.astype(np.float16).reshape(tensor.shape)
        dequantize = schema.OperatorT()
        dequantize.opcodeIndex = code
        dequantize.inputs = [_constant(schema, model, half, schema.TensorType.FLOAT16, "half")]
        dequantize.outputs = [op.inputs[1]]
        tensor.buffer = 0
        made.append(dequantize)
    graph.operators[:0] = made
    data = _packed(model)
    assert "float16" in tflite.read(data).source["weights"]
    _same_as_interpreter(material, data)


def test_another_activation_is_refused_by_the_layers_name(material: Path) -> None:
    schema, model = _opened(material, FLOAT)
    model.subgraphs[0].operators[
        4
    ].builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU
    with pytest.raises(ValueError, match=r"block2.pointwise.*relu6.*here.*relu$"):
        tflite.read(_packed(model))


def test_a_layer_left_out_is_refused(material: Path) -> None:
    _, model = _opened(material, FLOAT)
    graph = model.subgraphs[0]
    # Two of the five equal blocks go: what follows reads what came before them.
    graph.operators[17].inputs[0] = graph.operators[13].inputs[0]
    del graph.operators[13:17]
    with pytest.raises(ValueError, match="no V1 or V2 that the zoo knows"):
        tflite.read(_packed(model))


def test_a_branch_is_refused(material: Path) -> None:
    _, model = _opened(material, FLOAT)
    graph = model.subgraphs[0]
    graph.operators[14].inputs[0] = graph.operators[13].inputs[0]
    with pytest.raises(ValueError, match="does not follow the layer before it"):
        tflite.read(_packed(model))


def test_constants_are_dequantised_per_tensor_and_per_channel(material: Path) -> None:
    for name in (QUANTISED[0], "vww_96_int8"):
        schema, model = _opened(material, name)
        graph = model.subgraphs[0]
        read = tflite.read(_data(material, name))
        first = graph.operators[1]
        tensor = graph.tensors[first.inputs[1]]
        kind = np.uint8 if tensor.type == schema.TensorType.UINT8 else np.int8
        q = np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(kind).reshape(tensor.shape)
        scale = np.asarray(tensor.quantization.scale)
        zero = np.asarray(tensor.quantization.zeroPoint)
        expected = (q.astype(np.float64) - zero) * scale
        np.testing.assert_allclose(
            read.weights["block1.depthwise.weight"][:, 0], expected[0].transpose(2, 0, 1), rtol=1e-6
        )


# Damage: one line of ValueError, or a model that holds together; nothing else, ever.


def _read_or_refused(data: bytes) -> None:
    try:
        model = tflite.read(data)
    except ValueError as error:
        assert 0 < len(str(error)) < 2000
        assert "\n" not in str(error)
        return
    check(model.net, model.weights)
    assert all(np.isfinite(value).all() for value in model.weights.values())
    try:
        model = tflite.read(data, integers=True)
    except ValueError as error:
        assert 0 < len(str(error)) < 2000
        assert "\n" not in str(error)
        return
    if model.scales:
        integer.check(model.net, model.weights, model.scales)


@cache
def _structure(material: Path) -> tuple[bytes, np.ndarray]:
    """A small file, and the places of its bytes that are no weights: where damage can mislead the reader."""
    data = _data(material, "vww_96_int8")
    _, model = _opened(material, "vww_96_int8")
    plain = np.ones(len(data), bool)
    for buffer in model.buffers:
        if buffer.data is not None and len(buffer.data) > 64:
            start = data.find(np.asarray(buffer.data, np.uint8).tobytes())
            plain[start : start + len(buffer.data)] = False
    return data, np.flatnonzero(plain)


@settings(max_examples=60)
@given(at=st.floats(0, 1))
@example(at=0.0)
def test_a_file_cut_anywhere_is_refused(material: Path, at: float) -> None:
    data, _ = _structure(material)
    cut = data[: int(at * (len(data) - 1))]
    _read_or_refused(cut)


@settings(max_examples=400)
@given(
    flips=st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 255)), min_size=1, max_size=4),
    anywhere=st.booleans(),
)
def test_a_file_altered_anywhere_is_refused_or_still_holds_together(
    material: Path, flips: list[tuple[int, int]], anywhere: bool
) -> None:
    data, places = _structure(material)
    altered = bytearray(data)
    for at, value in flips:
        altered[at % len(data) if anywhere else places[at % len(places)]] = value
    _read_or_refused(bytes(altered))


@given(body=st.binary(max_size=400))
@example(body=b"")
@example(body=b"\xff" * 64)
def test_noise_behind_the_magic_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        tflite.read(b"\x08\0\0\0TFL3" + body)


def test_batch_norms_are_folded_in_every_layer(material: Path) -> None:
    model = tflite.read(_data(material, FLOAT))
    convolutions = [n.op for n in model.net.nodes if isinstance(n.op, Conv | Depthwise | Pointwise)]
    assert len(convolutions) == 27
    assert all(op.norm is None and op.bias for op in convolutions)
