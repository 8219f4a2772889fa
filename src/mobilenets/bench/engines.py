"""Which engines there are: what each is called, what it needs, which module runs it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from mobilenets.bench.options import Dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One way to run a network in one type.

    `module` is of `bench.peers`, `kind` what it is told to make and run, `needs` the modules without which
    it can't, `packages` what a user installs to run it, the engine's own first.
    """

    name: str
    family: str
    dtype: Dtype
    module: str
    kind: str
    needs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    native: str = ""
    """The C file of `bench/native` that calls it; empty where there is none."""


GIVEN = "int8-given"
"""Of an engine that runs a given .tflite file's integers as they are; its own quantiser may do better."""
ENGINES: tuple[Engine, ...] = (
    Engine(name="ours", family="ours", dtype="float32", module="ours", kind="float32", native="ours"),
    Engine(name="ours", family="ours", dtype="int8", module="ours", kind="int8", native="ours"),
    Engine(
        name="onnxruntime",
        family="onnxruntime",
        dtype="float32",
        module="onnxruntime",
        kind="float32",
        needs=("onnxruntime", "onnx"),
        packages=("onnxruntime",),
        native="onnxruntime",
    ),
    Engine(
        name="onnxruntime",
        family="onnxruntime",
        dtype="int8",
        module="onnxruntime",
        kind="int8",
        needs=("onnxruntime", "onnx"),
        packages=("onnxruntime",),
        native="onnxruntime",
    ),
    Engine(
        name="openvino",
        family="openvino",
        dtype="float32",
        module="openvino",
        kind="float32",
        needs=("openvino", "onnx"),
        packages=("openvino",),
        native="openvino",
    ),
    Engine(
        name="openvino-qdq",
        family="openvino",
        dtype="int8",
        module="openvino",
        kind="int8-qdq",
        needs=("openvino", "onnx", "onnxruntime"),
        packages=("openvino",),
        native="openvino",
    ),
    Engine(
        name="openvino-nncf",
        family="openvino",
        dtype="int8",
        module="openvino",
        kind="int8-nncf",
        needs=("openvino", "onnx", "nncf"),
        packages=("openvino",),
        native="openvino",
    ),
    Engine(
        name="litert",
        family="litert",
        dtype="float32",
        module="litert",
        kind="float32",
        needs=("ai_edge_litert",),
        packages=("ai-edge-litert",),
    ),
    Engine(
        name="litert",
        family="litert",
        dtype="int8",
        module="litert",
        kind="int8",
        needs=("ai_edge_litert", "ai_edge_quantizer"),
        packages=("ai-edge-litert",),
    ),
    Engine(
        name="litert-given",
        family="litert",
        dtype="int8",
        module="litert",
        kind=GIVEN,
        needs=("ai_edge_litert",),
        packages=("ai-edge-litert",),
    ),
    Engine(
        name="ncnn",
        family="ncnn",
        dtype="float32",
        module="ncnn",
        kind="float32",
        needs=("ncnn",),
        packages=("ncnn",),
    ),
    Engine(
        name="ncnn",
        family="ncnn",
        dtype="int8",
        module="ncnn",
        kind="int8",
        needs=("ncnn",),
        packages=("ncnn",),
    ),
    Engine(
        name="executorch",
        family="executorch",
        dtype="float32",
        module="executorch",
        kind="float32",
        needs=("executorch", "torch"),
        packages=("executorch", "torch"),
    ),
    Engine(
        name="executorch",
        family="executorch",
        dtype="int8",
        module="executorch",
        kind="int8",
        needs=("executorch", "torch", "torchao"),
        packages=("executorch", "torch"),
    ),
    Engine(
        name="torch",
        family="torch",
        dtype="float32",
        module="torch",
        kind="float32",
        needs=("torch",),
        packages=("torch",),
    ),
)
NOTHING = Engine(name="python", family="", dtype="float32", module="nothing", kind="float32")
"""Python with numpy, for what a start and memory come to without an engine."""


def peak_of(dtype: Dtype) -> Engine:
    """What measures the machine itself."""
    return Engine(name="peak", family="", dtype=dtype, module="peak", kind=dtype)


def board_of(dtype: Dtype, target: str) -> Engine:
    """Ours, as static programs for a board of that target."""
    return Engine(name="ours", family="ours", dtype=dtype, module="board", kind=f"{dtype}-{target}")


def native_of(engine: Engine) -> Engine:
    """The program that calls an engine from C."""
    return Engine(name=engine.name, family="", dtype=engine.dtype, module="native", kind=engine.native)


def missing(engine: Engine) -> str:
    """Why an engine cannot be raced here, as far as one sees without trying; empty where it can."""
    absent = [name for name in engine.needs if not there(name)]
    if not absent:
        return ""
    return f"not installed: {', '.join(absent)}; pip install 'mobilenets[bench]' brings most of them"


def there(module: str) -> bool:
    """Whether a module is installed, without importing it."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def version(engine: Engine) -> str:
    """The version of the engine's own package; ours for our own."""
    name = engine.packages[0] if engine.packages else "mobilenets"
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def install_bytes(engine: Engine) -> int:
    """What its packages take on disk, without what they in turn depend on; for ours this package itself."""
    if not engine.packages:
        return sum(_size(file) for file in Path(__file__).parents[1].rglob("*") if _counts(file))
    total = 0
    for name in engine.packages:
        try:
            files = metadata.distribution(name).files or []
        except metadata.PackageNotFoundError:
            continue
        total += sum(_size(Path(str(file.locate()))) for file in files if _counts(Path(str(file))))
    return total


def _counts(file: Path) -> bool:
    return "__pycache__" not in file.parts


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
