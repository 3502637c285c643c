"""One training step with each objective of the library on any data set.

A test of a data set gives `steps_with` an Experiment for labeled source and unlabeled target
images, with small crops, and parametrizes over `OBJECTIVES`:

    @pytest.mark.parametrize("name", OBJECTIVES)
    def test_every_objective_takes_a_step(name: str, root: Path, tmp_path: Path) -> None:
        steps_with(name, adaptation(root), tmp_path)

It is imported as `from every_objective import ...`.
"""

import math
from copy import deepcopy
from pathlib import Path

import torch

from tiny_runs import CPU, tiny_model
from trials import equip, kinds, write_random_pseudo_labels
from uda.data.registry import layout_named, list_domain
from uda.data.sampling import batches
from uda.data.training import open_training_data
from uda.experiment import Experiment, validate
from uda.objectives.base import ObjectiveConfig
from uda.objectives.supervised import SupervisedConfig
from uda.training.run import start_run
from uda.training.step import train_step


def _configs() -> dict[str, type[ObjectiveConfig]]:
    """All objectives but those that only a network with queries can have: they are tested where
    there is one."""
    return {name: cls for name, cls in kinds().items() if "queries" not in cls().needs()}


_CONFIGS = _configs()
OBJECTIVES = tuple(_CONFIGS)  # names of classes, without "Config"


def steps_with(name: str, experiment: Experiment, folder: Path, *, steps: int = 1) -> None:
    """Trains a tiny network for `steps` with supervision on the source and the objective `name`.

    experiment: of labeled source and unlabeled target images, whose data are all that is used of
    it; `folder`: an empty one, for pseudo-labels. Asserts that the objective has a term of its own,
    that every loss is a number, and that the student has moved.
    """
    experiment = _adapting(_CONFIGS[name](), deepcopy(experiment), folder)
    experiment.train.steps, experiment.train.batch_size = steps, 2
    experiment.train.precision = "float32"
    validate(experiment)
    evaluated = experiment.evaluation.dataset
    data = open_training_data(experiment.data, seed=0, evaluated=evaluated)
    assert all(s.labels is None for s in data.dataset.target), "the target has labels of its own"
    run = start_run(experiment, num_classes=data.label_space.num_classes, device=CPU)
    before = [weight.detach().clone() for weight in run.student.parameters()]
    stream = batches(data.dataset, batch_size=2, first_step=0, steps=steps, workers=0)
    for batch in stream:
        losses = train_step(run, batch).losses
        owners = {loss.split("/")[1] for loss in losses}
        assert "objective" in owners, f"{name} has no term"
        for loss, value in losses.items():
            assert math.isfinite(value.item()), f"{name}: {loss} is {value.item()}"
    after = list(run.student.parameters())
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def _adapting(config: ObjectiveConfig, experiment: Experiment, folder: Path) -> Experiment:
    """The experiment with a tiny network, `config`, and what it needs."""
    data = experiment.data
    data.workers = 0
    experiment.model = tiny_model(auxiliary_head=True)
    assert data.target is not None
    target, labels = data.target, folder / "pseudo_labels"
    objectives = {"supervised": SupervisedConfig(), "objective": config}
    equip(experiment, objectives, target=target, pseudo_labels=labels)
    if data.pseudo_labels is not None:
        samples = list_domain(data, target, labeled=False)
        write_random_pseudo_labels(labels, samples, layout_named(target.datasets[0]).label_space)
    return experiment
