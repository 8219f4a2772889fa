"""Compiled integer networks give the reference's outputs bit for bit, on every instruction set here."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobilenets.compile.build import FLAGS, WARNINGS, build, write
from mobilenets.compile.source import compiled
from mobilenets.compile.target import TARGETS, family
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.compiled import CompiledEngine
from mobilenets.infer.engine import NumpyEngine
from mobilenets.spec import zoo
from mobilenets.spec.head import classify
from mobilenets.spec.net import Net, Output
from mobilenets.spec.op import Pointwise

from .cases import EVERYTHING, graphs, inverted, networks
from .conftest import agrees, filled, in_bytes, taught

Made = Callable[..., CompiledEngine]


V1 = [
    classify(zoo.v1(0.25, 97, padding="symmetric"), 3),  # odd sides, the other padding
    classify(zoo.v1(0.3, 65, rounding="keras"), 1001),  # channels that no vector divides
    classify(zoo.v1(1.0, 32), 5),
    zoo.v1(0.01, 20, rounding="keras"),  # one channel to a layer
    classify(zoo.v1(0.25, 1), 2),  # one pixel
    classify(zoo.v1(0.75, 40), 2),
]
OTHERS = [
    (EVERYTHING, False),
    (EVERYTHING, True),
    *((zoo.net(name, 0.25, 33, 5), False) for name in ("v2", "v3-small", "squeezenet-1.1")),
    (zoo.net("shufflenet-v1", 0.25, 33, 5), True),
]


@pytest.mark.parametrize(
    ("net", "asymmetric"),
    [*((net, asymmetric) for net in V1 for asymmetric in (False, True)), *OTHERS],
    ids=lambda one: f"{one.name}-{one.width:g}-{one.resolution}" if isinstance(one, Net) else str(one),
)
@pytest.mark.slow
def test_networks_of_the_zoo_give_the_references_bytes(made: Made, net: Net, asymmetric: bool) -> None:
    model = in_bytes(filled(net), 1, asymmetric)
    agrees(made(model), model)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(net=networks(), seed=st.integers(0, 99), asymmetric=st.booleans())
def test_any_chain_of_layers_gives_the_references_bytes(
    made: Made, net: Net, seed: int, asymmetric: bool
) -> None:
    model = in_bytes(filled(net, seed), seed, asymmetric)
    agrees(made(model), model, seed)


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(net=graphs(), seed=st.integers(0, 99), asymmetric=st.booleans())
def test_any_graph_of_layers_gives_the_references_bytes(
    made: Made, net: Net, seed: int, asymmetric: bool
) -> None:
    model = in_bytes(filled(net, seed), seed, asymmetric)
    agrees(made(model), model, seed)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    net=inverted(),
    seed=st.integers(0, 99),
    scratch=st.integers(1, 1000),
    threads=st.integers(1, 3),
    asymmetric=st.booleans(),
)
def test_maps_that_are_never_whole_give_the_references_bytes(
    made: Made, net: Net, seed: int, scratch: int, threads: int, asymmetric: bool
) -> None:
    model = in_bytes(filled(net, seed), seed, asymmetric)
    agrees(made(model, threads, scratch=scratch), model, seed)


@pytest.mark.parametrize("classes", [1, 2, 17, 102])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_head_in_floats_gives_the_references_logits(made: Made, classes: int, threads: int) -> None:
    model = taught(in_bytes(filled(classify(zoo.v1(0.25, 40), classes)), 1))
    agrees(made(model, threads), model)


def test_a_map_of_floats_in_a_network_of_bytes_is_refused_by_name(made: Made) -> None:
    net = zoo.v1(0.25, 64)
    last = next(node.name for node in reversed(net.nodes) if isinstance(node.op, Pointwise))
    nodes = tuple(node for node in net.nodes if node.name != net.nodes[-1].name)
    model = in_bytes(filled(replace(net, nodes=nodes, outputs=(Output("map", last, "vector"),))))
    scales = {name: scale for name, scale in model.scales.items() if name != last}
    with pytest.raises(ValueError, match=rf"{last}: a map \(2, 2, 256\) of float32 in a network of bytes"):
        made(replace(model, scales=scales))


@pytest.fixture(scope="module")
def small() -> Artefact:
    return in_bytes(filled(classify(zoo.v1(0.25, 64), 4), geometry="letterbox", labels=tuple("abcd")))


@pytest.mark.parametrize("name", ["v1", "v3", "everything"])
def test_threads_share_the_work_and_change_no_bit(small: Artefact, tmp_path: Path, name: str) -> None:
    """On every instruction set: what one writes past its part of a map would be another's."""
    nets = {"v3": classify(zoo.v3_small(0.35, 97), 5), "everything": EVERYTHING}
    model = small if name == "v1" else in_bytes(filled(nets[name]))
    source = compiled(model, "tested", family(TARGETS["host"], "int8"))
    write(source, tmp_path)
    library = build(source, TARGETS["host"], tmp_path).file
    frame = np.random.default_rng(1).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    wanted = NumpyEngine(model)(frame)
    for threads in (1, 2, 3, 5):
        engine = CompiledEngine(library, threads)
        for isa in engine.isas:
            engine.use(isa)
            for _ in range(25):
                got = engine(frame)
                assert all(np.array_equal(got[name], wanted[name]) for name in wanted), (threads, isa)


@pytest.mark.parametrize("asymmetric", [False, True], ids=["symmetric", "asymmetric"])
@pytest.mark.slow
def test_sanitizers_find_nothing_in_the_kernels_of_bytes(tmp_path: Path, asymmetric: bool) -> None:
    """AddressSanitizer and UBSan over the example, on frames of several sizes."""
    _sanitized(in_bytes(filled(classify(zoo.v1(0.25, 64), 4)), 2, asymmetric), tmp_path)


@pytest.mark.slow
def test_sanitizers_find_nothing_in_steps_without_weights(tmp_path: Path) -> None:
    _sanitized(in_bytes(filled(EVERYTHING, labels=tuple("abcde"))), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("name", ["v2", "v3-small"])
def test_sanitizers_find_nothing_where_maps_are_never_whole(tmp_path: Path, name: str, dtype: str) -> None:
    net = filled(zoo.net(name, 0.25, 65, 5), labels=tuple("abcde"))
    _sanitized(in_bytes(net) if dtype == "int8" else net, tmp_path, scratch=512)


def _sanitized(model: Artefact, tmp_path: Path, scratch: int | None = None) -> None:
    chosen = family(TARGETS["host"], model.dtype)
    chosen = chosen if scratch is None else replace(chosen, scratch_bytes=scratch)
    write(compiled(model, "tested", chosen), tmp_path)
    flags = [flag for flag in FLAGS if flag != "-O3"]
    words = ["cc", "-O1", "-g", *flags, *WARNINGS, "-fsanitize=address,undefined", "-fno-sanitize-recover"]
    subprocess.run([*words, "main.c", "tested.c", "-o", "example", "-lpthread"], cwd=tmp_path, check=True)
    random = np.random.default_rng(0)
    for height, width in ((64, 64), (1, 1), (480, 640), (130, 7)):
        frame = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        (tmp_path / "frame.rgb").write_bytes(frame.tobytes())
        words = ["./example", "frame.rgb", str(width), str(height)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stderr == ""
