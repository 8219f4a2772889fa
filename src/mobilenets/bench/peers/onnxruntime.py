"""ONNX Runtime: its graph optimised once for this machine and kept; int8 as QDQ by its own quantiser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.bench.peers.picture import Picture, Run

FILE = "model.onnx"


def make(source: Path, place: Path, dtype: str) -> None:
    """The optimised graph, as ONNX Runtime itself saves it."""
    import onnxruntime

    from mobilenets.bench.formats import qdq

    plain = place / "plain.onnx"
    qdq.write(source, plain, dtype)
    options = _options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(place / FILE)
    onnxruntime.InferenceSession(str(plain), options, providers=["CPUExecutionProvider"])
    plain.unlink()


def runner(place: Path, dtype: str, threads: int, picture: Picture) -> Run:
    """Input and output bound to arrays that stay: nothing is copied or allocated by a call."""
    import onnxruntime

    options = _options(threads)
    # What was saved is optimised already; doing so again is time at start.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(place / FILE), options, providers=["CPUExecutionProvider"])
    given, made = session.get_inputs()[0], session.get_outputs()[0]
    x = picture.planes if dtype == "float32" else picture.bytes_in(place)
    y = np.zeros(made.shape, np.float32)
    binding = session.io_binding()
    binding.bind_ortvalue_input(given.name, onnxruntime.OrtValue.ortvalue_from_numpy(x))
    binding.bind_output(made.name, "cpu", 0, np.float32, list(y.shape), y.ctypes.data)
    run = session.run_with_iobinding

    def once() -> Any:
        run(binding)
        return y

    return once


def _options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # it warns of a graph that holds for this machine only, as is meant
    return options
