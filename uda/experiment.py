"""Experiment: everything that decides what a run computes, as one tree of dataclasses."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import NamedTuple, get_args

from uda.data.config import DataConfig, require_workers
from uda.evaluation.evaluate import EvaluationConfig
from uda.models.config import ModelConfig
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.objectives.agreement import (
    check_start_steps,
    check_views,
    check_watched_loss,
    needs_of,
)
from uda.objectives.base import Need, ObjectiveConfig
from uda.optim.settings import RestartConfig, TrainConfig
from uda.optim.teacher import TeacherConfig
from uda.utilities.config_tree import apply_override, check_types, differences, to_plain
from uda.utilities.errors import Problems, require
from uda.utilities.idle import Idle, idle_fields, switch_off

__all__ = ["Experiment", "RestartConfig", "TrainConfig", "Validated", "validate"]


@dataclass(kw_only=True, slots=True)
class Experiment:
    """A preset: data, network, objectives, training and evaluation."""

    data: DataConfig = field(default_factory=DataConfig)  # not needed to evaluate only
    model: ModelConfig = field(default_factory=DeepLabV3PlusConfig)
    objectives: dict[str, ObjectiveConfig] = field(default_factory=dict)
    teacher: TeacherConfig | None = None
    train: TrainConfig
    evaluation: EvaluationConfig


class Validated(NamedTuple):
    """What will be run."""

    experiment: Experiment  # a copy, without the parts that are not used
    remarks: tuple[str, ...]  # on each such part, one line


def validate(experiment: Experiment, *, typed: Sequence[str] = ()) -> Validated:
    """The experiment that can be run, without what this one brings but would not use.

    `typed` are the dotted names that the user has set. Raises InputError with all problems at once:
    values of a wrong type or out of range, objectives that lack something or can never act, and
    typed values that would change nothing.
    """
    problems = Problems()
    with problems.part():
        check_types(experiment, origin="experiment")
    problems.raise_all()
    experiment = copy.deepcopy(experiment)
    only_evaluates = experiment.train.steps == 0
    remove_idle = _keep_evaluation if only_evaluates else _remove_idle
    remarks: list[str] = []
    with problems.part():
        remarks = remove_idle(experiment, typed)
    with problems.part():
        experiment.train.check("train")
    with problems.part():
        experiment.evaluation.check("evaluation")
    with problems.part():
        fused = experiment.evaluation.heads == "fused"
        require(
            experiment.model.has_auxiliary_head or not fused,
            "evaluation.heads is fused, but the network has no auxiliary head: "
            "add --set evaluation.heads=main",
        )
    with problems.part():
        experiment.model.check(num_classes=1)
    if only_evaluates:
        with problems.part():
            require_workers("data.workers", experiment.data.workers)
    else:
        _check_training(experiment, problems)
        with problems.part():
            remarks += _check_plateau(experiment, typed)
    problems.raise_all()
    return Validated(experiment, tuple(remarks))


def _check_training(experiment: Experiment, problems: Problems) -> None:
    with problems.part():
        experiment.data.check("data")
    if experiment.teacher is not None:
        with problems.part():
            experiment.teacher.check("teacher")
    for name, objective in experiment.objectives.items():
        with problems.part():
            objective.check(f"objectives.{name}")
            objective.check_crop(
                f"objectives.{name}", experiment.data.crop_of(experiment.data.source)
            )
    with problems.part():
        check_start_steps(experiment.objectives, steps=experiment.train.steps)
    with problems.part():
        check_views(experiment.objectives)
    with problems.part():
        _check_needs(experiment)
    with problems.part():
        _check_sanity(experiment)


def _keep_evaluation(experiment: Experiment, typed: Sequence[str]) -> list[str]:
    """Without a step there are weights to read, and nothing of what only training uses."""
    data, train = experiment.data, experiment.train
    require(
        train.initial_snapshot is not None,
        "train.steps is 0: nothing is trained, so add --restore-from FILE to evaluate it",
    )
    every = EvaluationConfig(dataset="").every
    used = Experiment(
        data=DataConfig(root=data.root, workers=data.workers),
        model=experiment.model,
        train=TrainConfig(steps=0, batch_size=1, initial_snapshot=train.initial_snapshot),
        evaluation=replace(experiment.evaluation, every=every),
    )
    unused = differences(to_plain(experiment), to_plain(used))
    for path in typed:
        vain = any(f"{path}.".startswith(f"{idle}.") or idle.startswith(f"{path}.") or path == idle
                   for idle in unused)  # fmt: skip
        require(
            not vain,
            f"{path} changes nothing: train.steps is 0, so nothing is trained; omit --set {path}",
        )
    for part in fields(Experiment):
        setattr(experiment, part.name, getattr(used, part.name))
    reason = "train.steps is 0, so nothing is trained"
    return [f"{', '.join(unused)}: not used, because {reason}"] if unused else []


def _remove_idle(experiment: Experiment, typed: Sequence[str]) -> list[str]:
    """Removes what changes nothing, and says so; what was typed in vain is a problem."""
    remarks = []
    # One by one, as what is removed may take others with it, or leave others idle.
    while (idle := next(chain(_unneeded(experiment), idle_fields(experiment)), None)) is not None:
        said, vain = switch_off(experiment, idle, typed)
        require(not vain, said)
        remarks += [said] * (not vain)
    return remarks


def _unneeded(experiment: Experiment) -> Iterator[Idle]:
    """The parts that exist for objectives, where no objective needs them."""
    needed = {need for config in experiment.objectives.values() for need in needs_of(config)}
    for need, part in _parts(experiment).items():
        # Objectives that read logits also train a network with queries or a mask token.
        used = need in needed | {"queries", "mask_token", "equal_crops"}
        if part.present and not used and experiment.objectives:
            yield Idle(part.path, "no objective needs it", part.off)
    target = experiment.data.target
    if target is not None and target.ignored_borders is not None and "teacher" not in needed:
        yield Idle("data.target.ignored_borders", "no objective needs labels of a teacher", None)
    if target is None:
        default = TrainConfig(steps=0, batch_size=1).unlabeled_images
        if experiment.train.unlabeled_images != default:
            reason = "there are no target images, as data.target is none"
            yield Idle("train.unlabeled_images", reason, default)


class _Part(NamedTuple):
    """What meets a need."""

    path: str  # dotted
    present: bool
    add: str  # what to type for it
    off: object = None  # the value without it


def _parts(experiment: Experiment) -> dict[str, _Part]:
    """What meets each need."""
    data, model = experiment.data, experiment.model
    switch, without = model.auxiliary_switch
    without_head: object = None
    if model.has_auxiliary_head:
        bare = copy.deepcopy(model)
        apply_override(bare, f"{switch}={without}")
        without_head = getattr(bare, switch)
    return {
        "source": _Part("data.source", data.source is not None, "--set data.source=NAME"),
        "target": _Part(
            "data.target",
            data.target is not None,
            f"--set data.target={experiment.evaluation.dataset}",
        ),
        "teacher": _Part("teacher", experiment.teacher is not None, "--set teacher=default"),
        "pseudo_labels": _Part(
            "data.pseudo_labels",
            data.pseudo_labels is not None,
            "--set data.pseudo_labels=FOLDER, a folder that pseudo_label.py wrote",
        ),
        "target_ground_truth": _Part(
            "data.target_ground_truth",
            data.target_ground_truth,
            "--set data.target_ground_truth=true, which makes the run a supervised one",
            off=False,
        ),
        "second_target_view": _Part(
            "data.second_target_view",
            data.second_target_view is not None,
            "--set data.second_target_view=default",
        ),
        "auxiliary_head": _Part(f"model.{switch}", model.has_auxiliary_head, "", off=without_head),
        "equal_crops": _Part(
            "source and target crops of one size",
            len({data.crop_of(d) for d in (data.source, data.target) if d is not None}) < 2,
            "--set data.source.crop=none --set data.target.crop=none",
        ),
        "queries": _Part(
            "a network with queries, such as Mask2Former",
            model.has_queries,
            "--set model=mask2former",
        ),
        "mask_token": _Part(
            "an encoder with a mask token",
            model.hides_tokens,
            "--set model=encoder_decoder --set model.encoder.name=dinov2_vitb14",
        ),
    }


def _check_needs(experiment: Experiment) -> None:
    """Everything that an objective needs is there."""
    parts = _parts(experiment)
    for name, config in experiment.objectives.items():
        for need in sorted(needs_of(config)):
            if need not in parts:
                what = f"an unknown need; known: {', '.join(get_args(Need))}"
                require(False, f"objective {name!r} needs {need!r}, {what}")
                continue
            part, lacks = parts[need], "which this preset lacks: add"
            advice = part.add or _without_auxiliary_head(experiment, name)
            require(part.present, f"objective {name!r} needs {part.path}, {lacks} {advice}")


def _without_auxiliary_head(experiment: Experiment, user: str) -> str:
    """What to type where objective `user` needs an auxiliary head that the network lacks."""
    config, path = experiment.objectives[user], f"objectives.{user}"
    ways = []
    switch, without = experiment.model.auxiliary_switch
    if switch.isidentifier():
        present = {"false": "true", "none": "fcn"}.get(without, "2")
        ways.append(f"--set model.{switch}={present}")
    without_weight = copy.copy(config)
    if hasattr(without_weight, "auxiliary_weight"):
        without_weight.auxiliary_weight = 0.0
        if "auxiliary_head" not in needs_of(without_weight):
            ways.append(f"--set {path}.auxiliary_weight=0")
    return " or ".join([*ways, f"--set {path}=none"])


def _check_plateau(experiment: Experiment, typed: Sequence[str]) -> list[str]:
    """What the plateau watches is there, and does not select by labels that are not there. Says so
    where a shorter run leaves it no time to act."""
    plateau = experiment.train.plateau
    if plateau is None:
        return []
    require(
        experiment.evaluation.every > 0,
        "train.plateau sets the learning rate after every evaluation, but evaluation.every is 0: "
        "add --set evaluation.every=1000, or --set train.plateau=none",
    )
    require(
        plateau.watches == "loss" or experiment.data.target is None,
        "train.plateau.watches is miou, which would choose the learning rate by the labels that "
        "the preset is scored on, but data.target is to be learned without labels: "
        "add --set train.plateau.watches=loss",
    )
    if plateau.watches == "loss":
        check_watched_loss(experiment.objectives)
    # One evaluation to be the best, then one more than the patience.
    every, end = experiment.evaluation.every, experiment.train.plateau_end
    first = (plateau.patience + 2) * every
    said = (
        f"train.plateau could change the rate at step {first} at the earliest ((patience "
        f"{plateau.patience} + 2) * evaluation.every {every}), but ends at {end}"
    )
    shortened = "train.steps" in typed and not any(
        path.startswith("train.plateau") for path in typed
    )
    often = max((end - 1) // (plateau.patience + 2), 1)
    require(
        first < end or shortened,
        f"{said}: evaluate more often, with --set evaluation.every={often}, or lower "
        "train.plateau.patience",
    )
    return [] if first < end else [f"{said}: it will not act"]


def _check_sanity(experiment: Experiment) -> None:
    """A sanity check is scored on images that are trained on."""
    source, scored = experiment.data.source, experiment.evaluation
    require(
        not experiment.train.sanity_check
        or (scored.every > 0 and source is not None and (source.datasets, source.splits)
            == ((scored.dataset,), (scored.split,))),
        "train.sanity_check is true, but the images of evaluation.dataset and evaluation.split are "
        "not those of data.source: start it with --sanity-check",
    )  # fmt: skip
