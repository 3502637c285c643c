"""A run is a function of (preset, seed): interrupted or not, evaluated or not, with any workers."""

import json
import math
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

import uda.commands.train
from factories import file_of
from tiny_runs import (
    CPU,
    CROP,
    assert_different,
    assert_same,
    batch_for,
    interrupt,
    metrics,
    random_batch,
    start_process,
    tiny_model,
    tiny_options,
    tiny_preset,
    tiny_run,
    write_pseudo_labels,
)
from uda.augmentation.jitter import JitterConfig
from uda.checkpoints.formats import SEGMENTRON
from uda.checkpoints.snapshots import load, read, save
from uda.data.batch import Batch, View
from uda.data.config import DomainConfig
from uda.evaluation.metrics import Scores
from uda.experiment import Experiment
from uda.experiments import load_preset
from uda.objectives.base import Objective, StepContext
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.cut_mix import CutMixConfig
from uda.objectives.memory_regularization import MemoryRegularizationConfig
from uda.optim.teacher import TeacherConfig
from uda.training import loop as engine
from uda.training.loop import train
from uda.training.run import Run, StepResult, start_run
from uda.training.step import _collect_views, train_step
from uda.utilities.config_tree import apply_override
from uda.utilities.errors import InputError


def everything(toy_root: Path) -> Experiment:
    """Every objective at once: two heads, discriminators, a teacher, pseudo-labels, dropout."""
    experiment = tiny_preset("aagc_640x360_b2_student", toy_root, steps=4)
    experiment.objectives["class_mix"] = ClassMixConfig()
    experiment.objectives["cut_mix"] = CutMixConfig(start_step=1, jitter=JitterConfig())
    experiment.teacher = TeacherConfig(batch_norm="running")
    return experiment


EXPERIMENTS: dict[str, Callable[[Path], Experiment]] = {
    "everything": everything,
    "class_mix": lambda root: tiny_preset("toy_class_mix", root, steps=4),
    "cut_mix": lambda root: tiny_preset("gc_640x360_b2_cut_mix", root, steps=4),
    "oracle": lambda root: tiny_preset("cityscapes_seg", root, steps=4),
}


def run_to_end(experiment: Experiment, folder: Path, *, resume: bool = False) -> Scores:
    return train(experiment, folder, preset="tiny", device=CPU, resume=resume)


def final_state(folder: Path) -> dict[str, Any]:
    """All that training moves, and what the last snapshot says beside it."""
    state = read(folder / "resume.pth")
    state.pop("scores")
    (last,) = folder.glob(f"*_{state['step']}.pth")
    return {"resume": state, "snapshot": read(last)}


@pytest.mark.parametrize(
    ("name", "precision"),
    [*((name, "float32") for name in EXPERIMENTS), ("everything", "bfloat16")],
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
    assert load(tmp_path / "run/GTA5_1.pth").teacher is None, "nobody had asked it yet"
    oracle = EXPERIMENTS["oracle"](toy_root)
    run_to_end(oracle, tmp_path / "oracle")
    assert (tmp_path / "oracle/CITYS_4.pth").exists()


# --- a process that dies


def command(toy_root: Path, *arguments: str) -> list[str]:
    """The arguments of train_uda.py for a class mix run of 14 steps on a tiny network."""
    length = (
        "train.steps=14", "train.resume_every=5", "evaluation.every=8", "data.workers=1",
        "objectives.class_mix.start_step=3",
    )  # fmt: skip
    sets = [part for setting in length for part in ("--set", setting)]
    return ["train_uda.py", "--preset", "toy_class_mix", *tiny_options(toy_root), *sets, *arguments]


def test_a_killed_process_resumed_in_another_equals_an_undisturbed_one(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = start_process(tmp_path, *command(toy_root, "--run", "killed"))
    resume_file = tmp_path / "snapshots/killed/resume.pth"
    deadline = time.monotonic() + 60
    while not resume_file.exists():
        assert killed.poll() is None, killed.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
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


# --- initial snapshots and supervision


@pytest.fixture(scope="module")
def source_only(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The snapshot of a run that saw source labels only."""
    folder = tmp_path_factory.mktemp("runs") / "source_only"
    run_to_end(tiny_preset("toy_source_only", toy_root, steps=2), folder)
    return folder / "GTA5_2.pth"


@pytest.fixture(scope="module")
def oracle(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The snapshot of a run that saw the target's labels."""
    folder = tmp_path_factory.mktemp("runs") / "oracle"
    run_to_end(tiny_preset("toy_oracle", toy_root, steps=2), folder)
    return folder / "CITYS_2.pth"


def first_states(
    experiment: Experiment, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, dict[str, Tensor]]:
    """What student and teacher are when the first loss is computed."""
    states: dict[str, dict[str, Tensor]] = {}
    collect = _collect_views

    def watched(
        run: Run, active: Mapping[str, Objective], batch: Batch, context: StepContext
    ) -> list[View]:
        if not states:
            networks = {"student": run.student}
            if run.teacher is not None:
                networks["teacher"] = run.teacher.network
            for name, network in networks.items():
                states[name] = {n: t.clone() for n, t in network.state_dict().items()}
        return collect(run, active, batch, context)

    monkeypatch.setattr("uda.training.step._collect_views", watched)
    run_to_end(experiment, folder)
    return states


def test_the_student_and_its_teacher_start_from_the_initial_snapshot(
    toy_root: Path, tmp_path: Path, source_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tiny_preset("toy_class_mix", toy_root, steps=2)
    experiment.train.initial_snapshot = str(source_only)
    states = first_states(experiment, tmp_path / "run", monkeypatch)
    expected = load(source_only).student
    assert_same(states["student"], expected)
    assert_same(states["teacher"], expected)
    snapshot = load(tmp_path / "run/GTA5_2.pth")
    assert snapshot.initial_weights.startswith("GTA5_2.pth sha256:")


def supervision_of(experiment: Experiment, folder: Path) -> str:
    run_to_end(experiment, folder)
    (path,) = folder.glob("*_2.pth")
    assert read(folder / "resume.pth")["supervision"] == load(path).supervision
    return load(path).supervision


def test_supervision_is_none_without_target_labels(
    toy_root: Path, tmp_path: Path, source_only: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = tiny_preset("toy_class_mix", toy_root, steps=2)
    experiment.objectives["class_mix"].start_step = 0
    assert supervision_of(experiment, tmp_path / "a") == "none"
    printed = capsys.readouterr().out
    assert "supervision      none (of the target)" in printed
    assert re.search(r"^step \d+: mIoU [\d.]+ \(supervision: none\)$", printed, re.MULTILINE)
    experiment.train.initial_snapshot = str(source_only)
    assert supervision_of(experiment, tmp_path / "b") == "none"


def test_supervision_by_target_labels_is_counted_and_inherited(
    toy_root: Path, tmp_path: Path, oracle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load(oracle).supervision == "ground truth (6 images)"
    experiment = tiny_preset("toy_oracle", toy_root, steps=2)
    assert experiment.data.source is not None
    experiment.data.source.first = 4
    assert supervision_of(experiment, tmp_path / "first") == "ground truth (4 images)"
    assert "supervision      ground truth (4 images) (of the target)" in capsys.readouterr().out
    mixed = tiny_preset("toy_source_only", toy_root, steps=2)
    assert mixed.data.source is not None
    mixed.data.source.datasets = ("gta5", "cityscapes")
    assert supervision_of(mixed, tmp_path / "mixed") == "ground truth (6 images)"
    child = tiny_preset("toy_source_only", toy_root, steps=2)
    child.train.initial_snapshot = str(oracle)
    inherited = supervision_of(child, tmp_path / "child")
    assert inherited == "none; initial weights made with: ground truth (6 images)"


def test_supervision_of_pseudo_labels_tells_whose_they_are(toy_root: Path, tmp_path: Path) -> None:
    experiment = tiny_preset("toy_aagc_student", toy_root, steps=2)
    assert supervision_of(experiment, tmp_path / "a") == "pseudo"
    folder = tmp_path / "labels_of_an_oracle"
    write_pseudo_labels(folder, toy_root, supervision="ground truth (6 images)")
    experiment.data.pseudo_labels = str(folder)
    expected = "pseudo; labels made with: ground truth (6 images)"
    assert supervision_of(experiment, tmp_path / "b") == expected


# --- what is refused


def test_a_used_folder_is_refused_and_left_alone(toy_root: Path, tmp_path: Path) -> None:
    experiment = tiny_preset("toy_source_only", toy_root, steps=2)
    run_to_end(experiment, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    with pytest.raises(InputError, match=r"holds a run already: add --resume.*--run NAME"):
        run_to_end(experiment, tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_snapshots_without_a_state_to_resume_from_are_refused_with_a_way_out(
    toy_root: Path, tmp_path: Path
) -> None:
    experiment = tiny_preset("toy_source_only", toy_root, steps=2)
    run_to_end(experiment, tmp_path / "run")
    (tmp_path / "run/resume.pth").unlink()
    with pytest.raises(InputError, match=r"no resume\.pth to go on from: choose another folder"):
        run_to_end(experiment, tmp_path / "run")


def test_resuming_what_was_never_begun_is_refused(toy_root: Path, tmp_path: Path) -> None:
    experiment = tiny_preset("toy_source_only", toy_root, steps=2)
    with pytest.raises(InputError, match=r"there is nothing to resume; leave --resume"):
        run_to_end(experiment, tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def interrupted(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a student's run that stopped after step 2 of 4."""
    folder = tmp_path_factory.mktemp("runs") / "interrupted"
    experiment = tiny_preset("toy_aagc_student", toy_root, steps=4)
    experiment.train.resume_every = 2
    interrupt(experiment, folder, at=3)
    return folder


def resumable(toy_root: Path) -> Experiment:
    experiment = tiny_preset("toy_aagc_student", toy_root, steps=4)
    experiment.train.resume_every = 2
    return experiment


def test_resuming_with_other_settings_names_them(toy_root: Path, interrupted: Path) -> None:
    experiment = resumable(toy_root)
    experiment.train.seed = 5
    experiment.train.optimizer.lr = 1.0
    experiment.objectives["memory"].weight = 0.2
    before = (interrupted / "metrics.jsonl").read_bytes()
    with pytest.raises(
        InputError,
        match=r"other values of objectives\.memory\.weight, train\.optimizer\.lr, train\.seed:",
    ):
        run_to_end(experiment, interrupted, resume=True)
    removed = resumable(toy_root)
    del removed.objectives["memory"]
    with pytest.raises(InputError, match=r"other values of objectives\.memory:"):
        run_to_end(removed, interrupted, resume=True)
    assert (interrupted / "metrics.jsonl").read_bytes() == before


def test_resuming_with_other_images_is_refused(toy_root: Path, interrupted: Path) -> None:
    experiment = resumable(toy_root)
    path = interrupted / "resume.pth"
    values = read(path)
    try:
        save(values | {"samples": "0" * 64}, path)
        with pytest.raises(InputError, match="written with other images"):
            run_to_end(experiment, interrupted, resume=True)
    finally:
        save(values, path)


def test_resuming_after_an_image_was_added_is_refused(toy_root: Path, tmp_path: Path) -> None:
    """The order of samples would be another."""
    root = tmp_path / "root"
    root.mkdir()
    for name in ("GTA5", "Cityscapes"):
        (root / name).symlink_to(toy_root / name)
    experiment = tiny_preset("toy_source_only", root, steps=4)
    experiment.train.resume_every = 2
    interrupt(experiment, tmp_path / "run", at=3)
    (root / "GTA5").unlink()
    for kind in ("images", "labels"):
        folder = root / "GTA5" / kind
        folder.mkdir(parents=True)
        for source in (toy_root / "GTA5" / kind).iterdir():
            (folder / source.name).symlink_to(source)
        (folder / "99999.png").symlink_to(toy_root / "GTA5" / kind / "00001.png")
    with pytest.raises(InputError, match="written with other images"):
        run_to_end(experiment, tmp_path / "run", resume=True)


def test_resuming_with_other_pseudo_labels_is_refused(
    toy_root: Path, tmp_path: Path, interrupted: Path
) -> None:
    experiment = resumable(toy_root)
    assert experiment.data.pseudo_labels is not None
    manifest = Path(experiment.data.pseudo_labels) / "manifest.json"
    text = manifest.read_text()
    try:
        manifest.write_text(text.replace("0" * 64, "1" * 64))
        with pytest.raises(InputError, match="written with other images or pseudo-labels"):
            run_to_end(experiment, interrupted, resume=True)
    finally:
        manifest.write_text(text)


def test_resuming_needs_no_first_weights(
    toy_root: Path, tmp_path: Path, source_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the initial snapshot nor the backbone's weights: both would be overwritten."""
    initial = tmp_path / "GTA5_2.pth"
    initial.write_bytes(source_only.read_bytes())
    experiment = tiny_preset("toy_source_only", toy_root, steps=4)
    experiment.train.resume_every = 2
    experiment.train.initial_snapshot = str(initial)
    experiment.model.backbone_weights = str(tmp_path / "never_read.pth")
    interrupt(experiment, tmp_path / "run", at=3)
    initial.unlink()
    run_to_end(experiment, tmp_path / "run", resume=True)
    snapshot = load(tmp_path / "run" / "GTA5_4.pth")
    assert snapshot.initial_weights.startswith("GTA5_2.pth sha256:")


@pytest.mark.parametrize(
    ("preset", "override"),
    [
        ("toy_oracle", "data.source.splits=val"),
        ("toy_class_mix", "data.target.splits=val"),
        ("toy_class_mix", "evaluation.split=train"),
    ],
)
def test_what_is_scored_is_not_trained_on(
    toy_root: Path, tmp_path: Path, preset: str, override: str
) -> None:
    experiment = tiny_preset(preset, toy_root)
    apply_override(experiment, override)
    with pytest.raises(InputError, match="images are both trained on and scored"):
        run_to_end(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_leaves_updates_alone_may_differ(toy_root: Path, tmp_path: Path) -> None:
    experiment = tiny_preset("toy_source_only", toy_root, steps=4)
    experiment.train.resume_every = 2
    interrupt(experiment, tmp_path / "run", at=3)
    experiment.train.log_every = experiment.train.snapshot_every = 3
    experiment.train.resume_every = 4
    experiment.data.workers = 1
    experiment.evaluation.every = 3
    run_to_end(experiment, tmp_path / "run", resume=True)
    assert read(tmp_path / "run/resume.pth")["step"] == 4


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_terms(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noticed before the state is saved, even when nothing is due to be logged."""
    experiment = tiny_preset("gc_640x360_b2_source_only", toy_root)
    experiment.train.resume_every = 2
    experiment.train.log_every = 100
    original = train_step

    def poisoned(run: Run, batch: Batch) -> StepResult:
        if run.step == 3:
            for weight in run.student.head_parameters():
                weight.data.fill_(math.nan)
        return original(run, batch)

    monkeypatch.setattr(engine, "train_step", poisoned)
    with pytest.raises(FloatingPointError, match=r"step 4: loss/supervised/main nan, .*auxiliary"):
        run_to_end(experiment, tmp_path / "run")
    state = read(tmp_path / "run/resume.pth")
    assert state["step"] == 2
    assert all(t.isfinite().all() for t in state["student"].values() if t.is_floating_point())


def test_an_impossible_run_leaves_no_folder(toy_root: Path, tmp_path: Path) -> None:
    """Group normalization would do; batch normalization of one image is refused at step 0."""
    experiment = tiny_preset("toy_source_only", toy_root)
    experiment.train.batch_size = 1
    with pytest.raises(InputError, match=r"a batch of 1 image"):
        run_to_end(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nothing_to_learn_from_in_the_first_steps_is_refused(
    toy_root: Path, tmp_path: Path
) -> None:
    experiment = tiny_preset("toy_source_only", toy_root)
    experiment.objectives["supervised"].start_step = 2
    with pytest.raises(InputError, match="start_step"):
        run_to_end(experiment, tmp_path / "run")


def test_two_views_of_one_name_are_refused(toy_root: Path) -> None:
    experiment = tiny_preset("toy_class_mix", toy_root)
    experiment.objectives["class_mix"].start_step = 0
    experiment.objectives["again"] = ClassMixConfig()
    with pytest.raises(InputError, match="objective 'again' adds a view of the name 'class_mix'"):
        train_step(tiny_run(experiment), random_batch())


# --- the step itself


def test_each_view_is_seen_once_and_only_if_somebody_reads_it(toy_root: Path) -> None:
    experiment = tiny_preset("gc_640x360_b2_class_mix", toy_root)
    experiment.objectives["class_mix"].start_step = 1
    experiment.train.log_every = 3
    run = tiny_run(experiment)
    seen = []
    run.student.register_forward_hook(lambda *_: seen.append(1))
    first, second = (train_step(run, random_batch()) for _ in range(2))
    assert [view.name for view in first.views] == ["source"]
    assert [view.name for view in second.views] == ["source", "class_mix"]
    assert len(seen) == 3
    train_step(run, random_batch())
    assert len(seen) == 6, "a step that is logged looks at the plain target images, too"


def test_gradients_of_views_add_up(toy_root: Path) -> None:
    """One view at a time, or all terms in one backward: the same gradient up to rounding."""
    experiment = tiny_preset("aagc_640x360_b2", toy_root)
    experiment.train.precision = "float32"
    experiment.model.dropout = 0.0
    experiment.model.batch_norm = "frozen"
    experiment.objectives = {
        "supervised": experiment.objectives["supervised"],
        "memory": MemoryRegularizationConfig(weight=1.0),
    }
    run = tiny_run(experiment)
    batch = random_batch()
    other = start_run(experiment, num_classes=19, device=CPU)
    train_step(run, batch)
    moved = batch.to_device(CPU)
    context = StepContext(0, 0, batch.indices)
    total = torch.zeros(())
    for view in _collect_views(other, {}, moved, context):
        output = other.student.train()(view.images)
        for objective in other.objectives.values():
            if view.name in objective.reads:
                terms = objective.terms(view, output, context).values()
                total = total + objective.config.weight * torch.stack(list(terms)).sum()
    total.backward()
    for (name, ours), theirs in zip(
        run.student.named_parameters(), other.student.parameters(), strict=True
    ):
        if ours.grad is not None:
            assert theirs.grad is not None
            assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6), name


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


def test_the_seed_draws_the_first_weights(toy_root: Path) -> None:
    experiment = tiny_preset("aagc_640x360_b2", toy_root)
    one, same = tiny_run(experiment), tiny_run(experiment)
    assert_same(one.state(), same.state())
    experiment.train.seed = 1
    assert_different(one.state()["student"], tiny_run(experiment).state()["student"])


def test_a_domain_without_target_reads_none(toy_root: Path) -> None:
    experiment = tiny_preset("gc_640x360_b2_source_only", toy_root)
    assert experiment.data.target is None
    result = train_step(tiny_run(experiment), random_batch(target=False))
    assert [view.name for view in result.views] == ["source"]


def test_initial_snapshot_of_another_network_is_refused(
    toy_root: Path, tmp_path: Path, source_only: Path
) -> None:
    experiment = tiny_preset("toy_source_only", toy_root, steps=2)
    experiment.model = tiny_model(head_norm="group")
    experiment.train.initial_snapshot = str(source_only)
    with pytest.raises(InputError, match=r"tensors do not fit the network"):
        run_to_end(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_target_named_as_source_counts_as_ground_truth(toy_root: Path, tmp_path: Path) -> None:
    """Also when the labels come in through the source and the same set is the target."""
    experiment = tiny_preset("toy_class_mix", toy_root, steps=2)
    experiment.objectives["class_mix"].start_step = 0
    experiment.data.source = DomainConfig(datasets=("cityscapes",), size=(64, 128))
    assert supervision_of(experiment, tmp_path / "run") == "ground truth (6 images)"


def test_a_preset_that_evaluates_only_scores_a_foreign_file(
    toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of zeros, which takes every pixel for the first class."""
    name = "logged_segmentron_deeplabv3plus_r101_cityscapes"
    experiment = load_preset(name)
    experiment.data.root = str(toy_root)
    experiment.data.workers = 0
    experiment.evaluation.input_size = experiment.evaluation.pad_to = CROP  # not 1025x2049
    with pytest.raises(InputError, match=r"segmentron\.pth does not exist"):
        train(experiment, tmp_path / "run", preset=name, device=CPU)
    torch.save({"state_dict": file_of(SEGMENTRON)}, tmp_path / "foreign.pth")
    experiment.train.initial_snapshot = str(tmp_path / "foreign.pth")
    scores = train(experiment, tmp_path / "run", preset=name, device=CPU)
    assert [sum(column) for column in zip(*scores.confusion, strict=True)][1:] == [0] * 18
    assert scores.iou[0] == pytest.approx(scores.pixel_accuracy)
    shown = capsys.readouterr().out
    assert f"preset           {name}" in shown
    assert "supervision      ground truth (2975 images)" in shown
    kept = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert kept["supervision"] == "ground truth (2975 images)"
    assert kept["miou"] == pytest.approx(100 * scores.miou, abs=1e-4)
    with pytest.raises(InputError, match="nothing to resume"):
        train(experiment, tmp_path / "run", preset=name, device=CPU, resume=True)
