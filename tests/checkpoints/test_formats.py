"""All formats of other projects: names, quirks and normalization are those of their networks."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from factories import file_of, title_of
from foreign_files import opened
from uda.checkpoints.foreign import read_foreign
from uda.checkpoints.formats.base import ForeignFormat, known_formats
from uda.evaluation.protocols import PROTOCOLS
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.encoders.resnet import ResNetConfig

# Formats whose files have one name for each of ours.
TABLES = [foreign for foreign in known_formats() if foreign.convert is dict]


@pytest.mark.parametrize("foreign", TABLES, ids=title_of)
def test_names_map_there_and_back(foreign: ForeignFormat) -> None:
    names = file_of(foreign)
    own = {name: foreign.own_name(name) for name in names}
    assert len(set(own.values())) == len(names)
    assert all(ours is not None and foreign.their_name(ours) == name for name, ours in own.items())
    assert foreign.classifier in names


@pytest.mark.parametrize("foreign", TABLES, ids=title_of)
def test_quirks_and_protocol_are_the_networks(foreign: ForeignFormat) -> None:
    config = foreign.network({})
    with torch.device("meta"):
        network = config.build(19)
    aligned = "corners aligned" in foreign.quirks
    assert aligned == network.align_corners
    assert aligned != ("corners not aligned" in foreign.quirks)
    assert ("BGR input minus Caffe's mean" in foreign.quirks) == network.bgr
    assert ("RGB input" in foreign.quirks) != network.bgr
    pooling = [m.ceil_mode for m in network.modules() if isinstance(m, nn.MaxPool2d)]
    assert ("ceil-mode pooling" in foreign.quirks) == any(pooling)
    assert ("floor-mode pooling" in foreign.quirks) == (pooling == [False])
    summed = isinstance(config, DeepLabV2Config) and config.head == "sum"
    assert ("ASPP branches summed" in foreign.quirks) == summed
    if isinstance(config, DeepLabV2Config) and summed:
        assert f"{config.aspp_branches} of 4 ASPP" in foreign.quirks
    assert foreign.protocol in PROTOCOLS


@pytest.mark.parametrize("foreign", TABLES, ids=title_of)
def test_normalization_is_the_networks(foreign: ForeignFormat) -> None:
    config = foreign.network({})
    if isinstance(config, ResNetConfig):
        tiny = replace(config, backbone="resnet18", backbone_width=4).build(2)
        assert torch.equal(tiny.mean.flatten(), torch.tensor(foreign.normalization.mean))
        assert torch.equal(tiny.std.flatten(), torch.tensor(foreign.normalization.std))
        assert tiny.bgr == foreign.normalization.bgr
    else:
        with torch.device("meta"):
            encoder = config.build(2).backbone
        assert foreign.normalization == encoder.normalization
    alike = "ASPP branches summed" in foreign.quirks
    found = opened(file_of(foreign), project=foreign.project if alike else None)
    assert found.format is foreign, "a file is told from those of all other formats"
    assert tuple(found.state["mean"].flatten()) == pytest.approx(foreign.normalization.mean)
    assert tuple(found.state["std"].flatten()) == pytest.approx(foreign.normalization.std)


@pytest.mark.parametrize("foreign", TABLES, ids=title_of)
def test_a_trunk_alone_is_nobodys(foreign: ForeignFormat) -> None:
    trunk = {
        name: tensor
        for name, tensor in file_of(foreign).items()
        if (foreign.own_name(name) or "").startswith("backbone.")
    }
    assert len(trunk) > 170
    assert read_foreign(trunk, origin="trunk.pth") is None
