"""Data sets described by TOML files through the real commands, beside those of the library."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from factories import describe_city
from shells import CLASS_MIX, Shell
from tiny_runs import tiny_options
from uda.checkpoints.snapshots import load, read
from uda.labels.spaces import CITYSCAPES


def options(*more: str) -> list[str]:
    """Of a tiny class mix run, which comes without a data root."""
    return [*CLASS_MIX, *tiny_options(None), *(part for v in more for part in ("--set", v))]


def ious(output: str) -> list[str]:
    """The numbers of a report, whatever its classes are called there."""
    return [line.rpartition("\t")[2] for line in output.splitlines() if line.startswith("===>")]


@pytest.fixture
def described(shell: Shell, toy_root: Path) -> list[str]:
    """The options that train from the source file to the target file."""
    describe_city(shell.cwd, toy_root)
    return options(
        "data.source.datasets=source.toml", "data.target.datasets=target.toml",
        "evaluation.dataset=target.toml",
    )  # fmt: skip


def test_a_run_on_files_is_the_run_on_the_data_sets_they_describe(
    shell: Shell, described: list[str], toy_root: Path
) -> None:
    """Colors here, values there, and no data root: bit for bit the same weights and scores."""
    shell.run("train_uda.py", *described, "--run", "own")
    shell.run("train_uda.py", *options(f"data.root={toy_root}"), "--run", "known")
    own = load(shell.snapshots / "own/source_3.pth")
    known = load(shell.snapshots / "known/GTA5_3.pth")
    assert own.student.keys() == known.student.keys()
    assert all(torch.equal(tensor, known.student[name]) for name, tensor in own.student.items())
    assert own.scores is not None
    assert known.scores is not None
    assert own.scores["miou"] == known.scores["miou"]
    assert own.supervision == "none"


@pytest.mark.slow
def test_the_other_commands_go_by_the_snapshot(shell: Shell, described: list[str]) -> None:
    shell.run("train_uda.py", *described, "--run", "own")
    common = ("--restore-from", "snapshots/own/source_3.pth", "--workers", "0", "--device", "cpu")
    shell.run("eval_single.py", *common, "--json", "s.json")
    facts = json.loads((shell.cwd / "s.json").read_text())
    trained = load(shell.snapshots / "own/source_3.pth").scores
    assert trained is not None
    assert facts["miou"] == pytest.approx(trained["miou"], abs=0.01)
    labeled = shell.run("pseudo_label.py", *common, "--threshold", "0", "--output", "pl", "--score")
    assert "images: 6" in labeled
    assert "against ground truth" in labeled, "the target's values are read as its file says"
    student = (
        "--preset", "toy_pseudo_label", *described[len(CLASS_MIX) :], "--run", "student",
        "--set", "data.pseudo_labels=pl", "--set", "train.initial_snapshot=none",
    )  # fmt: skip
    assert "supervision      pseudo" in shell.run("train_uda.py", *student)
    shell.run("predict.py", *common, "--images", "images", "--kinds", "ids")
    assert len(list((shell.snapshots / "own/predictions/ids").iterdir())) == 6


def test_a_file_that_changes_its_classes_is_refused(shell: Shell, described: list[str]) -> None:
    shell.run("train_uda.py", *described, "--run", "own")
    target = shell.cwd / "target.toml"
    target.write_text(target.read_text().replace("'bicycle'", "'bike'"))
    common = ("--restore-from", "snapshots/own/source_3.pth", "--device", "cpu")
    refusal = shell.refused("eval_single.py", *common)
    assert "target.toml is labeled with target, the network knows source" in refusal


def test_resuming_notices_another_description(shell: Shell, described: list[str]) -> None:
    shell.run("train_uda.py", *described, "--run", "own")
    source = shell.cwd / "source.toml"
    text = source.read_text()
    resume = ("train_uda.py", *described, "--run", "own", "--resume")
    source.write_text("# a comment changes nothing\n" + text)
    shell.run(*resume)
    road, sidewalk = ", ".join(map(str, CITYSCAPES.palette[0])), "244, 35, 232"
    swapped = text.replace(road, "#").replace(sidewalk, road).replace("#", sidewalk)
    source.write_text(swapped)
    assert "or another description of them" in shell.refused(*resume)


def test_labels_of_a_target_are_counted_under_any_name(
    shell: Shell, described: list[str], toy_root: Path
) -> None:
    """Training on the target's labels is no adaptation, whatever the source is called."""
    both = (*described, "--set", "data.source.datasets=target.toml", "--set",
            "data.target.datasets=cityscapes", "--set", f"data.root={toy_root}")  # fmt: skip
    shell.run("train_uda.py", *both, "--run", "own")
    assert read(shell.snapshots / "own/target_3.pth")["supervision"] == "ground truth (6 images)"
    scored = (*both, "--set", "data.source.splits=val", "--run", "other", "--set",
              "evaluation.dataset=cityscapes")  # fmt: skip
    assert "3 images are both trained on and scored" in shell.refused("train_uda.py", *scored)


def test_check_data(shell: Shell, described: list[str]) -> None:
    both = ("--dataset", "source.toml", "--dataset", "target.toml")
    assert "0 problems" in shell.ended("scripts/check_data.py", *both)[1]
    preset = described[described.index("--preset") : described.index("--preset") + 2]
    sets = ("data.source.datasets=source.toml", "data.target.datasets=target.toml",
            "evaluation.dataset=target.toml")  # fmt: skip
    more = [part for value in sets for part in ("--set", value)]
    status, shown = shell.ended("scripts/check_data.py", *preset, *more)
    assert (status, "0 problems" in shown) == (0, True)
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[0, :5] = 7
    Image.fromarray(pixels).save(shell.cwd / "colors/00001.png")
    status, shown = shell.ended("scripts/check_data.py", *both)
    assert (status, "5 pixels have 1 colors that are of no class" in shown) == (1, True)


def test_another_folder_and_another_data_set(
    shell: Shell, described: list[str], toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot names the file as its run did; elsewhere --dataset says where it is, or another
    with the same classes."""
    shell.run("train_uda.py", *described, "--run", "own")
    snapshot = str(shell.snapshots / "own/source_3.pth")
    common = ("--restore-from", snapshot, "--workers", "0", "--device", "cpu")
    here = shell.run("eval_single.py", *common)
    elsewhere = shell.cwd / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    label = ("pseudo_label.py", *common, "--threshold", "0", "--output", "pl", "--score")
    for command in (("eval_single.py", *common), label):
        assert "is target.toml, which is not there" in shell.refused(*command)
    moved = ("--dataset", "../target.toml")
    assert ious(here) == ious(shell.run("eval_single.py", *common, *moved))
    assert "images: 6" in shell.run(*label, *moved)
    city = ("--dataset", "cityscapes", "--data-root", str(toy_root))
    assert ious(here) == ious(shell.run("eval_single.py", *common, *city))
    other = Path("../target.toml").read_text().replace("'bicycle'", "'bike'")
    Path("other.toml").write_text(other)
    refusal = shell.refused("eval_single.py", *common, "--dataset", "other.toml")
    assert "class 18 is 'bike' there, 'bicycle' here" in refusal


def test_a_data_root_that_nothing_is_looked_for_in(shell: Shell, described: list[str]) -> None:
    unused = "it is not used, as "
    assert unused in shell.refused("train_uda.py", *described, "--data-root", ".")
    check = ("scripts/check_data.py", "--dataset", "target.toml", "--data-root", ".")
    assert unused in shell.refused(*check)
    shell.run("train_uda.py", *described, "--run", "own")
    common = ("--restore-from", "snapshots/own/source_3.pth", "--device", "cpu")
    assert unused in shell.refused("eval_single.py", *common, "--data-root", ".")
    odd = shell.refused("train_uda.py", *described, "--set", "data.source.datasets=source.tml")
    assert "there is no data set 'source.tml'" in odd


def test_a_folder_of_predictions_is_scored(
    shell: Shell, described: list[str], toy_root: Path
) -> None:
    """As the network is that made them: by names of images, by names of samples, by colors."""
    shell.run("train_uda.py", *described, "--run", "own")
    common = ("--restore-from", "snapshots/own/source_3.pth", "--workers", "0", "--device", "cpu")
    images = str(toy_root / "Cityscapes/leftImg8bit/val")
    shell.run("predict.py", *common, "--images", images, "--output", "p", "--kinds", "ids")
    score = ("scripts/score_folder.py", "p/ids", "--dataset")
    ours = ious(shell.run("eval_single.py", *common))
    assert ious(shell.run(*score, "target.toml")) == ours
    assert ious(shell.run(*score, "cityscapes", "--data-root", str(toy_root))) == ours
    label = ("--dataset", "source.toml", "--splits", "train", "--threshold", "0", "--output", "l")
    shell.run("pseudo_label.py", *common, *label)
    source = ("--dataset", "source.toml", "--split", "train")
    ours = ious(shell.run("eval_single.py", *common, *source))
    assert ious(shell.run("scripts/score_folder.py", "l", *source)) == ours
    assert "omit --ids" in shell.refused("scripts/score_folder.py", "l", *source, "--ids", "raw")
    assert "has no prediction" in shell.refused(*score, "source.toml", "--split", "train")
    for odd in (("p/ids",), ("p/ids", "gtFine", "--dataset", "target.toml")):
        assert "one of them" in shell.refused("scripts/score_folder.py", *odd)
    assert "--split is an option for data sets" in shell.refused(
        "scripts/score_folder.py", "p", "l", "--split", "val"
    )


def test_a_split_without_labels_is_no_problem(shell: Shell, described: list[str]) -> None:
    text = (
        Path("target.toml")
        .read_text()
        .replace('splits = ["train", "val"]', 'splits = { train = { labels = "" }, val = {} }')
    )
    Path("target.toml").write_text(text)
    assert shell.ended("scripts/check_data.py", "--dataset", "target.toml")[0] == 0
    shell.run("train_uda.py", *described, "--run", "own")
