"""eval_single.py on several data sets at once: each score, and the mean over the sets."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from factories import describe_city
from shells import NAMES, Shell, Trained

SETS = ("cityscapes", "gta5", "cyclegta5")


def arguments(trained: Trained, *options: str) -> list[str]:
    common = ["--restore-from", str(trained.snapshot), "--workers", "0", "--device", "cpu"]
    return [*common, *options]


def alone(shell: Shell, trained: Trained, name: str, split: str) -> dict[str, Any]:
    options = arguments(trained, "--dataset", name, "--split", split, "--json", "one.json")
    shell.run("eval_single.py", *options)
    found: dict[str, Any] = json.loads((shell.cwd / "one.json").read_text())
    return found


SPLITS = ("--split", "val", "train", "train")


def test_each_data_set_has_the_score_that_it_has_alone(shell: Shell, trained: Trained) -> None:
    several = ("--dataset", *SETS, *SPLITS, "--sets", "miou16_subset", "--json", "all.json")
    output = shell.run("eval_single.py", *arguments(trained, *several))
    found = json.loads((shell.cwd / "all.json").read_text())
    values = []
    for name, split in zip(SETS, SPLITS[1:], strict=True):
        one, own = alone(shell, trained, name, split), found["datasets"][f"{name} {split}"]
        for fact in ("miou", "per_class", "pixel_accuracy", "protocol", "images"):
            assert own[fact] == one[fact]
        assert own["labels"] == "cityscapes19"
        values.append(own["miou"])
        absent = own.get("absent", "-")
        row = f"{name} {split}"
        (line,) = [line for line in output.splitlines() if line.startswith(f"{row}  ")]
        assert line.split()[2:4] == [str(own["images"]), f"{own['miou']:.2f}"]
        assert absent in line
    assert found["miou"] == pytest.approx(sum(values) / 3, abs=1e-4)
    assert found["miou_is"] == "the mean over the data sets of their mIoU"
    assert found["supervision"] == "none"
    assert "supervision: none\n" in output
    (mean,) = [line for line in output.splitlines() if line.startswith("mean of 3  ")]
    assert mean.split()[3] == f"{found['miou']:.2f}"
    of_sets = [own["sets"]["miou16_subset"]["value"] for own in found["datasets"].values()]
    assert found["mean_of_class_sets"]["miou16_subset"] == pytest.approx(sum(of_sets) / 3, abs=1e-4)


def test_what_the_run_has_seen_of_each_set_is_said(shell: Shell, trained: Trained) -> None:
    several = ("--dataset", *SETS, *SPLITS, "--format", "json")
    found = json.loads(shell.run("eval_single.py", *arguments(trained, *several)))["datasets"]
    seen = {name.split()[0]: own["seen_in_training"] for name, own in found.items()}
    assert seen == {"cityscapes": "images without labels", "gta5": "labels", "cyclegta5": "nothing"}


def test_formats(shell: Shell, trained: Trained) -> None:
    several = ("--dataset", *SETS, *SPLITS, "--format")
    found = json.loads(shell.run("eval_single.py", *arguments(trained, *several, "json")))
    text = shell.run("eval_single.py", *arguments(trained, *several, "csv"))
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    assert [row["dataset"] for row in rows] == ["cityscapes val", "gta5 train", "cyclegta5 train",
                                                "mean"]  # fmt: skip
    assert [float(row["miou"]) for row in rows[:-1]] == pytest.approx(
        [own["miou"] for own in found["datasets"].values()]
    )
    assert float(rows[-1]["miou"]) == pytest.approx(found["miou"])
    assert [*rows[0]][-19:] == list(NAMES)
    markdown = shell.run("eval_single.py", *arguments(trained, *several, "markdown"))
    assert f"| mean of 3 |  | {found['miou']:.2f} |  |  |" in markdown
    assert "| class | cityscapes val | gta5 train | cyclegta5 train |" in markdown


def test_a_described_set_goes_with_those_of_the_library(
    shell: Shell, trained: Trained, toy_root: Path
) -> None:
    described, _ = describe_city(shell.cwd, toy_root)
    options = ("--dataset", str(described), "gta5", "--split", "train", "--data-root",
               str(toy_root), "--format", "json")  # fmt: skip
    found = json.loads(shell.run("eval_single.py", *arguments(trained, *options)))
    assert len(found["datasets"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dataset", "cityscapes", "gta5"), "gta5 has no split 'val', only train: give --split"),
        (("--dataset", "cityscapes", "gta5", "--split", "a", "b", "c"), "3 splits for 2 data sets"),
        (("--dataset", "gta5", "gta5", "--split", "train"), "gta5 train is named twice"),
        (("--dataset", "gta5", "cyclegta5", "--export", "cityscapes"), "--export writes one data"),
        (("--dataset", "gta5", "cyclegta5", "--format", "mmseg"), "allowed with them: log"),
        (("--split", "train", "val"), "one data set has one split"),
    ],
)
def test_what_is_refused(
    shell: Shell, trained: Trained, options: tuple[str, ...], message: str
) -> None:
    assert message in shell.refused("eval_single.py", *arguments(trained, *options))


def test_a_missing_set_is_refused_before_the_first_is_scored(
    shell: Shell, trained: Trained, toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shell.cwd / "city"
    shutil.copytree(toy_root, root)
    shutil.rmtree(root / "CycleGTA5")
    scored: list[object] = []
    monkeypatch.setattr(
        "uda.prediction.cross_domain.score_network", lambda *a, **_: scored.append(a)
    )
    options = ("--dataset", *SETS, *SPLITS, "--data-root", str(root))
    refusal = shell.refused("eval_single.py", *arguments(trained, *options))
    assert scored == []
    assert "CycleGTA5 does not exist" in refusal
