"""Where a run starts from: its first weights, and what they knew of the target's labels."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from factories import file_of
from tiny_runs import (
    CPU,
    CROP,
    assert_different,
    assert_same,
    interrupt,
    tiny_model,
    tiny_preset,
    tiny_run,
    write_pseudo_labels,
)
from uda.checkpoints.formats.segmentron import SEGMENTRON
from uda.checkpoints.snapshots import load, read
from uda.data.batch import Batch, View
from uda.data.config import DomainConfig
from uda.evaluation.metrics import Scores
from uda.experiment import Experiment
from uda.experiments import load_preset
from uda.models.config import BackboneModelConfig
from uda.objectives.base import Objective, StepContext
from uda.training.loop import train
from uda.training.run import Run
from uda.training.step import _collect_views
from uda.utilities.errors import InputError


def run_to_end(experiment: Experiment, folder: Path, *, resume: bool = False) -> Scores:
    return train(experiment, folder, preset="tiny", device=CPU, resume=resume)


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


@pytest.mark.slow
def test_supervision_of_pseudo_labels_tells_whose_they_are(toy_root: Path, tmp_path: Path) -> None:
    experiment = tiny_preset("toy_aagc_student", toy_root, steps=2)
    assert supervision_of(experiment, tmp_path / "a") == "pseudo"
    folder = tmp_path / "labels_of_an_oracle"
    write_pseudo_labels(folder, toy_root, supervision="ground truth (6 images)")
    experiment.data.pseudo_labels = str(folder)
    expected = "pseudo; labels made with: ground truth (6 images)"
    assert supervision_of(experiment, tmp_path / "b") == expected


def test_resuming_needs_no_first_weights(
    toy_root: Path, tmp_path: Path, source_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the initial snapshot nor the backbone's weights: both would be overwritten."""
    initial = tmp_path / "GTA5_2.pth"
    initial.write_bytes(source_only.read_bytes())
    experiment = tiny_preset("toy_source_only", toy_root, steps=4)
    experiment.train.resume_every = 2
    experiment.train.initial_snapshot = str(initial)
    assert isinstance(experiment.model, BackboneModelConfig)
    experiment.model.backbone_weights = str(tmp_path / "never_read.pth")
    interrupt(experiment, tmp_path / "run", at=3)
    initial.unlink()
    run_to_end(experiment, tmp_path / "run", resume=True)
    snapshot = load(tmp_path / "run" / "GTA5_4.pth")
    assert snapshot.initial_weights.startswith("GTA5_2.pth sha256:")


def test_the_seed_draws_the_first_weights(toy_root: Path) -> None:
    experiment = tiny_preset("aagc_640x360_b2", toy_root)
    one, same = tiny_run(experiment), tiny_run(experiment)
    assert_same(one.state(), same.state())
    experiment.train.seed = 1
    assert_different(one.state()["student"], tiny_run(experiment).state()["student"])


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
