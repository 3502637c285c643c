"""uda translate: a data set's images, translated, in a folder that its layout reads."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from factories import CITYSCAPES_STEMS, cityscapes_image, noise, write_gta5, write_png
from interruptions import run_to_end
from tiny_runs import tiny_preset
from uda.commands.data.check import main as check_data
from uda.commands.translate import main as translate
from uda.data.files import image_size, read_image
from uda.data.registry import list_dataset
from uda.data.translated_folder import find_manifest
from uda.utilities.errors import InputError
from uda.utilities.locks import sole_writer
from uda.utilities.sealed_json import sealed, unsealed

SIZE = (12, 24)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """GTA5 and the images, but no labels, of Cityscapes."""
    write_gta5(tmp_path / "data", 4)
    for seed, stem in enumerate(CITYSCAPES_STEMS):
        write_png(cityscapes_image(tmp_path / "data", stem), noise(100 + seed, SIZE))
    return tmp_path / "data"


def run(root: Path, *options: str, output: str = "CycleGTA5") -> Path:
    folder = root / output
    translate(
        ["--method", "color", "--dataset", "gta5", "--target", "cityscapes", "--data-root",
         str(root), "--output", str(folder), "--workers", "0", "--device", "cpu", *options]
    )  # fmt: skip
    return folder


def refusal(capsys: pytest.CaptureFixture[str], root: Path, *options: str) -> str:
    with pytest.raises(SystemExit) as ended:
        run(root, *options)
    assert ended.value.code == 2
    return capsys.readouterr().err


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "images").iterdir()}


def test_the_folder_is_read_as_cyclegta5(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(root, "--width", "8")
    assert "gta5 translated by color, 4 images" in capsys.readouterr().out
    samples = list_dataset(root, "cyclegta5", "train", labeled=True)
    assert [sample.stem for sample in samples] == [f"0000{i}" for i in range(1, 5)]
    for sample in samples:
        assert image_size(sample.image) == (4, 8)
        assert sample.labels is not None
        assert sample.labels.readlink() == Path(f"../../GTA5/labels/{sample.stem}.png")
    assert check_data(["--data-root", str(root), "--dataset", "cyclegta5"]) == 0
    (folder / "images" / "00004.png").unlink()
    assert check_data(["--data-root", str(root), "--dataset", "cyclegta5"]) == 1
    assert "3 images; the data set has 4" in capsys.readouterr().out
    manifest = find_manifest(folder)
    assert manifest is not None
    assert manifest.finished
    assert manifest.width == 8


def test_loader_processes_and_an_interruption_change_no_byte(root: Path) -> None:
    whole = content(run(root, output="a/CycleGTA5"))
    folder = run(root, "--workers", "2", output="b/CycleGTA5")
    assert content(folder) == whole
    for name in ("00002.png", "00004.png"):
        (folder / "images" / name).unlink()
    (folder / "labels" / "00001.png").unlink()
    kept = (folder / "images" / "00001.png").stat().st_mtime_ns
    manifest = unsealed((folder / "translation.json").read_bytes())
    (folder / "translation.json").write_bytes(sealed(manifest | {"finished": False}))
    run(root, output="b/CycleGTA5")
    assert content(folder) == whole
    assert (folder / "images" / "00001.png").stat().st_mtime_ns == kept
    assert (folder / "labels" / "00001.png").is_symlink()


def test_other_settings_are_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(root)
    message = refusal(capsys, root, "--seed", "1", "--width", "8")
    assert "translated with other values of width, seed: give the same command" in message
    write_png(root / "GTA5" / "images" / "00005.png", noise(5))
    shutil.copy(root / "GTA5" / "labels" / "00001.png", root / "GTA5" / "labels" / "00005.png")
    assert "other values of image_count, images_sha256" in refusal(capsys, root)


def test_an_unfinished_translation_is_not_trained_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("uda.translation.writing._link_labels", stop)
    with pytest.raises(SystemExit):
        run(root)
    with pytest.raises(InputError, match="is an unfinished translation of 4 images: give the same"):
        list_dataset(root, "cyclegta5", "train", labeled=True)


def test_foreign_folders_stay_as_they_are(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "CycleGTA5").mkdir()
    (root / "CycleGTA5" / "mine.txt").write_text("mine")
    assert "holds files, but no translation.json" in refusal(capsys, root)
    shutil.rmtree(root / "CycleGTA5")
    inside = refusal(capsys, root, "--output", str(root / "GTA5" / "translated"))
    assert "is in the folder of the originals: choose another folder with --output DIR" in inside
    (root / "CycleGTA5").mkdir()
    with sole_writer(root / "CycleGTA5"):
        pass  # the lock of this process itself would not be refused
    run(root)


def test_jpeg(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(root, "--format", "jpeg", "--quality", "100")
    samples = list_dataset(root, "cyclegta5", "train", labeled=True)
    assert [sample.image.name for sample in samples] == [f"0000{i}.jpg" for i in range(1, 5)]
    exact = run(root, output="png/CycleGTA5")
    for name in ("00001", "00003"):
        one, other = (
            np.asarray(read_image(path / "images" / f"{name}{suffix}")).astype(int)
            for path, suffix in ((folder, ".jpg"), (exact, ".png"))
        )
        assert np.abs(one - other).max() <= 8
    message = refusal(
        capsys, root, "--format", "jpeg", "--dataset", "cityscapes", "--labels", "none",
        "--output", str(root / "other"),
    )  # fmt: skip
    assert "images of cityscapes are called leftImg8bit/{split}" in message


def test_without_labels_and_only_the_first(root: Path) -> None:
    shutil.rmtree(root / "GTA5" / "labels")
    folder = run(root, "--labels", "none", "--first", "2")
    assert sorted(content(folder)) == ["00001.png", "00002.png"]
    assert not (folder / "labels").exists()


def test_a_disk_without_links(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    message = refusal(capsys, root)
    assert "(Operation not permitted): choose an --output DIR on a disk" in message


def test_an_image_that_cannot_be_read(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "GTA5" / "images" / "00003.png").write_bytes(b"no picture")
    assert "00003.png cannot be decoded" in refusal(capsys, root)


def test_fourier_and_the_whole_sets_colors(root: Path) -> None:
    fourier = content(run(root, "--method", "fourier", "--band", "0.2", output="f/CycleGTA5"))
    whole = content(run(root, "--match", "set", output="s/CycleGTA5"))
    assert fourier.keys() == whole.keys()
    assert fourier != whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--method fourier", "--method fourier needs --target NAME"),
        ("--method color --target t --tile 64", "--tile is not used with --method color: omit it"),
        ("--method color --target t --band 0.1", "--band is not used with --method color"),
        ("--method fourier --target t --match set", "--match is not used with --method fourier"),
        ("--method color --target t --match set --seed 1", "--seed is not used with --match set"),
        ("--restore-from f --target t", "--target is not used with --restore-from"),
        ("--restore-from f --quality 80", "--quality is not used with --format png"),
    ],
)
def test_options_that_would_change_nothing_are_refused(
    options: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        translate([*options.split(), "--dataset", "gta5", "--output", "x"])
    assert message in capsys.readouterr().err


def test_a_run_depends_on_how_its_source_was_translated(
    toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The banner says it; a run is not resumed on a folder that was translated in another way."""
    root = tmp_path / "data"
    root.mkdir()
    for name in ("GTA5", "Cityscapes"):
        (root / name).symlink_to(toy_root / name)
    run(root)
    experiment = tiny_preset("toy_aagc_source_only", root, steps=2)
    experiment.train.resume_every = 1
    run_to_end(experiment, tmp_path / "run")
    assert "translation      gta5 translated by color, 6 images" in capsys.readouterr().out
    shutil.rmtree(root / "CycleGTA5")
    run(root, "--seed", "1")
    with pytest.raises(InputError, match="with other images"):
        run_to_end(experiment, tmp_path / "run", resume=True)
