"""Norms in C against torch's own in float64, and a strided layer's gradients against autograd's."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed")

from mobilenets.compile import build  # noqa: E402 - after the line that skips
from mobilenets.model.fused import KINDS, Norms  # noqa: E402
from mobilenets.model.module import Layer, Norm, activated  # noqa: E402
from mobilenets.spec.net import Node, shape_after  # noqa: E402
from mobilenets.spec.op import Depthwise, Shape  # noqa: E402
from mobilenets.training import compiled_norms  # noqa: E402

EPSILON = 1e-3


@pytest.fixture(scope="module")
def norms() -> Norms:
    made = compiled_norms()
    if made is None:
        pytest.skip("no C compiler")
    return made


def drawn(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 300), st.integers(1, 9), st.integers(1, 9)).filter(
        lambda one: one[0] * one[2] * one[3] > 1
    ),
    kind=st.sampled_from([*KINDS, "swish", "sigmoid"]),
    middle=st.sampled_from([0.0, 2.0, -30.0]),
    seed=st.integers(0, 1000),
    last=st.booleans(),
)
def test_float32_is_torch_in_float64(norms, shape, kind, middle, seed, last) -> None:  # type: ignore[no-untyped-def]
    x = drawn(shape, seed, torch.float32) * 3 + middle
    back = drawn(shape, seed + 1, torch.float32)
    layout = torch.channels_last if last else torch.contiguous_format
    found = []
    for dtype in (torch.float64, torch.float32):
        norm = Norm(shape[1], EPSILON).to(dtype)
        norm.momentum = 0.3
        with torch.no_grad():
            norm.weight.copy_(drawn((shape[1],), seed + 2, torch.float32))
            norm.bias.copy_(drawn((shape[1],), seed + 3, torch.float32) * 2)
        given = x.detach().to(dtype).contiguous(memory_format=layout).requires_grad_()
        y = norms(given, norm, kind) if dtype == torch.float32 else activated(norm(given), kind)
        (y * back.to(dtype)).sum().backward()
        found.append(
            (
                y.detach(),
                given.grad,
                norm.weight.grad,
                norm.bias.grad,
                norm.running_mean,
                norm.running_var,
                norm,
            )
        )
    (*wanted, exact), (*own, _) = found
    # Where the activation has a corner, a hair's breadth decides which gradient is right.
    with torch.no_grad():
        exact.momentum = 0.0
        z = exact(x.double())
        corner = torch.tensor([0.0, 6.0, -3.0, 3.0])
        clear = bool(((z.unsqueeze(-1) - corner).abs() > 1e-4 * (1 + abs(middle))).all())
    for place, (one, two) in enumerate(zip(wanted, own, strict=True)):
        if clear or place in (0, 4, 5):
            most = float(one.abs().max()) + float(back.abs().max())
            assert float((one - two).abs().max()) <= 2e-5 * (1 + abs(middle)) * most


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 16, 100, 257])
def test_bfloat16_is_the_exact_answer_rounded(norms: Norms, kind: str, channels: int) -> None:
    x = (drawn((4, channels, 11, 13), 0, torch.float64) * 2 + 1).bfloat16()
    norm, exact = Norm(channels, EPSILON), Norm(channels, EPSILON).double()
    own = norms(x.contiguous(memory_format=torch.channels_last), norm, kind).detach()
    wanted = activated(exact(x.double()), kind).detach()
    assert own.dtype == torch.bfloat16
    assert own.is_contiguous(memory_format=torch.channels_last)
    apart = (own.double() - wanted).abs() / wanted.abs().clamp(min=0.05)
    assert float(apart.max()) < 2**-8 * 1.05
    rounded = wanted.bfloat16() == own
    assert float(rounded.double().mean()) > 0.999
    assert torch.allclose(norm.running_var.double(), exact.running_var, rtol=1e-6)


def test_what_is_no_number_stays_none(norms: Norms) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(2, 40, 3, 3).to(dtype)
        x[1, 7, 1, 1] = torch.nan
        norm = Norm(40, EPSILON)
        y = norms(x, norm, "relu6")
        assert bool(y[:, 7].isnan().all())
        assert not bool(y[:, :7].isnan().any())
        assert bool(norm.running_mean[7].isnan())


def test_a_library_that_says_other_things_is_refused(tmp_path: Path) -> None:
    if compiled_norms() is None:
        pytest.skip("no C compiler")
    made = build.norms(tmp_path)
    text = (tmp_path / "norms.c").read_text()
    for what, other in (("z >= 6 ? 0", "z >= 5 ? 0"), ("/ (double)rows", "/ (rows + 1.0)")):
        assert what in text
        (tmp_path / "norms.c").write_text(text.replace(what, other))
        name = f"{len(what)}.so"  # a library is opened once by its name
        build.build_here(["norms.c", "-lm"], name, tmp_path, ("-shared", "-fPIC"))
        with pytest.raises(ValueError, match="is not what torch says"):
            Norms(tmp_path / name)
    Norms(made)


def test_without_a_compiler_torch_normalises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nowhere/cc")
    assert compiled_norms() is None


@given(
    kernel=st.sampled_from([3, 5, 7]),
    stride=st.sampled_from([2, 3]),
    height=st.integers(3, 16),
    width=st.integers(3, 16),
    padding=st.sampled_from(["same", "symmetric", "valid"]),
    seed=st.integers(0, 1000),
)
def test_a_strided_layer_goes_back_as_autograd_does(  # type: ignore[no-untyped-def]
    kernel, stride, height, width, padding, seed
) -> None:
    if padding == "valid" and min(height, width) < kernel:
        return
    op = Depthwise(kernel=kernel, stride=stride, padding=padding, norm=None)
    shape = Shape(height, width, 6)
    layer = Layer(Node("one", op, ("image",)), shape, shape_after(op, [shape]))
    weight = drawn((6, 1, kernel, kernel), seed, torch.float32).bfloat16().float()
    x = drawn((2, 6, height, width), seed + 1, torch.bfloat16)
    found = []
    for half in (False, True):
        x.grad = None
        given = x.detach().clone().requires_grad_()
        own = weight.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = layer.linear(given if half else given.float(), own, None)
        assert y.dtype == (torch.bfloat16 if half else torch.float32)
        back = drawn(tuple(y.shape), seed + 2, torch.bfloat16)
        (y * back.to(y.dtype)).float().sum().backward()
        found.append([one.detach().float() for one in (y, given.grad, own.grad)])
    for wanted, made in zip(*found, strict=True):
        assert wanted.shape == made.shape
        assert float((wanted - made).abs().max()) <= 0.02 * float(wanted.abs().max()) + 1e-6
