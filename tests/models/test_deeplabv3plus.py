"""DeepLabV3+ and what every Segmenter owes: sizes, modes, parameter groups, refused settings."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.models.deeplabv3plus import DeepLabV3Plus, DeepLabV3PlusConfig
from uda.models.encoders.base import CAFFE, FeatureMaps, Normalization
from uda.models.encoders.resnet import resnet_backbone
from uda.models.segmenter import BatchNormMode, SegmentationOutput, Segmenter
from uda.utilities.errors import InputError

TINY = DeepLabV3PlusConfig(
    backbone="resnet18",
    backbone_weights="none",
    backbone_width=4,
    aspp_rates=(1, 2),
    aspp_channels=8,
    low_level_channels=4,
    decoder_channels=8,
)
MODES: tuple[BatchNormMode, ...] = ("train", "frozen_affine", "frozen")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def total(output: SegmentationOutput) -> Tensor:
    """A scalar that every output takes part in."""
    assert output.auxiliary_logits is not None
    return output.logits.square().sum() + output.auxiliary_logits.square().sum()


def backbone_norms(segmenter: Segmenter) -> list[nn.BatchNorm2d]:
    return [m for m in segmenter.backbone.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (17, 33)])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_logits_have_input_size_and_features_output_stride(
    size: tuple[int, int], output_stride: Literal[8, 16]
) -> None:
    config = replace(TINY, output_stride=output_stride)
    output = config.build(5)(torch.rand(2, 3, *size))
    assert output.logits.shape == (2, 5, *size)
    assert output.auxiliary_logits is not None
    assert output.auxiliary_logits.shape == (2, 5, *size)
    height, width = (-(-side // output_stride) for side in size)
    assert output.features.shape == (2, 32, height, width)


def test_without_auxiliary_head() -> None:
    segmenter = replace(TINY, auxiliary_head=False).build(5)
    assert not segmenter.has_auxiliary_head
    assert segmenter(torch.rand(1, 3, 32, 32)).auxiliary_logits is None
    assert not any(name.startswith("auxiliary") for name in segmenter.state_dict())
    assert TINY.build(5).has_auxiliary_head


def test_toy_network_has_two_million_parameters() -> None:
    config = DeepLabV3PlusConfig(
        backbone="resnet18",
        backbone_weights="none",
        backbone_width=24,
        aspp_rates=(1, 2, 4),
        aspp_channels=64,
        low_level_channels=24,
        decoder_channels=64,
        auxiliary_head=False,
    )
    segmenter = config.build(19)
    stem = 3 * 7 * 7 * 24 + 2 * 24
    stages = 4 * (9 * 24 * 24) + 4 * 48
    for width in (48, 96, 192):  # four 3x3 convolutions, a 1x1 shortcut, five norms
        half = width // 2
        stages += 9 * half * width + 3 * (9 * width * width) + half * width + 5 * 2 * width
    trunk = stem + stages
    pyramid = 2 * (192 * 64) + 3 * (9 * 192 * 64) + 5 * 128 + (320 * 64 + 128)
    decoder = (24 * 24 + 48) + (9 * 88 * 64 + 128) + (9 * 64 * 64 + 128) + (64 * 19 + 19)
    assert sum(p.numel() for p in segmenter.backbone_parameters()) == trunk
    assert sum(p.numel() for p in segmenter.head_parameters()) == pyramid + decoder
    assert trunk + pyramid + decoder == pytest.approx(2.05e6, rel=0.01)


def test_a_separable_network_has_the_parameters_worked_out_by_hand() -> None:
    """For each 3x3 convolution of a to b channels: 9a and 2a of its norm, then ab and 2b."""
    plain, separable = TINY.build(5), replace(TINY, separable=True).build(5)
    changed = [(32, 8), (32, 8), (8 + 4, 8), (8, 8)]  # two of the ASPP, two of the decoder
    fewer = sum(9 * a * b + 2 * b - (9 * a + 2 * a + a * b + 2 * b) for a, b in changed)
    counts = [sum(p.numel() for p in s.head_parameters()) for s in (plain, separable)]
    assert counts[0] - counts[1] == fewer
    depthwise = [m for m in separable.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert [(m.groups, m.dilation) for m in depthwise] == [
        (32, (1, 1)), (32, (2, 2)), (12, (1, 1)), (8, (1, 1))
    ]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_parameter_groups_are_disjoint_and_complete(mode: BatchNormMode) -> None:
    segmenter = replace(TINY, batch_norm=mode).build(5)
    groups = segmenter.backbone_parameters() + segmenter.head_parameters()
    assert len({id(p) for p in groups}) == len(groups)
    trained = {id(p) for p in segmenter.parameters() if p.requires_grad}
    assert {id(p) for p in groups} == trained
    affine = {id(p) for layer in backbone_norms(segmenter) for p in layer.parameters()}
    assert len(affine) == 40
    assert affine.isdisjoint(trained) == (mode != "train")
    heads = [name for name, p in segmenter.named_parameters() if not p.requires_grad]
    assert not any("backbone" not in name for name in heads)


@pytest.mark.parametrize("mode", MODES)
def test_batch_norm_mode_survives_toggles(mode: BatchNormMode) -> None:
    segmenter = replace(TINY, batch_norm=mode, dropout=0.0).build(5)
    copied = copy.deepcopy(segmenter)
    for network in (segmenter, copied, segmenter.eval().train(), nn.Sequential(segmenter).train()):
        expected = mode != "frozen"
        modules = [m for m in network.modules() if isinstance(m, Segmenter)]
        assert all(n.training == expected for m in modules for n in backbone_norms(m))
        assert network.training
    before = copy.deepcopy(segmenter.state_dict())
    optimizer = torch.optim.SGD(
        [*segmenter.backbone_parameters(), *segmenter.head_parameters()], lr=0.1, weight_decay=0.1
    )
    total(segmenter(torch.rand(2, 3, 64, 64))).backward()
    optimizer.step()
    after = segmenter.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "backbone.conv1.weight" in moved
    assert ("backbone.bn1.running_mean" in moved) == (mode != "frozen")
    assert ("backbone.bn1.running_var" in moved) == (mode != "frozen")
    assert ("backbone.layer4.1.bn2.weight" in moved) == (mode == "train")
    assert ("backbone.bn1.bias" in moved) == (mode == "train")


def test_evaluation_uses_and_keeps_running_statistics() -> None:
    segmenter = TINY.build(5).eval()
    before = copy.deepcopy(segmenter.state_dict())
    images = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        together = segmenter(images).logits
        alone = segmenter(images[:1]).logits
    torch.testing.assert_close(together[:1], alone)
    assert all(torch.equal(before[name], t) for name, t in segmenter.state_dict().items())


def test_frozen_batch_norm_does_not_look_at_the_batch() -> None:
    segmenter = replace(TINY, batch_norm="frozen", dropout=0.0).build(5)
    images = torch.rand(2, 3, 48, 48)
    torch.testing.assert_close(segmenter(images).logits[:1], segmenter(images[:1]).logits)
    other = replace(TINY, batch_norm="frozen_affine", dropout=0.0).build(5)
    assert not torch.allclose(other(images).logits[:1], other(images[:1]).logits, rtol=1e-2)


def test_one_image_trains_with_group_norm() -> None:
    segmenter = TINY.build(5)
    total(segmenter(torch.rand(1, 3, 33, 49))).backward()
    for name, parameter in segmenter.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_one_image_does_not_train_with_batch_norm_heads() -> None:
    segmenter = replace(TINY, head_norm="batch").build(5)
    images = torch.rand(1, 3, 64, 64)
    with pytest.raises(InputError, match=r"a batch of 1 image .* model.head_norm=group or larger"):
        segmenter(images)
    assert segmenter(images.expand(2, -1, -1, -1)).logits.shape == (2, 5, 64, 64)
    assert segmenter.eval()(images).logits.shape == (1, 5, 64, 64)
    assert not any(isinstance(m, nn.GroupNorm) for m in segmenter.modules())


@pytest.mark.parametrize(
    ("channels", "groups"), [(256, 32), (64, 32), (48, 24), (24, 24), (320, 32), (66, 22)]
)
def test_groups_are_the_largest_divisor_up_to_32(channels: int, groups: int) -> None:
    segmenter = replace(TINY, decoder_channels=channels).build(5)
    norm = segmenter.get_submodule("decoder.0.1")
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == groups


def test_image_pooling_keeps_more_than_signs() -> None:
    """With 2 channels per group, normalizing a 1x1 map would leave +1 and -1 only."""
    segmenter = replace(TINY, aspp_channels=64).build(5)
    pooled = segmenter.get_submodule("aspp.pooled")
    outputs = pooled(torch.rand(1, 32, 1, 1))
    assert outputs.unique().numel() > 10


@pytest.mark.parametrize(("output_stride", "rates"), [(16, [6, 12, 18]), (8, [12, 24, 36])])
def test_usual_dilations_follow_the_output_stride(
    output_stride: Literal[8, 16], rates: list[int]
) -> None:
    config = replace(TINY, output_stride=output_stride, aspp_rates=())
    branches = config.build(5).get_submodule("aspp.branches")
    convolutions = [m for m in branches.modules() if isinstance(m, nn.Conv2d)]
    assert [c.dilation for c in convolutions] == [(1, 1), *((rate, rate) for rate in rates)]


def test_initialization() -> None:
    config = replace(TINY, decoder_channels=256, backbone_width=16)
    segmenter = config.build(19)
    for name in ("decoder.2", "auxiliary.2"):
        classifier = segmenter.get_submodule(name)
        assert isinstance(classifier, nn.Conv2d)
        assert classifier.bias is not None
        assert not classifier.bias.any()
        assert classifier.weight.std().item() == pytest.approx(0.01, rel=0.1)
    hidden = segmenter.get_submodule("decoder.1.0")
    assert isinstance(hidden, nn.Conv2d)
    fan_out = 9 * 256
    assert hidden.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_norm": "layer"}, "'layer'; allowed: batch, group"),
        ({"batch_norm": "eval"}, "'eval'; allowed: train, frozen_affine, frozen"),
        ({"backbone": "vgg16"}, "'vgg16'; allowed: .*resnet18, resnet34, resnet50, resnet101"),
        ({"output_stride": 4}, "output_stride is 4; allowed: 8, 16"),
        ({"aspp_rates": (6, 0)}, "dilations of 1 or more"),
        ({"aspp_channels": 1}, "model.aspp_channels is 1; allowed: 2 or more"),
        ({"dropout": 1.0}, "model.dropout is 1.0"),
        ({"dropout": -0.1}, "model.dropout is -0.1"),
    ],
)
def test_values_that_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(TINY, **changes).build(5)  # type: ignore[arg-type]


def test_no_classes_are_refused() -> None:
    with pytest.raises(InputError, match="num_classes is 0"):
        TINY.build(0)


def test_provenance_is_the_backbones(tmp_path: Path) -> None:
    assert TINY.build(5).provenance == "random"
    path = tmp_path / "trunk.pth"
    torch.save(resnet_backbone("resnet18", width=4, weights="none").state_dict(), path)
    segmenter = replace(TINY, backbone_weights=str(path)).build(5)
    assert segmenter.provenance.startswith("file trunk.pth sha256:")


def test_bfloat16_autocast_in_channels_last_returns_float32_logits() -> None:
    segmenter = replace(TINY, dropout=0.0).build(5)
    images = torch.rand(2, 3, 65, 97)
    expected = segmenter(images).logits
    segmenter = segmenter.to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(segmenter(images).logits, expected, rtol=1e-3, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = segmenter(images)
    assert output.logits.dtype == torch.float32
    assert output.auxiliary_logits is not None
    assert output.auxiliary_logits.dtype == torch.float32
    assert F.cosine_similarity(output.logits.flatten(), expected.flatten(), dim=0) > 0.99
    total(output).backward()
    assert all(p.grad is not None for p in segmenter.parameters())


def test_state_dict_restores_a_network() -> None:
    first = TINY.build(5)
    first(torch.rand(2, 3, 64, 64))
    second = TINY.build(5)
    second.load_state_dict(first.state_dict())
    images = torch.rand(1, 3, 40, 56)
    assert torch.equal(first.eval()(images).logits, second.eval()(images).logits)


class _Echo(Segmenter):
    """Hands on what its backbone is given, at a quarter of the size."""

    @property
    def has_auxiliary_head(self) -> bool:
        return False

    def encode(self, normalized: Tensor) -> FeatureMaps:
        return (self.backbone(normalized),)

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        (echoed,) = features
        return SegmentationOutput(echoed[..., ::4, ::4], None, echoed)


def echo(normalization: Normalization, align_corners: bool = False) -> _Echo:
    return _Echo(
        nn.Identity(),
        provenance="none",
        align_corners=align_corners,
        normalization=normalization,
    )


def test_imagenet_normalization_is_the_default_and_saved() -> None:
    segmenter = _Echo(nn.Identity(), provenance="none")
    images = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) + torch.tensor(
        [0.229, 0.0, -0.225]
    ).view(1, 3, 1, 1)
    features = segmenter(images).features.flatten()
    torch.testing.assert_close(features, torch.tensor([1.0, 0.0, -1.0]))
    assert set(segmenter.state_dict()) == {"mean", "std"}
    segmenter.load_state_dict({"mean": torch.zeros(1, 3, 1, 1), "std": torch.ones(1, 3, 1, 1)})
    torch.testing.assert_close(segmenter(images).features, images)


def test_caffe_normalization_is_bytes_in_bgr_minus_a_mean() -> None:
    red, green, blue = 200.0, 100.0, 50.0
    images = torch.tensor([red, green, blue]).view(1, 3, 1, 1) / 255
    features = echo(CAFFE)(images).features.flatten()
    expected = torch.tensor([blue - 104.00698793, green - 116.66876762, red - 122.67891434])
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("align_corners", [False, True])
def test_logits_are_resized_bilinearly(align_corners: bool) -> None:
    plain = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    images = torch.zeros(1, 3, 1, 5)
    images[..., 4] = 1.0  # every fourth pixel is kept: 0 and 1
    logits = echo(plain, align_corners)(images).logits[0, 0, 0]
    # Five pixels over two values: centers at 0.4 * (x + 0.5) - 0.5, or x / 4 between the corners.
    expected = [0.0, 0.25, 0.5, 0.75, 1.0] if align_corners else [0.0, 0.1, 0.5, 0.9, 1.0]
    torch.testing.assert_close(logits, torch.tensor(expected))


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(3, 8, 8),
        torch.zeros(1, 4, 8, 8),
    ],
)
def test_images_of_another_kind_are_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"allowed: \(N, 3, H, W\) float RGB in \[0, 1\]"):
        TINY.build(5)(images)


def test_segmenters_are_built_in_training_mode() -> None:
    segmenter = TINY.build(5)
    assert isinstance(segmenter, DeepLabV3Plus)
    assert segmenter.training
