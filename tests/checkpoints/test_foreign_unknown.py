"""Files of no known format: what they are near, and what they serve as."""

import pytest
import torch

from factories import file_of, format_titled, title_of
from foreign_files import State, prefixed, segmentron_file, without
from uda.checkpoints.foreign import read_foreign
from uda.checkpoints.formats.base import known_formats
from uda.checkpoints.matching import describe_unknown
from uda.models.encoders.resnet import BackboneName, resnet_backbone
from uda.models.vainf import VainFConfig


@pytest.fixture
def state() -> State:
    """SegmenTron's file, to be changed."""
    return segmentron_file()


def test_the_nearest_formats_are_named(state: State) -> None:
    half = dict(list(without(state, "head.", "encoder.fc").items())[:300])
    half["encoder.bn1.weight"] = torch.zeros(3)
    assert read_foreign(half, origin="half.pth") is None
    counted = sum(not name.endswith("num_batches_tracked") for name in half) - 1
    said = describe_unknown(half, "half.pth")
    assert said.startswith(
        "nearest of the files of other projects: SegmenTron DeepLabV3+ ResNet-101, "
        f"{counted} of 592 tensors match, {591 - counted} ("
    )
    assert "0 unexpected, 1 (encoder.bn1.weight, ...) of another shape or type" in said
    assert "\n" not in said


def test_of_two_that_fit_as_well_the_nearer_is_named_first() -> None:
    """The file has the names of one, with fewer channels."""
    foreign = format_titled("VainF DeepLabV3+ ResNet-101")
    narrow = file_of(foreign, VainFConfig(backbone_width=32, backbone_weights="none"))
    assert "projects: VainF DeepLabV3+ ResNet-101, " in describe_unknown(narrow, "narrow.pth")


@pytest.mark.parametrize("content", [{}, [1], 3, {"state_dict": {}}])
def test_without_tensors_all_formats_are_named(content: object) -> None:
    said = describe_unknown(content, "odd.pth")
    assert said.startswith("files of other projects that can be read: AdaptSegNet two-level")
    assert all(title_of(foreign) in said for foreign in known_formats())


@pytest.mark.parametrize(
    ("name", "width", "heads"),
    [("resnet18", 24, ("fc.weight",)), ("resnet50", 64, ()), ("resnet101", 8, ("layer5.0.bias",))],
)
def test_a_trunk_is_told_to_serve_as_initial_weights(
    name: BackboneName, width: int, heads: tuple[str, ...]
) -> None:
    with torch.device("meta"):
        shapes = resnet_backbone(name, width=width, weights="none").state_dict()
    trunk = {n: torch.zeros((), dtype=t.dtype).expand(t.shape) for n, t in shapes.items()}
    trunk |= {head: torch.zeros(1) for head in heads}
    said = describe_unknown(prefixed(trunk), "some/trunk.pth")
    assert said == (
        f"it holds the backbone of a {name} of width {width}, which can be used as initial "
        "weights: --set model.backbone_weights=some/trunk.pth"
    )
    assert "trunk" not in describe_unknown(trunk | {"decode.bias": torch.zeros(1)}, "whole.pth")
    del trunk["layer4.1.conv2.weight"]
    assert "trunk" not in describe_unknown(trunk, "part.pth")
