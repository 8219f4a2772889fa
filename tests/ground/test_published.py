"""Published costs are reproduced; where a printed figure and the arithmetic disagree, the arithmetic stands.

Sources: MobileNets, arXiv:1704.04861, tables 1, 2, 4, 5, 6 and 7; tensorflow/models,
slim/nets/mobilenet_v1.md; keras.applications.mobilenet; a CIFAR-10 study's table and listing. MobileNetV2,
arXiv:1801.04381, section 4, tables 2 and 4; tensorflow/models, research/slim/nets/mobilenet/README.md;
keras.applications.mobilenet_v2.
"""

from __future__ import annotations

import pytest

from mobilenets.costs.count import Cost, cost, separable_reduction
from mobilenets.spec import inverted, zoo
from mobilenets.spec.branching import shufflenet_v1
from mobilenets.spec.head import classify
from mobilenets.spec.net import Net, Node, Output, shapes
from mobilenets.spec.op import Add, Conv, Depthwise, Op, Pointwise, Pool, Shape


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


V2_CHECKPOINTS = (
    # tensorflow/models, research/slim/nets/mobilenet/README.md: width, millions of parameters, and for each
    # resolution millions of MACs.
    (1.4, 6.06, {224: 582}),
    (1.3, 5.34, {224: 509}),
    (1.0, 3.47, {224: 300, 192: 221, 160: 154, 128: 99, 96: 56}),
    (0.75, 2.61, {224: 209, 192: 153, 160: 107, 128: 69, 96: 39}),
    (0.5, 1.95, {224: 97, 192: 71, 160: 50, 128: 32, 96: 18}),
    (0.35, 1.66, {224: 59, 192: 43, 160: 30, 128: 20, 96: 11}),
)


@pytest.mark.parametrize(("width", "params", "macs"), V2_CHECKPOINTS)
def test_v2_costs_what_is_printed_for_each_checkpoint(
    width: float, params: float, macs: dict[int, int]
) -> None:
    for resolution, printed in macs.items():
        assert int(millions(of("v2", width, resolution).macs)) == printed  # cut, not rounded
    assert round(millions(without_norms(zoo.net("v2", width))), 2) == params


def test_v2_has_the_parameters_that_the_paper_prints_where_norms_are_left_out_and_the_rest_is_cut() -> None:
    net = zoo.net("v2")
    assert cost(net).macs == 300_774_272  # table 4: 300M
    assert cost(net).params == 3_504_872  # table 4: 3.4M, of
    assert without_norms(net) == 3_470_760


@pytest.mark.parametrize(
    ("width", "counted"), [(0.35, 1_691_208), (0.75, 2_663_064), (1.0, 3_538_984), (1.4, 6_156_712)]
)
def test_v2_has_as_many_parameters_as_keras_counts(width: float, counted: int) -> None:
    assert keras_params(zoo.net("v2", width)) == counted  # keras.applications.MobileNetV2().count_params()


def test_v2_of_width_1_4_costs_less_than_the_paper_prints_and_the_smallest_more() -> None:
    # Table 4 prints 585M and 6.9M; the README of the checkpoints, by the paper's authors, 582 and 6.06.
    widest = of("v2", 1.4)
    assert (widest.macs, widest.params) == (582_195_824, 6_108_776)
    # Section 4 prints costs "from 7" (million) "to 585M" for widths from 0.35 and resolutions from 96.
    assert of("v2", 0.35, 96).macs == 11_934_128


def test_v2_has_the_17_bottlenecks_of_table_2_where_section_4_prints_19() -> None:
    rows = [name for name in shapes(zoo.net("v2")) if name.endswith(".project")]
    assert len(rows) == sum(repeats for _, _, repeats, _ in inverted.V2_ROWS) == 17


def without_norms(net: Net) -> int:
    """Parameters but those that batch norms learn."""
    norms = sum(2 * row.output.channels for row in cost(net).rows if row.weights and row.kind != "dense")
    return cost(net).params - norms


def test_v2_has_the_rows_of_table_2() -> None:
    known = shapes(zoo.net("v2"))
    # The input of each row: resolution and channels, and the expansion inside.
    rows = {
        "stem": (112, 112, 32),
        "block1.project": (112, 112, 16),
        "block2.expand": (112, 112, 6 * 16),
        "block3.add": (56, 56, 24),
        "block6.add": (28, 28, 32),
        "block10.add": (14, 14, 64),
        "block13.add": (14, 14, 96),
        "block16.add": (7, 7, 160),
        "block17.expand": (7, 7, 6 * 160),
        "block17.project": (7, 7, 320),
        "last.pointwise": (7, 7, 1280),
        "pool": (1, 1, 1280),
    }
    assert {name: known[name] for name in rows} == rows
    assert "block1.expand" not in known
    added = [int(name[5:-4]) for name in known if name.endswith(".add")]
    assert added == [3, 5, 6, 8, 9, 10, 12, 13, 15, 16]


@pytest.mark.parametrize(
    ("width", "last"), [(0.35, 1280), (0.75, 1280), (1.0, 1280), (1.3, 1664), (1.4, 1792)]
)
def test_the_last_layer_of_v2_is_widened_and_never_narrowed(width: float, last: int) -> None:
    assert shapes(zoo.net("v2", width))["pool"].channels == last


def test_peak_activation_memory_of_v2_is_where_its_widest_map_is_filtered() -> None:
    # block2.depthwise reads 112 × 112 × 96 and writes a quarter of that.
    assert of("v2").activation_bytes == 4 * (112 * 112 * 96 + 56 * 56 * 96)


def test_a_map_that_is_added_later_stays_alive_until_then() -> None:
    def net(last: Op, *inputs: str) -> Net:
        nodes = (
            Node("a", Pointwise(out=10), ("image",)),
            Node("b", Pointwise(out=20), ("a",)),
            Node("c", Pointwise(out=10), ("b",)),
            Node("d", last, inputs),
        )
        return Net("residual", Shape(1, 1, 1), nodes, (Output("out", "d", "vector"),))

    assert cost(net(Pool(), "c")).activation_bytes == 4 * (20 + 10)
    summed = cost(net(Add(), "a", "c"))
    assert summed.activation_bytes == 4 * (10 + 20 + 10)
    assert summed.rows[-1].bytes_read == 4 * (10 + 10)
    assert (summed.rows[-1].macs, summed.rows[-1].params) == (0, 0)


def test_int8_size_is_a_byte_a_weight_and_eight_a_channel() -> None:
    counted = of("v1", 0.25, 128)
    channels = sum(row.output.channels for row in counted.rows if row.weights)
    assert counted.int8_bytes == sum(row.weights for row in counted.rows) + 8 * channels
    assert counted.float32_bytes == 4 * counted.params


# Parameters as the published weights of each have them (torchvision, keras.applications and Caffe count them
# so), multiply-accumulates in millions as the paper named prints them, and how far ours may be from that.
FAMILY = {
    "v3-large": (1.0, 5_483_032, 219, 3, "arXiv:1905.02244, table 3"),
    "v3-large, 0.75": (0.75, 3_993_528, 155, 1, "arXiv:1905.02244, table 3; 4.0M"),
    "v3-small": (1.0, 2_542_856, 56, 1, "arXiv:1905.02244, table 3"),
    "v3-small, 0.75": (0.75, 2_041_872, 44, 1, "arXiv:1905.02244, table 3; 2.0M"),
    "v3-large-minimalistic": (1.0, 3_924_288, 209, 1, "TensorFlow's research/slim/nets/mobilenet; 3.9M"),
    "v4-conv-small": (1.0, 3_774_024, 200, 20, "arXiv:2404.10518, table of ImageNet: 0.2G, 3.8M"),
    "v4-conv-medium": (1.0, 9_715_512, 1000, 100, "arXiv:2404.10518, the same: 1.0G, 9.2M without the head"),
    "squeezenet-1.0": (1.0, 1_248_424, 819, 1, "torchvision: 0.82G"),
    "squeezenet-1.1": (1.0, 1_235_496, 349, 1, "torchvision: 0.35G"),
    "shufflenet-v1, 0.25": (0.25, None, 13, 1, "arXiv:1707.01083, table 2"),
    "shufflenet-v1, 0.5": (0.5, None, 38, 1, "arXiv:1707.01083, table 2"),
    "shufflenet-v1": (1.0, None, 137, 1, "arXiv:1707.01083, table 1"),
    "shufflenet-v1, 1.5": (1.5, None, 292, 1, "arXiv:1707.01083, table 5"),
    "shufflenet-v1, 2": (2.0, None, 524, 1, "arXiv:1707.01083, table 5"),
    "shufflenet-v2, 0.5": (0.5, 1_366_792, 41, 1, "arXiv:1807.11164, table 8"),
    "shufflenet-v2": (1.0, 2_278_604, 146, 2, "arXiv:1807.11164, table 8"),
    "shufflenet-v2, 1.5": (1.5, 3_503_624, 299, 4, "arXiv:1807.11164, table 8"),
    "shufflenet-v2, 2": (2.0, 7_393_996, 591, 8, "arXiv:1807.11164, table 8"),
    "alexnet": (1.0, 60_965_224, 724, 1, "Caffe's; arXiv:1704.04861, table 9: 720M, 60M"),
    "vgg16": (1.0, 138_357_544, 15_300, 200, "arXiv:1704.04861, table 8: 15300M, 138M"),
    "googlenet": (1.0, 6_998_552, 1550, 50, "arXiv:1704.04861, table 8: 1550M, 6.8M"),
    "inception-v3": (1.0, 23_834_568, 5720, 10, "torchvision's parameters and 5.7G"),
    "xception": (1.0, 22_855_952, 8400, 50, "arXiv:1610.02357, table 3: 22,855,952"),
    "resnet-50": (1.0, 25_557_032, 3800, 60, "arXiv:1512.03385, table 1: 3.8G"),
    "efficientnet-b0": (1.0, 5_288_548, 390, 5, "arXiv:1905.11946, table 2: 0.39B, 5.3M"),
}


@pytest.mark.parametrize("named", FAMILY)
def test_every_network_of_the_family_costs_what_is_published(named: str) -> None:
    width, params, macs, off, _ = FAMILY[named]
    counted = of(named.partition(",")[0], width)
    assert params in (None, counted.params)
    assert abs(millions(counted.macs) - macs) <= off


@pytest.mark.parametrize(("groups", "macs"), [(1, 143), (2, 140), (3, 137), (4, 133), (8, 137)])
def test_shufflenet_v1_costs_as_much_in_any_number_of_groups_as_table_1_prints(
    groups: int, macs: int
) -> None:
    counted = cost(classify(shufflenet_v1(groups=groups), 1000))
    assert abs(millions(counted.macs) - macs) < 1.5
