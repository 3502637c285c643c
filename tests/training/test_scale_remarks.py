"""Images trained on at one scale and scored at another, stretched images, labels all ignored."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from factories import describe_city, write_png
from tiny_runs import CPU, tiny_preset, write_pseudo_labels
from uda.experiment import Experiment, validate
from uda.experiments import load_preset
from uda.experiments.overrides import change
from uda.training.loop import train
from uda.utilities.errors import InputError


def started(experiment: Experiment, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    experiment.train.steps = experiment.evaluation.every = 3
    train(experiment, folder / "run", preset="p", device=CPU)
    return capsys.readouterr().out


def test_a_mismatch_of_scales_is_said_and_the_advice_ends_it(
    toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images of 128x64, trained on at their half, scored as stored."""
    experiment = tiny_preset("toy_class_mix", toy_root)
    assert experiment.data.target is not None
    experiment.data.target.size, experiment.evaluation.input_size = (32, 64), None
    experiment.data.crop = (32, 64)
    shown = started(experiment, tmp_path / "1", capsys)
    assert (
        "warning: data.target is trained on at 0.50 times the size its images are stored in, but "
        "cityscapes is scored at 1.00 times: networks score best at the scale they have learned; "
        "add --set evaluation.input_size=32,64\n"
    ) in shown
    assert "sizes            source 176x88" in shown
    assert "; target 64x32, in crops of 64x32\n" in shown
    experiment.evaluation.input_size = (32, 64)
    assert "warning: data.target" not in started(experiment, tmp_path / "2", capsys)


def test_an_oracle_on_data_of_ones_own_is_compared_too(
    toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, described = describe_city(tmp_path, toy_root)
    experiment = tiny_preset("toy_source_only", toy_root)
    assert experiment.data.source is not None
    experiment.data.source.datasets = (str(described),)
    experiment.data.source.size, experiment.evaluation.input_size = (32, 64), None
    experiment.data.crop = (32, 64)
    assert "data.source is trained on at 0.5" not in started(experiment, tmp_path / "1", capsys)
    experiment.evaluation.dataset = str(described)
    experiment.evaluation.split = "val"
    assert "data.source is trained on at 0.5" in started(experiment, tmp_path / "2", capsys)


def test_stretched_images_are_said(
    toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = tiny_preset("toy_class_mix", toy_root)
    assert experiment.data.source is not None
    experiment.data.source.size, experiment.evaluation.input_size = (88, 128), (64, 96)
    shown = started(experiment, tmp_path, capsys)
    assert (
        "warning: data.source.size stretches images, 128x64 to 128x88: to keep their shape, add "
        "--set data.source.keep_ratio=true\n"
    ) in shown
    assert "evaluation.input_size stretches images, 128x64 to 96x64" in shown
    assert "data.target.size stretches" not in shown


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("data.target.size=256,512",), (256, 512)),
        (("data.target.size=256,512", "evaluation.input_size=none"), None),
        (("data.source.size=256,512",), (512, 1024)),
        ((), (512, 1024)),
    ],
)
def test_what_is_typed_for_training_decides_scoring_unless_said_otherwise(
    overrides: tuple[str, ...], expected: tuple[int, int] | None
) -> None:
    experiment = load_preset("aagc_640x360_b2")
    changed = change(experiment, [*overrides, "data.crop=128,128"])
    assert experiment.evaluation.input_size == expected
    said = any("evaluation.input_size is 256,512, as data.target.size is" in remark
               for remark in changed.remarks)  # fmt: skip
    assert said == (expected == (256, 512))
    validate(experiment, typed=changed.typed)


def test_windows_stay_those_of_the_preset() -> None:
    experiment = load_preset("hrda_gta5")
    change(experiment, ["data.target.size=1536,3072"])
    assert experiment.evaluation.input_size is None


# --- labels that are all ignored


def all_ignored(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        write_png(path, np.zeros((64, 128), np.uint8))


def test_label_files_without_a_class_are_refused_at_the_start(
    toy_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(toy_root, tmp_path / "city")
    all_ignored(tmp_path / "city/GTA5/labels")
    experiment = tiny_preset("toy_source_only", tmp_path / "city")
    with pytest.raises(
        InputError, match=r"no pixel of 6 label files of the source, such as .*GTA5"
    ):
        train(experiment, tmp_path / "run", preset="p", device=CPU)
    write_png(tmp_path / "city/GTA5/labels/00004.png", np.full((64, 128), 23, np.uint8))
    train(experiment, tmp_path / "run", preset="p", device=CPU)


def test_steps_in_which_nothing_has_a_class_are_warned_of(
    toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pseudo-labels by a threshold that nothing reaches."""
    write_pseudo_labels(tmp_path / "pseudo_labels", toy_root)
    for path in (tmp_path / "pseudo_labels").glob("*.png"):
        write_png(path, np.full((64, 128), 255, np.uint8))
    experiment = tiny_preset("toy_class_mix_student", toy_root, steps=12)
    experiment.data.pseudo_labels = str(tmp_path / "pseudo_labels")
    train(experiment, tmp_path / "run", preset="p", device=CPU)
    shown = capsys.readouterr().out
    assert (
        shown.count("step 9: warning: no pixel of the pseudo-labels of 10 steps has a class") == 1
    )
