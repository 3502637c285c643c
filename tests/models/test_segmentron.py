"""SegmenTron's DeepLabV3+: sizes, widths, modes, refused settings. Its published logits are in
test_checkpoints.py."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from uda.data.config import DataConfig, DomainConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig, validate
from uda.models.encoders.resnet import resnet_backbone
from uda.models.registry import model_from_plain
from uda.models.segmenter import BatchNormMode, Segmenter
from uda.models.segmentron import SegmenTronConfig
from uda.objectives.supervised import SupervisedConfig
from uda.utilities.config_tree import to_plain
from uda.utilities.errors import InputError

TINY = SegmenTronConfig(backbone="resnet18", backbone_weights="none", backbone_width=4)
MODES: tuple[BatchNormMode, ...] = ("train", "frozen_affine", "frozen")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def shape_of(segmenter: Segmenter, name: str) -> tuple[int, ...]:
    return tuple(segmenter.state_dict()[name].shape)


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (17, 33)])
def test_logits_have_input_size_and_features_stride_16(size: tuple[int, int]) -> None:
    output = TINY.build(5)(torch.rand(2, 3, *size))
    assert output.logits.shape == (2, 5, *size)
    assert output.auxiliary_logits is None
    assert output.features.shape == (2, 32, -(-size[0] // 16), -(-size[1] // 16))


def test_the_usual_width_is_the_published_one() -> None:
    with torch.device("meta"):
        segmenter = SegmenTronConfig(backbone_weights="none").build(19)
    assert shape_of(segmenter, "aspp.project.conv.weight") == (256, 5 * 256, 1, 1)
    assert shape_of(segmenter, "low_level.conv.weight") == (48, 256, 1, 1)
    assert shape_of(segmenter, "decoder.0.depthwise.weight") == (304, 1, 3, 3)
    assert shape_of(segmenter, "decoder.2.weight") == (19, 256, 1, 1)


def test_heads_scale_with_the_backbone() -> None:
    segmenter = replace(TINY, backbone_width=16).build(5)
    assert shape_of(segmenter, "aspp.branches.3.depthwise.weight") == (128, 1, 3, 3)
    assert shape_of(segmenter, "aspp.branches.3.pointwise.weight") == (64, 128, 1, 1)
    assert shape_of(segmenter, "low_level.conv.weight") == (12, 16, 1, 1)
    assert shape_of(segmenter, "decoder.1.pointwise.weight") == (64, 64, 1, 1)


def test_dilations_of_the_pyramid() -> None:
    branches = TINY.build(5).get_submodule("aspp.branches")
    depthwise = [m for m in branches.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert [m.dilation for m in depthwise] == [(6, 6), (12, 12), (18, 18)]


def test_gradients_reach_every_parameter() -> None:
    segmenter = replace(TINY, dropout=0.0).build(5)
    segmenter(torch.rand(3, 3, 65, 97)).logits.square().sum().backward()
    for name, parameter in segmenter.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("mode", MODES)
def test_batch_norm_mode_concerns_the_backbone_only(mode: BatchNormMode) -> None:
    segmenter = replace(TINY, batch_norm=mode).build(5)
    groups = segmenter.backbone_parameters() + segmenter.head_parameters()
    trained = [p for p in segmenter.parameters() if p.requires_grad]
    assert {id(p) for p in groups} == {id(p) for p in trained}
    assert len(groups) == len(trained)
    before = copy.deepcopy(segmenter.state_dict())
    optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=0.1)
    segmenter(torch.rand(2, 3, 64, 64)).logits.square().sum().backward()
    optimizer.step()
    after = segmenter.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"backbone.conv1.weight", "decoder.2.bias", "aspp.pooled.bn.weight"} <= moved
    assert {"aspp.pooled.bn.running_mean", "decoder.1.bn_depth.running_var"} <= moved
    assert ("backbone.bn1.running_mean" in moved) == (mode != "frozen")
    assert ("backbone.layer4.1.bn2.weight" in moved) == (mode == "train")


def test_one_image_is_evaluated_but_does_not_train() -> None:
    segmenter = TINY.build(5)
    images = torch.rand(1, 3, 64, 64)
    with pytest.raises(InputError, match=r"a batch of 1 image .* use larger batches, or DeepLabV3"):
        segmenter(images)
    assert segmenter.eval()(images).logits.shape == (1, 5, 64, 64)


def test_evaluation_does_not_look_at_the_batch() -> None:
    segmenter = TINY.build(5).eval()
    images = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(segmenter(images).logits[:1], segmenter(images[:1]).logits)


def test_dropout_drops_whole_channels() -> None:
    dropout = replace(TINY, dropout=0.5).build(5).get_submodule("aspp.dropout")
    dropped = dropout(torch.ones(8, 16, 3, 5))
    assert torch.equal(dropped, dropped[..., :1, :1].expand_as(dropped))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}


def test_initialization() -> None:
    segmenter = replace(TINY, backbone_width=64).build(19)
    state = segmenter.state_dict()
    assert not state["decoder.2.bias"].any()
    assert state["decoder.2.weight"].std().item() == pytest.approx(0.01, rel=0.1)
    for name, inputs in {"decoder.1.depthwise": 9, "aspp.project.conv": 5 * 256}.items():
        weight = state[f"{name}.weight"]
        assert weight.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.05), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "vgg16"}, "'vgg16'; allowed: resnet18, resnet34, resnet50, resnet101"),
        ({"backbone_width": 6}, "backbone_width is 6; allowed: multiples of 4"),
        ({"backbone_width": 0}, "backbone_width is 0; allowed: 1 or more"),
        ({"batch_norm": "eval"}, "'eval'; allowed: train, frozen_affine, frozen"),
        ({"output_stride": 32}, "model.output_stride is 32; allowed: 8, 16"),
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


def test_settings_come_back_from_plain_values() -> None:
    values = to_plain(TINY) | {"type": "SegmenTronConfig"}
    assert model_from_plain(values, origin="test") == TINY


def test_an_objective_that_needs_an_auxiliary_head_is_told_there_can_be_none() -> None:
    experiment = Experiment(
        data=DataConfig(source=DomainConfig(datasets=("gta5",))),
        model=TINY,
        objectives={"supervised": SupervisedConfig(auxiliary_weight=0.4)},
        train=TrainConfig(steps=1, batch_size=2),
        evaluation=EvaluationConfig(dataset="cityscapes"),
    )
    with pytest.raises(InputError, match=r"needs model.auxiliary_head \(SegmenTron can have none"):
        validate(experiment)
    experiment.objectives = {"supervised": SupervisedConfig(auxiliary_weight=0.0)}
    validate(experiment)
    assert not TINY.build(5).has_auxiliary_head
