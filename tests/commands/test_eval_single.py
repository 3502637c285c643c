"""eval_single.py: protocols, sets of classes, formats, exports, and what it refuses."""

import csv
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from factories import tiny_snapshot
from shells import NAMES, Shell, Trained, process, table
from tiny_runs import tiny_preset
from uda.checkpoints.snapshots import load, save, snapshot_values
from uda.data.registry import list_dataset
from uda.evaluation.evaluate import predictions
from uda.labels.class_sets import CLASS_SETS
from uda.labels.spaces import CITYSCAPES
from uda.prediction.cityscapes_check import check_server_zip


def test_eval_single(trained: Trained, tmp_path: Path) -> None:
    """From the snapshot alone: the table that training ended with."""
    arguments = (
        "--restore-from",
        str(trained.snapshot),
        "--json",
        "scores.json",
        "--device",
        "cpu",
    )
    output = process(tmp_path, "eval_single.py", *arguments)
    assert table(output) == table(trained.output)
    assert output.splitlines()[-1].startswith("===> mIoU: ")
    facts = json.loads((tmp_path / "scores.json").read_text())
    assert facts["protocol"] == (
        "own settings on cityscapes val: input 128x64; scale 1; no flip; labels at stored "
        "resolution"
    )
    assert f"protocol: {facts['protocol']}" in output.splitlines()
    assert facts["supervision"] == "none"
    assert facts["batch_norm"] == "as trained"
    assert facts["weights"] == "student"
    assert facts["images"] == 3
    assert tuple(facts["per_class"]) == NAMES
    expected = dict(line.removeprefix("===>").split(":\t") for line in table(output)[:-1])
    for name, iou in facts["per_class"].items():
        assert expected[name] == ("nan" if iou is None else str(round(iou, 2)))
    assert table(output)[-1] == f"===> mIoU: {round(facts['miou'], 2)}"
    absent = [name for name, iou in facts["per_class"].items() if iou is None]
    listed = [line for line in output.splitlines() if line.startswith("absent")]
    assert listed == ([f"absent from labels and predictions, not in the mean: {', '.join(absent)}"]
                      if absent else [])  # fmt: skip


def test_eval_single_options_change_the_protocol_and_say_so(
    trained: Trained, shell: Shell, toy_root: Path
) -> None:
    def scored(*options: str) -> dict[str, object]:
        common = ("--restore-from", str(trained.snapshot), "--workers", "0", "--device", "cpu")
        output = shell.run("eval_single.py", *common, *options, "--json", "s.json")
        table(output)
        facts: dict[str, object] = json.loads((shell.cwd / "s.json").read_text())
        return facts

    plain = scored()
    flipped, scaled = scored("--flip"), scored("--scales", "0.5", "1")
    larger, split = scored("--input-size", "256x128"), scored("--split", "train")
    teacher = scored("--weights", "teacher")
    target = toy_root / "Cityscapes/leftImg8bit/train"
    adapted = scored("--adapt-bn", str(target))
    assert flipped["protocol"] == str(plain["protocol"]).replace("no flip", "flip")
    assert scaled["protocol"] == str(plain["protocol"]).replace("scale 1", "scale 0.5, 1")
    assert larger["protocol"] == str(plain["protocol"]).replace("128x64", "256x128")
    assert split["protocol"] == str(plain["protocol"]).replace("val", "train")
    assert (split["images"], teacher["weights"]) == (6, "teacher")
    assert adapted["batch_norm"] == (f"re-estimated on 6 of 6 unlabeled images of {target}")
    accuracies = {
        str(facts["pixel_accuracy"])
        for facts in (plain, flipped, scaled, larger, split, teacher, adapted)
    }
    assert len(accuracies) == 7, "every option reaches the network"


def arguments(trained: Trained, *options: str) -> list[str]:
    common = ["--restore-from", str(trained.snapshot), "--workers", "0", "--device", "cpu"]
    return [*common, *options]


def written(shell: Shell, trained: Trained, *options: str) -> dict[str, Any]:
    """What --json holds."""
    shell.run("eval_single.py", *arguments(trained, *options, "--json", "s.json"))
    facts: dict[str, Any] = json.loads((shell.cwd / "s.json").read_text())
    return facts


@pytest.mark.parametrize("name", ["native", "half_input", "adaptsegnet", "mrnet", "single", "dacs"])
def test_a_protocol_is_chosen_by_name_and_published(
    name: str, shell: Shell, trained: Trained
) -> None:
    smaller = () if name == "native" else ("--input-size", "64x32")
    facts = written(shell, trained, "--protocol", name, *smaller)
    called = name if name == "native" else "own settings"
    assert str(facts["protocol"]).startswith(f"{called} on cityscapes val: input ")
    words = {"native": "input as stored", "dacs": "labels at 1024x512"}
    assert words.get(name, "input 64x32") in facts["protocol"]


def test_windows_slide_over_the_image(shell: Shell, trained: Trained) -> None:
    whole = written(shell, trained)
    windows = written(shell, trained, "--window", "64x32", "--overlap", "0.5")
    assert "windows of 64x32 with overlap 0.5" in windows["protocol"]
    nearest = written(shell, trained, "--input-size", "64x32", "--interpolation", "nearest")
    assert "input 64x32, nearest;" in nearest["protocol"]
    assert windows["pixel_accuracy"] != whole["pixel_accuracy"]


def test_precision_and_batches_are_published(shell: Shell, trained: Trained) -> None:
    options = ("--flip", "--precision", "bfloat16", "--batch", "2")
    found = written(shell, trained, *options)
    assert "; flip; network in bfloat16; batches of 2; labels" in found["protocol"]
    assert found["pixel_accuracy"] != written(shell, trained, "--flip")["pixel_accuracy"]
    labeling = (*arguments(trained, *options), "--threshold", "0", "--output", "labels")
    shell.run("pseudo_label.py", *labeling)
    manifest = json.loads((shell.cwd / "labels/manifest.json").read_text())
    assert manifest["protocol"].endswith("; flip; network in bfloat16; batches of 2")


def test_sets_of_classes_and_boundaries_stand_beside_the_scores(
    shell: Shell, trained: Trained
) -> None:
    options = ("--sets", *CLASS_SETS["cityscapes19"], "--boundary")
    facts = written(shell, trained, *options)
    shown = shell.run("eval_single.py", *arguments(trained, *options))
    assert facts["sets"]["miou19"]["value"] == facts["miou"]
    for name, group in CLASS_SETS["cityscapes19"].items():
        found = facts["sets"][name]
        assert found["definition"] == group.definition
        assert f"sets {name}: {found['value']} ({group.definition})" in shown.splitlines()
        if not group.restricted:
            ious = [list(facts["per_class"].values())[index] for index in group.classes]
            expected = np.mean([iou for iou in ious if iou is not None])
            assert found["value"] == pytest.approx(expected, abs=1e-3)
    assert set(facts["boundary_iou"]["per_class"]) == set(NAMES)
    assert 0 <= facts["boundary_iou"]["value"] <= facts["miou"] * 2


def test_the_restricted_set_is_predicted_among_its_own_classes(
    shell: Shell, trained: Trained, toy_root: Path
) -> None:
    """Against counting pixel by pixel over the network's probabilities of the 16."""
    group = CLASS_SETS["cityscapes19"]["miou16_restricted"]
    facts = written(shell, trained, "--sets", group.name)
    snapshot = load(trained.snapshot)
    samples = list_dataset(toy_root, "cityscapes", "val", labeled=True)
    pairs = []
    for views, found in predictions(
        snapshot.build(), samples, config=snapshot.evaluation, label_space=CITYSCAPES, workers=0,
        among=[group.classes],
    ):  # fmt: skip
        assert views.labels is not None
        pairs.append((np.array(group.classes)[found.among[0].numpy()], views.labels.numpy()))
    predicted = np.concatenate([p.ravel() for p, _ in pairs])
    labels = np.concatenate([t.ravel() for _, t in pairs])
    counted = np.isin(labels, group.classes)
    ious = []
    for class_ in group.classes:
        ours, theirs = predicted[counted] == class_, labels[counted] == class_
        if (ours | theirs).any():
            ious.append((ours & theirs).sum() / (ours | theirs).sum())
    assert facts["sets"][group.name]["value"] == pytest.approx(100 * np.mean(ious), abs=1e-4)


def test_what_programs_read_is_all_that_is_printed(shell: Shell, trained: Trained) -> None:
    facts = written(shell, trained, "--sets", "miou13_subset")
    common = arguments(trained, "--sets", "miou13_subset", "--format")
    printed = json.loads(shell.run("eval_single.py", *common, "json"))
    assert printed == facts
    lines = shell.run("eval_single.py", *common, "csv").splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert [row["class"] for row in rows] == [*NAMES, "mean"]
    assert float(rows[-1]["iou"]) == facts["miou"]
    assert f"# protocol: {facts['protocol']}" in lines
    assert f"# supervision: {facts['supervision']}" in lines


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("segmentron", "End validation pixAcc: "),
        ("mmseg", "per class results:"),
        ("markdown", "| class | IoU | Acc |"),
        ("log", "===>road:"),
    ],
)
def test_what_people_read_has_the_facts_before_it(
    name: str, line: str, shell: Shell, trained: Trained
) -> None:
    lines = shell.run("eval_single.py", *arguments(trained, "--format", name)).splitlines()
    (start,) = [index for index, shown in enumerate(lines) if shown.startswith(line)]
    before = [shown.removeprefix("- ") for shown in lines[:start]]
    assert "supervision: none" in before
    assert any(shown.startswith("protocol: ") for shown in before)


def test_a_folder_of_predictions_scores_as_its_network(
    shell: Shell, trained: Trained, toy_root: Path
) -> None:
    options = ("--sets", "miou16_subset", "--boundary", "0.02")
    network = written(shell, trained, *options)
    labeling = arguments(trained, "--splits", "val", "--threshold", "0", "--output", "labels")
    shell.run("pseudo_label.py", *labeling)
    gt = str(toy_root / "Cityscapes/gtFine/val")
    shell.run("scripts/score_folder.py", "labels", gt, *options, "--json", "folder.json")
    folder = json.loads((shell.cwd / "folder.json").read_text())
    for name in ("miou", "per_class", "pixel_accuracy", "sets", "boundary_iou"):
        assert folder[name] == network[name], name
    assert folder["no_class"]["value"] == 0


# --- exports


def copied(trained: Trained, folder: Path) -> Path:
    return Path(shutil.copy(trained.snapshot, folder / "GTA5_3.pth"))


def test_predictions_are_exported_without_a_label(
    shell: Shell, trained: Trained, toy_root: Path
) -> None:
    """The zip holds, as raw ids, what the network says of each image of the split."""
    root = shell.cwd / "root"
    (root / "Cityscapes").mkdir(parents=True)
    images = root / "Cityscapes/leftImg8bit"
    images.symlink_to(toy_root / "Cityscapes/leftImg8bit")
    options = ["--restore-from", str(copied(trained, shell.cwd)), "--data-root", str(root),
               "--workers", "0", "--device", "cpu", "--export", "cityscapes"]  # fmt: skip
    shown = shell.run("eval_single.py", *options)
    target = shell.cwd / "GTA5_3_val_cityscapes.zip"
    assert f"export: 3 label-id PNGs, checked against the server's rules: {target}" in shown
    assert "===>" not in shown

    snapshot = load(trained.snapshot)
    samples = list_dataset(root, "cityscapes", "val", labeled=False)
    check_server_zip(target, [sample.stem for sample in samples], size=(64, 128))
    found = predictions(
        snapshot.build(), samples, config=snapshot.evaluation, label_space=CITYSCAPES, workers=0
    )
    with zipfile.ZipFile(target) as archive:
        for views, prediction in found:
            (name,) = [name for name in archive.namelist() if views.stem in name]
            with archive.open(name) as file, Image.open(file) as picture:
                ids = np.asarray(picture)
            expected = prediction.labels.to(torch.uint8).numpy()
            assert np.array_equal(ids, CITYSCAPES.to_raw_ids(expected, ignored=0))
    assert str(target) in shell.refused("eval_single.py", *options), "nothing is overwritten"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--json", "s.json"), "--export writes predictions and scores nothing: omit --json"),
        (("--sets", "miou19"), "omit --sets"),
        (("--boundary",), "omit --boundary"),
        (("--measures", "f1"), "omit --measures"),
        (("--format", "csv"), "omit --format"),
        (("--protocol", "dacs"), "the server wants the images' stored size"),
        (("--split", "vall"), "no split 'vall'"),
    ],
)
def test_an_export_refuses_what_it_would_ignore(
    options: tuple[str, ...], message: str, shell: Shell, trained: Trained
) -> None:
    copy = str(copied(trained, shell.cwd))
    error = shell.refused(
        "eval_single.py", "--restore-from", copy, "--export", "cityscapes", *options
    )
    assert message in error


# --- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--split", "vall"), "no split 'vall'"),
        (("--json", "nowhere/s.json"), "nowhere/s.json: give a file in a folder that exists"),
        (("--sets", "miou16"), "cityscapes19 has no set of classes 'miou16'; did you mean"),
        (("--boundary", "2"), "a boundary ratio of 2"),
        (("--protocol", "native", "--interpolation", "nearest"), "but images are read as stored"),
        (("--overlap", "0.5"), "there is no protocol.window to overlap"),
        (("--protocol", "single", "--window", "64x64"), "supports neither a window nor padding"),
        (("--partial", "backbone"), "--partial"),
    ],
)
def test_options_that_cannot_be(
    options: tuple[str, ...], message: str, shell: Shell, trained: Trained
) -> None:
    common = arguments(trained)
    assert message in shell.refused("eval_single.py", *common, *options)


def test_two_heads_are_not_joined_where_there_is_one(shell: Shell, toy_root: Path) -> None:
    snapshot = tiny_snapshot(tiny_preset("toy_class_mix", toy_root))
    snapshot.experiment["model"]["auxiliary_head"] = False
    snapshot.student = {n: t for n, t in snapshot.student.items() if "auxiliary" not in n}
    path = shell.cwd / "GTA5_7.pth"
    save(snapshot_values(snapshot), path)
    error = shell.refused("eval_single.py", "--restore-from", str(path), "--protocol", "mrnet")
    assert "mrnet joins two heads, but this network has one: use protocol adaptsegnet" in error
