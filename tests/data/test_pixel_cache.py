"""The cache of decoded pixels: the same bits as without it, whatever happens to its files."""

import errno
import os
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from factories import Bytes, noise, raw_labels, write_png
from tiny_runs import CPU, assert_same, batch_tensors, interrupt, tiny_preset, write_pseudo_labels
from uda.data.config import DataConfig, DomainConfig, SecondViewConfig
from uda.data.pixel_cache import PixelCache, held_picture
from uda.data.samples import Sample
from uda.data.sampling import TrainingDataset, batches
from uda.data.training import open_training_data
from uda.data.transforms import CroppedSample, load_cropped
from uda.labels.spaces import CITYSCAPES
from uda.training.loop import train
from uda.utilities.errors import InputError

LONG_AGO = 1_700_000_000  # s: no file that was written just now is kept
_opened: list[Path] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str | os.PathLike):
        _opened.append(Path(arguments[0]))


sys.addaudithook(_audit)  # cannot be taken away again; idle while nobody watches


@pytest.fixture(autouse=True)
def _a_disk_with_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is free where the tests run."""
    monkeypatch.setattr("uda.data.pixel_cache._FREE", 0)


def settle(folder: Path) -> None:
    for path in folder.rglob("*.*"):
        os.utime(path, (LONG_AGO, LONG_AGO))


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    image = write_png(tmp_path / "data/a.png", noise(0, (64, 96)))
    labels = write_png(tmp_path / "data/labels.png", raw_labels(1, (64, 96)))
    settle(tmp_path / "data")
    return Sample("drawn", "a", image, labels)


def crops(sample: Sample, domain: DomainConfig, cache: PixelCache | None) -> list[CroppedSample]:
    return [
        load_cropped(
            sample, domain, crop=domain.crop or (16, 24), label_space=CITYSCAPES,
            pseudo_labels=None, rng=np.random.default_rng(seed), cache=cache,
        )
        for seed in range(6)
    ]  # fmt: skip


def assert_same_crops(ours: list[CroppedSample], theirs: list[CroppedSample]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        for left, right in zip(one, other, strict=True):
            assert (left is None) == (right is None)
            assert left is None or np.array_equal(left, right)  # type: ignore[arg-type]


OPTIONS: tuple[dict[str, Any], ...] = (
    {"size": (64, 96)},
    {"size": (32, 48)},
    {"size": (32, 48), "scale": (0.5, 0.5)},
    {"size": (32, 48), "interpolation": "bilinear"},
    {"size": (33, 47)},
    {"size": (33, 47), "interpolation": "bilinear_no_antialias"},
    {"size": (48, 36)},
    {"size": (100, 150)},
    {"size": (40, 60), "scale": (0.8, 1.2)},
    {"size": (32, 200), "keep_ratio": True},
    {"size": (8, 200), "keep_ratio": True},
    {"size": (32, 48), "center_crop": True},
    {"size": (32, 48), "mirror": True, "crop_label_values": 20, "crop_max_share": 0.06},
    {"size": (32, 48), "policy": "photometric_distortion"},
    {"size": (32, 48), "policy": "autoaugment"},
    {"size": (32, 48), "ignored_borders": (0.1, 20, 0.2, 3)},
    {"size": (32, 48), "crop": (32, 48)},
)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_bits_of_every_option_of_a_domain(
    sample: Sample, tmp_path: Path, options: dict[str, Any]
) -> None:
    domain = DomainConfig(datasets=("drawn",), **options)
    without = crops(sample, domain, None)
    for _ in range(2):  # empty, and then another process's
        cache = PixelCache(tmp_path / "kept", 1)
        assert_same_crops(crops(sample, domain, cache), without)
    assert len(entries(tmp_path / "kept")) == 2


def kept_as(path: Path, kind: str, picture: Image.Image, **options: object) -> Path:
    picture.save(path.with_suffix(kind), **options)  # type: ignore[arg-type]
    return path.with_suffix(kind)


def test_the_bits_of_every_kind_of_image(sample: Sample, tmp_path: Path) -> None:
    color, exif = Image.fromarray(noise(2, (64, 96))), Image.Exif()
    exif[274] = 6
    deep = Image.fromarray(noise(3, (64, 96))[..., 0].astype(np.uint16) * 16)
    files = [
        kept_as(tmp_path / "gray", ".png", color.convert("L")),
        kept_as(tmp_path / "palette", ".png", color.quantize(9), transparency=3),
        kept_as(tmp_path / "clear", ".png", color.convert("RGBA")),
        kept_as(tmp_path / "deep", ".png", deep),
        kept_as(tmp_path / "turned", ".jpg", color, exif=exif),
    ]
    settle(tmp_path)
    domain = DomainConfig(datasets=("drawn",), size=(32, 32))
    for path in files:
        for upright in (False, True):
            image = Sample("drawn", "a", path, None, upright=upright, image_range=(0.0, 4095.0))
            without = crops(image, domain, None)
            for _ in range(2):
                cache = PixelCache(tmp_path / "kept", 1)
                assert_same_crops(crops(image, domain, cache), without)
    assert len(entries(tmp_path / "kept")) == 2 * len(files)


def test_labels_are_kept_by_how_they_are_read(sample: Sample, tmp_path: Path) -> None:
    """One file, two label spaces: value 7 is raw id 7 in one, and raw id 8 in the other."""
    assert sample.labels is not None
    write_png(sample.labels, np.full((64, 96), 7, np.uint8))
    settle(sample.labels.parent)
    other = replace(
        CITYSCAPES,
        raw_values=tuple(
            (raw, 15 - raw if raw in (7, 8) else raw) for raw in sorted(CITYSCAPES.raw_to_train)
        ),
    )
    cache = PixelCache(tmp_path / "kept", 1)
    domain = DomainConfig(datasets=("drawn",), size=(64, 96))
    for _ in range(2):
        for space, raw in ((None, 7), (other, 8)):
            labels = crops(sample._replace(space=space), domain, cache)[0].labels
            assert labels is not None
            assert np.unique(labels).tolist() == [CITYSCAPES.raw_to_train[raw]]


def test_labels_of_another_size_are_refused_as_without_it(sample: Sample, tmp_path: Path) -> None:
    assert sample.labels is not None
    write_png(sample.labels, raw_labels(1, (64, 95)))
    settle(sample.labels.parent)
    cache = PixelCache(tmp_path / "kept", 1)
    for _ in range(2):
        with pytest.raises(InputError, match=r"labels are 95x64, the image is 96x64"):
            crops(sample, DomainConfig(datasets=("drawn",), size=(64, 96)), cache)


def picture(path: Path) -> tuple[Image.Image, tuple[int, int]]:
    with Image.open(path) as image:
        image.load()
    return image, (image.height, image.width)


def held(cache: PixelCache, path: Path, rows: int | None = None) -> Bytes:
    return np.asarray(held_picture(cache, path, [], lambda: picture(path)).picture(rows))


def test_a_damaged_entry_is_made_anew(tmp_path: Path) -> None:
    path, folder = write_png(tmp_path / "data/a.png", noise(0, (6, 5))), tmp_path / "kept"
    settle(tmp_path / "data")
    expected = held(PixelCache(folder, 1), path)
    (entry,) = entries(folder)
    whole = entry.read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        for damaged in (bytes(flipped), whole[:place], whole + whole[: place + 1]):
            entry.write_bytes(damaged)
            assert np.array_equal(held(PixelCache(folder, 1), path), expected)
            assert entry.read_bytes() == whole
    entry.unlink()
    entry.mkdir()  # whatever it is
    assert np.array_equal(held(PixelCache(folder, 1), path), expected)


@pytest.mark.parametrize(
    "sizes", [(6, 5, 0, 5, 3), (6, 5, 2**16, 2**16, 3), (6, 5, 6, 5, 0), (6, 5, 6, 5, 4)], ids=str
)
def test_a_header_with_its_checksum_is_not_believed_either(
    tmp_path: Path, sizes: tuple[int, ...]
) -> None:
    path, folder = write_png(tmp_path / "data/a.png", noise(0, (6, 5))), tmp_path / "kept"
    settle(tmp_path / "data")
    expected = held(PixelCache(folder, 1), path)
    (entry,) = entries(folder)
    whole, length = entry.read_bytes(), sizes[2] * sizes[3] * sizes[4]
    head = struct.pack("<12s6I", b"uda-pixels-1", *sizes, zlib.crc32(b"\0" * min(length, 99)))
    with entry.open("wb") as file:
        file.write(head + struct.pack("<I", zlib.crc32(head)))
        file.truncate(file.tell() + length)
    assert np.array_equal(held(PixelCache(folder, 1), path), expected)
    assert entry.read_bytes() == whole


def test_an_entry_that_goes_while_it_is_read(tmp_path: Path) -> None:
    path, folder = write_png(tmp_path / "data/a.png", noise(0, (6, 5))), tmp_path / "kept"
    settle(tmp_path / "data")
    cache = PixelCache(folder, 1)
    expected = held(cache, path)
    found = held_picture(cache, path, [], lambda: picture(path))
    entries(folder)[0].write_bytes(b"")
    assert np.array_equal(np.asarray(found.picture(3)), expected)


def test_a_changed_file_is_decoded_again(tmp_path: Path) -> None:
    path, cache = tmp_path / "data/a.png", PixelCache(tmp_path / "kept", 1)
    for number in range(3):
        write_png(path, noise(number))
        os.utime(path, (LONG_AGO + number, LONG_AGO + number))
        for _ in range(2):
            assert np.array_equal(held(cache, path), noise(number))
    write_png(path, noise(9))  # it may change again within the same tick of the clock
    assert np.array_equal(held(cache, path), noise(9))
    assert len(entries(tmp_path / "kept")) == 3
    path.unlink()
    with pytest.raises(InputError, match=r"a\.png does not exist"):
        held(cache, path)


def test_only_the_rows_asked_for_are_read(tmp_path: Path) -> None:
    path, cache = write_png(tmp_path / "data/a.png", noise(0)), PixelCache(tmp_path / "kept", 1)
    settle(tmp_path / "data")
    held(cache, path)
    for rows in (1, 3, 8, 100):
        assert np.array_equal(held(cache, path, rows), noise(0)[:rows])


def entry_bytes(tmp_path: Path) -> int:
    path = write_png(tmp_path / "one/a.png", noise(0))
    settle(tmp_path / "one")
    held(PixelCache(tmp_path / "measured", 1), path)
    return entries(tmp_path / "measured")[0].stat().st_size


def test_a_full_cache_takes_no_more_and_says_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size, folder = entry_bytes(tmp_path), tmp_path / "kept"
    paths = [write_png(tmp_path / f"data/{number}.png", noise(number)) for number in range(6)]
    settle(tmp_path / "data")
    cache = PixelCache(folder, (3 * size + size // 2) / 2**30)
    for _ in range(2):
        for number, path in enumerate(paths):
            assert np.array_equal(held(cache, path), noise(number))
    first = entries(folder)
    assert len(first) == 3
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "data.cache_gib" in errors

    old = time.time() - 8 * 24 * 60 * 60  # not used for more than a week
    for number, entry in enumerate(first):
        os.utime(entry, (old + number, old + number))
    (folder / "mine.txt").write_text("not an entry")
    other = PixelCache(folder, (3 * size + size // 2) / 2**30)
    held(other, paths[5])
    assert [entry in entries(folder) for entry in first] == [False, True, True]
    assert len(entries(folder)) == 4


def test_use_is_noted(tmp_path: Path) -> None:
    path, folder = write_png(tmp_path / "data/a.png", noise(0)), tmp_path / "kept"
    settle(tmp_path / "data")
    held(PixelCache(folder, 1), path)
    os.utime(entries(folder)[0], (LONG_AGO, LONG_AGO))
    held(PixelCache(folder, 1), path)
    assert entries(folder)[0].stat().st_mtime > time.time() - 60


@pytest.mark.parametrize("what", ["write", "replace", "free"])
def test_a_full_disk_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    paths = [write_png(tmp_path / f"data/{number}.png", noise(number)) for number in range(3)]
    settle(tmp_path / "data")
    cache = PixelCache(tmp_path / "kept", 1)
    if what == "free":
        monkeypatch.setattr("uda.data.pixel_cache._FREE", 2**60)
    elif what == "replace":
        monkeypatch.setattr(Path, "replace", full)
    else:
        monkeypatch.setattr("uda.data.pixel_cache.beginning", full)
    for _ in range(2):
        for number, path in enumerate(paths):
            assert np.array_equal(held(cache, path), noise(number))
    assert entries(tmp_path / "kept") == []
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"data\.cache is .*file, which cannot be written"):
        PixelCache(tmp_path / "file", 1)


@pytest.mark.parametrize("gib", [0.0, -1.0, float("inf"), float("nan")])
def test_its_bound_is_checked(gib: float) -> None:
    source = DomainConfig(datasets=("gta5",))
    with pytest.raises(InputError, match=r"data\.cache_gib is .*; allowed: GiB, above 0"):
        DataConfig(source=source, cache="kept", cache_gib=gib).check("data")


@pytest.fixture
def city(toy_root: Path, tmp_path: Path) -> Path:
    """The toy city, with files that were written long ago."""
    root = tmp_path / "city"
    for path in toy_root.rglob("*.png"):
        copy = root / path.relative_to(toy_root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    settle(root)
    return root


def dataset(
    root: Path, cache: Path | None, *, labeled: bool = False, pseudo_labels: Path | None = None
) -> TrainingDataset:
    data = DataConfig(
        root=str(root),
        source=DomainConfig(datasets=("gta5",), size=(48, 96), scale=(0.8, 1.2), mirror=True),
        target=DomainConfig(datasets=("cityscapes",), size=(32, 64)),
        second_target_view=SecondViewConfig(policy="photometric_distortion"),
        target_ground_truth=labeled,
        pseudo_labels=None if pseudo_labels is None else str(pseudo_labels),
        crop=(24, 48),
        cache="" if cache is None else str(cache),
    )
    return open_training_data(data, seed=0, evaluated="cityscapes").dataset


def stream(data: TrainingDataset, workers: int = 0) -> list[dict[str, torch.Tensor]]:
    found = batches(data, batch_size=3, first_step=0, steps=5, workers=workers)
    return [batch_tensors(batch) for batch in found]


@pytest.fixture
def watched() -> Iterator[list[Path]]:
    global _opened
    _opened = []
    yield _opened
    _opened = None


def test_batches_are_the_same_and_no_image_is_opened_again(
    city: Path, tmp_path: Path, watched: list[Path]
) -> None:
    without = stream(dataset(city, None))
    kept = dataset(city, tmp_path / "kept")
    assert_same(stream(kept), without)
    assert len(entries(tmp_path / "kept")) == 18  # 6 images of each domain, 6 label files
    watched.clear()
    assert_same(stream(kept), without)
    assert not [path for path in watched if path.suffix == ".png"]
    assert any(tmp_path / "kept" in path.parents for path in watched)
    assert_same(stream(dataset(city, tmp_path / "kept")), without)


def test_pseudo_labels_are_kept_by_how_they_are_read(
    city: Path, tmp_path: Path, watched: list[Path]
) -> None:
    write_pseudo_labels(tmp_path / "labels", city)
    settle(tmp_path / "labels")
    without = stream(dataset(city, None, pseudo_labels=tmp_path / "labels"))
    kept = dataset(city, tmp_path / "kept", pseudo_labels=tmp_path / "labels")
    for _ in range(2):
        watched.clear()
        assert_same(stream(kept), without)
    assert not [path for path in watched if path.suffix == ".png"]
    assert len(entries(tmp_path / "kept")) == 24
    (stem,) = kept.pseudo_labels.manifest.images[:1]  # type: ignore[union-attr]
    with pytest.raises(InputError, match="the image is 128x65"):
        kept.pseudo_labels.read(stem, (65, 128), kept.cache)  # type: ignore[union-attr]


def test_loader_processes_share_it(city: Path, tmp_path: Path) -> None:
    found = stream(dataset(city, tmp_path / "kept"), 2)
    assert_same(found, stream(dataset(city, None), 0))
    assert len(entries(tmp_path / "kept")) == 18
    assert not list((tmp_path / "kept").rglob("*.partial"))


def test_labels_of_the_target_that_others_have_kept_are_not_read(
    city: Path, tmp_path: Path, watched: list[Path]
) -> None:
    """Promise 1: a run without them opens the same files whether or not they are in the cache."""

    def opened(data: TrainingDataset) -> set[Path]:
        watched.clear()
        for batch in batches(data, batch_size=3, first_step=0, steps=4, workers=0):
            assert batch.target_ground_truth is None
        return {path for path in watched if tmp_path / "kept" in path.parents}

    for k in range(12):
        dataset(city, tmp_path / "kept")[k]
    without = opened(dataset(city, tmp_path / "kept"))
    supervised = dataset(city, tmp_path / "kept", labeled=True)
    for k in range(12):
        supervised[k]
    assert len(entries(tmp_path / "kept")) == 24
    assert opened(dataset(city, tmp_path / "kept")) == without
    assert len(without) == 18


def test_a_run_may_continue_with_another_cache(city: Path, tmp_path: Path) -> None:
    experiment = tiny_preset("toy_class_mix", city, steps=4)
    whole = train(experiment, tmp_path / "whole", preset="tiny", device=CPU)
    experiment.data.cache, experiment.train.resume_every = str(tmp_path / "kept"), 1
    interrupt(experiment, tmp_path / "run", at=2)
    experiment.data.cache = str(tmp_path / "other")
    resumed = train(experiment, tmp_path / "run", preset="tiny", device=CPU, resume=True)
    assert np.array_equal(resumed.confusion, whole.confusion)
    assert entries(tmp_path / "kept")
    assert entries(tmp_path / "other")
