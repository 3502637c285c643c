"""scripts/describe_dataset.py: which layouts it knows, what it says, and that drafts work as is."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factories import noise, write_png
from shells import Shell
from tiny_runs import tiny_options
from uda.data.described.file import Description, read_description
from uda.data.drafts.pairs import best_pairing
from uda.utilities.errors import InputError

COMMAND = "scripts/describe_dataset.py"
SIZE = (64, 128)


def labels(seed: int, values: tuple[int, ...]) -> np.ndarray:
    """(H, W) in blocks of 16 pixels."""
    blocks = np.random.default_rng(seed).choice(values, (SIZE[0] // 16, SIZE[1] // 16))
    blocks.flat[: len(values)] = values
    return np.kron(blocks, np.ones((16, 16))).astype(np.uint8)


def write_voc(folder: Path) -> Path:
    """JPEG images, palette PNGs for some of them, lists; 255 at borders."""
    for number in range(6):
        path = folder / f"JPEGImages/{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(number, SIZE)).save(path)
        if number < 5:
            picture = Image.fromarray(labels(number, (0, 1, 2, 255)))
            picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, *[9] * 759])
            path = folder / f"SegmentationClass/{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
            shutil.copytree(path.parent, folder / "SegmentationObject", dirs_exist_ok=True)
    lists = folder / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0000\n0001\n0002\n")
    (lists / "val.txt").write_text("0003\n0004\n")
    (lists / "trainval.txt").write_text("0000\n0001\n0002\n0003\n0004\n")
    (lists / "test.txt").write_text("0005\n")
    return folder


def write_colored(folder: Path) -> Path:
    """Splits first, images beside their masks, whose colors a table names."""
    colors = np.zeros((256, 3), np.uint8)
    colors[1:3] = (200, 0, 0), (0, 200, 0)
    for seed, split in ((0, "train"), (10, "validation")):
        for number in range(3):
            write_png(folder / split / f"{number}.png", noise(seed + number, SIZE))
            write_png(folder / split / f"{number}_mask.png", colors[labels(number, (0, 1, 2))])
    (folder / "class_dict.csv").write_text("name,r,g,b\nvoid,0,0,0\nroof,200,0,0\ntree,0,200,0\n")
    return folder


def write_plain(folder: Path) -> Path:
    """Two folders, no splits, gray labels, and a list of names."""
    for number in range(10):
        write_png(folder / f"images/{number}.png", noise(number, SIZE))
        write_png(folder / f"masks/{number}.png", labels(number, (0, 1)))
    (folder / "classes.txt").write_text("ground\nhouse\ncar\n")
    return folder


def drafted(shell: Shell, folder: Path) -> tuple[Description, str]:
    shown = shell.run(COMMAND, str(folder))
    return read_description(folder / "dataset.toml"), shown


def test_voc(shell: Shell) -> None:
    found, shown = drafted(shell, write_voc(shell.cwd / "voc"))
    assert [(s.name, s.list_file) for s in found.splits] == [
        ("train", "ImageSets/Segmentation/train.txt"), ("val", "ImageSets/Segmentation/val.txt"),
        ("test", "ImageSets/Segmentation/test.txt"),
    ]  # fmt: skip
    assert found.space.classes == ("class_0", "class_1", "class_2")
    assert found.space.palette == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    assert found.space.raw_to_train[255] == 255
    assert found.splits[0].labels is not None
    assert found.splits[0].labels.text == "SegmentationClass/{name}.png"
    assert "split val: 2 images" in shown.splitlines()
    assert found.splits[2].labels is None, "no image of the list has labels"
    assert "split test: 1 images, none of them with labels" in shown.splitlines()
    assert "check: the ignored values are guessed" in shown.splitlines()
    text = (shell.cwd / "voc/dataset.toml").read_text()
    assert "# of the palette in the label files" in text
    assert "# CHECK: no class names were found" in text


def test_colors_and_their_names(shell: Shell) -> None:
    found, shown = drafted(shell, write_colored(shell.cwd / "tiles"))
    assert found.space.classes == ("roof", "tree")
    assert found.space.raw_colors == ((200, 0, 0), (0, 200, 0), (0, 0, 0))
    assert [(s.name, s.folder) for s in found.splits] == [("train", "train"), ("val", "validation")]
    assert "the names of classes come from class_dict.csv" in shown


def test_no_splits_and_a_list_of_names(shell: Shell) -> None:
    found, shown = drafted(shell, write_plain(shell.cwd / "gta5"))
    assert found.name == "my_gta5", "the library has a gta5"
    assert found.space.classes == ("ground", "house", "car"), "also the one not in the files read"
    assert [split.share for split in found.splits] == [0.8, 0.2]
    assert {"split train: 8 images", "split val: 2 images"} <= set(shown.splitlines())


@pytest.mark.parametrize(
    ("images", "labels", "paths"),
    [
        ("img_dir/{split}/{name}.jpg", "ann_dir/{split}/{name}.png",
         ["img_dir/train/a.jpg", "img_dir/val/b.jpg", "ann_dir/train/a.png", "ann_dir/val/b.png"]),
        ("leftImg8bit/{split}/{name}_leftImg8bit.png", "gtFine/{split}/{name}_gtFine_labelIds.png",
         ["leftImg8bit/val/ulm/u_1_leftImg8bit.png", "gtFine/val/ulm/u_1_gtFine_color.png",
          "gtFine/val/ulm/u_1_gtFine_labelIds.png", "gtFine/val/ulm/u_1_gtFine_instanceIds.png"]),
        ("{split}/images/{name}.png", "{split}/labels/{name}.png",
         ["train/images/a.png", "train/labels/a.png", "test/images/b.png", "test/labels/b.png"]),
        ("x/{name}.jpg", "x/{name}_label.png", []),
        ("{name}.jpg", "{name}.png", ["deep/a.jpg", "deep/a.png", "b.jpg", "b.png"]),
        ("{split}/{name}.png", "{split}_labels/{name}_L.png",
         ["train/a.png", "train_labels/a_L.png", "val/b.png", "val_labels/b_L.png"]),
        ("images_{split}/{name}.jpg", "labels_{split}/{name}.png",
         ["images_train/a.jpg", "labels_train/a.png", "images_val/b.jpg", "labels_val/b.png"]),
        ("rgb/{split}/{name}_camera.png", "semantic/{split}/{name}_semantic_ids.png",
         ["rgb/val/bern/b_1_camera.png", "semantic/val/bern/b_1_semantic_ids.png",
          "semantic/val/bern/b_1_semantic_color.png", "rgb/val/bern/b_2_camera.png"]),
        ("{name}_sat.jpg", "{name}_mask.png", ["1_sat.jpg", "1_mask.png", "2_sat.jpg"]),
    ],
)  # fmt: skip
def test_layouts(images: str, labels: str, paths: list[str]) -> None:
    if not paths:
        with pytest.raises(InputError, match="pictures look like images with labels"):
            best_pairing(["x/a.jpg", "y/b.png"])
        return
    found = best_pairing(paths)
    assert (found.images, found.labels) == ((images,), labels)


@pytest.mark.parametrize("colored", [False, True])
def test_masks_of_two_values_are_of_two_classes(colored: bool, shell: Shell) -> None:
    """0 and 255, or black and white: the highest value is no border then, nor black nothing."""
    for number in range(4):
        mask = labels(number, (0, 255))
        write_png(shell.cwd / f"data/images/{number}.png", noise(number, SIZE))
        pixels = np.repeat(mask[..., None], 3, axis=2) if colored else mask
        write_png(shell.cwd / f"data/masks/{number}.png", pixels)
    found, _ = drafted(shell, shell.cwd / "data")
    assert found.space.num_classes == 2
    assert 255 not in found.space.raw_to_train.values()


def test_nothing_is_written_where_no_sense_can_be_made(shell: Shell) -> None:
    empty = shell.cwd / "empty"
    empty.mkdir()
    assert "there are no images" in shell.refused(COMMAND, str(empty))
    assert "is not a folder" in shell.refused(COMMAND, "nowhere")
    for number in range(3):
        write_png(shell.cwd / f"photos/images/{number}.png", noise(number, SIZE))
        write_png(shell.cwd / f"odd/first/a{number}.png", noise(number, SIZE))
        write_png(shell.cwd / f"odd/second/b{number}.png", labels(number, (0, 1)))
    assert "pictures look like images" in shell.refused(COMMAND, "odd")
    for number in range(3):
        write_png(shell.cwd / f"photos/labels/{number}.png", noise(number + 3, SIZE))
    assert "it looks like a photograph" in shell.refused(COMMAND, "photos")


def test_a_file_is_not_overwritten_unasked(shell: Shell) -> None:
    folder = write_plain(shell.cwd / "data")
    drafted(shell, folder)
    (folder / "dataset.toml").write_text("my own work")
    assert "or add --overwrite" in shell.refused(COMMAND, str(folder))
    shell.run(COMMAND, str(folder), "--overwrite")
    elsewhere = shell.cwd / "files/own.toml"
    elsewhere.parent.mkdir()
    shell.run(COMMAND, str(folder), "--output", str(elsewhere))
    assert read_description(elsewhere).root.resolve() == folder.resolve()
    assert "ends in .toml" in shell.refused(COMMAND, str(folder), "--output", "own.txt")


@pytest.mark.parametrize("write", [write_voc, write_colored, write_plain])
def test_a_draft_trains_scores_and_predicts_as_it_is(write: "type[object]", shell: Shell) -> None:
    drafted(shell, write(shell.cwd / "data"))  # type: ignore[call-arg, arg-type]
    given = tiny_options(None)
    place = given.index("data.target.size=64,128")
    file = "data/dataset.toml"
    sets = (f"data.source.datasets={file}", f"evaluation.dataset={file}", "train.steps=2")
    shell.run(
        "train_uda.py", "--preset", "toy_source_only", *given[: place - 1], *given[place + 1 :],
        *(part for value in sets for part in ("--set", value)), "--run", "own",
    )  # fmt: skip
    common = ("--restore-from", "snapshots/own/data_2.pth", "--workers", "0", "--device", "cpu")
    assert "===> mIoU: " in shell.run("eval_single.py", *common)
    photographs = "data/JPEGImages" if write is write_voc else "data"
    if write is write_plain:
        photographs = "data/images"
    assert "folder: " in shell.run("predict.py", *common, "--images", photographs)
    shown = shell.ended("scripts/check_data.py", "--dataset", file)
    assert shown[0] == 0, shown[1]
