"""VainF's DeepLabV3+ and torchvision's DeepLabV3: the originals' logits by way of their files,
sizes, modes, refused settings."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from recipes import recipe_image, recipe_network
from uda.data.config import DataConfig, DomainConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig, validate
from uda.models.encoders.resnet import ResNetConfig
from uda.models.registry import model_from_plain
from uda.models.segmenter import BatchNormMode, Segmenter
from uda.models.torchvision_deeplabv3 import TorchvisionDeepLabV3Config
from uda.models.vainf import VainFConfig
from uda.objectives.supervised import SupervisedConfig
from uda.utilities.config_tree import to_plain
from uda.utilities.errors import InputError

GOLDEN = Path(__file__).parents[1] / "data" / "golden"

VAINF = VainFConfig(backbone="resnet18", backbone_weights="none", backbone_width=4)
TORCHVISION = TorchvisionDeepLabV3Config(
    backbone="resnet18", backbone_weights="none", backbone_width=4
)
both = pytest.mark.parametrize("config", [VAINF, TORCHVISION], ids=["vainf", "torchvision"])


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def shape_of(segmenter: Segmenter, name: str) -> tuple[int, ...]:
    return tuple(segmenter.state_dict()[name].shape)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format_name", "file", "entries", "heads"),
    [
        ("VainF DeepLabV3+ ResNet-101", "vainf_65x97", 674, {"main"}),
        pytest.param(
            "torchvision DeepLabV3 ResNet-101",
            "torchvision_deeplabv3_65x97",
            676,
            {"main", "auxiliary"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "torchvision DeepLabV3 ResNet-101 without auxiliary head",
            "torchvision_deeplabv3_65x97",
            668,
            {"main"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_file_of_the_original_gives_the_originals_logits(
    format_name: str, file: str, entries: int, heads: set[str], tmp_path: Path
) -> None:
    segmenter, count = recipe_network(format_name, tmp_path, prefix="module.")
    assert count == entries
    with torch.no_grad():
        output = segmenter(recipe_image(65, 97))
    ours = {"main": output.logits, "auxiliary": output.auxiliary_logits}
    golden = np.load(GOLDEN / f"{file}.npz")
    assert {head for head, logits in ours.items() if logits is not None} == heads
    for head in heads:
        expected, logits = golden[f"{head}_65x97"], ours[head]
        assert logits is not None
        # Every third pixel: some on a coarse logit, others between them.
        kept = logits[0, :, ::3, ::3].numpy()
        assert kept.shape == expected.shape == (19, 22, 33)
        assert np.abs(kept - expected).max() / np.abs(expected).max() < 1e-5, head


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (17, 33)])
@both
def test_sizes_and_heads(config: ResNetConfig, size: tuple[int, int]) -> None:
    stride, auxiliary = (16, False) if config is VAINF else (8, True)
    segmenter = config.build(5)
    output = segmenter(torch.rand(2, 3, *size))
    assert output.logits.shape == (2, 5, *size)
    assert output.features.shape == (2, 32, -(-size[0] // stride), -(-size[1] // stride))
    assert segmenter.has_auxiliary_head == config.has_auxiliary_head == auxiliary
    assert (output.auxiliary_logits is not None) == auxiliary
    if output.auxiliary_logits is not None:
        assert output.auxiliary_logits.shape == (2, 5, *size)


def test_heads_scale_with_the_backbone() -> None:
    vainf = replace(VAINF, backbone_width=16).build(5)
    assert shape_of(vainf, "aspp.project.0.weight") == (64, 5 * 64, 1, 1)
    assert shape_of(vainf, "low_level.0.weight") == (12, 16, 1, 1)
    assert shape_of(vainf, "decoder.0.weight") == (64, 76, 3, 3)
    torchvision = replace(TORCHVISION, backbone_width=16).build(5)
    assert shape_of(torchvision, "main.0.convs.3.0.weight") == (64, 128, 3, 3)
    assert shape_of(torchvision, "main.1.weight") == (64, 64, 3, 3)
    assert shape_of(torchvision, "auxiliary.0.weight") == (16, 64, 3, 3)


def test_torchvisions_auxiliary_head_can_be_left_out() -> None:
    config = replace(TORCHVISION, auxiliary_head=False)
    segmenter = config.build(5)
    assert segmenter(torch.rand(2, 3, 33, 49)).auxiliary_logits is None
    assert segmenter.has_auxiliary_head is config.has_auxiliary_head is False
    assert not any(name.startswith("auxiliary.") for name in segmenter.state_dict())
    assert config.auxiliary_switch == ("auxiliary_head", "false")


@both
def test_gradients_reach_every_parameter(config: ResNetConfig) -> None:
    segmenter = replace(config, dropout=0.0).build(5)
    output = segmenter(torch.rand(3, 3, 65, 97))
    loss = output.logits.square().sum()
    if output.auxiliary_logits is not None:
        loss = loss + output.auxiliary_logits.square().sum()
    loss.backward()
    for name, parameter in segmenter.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("mode", ["train", "frozen_affine", "frozen"])
@both
def test_batch_norm_mode_concerns_the_backbone_only(
    config: ResNetConfig, mode: BatchNormMode
) -> None:
    segmenter = replace(config, batch_norm=mode).build(5)
    groups = segmenter.backbone_parameters() + segmenter.head_parameters()
    trained = [p for p in segmenter.parameters() if p.requires_grad]
    assert {id(p) for p in groups} == {id(p) for p in trained}
    before = copy.deepcopy(segmenter.state_dict())
    optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=0.1)
    segmenter(torch.rand(2, 3, 64, 64)).logits.square().sum().backward()
    optimizer.step()
    after = segmenter.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    pooled = ("aspp" if config is VAINF else "main.0") + ".convs.4.2"
    assert {"backbone.conv1.weight", f"{pooled}.weight", f"{pooled}.running_mean"} <= moved
    assert ("backbone.bn1.running_mean" in moved) == (mode != "frozen")
    assert ("backbone.layer4.1.bn2.weight" in moved) == (mode == "train")


@both
def test_one_image_is_evaluated_but_does_not_train(config: ResNetConfig) -> None:
    segmenter = config.build(5)
    images = torch.rand(1, 3, 64, 64)
    with pytest.raises(InputError, match=r"a batch of 1 image .* use larger batches, or DeepLabV3"):
        segmenter(images)
    assert segmenter.eval()(images).logits.shape == (1, 5, 64, 64)


@both
def test_dropout_is_of_every_head(config: ResNetConfig) -> None:
    segmenter = replace(config, dropout=0.25).build(5)
    dropouts = [m for m in segmenter.modules() if isinstance(m, nn.Dropout)]
    assert [m.p for m in dropouts] == [0.25] * (1 if config is VAINF else 2)


@both
def test_initialization(config: ResNetConfig) -> None:
    state = replace(config, backbone_width=64).build(19).state_dict()
    classifiers = ["decoder.3"] if config is VAINF else ["main.4", "auxiliary.4"]
    for name in classifiers:
        assert not state[f"{name}.bias"].any()
        assert state[f"{name}.weight"].std().item() == pytest.approx(0.01, rel=0.1)
    name = "decoder.0" if config is VAINF else "main.1"
    std = (2 / (9 * 256)) ** 0.5
    assert state[f"{name}.weight"].std().item() == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "vgg16"}, "'vgg16'; allowed: resnet18, resnet34, resnet50, resnet101"),
        ({"backbone_width": 0}, "backbone_width is 0; allowed: 1 or more"),
        ({"batch_norm": "eval"}, "'eval'; allowed: train, frozen_affine, frozen"),
        ({"dropout": 1.0}, "model.dropout is 1.0"),
        ({"dropout": -0.1}, "model.dropout is -0.1"),
    ],
)
@both
def test_values_that_are_refused(
    config: ResNetConfig, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        replace(config, **changes).build(5)  # type: ignore[arg-type]


def test_widths_without_three_quarters_are_refused() -> None:
    with pytest.raises(InputError, match="backbone_width is 6; allowed: multiples of 4"):
        replace(VAINF, backbone_width=6).build(5)
    replace(TORCHVISION, backbone_width=6).build(5)


@both
def test_no_classes_are_refused(config: ResNetConfig) -> None:
    with pytest.raises(InputError, match="num_classes is 0"):
        config.build(0)


@both
def test_settings_come_back_from_plain_values(config: ResNetConfig) -> None:
    values = to_plain(config) | {"type": type(config).__name__}
    assert model_from_plain(values, origin="test") == config


@both
def test_objectives_are_told_of_the_auxiliary_head(config: ResNetConfig) -> None:
    experiment = Experiment(
        data=DataConfig(source=DomainConfig(datasets=("gta5",))),
        model=config,
        objectives={"supervised": SupervisedConfig(auxiliary_weight=0.4)},
        train=TrainConfig(steps=1, batch_size=2),
        evaluation=EvaluationConfig(dataset="cityscapes"),
    )
    without = copy.deepcopy(experiment)
    without.objectives = {"supervised": SupervisedConfig(auxiliary_weight=0.0)}
    if config is VAINF:
        assert validate(without).remarks == ()
        with pytest.raises(InputError, match=r"needs .*VainF can have none"):
            validate(experiment)
        return
    assert validate(experiment).remarks == ()
    found = validate(without)
    assert found.remarks == ("model.auxiliary_head (True) is not used, as no objective needs it",)
    assert not found.experiment.model.has_auxiliary_head
