"""DeepLabV3+ on networks of timm: features, weights, normalization, what is refused."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.models.encoders.timm import TimmBackbone, timm_backbone
from uda.models.segmenter import Segmenter, between_extremes
from uda.utilities.errors import InputError

timm = pytest.importorskip("timm")

RESNET = "resnet10t"
CONVNEXT = "convnext_atto"  # no batch norm; names of features are not those of the whole network
SMALL = "mobilenetv3_small_050"  # its batch norm has the activation in it
TINY = DeepLabV3PlusConfig(
    backbone=f"timm/{SMALL}",
    backbone_weights="none",
    aspp_channels=8,
    low_level_channels=4,
    decoder_channels=8,
    auxiliary_head=False,
)


def trunk(name: str, *, output_stride: Any = 16, weights: str = "none") -> TimmBackbone:  # noqa: ANN401
    torch.manual_seed(0)
    return timm_backbone(name, output_stride=output_stride, weights=weights)


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 40)])
@pytest.mark.parametrize(
    ("name", "output_stride"), [(RESNET, 16), (RESNET, 8), (SMALL, 16), (CONVNEXT, 16)]
)
def test_features_lie_at_their_strides(
    name: str, output_stride: int, size: tuple[int, int]
) -> None:
    backbone = trunk(name, output_stride=output_stride).eval()
    features = backbone(torch.rand(1, 3, *size))
    assert backbone.strides == {8: (4, 8, 8), 16: (4, 8, 16, 16)}[output_stride]
    declared = zip(features, backbone.channels, backbone.strides, strict=True)
    for feature, channels, stride in declared:
        assert feature.shape[:2] == (1, channels)
        for found, side in zip(feature.shape[2:], size, strict=True):
            # ConvNeXt's patches leave out what does not fill one.
            assert found == (side // stride if name == CONVNEXT else math.ceil(side / stride))


@pytest.mark.parametrize(
    ("output_stride", "channels"),
    [(8, (64, 256, 512)), (16, (64, 128, 256, 512)), (32, (64, 128, 256, 512))],
)
def test_the_auxiliary_head_has_the_last_but_one_stage(
    output_stride: int, channels: tuple[int, ...]
) -> None:
    assert trunk(RESNET, output_stride=output_stride).channels == channels


def test_a_network_without_dilation_ends_at_stride_16() -> None:
    backbone = trunk("densenet121").eval()
    features = backbone(torch.rand(1, 3, 64, 48))
    assert backbone.strides == (4, 8, 16)
    assert features[-1].shape[2:] == (4, 3)
    assert not any("denseblock4" in name for name, _ in backbone.named_modules())


def test_inception_resnet_v2_reads_any_size() -> None:
    """Without padding it makes 60x60, not 64x64, of 256x256 at stride 4, and nothing of 33x20."""
    backbone = trunk("inception_resnet_v2").eval()
    assert backbone.channels == (192, 320, 1088)
    assert backbone.normalization.mean == backbone.normalization.std == (0.5, 0.5, 0.5)
    for size in ((256, 256), (255, 65), (33, 20)):
        low_level, *_, deep = backbone(torch.rand(1, 3, *size))
        assert low_level.shape[2:] == tuple(math.ceil(side / 4) for side in size)
        assert deep.shape[2:] == tuple(math.ceil(side / 16) for side in size)


def test_padding_lays_features_upon_the_image() -> None:
    """A bright spot shows where it is, at every stride."""
    backbone = trunk("inception_resnet_v2").eval()
    image = torch.zeros(1, 3, 128, 128)
    image[:, :, 96:112, 16:32] = 1
    with torch.no_grad():
        seen, unseen = backbone(image), backbone(torch.zeros_like(image))
    for feature, without, stride in ((seen[0], unseen[0], 4), (seen[2], unseen[2], 16)):
        change = (feature - without).abs().sum(dim=(0, 1))
        places = (torch.arange(128 // stride) + 0.5) * stride
        row = (change.sum(dim=1) * places).sum() / change.sum()
        column = (change.sum(dim=0) * places).sum() / change.sum()
        assert abs(row - 104) < stride
        assert abs(column - 24) < stride


@pytest.mark.parametrize("name", [SMALL, CONVNEXT])
def test_a_file_of_the_whole_network_gives_its_features(name: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    whole = timm.create_model(name).eval()
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    backbone = trunk(name, weights=str(tmp_path / "whole.pth")).eval()
    assert backbone.provenance.startswith("file whole.pth sha256:")
    images = torch.rand(2, 3, 64, 64)
    wanted = timm.create_model(name, features_only=True, output_stride=16).eval()
    own = wanted.state_dict()
    named = {key.replace(".", "_"): value for key, value in whole.state_dict().items()}
    wanted.load_state_dict({key: named[key.replace(".", "_")] for key in own})
    assert torch.allclose(backbone(images)[-1], wanted(images)[-1], atol=1e-6)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(timm.create_model("resnet14t").state_dict(), path)
    with pytest.raises(InputError, match=r"does not hold the weights of a resnet10t of timm"):
        trunk(RESNET, weights=str(path))
    with pytest.raises(InputError, match="allowed: none, imagenet, or the path of a timm state"):
        trunk(RESNET, weights="nowhere")


def test_no_way_to_the_weights_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, *, pretrained: bool = False, **options: object) -> nn.Module:
        if pretrained:
            raise OSError("cannot find the requested files")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        InputError, match=r"weights of resnet10t could not be .*timm/resnet10t\."
    ) as e:
        trunk(RESNET, weights="imagenet")
    assert "\n" not in str(e.value)
    with pytest.raises(InputError, match="timm has no weights of efficientnet_b8"):
        trunk("efficientnet_b8", weights="imagenet")


def test_normalization_is_the_networks_own() -> None:
    segmenter = TINY.build(3)
    assert segmenter.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    inception = replace(TINY, backbone="timm/inception_resnet_v2").build(3)
    assert inception.normalize(torch.full((1, 3, 2, 2), 0.75)).flatten().tolist() == [0.5] * 12


def test_min_max_scaling_is_of_each_channel_of_each_image() -> None:
    segmenter = replace(TINY, input_scaling="min_max").build(3)
    images = torch.rand(2, 3, 4, 5)
    images[1, 2] = 0.3  # constant: as MinMaxScaler does, 0
    images[0, 0] = torch.tensor([0.2, 0.4, 0.6, 0.6, 0.2])
    scaled = segmenter.normalize(images)
    assert torch.allclose(scaled[0, 0, 0], torch.tensor([0, 0.5, 1, 1, 0]))
    assert scaled[1, 2].unique().tolist() == [0]
    assert scaled.amin(dim=(2, 3)).unique().tolist() == [0]
    assert torch.equal(between_extremes(0.5 * images), between_extremes(images))


@pytest.mark.parametrize("size", [(64, 64), (33, 49)])
def test_logits_at_input_size(size: tuple[int, int]) -> None:
    output = replace(TINY, auxiliary_head=True).build(6)(torch.rand(2, 3, *size))
    assert output.logits.shape == (2, 6, *size)
    assert output.auxiliary_logits is not None
    assert output.auxiliary_logits.shape == (2, 6, *size)


def test_gradients_reach_every_parameter() -> None:
    segmenter = TINY.build(6)
    segmenter(torch.rand(2, 3, 64, 64)).logits.square().mean().backward()
    assert all(p.grad is not None for p in segmenter.parameters())


def norms(segmenter: Segmenter) -> list[nn.BatchNorm2d]:
    return [m for m in segmenter.backbone.modules() if isinstance(m, nn.BatchNorm2d)]


def test_batch_norm_modes_hold_for_all_of_it() -> None:
    count = sum(isinstance(m, nn.BatchNorm2d) for m in timm.create_model(SMALL).modules())
    for mode, learned, statistics in (
        ("train", True, True), ("frozen_affine", False, True), ("frozen", False, False)
    ):  # fmt: skip
        segmenter = replace(TINY, batch_norm=mode).build(3).train()  # type: ignore[arg-type]
        assert len(norms(segmenter)) == count
        # Of torch's own kind, so that processes can exchange the statistics.
        assert {type(layer) for layer in norms(segmenter)} == {nn.BatchNorm2d}
        assert {p.requires_grad for n in norms(segmenter) for p in n.parameters()} == {learned}
        assert {layer.training for layer in norms(segmenter)} == {statistics}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"backbone": "timm/resnet10"}, "no network of that name; .*resnet10t"),
        # Names of snapshots come here, too: they lead to no hub and to no folder.
        ({"backbone": "timm/hf-hub:somebody/else"}, "no network of that name"),
        ({"backbone": "timm/hf_hub:somebody/else"}, "no network of that name"),
        ({"backbone": "timm/local-dir:/tmp"}, "no network of that name"),
        # A billion weights, which any snapshot may ask for: they are never made.
        ({"backbone": "timm/vit_giant_patch14_224"}, "needed: 4 and 16"),
        ({"backbone": "timm/swin_tiny_patch4_window7_224"}, "does not make feature maps"),
        ({"backbone": "timm/densenet121", "output_stride": 8}, "or model.output_stride=16"),
        ({"backbone": "resnet19"}, "allowed: .*resnet18, .*, or timm/"),
        ({"backbone_width": 32}, "backbone_width is 32.*--set model.backbone_width=64"),
        ({"backbone": "timm/convnext_atto", "batch_norm": "frozen"}, "has no batch norm"),
        ({"input_scaling": "none"}, "allowed: statistics, min_max"),
    ],
)
def test_what_would_be_ignored_or_cannot_be_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        replace(TINY, **changes).build(3)
    assert "\n" not in str(caught.value)


def test_without_timm_one_line_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(InputError, match=r"pip install 'uda\[timm\]'"):
        TINY.build(3)
