"""No image is both trained on and scored, whatever path it is read by."""

import os
import shutil
from pathlib import Path

import pytest

from factories import describe_city
from tiny_runs import CPU, tiny_preset
from uda.checkpoints.snapshots import load
from uda.data.registry import list_dataset
from uda.experiment import Experiment
from uda.training.loop import train
from uda.utilities.errors import InputError

OVERLAP = "are both trained on and scored"


@pytest.fixture
def root(tmp_path: Path, toy_root: Path) -> Path:
    return Path(shutil.copytree(toy_root, tmp_path / "city"))


@pytest.fixture
def toml(tmp_path: Path, root: Path) -> Path:
    """Describes the validation images of Cityscapes as a data set with the split train."""
    path = describe_city(tmp_path, root)[1]
    text = path.read_text()
    path.write_text(
        text.replace('splits = ["train", "val"]', 'splits = {train = {folder = "val"}}')
    )
    return path


def of_source(root: Path, *datasets: str | Path) -> Experiment:
    """A run without a target that learns labels of `datasets` and is scored on Cityscapes val."""
    experiment = tiny_preset("toy_source_only", root, steps=1)
    assert experiment.data.source is not None
    experiment.data.source.datasets = tuple(map(str, datasets))
    return experiment


def run(experiment: Experiment, folder: Path) -> None:
    train(experiment, folder, preset="tiny", device=CPU)


def refused(experiment: Experiment, folder: Path) -> str:
    with pytest.raises(InputError) as refusal:
        run(experiment, folder)
    assert not folder.exists()
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def rooted(toml: Path, root: Path) -> None:
    """Changes the root of a description."""
    lines = toml.read_text().splitlines()
    toml.write_text("\n".join([f"root = '{root}'", *(x for x in lines if x[:6] != "root =")]))


def test_a_file_that_describes_a_built_in_data_set(root: Path, toml: Path, tmp_path: Path) -> None:
    assert OVERLAP in refused(of_source(root, toml), tmp_path / "run")


def test_a_link_to_a_folder(root: Path, toml: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(root / "Cityscapes")
    rooted(toml, tmp_path / "elsewhere")
    assert OVERLAP in refused(of_source(root, toml), tmp_path / "run")


def test_a_linked_data_root(root: Path, toml: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert OVERLAP in refused(of_source(tmp_path / "link", toml), tmp_path / "run")


def test_links_to_files(root: Path, toml: Path, tmp_path: Path) -> None:
    linked = shutil.copytree(root / "Cityscapes", tmp_path / "own", copy_function=os.symlink)
    rooted(toml, Path(linked))
    assert OVERLAP in refused(of_source(root, toml), tmp_path / "run")


def test_hard_links(root: Path, toml: Path, tmp_path: Path) -> None:
    linked = shutil.copytree(root / "Cityscapes", tmp_path / "own", copy_function=os.link)
    rooted(toml, Path(linked))
    assert OVERLAP in refused(of_source(root, toml), tmp_path / "run")


@pytest.mark.parametrize(
    "spelled", ["{root}/../city/Cityscapes", "Cityscapes/.", "city/Cityscapes"]
)
def test_another_spelling_of_a_path(
    root: Path, toml: Path, tmp_path: Path, spelled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    if spelled.startswith("Cityscapes"):
        shutil.copy(toml, root)
        toml = Path(toml.name)  # relative, as its root is
    rooted(toml, Path(spelled.format(root=root)))
    assert OVERLAP in refused(of_source(root, toml), tmp_path / "run")


def test_two_files_that_describe_one_folder(root: Path, toml: Path, tmp_path: Path) -> None:
    other = toml.with_name("other.toml")
    shutil.copy(toml, other)
    experiment = of_source(root, toml)
    experiment.evaluation.dataset, experiment.evaluation.split = str(other), "train"
    assert OVERLAP in refused(experiment, tmp_path / "run")


def test_a_target_that_is_scored_by_another_name(root: Path, toml: Path, tmp_path: Path) -> None:
    experiment = tiny_preset("toy_class_mix", root, steps=1)
    assert experiment.data.target is not None
    experiment.data.target.datasets = (str(toml),)
    assert OVERLAP in refused(experiment, tmp_path / "run")


def test_label_files_of_scored_images_below_other_images(
    root: Path, toml: Path, tmp_path: Path
) -> None:
    """Translated pictures, say, with the labels of what they were made from."""
    own = Path(shutil.copytree(root / "Cityscapes", tmp_path / "own"))
    for image in own.rglob("*_leftImg8bit.png"):
        image.write_bytes(image.read_bytes() + b"other bytes at the end")
    shutil.rmtree(own / "gtFine")
    (own / "gtFine").symlink_to(root / "Cityscapes/gtFine")
    rooted(toml, own)
    assert f"3 label files {OVERLAP}" in refused(of_source(root, toml), tmp_path / "run")


def looping(path: Path) -> None:
    path.unlink() if path.is_file() else shutil.rmtree(path)
    path.symlink_to(path)


@pytest.mark.parametrize(
    "place",
    ["GTA5", "GTA5/images", "GTA5/labels", "Cityscapes/leftImg8bit/val", "Cityscapes/gtFine/val",
     "Cityscapes/leftImg8bit/train", "GTA5/images/00001.png", "GTA5/labels/00001.png"],
)  # fmt: skip
def test_links_that_lead_in_a_circle(root: Path, tmp_path: Path, place: str) -> None:
    looping(root / place)
    assert place in refused(tiny_preset("toy_class_mix", root, steps=1), tmp_path / "run")


def test_an_unlabeled_image_that_is_a_circle(root: Path, tmp_path: Path) -> None:
    image = list_dataset(root, "cityscapes", "train", labeled=False)[2].image
    looping(image)
    message = refused(tiny_preset("toy_class_mix", root, steps=1), tmp_path / "run")
    assert message.startswith(f"{image} cannot be ")
    assert "replace the file" in message


def test_a_data_root_that_is_a_circle(tmp_path: Path, root: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    experiment = tiny_preset("toy_class_mix", root, steps=1)
    experiment.data.root = str(tmp_path / "circle")
    assert "does not exist" in refused(experiment, tmp_path / "run")


# What a run is told to have learned


def test_target_labels_by_another_path_are_supervision(
    root: Path, toml: Path, tmp_path: Path
) -> None:
    """The labels of Cityscapes train, read as those of a source by hard links."""
    linked = shutil.copytree(root / "Cityscapes", tmp_path / "own", copy_function=os.link)
    rooted(toml, Path(linked))
    toml.write_text(toml.read_text().replace('folder = "val"', 'folder = "train"'))
    experiment = tiny_preset("toy_class_mix", root, steps=1)
    assert experiment.data.source is not None
    experiment.data.source.datasets = (str(toml),)
    run(experiment, tmp_path / "run")
    assert load(next((tmp_path / "run").glob("*_1.pth"))).supervision == "ground truth (6 images)"


def test_copies_are_warned_of(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = list_dataset(root, "cityscapes", "val", labeled=False)[1]
    target = list_dataset(root, "cityscapes", "train", labeled=False)[4]
    shutil.copy(scored.image, root / "GTA5/images/00002.png")
    shutil.copy(target.image, root / "GTA5/images/00005.png")
    run(tiny_preset("toy_class_mix", root, steps=1), tmp_path / "run")
    warnings = [line for line in capsys.readouterr().out.splitlines() if "warning: 1 " in line]
    assert len(warnings) == 2
    assert "trained on are scored as well" in warnings[0]
    assert f"gta5/00002 = {scored.name}; exclude them with --set" in warnings[0]
    assert "labeled source images are target images as well" in warnings[1]
    assert f"gta5/00005 = {target.name}" in warnings[1]


@pytest.mark.parametrize("declared", [False, True])
def test_sources_of_the_user_are_known_to_be_such_if_declared(
    root: Path, toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, declared: bool
) -> None:
    """Trained by one file, scored by another: both may describe one recording."""
    text = toml.read_text()
    trained = toml.with_name("trained.toml")
    trained.write_text(
        ('domain = "source"\n' if declared else "") + text.replace('"val"', '"train"')
    )
    experiment = of_source(root, trained)
    experiment.evaluation.dataset, experiment.evaluation.split = str(toml), "train"
    run(experiment, tmp_path / "run")
    out = capsys.readouterr().out
    expected = "none" if declared else "not declared"
    assert load(tmp_path / "run/trained_1.pth").supervision == expected
    assert f"supervision      {expected} (of the target)" in out
    assert ('write domain = "source" into its TOML file' in out) is not declared


def test_rendered_sources_are_known_to_be_sources(root: Path, toml: Path, tmp_path: Path) -> None:
    experiment = of_source(root, "gta5")
    experiment.evaluation.dataset, experiment.evaluation.split = str(toml), "train"
    run(experiment, tmp_path / "run")
    assert load(tmp_path / "run/GTA5_1.pth").supervision == "none"
