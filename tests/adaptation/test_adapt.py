"""uda adapt from end to end: what it writes, keeps, refuses, and continues."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from shells import Trained
from trials import small_vit
from uda.adaptation import adapt as adaptation
from uda.adaptation.verdict import Verdict
from uda.checkpoints.snapshots import load, read, save, snapshot_values
from uda.commands import adapt
from uda.utilities.config_tree import to_plain


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory, toy_root: Path) -> Path:
    """Ten images of two sizes, and one that is none."""
    folder = tmp_path_factory.mktemp("camera")
    for number in range(10):
        path = sorted((toy_root / "Cityscapes/leftImg8bit/train").rglob("*.png"))[number % 6]
        image = Image.open(path).convert("RGB")
        if number % 2:
            image = image.crop((0, 0, 96, 64))
        image.save(folder / f"{number:02}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "adapt.json").read_text())
    return found


def run(
    trained: Trained, photographs: Path, *options: str, steps: tuple[str, ...] = ("--steps", "4")
) -> dict[str, Any]:
    adapt.main(
        ["--restore-from", str(trained.snapshot), "--images", str(photographs), "--output", "out",
         "--workers", "0", *steps, *options]
    )  # fmt: skip
    return record(Path("out"))


@pytest.mark.slow
@pytest.mark.usefixtures("shell")
def test_stages_pictures_and_a_network_that_every_command_opens(
    trained: Trained,
    photographs: Path,
    capsys: pytest.CaptureFixture[str],
    toy_root: Path,
    tmp_path: Path,
) -> None:
    old, native = load(trained.snapshot), Trained(tmp_path, "")
    old.experiment["evaluation"]["input_size"] = None  # images are seen in their own sizes
    save(snapshot_values(old), native.snapshot)
    found = run(
        native, photographs, "--method", "batch-norm", "self-training+masked-consistency",
        "--even-if-worse", "--validate", "cityscapes", "--data-root", str(toy_root),
    )  # fmt: skip
    assert [stage["name"] for stage in found["stages"]] == [
        "batch-norm", "self-training+masked-consistency",
    ]  # fmt: skip
    assert found["outcome"] == "adapted"
    assert found["images"]["count"] == 10
    assert list(found["images"]["unreadable"]) == ["broken"]
    assert found["images"]["sizes"] == {"128x64": 5, "96x64": 5}
    assert found["scores"]["new"]["miou"] == pytest.approx(_score(toy_root))
    for picture in found["pictures"]:
        for name in ("photo", "before", "after"):
            with Image.open(Path("out") / picture[name]) as image:
                assert image.format == "JPEG"
    shares = [picture["changed"] for picture in found["pictures"]]
    assert shares == sorted(shares, reverse=True)
    adapted = load(Path("out/adapted.pth"))
    assert adapted.supervision == old.supervision
    assert any(not torch.equal(adapted.student[n], t) for n, t in old.student.items()
               if n in adapted.student)  # fmt: skip
    printed = capsys.readouterr().out
    assert "result: adapted by batch-norm, self-training+masked-consistency" in printed
    assert "(not used to choose)" in printed


def _score(root: Path) -> float:
    import uda

    network = uda.load("out/adapted.pth")
    return uda.evaluate(network, dataset="cityscapes", data_root=root).miou


@pytest.mark.usefixtures("shell")
def test_what_is_called_worse_is_not_kept(
    trained: Trained, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = Verdict("worse", ("because the test says so",))
    monkeypatch.setattr(adaptation, "judge", lambda before, after, *, self_taught: verdict)
    found = run(trained, photographs, "--method", "batch-norm", steps=())
    assert found["outcome"] == "kept"
    assert found["stages"][0]["kept"] is False
    kept, old = load(Path("out/adapted.pth")).student, load(trained.snapshot).student
    assert all(torch.equal(kept[name], old[name]) for name in old)


@pytest.mark.usefixtures("shell")
def test_images_of_another_world_teach_nothing(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = tmp_path / "noise"
    noise.mkdir()
    generator = np.random.default_rng(0)
    for number in range(8):
        pixels = generator.integers(0, 256, (64, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(noise / f"{number}.png")
    found = run(trained, noise)
    assert "self-training" not in [stage["name"] for stage in found["stages"]]
    assert "another world" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("shell")
def test_an_interrupted_adaptation_continues_where_it_was(
    trained: Trained, photographs: Path
) -> None:
    options = ("--method", "batch-norm", "self-training", "--even-if-worse")
    whole = run(trained, photographs, *options)
    weights = load(Path("out/adapted.pth")).student
    # As a kill in the second stage's last steps leaves it: no result, but its run.
    for name in ("stage2_self-training.pth", "adapted.pth"):
        (Path("out") / name).unlink()
    first = Path("out/stage1_batch-norm.pth").stat().st_mtime_ns
    resume = Path("out/stage2_self-training/resume.pth")
    values = read(resume)
    values["files"]["compared"][:] = 0  # as if the content were another, of the same size
    values["files"]["times"][:] = 0
    save(values, resume)
    with pytest.raises(SystemExit):
        run(trained, photographs, *options)
    again = run(trained, photographs, *options, "--data-changed")
    assert Path("out/stage1_batch-norm.pth").stat().st_mtime_ns == first, "not done twice"
    continued = load(Path("out/adapted.pth")).student
    assert all(torch.equal(continued[name], weights[name]) for name in weights)
    assert again["shares"] == whole["shares"]
    with pytest.raises(SystemExit):
        run(trained, photographs, *options, "--seed", "1")


@pytest.mark.usefixtures("shell")
def test_refusals_name_what_can_be_done(
    trained: Trained, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(photographs / "00.png", few)
    for options, expected in (
        (("--method", "self-training", "--source", "gta5"), "such as --method class-mix"),
        (("--source", "gta5"), "such as --method class-mix"),
        (("--method", "batch-norm"), "makes no step: omit it"),
        (("--data-root", str(few)), "is not used"),
        (("--validate", "clothes59", "--data-root", str(few)), "is labeled with"),
        (("--source", "clothes59", "--method", "class-mix"), "is labeled with"),
        (("--validate", "cityscapes", "--data-root", str(few)), "does not exist"),
    ):
        with pytest.raises(SystemExit):
            run(trained, photographs, *options)
        assert expected in capsys.readouterr().err, options
    for folder, method, expected in (
        (few, "batch-norm", "uda predict --adapt batch-norm"),
        (few, "self-training", "learns from 8 or more"),
        (photographs, "batch-nrom", "did you mean"),
        (photographs, "class-mix", "add --source NAME"),
        (photographs, "batch-norm+self-training", "make it a stage of its own"),
        (photographs, "tent+self-training", "make them stages"),
        (photographs, "self-training+self-training", "twice"),
    ):
        with pytest.raises(SystemExit):
            run(trained, folder, "--method", method)
        assert expected in capsys.readouterr().err, method
    assert not list(Path("out").glob("*.pth"))


@pytest.mark.usefixtures("shell")
def test_a_source_allows_the_ladder(trained: Trained, photographs: Path, toy_root: Path) -> None:
    found = run(trained, photographs, "--method", "class-mix", "--source", "gta5",
                "--data-root", str(toy_root), "--even-if-worse")  # fmt: skip
    assert found["stages"][0]["name"] == "class-mix"
    stored = load(next(Path("out/stage1_class-mix").glob("*_4.pth")))
    assert sorted(stored.experiment["objectives"]) == ["class_mix", "supervised"]


@pytest.mark.slow
@pytest.mark.usefixtures("shell")
def test_a_network_without_batch_norm_is_adapted_by_what_fits_it(
    photographs: Path, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small_vit()
    old = load(trained.snapshot)
    old.experiment["model"] = {"type": type(model).__name__} | to_plain(model)
    old.student, old.teacher = model.build(19).state_dict(), None
    transformer = Trained(tmp_path, "")
    save(snapshot_values(old), transformer.snapshot)
    with pytest.raises(SystemExit):
        run(transformer, photographs, "--method", "batch-norm")
    assert "this network has no batch norm; use self-training" in capsys.readouterr().err
    found = run(transformer, photographs, "--method", "tent", "--even-if-worse")
    assert found["stages"][0]["kept"]
    adapted = load(Path("out/adapted.pth")).student
    changed = {name for name, value in adapted.items() if not torch.equal(value, old.student[name])}
    assert changed
    assert all("norm" in name for name in changed), "weights of normalization alone"


@pytest.mark.usefixtures("shell")
def test_minutes_that_are_too_few_name_those_that_would_do(
    trained: Trained, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        adapt.main(
            ["--restore-from", str(trained.snapshot), "--images", str(photographs), "--output",
             "out", "--workers", "0", "--method", "self-training", "--minutes", "0.01"]
        )  # fmt: skip
    error = capsys.readouterr().err
    assert "fewer than 50: give --minutes" in error
    assert "or --method batch-norm" in error
