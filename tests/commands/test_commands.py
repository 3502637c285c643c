"""The commands, end to end on a tiny toy city: what they print, write and refuse."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from factories import file_of
from shells import CLASS_MIX, NAMES, Shell, Trained, process, table
from tiny_runs import CROP, start_process, tiny_options
from uda.checkpoints.formats.segmentron import SEGMENTRON
from uda.checkpoints.snapshots import load, read, save
from uda.data.pseudo_label_folder import read_manifest
from uda.experiments import PRESETS

NETWORK_OPTIONS = {
    "--restore-from", "--partial", "--ignore", "--project", "--output-stride", "--code",
    "--weights", "--data-root", "--dataset", "--protocol",
    "--input-size", "--interpolation", "--scales", "--flip", "--window", "--overlap", "--adapt-bn",
    "--workers", "--device", "--precision", "--batch",
}  # fmt: skip
OPTIONS = {
    "train_uda.py": {
        "--preset", "--list", "--data-root", "--set", "--restore-from", "--skip-nonfinite", "--run",
        "--smoke", "--preflight", "--sanity-check", "--resume", "--code-changed",
        "--data-changed", "--device",
    },
    "eval_single.py": NETWORK_OPTIONS
    | {"--with", "--average"}
    | {"--split", "--format", "--sets", "--boundary", "--measures", "--json", "--export"},
    "pseudo_label.py": NETWORK_OPTIONS
    | {"--with", "--average"}
    | {"--threshold", "--output", "--splits", "--first", "--score"}
    | {"--rule", "--portion", "--quantile", "--cap"}
    | {"--start", "--alpha", "--beta", "--gamma", "--images"},
    "predict.py": NETWORK_OPTIONS - {"--data-root", "--dataset"}
    | {"--images", "--output", "--kinds", "--image-range", "--report"}
    | {"--adapt", "--adapt-mode", "--adapt-prior", "--adapt-rate"},
}  # fmt: skip

# --- train_uda.py


@pytest.mark.parametrize("name", OPTIONS)
def test_options_do_not_grow_unseen(name: str, shell: Shell) -> None:
    status, shown = shell.ended(name, "--help")
    assert status == 0
    listed = re.findall(r"^  (?:-\w, )?(--[\w-]+)", shown, re.MULTILINE)
    assert set(listed) == OPTIONS[name] | {"--help"}


def test_list_shows_every_preset_with_one_line(shell: Shell) -> None:
    shown = shell.run("train_uda.py", "--list").splitlines()
    lines = [line for line in shown if re.match("  [^ ]", line)]
    assert sorted(line.split()[0] for line in lines) == sorted(PRESETS)
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in lines)


def test_train(trained: Trained, toy_root: Path) -> None:
    lines = trained.output.splitlines()
    for fact in (
        "preset           toy_class_mix, seed 0",
        "data             6 source images with labels, 6 target images without labels, 3 images to "
        "evaluate",
        "supervision      none (of the target)",
        "initial weights  random",
    ):
        assert fact in lines
    assert table(trained.output)[-1] == lines[-1]
    snapshot = load(trained.snapshot)
    assert (snapshot.preset, snapshot.step, snapshot.supervision) == ("toy_class_mix", 3, "none")
    assert snapshot.data.root == str(toy_root)
    assert (trained.snapshot.parent / "resume.pth").exists()


def test_data_root_comes_from_the_option_or_the_environment(
    shell: Shell, toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*tiny_options(toy_root), "--set", "data.root=", *CLASS_MIX]
    assert "no data root: give --data-root DIR or set UDA_DATA" in shell.refused(
        "train_uda.py", *options
    )
    shell.run("train_uda.py", *options, "--data-root", str(toy_root), "--run", "option")
    monkeypatch.setenv("UDA_DATA", str(toy_root))
    shell.run("train_uda.py", *options, "--run", "variable")
    states = [read(shell.snapshots / run / "GTA5_3.pth") for run in ("option", "variable")]
    assert states[0]["experiment"]["data"]["root"] == str(toy_root)
    assert states[1]["experiment"]["data"]["root"] == ""
    weights = [state["student"]["decoder.2.weight"] for state in states]
    assert weights[0].equal(weights[1])


# --- pseudo_label.py, and a student


@pytest.mark.slow
def test_pseudo_labels_and_a_student(trained: Trained, toy_root: Path, shell: Shell) -> None:
    folder = shell.cwd / "labels"
    output = process(
        shell.cwd, "pseudo_label.py", "--restore-from", str(trained.snapshot), "--threshold",
        "0.06", "--output", str(folder), "--device", "cpu", "--score",
    )  # fmt: skip
    lines = output.splitlines()
    manifest = read_manifest(folder)
    assert f"share kept: {manifest.share_kept:.1%}" in lines
    assert 0 < manifest.share_kept < 1
    for name, share in zip(NAMES, manifest.share_kept_per_class.values(), strict=True):
        assert f"  {name}: {'never predicted' if share is None else f'{share:.1%}'}" in lines
    assert "against ground truth, pixels with a label:" in lines
    assert table(output)[-1] == lines[-1]

    files = sorted(folder.glob("*_pseudo_trainIds.png"))
    assert len(files) == manifest.image_count == 6
    pixels = np.stack([np.asarray(Image.open(path)) for path in files])
    assert pixels.shape == (6, *CROP)
    assert set(np.unique(pixels)) <= {*range(19), 255}
    assert np.mean(pixels != 255) == pytest.approx(manifest.share_kept)

    options = (*tiny_options(toy_root), "--set", f"data.pseudo_labels={folder}")
    student = ("--preset", "toy_class_mix_student", "--restore-from", str(trained.snapshot))
    output = shell.run("train_uda.py", *student, *options)
    table(output)
    assert "supervision      pseudo (of the target)" in output.splitlines()
    snapshot = load(shell.snapshots / "toy_class_mix_student/GTA5_3.pth")
    assert snapshot.supervision == "pseudo"
    assert snapshot.initial_weights.startswith("GTA5_3.pth sha256:")

    again = shell.refused(
        "pseudo_label.py", "--restore-from", str(trained.snapshot), "--threshold", "0.5",
        "--output", str(folder),
    )  # fmt: skip
    assert f"{folder} exists already" in again


def test_pseudo_labels_of_a_part_and_beside_the_snapshot(
    trained: Trained, shell: Shell, toy_root: Path
) -> None:
    snapshot = shell.cwd / "GTA5_3.pth"
    shutil.copy(trained.snapshot, snapshot)
    common = ("--restore-from", str(snapshot), "--threshold", "0", "--workers", "0")
    root = shell.cwd / "root"
    (root / "Cityscapes").mkdir(parents=True)
    (root / "Cityscapes/leftImg8bit").symlink_to(toy_root / "Cityscapes/leftImg8bit")
    output = shell.run("pseudo_label.py", *common, "--first", "2", "--data-root", str(root))
    assert read_manifest(shell.cwd / "pseudo_labels").image_count == 2
    assert "share kept: 100.0%" in output
    assert "===>" not in output
    assert "\nnot scored: no label file was opened; add --score to compare" in output
    refused = shell.refused(
        "pseudo_label.py", *common, "--data-root", str(root), "--score", "--output", "scored"
    )
    assert "gtFine" in refused
    shell.run("pseudo_label.py", *common, "--splits", "val", "--output", "val")
    assert read_manifest(Path("val")).image_count == 3


# --- bad input


def train_arguments(root: Path, *more: str) -> tuple[str, ...]:
    return (*CLASS_MIX, *tiny_options(root), "--run", "bad", *more)


@pytest.fixture
def city(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the toy city to spoil."""
    root = tmp_path_factory.mktemp("spoiled") / "city"
    shutil.copytree(toy_root, root)
    return root


@pytest.mark.slow
def test_bad_arguments_in_a_real_process(tmp_path: Path) -> None:
    """An unknown preset, as a user meets it: status 2, one line, the nearest name."""
    failed = start_process(tmp_path, "train_uda.py", "--preset", "aagc_640x360_b2_studnet")
    out, error = failed.communicate(timeout=60)
    assert (failed.returncode, out) == (2, "")
    assert error == (
        "error: there is no preset 'aagc_640x360_b2_studnet'; did you mean "
        '"aagc_640x360_b2_student"? (python train_uda.py --list shows all)\n'
    )
    assert list(tmp_path.iterdir()) == []


def test_overrides_that_cannot_be(shell: Shell, toy_root: Path) -> None:
    for assignment, complaint in {
        "train.stepz=3": 'did you mean "steps"?',
        "objectives.class_mx.weight=1": 'did you mean "class_mix"?',
        "train.steps=many": "'many' is not a whole number",
        "data.source.mirror=maybe": "'maybe' is not true or false",
        "train.optimizer.name=lion": "one of sgd, adam, adamw",
        "train.steps": "write it as name=value",
        "train.steps=-1": "train.steps is -1",
        "data.crop=999,999": "does not fit",
        "model.auxiliary_head=false": "needs model.auxiliary_head",
        "teacher=none": "needs teacher",
    }.items():
        error = shell.refused("train_uda.py", *train_arguments(toy_root, "--set", assignment))
        assert complaint in error, assignment


def test_several_problems_are_told_one_a_line(shell: Shell, toy_root: Path) -> None:
    sets = ("--set", "train.seed=-1", "--set", "data.workers=-1", "--set", "teacher=none")
    error = shell.refused("train_uda.py", *train_arguments(toy_root, *sets))
    first, *others = error.splitlines()
    assert first == "error: 3 problems:"
    named = ("  1. train.seed is", "  2. data.workers is", "  3. objective 'class_mix' needs")
    assert all(line.startswith(name) for line, name in zip(others, named, strict=True))


def test_missing_data(shell: Shell, toy_root: Path, city: Path) -> None:
    gone = shell.refused("train_uda.py", *train_arguments(city / "nowhere"))
    assert f"data root {city / 'nowhere'} does not exist: give --data-root DIR; DIR holds" in gone
    assert "GTA5/, Cityscapes/ and others" in gone
    shutil.rmtree(city / "GTA5/labels")
    no_labels = shell.refused("train_uda.py", *train_arguments(city))
    assert f"{city / 'GTA5/labels'} does not exist; expected images/*.png" in no_labels
    shutil.rmtree(city / "GTA5")
    no_source = shell.refused("train_uda.py", *train_arguments(city))
    assert f"{city / 'GTA5'} does not exist" in no_source
    shutil.rmtree(city / "Cityscapes/leftImg8bit/train")
    (city / "GTA5").symlink_to(toy_root / "GTA5")
    no_target = shell.refused("train_uda.py", *train_arguments(city))
    assert "leftImg8bit/train does not exist" in no_target


def test_image_without_label(shell: Shell, city: Path) -> None:
    (city / "GTA5/labels/00004.png").unlink()
    error = shell.refused("train_uda.py", *train_arguments(city))
    assert "images/00004.png" in error
    assert "no label" in error


def test_label_of_another_size(shell: Shell, city: Path) -> None:
    path = city / "GTA5/labels/00002.png"
    with Image.open(path) as labels:
        half = labels.resize((labels.width // 2, labels.height // 2), Image.Resampling.NEAREST)
    half.save(path)
    error = shell.refused("train_uda.py", *train_arguments(city))
    assert str(path) in error
    assert "another size" in error
    assert "data.exclude=gta5/00002" in error


def test_label_value_outside_the_space(shell: Shell, city: Path) -> None:
    """Met while training, too: nothing is left of the run that it ended."""
    for path in (city / "GTA5/labels").iterdir():
        Image.fromarray(np.full(CROP, 77, np.uint8)).save(path)
    error = shell.refused("train_uda.py", *train_arguments(city))
    assert "label values 77 are outside the raw ids of cityscapes19" in error
    assert "GTA5/labels/" in error


@pytest.mark.parametrize("path", ["GTA5/images/00003.png", "GTA5/labels/00003.png",
                                  "Cityscapes/leftImg8bit/train"])  # fmt: skip
@pytest.mark.parametrize("damage", ["truncated", "no picture"])
def test_corrupt_png_is_named(shell: Shell, city: Path, path: str, damage: str) -> None:
    """Also in a loader process, and when its header is fine."""
    file = city / path
    if file.is_dir():
        file = next(file.rglob("*.png"))
    whole = file.read_bytes()
    file.write_bytes(b"no picture" if damage == "no picture" else whole[: len(whole) // 2])
    error = shell.refused("train_uda.py", *train_arguments(city, "--set", "data.workers=1"))
    assert f"{file} cannot be decoded" in error


def test_corrupt_validation_image(shell: Shell, city: Path, trained: Trained) -> None:
    (file,) = (city / "Cityscapes/leftImg8bit/val/frankfurt").iterdir()
    file.write_bytes(file.read_bytes()[:2000])
    arguments = ("--restore-from", str(trained.snapshot), "--data-root", str(city))
    for name, more in {
        "eval_single.py": ("--json", "scores.json"),
        "pseudo_label.py": ("--threshold", "0.5", "--splits", "val", "--output", "labels"),
    }.items():
        error = shell.refused(name, *arguments, *more)
        assert f"{file} cannot be decoded" in error


def test_snapshots_that_cannot_be_used(shell: Shell, toy_root: Path, trained: Trained) -> None:
    folder = shell.cwd
    values = read(trained.snapshot)
    space = values["label_space"]
    save({"state_dict": values["student"]}, folder / "foreign.pth")
    save(values | {"label_space": space | {"classes": space["classes"][:16]}}, folder / "16.pth")
    old = {"name": "clothes20", "classes": space["classes"]}  # of before the rest was stored
    save(values | {"label_space": old}, folder / "clothes.pth")
    (folder / "text.pth").write_text("no snapshot")
    (folder / "half.pth").write_bytes(trained.snapshot.read_bytes()[:5000])
    for name, complaint in {
        "missing.pth": "missing.pth does not exist",
        "foreign.pth": "is not a snapshot of this library",
        "16.pth": "its label space is cityscapes19 with 16 classes",
        "clothes.pth": "its label space is clothes20 with 19 classes",
        "text.pth": "text.pth",
        "half.pth": "half.pth",
    }.items():
        path = str(folder / name)
        for command, arguments in {
            "eval_single.py": ("--restore-from", path),
            "pseudo_label.py": ("--restore-from", path, "--threshold", "0.5"),
            "train_uda.py": train_arguments(toy_root, "--restore-from", path),
        }.items():
            assert complaint in shell.refused(command, *arguments), (name, command)


def test_run_folders_that_cannot_be_used(shell: Shell, toy_root: Path) -> None:
    nothing = shell.refused("train_uda.py", *train_arguments(toy_root, "--resume"))
    assert "resume.pth does not exist: there is nothing to resume" in nothing
    shell.run("train_uda.py", *train_arguments(toy_root))
    used = shell.refused("train_uda.py", *train_arguments(toy_root))
    assert "snapshots/bad holds a run already: add --resume" in used
    other = shell.refused(
        "train_uda.py", *train_arguments(toy_root, "--resume", "--set", "train.seed=3")
    )
    assert "written with other values of train.seed" in other
    table(shell.run("train_uda.py", *train_arguments(toy_root, "--resume")))


def test_options_that_cannot_be(shell: Shell, trained: Trained, toy_root: Path) -> None:
    common = ("--restore-from", str(trained.snapshot))
    for name, arguments, complaint in (
        ("eval_single.py", ("--device", "abacus"), "--device abacus"),
        ("eval_single.py", ("--adapt-bn", "nowhere"), "--adapt-bn nowhere"),
        ("eval_single.py", ("--data-root", "nowhere"), "data root nowhere does not exist"),
        ("pseudo_label.py", ("--threshold", "1.5"), "between 0 and 1"),
        ("pseudo_label.py", ("--threshold", "0", "--first", "7"), "there are only 6 images"),
    ):
        assert complaint in shell.refused(name, *common, *arguments)
    no_teacher = ("--preset", "toy_aagc", *tiny_options(toy_root), "--run", "aagc")
    shell.run("train_uda.py", *no_teacher, "--set", "objectives.memory=none")
    path = str(shell.snapshots / "aagc/GTA5_3.pth")
    error = shell.refused("eval_single.py", "--restore-from", path, "--weights", "teacher")
    assert "has no teacher" in error


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("eval_single.py", ("--workers", "-1")),
        ("eval_single.py", ("--scales", "0")),
        ("eval_single.py", ("--input-size", "64")),
        ("pseudo_label.py", ("--threshold", "0.5", "--first", "0")),
        ("pseudo_label.py", ("--threshold", "0.5", "--first", "-1")),
        ("pseudo_label.py", ()),
        ("pseudo_label.py", ("--rule", "cbst", "--threshold", "0.5")),
        ("pseudo_label.py", ("--rule", "iast", "--portion", "0.5")),
        ("pseudo_label.py", ("--threshold", "0.5", "--cap", "0.9")),
    ],
)
def test_numbers_that_make_no_sense(
    name: str, arguments: tuple[str, ...], shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        shell.run(name, "--restore-from", "any.pth", *arguments)
    assert end.value.code == 2
    assert f"{name}: error: " in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_a_foreign_file_is_evaluated_and_makes_pseudo_labels(shell: Shell, toy_root: Path) -> None:
    """SegmenTron's layout, all zeros: every pixel is taken for road, with a probability of 1/19."""
    torch.save({"state_dict": file_of(SEGMENTRON)}, shell.cwd / "segmentron.pth")
    options = ["--restore-from", "segmentron.pth", "--data-root", str(toy_root), "--device", "cpu",
               "--workers", "0", "--protocol", "native"]  # fmt: skip
    shown = shell.run("eval_single.py", *options)
    assert "preset: SegmenTron DeepLabV3+ ResNet-101" in shown
    assert "supervision: ground truth (2975 images)" in shown
    road, *others, _ = (line.split("\t")[-1] for line in table(shown))
    assert float(road) > 0
    assert set(others) == {"0.0", "nan"}  # nan: three images do not show every class
    shown = shell.run("pseudo_label.py", *options, "--threshold", "0.05", "--output", "labels")
    assert "share kept: 100.0%" in shown
    manifest = json.loads((shell.cwd / "labels" / "manifest.json").read_text())
    assert manifest["supervision"] == "ground truth (2975 images)"
