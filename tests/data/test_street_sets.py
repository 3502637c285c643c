"""Every data set of street scenes as it is downloaded: from raw files to train ids and scores."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from factories import Bytes
from street_sets import ORIGINALS, SIZE, name_of, write_gray
from uda.data.label_files import read_train_ids
from uda.data.prediction_folder import pair_samples
from uda.data.registry import LAYOUTS, list_dataset
from uda.data.samples import Sample
from uda.data.training import open_labeled_split
from uda.evaluation.folder_scoring import score_pairs
from uda.labels.spaces import LabelSpace

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
