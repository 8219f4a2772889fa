"""Bodies whose products are of numbers in bfloat16: what is rounded, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mobilenets.compile import isa
from mobilenets.compile.build import build, write
from mobilenets.compile.source import compiled
from mobilenets.compile.target import TARGETS, body_family
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.compiled import CompiledEngine
from mobilenets.infer.fold import fold
from mobilenets.infer.walk import Walk
from mobilenets.spec.net import Net, Output
from mobilenets.spec.op import Depthwise, Pointwise, Shape
from mobilenets.train.meter import instructions

from .cases import BLOCKS, ZOO
from .conftest import filled

NETS = [net for net in ZOO if net.name != "v1-full"]  # so deep that each rounding the other way grows
FLAGS = frozenset(["avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16", "asimd"])


def in_bfloat16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest numbers of eight bits, the even one where two are as near."""
    mantissa, exponent = np.frexp(values.astype(np.float64))
    return np.ldexp(np.rint(mantissa * 256) / 256, exponent).astype(np.float32)


def walked(model: Artefact, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Outputs where depthwise layers hand numbers of eight bits to products whose weights have eight bits."""
    net, weights = fold(model.net, model.weights)
    values, rounded = {"image": x[None]}, dict[str, NDArray[np.float32]]()
    for node in net.nodes:
        value = values[node.inputs[0]]
        parts = {name: part for name, part in weights.items() if name.startswith(f"{node.name}.")}
        if isinstance(node.op, Pointwise) and node.inputs[0] in rounded:
            value = rounded[node.inputs[0]]
            parts[f"{node.name}.weight"] = in_bfloat16(parts[f"{node.name}.weight"])
        ends = (Output("y", node.name, "vector"),)
        alone = Net(net.name, Shape(*value.shape[1:]), (replace(node, inputs=("image",)),), ends)
        made = Walk(alone, parts)(value)["y"]
        values[node.name] = made if made.ndim == 4 else made[:, None, None]
        if isinstance(node.op, Depthwise):
            rounded[node.name] = in_bfloat16(values[node.name])
    return {output.name: values[output.node].ravel() for output in net.outputs}


@pytest.mark.slow
@pytest.mark.parametrize("net", [*NETS, BLOCKS], ids=lambda net: f"{net.name}-{net.width:g}-{net.resolution}")
def test_products_are_those_of_rounded_numbers(net: Net, tmp_path: Path) -> None:
    if "avx512_bf16" not in instructions():
        pytest.skip("this processor has no products of bfloat16")
    model = filled(net)
    chosen = replace(isa.X86_BFLOAT16, scratch_bytes=300) if net is BLOCKS else isa.X86_BFLOAT16
    source = compiled(model, "tested", chosen, threads=False)
    assert ("const int shared" in source.code) == (net is BLOCKS)
    write(source, tmp_path)
    engine = CompiledEngine(build(source, TARGETS["host"], tmp_path).file)
    x = np.random.default_rng(0).normal(0, 1, tuple(net.input)).astype(np.float32)
    got, wanted, plain = engine.input(x), walked(model, x), Walk(model.net, model.weights)(x[None])
    for name, value in wanted.items():
        # A sum that is added up in another order may fall to the other side of a rounding, and what follows
        # with it; it is nearer to this than to what is not rounded all the same.
        off, changed = (float(np.linalg.norm(got[name] - other)) for other in (value, plain[name][0]))
        assert off <= 2e-3 * float(np.linalg.norm(value)), name
        assert off < changed, name


def test_a_body_takes_the_best_that_a_processor_has_and_bfloat16_only_where_it_may_be_rough() -> None:
    def taken(flags: frozenset[str], *, rough: bool, machine: str = "x86_64") -> tuple[str, ...]:
        return tuple(one.name for one in body_family(flags, rough=rough, machine=machine).isas)

    assert taken(FLAGS, rough=True) == ("avx512_bf16",)
    assert taken(FLAGS, rough=False) == ("avx512",)
    assert taken(FLAGS - {"avx512_bf16"}, rough=True) == ("avx512",)
    assert taken(FLAGS - {"avx512vl"}, rough=True) == ("avx2",)
    assert taken(frozenset({"sse2"}), rough=True) == ("sse2",)
    assert taken(FLAGS, rough=True, machine="aarch64") == ("neon",)
    assert taken(frozenset(), rough=True) == tuple(one.name for one in isa.X86.isas)
