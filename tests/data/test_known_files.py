"""What is remembered of files between two starts, and when it is read again."""

import os
import time
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factories import noise, raw_labels, write_cityscapes, write_gta5, write_png
from uda.data.config import DataConfig, DomainConfig
from uda.data.known_files import KnownFiles
from uda.data.known_ranges import known_range
from uda.data.overlap import copy_remarks
from uda.data.picture_kinds import kind_remarks
from uda.data.registry import check_sizes, list_dataset
from uda.data.training import open_labeled_split, open_training_data
from uda.data.used_files import used_files
from uda.labels.spaces import CITYSCAPES
from uda.utilities import reading
from uda.utilities.errors import InputError
from uda.utilities.user_cache import cache_folder

IMAGES = 40


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UDA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/files.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """GTA5 and Cityscapes whose files were written a while ago."""
    write_gta5(tmp_path, IMAGES)
    write_cityscapes(tmp_path)
    write_cityscapes(tmp_path, split="val", stems=("munster_000000_000019",))
    for path in tmp_path.rglob("*.png"):
        settle(path)
    return tmp_path


def settle(path: Path, *, days: int = 1) -> None:
    then = time.time_ns() - days * 86400 * 10**9
    os.utime(path, ns=(then, then))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pictures that are opened."""
    original, names = reading.opened, list[str]()

    def counted(path: Path) -> BufferedReader:
        names.append(str(path))
        return original(path)

    monkeypatch.setattr("uda.data.files.open_file", counted)
    return names


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    original: Callable[..., os.stat_result] = Path.stat
    names = list[str]()

    def counted(path: Path, **options: bool) -> os.stat_result:
        names.append(str(path))
        return original(path, **options)

    monkeypatch.setattr(Path, "stat", counted)
    return names


def check(root: Path) -> None:
    files = KnownFiles()
    check_sizes(list_dataset(root, "gta5", "train", labeled=True), files)
    files.finish()


def test_a_second_start_opens_no_file_and_looks_each_up_once(
    root: Path, opened: list[str], looked_up: list[str]
) -> None:
    check(root)
    assert len(opened) == 2 * IMAGES
    opened.clear()
    looked_up.clear()
    check(root)
    assert opened == []
    found = [name for name in looked_up if name.endswith(".png")]
    assert len(found) == len(set(found)) == 2 * IMAGES


def test_a_second_start_of_a_run_opens_the_few_that_are_checked_anyway(
    root: Path, opened: list[str], looked_up: list[str]
) -> None:
    def start() -> None:
        domain = DomainConfig(datasets=("gta5",)), DomainConfig(datasets=("cityscapes",))
        data = DataConfig(root=str(root), source=domain[0], target=domain[1])
        found = open_training_data(data, seed=0, evaluated="cityscapes")
        open_labeled_split(root, "cityscapes", "val", label_space=CITYSCAPES, files=found.files)
        found.files.finish()

    start()
    opened.clear()
    looked_up.clear()
    start()
    # Label files for their values, the first for whether all is ignored.
    assert len(opened) == 16 + 1 + 1
    assert len(opened) == len(set(opened)) + 1


@pytest.mark.slow
def test_a_second_start_on_a_large_set_opens_no_image(root: Path, opened: list[str]) -> None:
    """5,000 images, and what a run asks of them: sizes, kinds, copies, a few target images."""
    image = root / "GTA5/images/00001.png"
    content, labels = image.read_bytes(), (root / "GTA5/labels/00001.png").read_bytes()
    for number in range(IMAGES + 1, 5001):
        for kind, copied in (("images", content), ("labels", labels)):
            path = root / f"GTA5/{kind}/{number:05d}.png"
            path.write_bytes(copied)
            os.utime(path, ns=(10**18, 10**18))

    def start() -> None:
        data = DataConfig(
            root=str(root),
            source=DomainConfig(datasets=("gta5",)),
            target=DomainConfig(datasets=("cityscapes",)),
        )
        found = open_training_data(data, seed=0, evaluated="cityscapes")
        scored = open_labeled_split(
            root, "cityscapes", "val", label_space=CITYSCAPES, files=found.files
        )
        read = [*found.dataset.source, *found.dataset.target, *scored]
        assert len(read) == 5005
        kind_remarks(read, found.files)
        copy_remarks(found.dataset.source, found.dataset.target, scored, found.files)
        used_files(found.dataset, [], found.files)
        found.files.finish()

    start()
    assert len(opened) > 10_000
    opened.clear()
    start()
    assert not [name for name in opened if "/images/" in name or "/leftImg8bit/" in name]
    assert len(opened) == 16 + 1 + 1


def test_a_second_start_opens_no_image_of_ones_own_data(
    tmp_path: Path, opened: list[str], cache: Path
) -> None:
    """Some of more than 8 bits, whose range is that of all: it is known until one changes."""
    for number in range(4):
        path = tmp_path / f"images/train/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.full((8, 16), 1000 * number + 5)
        Image.fromarray(values.astype(np.uint16 if number else np.uint8)).save(path)
        settle(path)
    (tmp_path / "own.toml").write_text(
        'name = "own"\nimages = "images/{split}/*.png"\nsplits = ["train"]\n'
        'classes_of = "cityscapes"\n'
    )

    def found() -> object:
        known_range.cache_clear()
        opened.clear()
        samples = list_dataset(Path(), str(tmp_path / "own.toml"), "train", labeled=False)
        return samples[0].image_range

    assert found() == (0.0, 4095.0)
    assert opened
    assert found() == (0.0, 4095.0)
    assert opened == []
    Image.fromarray(np.full((8, 16), 60_000, np.uint16)).save(path)
    settle(path, days=2)
    assert found() == (0.0, 65535.0)
    assert opened == [str(path)]
    (cache.parent / "ranges.json").write_text("damaged")
    assert found() == (0.0, 65535.0)
    assert len(opened) == 4


def test_a_file_that_has_changed_is_read_again(root: Path, opened: list[str]) -> None:
    check(root)
    path = root / "GTA5/labels/00007.png"
    write_png(path, raw_labels(0, (9, 16)))
    settle(path, days=2)
    opened.clear()
    with pytest.raises(InputError, match=r"labels/00007\.png is of another size than its image"):
        check(root)
    assert opened == [str(path)]


def test_another_file_under_an_old_name_is_read_again(root: Path, opened: list[str]) -> None:
    """Equal in length and time, as after `cp -p`."""
    path = root / "GTA5/images/00007.png"
    check(root)
    before, content = path.stat(), path.read_bytes()
    path.rename(root / "old")
    path.write_bytes(content)
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    opened.clear()
    check(root)
    assert opened == [str(path)]


def test_a_file_that_was_just_written_is_not_remembered(root: Path, opened: list[str]) -> None:
    path = write_png(root / "GTA5/images/00003.png", noise(5))
    check(root)
    opened.clear()
    check(root)
    assert opened == [str(path)]


def test_what_cannot_be_read_is_not_remembered(root: Path) -> None:
    path = root / "GTA5/images/00003.png"
    content = path.read_bytes()
    path.write_bytes(b"not a picture")
    settle(path)
    for _ in range(2):
        with pytest.raises(InputError, match=r"00003\.png cannot be decoded"):
            check(root)
    path.write_bytes(content)
    check(root)


@pytest.mark.parametrize("content", ["", "{", '{"format": "uda-files-1", "files": {"a": 1}}'])
def test_a_damaged_cache_costs_time_only(
    root: Path, cache: Path, opened: list[str], content: str
) -> None:
    check(root)
    cache.write_text(content)
    opened.clear()
    check(root)
    assert len(opened) == 2 * IMAGES


def test_without_a_folder_to_write_nothing_is_said(
    root: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.parent.write_text("no folder")
    check(root)
    check(root)
    assert capsys.readouterr() == ("", "")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("UDA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/uda"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home/.cache/uda"
