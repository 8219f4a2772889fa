"""Which formats there are: what each is called, what writes it, what runs it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

from mobilenets.bench.engines import there


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A kind of file; `module` is of `export`, `needs` the modules that write and run it.

    `exporter` and `runtime` are packages; without a runtime the file is written and not run.
    """

    name: str
    suffix: str
    module: str
    layout: str
    needs: tuple[str, ...]
    exporter: str
    runtime: str | None
    folder: bool = False
    """Whether what is written is a folder that counts as a file."""

    @property
    def extra(self) -> str:
        return f"export-{self.name}"


FORMATS = {
    form.name: form
    for form in (
        Format(
            name="onnx",
            suffix=".onnx",
            module="onnx",
            layout="NCHW",
            needs=("onnx", "onnxruntime"),
            exporter="onnx",
            runtime="onnxruntime",
        ),
        Format(
            name="litert",
            suffix=".tflite",
            module="litert",
            layout="NHWC",
            needs=("torch", "litert_torch", "ai_edge_litert"),
            exporter="litert-torch",
            runtime="ai-edge-litert",
        ),
        Format(
            name="executorch",
            suffix=".pte",
            module="executorch",
            layout="NCHW",
            needs=("torch", "executorch"),
            exporter="executorch",
            runtime="executorch",
        ),
        Format(
            name="coreml",
            suffix=".mlpackage",
            module="coreml",
            layout="NCHW",
            needs=("torch", "coremltools"),
            exporter="coremltools",
            runtime=None,
            folder=True,
        ),
    )
}


def chosen(name: str) -> Format:
    """The format of that name. Raises ValueError where there is none, or what it needs is not installed."""
    if name not in FORMATS:
        raise ValueError(f"--to {name}: unknown; known: {', '.join(FORMATS)}")
    form = FORMATS[name]
    if absent := [module for module in form.needs if not there(module)]:
        raise ValueError(
            f"--to {name}: not installed: {', '.join(absent)}; pip install 'mobilenets[{form.extra}]'"
        )
    return form


def versioned(package: str) -> str:
    """A package with its version."""
    return f"{package} {metadata.version(package)}"
