"""A folder of images as a target: no file describes it, and its classes are those of the source."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tiny_runs import CPU, tiny_preset
from uda.checkpoints.snapshots import load
from uda.commands import label
from uda.data.file_tree import pictures_below
from uda.data.registry import layout_named, list_dataset
from uda.experiment import Experiment
from uda.training.loop import train
from uda.utilities.errors import InputError


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    (folder / "monday").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.JPG", "monday/c.jpeg"):
        Image.fromarray(rng.integers(0, 256, (64, 128, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def to_photographs(root: Path, folder: Path) -> Experiment:
    experiment = tiny_preset("toy_class_mix", root, steps=2)
    assert experiment.data.target is not None
    experiment.data.target.datasets = (str(folder),)
    experiment.evaluation.every = 0
    return experiment


def test_all_images_are_listed_whatever_their_suffix(photographs: Path) -> None:
    found = list_dataset(Path(), f"{photographs}/", "train", labeled=False)
    assert [sample.name for sample in found] == [
        "photographs/a", "photographs/b", "photographs/monday__c"
    ]  # fmt: skip
    assert all(sample.labels is None for sample in found)


def test_the_folder_is_looked_through_once(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []

    def counted(folder: Path) -> list[str]:
        looks.append(folder)
        return pictures_below(folder)

    monkeypatch.setattr("uda.data.described.layouts.pictures_below", counted)
    for _ in range(3):
        layout_named(f"{photographs}/")
    assert looks == [photographs]


def test_a_run_adapts_to_it_and_labels_it(
    toy_root: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = to_photographs(toy_root, photographs)
    train(experiment, tmp_path / "run", preset="own", device=CPU)
    assert "3 target images without labels, none to evaluate" in capsys.readouterr().out
    (file,) = (tmp_path / "run").glob("*_2.pth")
    snapshot = load(file)
    assert snapshot.supervision == "none"
    assert snapshot.label_space.name == "cityscapes19"
    label.main(["--restore-from", str(file), "--threshold", "0.1", "--device", "cpu"])
    labels = sorted(path.stem for path in (tmp_path / "run/pseudo_labels").glob("*.png"))
    assert [name.removesuffix("_pseudo_trainIds") for name in labels] == ["a", "b", "monday__c"]


def test_a_name_of_the_library_stays_the_librarys(photographs: Path) -> None:
    folder = photographs.rename(photographs.with_name("cityscapes"))
    (first, *_) = list_dataset(Path(), str(folder), "train", labeled=False)
    assert first.name == "my_cityscapes/a"


def test_what_needs_labels_or_classes_is_refused(
    toy_root: Path, photographs: Path, tmp_path: Path
) -> None:
    scored = to_photographs(toy_root, photographs)
    scored.evaluation.every, scored.evaluation.dataset = 2, str(photographs)
    with pytest.raises(InputError, match=r"no labels to score on: .* evaluation\.every=0"):
        train(scored, tmp_path / "a", preset="own", device=CPU)
    as_source = to_photographs(toy_root, photographs)
    assert as_source.data.source is not None
    as_source.data.source.datasets = (str(photographs),)
    with pytest.raises(InputError, match="split train has no labels"):
        train(as_source, tmp_path / "b", preset="own", device=CPU)
    (tmp_path / "empty").mkdir()
    for name, said in (("empty", "has no images"), ("nowhere", "does not exist")):
        with pytest.raises(InputError, match=said):
            list_dataset(Path(), str(tmp_path / name), "train", labeled=False)
    with pytest.raises(InputError, match=r"with a slash: \./photographs"):
        list_dataset(Path(), "photographs", "train", labeled=False)
