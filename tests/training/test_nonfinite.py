"""Losses of NaN: reported with their step and batch, never saved, skipped if that is allowed."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from interruptions import experiment_of, files, run_to_end, start_group, stopped_after
from shells import CLASS_MIX
from tiny_runs import (
    REPOSITORY,
    assert_same,
    metrics,
    steps,
    tiny_options,
    tiny_preset,
    tiny_run,
)
from uda.checkpoints.snapshots import read
from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.supervised import Supervised
from uda.training import loop as engine
from uda.training.run import Run, StepResult
from uda.training.step import train_step


@contextmanager
def poisoned(*numbers: int) -> Iterator[list[Tensor]]:
    """The supervised loss of updates `numbers`, from 0, is NaN; their images, when they come."""
    original = Supervised.terms
    images: list[Tensor] = []

    def terms(
        self: Supervised, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        found = original(self, view, output, context)
        if context.step not in numbers:
            return found
        images.append(view.images)
        return {name: value * math.nan for name, value in found.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Supervised, "terms", terms)
        yield images


def test_a_loss_that_is_not_finite_is_reported_with_its_step_and_batch(
    toy_root: Path, tmp_path: Path
) -> None:
    """Although losses are read two steps later."""
    experiment = experiment_of(toy_root)
    experiment.train.log_every = experiment.train.resume_every = 100
    experiment.train.snapshot_every = 5
    with poisoned(2) as images, pytest.raises(FloatingPointError) as stopped:
        run_to_end(experiment, tmp_path / "run")
    message = str(stopped.value)
    assert "not finite at step 3: loss/supervised/main nan, " in message
    assert "loss/class_mix/main" in message
    path = tmp_path / "run/nonfinite/step_3.pth"
    batch = torch.load(path, weights_only=True)
    assert f"its batch, in {path} (and .png): source {', '.join(batch['source_names'])}" in message
    assert len(batch["target_names"]) == 2
    assert all(name in message for name in batch["target_names"])
    assert torch.equal(batch["source_images"] / 255, images[0].cpu())
    assert math.isnan(batch["losses"]["loss/supervised/main"])
    with Image.open(path.with_suffix(".png")) as picture:
        assert picture.width > 3 * 128
    assert not list((tmp_path / "run").glob("*.pth")), "nothing that it poisoned is saved"


def test_a_step_that_is_not_finite_moves_nothing(toy_root: Path) -> None:
    experiment = tiny_preset("toy_aagc_student", toy_root)
    experiment.train.skip_nonfinite = 1
    run = tiny_run(experiment)
    steps(run, 1)
    before = {part: {n: t.clone() for n, t in state.items()} for part, state in networks(run)}
    with poisoned(1):
        (result,) = steps(run, 1)
    assert result.skipped
    assert (run.step, run.skipped) == (2, 1)
    assert_same(dict(networks(run)), before)
    assert not steps(run, 1)[0].skipped


def networks(run: Run) -> list[tuple[str, dict[str, Any]]]:
    return [(str(place), network.state_dict()) for place, network in enumerate(run.networks())]


@pytest.mark.slow
def test_as_many_steps_are_skipped_as_were_allowed(
    toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a resumed run remembers how many there were."""
    experiment = experiment_of(toy_root)
    experiment.train.skip_nonfinite = 2
    with poisoned(1, 4):
        run_to_end(experiment, tmp_path / "straight")
        stopped_after(3, experiment, tmp_path / "resumed")
        run_to_end(experiment, tmp_path / "resumed", resume=True)
    out = capsys.readouterr().out
    assert "skipped, 2 of at most 2: a loss is not finite at step 5: loss/superv" in out
    assert_same(files(tmp_path / "resumed"), files(tmp_path / "straight"))
    skipped = [line for line in metrics(tmp_path / "straight") if "skipped" in line]
    assert [(line["step"], line["skipped"]) for line in skipped] == [(2, 1), (5, 2)]
    assert "loss/supervised/main nan" in skipped[0]["losses"]
    experiment.train.skip_nonfinite = 1
    with (
        poisoned(1, 4),
        pytest.raises(FloatingPointError, match=r"step 5.*--skip-nonfinite 1 is u"),
    ):
        run_to_end(experiment, tmp_path / "one")
    assert read(tmp_path / "one/resume.pth")["step"] == 4


_POISON_ON_ONE_RANK = """
import runpy, sys
from uda.utilities.distributed import rank
from uda.objectives.supervised import Supervised
original = Supervised.terms
def terms(self, view, output, context):
    factor = float("nan") if context.step == 1 and rank() == 1 else 1.0
    return {name: value * factor for name, value in original(self, view, output, context).items()}
Supervised.terms = terms
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_processes_skip_the_same_step(toy_root: Path, tmp_path: Path) -> None:
    """NaN on one of two: no weights change, and the run continues to its end."""
    program = f"import sys; sys.argv = sys.argv[1:]\n{_POISON_ON_ONE_RANK}"
    (tmp_path / "poisoned.py").write_text(program)
    job = start_group(
        tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--",
        "poisoned.py", str(REPOSITORY / "train_uda.py"), *CLASS_MIX, *tiny_options(toy_root),
        "--run", "run", "--skip-nonfinite", "1",
    )  # fmt: skip
    out, error = job.communicate(timeout=240)
    assert job.returncode == 0, error
    assert out.count("skipped, 1 of at most 1: a loss is not finite at step 2") == 1
    lines = metrics(tmp_path / "snapshots/run")
    assert [line["step"] for line in lines if "skipped" in line] == [2]
    assert [line["step"] for line in lines if "lr" in line] == [1, 3]
    batch = torch.load(tmp_path / "snapshots/run/nonfinite/step_2.pth", weights_only=True)
    assert len(batch["source_names"]) == 2, "of both processes"


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_terms(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noticed before the state is saved, even when nothing is due to be logged."""
    experiment = tiny_preset("gc_640x360_b2_source_only", toy_root)
    experiment.train.resume_every = 2
    experiment.train.log_every = 100
    original = train_step

    def with_bad_weights(run: Run, batch: Batch) -> StepResult:
        if run.step == 3:
            for weight in run.student.head_parameters():
                weight.data.fill_(math.nan)
        return original(run, batch)

    monkeypatch.setattr(engine, "train_step", with_bad_weights)
    with pytest.raises(FloatingPointError, match=r"step 4: loss/supervised/main nan, .*auxiliary"):
        run_to_end(experiment, tmp_path / "run")
    state = read(tmp_path / "run/resume.pth")
    assert state["step"] == 2
    assert all(t.isfinite().all() for t in state["student"].values() if t.is_floating_point())


def test_a_gradient_that_is_not_finite_replaces_no_good_file(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All losses are finite, and the step is the one after which all is saved."""
    experiment = experiment_of(toy_root)
    experiment.train.resume_every, experiment.train.log_every = 1, 100
    original = Supervised.terms

    def terms(
        self: Supervised, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        found = original(self, view, output, context)
        if context.step == 2:  # the square root of 0 has no gradient
            found["main"] = found["main"] + (0 * output.logits.flatten()[0]).sqrt()
        return found

    monkeypatch.setattr(Supervised, "terms", terms)
    with pytest.raises(FloatingPointError) as stopped:
        run_to_end(experiment, tmp_path / "run")
    message = str(stopped.value)
    assert "a gradient is not finite at step 3, the losses are: loss/" in message
    assert "add --skip-nonfinite 1" in message
    assert "nan" not in message.partition("; its batch")[0]
    assert read(tmp_path / "run/resume.pth")["step"] == 2
    assert read(tmp_path / "run/resume.previous.pth")["step"] == 1


@pytest.mark.parametrize("step", [2, 6])  # in the middle, and the last one
def test_weights_that_are_not_finite_are_neither_saved_nor_scored(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """As a learning rate beyond all measure makes them, of finite losses and gradients."""
    experiment = experiment_of(toy_root)
    experiment.train.resume_every, experiment.evaluation.every = 1, step
    original = train_step

    def overflowing(run: Run, batch: Batch) -> StepResult:
        found = original(run, batch)
        if run.step == step:
            next(run.student.parameters()).data.fill_(math.inf)
        return found

    monkeypatch.setattr(engine, "train_step", overflowing)
    with pytest.raises(FloatingPointError, match=rf"after step {step}, 1 tensor is \(\S+\) not f"):
        run_to_end(experiment, tmp_path / "run")
    assert read(tmp_path / "run/resume.pth")["step"] == step - 1
    assert not any("miou" in line for line in metrics(tmp_path / "run"))
    assert not (tmp_path / f"run/GTA5_{step}.pth").exists()
