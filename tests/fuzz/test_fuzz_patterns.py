"""Patterns of every shape, on a tree of files with odd names, links in circles and pipes."""

import os
from collections.abc import Sequence
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


def tree(root: Path, names: Sequence[str]) -> Path:
    for folder in ("images/train", "images/train/deep/a/a", "labels/train", "train"):
        (root / folder).mkdir(parents=True)
        for name in names:
            write_png(root / folder / name, noise(0)[..., 0])
    (root / "images/up").symlink_to(root)
    (root / "images/itself").symlink_to("itself")
    return root


def odd_tree(root: Path) -> Path:
    tree(root, NAMES)
    (root / os.fsdecode(b"images/train/\xff.png")).write_bytes(b"")
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
    tally, odd = Tally("patterns"), odd_tree(tmp_path / "odd")
    plain = tree(tmp_path / "plain", NAMES[:2])
    for number in range(total // 4):
        random = Random(number)
        root = plain if random.random() < 0.7 else odd
        images = "".join(random.choices(PIECES[: random.choice((11, len(PIECES)))], k=5))
        if random.random() < 0.5:
            images = "images/" + "/".join(random.choices(("{split}", "*", "**", "{name}"), k=2))
            images += random.choice(("", "*", "?.png", ".png", "*a*a*a*.png"))
        labels = images.replace("images/", "labels/")
        attempt(tally, tmp_path, lambda: use(root, images, labels))  # noqa: B023
    print(tally)
