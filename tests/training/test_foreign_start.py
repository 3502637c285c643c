"""Runs that start from another project's network: its weights, and its discriminators beside it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from factories import file_of
from tiny_runs import CPU, assert_same, tiny_preset
from uda.checkpoints.foreign import ForeignOptions
from uda.checkpoints.formats.adaptsegnet import ADAPTSEGNET
from uda.checkpoints.snapshots import load, save, snapshot_values, versions
from uda.experiment import Experiment
from uda.experiments import load_preset
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.models.discriminators import FullyConvolutionalDiscriminator
from uda.objectives.adversarial import Adversarial
from uda.training import loop as engine
from uda.training.loop import train
from uda.training.run import Run, start_run
from uda.utilities.errors import InputError
from uda.utilities.weight_files import sha256

PRESET = "logged_multi_640x360_lsgan_b1"  # AdaptSegNet on two levels

State = dict[str, Tensor]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """AdaptSegNet's file of a network that says 0 everywhere."""
    path = tmp_path / "GTA5_5000.pth"
    torch.save(file_of(ADAPTSEGNET), path)
    return path


@pytest.fixture
def experiment(network: Path, toy_root: Path) -> Experiment:
    """The preset with the network's full size, on small images."""
    found = tiny_preset(PRESET, toy_root, steps=2)
    found.model = load_preset(PRESET).model
    found.model = found.model.without_weights()
    found.train.initial_snapshot = str(network)
    return found


Begin = Callable[[], tuple[Run, str]]


@pytest.fixture
def begin(
    experiment: Experiment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Begin:
    """Begins the run: what it is about to update, and what it says of its first weights."""
    runs = []

    def stop(run: Run, _batch: object) -> None:
        runs.append(run)
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "train_step", stop)

    def begun() -> tuple[Run, str]:
        with pytest.raises(KeyboardInterrupt):
            train(experiment, tmp_path / "run", preset="tiny", device=CPU)
        (said,) = re.findall(r"^initial weights  (.*)$", capsys.readouterr().out, re.MULTILINE)
        return runs[-1], said

    return begun


def discriminator(path: Path, seed: int) -> State:
    """A discriminator's state, which is written to `path` as nn.DataParallel has it."""
    torch.manual_seed(seed)
    state = FullyConvolutionalDiscriminator(19).state_dict()
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
    return state


def discriminators(run: Run) -> dict[str, State]:
    adversarial = run.objectives["adversarial"]
    assert isinstance(adversarial, Adversarial)
    return {head: network.state_dict() for head, network in adversarial.discriminators.items()}


def digest(path: Path) -> str:
    return f"{path.name} sha256:{sha256(path)[:12]}"


def test_discriminators_start_from_the_files_beside(
    network: Path, tmp_path: Path, begin: Begin
) -> None:
    files = [tmp_path / f"GTA5_5000_D{number}.pth" for number in (1, 2)]
    first, second = (discriminator(file, seed) for seed, file in enumerate(files))
    run, said = begin()
    assert said == f"{digest(network)}; {digest(files[0])}, {digest(files[1])}"
    assert_same(discriminators(run), {"main": second, "auxiliary": first})
    assert not run.student.state_dict()["main.conv2d_list.0.weight"].any()


def test_without_such_files_they_are_drawn_from_the_seed(
    network: Path, experiment: Experiment, begin: Begin
) -> None:
    run, said = begin()
    assert said == f"{digest(network)}; discriminators randomly initialized"
    assert_same(
        discriminators(run), discriminators(start_run(experiment, num_classes=19, device=CPU))
    )


def test_a_snapshot_of_ours_brings_none(
    network: Path, experiment: Experiment, tmp_path: Path, begin: Begin
) -> None:
    ours = tmp_path / "ours.pth"
    snapshot = load(network, foreign=ForeignOptions(project="adaptsegnet"))
    snapshot.versions = versions()  # as a run of ours writes them down
    save(snapshot_values(snapshot), ours)
    discriminator(tmp_path / "ours_D1.pth", 0)
    experiment.train.initial_snapshot = str(ours)
    _, said = begin()
    assert said == digest(ours)


def test_a_converted_pair_begins_as_it_was(
    network: Path, experiment: Experiment, tmp_path: Path, begin: Begin
) -> None:
    """The network converted, and the discriminators as they are beside it."""
    converted = tmp_path / "converted.pth"
    save(snapshot_values(load(network, foreign=ForeignOptions(project="adaptsegnet"))), converted)
    for number in (1, 2):
        discriminator(tmp_path / f"converted_D{number}.pth", number)
    experiment.train.initial_snapshot = str(converted)
    _, said = begin()
    assert [part.split()[0] for part in said.replace(",", ";").split("; ")] == [
        "converted.pth", "converted_D1.pth", "converted_D2.pth"
    ]  # fmt: skip


def test_a_preset_with_another_network_is_refused(
    network: Path, experiment: Experiment, begin: Begin
) -> None:
    experiment.model = DeepLabV3PlusConfig(backbone="resnet18", backbone_weights="none")
    experiment.train.initial_snapshot = str(network)
    with pytest.raises(InputError, match=r"but the network of this preset is a DeepLabV3PlusConf"):
        begin()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"GTA5_5000_D1.pth": 19},
            r"GTA5_5000_D2.pth, the discriminator of the main head, does not exist",
        ),
        (
            {"GTA5_5000_D1.pth": 21, "GTA5_5000_D2.pth": 19},
            r"GTA5_5000_D1.pth .* a fully_convolutional discriminator of this preset: 9 of 10",
        ),
    ],
)
def test_files_that_do_not_do_are_refused_before_anything_is_written(
    experiment: Experiment, tmp_path: Path, files: dict[str, int], message: str
) -> None:
    for name, classes in files.items():
        torch.save(FullyConvolutionalDiscriminator(classes).state_dict(), tmp_path / name)
    with pytest.raises(InputError, match=message):
        train(experiment, tmp_path / "run", preset="tiny", device=CPU)
    assert not (tmp_path / "run").exists()
