"""Every data set of street scenes as it is downloaded: from raw files to train ids and scores."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from factories import Bytes
from street_sets import ORIGINALS, SIZE, name_of, write_deep, write_gray
from uda.data.config import DataConfig, DomainConfig
from uda.data.label_files import read_train_ids
from uda.data.prediction_folder import pair_samples
from uda.data.registry import LAYOUTS, list_dataset, scored_dataset, scored_on
from uda.data.samples import Sample
from uda.data.training import open_labeled_split, open_training_data
from uda.evaluation.folder_scoring import score_pairs
from uda.labels.class_sets import class_set_named
from uda.labels.spaces import LabelSpace
from uda.utilities.errors import InputError

EVERY = pytest.mark.parametrize("form", ORIGINALS)
SAMPLE_STEMS = {  # where a sample is not called as its file
    "idd": "{split}__{stem}",
    "kitti": "{split}__{stem}",
    "urbansyn": "rgb_{stem}",
}


def listed(root: Path, form: str, split: str, *, labeled: bool = True) -> list[Sample]:
    return list_dataset(root, name_of(form), split, labeled=labeled)


def train_ids(sample: Sample) -> Bytes:
    assert sample.labels is not None
    assert sample.space is not None
    return read_train_ids(sample.labels, SIZE, sample.space)


def space_of(name: str) -> LabelSpace:
    return LAYOUTS[name].label_space


@EVERY
def test_from_raw_files_to_train_ids(tmp_path: Path, form: str) -> None:
    original = ORIGINALS[form]
    for split, truth in original.write_to(tmp_path).items():
        samples = listed(tmp_path, form, split)
        name = SAMPLE_STEMS.get(name_of(form), "{stem}")
        stems = [name.format(split=split, stem=stem.replace("/", "__")) for stem in truth]
        assert [sample.stem for sample in samples] == sorted(stems)
        for stem, sample in zip(sorted(truth), samples, strict=True):
            assert np.array_equal(train_ids(sample), truth[stem])
            folder = tmp_path / original.folder
            where = {"split": original.splits[split], "stem": stem}
            assert sample.image == folder / original.image.format(**where)
            assert sample.labels == folder / original.labels.format(**where)


@EVERY
def test_without_labels_no_label_folder_is_needed(tmp_path: Path, form: str) -> None:
    """Promise 1: a target's labels are not looked for."""
    original = ORIGINALS[form]
    original.write_to(tmp_path)
    split = next(iter(original.splits))
    for path in (tmp_path / original.folder).rglob("*"):
        if path.is_file() and "rgb" not in str(path).lower() and path.suffix == ".json":
            path.unlink()
    for labels in ("gt", "GT", "ss", "gtFine", "labels", "label", "seg/labels", "img/class"):
        shutil.rmtree(tmp_path / original.folder / labels, ignore_errors=True)
    samples = listed(tmp_path, form, split, labeled=False)
    assert len(samples) == len(original.stems)
    assert {sample.labels for sample in samples} == {None}


@EVERY
def test_from_raw_files_to_scores(tmp_path: Path, form: str) -> None:
    """Predictions are right but for the road, which is predicted as the second class."""
    name, original = name_of(form), ORIGINALS[form]
    split, truth = list(original.write_to(tmp_path / "data").items())[-1]
    space = space_of(name)
    samples = open_labeled_split(tmp_path / "data", name, split, label_space=space)
    for sample, stem in zip(samples, sorted(truth), strict=True):
        predicted = np.where(truth[stem] == 0, 1, truth[stem]).astype(np.uint8)
        write_gray(tmp_path / "predictions" / f"{sample.stem}.png", predicted)
    pairs, strays = pair_samples(tmp_path / "predictions", samples)
    assert not strays
    scores = score_pairs(pairs, ids="train", space=space, sets=[]).scores
    all_labels = np.stack(list(truth.values()))
    counts = np.bincount(all_labels[all_labels != 255], minlength=original.classes)
    expected = [
        math.nan if train_id in original.absent
        else 0.0 if train_id == 0
        else counts[1] / (counts[0] + counts[1]) if train_id == 1
        else 1.0
        for train_id in range(original.classes)
    ]  # fmt: skip
    assert list(scores.iou) == pytest.approx(expected, nan_ok=True)
    present = [value for value in expected if not math.isnan(value)]
    assert scores.miou == pytest.approx(sum(present) / len(present))


# --- values by hand


def train_ids_of(name: str, raw: list[int]) -> list[int]:
    return space_of(name).to_train_ids(np.array([raw], np.uint8), name)[0].tolist()


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("mapillary", [13, 24, 23, 8, 2, 21, 49, 65], [0, 0, 255, 255, 1, 12, 255, 255]),
        ("idd", [0, 5, 11, 17, 19, 29, 39], [0, 9, 255, 16, 255, 2, 255]),
        ("camvid19", [*range(12)], [10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 12, 255]),
        ("camvid", [*range(12)], [*range(11), 255]),
        ("urbansyn", [0, 18, 19], [0, 18, 255]),
        ("synthia", [3, 21, 15, 0, 22, 8, 13, 14], [0, 3, 6, 255, 255, 13, 255, 255]),
        ("synthia_lanes", [3, 22, 0, 14], [0, 0, 255, 255]),
        ("wilddash", [7, 26, 33, 34, 35], [0, 13, 18, 255, 255]),
        ("acdc", [0, 18, 255], [0, 18, 255]),
        ("nightcity", [7, 33, 0], [0, 18, 255]),
    ],
)
def test_raw_ids_by_hand(name: str, raw: list[int], expected: list[int]) -> None:
    assert train_ids_of(name, raw) == expected


def test_a_pixel_of_synthia(tmp_path: Path) -> None:
    """(8, 976, 0) of 16 bits: class 8 is a car; the upper bytes would be (0, 3, 0)."""
    classes = np.array([[3, 21, 15], [0, 22, 8]])
    picture = np.stack([classes, np.full_like(classes, 976), np.zeros_like(classes)], axis=2)
    space = space_of("synthia")
    found = read_train_ids(write_deep(tmp_path / "labels.png", picture), (2, 3), space)
    assert found.tolist() == [[0, 3, 6], [255, 255, 13]]
    sixteen = class_set_named("miou16_restricted", space=space)
    assert sixteen.positions(torch.from_numpy(found)).tolist() == [[0, 3, 6], [255, 255, 12]]


@pytest.mark.parametrize("original", [16, 18, 20])
def test_ids_that_synthia_never_has_are_refused(original: int) -> None:
    with pytest.raises(InputError, match=f"label values {original} are outside the raw ids of syn"):
        train_ids_of("synthia", [original])


def test_the_stem_of_a_foggy_image(tmp_path: Path) -> None:
    ORIGINALS["foggy_cityscapes_0005"].write_to(tmp_path)
    (sample, _) = listed(tmp_path, "foggy_cityscapes_0005", "train")
    assert sample.image.name == "aachen_000000_000019_leftImg8bit_foggy_beta_0.005.png"
    assert sample.labels is not None
    assert sample.labels.name == "aachen_000000_000019_gtFine_labelIds.png"


# --- one list of classes, many ways to store it


def test_nineteen_classes_are_scored_on_cityscapes_however_they_are_stored() -> None:
    street = [layout for layout in LAYOUTS.values() if layout.label_space.num_classes == 19]
    assert len(street) > 20
    for layout in street:
        space = layout.label_space
        assert scored_dataset(space).name == scored_on(space) == "cityscapes"
        assert class_set_named("miou16_subset", space=space).classes[:3] == (0, 1, 2)
    assert scored_on(space_of("camvid")) == "camvid"
    assert len({layout.name for layout in LAYOUTS.values()}) == len(LAYOUTS)


def test_every_label_space_has_a_name_of_its_own() -> None:
    by_name: dict[str, LabelSpace] = {}
    for layout in LAYOUTS.values():
        assert by_name.setdefault(layout.label_space.name, layout.label_space) == layout.label_space


def test_two_sources_and_a_target_that_store_classes_in_three_ways(tmp_path: Path) -> None:
    for form in ("synthia", "urbansyn", "acdc"):
        ORIGINALS[form].write_to(tmp_path)
    size: dict[str, Any] = {"size": SIZE}
    data = DataConfig(
        root=str(tmp_path),
        source=DomainConfig(datasets=("synthia", "urbansyn"), **size),
        target=DomainConfig(datasets=("acdc",), **size),
        crop=SIZE,
    )
    opened = open_training_data(data, seed=0, evaluated="acdc")
    assert opened.label_space.classes == space_of("cityscapes").classes
    assert opened.supervision == "none"
    assert {sample.labels for sample in opened.dataset.target} == {None}
    seen = set()
    for k in range(4):
        sample = opened.dataset[k]
        assert not isinstance(sample, InputError)
        assert sample.source is not None
        assert sample.source.labels is not None
        seen |= {sample.source_name.partition("/")[0]}
        assert set(np.unique(sample.source.labels)) <= {*range(19), 255}
    assert seen == {"synthia", "urbansyn"}
