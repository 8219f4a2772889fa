"""A taught model as other runtimes' files: fed as their metadata says, they answer as the model file does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mobilenets import exporting
from mobilenets.bench.engines import there
from mobilenets.infer import adopt, artefact
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.image import decode, normalise, prepare
from mobilenets.spec.codec import preprocess_from_json
from mobilenets.spec.head import headless
from mobilenets.spec.net import tensors

Ask = Callable[..., Any]
Refuse = Callable[..., str]
Told = Mapping[str, str]
Run = Callable[[NDArray[np.float32]], dict[str, NDArray[np.float32]]]

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
NEEDS = {
    "onnx": ("onnx", "onnxruntime"),
    "litert": ("torch", "litert_torch", "ai_edge_litert"),
    "executorch": ("torch", "executorch"),
    "coreml": ("torch", "coremltools"),
}
SUFFIX = {"onnx": ".onnx", "litert": ".tflite", "executorch": ".pte", "coreml": ".mlpackage"}
# Others' imports warn of what they themselves use; lowering takes them half a minute.
OTHERS = (pytest.mark.slow, pytest.mark.filterwarnings("ignore"))
FORMATS = [pytest.param(name, marks=() if name == "onnx" else OTHERS) for name in NEEDS]


@pytest.fixture(scope="module")
def exported(ask: Ask, taught: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The taught model in a format, verified on its own pictures: the file and what the command said."""
    made: dict[str, Any] = {}

    def export(to: str) -> Any:
        for module in NEEDS[to]:
            if not there(module):
                pytest.skip(f"{module} is not installed: pip install 'mobilenets[export-{to}]'")
        if to not in made:
            out = tmp_path_factory.mktemp(to)
            words = ("--to", to, "--out", out, "--images", taught.folder, "--json")
            made[to] = out / f"model{SUFFIX[to]}", ask("export", taught.model, *words).facts
        return made[to]

    return export


@pytest.mark.parametrize("to", FORMATS)
def test_an_exported_model_answers_as_the_model_file_does(
    ask: Ask, taught: Any, exported: Callable[[str], Any], to: str
) -> None:
    """Prepared by nothing but the file's own metadata, and run here by each format's own runtime."""
    path, _ = exported(to)
    run, facts = OPENED[to](path)
    keys = ("height", "width", "geometry", "fraction", "fill", "mean", "std")
    pre = preprocess_from_json({k: facts[k] if k == "geometry" else json.loads(facts[k]) for k in keys})
    labels = json.loads(facts["labels"])
    assert json.loads(facts["outputs"]) == ["logits", "features"]
    wanted = ask("predict", taught.model, taught.folder, "--json").facts["results"][::25]
    assert len(wanted) == 8
    for one in wanted:
        picture = decode(Path(one["file"]).read_bytes(), pre)
        got = run(normalise(prepare(picture, pre), pre)[None])
        shares = np.exp(got["logits"][0] - got["logits"][0].max())
        shares /= shares.sum()
        best = [(labels[i], float(shares[i])) for i in np.argsort(-shares)]
        assert [label for label, _ in best] == [p["label"] for p in one["predictions"]]
        scores = [p["score"] for p in one["predictions"]]
        assert [score for _, score in best] == pytest.approx(scores, abs=1e-4)
        features = NumpyEngine(artefact.load(taught.model))(picture)["features"]
        assert got["features"][0] == pytest.approx(features, abs=1e-3)


@pytest.mark.parametrize("to", FORMATS)
def test_what_was_written_is_told_with_how_far_it_is_from_the_reference(
    ask: Ask, taught: Any, exported: Callable[[str], Any], to: str
) -> None:
    path, told = exported(to)
    assert told["file"] == str(path)
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert told["bytes"] == sum(f.stat().st_size for f in (path, *path.rglob("*")) if f.is_file())
    assert told["digest"] == ask("info", taught.model, "--json").facts["digest"]
    assert told["dequantised_from"] is None
    assert told["labels"] == 5
    assert told["outputs"] == ["logits", "features"]
    if to == "coreml":
        assert "not run" in told["unverified"]
        assert told["verified_by"] is None
        assert told["largest_error"] == {}
        return
    assert told["unverified"] is None
    assert told["verified_on"] == f"16 pictures of {taught.folder}"
    assert told["frames"] == 16
    assert set(told["largest_error"]) == {"logits", "features"}
    assert all(0 < error["relative"] < 1e-4 for error in told["largest_error"].values())


def test_a_quantised_model_is_exported_in_float32_and_that_is_said(
    ask: Ask, body25: Path, tmp_path: Path
) -> None:
    told = ask("export", body25, "--to", "onnx", "--out", tmp_path / "new" / "a.onnx", "--json").facts
    assert told["dequantised_from"] == "uint8"
    assert told["verified_on"] == "16 road signs drawn by this package"
    model = tmp_path / "bytes.safetensors"
    artefact.save(adopt.read(body25, integers=True), model)
    said = ask("export", model, "--to", "onnx", "--out", tmp_path / "b.onnx").out
    assert "float32, read from int8" in said
    floats = [onnx.load(str(one)) for one in (tmp_path / "new" / "a.onnx", tmp_path / "b.onnx")]
    assert {tensor.data_type for one in floats for tensor in one.graph.initializer} == {1}


def test_a_body_without_a_head_exports_its_features(ask: Ask, taught: Any, tmp_path: Path) -> None:
    model, path = _bodied(artefact.load(taught.model)), tmp_path / "body.safetensors"
    artefact.save(model, path)
    told = ask("export", path, "--to", "onnx", "--out", tmp_path / "body.onnx", "--json").facts
    assert told["outputs"] == list(told["largest_error"]) == ["features"]
    run, facts = OPENED["onnx"](tmp_path / "body.onnx")
    assert "labels" not in facts
    picture = decode(next(taught.folder.rglob("*.webp")).read_bytes())
    got = run(normalise(prepare(picture, model.preprocess), model.preprocess)[None])
    assert got["features"][0] == pytest.approx(NumpyEngine(model)(picture)["features"], abs=1e-3)


def test_a_mistake_is_one_line_and_leaves_nothing(
    refuse: Refuse, taught: Any, body25: Path, tmp_path: Path, closed: Path, without: Any
) -> None:
    out = tmp_path / "new" / "model.onnx"

    def told(*words: object, model: object = taught.model, to: str = "onnx", **how: Any) -> str:
        return refuse("export", model, "--to", to, *(words or ("--out", out)), **how)

    assert "--to toaster: unknown; known: onnx, litert, executorch, coreml" in told(to="toaster")
    assert "onnxruntime; pip install 'mobilenets[export-onnx]'" in told(env=without("onnxruntime"))
    assert "litert_torch; pip install 'mobilenets[export-litert]'" in told(
        to="litert", env=without("litert_torch")
    )
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(taught.model.read_bytes()[:-9])
    assert "cut.safetensors" in told(model=cut)
    assert "no such file" in told(model=tmp_path / "nowhere")
    assert str(closed) in told("--out", closed / "model.onnx")
    assert "writes .onnx, not .tflite" in told("--out", tmp_path / "model.tflite")
    (tmp_path / "file").write_text("in the way")
    assert "in its way" in told("--out", tmp_path / "file")
    (tmp_path / "taken" / "model.onnx").mkdir(parents=True)
    assert "in its way" in told("--out", tmp_path / "taken")
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.jpg").write_bytes(b"text")
    assert "none of its pictures" in told("--out", out, "--images", bad)
    assert not out.parent.exists()
    if all(map(there, NEEDS["litert"])):
        shutil.copy(body25, tmp_path / "own.tflite")
        words = ("--out", tmp_path)
        assert "is the model itself" in told(*words, model=tmp_path / "own.tflite", to="litert")
        assert (tmp_path / "own.tflite").read_bytes() == body25.read_bytes()


def test_a_compiled_model_is_not_exported(ask: Ask, refuse: Refuse, taught: Any, tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler on this machine")
    ask("compile", taught.model, "--out", tmp_path, "--name", "five")
    words = ("--to", "onnx", "--out", tmp_path / "five.onnx")
    assert "a compiled model; give the model file" in refuse("export", tmp_path / "five.so", *words)
    assert not (tmp_path / "five.onnx").exists()


@pytest.mark.parametrize("wrong", ["off", "nan", "dies", "raises"])
def test_a_file_that_answers_wrongly_is_not_kept(
    taught: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """And an older file stays as it was."""
    older = tmp_path / "model.onnx"
    older.write_bytes(b"older")
    words = {
        "off": "path.write_bytes(b''); return {n: v + 0.01 for n, v in found.items()}",
        "nan": "path.write_bytes(b''); return {n: v * float('nan') for n, v in found.items()}",
        "dies": "import os; os.kill(os.getpid(), 9)",
        "raises": "raise ArithmeticError('two lines\\nof text')",
    }
    said = {
        "off": "logits of the exported model differs",
        "nan": "logits of the exported model differs",
        "dies": "onnx failed: it ended with -9",
        "raises": "onnx failed: ArithmeticError: two lines of text",
    }
    (tmp_path / "sitecustomize.py").write_text(
        "import mobilenets.export.onnx as own\n"
        "right = own.answers\n"
        "def answers(path, values, names):\n"
        "    found = right(path, values, names)\n"
        f"    {words[wrong]}\n"
        "own.answers = answers\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    with pytest.raises(RuntimeError, match=said[wrong]):
        exporting.export_model(
            artefact.load(taught.model), str(taught.model), older, lambda *_: None, to="onnx"
        )
    assert older.read_bytes() == b"older"
    assert {one.name for one in tmp_path.iterdir()} - {"__pycache__"} == {"model.onnx", "sitecustomize.py"}


def _bodied(model: Artefact) -> Artefact:
    net = headless(model.net)
    weights = {name: model.weights[name] for name in tensors(net)}
    return replace(model, net=net, weights=weights, labels=(), threshold=None)


def _onnx(path: Path) -> tuple[Run, Told]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]

    def run(x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(names, session.run(None, {"image": x.transpose(0, 3, 1, 2)}), strict=True))

    return run, session.get_modelmeta().custom_metadata_map


def _litert(path: Path) -> tuple[Run, Told]:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    entry = next(one for one in model.metadata if one.name == b"mobilenets")
    facts = json.loads(bytes(model.buffers[entry.buffer].data))
    runner = Interpreter(model_path=str(path)).get_signature_runner()
    return lambda x: runner(image=x), facts


def _executorch(path: Path) -> tuple[Run, Told]:
    import torch
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    methods = sorted(program.method_names - {"forward"})
    facts = {name: program.load_method(name).execute([])[0] for name in methods}
    forward = program.load_method("forward")

    def run(x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        planes = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
        given = (value.numpy().copy() for value in forward.execute([planes]))
        return dict(zip(json.loads(facts["outputs"]), given, strict=True))

    return run, facts


def _coreml(path: Path) -> tuple[Run, Told]:
    """Core ML is not here: the operations that the package holds, by torch's functions of their names."""
    import coremltools
    import torch
    from coremltools.converters.mil.frontend.milproto.load import load
    from torch.nn import functional

    package = coremltools.models.MLModel(str(path), skip_model_load=True)
    spec = package.get_spec()
    program = load(
        spec, specification_version=spec.specificationVersion, file_weights_dir=package.weights_dir
    )
    main = program.functions["main"]

    def run(x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        known: dict[str, Any] = {"image": torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))}

        def value(given: Any) -> Any:
            if given.name in known:
                return known[given.name]
            return torch.from_numpy(given.val.copy()) if isinstance(given.val, np.ndarray) else given.val

        for op in main.operations:
            if op.op_type == "const":
                continue
            at = {name: value(one) for name, one in op.inputs.items() if not isinstance(one, tuple | list)}
            known[op.outputs[0].name] = _applied(op.op_type, at, functional)
        return {one.name: known[one.name].numpy() for one in main.outputs}

    return run, dict(spec.description.metadata.userDefined)


def _applied(kind: str, at: dict[str, Any], functional: Any) -> Any:
    match kind:
        case "conv":
            top, bottom, left, right = (0, 0, 0, 0) if at["pad_type"] == "valid" else map(int, at["pad"])
            wide = functional.pad(at["x"], (left, right, top, bottom))
            strides = tuple(map(int, at["strides"]))
            return functional.conv2d(
                wide, at["weight"], at.get("bias"), strides, groups=int(at.get("groups", 1))
            )
        case "pad":
            amounts = [int(n) for n in at["pad"]]
            return functional.pad(at["x"], (*amounts[-2:], *amounts[-4:-2]))
        case "relu6":
            return functional.relu6(at["x"])
        case "clip":
            return at["x"].clamp(float(at["alpha"]), float(at["beta"]))
        case "reduce_mean":
            return at["x"].mean(dim=tuple(map(int, at["axes"])), keepdim=bool(at["keep_dims"]))
        case "reshape":
            return at["x"].reshape(tuple(map(int, at["shape"])))
        case "squeeze":
            return at["x"].squeeze(tuple(map(int, at["axes"])))
        case "linear":
            return functional.linear(at["x"], at["weight"], at["bias"])
        case _:
            raise AssertionError(f"an operation that was not expected: {kind}, {sorted(at)}")


OPENED = {"onnx": _onnx, "litert": _litert, "executorch": _executorch, "coreml": _coreml}
