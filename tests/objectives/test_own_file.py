"""The objective that CONTRIBUTING shows, as a user's file: it is trained as it stands."""

from pathlib import Path

import pytest
import torch

from tiny_runs import CPU, CROP, REPOSITORY, random_batch, tiny_model, tiny_run
from uda.experiment import Experiment, validate
from uda.experiments import load_preset
from uda.objectives.base import StepContext
from uda.training.loop import train
from uda.training.step import train_step
from uda.utilities.errors import InputError

EXAMPLE = REPOSITORY / "tests" / "examples" / "cut_out.py"


def shrunk(toy_root: Path) -> Experiment:
    experiment = load_preset(str(EXAMPLE))
    experiment.data.root, experiment.data.crop, experiment.data.workers = str(toy_root), CROP, 0
    for domain in (experiment.data.source, experiment.data.target):
        assert domain is not None
        domain.size = CROP
    experiment.model = tiny_model(auxiliary_head=experiment.model.has_auxiliary_head)
    for objective in experiment.objectives.values():
        objective.start_step = min(objective.start_step, 1)
    train = experiment.train
    train.steps, train.batch_size, train.warmup_steps, train.log_every = 3, 2, 0, 1
    experiment.evaluation.every, experiment.evaluation.input_size = 3, CROP
    return experiment


def test_it_is_one_short_file() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 60


def test_it_can_be_trained(toy_root: Path, tmp_path: Path) -> None:
    experiment = shrunk(toy_root)
    validate(experiment)
    scores = train(experiment, tmp_path / "run", preset=str(EXAMPLE), device=CPU)
    assert scores is not None
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "loss/cut_out/main" in lines


def test_the_student_gets_its_gradient_and_the_teacher_is_asked_once(toy_root: Path) -> None:
    experiment = shrunk(toy_root)
    for objective in experiment.objectives.values():
        objective.start_step = 0
    run = tiny_run(experiment)
    assert run.teacher is not None
    asked = []
    run.teacher.register_forward_hook(lambda *_: asked.append(1))
    result = train_step(run, random_batch())
    assert [view.name for view in result.views] == ["source", "class_mix", "cut_out"]
    assert {"loss/cut_out/main", "loss/class_mix/main"} <= result.losses.keys()
    assert len(asked) == 1


def test_a_gray_box_is_hidden_and_nothing_is_learned_from_it(toy_root: Path) -> None:
    experiment = shrunk(toy_root)
    run = tiny_run(experiment)
    batch = random_batch().to_device(CPU)
    context = StepContext(0, 0, batch.indices, run.teacher)
    (view,) = run.objectives["cut_out"].views(batch, context)
    hidden = (view.images == 0.5).all(dim=1)
    assert (hidden | (view.images == batch.target_images).all(dim=1)).all()
    assert 0 < hidden.float().mean() < 1
    assert view.weights is not None
    assert not view.weights[hidden].any()
    (again,) = run.objectives["cut_out"].views(batch, context)
    assert torch.equal(view.images, again.images), "the box follows from the sample's number"


def test_its_settings_are_checked(toy_root: Path) -> None:
    experiment = shrunk(toy_root)
    experiment.objectives["cut_out"].gray = 1.5  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"objectives.cut_out.gray is 1.5; allowed: 0 to 1"):
        validate(experiment)
    experiment.objectives["cut_out"].weight = -1.0
    with pytest.raises(InputError, match=r"objectives.cut_out.weight is -1.0"):
        validate(experiment)
