"""A run is a function of (preset, seed): interrupted or not, evaluated or not, with any workers."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

import uda.commands.train
from interruptions import kill_once_there
from tiny_runs import (
    CPU,
    assert_different,
    assert_same,
    batch_for,
    interrupt,
    metrics,
    start_process,
    tiny_options,
    tiny_preset,
    tiny_run,
)
from uda.augmentation.jitter import JitterConfig
from uda.checkpoints.snapshots import load, read
from uda.evaluation.metrics import Scores
from uda.experiment import Experiment
from uda.models.decoders.daformer import DAFormerConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.hrda import HrdaConfig
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.cut_mix import CutMixConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.teacher import TeacherConfig
from uda.training.loop import train
from uda.training.step import train_step


def everything(toy_root: Path) -> Experiment:
    """Every objective at once: two heads, discriminators, a teacher, pseudo-labels, dropout."""
    experiment = tiny_preset("aagc_640x360_b2_student", toy_root, steps=4)
    experiment.objectives["class_mix"] = ClassMixConfig()
    experiment.objectives["cut_mix"] = CutMixConfig(start_step=1, jitter=JitterConfig())
    experiment.teacher = TeacherConfig(batch_norm="running")
    return experiment


def details(toy_root: Path) -> Experiment:
    """Class mix of a network that looks at a random detail of each view."""
    experiment = tiny_preset("toy_class_mix", toy_root, steps=4)
    experiment.objectives["supervised"] = SupervisedConfig(auxiliary_weight=0.0)
    experiment.model = EncoderDecoderConfig(
        encoder=EncoderConfig(name="resnet18", weights="none", width=8),
        decoder=DAFormerConfig(channels=8, fusion="conv1"),
        hrda=HrdaConfig(crop=64, attention=DAFormerConfig(channels=8, fusion="conv1")),
    )
    return experiment


EXPERIMENTS: dict[str, Callable[[Path], Experiment]] = {
    "everything": everything,
    "class_mix": lambda root: tiny_preset("toy_class_mix", root, steps=4),
    "cut_mix": lambda root: tiny_preset("gc_640x360_b2_cut_mix", root, steps=4),
    "details": details,
    "oracle": lambda root: tiny_preset("cityscapes_seg", root, steps=4),
}


def run_to_end(experiment: Experiment, folder: Path, *, resume: bool = False) -> Scores:
    return train(experiment, folder, preset="tiny", device=CPU, resume=resume)


def final_state(folder: Path) -> dict[str, Any]:
    """All that training moves, and what the last snapshot says besides."""
    state = read(folder / "resume.pth")
    state.pop("scores")
    (last,) = folder.glob(f"*_{state['step']}.pth")
    return {"resume": state, "snapshot": read(last)}


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, "float32") for name in EXPERIMENTS),
        pytest.param("everything", "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_interrupted_and_resumed_equals_straight(
    name: str, precision: Literal["float32", "bfloat16"], toy_root: Path, tmp_path: Path
) -> None:
    """Step 3 of 4 is lost and made again: the state on disk is that of step 2."""
    experiment = EXPERIMENTS[name](toy_root)
    experiment.train.precision = precision
    experiment.train.resume_every = 2
    straight = run_to_end(experiment, tmp_path / "straight")
    interrupt(experiment, tmp_path / "resumed", at=3)
    assert read(tmp_path / "resumed/resume.pth")["step"] == 2
    resumed = run_to_end(experiment, tmp_path / "resumed", resume=True)

    assert straight.confusion == resumed.confusion
    states = final_state(tmp_path / "straight"), final_state(tmp_path / "resumed")
    assert_same(*states)
    state = states[0]["resume"]
    assert state["step"] == 4
    assert set(state["training"]["objectives"]) == set(experiment.objectives)
    assert state["training"]["optimizers"]["student"]["state"]
    if experiment.teacher is not None:
        assert_different(state["teacher"], state["student"])
    assert metrics(tmp_path / "straight") == metrics(tmp_path / "resumed")


def test_resumed_where_the_teacher_starts_equals_straight(toy_root: Path, tmp_path: Path) -> None:
    experiment = EXPERIMENTS["class_mix"](toy_root)
    experiment.objectives["class_mix"].start_step = experiment.train.resume_every = 2
    run_to_end(experiment, tmp_path / "straight")
    interrupt(experiment, tmp_path / "resumed", at=2)
    assert read(tmp_path / "resumed/resume.pth")["teacher"] is None
    run_to_end(experiment, tmp_path / "resumed", resume=True)
    assert_same(final_state(tmp_path / "straight"), final_state(tmp_path / "resumed"))


def test_every_step_matters_to_the_comparison(toy_root: Path, tmp_path: Path) -> None:
    """The test above can fail: another seed, or one more lost step, is another state."""
    experiment = EXPERIMENTS["class_mix"](toy_root)
    run_to_end(experiment, tmp_path / "a")
    experiment.train.seed = 1
    run_to_end(experiment, tmp_path / "b")
    a, b = (final_state(tmp_path / name)["resume"] for name in "ab")
    for part in ("student", "teacher"):
        assert_different(a[part], b[part])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["everything"])
def test_same_bits_with_and_without_loader_workers(
    name: str, toy_root: Path, tmp_path: Path
) -> None:
    experiment = EXPERIMENTS[name](toy_root)
    run_to_end(experiment, tmp_path / "0")
    experiment.data.workers = 2
    run_to_end(experiment, tmp_path / "2")
    zero, two = (final_state(tmp_path / workers) for workers in "02")
    for state in (zero, two):
        for part in state.values():
            part["experiment"]["data"].pop("workers")
    assert_same(zero, two)
    assert metrics(tmp_path / "0") == metrics(tmp_path / "2")


@pytest.mark.slow
def test_evaluation_does_not_change_training(toy_root: Path, tmp_path: Path) -> None:
    experiment = EXPERIMENTS["class_mix"](toy_root)
    experiment.model.batch_norm = "frozen_affine"
    run_to_end(experiment, tmp_path / "rarely")
    experiment.evaluation.every = 1
    experiment.data.workers = 1
    run_to_end(experiment, tmp_path / "often")
    rarely, often = (read(tmp_path / name / "resume.pth") for name in ("rarely", "often"))
    for part in ("student", "teacher", "training"):
        assert_same(rarely[part], often[part])
    evaluated = [line for line in metrics(tmp_path / "often") if "miou" in line]
    assert [line["step"] for line in evaluated] == [1, 2, 3, 4]
    assert [line["step"] for line in metrics(tmp_path / "rarely") if "miou" in line] == [4]


@pytest.mark.slow
def test_what_the_global_generator_held_does_not_matter(toy_root: Path) -> None:
    """Nor do numbers that something else draws between the steps."""
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        run = tiny_run(EXPERIMENTS["everything"](toy_root))
        for _ in range(2):
            torch.rand(seed)
            result = train_step(run, batch_for(run.experiment))
        losses.append(result.losses)
    assert_same(*losses)


def test_a_finished_run_that_is_resumed_is_only_evaluated(toy_root: Path, tmp_path: Path) -> None:
    experiment = EXPERIMENTS["oracle"](toy_root)
    scores = run_to_end(experiment, tmp_path / "run")
    before = (tmp_path / "run/resume.pth").read_bytes()
    assert run_to_end(experiment, tmp_path / "run", resume=True).confusion == scores.confusion
    assert (tmp_path / "run/resume.pth").read_bytes() == before


def test_files_of_a_run(toy_root: Path, tmp_path: Path) -> None:
    experiment = EXPERIMENTS["class_mix"](toy_root)
    experiment.train.snapshot_every = 1
    scores = run_to_end(experiment, tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    snapshots = {f"GTA5_{step}.pth" for step in (1, 2, 3, 4)}
    assert names == snapshots | {
        ".lock", "resume.pth", "metrics.jsonl", "summary.json", "tensorboard"
    }  # fmt: skip
    middle, last = load(tmp_path / "run/GTA5_3.pth"), load(tmp_path / "run/GTA5_4.pth")
    assert (middle.step, middle.scores) == (3, None)
    assert last.scores is not None
    assert last.scores["miou"] == pytest.approx(100 * scores.miou, abs=1e-3)
    assert last.preset == "tiny"
    assert last.initial_weights == "random"
    assert last.teacher is not None
    assert_different(last.student, last.teacher)
    assert_same(last.build("student").state_dict(), last.student)
    assert_same(last.build("teacher").state_dict(), last.teacher)
    assert load(tmp_path / "run/GTA5_1.pth").teacher is None, "no objective had used it yet"
    oracle = EXPERIMENTS["oracle"](toy_root)
    run_to_end(oracle, tmp_path / "oracle")
    assert (tmp_path / "oracle/CITYS_4.pth").exists()


def command(toy_root: Path, *arguments: str) -> list[str]:
    """The arguments of train_uda.py for a class mix run of 14 steps on a tiny network."""
    length = (
        "train.steps=14", "train.resume_every=5", "evaluation.every=8", "data.workers=1",
        "objectives.class_mix.start_step=3",
    )  # fmt: skip
    sets = [part for setting in length for part in ("--set", setting)]
    return ["train_uda.py", "--preset", "toy_class_mix", *tiny_options(toy_root), *sets, *arguments]


@pytest.mark.slow
def test_a_killed_process_resumed_in_another_equals_an_undisturbed_one(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = start_process(tmp_path, *command(toy_root, "--run", "killed"))
    resume_file = tmp_path / "snapshots/killed/resume.pth"
    kill_once_there(resume_file, killed)
    assert 5 <= read(resume_file)["step"] < 14, "it died in the middle"

    resumed = start_process(tmp_path, *command(toy_root, "--run", "killed", "--resume"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", command(toy_root, "--run", "undisturbed"))
    uda.commands.train.main()
    out, error = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, error
    assert "===> mIoU:" in out
    assert error == ""
    states = [final_state(tmp_path / "snapshots" / run) for run in ("undisturbed", "killed")]
    assert_same(*states)
    left, right = (metrics(tmp_path / "snapshots" / run) for run in ("undisturbed", "killed"))
    assert left == right
    assert [line["step"] for line in left if "miou" in line] == [8, 14]


def test_bfloat16_keeps_weights_and_losses_in_float32(toy_root: Path) -> None:
    experiment = everything(toy_root)
    experiment.train.precision = "bfloat16"
    run = tiny_run(experiment)
    result = train_step(run, batch_for(experiment))
    assert {weight.dtype for weight in run.student.parameters()} == {torch.float32}
    assert {value.dtype for value in result.losses.values()} == {torch.float32}
    experiment.train.precision = "float32"
    precise = train_step(tiny_run(experiment), batch_for(experiment)).losses
    assert set(precise) == set(result.losses)
    assert_different(precise, result.losses)
    for name, value in precise.items():
        assert result.losses[name].item() == pytest.approx(value.item(), rel=0.1, abs=0.05), name
