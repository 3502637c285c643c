"""A run starts from a network with an auxiliary head that its own network has no use for."""

from pathlib import Path

import pytest
import torch

from shells import Trained
from tiny_runs import tiny_model
from uda.checkpoints.heads import without_unused_head
from uda.checkpoints.snapshots import Snapshot, load
from uda.checkpoints.stored import load_weights
from uda.data.config import DataConfig, DomainConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment
from uda.objectives.target_mix import TargetMixConfig
from uda.optim.settings import TrainConfig
from uda.optim.teacher import TeacherConfig
from uda.training.loop import train
from uda.utilities.config_tree import to_plain
from uda.utilities.errors import InputError


def with_head(trained: Trained) -> Snapshot:
    """The snapshot of a network with an auxiliary head."""
    snapshot = load(trained.snapshot)
    model = tiny_model("train", "batch", auxiliary_head=True)
    snapshot.experiment["model"] = {"type": type(model).__name__} | to_plain(model)
    snapshot.student = model.build(19).state_dict()
    return snapshot


def test_only_the_head_is_left_out(trained: Trained) -> None:
    snapshot = with_head(trained)
    bare = tiny_model("train", "batch", auxiliary_head=False).build(19)
    state = without_unused_head(snapshot, bare)
    load_weights(bare, state, origin="test")
    assert all(torch.equal(value, snapshot.student[name]) for name, value in state.items())
    dropped = snapshot.student.keys() - state.keys()
    assert dropped
    assert all(name.startswith("auxiliary") for name in dropped)


def test_a_head_that_is_needed_stays(trained: Trained) -> None:
    snapshot = with_head(trained)
    network = snapshot.model.build(19)
    assert without_unused_head(snapshot, network).keys() == snapshot.student.keys()


def test_what_is_no_head_still_does_not_fit(trained: Trained) -> None:
    snapshot = with_head(trained)
    snapshot.student["one.too.many"] = torch.zeros(1)
    bare = tiny_model("train", "batch", auxiliary_head=False).build(19)
    with pytest.raises(InputError, match=r"one\.too\.many"):
        load_weights(bare, without_unused_head(snapshot, bare), origin="test")


def test_a_folder_of_images_takes_the_classes_of_the_network(
    trained: Trained, toy_root: Path, tmp_path: Path
) -> None:
    """Without a source, nothing else names them."""
    folder = f"{toy_root}/Cityscapes/leftImg8bit/train"
    experiment = Experiment(
        data=DataConfig(
            target=DomainConfig(datasets=(folder,), size=(64, 128)), crop=(64, 128), workers=0
        ),
        model=load(trained.snapshot).model,
        objectives={"target_mix": TargetMixConfig()},
        teacher=TeacherConfig(),
        train=TrainConfig(steps=2, batch_size=2, initial_snapshot=str(trained.snapshot)),
        evaluation=EvaluationConfig(dataset="cityscapes", every=0),
    )
    train(experiment, tmp_path / "run", preset="test", device=torch.device("cpu"))
    (snapshot,) = (tmp_path / "run").glob("*_2.pth")
    assert load(snapshot).label_space == load(trained.snapshot).label_space
    experiment.train.initial_snapshot = None
    with pytest.raises(InputError, match=r"--set train\.initial_snapshot=FILE"):
        train(experiment, tmp_path / "other", preset="test", device=torch.device("cpu"))
