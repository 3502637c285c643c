"""Experiment: everything that decides what a run computes, as one tree of dataclasses."""

from dataclasses import dataclass, field, replace

from uda.data.config import DataConfig, require_workers
from uda.evaluation.evaluate import EvaluationConfig
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.models.segmenter import ModelConfig
from uda.objectives.base import ObjectiveConfig
from uda.optim.settings import RestartConfig, TrainConfig
from uda.optim.teacher import TeacherConfig
from uda.utilities.config_tree import check_types, differences, to_plain
from uda.utilities.errors import require

__all__ = ["Experiment", "RestartConfig", "TrainConfig", "validate"]


@dataclass(kw_only=True, slots=True)
class Experiment:
    """A preset: data, network, objectives, training and evaluation."""

    data: DataConfig = field(default_factory=DataConfig)  # none is needed to evaluate only
    model: ModelConfig = field(default_factory=DeepLabV3PlusConfig)
    objectives: dict[str, ObjectiveConfig] = field(default_factory=dict)
    teacher: TeacherConfig | None = None
    train: TrainConfig
    evaluation: EvaluationConfig


def validate(experiment: Experiment) -> None:
    """Raises InputError when a value has the wrong type, is out of range, or would be ignored."""
    check_types(experiment, origin="experiment")
    experiment.train.check("train")
    experiment.evaluation.check("evaluation")
    fused = experiment.evaluation.heads == "fused"
    require(
        experiment.model.has_auxiliary_head or not fused,
        "evaluation.heads is fused, but the network has no auxiliary head: use main",
    )
    if experiment.train.steps == 0:
        _check_evaluation_only(experiment)
        return
    experiment.data.check("data")
    if experiment.teacher is not None:
        experiment.teacher.check("teacher")
    for name, objective in experiment.objectives.items():
        objective.check(f"objectives.{name}")
    _check_start_steps(experiment)
    _check_needs(experiment)
    _check_plateau(experiment)
    images, default = experiment.train.unlabeled_images, TrainConfig(steps=0, batch_size=1)
    require(
        experiment.data.target is not None or images == default.unlabeled_images,
        f"train.unlabeled_images is {images}, but without data.target there are no such images: "
        "leave it as it is",
    )


def _check_evaluation_only(experiment: Experiment) -> None:
    """Without a step there are weights to read, and nothing is there that only training uses."""
    require(
        experiment.train.initial_snapshot is not None,
        "train.steps is 0: nothing is trained, so give --restore-from FILE to evaluate",
    )
    data, evaluation = experiment.data, experiment.evaluation
    require_workers("data.workers", data.workers)
    used = Experiment(
        data=DataConfig(root=data.root, workers=data.workers),
        model=experiment.model,
        train=TrainConfig(
            steps=0, batch_size=1, initial_snapshot=experiment.train.initial_snapshot
        ),
        evaluation=replace(evaluation, every=EvaluationConfig(dataset="").every),
    )
    ignored = differences(to_plain(experiment), to_plain(used))
    require(
        not ignored,
        f"train.steps is 0, so {', '.join(ignored)} would be ignored: leave the defaults",
    )


def _check_plateau(experiment: Experiment) -> None:
    """What it watches is there often enough, and selects nothing by labels that are not there."""
    train, every = experiment.train, experiment.evaluation.every
    plateau = train.plateau
    if plateau is None:
        return
    require(
        plateau.watches == "loss" or experiment.data.target is None,
        "train.plateau.watches is miou, which would choose the learning rate by the labels that "
        "the preset is scored on, but data.target is to be learned without labels: watch loss",
    )
    if plateau.watches == "loss":
        _check_watched_loss(experiment)
    # One evaluation to be the best, then one more than the patience.
    first = (plateau.patience + 2) * every
    require(
        first < train.plateau_end,
        f"train.plateau could change the rate at step {first} at the earliest ((patience "
        f"{plateau.patience} + 2) * evaluation.every {every}), but ends at {train.plateau_end}: "
        "evaluate more often, or lower train.plateau.patience",
    )


def _check_watched_loss(experiment: Experiment) -> None:
    """There is one, and nothing joins it that would make it rise."""
    objectives = experiment.objectives
    fixed = {n: o.start_step for n, o in objectives.items() if o.learns_fixed_labels()}
    what = "train.plateau.watches is loss, that on labels which stay as they are, but"
    require(
        bool(fixed),
        f"{what} no objective of this preset learns such labels: use another schedule, with "
        "--set train.plateau=none",
    )
    for name, start in fixed.items():
        require(
            start == 0,
            f"{what} objective {name!r} joins at step {start}, where it would rise: set "
            f"objectives.{name}.start_step=0",
        )


def _check_start_steps(experiment: Experiment) -> None:
    steps = experiment.train.steps
    starts = {name: objective.start_step for name, objective in experiment.objectives.items()}
    require(bool(starts), "experiment.objectives is empty: there is nothing to learn from")
    require(0 in starts.values(), "every objective has a start_step above 0: nothing is learned "
            "before")  # fmt: skip
    for name, start in starts.items():
        require(
            start < steps,
            f"objectives.{name}.start_step is {start}: the run ends at step {steps}, so the "
            "objective would never take part",
        )


def _check_needs(experiment: Experiment) -> None:
    """Everything an objective needs is there, and nothing is there that no objective needs."""
    auxiliary, without = experiment.model.auxiliary_switch
    have = {
        "source": ("data.source", experiment.data.source is not None),
        "target": ("data.target", experiment.data.target is not None),
        "teacher": ("teacher", experiment.teacher is not None),
        "pseudo_labels": ("data.pseudo_labels", experiment.data.pseudo_labels is not None),
        "target_ground_truth": ("data.target_ground_truth", experiment.data.target_ground_truth),
        "second_target_view": (
            "data.second_target_view",
            experiment.data.second_target_view is not None,
        ),
        "auxiliary_head": (f"model.{auxiliary}", experiment.model.has_auxiliary_head),
        "queries": ("a network with queries, such as Mask2Former", experiment.model.has_queries),
    }
    _check_views(experiment)
    for need, (field_name, present) in have.items():
        users = [name for name, o in experiment.objectives.items() if need in o.needs()]
        if users:
            require(present, f"objective {users[0]!r} needs {field_name}, which this preset lacks")
        off = {"auxiliary_head": without, "target_ground_truth": "false"}.get(need, "none")
        if need == "queries":  # objectives that read logits train such a network, too
            continue
        require(
            bool(users) or not present,
            f"{field_name} is set, but no objective uses it; set {field_name}={off} or add an "
            "objective that does",
        )


def _check_views(experiment: Experiment) -> None:
    """A view that an objective wants from another is there from the step on in which it is read."""
    for reader, config in experiment.objectives.items():
        for view in sorted((config.reads() | config.joint()) - {"source", "target"}):
            starts = [o.start_step for o in experiment.objectives.values() if view in o.adds()]
            require(
                bool(starts) and min(starts) <= config.start_step,
                f"objective {reader!r} reads the view {view!r} from step {config.start_step} on, "
                "which no other objective adds from then on",
            )
