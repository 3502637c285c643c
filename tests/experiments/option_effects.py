"""What an option changes: every weight of a few updates, or all that a whole run leaves."""

from collections.abc import Iterator
from functools import cache
from hashlib import blake2b
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import torch
from option_cases import CASES
from option_values import Option, changed
from torch import Tensor

from tiny_runs import CPU, flat, metrics
from uda.checkpoints import snapshots
from uda.data.sampling import batches
from uda.data.training import open_training_data
from uda.experiment import Experiment, validate
from uda.training.loop import train
from uda.training.run import Run, start_run
from uda.training.step import train_step
from uda.utilities.errors import InputError

# Options that no update reads: they are seen in the scores and files of a whole run.
SEEN_IN_WHOLE_RUNS = ("evaluation.", "train.initial_snapshot", "train.log_every",
                      "train.snapshot_every", "train.resume_every",
                      "train.unlabeled_images", "train.plateau",
                      "train.cosine_restarts.", "objectives.subject.prototype_batches",
                      "objectives.subject.prior_batches")  # fmt: skip


def updates(experiment: Experiment) -> Iterator[bytes]:
    """A digest of every weight that training moves and of what the run says of its labels, before
    the first step and after each: whoever has seen a difference can stop."""
    validate(experiment)
    settings = experiment.train
    data = open_training_data(
        experiment.data, seed=settings.seed, evaluated=experiment.evaluation.dataset
    )
    run = start_run(experiment, num_classes=data.label_space.num_classes, device=CPU)
    stream = batches(
        data.dataset,
        batch_size=settings.batch_size,
        first_step=0,
        steps=settings.steps,
        workers=experiment.data.workers,
    )
    yield _digest(run, data.supervision)
    for batch in stream:
        train_step(run, batch)
        yield _digest(run, data.supervision)


def _digest(run: Run, supervision: str) -> bytes:
    state = run.state()
    state.pop("optimizers")  # they hold their options, used or not
    found = blake2b(supervision.encode())
    for name, value in flat(state).items():
        found.update(name.encode())
        if isinstance(value, Tensor):
            found.update(f"{value.dtype} {value.shape}".encode())
            found.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        else:
            found.update(repr(value).encode())
    return found.digest()


def whole_run(experiment: Experiment, folder: Path) -> dict[str, object]:
    """Scores, records, the student, and which files were written when."""
    saved = []
    save = snapshots.save

    def watched(values: dict[str, Any], path: Path, *, keep: Path | None = None) -> None:
        saved.append((path.name, values["step"]))
        save(values, path, keep=keep)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "save", watched)
        scores = train(experiment, folder, preset="tiny", device=CPU)
    lines = metrics(folder)
    for line in lines:
        line.pop("protocol", None)  # it repeats the options: no proof that they do anything
    return {
        "confusion": scores.confusion,
        "metrics": lines,
        "saved": saved,
        "student": snapshots.read(folder / "resume.pth")["student"],
    }


def same(ours: object, theirs: object) -> bool:
    left, right = flat(ours), flat(theirs)

    def equal(one: object, other: object) -> bool:
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            return one.shape == other.shape and torch.equal(one, other)
        return one == other

    return left.keys() == right.keys() and all(equal(left[name], right[name]) for name in left)


@cache
def unchanged(case: str, root: Path) -> tuple[bytes, ...]:
    return tuple(updates(CASES[case].build(root)))


@cache
def unchanged_whole_run(case: str, root: Path) -> dict[str, object]:
    return whole_run(CASES[case].build(root), root.parent / f"{case}_unchanged")


def ignored(option: Option, root: Path, folder: Path) -> list[object]:
    """The values of an option that are accepted and change nothing."""
    found, refusals = [], []
    for index, value in enumerate(option.others):
        experiment = changed(CASES[option.case], option.path, value, root)
        try:
            validate(experiment, typed=[option.path])
            if option.path.startswith(SEEN_IN_WHOLE_RUNS):
                before = unchanged_whole_run(option.case, root)
                as_before = same(before, whole_run(experiment, folder / f"{index}"))
            else:
                pairs = zip_longest(unchanged(option.case, root), updates(experiment))
                as_before = all(one == other for one, other in pairs)
        except InputError as error:
            refusals.append(str(error))
            continue
        if as_before:
            found.append(value)
    assert not any("\n" in refusal for refusal in refusals)
    return found
