"""Networks saved whole, by torch.save(model): their tensors are read, and nothing is run."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from uda.checkpoints.recovery import recover_tensors
from uda.checkpoints.snapshots import load
from uda.commands.convert import convert_tensors
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.utilities.errors import InputError


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.head = nn.DataParallel(nn.Conv2d(4, 2, 1))
        self.scale = nn.Parameter(torch.ones(3))


@pytest.mark.parametrize("archived", [True, False])
def test_a_whole_network_becomes_its_state_dict(tmp_path: Path, archived: bool) -> None:
    network = Network()
    path = tmp_path / "whole.pth"
    torch.save({"epoch": 3, "model": network}, path, _use_new_zipfile_serialization=archived)
    content, dropped = recover_tensors(path)
    assert isinstance(content, dict)
    found, expected = content["model"], network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert dropped == [f"{__name__}.Network"]


def test_the_advice_for_one_works(tmp_path: Path) -> None:
    torch.save(Network(), tmp_path / "whole.pth")
    with pytest.raises(InputError, match=r"convert_checkpoint\.py .*whole\.pth OUT"):
        load(tmp_path / "whole.pth")
    with pytest.raises(InputError, match="--tensors writes the tensors alone"):
        load(tmp_path / "whole.pth", recover=True)
    convert_tensors(tmp_path / "whole.pth", tmp_path / "tensors.pth")
    tensors: dict[str, Tensor] = torch.load(tmp_path / "tensors.pth", weights_only=True)
    assert tensors.keys() == Network().state_dict().keys()


@pytest.mark.slow
def test_a_known_network_is_told(tmp_path: Path) -> None:
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    network = segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21)
    torch.save(network, tmp_path / "whole.pth")
    found = load(tmp_path / "whole.pth", recover=True)
    assert found.preset == "torchvision DeepLabV3 ResNet-50 without auxiliary head"


def test_a_network_that_holds_itself_ends(tmp_path: Path) -> None:
    network = Network()
    network._modules["again"] = network
    torch.save(network, tmp_path / "whole.pth")
    content, _ = recover_tensors(tmp_path / "whole.pth")
    assert isinstance(content, dict)
    assert "scale" in content


def test_the_backbone_of_a_segmentation_network_with_a_new_head(tmp_path: Path) -> None:
    """torchvision's networks for VOC's 21 classes are a start for other classes."""
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    network = segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21)
    torch.save(network.state_dict(), tmp_path / "voc.pth")
    config = DeepLabV3PlusConfig(backbone="resnet50", backbone_weights=str(tmp_path / "voc.pth"))
    built = config.build(5)
    assert torch.equal(built.state_dict()["backbone.conv1.weight"], network.backbone.conv1.weight)
