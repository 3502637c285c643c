"""Data sets of street scenes: releases, parts, scenes in common, and files of other kinds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from factories import Bytes, write_cityscapes
from street_sets import ORIGINALS, SIZE, name_of, write_gray
from uda.data.known_files import KnownFiles
from uda.data.label_files import read_train_ids
from uda.data.overlap import refuse_overlap
from uda.data.registry import LAYOUTS, list_dataset
from uda.data.samples import Sample
from uda.utilities.errors import InputError


def listed(root: Path, form: str, split: str, *, labeled: bool = True) -> list[Sample]:
    return list_dataset(root, name_of(form), split, labeled=labeled)


def read_sample(sample: Sample) -> Bytes:
    assert sample.labels is not None
    assert sample.space is not None
    return read_train_ids(sample.labels, SIZE, sample.space)


# --- releases and neighbors


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ("bdd100k", "bdd100k/2018", r"images/10k/train and .*seg/images/train: move one"),
        ("mapillary", "mapillary/2.0", r"training/labels and .*training/v1\.2/labels: move one"),
    ],
)
def test_two_releases_in_one_folder_are_said(
    tmp_path: Path, one: str, other: str, found: str
) -> None:
    ORIGINALS[one].write_to(tmp_path)
    ORIGINALS[other].write_to(tmp_path)
    with pytest.raises(InputError, match=f"two forms of {one}, .*{found}"):
        listed(tmp_path, one, "train")


def test_two_releases_of_labels_do_not_matter_to_a_target(tmp_path: Path) -> None:
    for form in ("mapillary", "mapillary/2.0"):
        ORIGINALS[form].write_to(tmp_path)
    assert len(listed(tmp_path, "mapillary", "train", labeled=False)) == 2


def test_a_link_to_the_same_folder_is_no_other_release(tmp_path: Path) -> None:
    ORIGINALS["synthia"].write_to(tmp_path)
    (tmp_path / "RAND_CITYSCAPES/GT/labels").symlink_to("LABELS")
    assert len(listed(tmp_path, "synthia", "train")) == 2


def test_what_is_missing_names_all_releases(tmp_path: Path) -> None:
    (tmp_path / "bdd100k").mkdir()
    with pytest.raises(InputError, match=r"images/10k/train does not exist; .*, or seg/images/"):
        listed(tmp_path, "bdd100k", "train")


def test_the_conditions_are_parts_of_the_whole(tmp_path: Path) -> None:
    conditions = ("fog", "night", "rain", "snow")
    for place, condition in enumerate(conditions):
        form = replace(ORIGINALS[f"acdc_{condition}"], stems=(f"GOPR0475_frame_{place}",))
        form.write_to(tmp_path)
        assert len(listed(tmp_path, f"acdc_{condition}", "train")) == 1
    stems = [sample.stem for sample in listed(tmp_path, "acdc", "train")]
    assert [stem[-1] for stem in stems] == ["0", "1", "2", "3"]


def test_references_are_splits_without_labels(tmp_path: Path) -> None:
    for path in (
        "ACDC/rgb_anon/fog/train_ref/GOPR0475/GOPR0475_frame_000041_rgb_ref_anon.png",
        "ACDC/rgb_anon/fog/train/GOPR0475/GOPR0475_frame_000041_rgb_anon.png",
        "DarkZurich/rgb_anon/val_ref/day/GOPR0356_ref/GOPR0356_frame_000321_ref_rgb_anon.png",
        "DarkZurich/rgb_anon/train/night/GOPR0351/GOPR0351_frame_000159_rgb_anon.png",
        "DarkZurich/rgb_anon/train/twilight/GOPR0345/GOPR0345_frame_000229_rgb_anon.png",
        "DarkZurich/rgb_anon/train/day/GOPR0345/GOPR0345_frame_000101_rgb_anon.png",
        "DarkZurich/rgb_anon/test/night/GOPR0364/GOPR0364_frame_000001_rgb_anon.png",
        "DarkZurich/rgb_anon/test_ref/day/GOPR0364_ref/GOPR0364_frame_000001_other.png",
    ):
        write_gray(tmp_path / path, np.zeros((*SIZE, 3), np.uint8))
    stems = {
        f"{name} {split}": [sample.stem for sample in listed(tmp_path, name, split, labeled=False)]
        for name, split in [
            ("acdc", "train"), ("acdc", "train_ref"), ("acdc_fog", "train_ref"),
            *(("dark_zurich", split) for split in LAYOUTS["dark_zurich"].splits if split != "val"),
        ]
    }  # fmt: skip
    assert stems == {
        "acdc train": ["GOPR0475_frame_000041"],
        "acdc train_ref": ["GOPR0475_frame_000041_rgb_ref_anon"],
        "acdc_fog train_ref": ["GOPR0475_frame_000041_rgb_ref_anon"],
        "dark_zurich train": ["GOPR0351_frame_000159"],
        "dark_zurich train_twilight": ["GOPR0345_frame_000229"],
        "dark_zurich train_day": ["GOPR0345_frame_000101"],
        "dark_zurich test": ["GOPR0364_frame_000001"],
        "dark_zurich val_ref": ["GOPR0356_frame_000321_ref_rgb_anon"],
        "dark_zurich test_ref": ["GOPR0364_frame_000001_other"],
    }
    with pytest.raises(InputError, match="split train_ref has no labels"):
        listed(tmp_path, "acdc", "train_ref")


# --- Cityscapes and its fog show the same scenes


def test_fog_of_training_scenes_may_be_trained_on_but_not_that_of_scored_ones(
    tmp_path: Path,
) -> None:
    write_cityscapes(tmp_path)  # the same four stems in both
    val = replace(ORIGINALS["foggy_cityscapes_002"], stems=("munster_000000_000019",))
    ORIGINALS["foggy_cityscapes_002"].write_to(tmp_path)
    for split in ("train", "val"):
        replace(val, splits={split: split}).write_to(tmp_path)
    write_cityscapes(tmp_path, split="val", stems=("munster_000000_000019",))
    scored = list_dataset(tmp_path, "cityscapes", "val", labeled=True)
    foggy = {
        split: list_dataset(tmp_path, "foggy_cityscapes_002", split, labeled=False)
        for split in ("train", "val")
    }
    train = [sample for sample in foggy["train"] if sample.stem.startswith("aachen")]
    refuse_overlap(train, scored, KnownFiles())
    with pytest.raises(InputError, match=r"1 images are both .*foggy_cityscapes_002/munster_0000"):
        refuse_overlap(foggy["val"][-1:], scored, KnownFiles())


def test_two_densities_of_a_scene_are_one_scene(tmp_path: Path) -> None:
    for form in ("foggy_cityscapes_001", "foggy_cityscapes_0005"):
        ORIGINALS[form].write_to(tmp_path)
    light = list_dataset(tmp_path, "foggy_cityscapes_0005", "train", labeled=False)
    dense = list_dataset(tmp_path, "foggy_cityscapes_001", "train", labeled=False)
    with pytest.raises(InputError, match="2 images are both trained on and scored"):
        refuse_overlap(light, dense, KnownFiles())
    refuse_overlap(light[:1], dense[1:], KnownFiles())


# --- files that are not the originals


def test_a_copy_of_8_bits_of_synthia_is_refused_by_name(tmp_path: Path) -> None:
    ORIGINALS["synthia"].write_to(tmp_path)
    path = tmp_path / "RAND_CITYSCAPES/GT/LABELS/0000000.png"
    sample = listed(tmp_path, "synthia", "train")[0]
    for picture in (np.full(SIZE, 3, np.uint8), np.full((*SIZE, 3), 3, np.uint8)):
        write_gray(path, picture)
        with pytest.raises(InputError, match=r"0000000\.png: .*8 bits; .*mapped already"):
            read_sample(sample)


@pytest.mark.parametrize("name", ["acdc", "bdd100k", "dark_zurich"])
def test_label_ids_in_the_place_of_train_ids_are_refused(name: str) -> None:
    raw = np.array([[7, 26, 33]], np.uint8)
    with pytest.raises(InputError, match=r"26, 33 are outside .*these are train ids in this data"):
        LAYOUTS[name].label_space.to_train_ids(raw, name)


@pytest.mark.parametrize("name", ["bdd100k", "mapillary"])
def test_colors_are_no_label_files(tmp_path: Path, name: str) -> None:
    colors = np.zeros((*SIZE, 3), np.uint8)
    ORIGINALS[name].write_to(tmp_path)
    sample = listed(tmp_path, name, "val")[0]
    assert sample.labels is not None
    write_gray(sample.labels, colors)
    with pytest.raises(InputError, match="mode RGB cannot hold label ids"):
        read_sample(sample)


def test_train_ids_in_the_place_of_label_ids_are_refused() -> None:
    raw = np.array([[0, 18, 255]], np.uint8)
    for name in ("nightcity", "kitti", "synscapes", "foggy_cityscapes_002", "wilddash"):
        with pytest.raises(InputError, match="255 means the file has train ids already"):
            LAYOUTS[name].label_space.to_train_ids(raw, name)
