"""One training step with each objective of the library on any data: all data sets are adaptation
tasks in waiting.

A test of a data set gives `steps_with` an Experiment for labeled source and unlabeled target
images, with small crops, and parametrizes over `OBJECTIVES`:

    @pytest.mark.parametrize("name", OBJECTIVES)
    def test_every_objective_takes_a_step(name: str, root: Path, tmp_path: Path) -> None:
        steps_with(name, adaptation(root), tmp_path)

It is imported as `from every_objective import ...`.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch

from tiny_runs import CPU, tiny_model
from uda.data.config import SecondViewConfig
from uda.data.files import image_size
from uda.data.pseudo_label_folder import ID_SPACE, Manifest, PseudoLabelWriter
from uda.data.registry import layout_named, list_domain
from uda.data.samples import Sample
from uda.data.sampling import batches
from uda.data.training import open_training_data
from uda.experiment import Experiment, validate
from uda.labels.spaces import IGNORE_INDEX, LabelSpace
from uda.objectives.base import ObjectiveConfig
from uda.objectives.registry import objective_configs
from uda.objectives.supervised import SupervisedConfig
from uda.optim.teacher import TeacherConfig
from uda.training.run import start_run
from uda.training.step import train_step

# What `steps_with` can provide. An objective that needs more, such as a network of queries, is
# tested where there is one.
_PROVIDED = {"source", "target", "teacher", "pseudo_labels", "second_target_view", "auxiliary_head"}


def _configs() -> dict[str, type[ObjectiveConfig]]:
    return {
        config.__name__.removesuffix("Config"): config
        for config in objective_configs().values()
        if config().needs() <= _PROVIDED
    }


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
    needs = config.needs()
    data = experiment.data
    data.workers = 0
    experiment.model = tiny_model(auxiliary_head=True)
    experiment.objectives = {"supervised": SupervisedConfig(), "objective": config}
    experiment.teacher = TeacherConfig() if "teacher" in needs else None
    data.second_target_view = SecondViewConfig() if "second_target_view" in needs else None
    assert data.target is not None
    if "pseudo_labels" in needs:
        data.pseudo_labels = str(folder / "pseudo_labels")
        samples = list_domain(data, data.target, labeled=False)
        space = layout_named(data.target.datasets[0]).label_space
        write_any_pseudo_labels(folder / "pseudo_labels", samples, space)
    if not needs & {"target", "pseudo_labels", "second_target_view"}:
        data.target = None  # nothing would read it, and that is refused
    return experiment


def write_any_pseudo_labels(folder: Path, samples: Sequence[Sample], space: LabelSpace) -> None:
    """Pseudo-labels for `samples`, of `space`, drawn at random in blocks, some of them ignored."""
    rng = np.random.default_rng(0)
    manifest = Manifest(
        id_space=ID_SPACE,
        label_space=space.name,
        classes=space.classes,
        rule="drawn at random",
        threshold=0.5,
        protocol="none",
        snapshot="ANY_1.pth",
        snapshot_sha256="0" * 64,
        supervision="none",
        image_count=len(samples),
        images=tuple(sorted(sample.stem for sample in samples)),
        share_kept=0.75,
        share_kept_per_class=dict.fromkeys(space.classes, 0.75),
    )
    ids = np.array([*range(space.num_classes), IGNORE_INDEX], np.uint8)
    with PseudoLabelWriter(folder) as writer:
        for sample in samples:
            height, width = image_size(sample.image)
            blocks = rng.choice(ids, size=(-(-height // 8), -(-width // 8)))
            labels = np.kron(blocks, np.ones((8, 8), np.uint8))[:height, :width]
            writer.write(sample.stem, np.ascontiguousarray(labels))
        writer.finish(manifest)
