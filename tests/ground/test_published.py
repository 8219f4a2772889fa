"""Published costs are reproduced; where a printed figure and the arithmetic disagree, the arithmetic stands.

Sources: MobileNets, arXiv:1704.04861, tables 1, 2, 4, 5, 6 and 7; tensorflow/models,
slim/nets/mobilenet_v1.md; keras.applications.mobilenet; a CIFAR-10 study's table and listing.
"""

from __future__ import annotations

import pytest

from mobilenets.costs.count import Cost, cost, separable_reduction
from mobilenets.spec import zoo
from mobilenets.spec.net import Net, Node, Output, shapes
from mobilenets.spec.op import Conv, Depthwise, Pointwise, Shape


def millions(count: int) -> float:
    return count / 1e6


def of(name: str, width: float = 1.0, resolution: int | None = None) -> Cost:
    return cost(zoo.net(name, width, resolution))


def keras_params(net: Net) -> int:
    """As Keras counts: the measured mean and variance of every batch norm as well."""
    normed = {
        node.name
        for node in net.nodes
        if isinstance(node.op, Conv | Depthwise | Pointwise) and node.op.norm is not None
    }
    counted = cost(net)
    return counted.params + sum(2 * row.output.channels for row in counted.rows if row.name in normed)


@pytest.mark.parametrize(
    ("width", "printed_macs", "printed_params"),
    [(1.0, 569, 4.2), (0.75, 325, 2.6), (0.5, 149, 1.3), (0.25, 41, 0.5)],
)
def test_v1_at_224_costs_what_the_paper_prints_for_each_width(
    width: float, printed_macs: int, printed_params: float
) -> None:
    counted = of("v1", width)
    assert round(millions(counted.macs)) == printed_macs
    assert round(millions(counted.params), 1) == printed_params


@pytest.mark.parametrize(("resolution", "printed"), [(224, 569), (192, 418), (160, 291), (128, 186)])
def test_v1_of_full_width_costs_what_the_paper_prints_for_each_resolution(
    resolution: int, printed: int
) -> None:
    assert round(millions(of("v1", 1.0, resolution).macs)) == printed


@pytest.mark.parametrize(
    ("width", "resolution", "exact", "copied"),
    [
        (0.75, 224, 325_400_448, 317),
        (0.75, 192, 239_273_472, 233),
        (0.75, 160, 166_396_800, 162),
        (0.75, 128, 106_770_432, 104),
        (0.25, 192, 30_212_608, 34),
    ],
)
def test_a_widely_copied_table_is_off_where_the_arithmetic_says_so(
    width: float, resolution: int, exact: int, copied: int
) -> None:
    assert of("v1", width, resolution).macs == exact
    assert round(millions(exact)) != copied


def test_the_full_convolution_net_costs_4867_million_where_the_paper_prints_4866() -> None:
    counted = of("v1-full")
    assert counted.macs == 4_867_293_184  # table 4 prints 4866: cut, not rounded, and one short at that
    assert round(millions(counted.params), 1) == 29.3


def test_the_shallow_net_costs_what_the_paper_prints() -> None:
    counted = of("v1-shallow")
    assert round(millions(counted.macs)) == 307
    assert round(millions(counted.params), 1) == 2.9


@pytest.mark.parametrize(
    ("kind", "of_macs", "of_weights"),
    [
        ("pointwise", 94.86, 74.59),
        ("depthwise", 3.06, 1.06),
        ("conv", 1.91, 0.02),  # table 2 prints 1.19 for the MACs: a slip, its column then sums to 99.29
        ("dense", 0.18, 24.33),
    ],
)
def test_each_kind_of_layer_has_the_share_that_table_2_prints(
    kind: str, of_macs: float, of_weights: float
) -> None:
    counted = of("v1")
    weights = sum(row.weights for row in counted.rows)
    share = next(value for name, value in counted.by_kind.items() if name == kind)
    assert round(100 * share.macs / counted.macs, 2) == of_macs
    assert round(100 * share.weights / weights, 2) == of_weights


def test_the_printed_share_of_the_stem_is_a_slip_because_its_column_does_not_sum_to_100() -> None:
    assert round(94.86 + 3.06 + 1.19 + 0.18, 2) == 99.29
    assert round(94.86 + 3.06 + 1.91 + 0.18, 2) == 100.01


def test_params_are_weights_biases_and_the_two_learned_vectors_of_each_norm() -> None:
    net = zoo.net("v1")
    assert cost(net).params == 4_231_976
    assert keras_params(net) == 4_253_864  # keras.applications.MobileNet().count_params()


def test_the_cifar_net_of_the_printed_table_has_3150666_params_where_the_listing_says_2879696() -> None:
    net = zoo.net("v1-cifar")
    assert net.input == (28, 28, 3)
    known = shapes(net)
    wide = [known[node.name] for node in net.nodes if isinstance(node.op, Pointwise)]
    assert [shape.channels for shape in wide] == [64, 128, 256, 512, *[512] * 5, 1024, 1024]
    assert known["stem"] == (14, 14, 32)
    assert {shape[:2] for shape in wide[:-1]} == {(14, 14)}
    assert wide[-1] == (7, 7, 1024)
    assert keras_params(net) == 3_150_666
    block = (
        9 * 512 + 4 * 512 + 512 * 512 + 4 * 512
    )  # one of the table's 512 blocks: the listing is about that short
    assert keras_params(net) - 2_879_696 == block + 122


@pytest.mark.parametrize(
    ("kernel", "size", "seen", "out"), [(3, 14, 512, 512), (3, 7, 64, 1024), (5, 9, 3, 8)]
)
def test_a_separable_convolution_costs_1_over_n_plus_1_over_k_squared_of_a_full_one(
    kernel: int, size: int, seen: int, out: int
) -> None:
    def net(*nodes: Node) -> Net:
        return Net("one", Shape(size, size, seen), nodes, (Output("map", nodes[-1].name, "vector"),))

    full = cost(net(Node("conv", Conv(out=out, kernel=kernel), ("image",)))).macs
    separable = cost(
        net(
            Node("depthwise", Depthwise(kernel=kernel), ("image",)),
            Node("pointwise", Pointwise(out=out), ("depthwise",)),
        )
    ).macs
    assert separable / full == pytest.approx(separable_reduction(kernel, out), rel=1e-12)
    assert separable_reduction(kernel, out) == pytest.approx(1 / out + 1 / kernel**2, rel=1e-15)


@pytest.mark.parametrize(
    ("width", "rule", "stem"), [(0.1, "slim", 8), (0.1, "keras", 3), (0.35, "divisible", 16)]
)
def test_a_width_rounds_as_its_source_rounds_and_the_net_says_which(
    width: float, rule: str, stem: int
) -> None:
    net = zoo.v1(width, 96, rounding=rule)  # type: ignore[arg-type]
    assert cost(net).rows[0].output.channels == stem
    assert net.rounding == rule


def test_peak_activation_memory_of_v1_is_the_input_and_output_of_its_widest_step() -> None:
    # block1.pointwise reads 112 × 112 × 32 and writes 112 × 112 × 64; what follows writes a quarter of that.
    assert of("v1").activation_bytes == 4 * 112 * 112 * (32 + 64)


def test_int8_size_is_a_byte_a_weight_and_eight_a_channel() -> None:
    counted = of("v1", 0.25, 128)
    channels = sum(row.output.channels for row in counted.rows if row.weights)
    assert counted.int8_bytes == sum(row.weights for row in counted.rows) + 8 * channels
    assert counted.float32_bytes == 4 * counted.params
