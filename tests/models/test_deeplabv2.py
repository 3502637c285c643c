"""DeepLab-v2: the originals' logits for reproducible weights, and every quirk by itself."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from recipes import recipe_image, recipe_network
from uda.evaluation.batch_norm import reestimate_batch_norm
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.encoders.base import CAFFE
from uda.models.registry import model_from_plain
from uda.utilities.config_tree import to_plain
from uda.utilities.errors import InputError

GOLDEN = Path(__file__).parents[1] / "data" / "golden"

TINY = DeepLabV2Config(
    backbone="resnet18",
    backbone_weights="none",
    backbone_width=4,
    aspp_rates=(1, 2, 3, 4),
)
TINY_SUM = replace(TINY, head="sum", aspp_rates=(1, 2, 18, 24), aspp_branches=2, dropout=0.0)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("format_name", "file", "prefix", "count", "millions"),
    [
        pytest.param(
            "AdaptSegNet two-level DeepLab-v2",
            "adaptsegnet_deeplab_multi",
            "module.",
            640,
            44.6,
            marks=pytest.mark.slow,
        ),
        (
            "AdaptSegNet single-level DeepLab-v2",
            "adaptsegnet_deeplab_single",
            "module.Scale.",
            632,
            43.9,
        ),
        pytest.param(
            "Seg-Uncertainty two-level DeepLab-v2",
            "seg_uncertainty_deeplab_multi_se_gn",
            "Scale.",
            682,
            93.5,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_file_of_the_original_gives_the_originals_logits(
    format_name: str, file: str, prefix: str, count: int, millions: float, tmp_path: Path
) -> None:
    project = format_name.split()[0].lower().replace("-", "_")
    segmenter, entries = recipe_network(format_name, tmp_path, prefix=prefix, project=project)
    assert entries == count
    assert sum(p.numel() for p in segmenter.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    golden = np.load(GOLDEN / f"{file}.npz")
    compared = 0
    for height, width in ((65, 97), (96, 160)):
        with torch.no_grad():
            output = segmenter(recipe_image(height, width))
        for head, logits in (("main", output.logits), ("auxiliary", output.auxiliary_logits)):
            if logits is not None:
                expected = golden[f"{head}_{height}x{width}"]
                difference = np.abs(logits[0, :, ::8, ::8].numpy() - expected).max()
                assert difference / np.abs(expected).max() < 1e-5, (head, height, width)
                compared += 1
    assert compared == len(golden.files)


@pytest.mark.parametrize("head", ["sum", "se_group_norm"])
@pytest.mark.parametrize("levels", [1, 2])
def test_sizes_and_heads(levels: Literal[1, 2], head: Literal["sum", "se_group_norm"]) -> None:
    config = replace(TINY_SUM, levels=levels, head=head, aspp_branches=4)
    segmenter = config.build(5)
    output = segmenter(torch.rand(2, 3, 40, 72))
    assert output.logits.shape == (2, 5, 40, 72)
    assert output.features.shape == (2, 32, 6, 10)  # 40 / 8 + 1, 72 / 8 + 1
    assert segmenter.has_auxiliary_head == config.has_auxiliary_head == (levels == 2)
    assert (output.auxiliary_logits is None) == (levels == 1)
    if output.auxiliary_logits is not None:
        assert output.auxiliary_logits.shape == (2, 5, 40, 72)
    assert config.auxiliary_switch == ("levels", "1")


@pytest.mark.parametrize(("ceil_mode", "size"), [(True, (46, 81)), (False, (45, 80))])
def test_features_of_the_logs_crop(ceil_mode: bool, size: tuple[int, int]) -> None:
    segmenter = replace(TINY_SUM, ceil_mode=ceil_mode).build(5).eval()
    with torch.no_grad():
        assert segmenter(torch.rand(1, 3, 360, 640)).features.shape[-2:] == size


def test_input_is_normalized_as_caffe_did() -> None:
    segmenter = TINY_SUM.build(5)
    assert segmenter.bgr
    torch.testing.assert_close(segmenter.mean.flatten(), torch.tensor(CAFFE.mean))


@pytest.mark.parametrize("branches", [2, 4])
def test_branches_that_are_summed(branches: Literal[2, 4]) -> None:
    segmenter = replace(TINY_SUM, aspp_branches=branches).build(5).eval()
    images = torch.rand(1, 3, 33, 49)
    with torch.no_grad():
        before = segmenter(images)
        expected = torch.zeros(1)
        for index, rate in list(enumerate(TINY_SUM.aspp_rates))[:branches]:
            weight = segmenter.get_parameter(f"main.conv2d_list.{index}.weight")
            bias = segmenter.get_parameter(f"main.conv2d_list.{index}.bias")
            expected = expected + F.conv2d(
                before.features, weight, bias, padding=rate, dilation=rate
            )
        torch.testing.assert_close(segmenter.coarse(images).logits, expected)
        segmenter.get_parameter("main.conv2d_list.2.weight").add_(1.0)
        changed = not torch.equal(before.logits, segmenter(images).logits)
    assert changed == (branches == 4)


@pytest.mark.parametrize(
    ("config", "fixed"),
    [
        (TINY, set()),
        (replace(TINY, levels=1), set()),
        (replace(TINY_SUM, aspp_branches=4), set()),
        (TINY_SUM, {f"{head}.conv2d_list.{i}" for head in ("main", "auxiliary") for i in (2, 3)}),
    ],
)
def test_every_trained_parameter_gets_a_gradient(config: DeepLabV2Config, fixed: set[str]) -> None:
    segmenter = replace(config, batch_norm="frozen_affine").build(5)
    output = segmenter(torch.rand(2, 3, 33, 49))
    loss = output.logits.square().sum()
    if output.auxiliary_logits is not None:
        loss = loss + output.auxiliary_logits.square().sum()
    loss.backward()
    norms = {
        name for name, m in segmenter.backbone.named_modules() if isinstance(m, nn.BatchNorm2d)
    }
    expected = {f"backbone.{norm}" for norm in norms} | fixed
    untrained = {
        name.rpartition(".")[0] for name, p in segmenter.named_parameters() if not p.requires_grad
    }
    assert untrained == expected
    for name, parameter in segmenter.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    groups = [*segmenter.backbone_parameters(), *segmenter.head_parameters()]
    assert all(p.requires_grad for p in groups)


def default_std(fan_in: int) -> float:
    """Of PyTorch's own initialization, uniform between -1 / sqrt(fan_in) and its opposite."""
    return 1 / math.sqrt(3 * fan_in)


def test_initialization_of_the_sum() -> None:
    head = replace(TINY_SUM, backbone_width=16).build(19).main
    for index in range(4):
        weight = head.get_parameter(f"conv2d_list.{index}.weight")
        assert weight.std().item() == pytest.approx(0.01, rel=0.05)
        bias = head.get_parameter(f"conv2d_list.{index}.bias")
        assert 0 < bias.abs().max().item() <= 1 / math.sqrt(9 * 128)


def test_initialization_of_se_group_norm() -> None:
    head = replace(TINY, backbone_width=16).build(19).main
    joined = 128 + 64  # layer4 and layer3 of a ResNet-18 of width 16
    for name, std in (
        ("conv2d_list.0.0", default_std(joined)),
        ("conv2d_list.3.0", default_std(9 * joined)),
        ("bottleneck.0.se.0", default_std(5 * 64)),
        ("bottleneck.1", math.sqrt(2 / (9 * 5 * 64))),
        ("head.1", 0.001),
    ):
        assert head.get_parameter(f"{name}.weight").std().item() == pytest.approx(std, rel=0.05)
    assert head.get_parameter("conv2d_list.3.0.bias").any()
    assert not head.get_parameter("bottleneck.1.bias").any()
    assert head.get_submodule("head.1").bias is None


@pytest.mark.parametrize(
    ("width", "branch", "hidden", "squeezed", "groups"),
    [(64, 256, 512, 80, 32), (24, 96, 192, 30, 12), (7, 28, 56, 8, 2), (1, 4, 8, 1, 1)],
)
def test_se_group_norm_scales_with_the_backbone(
    width: int, branch: int, hidden: int, squeezed: int, groups: int
) -> None:
    head = replace(TINY, backbone_width=width).build(5).main
    norm = head.get_submodule("conv2d_list.4.1")
    assert isinstance(norm, nn.GroupNorm)
    assert (norm.num_channels, norm.num_groups) == (branch, groups)
    assert head.get_parameter("bottleneck.0.se.0.weight").shape == (squeezed, 5 * branch)
    assert head.get_parameter("head.1.weight").shape == (5, hidden, 1, 1)


def test_parts_of_a_batch_are_normalized_as_single_images() -> None:
    whole = TINY_SUM.build(5)
    parts = replace(TINY_SUM, batch_norm_parts=2).build(5)
    parts.load_state_dict(whole.state_dict())
    first, second, both = copy.deepcopy(whole), copy.deepcopy(whole), torch.rand(2, 3, 65, 97)
    logits = parts(both).logits
    torch.testing.assert_close(logits[:1], first(both[:1]).logits)
    torch.testing.assert_close(logits[1:], second(both[1:]).logits)
    assert not torch.allclose(logits, whole(both).logits, rtol=1e-2)
    after = parts.state_dict()
    assert after["backbone.layer4.1.bn2.num_batches_tracked"] == 1
    for name, value in first.state_dict().items():
        torch.testing.assert_close(after[name], value)
    mean = "backbone.bn1.running_mean"
    assert not torch.allclose(after[mean], second.state_dict()[mean])
    torch.testing.assert_close(parts.eval()(both).logits, first.eval()(both).logits)


def test_parts_are_those_of_data_parallel() -> None:
    """Three images on two GPUs are two and one."""
    whole = TINY_SUM.build(5)
    parts = replace(TINY_SUM, batch_norm_parts=2).build(5)
    parts.load_state_dict(whole.state_dict())
    images = torch.rand(3, 3, 65, 97)
    expected = torch.cat([whole(images[:2]).logits, whole(images[2:]).logits])
    torch.testing.assert_close(parts(images).logits, expected)


def test_more_parts_than_images_are_refused_in_training_only() -> None:
    segmenter = replace(TINY_SUM, batch_norm_parts=2).build(5)
    image = torch.rand(1, 3, 65, 97)
    with pytest.raises(InputError, match=r"a batch has 1 .* model.batch_norm_parts is 2"):
        segmenter(image)
    segmenter.eval()(image)


def test_reestimated_statistics_are_of_whole_batches() -> None:
    whole = TINY_SUM.build(5)
    parts = replace(TINY_SUM, batch_norm_parts=2).build(5)
    parts.load_state_dict(whole.state_dict())
    batches = [torch.rand(2, 3, 65, 97), torch.rand(1, 3, 65, 97)]
    for segmenter in (whole, parts):
        reestimate_batch_norm(segmenter, batches)
    torch.testing.assert_close(parts.state_dict(), whole.state_dict())


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (TINY, {"backbone_weights": "imagenet"}, "Caffe ResNet's file, such as AdaptSegNet's"),
        (TINY, {"backbone": "vgg16"}, "'vgg16'; allowed: resnet18, resnet34, resnet50, resnet101"),
        (TINY, {"batch_norm": "eval"}, "'eval'; allowed: train, frozen_affine, frozen"),
        (TINY, {"levels": 3}, "model.levels is 3; allowed: 1, 2"),
        (TINY, {"head": "aspp"}, "model.head is 'aspp'; allowed: sum, se_group_norm"),
        (TINY, {"aspp_branches": 3}, "model.aspp_branches is 3; allowed: 2, 4"),
        (TINY, {"aspp_branches": 2}, "2, but model.head=se_group_norm joins all .* allowed: 4"),
        (TINY, {"aspp_rates": (1, 2, 3)}, "four dilations of 1 or more"),
        (TINY, {"aspp_rates": (0, 1, 2, 3)}, "four dilations of 1 or more"),
        (TINY_SUM, {"aspp_rates": (1, 2, 3, 4)}, "only 2 branches are summed"),
        (TINY, {"dropout": 1.0}, "model.dropout is 1.0"),
        (TINY_SUM, {"dropout": 0.1}, "0.1, but model.head=sum has no dropout; allowed: 0"),
        (TINY, {"batch_norm_parts": 0}, "model.batch_norm_parts is 0; allowed: 1 or more"),
        (TINY, {"batch_norm_parts": 2, "batch_norm": "frozen"}, "2, but model.batch_norm=frozen"),
    ],
)
def test_values_that_are_refused(
    config: DeepLabV2Config, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as e:
        replace(config, **changes).build(5)  # type: ignore[arg-type]
    assert "\n" not in str(e.value)


def test_no_classes_are_refused() -> None:
    with pytest.raises(InputError, match="num_classes is 0"):
        TINY.build(0)


def test_stored_settings_are_read_again() -> None:
    config = replace(TINY_SUM, levels=1, batch_norm_parts=2)
    plain = {"type": "DeepLabV2Config", **to_plain(config)}
    assert model_from_plain(plain, origin="snapshot") == config
