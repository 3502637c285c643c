"""No file leads to a download or to another path."""

import socket
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch

import uda
from factories import title_of
from tiny_runs import tiny_model
from uda.checkpoints.formats.base import ForeignFormat, known_formats
from uda.checkpoints.snapshots import Snapshot, save, snapshot_values, versions
from uda.checkpoints.stored import plain_experiment
from uda.labels.spaces import CITYSCAPES
from uda.models.config import ModelConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.smp import SmpConfig
from uda.utilities.errors import InputError


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection fails the test."""

    def refuse(*_arguments: object, **_options: object) -> NoReturn:
        pytest.fail("a file led to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def written(path: Path, model: ModelConfig, weights: dict[str, torch.Tensor]) -> Path:
    """A snapshot of a network with these settings, which need not fit its weights."""
    snapshot = Snapshot(
        preset="hostile",
        experiment=plain_experiment(model, "native", "cityscapes"),
        label_space=CITYSCAPES,
        supervision="none",
        initial_weights="none",
        step=0,
        scores=None,
        versions=versions(),
        student=weights,
        teacher=None,
    )
    save(snapshot_values(snapshot), path)
    return path


@pytest.mark.parametrize(
    "name",
    ["tu-hf_hub:someone/something", "tu-hf-hub:someone/something", "tu-local-dir:/etc", "tu-../x"],
)
@pytest.mark.usefixtures("offline")
def test_no_name_of_an_encoder_of_the_package_is_followed(name: str, tmp_path: Path) -> None:
    """audit C.10"""
    pytest.importorskip("segmentation_models_pytorch")
    path = written(tmp_path / "x.pth", SmpConfig(backbone=name), {})
    with pytest.raises(InputError, match="but timm has no network of that name"):
        uda.load(path)


@pytest.mark.parametrize(
    "name",
    ["timm/hf_hub:someone/something", "timm/local-dir:/etc", "hf_hub:a/b", "/etc/passwd", "../x"],
)
@pytest.mark.usefixtures("offline")
def test_no_name_of_an_encoder_is_followed(name: str, tmp_path: Path) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    config = EncoderDecoderConfig(encoder=EncoderConfig(name=name))
    with pytest.raises(InputError, match=r"timm has no network of that name|allowed: .*resnet18"):
        uda.load(written(tmp_path / "x.pth", config, {}))


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["imagenet", "hf://someone/something", "/nowhere/at/all.pth"])
@pytest.mark.usefixtures("offline")
def test_initial_weights_of_a_snapshot_are_not_looked_for(weights: str, tmp_path: Path) -> None:
    tiny = tiny_model()
    state = tiny.build(19).state_dict()
    config = replace(tiny, backbone_weights=weights)
    network = uda.load(written(tmp_path / "x.pth", config, state))
    assert network.provenance == "random"
    encoder = EncoderConfig(name="resnet18", width=4, weights=weights)
    pair = EncoderDecoderConfig(encoder=encoder)
    state = pair.without_weights().build(19).state_dict()
    assert uda.load(written(tmp_path / "y.pth", pair, state)).provenance == "random"


@pytest.mark.parametrize("foreign", known_formats(), ids=title_of)
def test_networks_of_other_projects_have_no_weights_of_their_own(foreign: ForeignFormat) -> None:
    config = foreign.network({})
    assert config == config.without_weights()
