"""Where the weights of a run come from: random initialization, a file, or its resume.pth."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from uda.checkpoints.foreign import ForeignOptions
from uda.checkpoints.heads import without_unused_head
from uda.checkpoints.snapshots import load as load_snapshot
from uda.checkpoints.stored import load_weights
from uda.data.registry import layout_named, root_of
from uda.data.sampling import batches
from uda.data.training import open_labeled_split
from uda.evaluation.evaluate import protocol_line
from uda.evaluation.metrics import Scores
from uda.evaluation.reports import scores_json
from uda.experiment import Experiment
from uda.labels.spaces import LabelSpace
from uda.training.records import evaluate_network
from uda.training.run import Run, attach, start_run
from uda.training.run_folder import RunFolder
from uda.training.run_plan import RunPlan
from uda.training.signals import Stop
from uda.utilities.atomic_files import clear_write_errors, replacing
from uda.utilities.distributed import is_main
from uda.utilities.errors import InputError, require
from uda.utilities.sealed_json import sealed
from uda.utilities.weight_files import identity


class Start(NamedTuple):
    """A run before its next step."""

    run: Run
    folder: RunFolder
    unfinished: bool = False  # whether records of the step before are still to be made


def initial_classes(experiment: Experiment) -> LabelSpace | None:
    """The classes of the network that a run without a source starts from, if it does."""
    initial = experiment.train.initial_snapshot
    if initial is None or experiment.data.source is not None:
        return None
    return load_snapshot(Path(initial), foreign=ForeignOptions(network_is_given=True)).label_space


def first_weights(
    plan: RunPlan,
    *,
    device: torch.device,
    resume: bool | Path,
    code_changed: bool = False,
    data_changed: bool = False,
) -> Start:
    """The run as it has to start, and its folder, which knows where the weights came from; with
    `resume`, from its own resume.pth or from the file or folder given."""
    experiment = plan.experiment
    supervision = plan.data.supervision + _of_frozen_networks(plan)
    resumed = None
    if resume:
        given = resume if isinstance(resume, Path) else None
        resumed = plan.load_resume(given, code_changed=code_changed, data_changed=data_changed)
    initial = experiment.train.initial_snapshot
    model = experiment.model
    if resumed is not None or initial is not None:
        model = model.without_weights()  # they would be overwritten
    num_classes = plan.data.label_space.num_classes
    run = start_run(replace(experiment, model=model), num_classes=num_classes, device=device)
    if resumed is not None:
        run.load_state(resumed.state)
        folder = plan.started(
            supervision=resumed.supervision,
            initial_weights=resumed.initial_weights,
            data_changed_at=resumed.data_changed_at,
        )
        return Start(run, folder, resumed.unfinished)
    if initial is None:
        folder = plan.started(supervision=supervision, initial_weights=run.student.provenance)
        _look_at_first_batches(run, plan)
        return Start(run, folder)
    snapshot = load_snapshot(Path(initial), foreign=ForeignOptions(network_is_given=True))
    if snapshot.is_foreign and type(snapshot.model) is not type(model):
        raise InputError(
            f"{initial} holds {snapshot.preset}, a {type(snapshot.model).__name__}, but the "
            f"network of this preset is a {type(model).__name__}: choose a preset with that "
            "network, such as one whose name begins with logged_"
        )
    load_weights(run.student, without_unused_head(snapshot, run.student), origin=initial)
    attach(run.objectives, run.student)
    if snapshot.supervision != "none":
        supervision += f"; initial weights made with: {snapshot.supervision}"
    taken = [identity(Path(initial))]
    if snapshot.is_foreign:
        auxiliary_head = snapshot.model.has_auxiliary_head
        for objective in run.objectives.values():
            taken.append(objective.restore_beside(Path(initial), auxiliary_head=auxiliary_head))
    initial_weights = "; ".join(filter(None, taken))
    _look_at_first_batches(run, plan)
    return Start(run, plan.started(supervision=supervision, initial_weights=initial_weights))


def _of_frozen_networks(plan: RunPlan) -> str:
    """What the networks that objectives take from snapshots have seen, to be added to the run's
    supervision. Raises InputError when such a network has other classes."""
    added = ""
    for name, config in plan.experiment.objectives.items():
        path = config.frozen_snapshot()
        if path is None:
            continue
        snapshot = load_snapshot(Path(path))
        ours, theirs = plan.data.label_space, snapshot.label_space
        require(
            ours.classes == theirs.classes,
            f"{path} of objectives.{name} has {theirs.num_classes} classes of {theirs.name}; the "
            f"run learns {ours.num_classes} of {ours.name}: name a snapshot with these classes",
        )
        if snapshot.supervision != "none":
            added += f"; network of {name} made with: {snapshot.supervision}"
    return added


def _look_at_first_batches(run: Run, plan: RunPlan) -> None:
    """Shows objectives the batches that they want to see before the first step."""
    for objective in run.objectives.values():
        count = objective.config.first_batches()
        if count:
            found = batches(
                plan.data.dataset,
                batch_size=run.experiment.train.batch_size,
                first_step=0,
                steps=count,
                workers=run.experiment.data.workers,
            )
            objective.before_first_step(run.student, (b.to_device(run.device) for b in found))


def evaluate_first_weights(
    experiment: Experiment, path: Path, *, preset: str, device: torch.device, stop: Stop
) -> Scores:
    """The scores of a preset that trains nothing, kept in `path/scores.json` with their facts."""
    config, initial = experiment.evaluation, experiment.train.initial_snapshot
    assert initial is not None, "validate() has seen to it that there are weights"
    space = layout_named(config.dataset).label_space
    root = root_of(experiment.data.root, [config.dataset])
    config.class_sets(space)
    validation = open_labeled_split(root, config.dataset, config.split, label_space=space)
    model = experiment.model.without_weights()  # they would be overwritten
    student = model.build(space.num_classes).to(device)
    student = student.to(memory_format=torch.channels_last)
    snapshot = load_snapshot(Path(initial), foreign=ForeignOptions(network_is_given=True))
    load_weights(student, snapshot.student, origin=initial)
    facts: dict[str, object] = {
        "preset": preset,
        "snapshot": initial,
        "supervision": snapshot.supervision,
        "protocol": protocol_line(config),
        "images": len(validation),
    }
    print("\n".join(f"{name:<16} {fact}" for name, fact in facts.items()))
    scores, measured = evaluate_network(
        student, validation, experiment=experiment, label_space=space, stop=stop
    )
    if not is_main():
        return scores
    content = sealed(scores_json(scores, space.report_names, **facts, **measured), indent=2)
    with clear_write_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    with replacing(path / "scores.json") as file:
        file.write(content)
    return scores
