"""Runs that are refused before the first step, and what a resumed run may change."""

from pathlib import Path

import pytest

from tiny_runs import (
    CPU,
    interrupt,
    tiny_preset,
)
from uda.checkpoints.snapshots import read, save
from uda.evaluation.metrics import Scores
from uda.experiment import Experiment
from uda.training.loop import train
from uda.utilities.config_tree import apply_override
from uda.utilities.errors import InputError
from uda.utilities.sealed_json import sealed, unsealed


def run_to_end(experiment: Experiment, folder: Path, *, resume: bool = False) -> Scores:
    return train(experiment, folder, preset="tiny", device=CPU, resume=resume)


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
    with pytest.raises(InputError, match=r"its first resume\.pth: add --resume to start it over"):
        run_to_end(experiment, tmp_path / "run")


def test_resuming_what_was_never_begun_is_refused(toy_root: Path, tmp_path: Path) -> None:
    experiment = tiny_preset("toy_source_only", toy_root, steps=2)
    with pytest.raises(InputError, match=r"there is nothing to resume; omit --resume"):
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
    content = manifest.read_bytes()
    try:
        manifest.write_bytes(sealed(unsealed(content) | {"snapshot_sha256": "1" * 64}))
        with pytest.raises(InputError, match="written with other images or pseudo-labels"):
            run_to_end(experiment, interrupted, resume=True)
    finally:
        manifest.write_bytes(content)


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
