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
from uda.data.labels import CITYSCAPES
from uda.snapshots import load, read


def options(*more: str) -> list[str]:
    """Of a tiny class mix run, which comes without a data root."""
    return [*CLASS_MIX, *tiny_options(None), *(part for v in more for part in ("--set", v))]


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


def test_the_other_commands_go_by_the_snapshot(shell: Shell, described: list[str]) -> None:
    shell.run("train_uda.py", *described, "--run", "own")
    common = ("--restore-from", "snapshots/own/source_3.pth", "--workers", "0", "--device", "cpu")
    shell.run("eval_single.py", *common, "--json", "s.json")
    facts = json.loads((shell.cwd / "s.json").read_text())
    trained = load(shell.snapshots / "own/source_3.pth").scores
    assert trained is not None
    assert facts["miou"] == pytest.approx(trained["miou"], abs=0.01)
    labeled = shell.run("pseudo_label.py", *common, "--threshold", "0", "--output", "pl")
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
