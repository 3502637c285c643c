"""Patterns of every shape, on a tree of files with odd names, links in circles and pipes."""

import os
from pathlib import Path
from random import Random

from fuzz_guard import Tally, attempt, both_runs

from factories import noise, write_png
from uda.data.listing import list_split
from uda.data.patterns import Pattern
from uda.data.samples import Layout, Split
from uda.labels.spaces import NO_CLASSES

PIECES = ("{name}", "{split}", "*", "?", "**", "**/", "/", "a", "b", ".png", "images/", "[", "]",
          "{", "\\", "..", "~", "\0", "\n", "é", "*a" * 6)  # fmt: skip
NAMES = ("a.png", "b.png", "a" * 200 + ".png", "a b.png", "é.png", "a\nb.png", "\x1b[2J.png",
         "-.png", "a:b.png", ".hidden.png")  # fmt: skip


def tree(root: Path) -> Path:
    for folder in ("images/train", "images/train/deep/a/a", "labels/train", "train"):
        (root / folder).mkdir(parents=True)
        for name in NAMES:
            write_png(root / folder / name, noise(0)[..., 0])
    (root / os.fsdecode(b"images/train/\xff.png")).write_bytes(b"")
    (root / "images/up").symlink_to(root)
    (root / "images/itself").symlink_to("itself")
    (root / "images/out").symlink_to("/proc")
    os.mkfifo(root / "images/train/pipe.png")
    return root


def use(root: Path, images: str, labels: str) -> None:
    found = Pattern(images, "images")
    layout = Layout(
        name="own", short_name="own", folder=str(root), splits=("train",),
        parts={"train": Split("train", (found,), Pattern(labels, "labels"), folder="train")},
        named_by_path=True, label_space=NO_CLASSES, note="",
    )  # fmt: skip
    for labeled in (False, True):
        for sample in list_split(layout, root, "train", labeled=labeled):
            path = sample.image.relative_to(root).as_posix()
            values = found.match(path, "train")
            assert values is not None
            assert found.write(values, "train") == path


@both_runs
def test_patterns(total: int, tmp_path: Path) -> None:
    tally, root = Tally("patterns"), tree(tmp_path / "data")
    (root / "images/out").unlink()  # millions of files are for another test
    for number in range(total // 4):
        random = Random(number)
        images = "".join(random.choices(PIECES, k=random.randint(1, 7)))
        labels = images.replace("images/", "labels/") if random.random() < 0.5 else "labels/*.png"
        attempt(tally, root, lambda: use(root, images, labels))  # noqa: B023
    print(tally)
