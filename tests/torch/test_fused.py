"""Norms in C against torch's own in float64, and a strided layer's gradients against autograd's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed")

from mobilenets.compile import build  # noqa: E402 - after the line that skips
from mobilenets.model.fused import KINDS, Norms  # noqa: E402
from mobilenets.model.module import Layer, Norm, activated  # noqa: E402
from mobilenets.spec.net import Node, shape_after  # noqa: E402
from mobilenets.spec.op import Activation, Depthwise, Shape  # noqa: E402
from mobilenets.training import compiled_norms  # noqa: E402

EPSILON = 1e-3
CORNERS: dict[Activation, tuple[float, ...]] = {"relu": (0.0,), "relu6": (0.0, 6.0), "hswish": (-3.0, 3.0)}
WRONG = (
    ("z >= 6 ? 0", "z >= 5 ? 0"),
    ("/ (double)rows", "/ (rows + 1.0)"),
    ("own->total[c] += own->sum[i];", "own->total[c] = own->sum[i];"),
    ("ggain[c] = (float)own.products[c]", "ggain[c] = (c ? 1 : -1) * (float)own.products[c]"),
    ("norm_backward(", "no_backward("),
)


@pytest.fixture(scope="module")
def norms() -> Norms:
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler")
    return compiled_norms()


def drawn(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)


def compared(norms: Norms, x: torch.Tensor, kind: Activation, seed: int, most: float) -> None:
    """Outputs, gradients and statistics against torch's in float64; nothing comes back to where z is so near
    a corner of the activation that rounding decides."""
    channels = x.shape[1]
    found = []
    for dtype in (torch.float64, torch.float32):
        norm = Norm(channels, EPSILON).to(dtype)
        norm.momentum = 0.3
        with torch.no_grad():
            norm.weight.copy_(drawn((channels,), seed + 2, torch.float32))
            norm.bias.copy_(drawn((channels,), seed + 3, torch.float32) * 2)
        given = (x.to(dtype) if dtype == torch.float64 else x).detach().requires_grad_()
        if dtype == torch.float64:
            z = norm(given)
            near = torch.tensor(CORNERS.get(kind, ()), dtype=torch.float64)
            clear = ((z.detach().unsqueeze(-1) - near).abs() > most * 10).all(-1)
            back = drawn(tuple(x.shape), seed + 1, torch.bfloat16).double() * clear
            y = activated(z.clone(), kind)
        else:
            y = norms(given, norm, kind)
        (y * back.to(y.dtype)).sum().backward()
        found.append(
            (y.detach(), given.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var)
        )
    for wanted, own in zip(*found, strict=True):
        assert own is not None
        size = float(wanted.abs().max()) + float(back.abs().max())
        assert float((wanted - own.double()).abs().max()) <= most * size


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
    layout = torch.channels_last if last else torch.contiguous_format
    compared(norms, x.contiguous(memory_format=layout), kind, seed, 2e-5 * (1 + abs(middle)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(8, 64, 32, 32), (2, 300, 40, 40), (16, 7, 33, 31)])
def test_sums_over_long_maps_are_whole(norms: Norms, kind: Activation, shape: tuple[int, ...]) -> None:
    x = drawn(shape, 0, torch.float32) * 2 + 1
    compared(norms, x, kind, 5, 1e-4)
    compared(norms, x.bfloat16(), kind, 5, 2e-2)


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


def test_a_library_that_says_other_things_is_refused(norms: Norms, tmp_path: Path) -> None:
    made = build.norms(tmp_path)
    text = (tmp_path / "norms.c").read_text()
    for what, other in WRONG:
        assert what in text
        (tmp_path / "norms.c").write_text(text.replace(what, other))
        name = f"{len(what)}.so"  # a library is opened once by its name
        build.build_here(["norms.c", "-lm"], name, tmp_path, ("-shared", "-fPIC"))
        with pytest.raises(ValueError, match=r"is not what torch says|without them"):
            Norms(tmp_path / name)
    Norms(made)


def test_what_the_library_does_not_take_is_torchs_or_refused(norms: Norms) -> None:
    for x in (torch.zeros(0, 8, 4, 4), torch.zeros(1, 8, 1, 1)):
        with pytest.raises(ValueError, match="one number a channel"):
            norms(x, Norm(8, EPSILON), "relu")
    x = torch.randn(2, 8, 3, 3)
    for one, norm in ((x.double(), Norm(8, EPSILON).double()), (x.bfloat16(), Norm(8, EPSILON).bfloat16())):
        assert norms(one, norm, "relu").dtype == one.dtype


def test_without_a_compiler_torch_normalises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nowhere/cc")
    with pytest.raises(ValueError, match="/nowhere/cc"):
        compiled_norms()


@given(
    kernel=st.sampled_from([3, 5, 7]),
    stride=st.sampled_from([2, 3]),
    height=st.integers(3, 16),
    width=st.integers(3, 16),
    padding=st.sampled_from(["same", "symmetric", "valid", "ceil"]),
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
        assert y.dtype == (torch.bfloat16 if half else torch.float32) or padding == "ceil"
        back = drawn(tuple(y.shape), seed + 2, torch.bfloat16)
        (y * back.to(y.dtype)).float().sum().backward()
        found.append([one.detach().float() for one in (y, given.grad, own.grad)])
    for wanted, made in zip(*found, strict=True):
        assert wanted.shape == made.shape
        assert float((wanted - made).abs().max()) <= 0.02 * float(wanted.abs().max()) + 1e-6
