"""Views of a picture depend on it and its draws alone, keep their bounds, and are what formulas say."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

torch = pytest.importorskip("torch", reason="torch is not installed")

from mobilenets.infer.image import normalise, prepare  # noqa: E402  # after torch is known to be there
from mobilenets.spec.preprocess import Preprocess  # noqa: E402
from mobilenets.spec.views import Mixing, Views, still  # noqa: E402
from mobilenets.train import policy, window  # noqa: E402
from mobilenets.train.body import one_thread_each  # noqa: E402
from mobilenets.train.views import DRAWS, MIRROR, POLICY, draws, mixed, normalised, viewed  # noqa: E402

WILD = Views(
    least_area=0.2,
    stretch=2.0,
    light=0.3,
    contrast=0.4,
    colour=0.5,
    policy=2,
    strength=0.8,
    erase=0.5,
    mix=Mixing(mixup=0.4, cutmix=1.0),
)
OFF = still(Views())


def pictures(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Smooth coloured pictures with some noise."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    smooth = [
        np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.BICUBIC)) for one in coarse
    ]
    noise = draw.integers(-12, 13, (count, height, width, 3))
    return torch.from_numpy(np.clip(np.stack(smooth) + noise, 0, 255).astype(np.uint8))


def of_policy(name: str, amounts: torch.Tensor) -> torch.Tensor:
    """Draws that give each picture one operation, by `amounts` in −1 … 1 of the strength."""
    drawn = torch.full((len(amounts), DRAWS), 0.5)
    drawn[:, POLICY] = (policy.OPS.index(name) + 0.5) / len(policy.OPS)
    drawn[:, POLICY + 1] = (amounts + 1) / 2
    return drawn


def levels_of(x: torch.Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).numpy()


def test_draws_depend_on_seed_picture_view_and_column_alone() -> None:
    which = np.array([5, 900_000_000_000, 0, 7], np.int64)
    whole = draws(3, which, 2, 9)
    assert torch.equal(draws(3, which[[2, 0]], 2, 4), whole[[2, 0], :4])
    for other in (draws(4, which, 2, 9), draws(3, which, 3, 9), draws(3, which + 1, 2, 9)):
        assert (other != whole).float().mean() > 0.99
    assert draws(-1, which, 0, 3).shape == (4, 3)  # any whole number is a seed


def test_draws_are_the_same_in_another_process() -> None:
    script = (
        "import numpy as np; from mobilenets.train.views import draws;"
        "print(draws(1, np.arange(3), 5, 4).numpy().tobytes().hex())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == draws(1, np.arange(3), 5, 4).numpy().tobytes().hex()


def test_draws_are_uniform_and_columns_pictures_and_views_know_nothing_of_each_other() -> None:
    drawn = draws(0, np.arange(40_000), 0, 8).double()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = torch.stack([torch.histc(column, 64, 0, 1) for column in drawn.T])
    chi2 = ((counts - 625) ** 2 / 625).sum(1)
    assert (chi2 < 63 + 5 * (2 * 63) ** 0.5).all(), chi2  # five standard deviations
    beside = torch.cat([drawn, drawn.roll(1, 0), draws(0, np.arange(40_000), 1, 8).double()], 1)
    apart = torch.corrcoef(beside.T) - torch.eye(24)
    assert apart.abs().max() < 5 / 200  # 1/√n is 1/200


@pytest.mark.parametrize(
    ("stored", "size"), [((74, 74), (64, 64)), ((64, 64), (128, 128)), ((9, 31), (5, 40))]
)
def test_a_still_view_is_the_resize_of_infer_within_a_level(
    stored: tuple[int, int], size: tuple[int, int]
) -> None:
    levels = pictures(3, *stored)
    target = Preprocess(height=size[0], width=size[1], geometry="stretch")
    expected = np.stack([prepare(one, target) for one in levels.numpy()])
    for seed in range(2):  # whatever is drawn
        seen = levels_of(viewed(levels, draws(seed, np.arange(3), 0, DRAWS), OFF, size))
        assert np.abs(seen - expected).max() <= 1


def test_a_still_shift_is_the_middle_as_it_is_stored() -> None:
    for stored, side in ((32, 28), (33, 28), (31, 31)):
        levels = pictures(2, stored, stored)
        view = still(Views(shift=4))
        seen = levels_of(viewed(levels, torch.full((2, DRAWS), 0.5), view, (side, side)))
        target = Preprocess(height=side, width=side, geometry="crop", fraction=side / stored)
        assert np.array_equal(seen, np.stack([prepare(one, target) for one in levels.numpy()]))


def test_views_are_channels_last_levels_in_float32() -> None:
    levels = pictures(20, 24, 24)
    seen = viewed(levels, draws(0, np.arange(20), 0, DRAWS), WILD, (16, 20))
    assert seen.shape == (20, 3, 16, 20)
    assert seen.dtype == torch.float32
    assert seen.is_contiguous(memory_format=torch.channels_last)
    assert seen.min() >= 0
    assert seen.max() <= 255
    again, _ = mixed(seen, torch.eye(20), draws(0, np.arange(20), 0, DRAWS), WILD)
    assert again.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("views", [WILD, Views(), Views(shift=3, policy=1)], ids=["wild", "mild", "shift"])
def test_a_view_is_the_same_in_any_batch(views: Views) -> None:
    """Alone, in another order, with others: to the last bit but for products of matrices."""
    levels, which = pictures(40, 30, 30), np.arange(40)
    whole = viewed(levels, draws(1, which, 4, DRAWS), views, (24, 24))
    assert torch.equal(viewed(levels, draws(1, which, 4, DRAWS), views, (24, 24)), whole)
    for part in (np.array([7]), np.array([39, 0, 21]), which[::-1].copy()):
        seen = viewed(levels[part], draws(1, part, 4, DRAWS), views, (24, 24))
        assert (seen - whole[part]).abs().max() < 1e-2


def test_threads_side_by_side_see_what_one_sees() -> None:
    levels = pictures(64, 20, 20)
    parts = [np.arange(first, first + 16) for first in range(0, 64, 16)] * 4

    def work(part: np.ndarray) -> torch.Tensor:
        return viewed(levels[part], draws(0, part, 0, DRAWS), WILD, (16, 16))

    with one_thread_each(3) as pool:
        for made, part in zip(pool.map(work, parts), parts, strict=True):
            assert torch.equal(made, work(part))


@given(
    sides=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    least=st.floats(0.01, 1),
    stretch=st.floats(1, 5),
    seed=st.integers(0, 1000),
)
def test_windows_lie_inside_and_keep_to_their_area_and_proportions(
    sides: tuple[int, int], least: float, stretch: float, seed: int
) -> None:
    drawn = draws(seed, np.arange(50), 0, 4)
    top, left, tall, wide = window.windows(drawn, least, stretch, sides).unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + tall <= sides[0]).all()
    assert (left + wide <= sides[1]).all()
    area = tall * wide / (sides[0] * sides[1])
    assert (area >= least - 1e-6).all()
    # A pixel more than it should be is all that rounding adds.
    most = (tall - 1) / sides[0] / (wide / sides[1])
    assert (most <= stretch**0.5 * stretch**0.5 + 1e-6).all()


def test_areas_of_windows_are_spread_evenly_and_places_too() -> None:
    place = window.windows(draws(0, np.arange(20_000), 0, 4), 0.25, 1.5, (1000, 1000)).double()
    area = place[:, 2] * place[:, 3] / 1e6
    counts = torch.histc(area, 15, 0.25, 1)
    assert ((counts - 20_000 / 15).abs() < 5 * (20_000 / 15) ** 0.5).all()
    room = (place[:, :2] / (1000 - place[:, 2:]).clamp(min=1)).mean(0)
    assert (room - 0.5).abs().max() < 0.02


def test_mirrored_twice_is_as_it_was() -> None:
    levels = pictures(6, 21, 18)
    drawn = torch.full((6, DRAWS), 0.5)
    drawn[:, MIRROR] = 0.1
    for views in (replace(OFF, mirror=True), replace(OFF, mirror=True, shift=0)):
        once = viewed(levels, drawn, views, (21, 18))
        assert torch.equal(once, levels.flip(2).permute(0, 3, 1, 2).float())
        twice = viewed(once.permute(0, 2, 3, 1).to(torch.uint8), drawn, views, (21, 18))
        assert torch.equal(twice, levels.permute(0, 3, 1, 2).float())


def test_shifts_are_parts_of_the_reflected_picture_each_as_often() -> None:
    levels = pictures(1, 7, 6).expand(4000, 7, 6, 3)
    views = Views(shift=2, light=0, contrast=0)
    seen = levels_of(viewed(levels, draws(0, np.arange(4000), 0, DRAWS), views, (6, 6))).astype(np.uint8)
    whole = np.pad(levels[0].numpy(), ((2, 2), (2, 2), (0, 0)), "reflect")
    known = {
        part[:, ::step].tobytes(): 0
        for step in (1, -1)
        for top in range(6)
        for left in range(5)
        if (part := whole[top : top + 6, left : left + 6]) is not None
    }
    assert len(known) == 60
    for one in seen:
        known[one.tobytes()] += 1
    assert min(known.values()) > 4000 / 60 - 5 * (4000 / 60) ** 0.5
    with pytest.raises(
        ValueError, match="not to be had by shifts of 7 × 6 pixels and 2 of their reflection; store"
    ):
        viewed(levels[:1], draws(0, np.arange(1), 0, DRAWS), views, (12, 6))
    with pytest.raises(ValueError, match="and 6 of their reflection"):
        viewed(levels[:1], draws(0, np.arange(1), 0, DRAWS), replace(views, shift=6), (6, 6))


def test_light_and_contrast_are_the_formula_of_retraining() -> None:
    levels, drawn = pictures(20, 8, 8), draws(0, np.arange(20), 0, DRAWS)
    seen = levels_of(viewed(levels, drawn, replace(OFF, light=0.2, contrast=0.4), (8, 8)))
    gain, shift = 1 + 0.4 * (2 * drawn[:, 6] - 1), 255 * 0.2 * (2 * drawn[:, 5] - 1)
    expected = (levels - 127.5) * gain.view(-1, 1, 1, 1) + 127.5 + shift.view(-1, 1, 1, 1)
    assert np.abs(seen - expected.clamp(0, 255).numpy()).max() < 1e-3


def test_colour_keeps_grey_and_luminance() -> None:
    levels = torch.randint(
        90, 166, (12, 6, 6, 3), dtype=torch.uint8
    )  # far from the ends, so nothing is clipped
    drawn = draws(0, np.arange(12), 0, DRAWS)
    seen = viewed(levels, drawn, replace(OFF, colour=0.4), (6, 6)).permute(0, 2, 3, 1)
    luminance = torch.tensor([0.299, 0.587, 0.114])
    assert (seen @ luminance - levels.float() @ luminance).abs().max() < 0.5
    assert (seen - levels).abs().max() > 5
    grey = levels[..., :1].expand(-1, -1, -1, 3)
    assert (viewed(grey, drawn, replace(OFF, colour=1), (6, 6)).permute(0, 2, 3, 1) - grey).abs().max() < 0.5


@pytest.mark.parametrize("side", [16, 7])  # a number of pixels that eights divide, and one that they do not
def test_the_colour_operations_are_those_of_pillow(side: int) -> None:
    from PIL import ImageEnhance, ImageOps

    levels = pictures(5, side, side)
    amounts = torch.tensor([-1.0, -0.5, 0.0, 0.4, 1.0])
    views = replace(OFF, policy=1, strength=0.8)
    one = [Image.fromarray(x) for x in levels.numpy()]
    factors = (1 + policy.FACTOR * 0.8 * amounts).tolist()

    def seen(name: str) -> np.ndarray:
        return levels_of(viewed(levels, of_policy(name, amounts), views, (side, side)))

    light = np.stack([ImageEnhance.Brightness(x).enhance(f) for x, f in zip(one, factors, strict=True)])
    assert np.abs(seen("light") - light).max() <= 1.01  # it drops what is behind the point
    colour = np.stack([ImageEnhance.Color(x).enhance(f) for x, f in zip(one, factors, strict=True)])
    assert (
        np.abs(seen("colour") - colour).max() <= 2.5
    )  # its grey is a whole level, ours of other last digits
    sharp = np.stack([ImageEnhance.Sharpness(x).enhance(f) for x, f in zip(one, factors, strict=True)])
    assert np.abs(seen("sharpness") - sharp).max() <= 1.5
    assert np.abs(seen("autocontrast") - np.stack([ImageOps.autocontrast(x) for x in one])).max() <= 1.01
    solar = [
        ImageOps.solarize(x, 256 * (1 - 0.8 * abs(a))) for x, a in zip(one, amounts.tolist(), strict=True)
    ]
    assert np.array_equal(seen("solarise"), np.stack(solar))
    assert np.array_equal(seen("nothing"), levels.numpy())


def test_contrast_goes_to_grey_and_posterised_levels_are_few() -> None:
    levels = pictures(2, 16, 16)
    flat = levels_of(
        viewed(
            levels,
            of_policy("contrast", torch.tensor([-1.0, -1.0])),
            replace(OFF, policy=1, strength=1),
            (16, 16),
        )
    )
    assert np.abs(flat - 127.5).max() <= 12.8
    some = levels_of(
        viewed(
            levels,
            of_policy("posterise", torch.tensor([-1.0, 0.5])),
            replace(OFF, policy=1, strength=1),
            (16, 16),
        )
    )
    assert len(np.unique(some[0])) <= 16
    assert len(np.unique(some[1])) <= 64
    assert np.abs(some[0] - levels[0].numpy()).max() <= 8
    assert np.abs(some[1] - levels[1].numpy()).max() <= 2


@pytest.mark.parametrize(
    ("name", "amount"), [("turn", 0.5), ("shear-x", -0.7), ("shear-y", 1), ("move-x", 0.4), ("move-y", -0.3)]
)
def test_shapes_are_pillows_affine_inside(name: str, amount: float) -> None:
    levels = pictures(1, 40, 52)
    picture = Image.fromarray(levels[0].numpy()).filter(ImageFilter.GaussianBlur(2))
    smooth = torch.from_numpy(np.asarray(picture).copy())[None]
    seen = levels_of(
        viewed(
            smooth,
            of_policy(name, torch.tensor([float(amount)])),
            replace(OFF, policy=1, strength=1),
            (40, 52),
        )
    )[0]
    matrix = np.eye(2)
    shift = np.zeros(2)
    if name == "turn":
        angle = policy.TURN * amount
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    elif name == "shear-x":
        matrix[0, 1] = policy.SHEAR * amount
    elif name == "shear-y":
        matrix[1, 0] = policy.SHEAR * amount
    else:
        shift[int(name == "move-y")] = policy.MOVE * amount * (52 if name == "move-x" else 40)
    middle = np.array([26.0, 20.0])
    offset = middle + shift - matrix @ middle
    data = (matrix[0, 0], matrix[0, 1], offset[0], matrix[1, 0], matrix[1, 1], offset[1])
    there = Image.fromarray(np.full((40, 52), 255, np.uint8)).transform(
        (52, 40), Image.Transform.AFFINE, data
    )
    inside = np.asarray(there.filter(ImageFilter.MinFilter(5))) == 255
    expected = np.asarray(
        picture.transform((52, 40), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    )
    assert inside.mean() > 0.4
    assert np.abs(seen - expected)[inside].max() <= 2


def test_what_is_erased_is_one_grey_rectangle_as_often_as_asked() -> None:
    levels = torch.zeros(600, 40, 40, 3, dtype=torch.uint8)
    seen = levels_of(viewed(levels, draws(0, np.arange(600), 0, DRAWS), replace(OFF, erase=0.3), (40, 40)))
    grey = (seen == 127.5).all(3)
    assert (seen[~grey] == 0).all()
    some = grey.any((1, 2))
    assert abs(some.mean() - 0.3) < 0.1
    for one in grey[some]:
        rows, columns = one.any(1), one.any(0)
        assert one.sum() == rows.sum() * columns.sum()
        assert 0.01 < one.mean() < 0.28


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.3, 0.8)])
def test_mixed_targets_say_what_share_of_the_picture_is_whose(mixup: float, cutmix: float) -> None:
    """Each picture has a level of its own, so that any pixel tells how much of whom is in it."""
    count = 60
    own = torch.arange(count).float() * 4
    x = own.view(-1, 1, 1, 1).expand(count, 3, 20, 20).contiguous(memory_format=torch.channels_last)
    views = Views(mix=Mixing(mixup=mixup, cutmix=cutmix, share=0.8))
    made, targets = mixed(x, torch.eye(count), draws(0, np.arange(count), 0, DRAWS), views)
    assert (targets.sum(1) - 1).abs().max() < 1e-6
    assert (targets >= 0).all()
    expected = targets @ own
    assert (made.mean((1, 2, 3)) - expected).abs().max() < 1e-3
    whole = (targets.max(1).values == 1).float().mean()
    assert 0.1 < whole < 0.5
    one_level = (made.amax((1, 2, 3)) - made.amin((1, 2, 3))) < 1e-4
    assert one_level[1:].all() == (cutmix == 0)


def test_shares_follow_the_beta_distribution() -> None:
    from scipy.stats import beta, kstest

    count = 3000
    for alpha in (0.2, 1.0, 3.0):
        x = torch.zeros(count, 3, 1, 1)
        targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(count // 2, 1)
        views = Views(mix=Mixing(mixup=alpha))
        _, mixture = mixed(x, targets, draws(0, np.arange(count), 0, DRAWS), views)
        keep = (mixture * targets).sum(1).numpy()
        assert kstest(keep, beta(alpha, alpha).cdf).pvalue > 1e-4


def test_nothing_is_mixed_where_nothing_is_asked_for_or_there_is_one_picture() -> None:
    x, targets = torch.rand(3, 3, 4, 4), torch.eye(3)
    drawn = draws(0, np.arange(3), 0, DRAWS)
    for views in (Views(), Views(mix=Mixing(mixup=1, share=0))):
        same, also = mixed(x, targets, drawn, views)
        assert torch.equal(same, x)
        assert torch.equal(also, targets)
    same, also = mixed(x[:1], targets[:1], drawn[:1], WILD)
    assert torch.equal(same, x[:1])
    assert torch.equal(also, targets[:1])


def test_levels_are_normalised_as_everywhere() -> None:
    target = Preprocess(height=9, width=7, mean=(120.0, 3.5, 99.9), std=(58.4, 57.1, 1.0))
    levels = pictures(4, 9, 7)
    for x in (
        viewed(levels, draws(0, np.arange(4), 0, DRAWS), OFF, (9, 7)),
        levels.permute(0, 3, 1, 2).float(),
    ):
        made = normalised(x, target.mean, target.std)
        assert made.is_contiguous(memory_format=torch.channels_last)
        assert np.array_equal(levels_of(made), normalise(levels.numpy(), target))


def test_products_of_matrices_give_what_the_integer_kernel_gives() -> None:
    """What other devices than CPUs do."""
    levels = pictures(9, 37, 29)
    place = window.windows(draws(2, np.arange(9), 0, 4), 0.1, 2, (37, 29))
    turn = torch.arange(9) % 2 == 0
    for size in ((16, 24), (40, 8), (37, 29), (1, 1)):
        made = torch.empty(9, *size, 3)
        window.resampled(levels, place, turn, made)
        assert (window._by_products(levels, place, turn, size) - made).abs().max() <= 1


@pytest.mark.parametrize("side", [1, 2, 3])
def test_the_smallest_pictures_go_through_everything(side: int) -> None:
    levels = pictures(30, side, side)
    drawn = draws(0, np.arange(30), 0, DRAWS)
    made, _ = mixed(viewed(levels, drawn, WILD, (side, side)), torch.eye(30), drawn, WILD)
    assert torch.isfinite(made).all()
    assert viewed(levels[:0], drawn[:0], WILD, (4, 4)).shape == (0, 3, 4, 4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"least_area": 0},
        {"stretch": 0.9},
        {"policy": 4},
        {"erase": 1.1},
        {"shift": -1},
        {"light": float("nan")},
    ],
)
def test_what_cannot_be_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"views: {next(iter(wrong))} must lie in"):
        Views(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"views: mix\.mixup must lie in"):
        Mixing(mixup=-1)
