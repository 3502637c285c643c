"""Data sets as they lie on disk: what is listed, in which order, and what is refused."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factories import (
    CITYSCAPES_STEMS,
    SIZE,
    cityscapes_image,
    cityscapes_labels,
    noise,
    raw_labels,
    write_cityscapes,
    write_gta5,
    write_png,
)
from uda.data.config import DataConfig, DomainConfig
from uda.data.files import image_size, read_image
from uda.data.known_files import KnownFiles
from uda.data.label_files import read_raw_labels, read_train_ids
from uda.data.registry import check_sizes, data_root, list_dataset, list_domain
from uda.data.samples import Sample, evenly_spaced
from uda.data.training import TrainingData, open_labeled_split, open_training_data
from uda.labels.spaces import CITYSCAPES
from uda.utilities.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_gta5(tmp_path)
    write_gta5(tmp_path, 2, folder="CycleGTA5")
    write_cityscapes(tmp_path)
    return tmp_path


def listed(root: Path, *, labeled: bool = False, exclude: tuple[str, ...] = (),
           **domain: object) -> list[Sample]:  # fmt: skip
    data = DataConfig(root=str(root), source=DomainConfig(datasets=()), exclude=exclude)
    return list_domain(data, DomainConfig(**domain), labeled=labeled)  # type: ignore[arg-type]


def names(samples: list[Sample]) -> list[str]:
    return [sample.name for sample in samples]


def opened(
    root: Path, *, source: str = "gta5", target: bool = True, exclude: tuple[str, ...] = ()
) -> TrainingData:
    data = DataConfig(
        root=str(root),
        source=DomainConfig(datasets=(source,)),
        target=DomainConfig(datasets=("cityscapes",)) if target else None,
        exclude=exclude,
    )
    return open_training_data(data, seed=0, evaluated="cityscapes")


@pytest.mark.parametrize(("name", "folder", "count"), [("gta5", "GTA5", 4),
                                                       ("cyclegta5", "CycleGTA5", 2)])  # fmt: skip
def test_gta5_is_listed_in_order_with_its_labels(
    root: Path, name: str, folder: str, count: int
) -> None:
    stems = [f"{index:05d}" for index in range(1, count + 1)]
    assert list_dataset(root, name, "train", labeled=True) == [
        Sample(
            name, stem,
            root / folder / "images" / f"{stem}.png",
            root / folder / "labels" / f"{stem}.png",
            translated=name == "cyclegta5",
            space=CITYSCAPES,
        )
        for stem in stems
    ]  # fmt: skip


def test_cityscapes_is_listed_in_order_with_its_labels(root: Path) -> None:
    assert list_dataset(root, "cityscapes", "train", labeled=True) == [
        Sample(
            "cityscapes", stem, cityscapes_image(root, stem), cityscapes_labels(root, stem),
            space=CITYSCAPES,
        )
        for stem in CITYSCAPES_STEMS
    ]  # fmt: skip


def test_other_files_are_not_samples(root: Path) -> None:
    stem = CITYSCAPES_STEMS[0]
    (root / "GTA5" / "images" / "readme.txt").write_text("x")
    (root / "Cityscapes" / "leftImg8bit" / "train" / "index.html").write_text("x")
    cityscapes_image(root, stem).with_name("aachen_camera.json").write_text("{}")
    instances = cityscapes_labels(root, stem).with_name(f"{stem}_gtFine_instanceIds.png")
    shutil.copy(cityscapes_labels(root, stem), instances)
    assert len(list_dataset(root, "gta5", "train", labeled=True)) == 4
    assert len(list_dataset(root, "cityscapes", "train", labeled=True)) == 4


def test_splits_are_apart(root: Path) -> None:
    write_cityscapes(root, split="val", stems=("munster_000000_000019",))
    write_cityscapes(root, split="train_extra", labeled=False, stems=("bonn_000000_000019",))
    assert names(listed(root, datasets=("cityscapes",), splits=("val",))) == [
        "cityscapes/munster_000000_000019"
    ]
    assert names(listed(root, datasets=("cityscapes",), splits=("train_extra", "train"))) == [
        "cityscapes/bonn_000000_000019",
        *(f"cityscapes/{stem}" for stem in CITYSCAPES_STEMS),
    ]


def test_data_sets_are_joined_in_the_order_they_are_named(root: Path) -> None:
    gta5 = [f"gta5/{index:05d}" for index in range(1, 5)]
    cyclegta5 = [f"cyclegta5/{index:05d}" for index in range(1, 3)]
    assert names(listed(root, datasets=("gta5", "cyclegta5"))) == gta5 + cyclegta5
    assert names(listed(root, datasets=("cyclegta5", "gta5"))) == cyclegta5 + gta5


@pytest.mark.parametrize("first", [1, 3, 4])
def test_the_first_n_are_a_prefix(root: Path, first: int) -> None:
    everything = listed(root, datasets=("cityscapes",))
    assert listed(root, datasets=("cityscapes",), first=first) == everything[:first]


def test_more_than_there_are_is_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"first 7 of gta5\+cyclegta5: there are only 6 images"):
        listed(root, datasets=("gta5", "cyclegta5"), first=7)


def test_excluded_names_are_left_out_before_the_first_n_are_taken(root: Path) -> None:
    found = listed(root, datasets=("gta5", "cyclegta5"), exclude=("gta5/00002",), first=4)
    assert names(found) == ["gta5/00001", "gta5/00003", "gta5/00004", "cyclegta5/00001"]


def test_a_set_without_images_is_refused(root: Path) -> None:
    everything = tuple(names(listed(root, datasets=("cyclegta5",))))
    with pytest.raises(InputError, match="no images are left of datasets"):
        listed(root, datasets=("cyclegta5",), exclude=everything)
    with pytest.raises(InputError, match="name at least one of each"):
        listed(root, datasets=())
    with pytest.raises(InputError, match="name at least one of each"):
        listed(root, datasets=("gta5",), splits=())


def test_a_set_named_twice_is_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"gta5/00001 is listed 2 times .* name each once"):
        listed(root, datasets=("gta5", "gta5"))
    with pytest.raises(InputError, match="is listed 2 times"):
        listed(root, datasets=("cityscapes",), splits=("train", "train"))


def test_excluding_what_is_not_there_is_refused(root: Path) -> None:
    good = opened(root, exclude=("gta5/00001", f"cityscapes/{CITYSCAPES_STEMS[0]}"))
    assert len(good.dataset.source) == len(good.dataset.target) == 3
    with pytest.raises(InputError, match="names 'gta5/1', which is not a sample of this preset"):
        opened(root, exclude=("gta5/1",))


def forbid_label_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def guarded(folder: Path) -> object:
        assert "gtFine" not in Path(folder).parts, "a label folder of the target was opened"
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)


def remove(labels: Path) -> None:
    shutil.rmtree(labels)


def replace_by_a_file(labels: Path) -> None:
    shutil.rmtree(labels)
    labels.write_text("not a folder")


def replace_by_a_loop(labels: Path) -> None:
    shutil.rmtree(labels)
    labels.symlink_to(labels)


@pytest.mark.parametrize("spoil", [remove, replace_by_a_file, replace_by_a_loop])
def test_an_unlabeled_listing_never_touches_label_folders(
    root: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    before = opened(root).dataset.target
    spoil(root / "Cityscapes" / "gtFine")
    forbid_label_folders(monkeypatch)
    target = opened(root).dataset.target
    assert target == before
    assert all(sample.labels is None for sample in target)


def test_gta5_can_be_a_target_without_labels(root: Path) -> None:
    shutil.rmtree(root / "GTA5" / "labels")
    found = list_dataset(root, "gta5", "train", labeled=False)
    assert [sample.labels for sample in found] == [None] * 4


def test_supervision_says_what_is_known_of_the_target(root: Path) -> None:
    assert opened(root).supervision == "none"
    assert opened(root).short_name == "GTA5"
    oracle = opened(root, source="cityscapes", target=False)
    assert oracle.supervision == "ground truth (4 images)"
    assert oracle.short_name == "CITYS"


def test_the_data_root_comes_from_the_preset_or_the_environment(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UDA_DATA", str(root))
    assert data_root("") == root
    assert data_root(str(root / "GTA5")) == root / "GTA5"
    monkeypatch.delenv("UDA_DATA")
    with pytest.raises(InputError, match="give --data-root DIR or set UDA_DATA; DIR holds GTA5/"):
        data_root("")


def test_a_missing_root_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with pytest.raises(InputError) as refusal:
        listed(missing, datasets=("gta5",))
    assert str(refusal.value) == (
        f"data root {missing} does not exist: give --data-root DIR; DIR holds GTA5/, Cityscapes/ "
        "and others (python scripts/get_ready.py says which; scripts/make_toy_city.py makes a "
        "small one)"
    )


GTA5_LAYOUT = "images/*.png and labels/*.png (as the downloads unpack)"
CITYSCAPES_LAYOUT = "leftImg8bit/{split}/*/*_leftImg8bit.png and gtFine/{split}/*/*_gtFine_labelI"


@pytest.mark.parametrize(
    ("folder", "name", "expected"),
    [
        ("GTA5", "gta5", GTA5_LAYOUT),
        ("GTA5/images", "gta5", GTA5_LAYOUT),
        ("GTA5/labels", "gta5", GTA5_LAYOUT),
        ("CycleGTA5", "cyclegta5", "images/*.png or images/*.jpg and labels/*.png"),
        ("Cityscapes", "cityscapes", CITYSCAPES_LAYOUT),
        ("Cityscapes/leftImg8bit/train", "cityscapes", CITYSCAPES_LAYOUT),
        ("Cityscapes/gtFine/train", "cityscapes", CITYSCAPES_LAYOUT),
    ],
)
def test_a_missing_folder_is_named_with_the_layout(
    root: Path, folder: str, name: str, expected: str
) -> None:
    shutil.rmtree(root / folder)
    with pytest.raises(InputError) as refusal:
        list_dataset(root, name, "train", labeled=True)
    assert f"{root / folder} does not exist; expected" in str(refusal.value)
    assert expected in str(refusal.value)


def test_empty_folders_are_refused_with_the_layout(root: Path) -> None:
    for folder in (root / "GTA5" / "images", root / "Cityscapes" / "leftImg8bit" / "train"):
        shutil.rmtree(folder)
        folder.mkdir()
    with pytest.raises(InputError, match="GTA5: no images of split 'train'; expected images/"):
        list_dataset(root, "gta5", "train", labeled=True)
    with pytest.raises(InputError, match="no images of split 'train'; expected leftImg8bit/"):
        list_dataset(root, "cityscapes", "train", labeled=True)


def test_unknown_names_are_refused(root: Path) -> None:
    with pytest.raises(InputError, match="no data set 'cityscape'; did you mean \"cityscapes\""):
        list_dataset(root, "cityscape", "train", labeled=True)
    with pytest.raises(InputError, match="gta5 has no split 'val'; it has train"):
        list_dataset(root, "gta5", "val", labeled=True)
    with pytest.raises(InputError, match="it has train, train_extra, val, test"):
        list_dataset(root, "cityscapes", "trian", labeled=True)


def test_an_image_without_labels_is_refused(root: Path) -> None:
    (root / "GTA5" / "labels" / "00002.png").unlink()
    (root / "GTA5" / "labels" / "00004.png").unlink()
    with pytest.raises(InputError, match=r"2 of 4 images have no label, .* images/00002\.png; "
                       r"expected labels/00002\.png"):  # fmt: skip
        list_dataset(root, "gta5", "train", labeled=True)
    assert len(list_dataset(root, "gta5", "train", labeled=False)) == 4
    labels = cityscapes_labels(root, CITYSCAPES_STEMS[1])
    labels.unlink()
    with pytest.raises(InputError) as refusal:
        list_dataset(root, "cityscapes", "train", labeled=True)
    city = root / "Cityscapes"
    image = cityscapes_image(root, CITYSCAPES_STEMS[1]).relative_to(city)
    assert f"{city}: 1 of 4 images have no label, the first is {image}" in str(refusal.value)
    assert f"expected {labels.relative_to(city)}" in str(refusal.value)
    shutil.rmtree(labels.parent)
    with pytest.raises(InputError, match="2 of 4 images have no label"):
        list_dataset(root, "cityscapes", "train", labeled=True)


def test_labels_of_another_size_are_found_at_the_start(root: Path) -> None:
    for index in (2, 3):
        write_png(root / "GTA5" / "labels" / f"{index:05d}.png", raw_labels(0, (9, 16)))
    with pytest.raises(InputError) as refusal:
        opened(root)
    message = str(refusal.value)
    assert f"{root / 'GTA5' / 'labels' / '00002.png'} is of another size than its image" in message
    assert "as are 1 more label files" in message
    assert message.endswith("--set data.exclude=gta5/00002,gta5/00003")
    opened(root, exclude=("gta5/00002", "gta5/00003"))


def test_a_translated_image_may_be_smaller_than_its_labels(root: Path) -> None:
    """GTA5's labels belong to CycleGTA5's scaled images; a label of another shape does not."""
    path = root / "CycleGTA5" / "labels" / "00001.png"
    write_png(path, raw_labels(0, (40, 81)))
    data = opened(root, source="cyclegta5").dataset
    assert data.data.source is not None
    data.data.crop = data.data.source.size = (8, 16)
    data.data.target = None
    sample = data[0]
    assert not isinstance(sample, InputError)
    assert sample.source is not None
    assert sample.source.labels is not None
    assert sample.source.labels.shape == (8, 16)
    write_png(path, raw_labels(0, (40, 90)))
    with pytest.raises(InputError, match="is of another size than its image"):
        opened(root, source="cyclegta5")


def test_labels_of_another_size_are_found_before_scoring(root: Path) -> None:
    write_png(cityscapes_labels(root, CITYSCAPES_STEMS[3]), raw_labels(0, (8, 17)))
    with pytest.raises(InputError, match="is of another size than its image"):
        open_labeled_split(root, "cityscapes", "train", label_space=CITYSCAPES)


def test_a_target_of_other_sizes_is_nobodys_business(root: Path) -> None:
    write_png(cityscapes_labels(root, CITYSCAPES_STEMS[0]), raw_labels(0, (9, 9)))
    opened(root)


def test_a_file_that_is_no_image_is_found_at_the_start(root: Path) -> None:
    odd = root / "GTA5" / "images" / "00003.png"
    odd.write_bytes(b"not a picture")
    with pytest.raises(InputError) as refusal:
        opened(root)
    assert str(refusal.value).startswith(f"{odd} cannot be decoded (")
    good = [sample for sample in listed(root, datasets=("gta5",)) if sample.stem != "00003"]
    check_sizes(good, KnownFiles())


@pytest.mark.parametrize("kept", [0, 4, 40, 200, 300])
def test_a_truncated_file_is_named(tmp_path: Path, kept: int) -> None:
    path = write_png(tmp_path / "image.png", noise(0))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError) as refusal:
        read_image(path)
    message = str(refusal.value)
    assert message.startswith(f"{path} cannot be decoded (")
    assert message.endswith("): replace the file")
    assert "\n" not in message


def test_a_file_with_wrong_bytes_is_named(tmp_path: Path) -> None:
    labels = np.full((64, 64), 7, np.uint8)
    path = write_png(tmp_path / "labels.png", labels)
    content = bytearray(path.read_bytes())
    start = content.index(b"IDAT") + 4
    content[start : start + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be decoded"):
        read_raw_labels(path, (64, 64))


def test_files_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.png does not exist"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(InputError, match=r"missing\.png does not exist"):
        image_size(tmp_path / "missing.png")
    os.mkfifo(tmp_path / "pipe.png")
    for odd in (tmp_path, tmp_path / "pipe.png"):
        with pytest.raises(InputError, match=r"cannot be decoded \(it is a (folder|pipe)"):
            read_image(odd)
        with pytest.raises(InputError, match=r"cannot be decoded \(it is a (folder|pipe)"):
            image_size(odd)


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "image.png").touch()
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(InputError, match=r"image\.png cannot be read: permission denied"):
        read_image(tmp_path / "image.png")


def test_images_come_as_they_are_stored(tmp_path: Path) -> None:
    pixels = noise(3)
    path = write_png(tmp_path / "image.png", pixels)
    assert image_size(path) == SIZE
    assert np.array_equal(np.asarray(read_image(path)), pixels)
    alpha = np.full((*SIZE, 1), 9, np.uint8)
    with_alpha = write_png(tmp_path / "alpha.png", np.concatenate([pixels, alpha], axis=2))
    assert np.array_equal(np.asarray(read_image(with_alpha)), pixels)


def test_the_index_of_a_palette_is_the_label(root: Path) -> None:
    path = root / "GTA5" / "labels" / "00003.png"
    with Image.open(path) as stored:
        assert stored.mode == "P"
    assert np.array_equal(np.asarray(read_raw_labels(path, SIZE)), raw_labels(3))
    expected = CITYSCAPES.to_train_ids(raw_labels(3), "expected")
    assert np.array_equal(read_train_ids(path, SIZE, CITYSCAPES), expected)


def test_labels_in_color_or_of_another_size_are_refused(tmp_path: Path) -> None:
    colored = write_png(tmp_path / "color.png", noise(0))
    with pytest.raises(InputError, match=r"color\.png: mode RGB cannot hold label ids"):
        read_raw_labels(colored, SIZE)
    gray = write_png(tmp_path / "gray.png", raw_labels(0))
    with pytest.raises(InputError, match=r"labels are 16x8, the image is 16x9; replace the file"):
        read_raw_labels(gray, (9, 16))


def test_label_values_outside_the_space_name_the_file(tmp_path: Path) -> None:
    labels = raw_labels(0)
    labels[2, 3] = 255
    path = write_png(tmp_path / "labels.png", labels)
    with pytest.raises(InputError, match=r"labels\.png: label values 255 are outside"):
        read_train_ids(path, SIZE, CITYSCAPES)


def test_evenly_spaced_samples() -> None:
    items = [Sample("toy", str(i), Path(), None) for i in range(10)]
    assert [s.stem for s in evenly_spaced(items, 2)] == ["0", "9"]
    assert [s.stem for s in evenly_spaced(items, 4)] == ["0", "3", "6", "9"]
    assert evenly_spaced(items, 10) == evenly_spaced(items, 99) == items
    assert evenly_spaced(items, 0) == evenly_spaced([], 5) == []
