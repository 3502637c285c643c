"""predict.py: images of any size and kind to pictures, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from factories import ColorSegmenter, colors_of, file_of, noise, write_png
from shells import Shell, Trained
from uda.checkpoints.formats.segmentron import SEGMENTRON
from uda.checkpoints.snapshots import load
from uda.data.file_tree import files_below
from uda.evaluation.ensembles import Ensemble
from uda.evaluation.evaluate import EvaluationConfig
from uda.labels.spaces import CITYSCAPES
from uda.prediction.folder import predict_folder
from uda.prediction.opened import OpenedNetwork
from uda.prediction.test_time import TestTimeAdapter
from uda.utilities.errors import InputError


def options(trained: Trained, images: Path, *more: str) -> list[str]:
    common = ["--restore-from", str(trained.snapshot), "--images", str(images), "--workers", "0"]
    return [*common, "--device", "cpu", "--output", "predicted", *more]


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "predictions.json").read_text())
    return found


def write_photographs(folder: Path) -> Path:
    """Three sizes, two formats, a sub-folder, and what is no image of anybody's."""
    write_png(folder / "one.png", noise(1, (64, 128)))
    write_png(folder / "deep/er/two.png", noise(2, (37, 51)))
    Image.fromarray(noise(3, (128, 64))).save(folder / "deep/three.JPG", format="JPEG")
    write_png(folder / ".hidden/four.png", noise(4))
    (folder / "._one.png").write_bytes(b"what a Mac notes")
    (folder / "notes.txt").write_text("nothing")
    return folder


def network(trained: Trained) -> OpenedNetwork:
    """One that says what an image's colors tell it to, and is scored at another size."""
    config = EvaluationConfig(dataset="cityscapes", label_size=(5, 3))
    return OpenedNetwork(ColorSegmenter(), load(trained.snapshot), config, "", {})


def test_every_image_has_every_picture_at_its_own_size(shell: Shell, trained: Trained) -> None:
    images = write_photographs(shell.cwd / "photos")
    output = shell.run("predict.py", *options(trained, images))
    assert "images: 3" in output.splitlines()
    folder = shell.cwd / "predicted"
    sizes = {"one.png": (128, 64), "deep/er/two.png": (51, 37), "deep/three.png": (64, 128)}
    modes = {"ids": "L", "colors": "RGB", "overlays": "RGB", "confidence": "L"}
    expected = {f"{kind}/{name}" for kind in modes for name in sizes}
    assert set(files_below(folder)) == expected | {"predictions.json", "legend.png"}
    for kind, mode in modes.items():
        for name, size in sizes.items():
            with Image.open(folder / kind / name) as picture:
                assert (picture.size, picture.mode) == (size, mode)
    found = manifest(folder)
    assert found["images"] == ["deep/er/two.png", "deep/three.JPG", "one.png"]
    assert [entry["name"] for entry in found["classes"]] == list(CITYSCAPES.classes)
    assert found["classes"][10] == {"id": 10, "name": "sky", "color": [70, 130, 180]}
    assert found["protocol"].startswith("own settings: input 128x64")
    assert (found["id_space"], found["unreadable"]) == ("trainIds", {})


def test_what_the_pictures_hold(trained: Trained, tmp_path: Path) -> None:
    """Values worked out by hand: ids as the image says, colors of the palette, the softmax's
    probability, and the mean of image and colors."""
    train_ids = np.repeat(np.repeat(np.array([[0, 10], [13, 18]], np.uint8), 4, 0), 6, 1)
    image = colors_of(train_ids, green=48)  # a logit of 48 / 16
    write_png(tmp_path / "in/a.png", image)
    predict_folder(
        network(trained), tmp_path / "in", tmp_path / "out", snapshot=trained.snapshot,
        kinds=("ids", "colors", "overlays", "confidence"),
    )  # fmt: skip
    pictures = {
        kind: np.asarray(Image.open(tmp_path / f"out/{kind}/a.png"))
        for kind in ("ids", "colors", "overlays", "confidence")
    }
    assert np.array_equal(pictures["ids"], train_ids)
    assert pictures["colors"][0, 0].tolist() == [128, 64, 128]
    assert pictures["colors"][7, 11].tolist() == [119, 11, 32]
    # Red 180, green 48, blue 0 and (119, 11, 32); 149.5 and 29.5 are rounded to even numbers.
    assert pictures["overlays"][7, 11].tolist() == [150, 30, 16]
    probability = np.e**3 / (np.e**3 + 18)
    assert set(pictures["confidence"].ravel().tolist()) == {round(255 * probability)}


def test_a_photograph_is_turned_as_its_camera_noted(trained: Trained, tmp_path: Path) -> None:
    upright = np.zeros((4, 6), np.uint8)
    upright[:, 3:] = 10
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right of the stored picture
    (tmp_path / "in").mkdir()
    stored = Image.fromarray(np.rot90(colors_of(upright)).copy())
    stored.save(tmp_path / "in/a.png", exif=exif)
    predict_folder(
        network(trained), tmp_path / "in", tmp_path / "out", snapshot=trained.snapshot,
        kinds=("ids",),
    )  # fmt: skip
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/ids/a.png")), upright)


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_predicted(
    shell: Shell, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_photographs(shell.cwd / "photos")
    whole = (images / "one.png").read_bytes()
    (images / "cut.png").write_bytes(whole[: len(whole) // 2])
    write_png(images / "gray.png", noise(1)[..., 0])
    with pytest.raises(SystemExit) as end:
        shell.run("predict.py", *options(trained, images, "--kinds", "ids"))
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert error.count("not predicted: ") == 1
    assert "cut.png cannot be decoded" in error
    found = manifest(shell.cwd / "predicted")
    assert len(found["images"]) == 4
    assert list(found["unreadable"]) == ["cut.png"]
    assert found["converted"] == ["1 of 5 images are gray: converted to 8-bit RGB"]
    assert list(found["kinds"]) == ["ids"]


def test_sixteen_bits_are_scaled_as_asked(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    values = np.linspace(0, 1000, 24).reshape(4, 6).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "in/a.png")

    def overlay(image_range: tuple[float, float] | None) -> int:
        found = predict_folder(
            network(trained), tmp_path / "in", tmp_path / "out", snapshot=trained.snapshot,
            kinds=("overlays", "colors"), image_range=image_range,
        )  # fmt: skip
        low, high = image_range or (0, 1023)
        assert f"values {low:g} to {high:g} become 0 to 255" in found.converted[0]
        pixels = [np.asarray(Image.open(tmp_path / f"out/{kind}/a.png")) for kind in found_kinds]
        return int(2 * pixels[0][3, 5, 2].astype(int) - pixels[1][3, 5, 2])

    found_kinds = ("overlays", "colors")
    assert abs(overlay(None) - 249) < 2
    assert abs(overlay((0, 4095)) - 62) < 2


def test_its_own_predictions_are_replaced_and_nothing_else(shell: Shell, trained: Trained) -> None:
    images = write_photographs(shell.cwd / "photos")
    command = ("predict.py", *options(trained, images, "--kinds", "ids"))
    shell.run(*command)
    (images / "one.png").unlink()
    shell.run(*command)
    assert not (shell.cwd / "predicted/ids/one.png").exists()
    (shell.cwd / "predicted/thesis.txt").write_text("years of work")
    assert "thesis.txt and 0 more files that are no predictions" in shell.refused(*command)
    (shell.cwd / "predicted/predictions.json").unlink()
    assert "no predictions.json of this command" in shell.refused(*command)


def test_what_is_refused(shell: Shell, trained: Trained) -> None:
    images = write_photographs(shell.cwd / "photos")
    inside = [*options(trained, images)[:-1], str(images / "out")]
    assert "would be read as images" in shell.refused("predict.py", *inside)
    missing = options(trained, shell.cwd / "nowhere")
    assert "nowhere is not a folder" in shell.refused("predict.py", *missing)
    write_png(images / "one.jpeg.png", noise(1))
    Image.fromarray(noise(1)).save(images / "one.jpg")
    refusal = shell.refused("predict.py", *options(trained, images))
    assert "one.jpg and " in refusal
    assert "would be one file, one.png: rename one" in refusal
    empty = shell.cwd / "empty"
    empty.mkdir()
    assert "there are no images" in shell.refused("predict.py", *options(trained, empty))
    (empty / "broken.png").write_bytes(b"nothing")
    refusal = shell.refused("predict.py", *options(trained, empty))
    assert "none of the 1 images can be read" in refusal


def test_images_and_lists_of_images(trained: Trained, tmp_path: Path) -> None:
    """One image, several, folders of one name, a list with paths from here and from itself."""
    for name in ("a.png", "b.tif", "in/a.png", "more/in/c.bmp"):
        write_png(tmp_path / name, colors_of(np.full((4, 6), 10, np.uint8)))
    (tmp_path / "list.txt").write_text("# two\nin/a.png\n\n" + str(tmp_path / "b.tif") + "\n")

    def names(*given: str) -> list[str]:
        found = predict_folder(
            network(trained), [tmp_path / path for path in given], tmp_path / "out",
            snapshot=trained.snapshot, kinds=("ids",),
        )  # fmt: skip
        assert {str(Path(name).with_suffix(".png")) for name in found.images} == set(
            files_below(tmp_path / "out/ids")
        )
        return found.images

    assert names("a.png") == ["a.png"]
    assert names("a.png", "b.tif", "in") == ["a.png", "b.tif", "in/a.png"]
    assert names("list.txt") == ["in/a.png", "b.tif"]
    for given, said in (
        (("a.png", "in/a.png"), "would be one file, a.png"),
        (
            ("clip.mp4",),
            r"a video: .* ffmpeg -i .*clip\.mp4 -vf fps=5 frames/%06d\.png",
        ),
        (("list.csv",), "does not end as that of an image"),
    ):
        for path in given:
            if not (tmp_path / path).exists():
                (tmp_path / path).write_bytes(b"x")
        with pytest.raises(InputError, match=said):
            names(*given)


def test_options_reach_the_network(shell: Shell, trained: Trained) -> None:
    images = write_photographs(shell.cwd / "photos")

    def ids(*more: str) -> bytes:
        shell.run("predict.py", *options(trained, images, "--kinds", "confidence", *more))
        return (shell.cwd / "predicted/confidence/one.png").read_bytes()

    plain = ids()
    bn = ("--adapt-bn", str(images))
    others = [ids("--flip"), ids("--scales", "0.5", "1"), ids("--weights", "teacher"), ids(*bn)]
    assert len({plain, *others}) == 5


@pytest.mark.slow
def test_a_file_of_another_project(shell: Shell, tmp_path: Path) -> None:
    torch.save(file_of(SEGMENTRON), tmp_path / "theirs.pth")
    write_png(tmp_path / "in/a.png", noise(1, (32, 64)))
    shell.run(
        "predict.py", "--restore-from", "theirs.pth", "--images", "in", "--kinds", "ids",
        "--device", "cpu", "--workers", "0", "--input-size", "64x32",
    )  # fmt: skip
    found = manifest(tmp_path / "predictions")
    assert found["preset"] == "SegmenTron DeepLabV3+ ResNet-101"


def test_links_that_lead_in_circles_end(tmp_path: Path) -> None:
    write_png(tmp_path / "a/one.png", noise(1))
    (tmp_path / "a/again").symlink_to(tmp_path, target_is_directory=True)
    assert files_below(tmp_path) == ["a/one.png"]


def test_adapting_to_the_images_is_said_and_recorded(shell: Shell, trained: Trained) -> None:
    write_png(shell.cwd / "photos/one.png", noise(1, (64, 128)))
    more = ("--kinds", "ids", "--adapt", "tent", "--adapt-mode", "continual")
    output = shell.run("predict.py", *options(trained, shell.cwd / "photos", *more))
    said = manifest(shell.cwd / "predicted")["test_time"]
    assert f"test time: {said}" in output.splitlines()
    assert said == (
        "tent, continual, old statistics count as 16 images, Adam 0.0001, one step per image, "
        "which is predicted before it, every folder is a stream of its own"
    )
    refusal = shell.refused("predict.py", *options(trained, shell.cwd / "photos", *more[-2:]))
    assert "--adapt-mode is of --adapt: add --adapt batch-norm or --adapt tent" in refusal


def test_an_ensemble_does_not_adapt(trained: Trained, tmp_path: Path) -> None:
    write_png(tmp_path / "in/a.png", noise(1))
    opened = network(trained)
    several = replace(opened, ensemble=Ensemble([opened.segmenter] * 2))
    trained_network = load(trained.snapshot).build()
    with pytest.raises(InputError, match="adaptation at test time is of one network"):
        predict_folder(
            several, tmp_path / "in", tmp_path / "out", snapshot=trained.snapshot,
            kinds=("ids",), adapter=TestTimeAdapter(trained_network),
        )  # fmt: skip
