"""Pseudo-labels: which pixels get one, what the manifest says, and that truth changes nothing."""

import hashlib
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from factories import (
    CITYSCAPES_STEMS,
    Bytes,
    ColorSegmenter,
    cityscapes_labels,
    colors_of,
    tiny_snapshot,
    write_cityscapes,
    write_png,
    written_sample,
)
from uda.checkpoints.snapshots import Snapshot
from uda.data.files import read_raw_labels
from uda.data.pseudo_label_folder import PseudoLabelFolder, read_manifest
from uda.data.samples import Sample
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiments import load_preset
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX
from uda.prediction.pseudo_labeling import LabelingResult, label_images, list_target
from uda.utilities.errors import InputError

# ColorSegmenter gives the class a logit of green / 16 and the 18 others 0.
GREENS = (0, 16, 48, 64, 240)
CONFIDENCES = tuple(math.exp(green / 16) / (math.exp(green / 16) + 18) for green in GREENS)
# 0.05, 0.13, 0.53, 0.75, 1.00

PREDICTED = np.array([[2, 2, 2, 2, 2], [13, 13, 13, 13, 13], [5, 5, 7, 7, 7]], np.uint8)
GREEN = np.array([[16, 48, 64, 240, 240], [16, 16, 16, 48, 240], [48, 16, 16, 16, 48]], np.uint8)


def label(
    samples: list[Sample], folder: Path, *, threshold: float, workers: int = 0
) -> LabelingResult:
    snapshot = folder.parent / "GTA5_7.pth"
    snapshot.write_bytes(b"weights")
    return label_images(
        ColorSegmenter(),
        samples,
        folder,
        threshold=threshold,
        config=EvaluationConfig(dataset="cityscapes", input_size=None),
        label_space=CITYSCAPES,
        snapshot=snapshot,
        supervision="none",
        workers=workers,
    )


def drawn(folder: Path, truth: Bytes | None = None) -> Sample:
    return written_sample(folder, "a", colors_of(PREDICTED, GREEN), truth)


def stored(folder: Path, stem: str = "a") -> Bytes:
    return np.asarray(read_raw_labels(folder / f"{stem}_pseudo_trainIds.png", PREDICTED.shape))


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 0.7, 0.9, 1.0])
def test_pixels_below_the_threshold_get_no_label(tmp_path: Path, threshold: float) -> None:
    label([drawn(tmp_path)], tmp_path / "labels", threshold=threshold)
    confidence = np.vectorize(dict(zip(GREENS, CONFIDENCES, strict=True)).get)(GREEN)
    expected = np.where(confidence >= threshold, PREDICTED, IGNORE_INDEX)
    assert np.array_equal(stored(tmp_path / "labels"), expected)


def test_the_manifest_by_hand(tmp_path: Path) -> None:
    samples = [
        drawn(tmp_path),
        written_sample(tmp_path, "b", colors_of(np.full((2, 3), 2, np.uint8), 240)),
    ]
    result = label(samples[::-1], tmp_path / "labels", threshold=0.5)
    manifest = result.manifest
    assert manifest == read_manifest(tmp_path / "labels")
    assert (manifest.image_count, manifest.images) == (2, ("a", "b"))
    assert (manifest.threshold, manifest.id_space) == (0.5, "trainIds")
    assert (manifest.label_space, manifest.classes) == ("cityscapes19", CITYSCAPES.classes)
    assert (manifest.supervision, manifest.snapshot) == ("none", "GTA5_7.pth")
    assert manifest.snapshot_sha256 == hashlib.sha256(b"weights").hexdigest()
    assert manifest.protocol == "native: input as stored; scale 1; no flip"
    # Kept of image a: 4 of 5, 2 of 5, 1 of 2, 1 of 3; all 6 of image b, which are of class 2.
    expected: dict[str, float | None] = dict.fromkeys(CITYSCAPES.classes)
    expected |= {"building": 10 / 11, "car": 2 / 5, "pole": 1 / 2, "traffic sign": 1 / 3}
    assert manifest.share_kept_per_class == expected
    assert manifest.share_kept == 14 / 21


def test_what_is_written_can_be_read_for_training(tmp_path: Path) -> None:
    label([drawn(tmp_path)], tmp_path / "labels", threshold=0.5)
    folder = PseudoLabelFolder(
        tmp_path / "labels", label_space=CITYSCAPES, stems=["a"], subset=False
    )
    labels = np.asarray(folder.read("a", (3, 5)))
    assert labels[0].tolist() == [255, 2, 2, 2, 2]


def test_truth_is_scored_on_kept_pixels_and_changes_no_file(tmp_path: Path) -> None:
    truth = PREDICTED.copy()
    truth[0] = [0, 2, 2, 0, IGNORE_INDEX]  # the first is wrong but not kept, the fourth is wrong
    for name in ("plain", "true"):
        (tmp_path / name).mkdir()
    without = label([drawn(tmp_path / "plain")], tmp_path / "plain" / "labels", threshold=0.5)
    with_truth = label([drawn(tmp_path / "true", truth)], tmp_path / "true" / "labels",
                       threshold=0.5)  # fmt: skip
    assert without.scores is None
    assert without.manifest == with_truth.manifest
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "labels").iterdir()}
        for name in ("plain", "true")
    ]
    assert files[0] == files[1]
    scores = with_truth.scores
    assert scores is not None
    assert scores.iou[2] == pytest.approx(2 / 3)
    assert scores.iou[13] == scores.iou[5] == scores.iou[7] == 1
    assert scores.iou[0] == 0
    assert scores.pixel_accuracy == pytest.approx(6 / 7)
    assert len(scores.absent) == 14


def test_loader_processes_change_nothing(tmp_path: Path) -> None:
    samples = [
        written_sample(tmp_path, stem, colors_of(np.roll(PREDICTED, shift), GREEN))
        for shift, stem in enumerate("abc")
    ]
    results = [
        label(samples, tmp_path / f"labels{workers}", threshold=0.5, workers=workers)
        for workers in (0, 2)
    ]
    assert results[0] == results[1]
    for stem in "abc":
        assert np.array_equal(
            stored(tmp_path / "labels0", stem), stored(tmp_path / "labels2", stem)
        )


@pytest.mark.parametrize("threshold", [-0.1, 1.1, 50.0, math.nan])
def test_a_threshold_that_is_no_probability_is_refused(tmp_path: Path, threshold: float) -> None:
    with pytest.raises(InputError, match="a softmax probability, between 0 and 1"):
        label([drawn(tmp_path)], tmp_path / "labels", threshold=threshold)
    assert not (tmp_path / "labels").exists()


def test_a_bad_image_leaves_no_folder(tmp_path: Path) -> None:
    bad = written_sample(tmp_path, "b", colors_of(PREDICTED))
    bad.image.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"b\.png cannot be decoded"):
        label([drawn(tmp_path), bad], tmp_path / "labels", threshold=0.5)
    assert not list(tmp_path.glob("labels*"))


def test_an_existing_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    label([drawn(tmp_path)], tmp_path / "labels", threshold=0.5)
    missing = drawn(tmp_path)._replace(image=tmp_path / "missing.png")
    with pytest.raises(InputError, match="exists already"):
        label([missing], tmp_path / "labels", threshold=0.5)


def test_images_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two images are called a"):
        label([drawn(tmp_path), drawn(tmp_path)], tmp_path / "labels", threshold=0.5)
    assert not list(tmp_path.glob("labels*"))


def snapshot_of(preset: str) -> Snapshot:
    return tiny_snapshot(load_preset(preset))


def targets(
    snapshot: Snapshot,
    root: Path,
    *,
    splits: tuple[str, ...] | None = None,
    first: int | None = None,
    labeled: bool = False,
) -> list[Sample]:
    return list_target(snapshot, root, splits=splits, first=first, labeled=labeled)


def test_the_target_of_a_run_comes_with_its_labels_if_they_are_asked_for(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    snapshot = snapshot_of("gc_640x360_b2_class_mix")
    samples = targets(snapshot, tmp_path, labeled=True)
    assert [sample.stem for sample in samples] == list(CITYSCAPES_STEMS)
    assert [sample.labels for sample in samples] == [
        cityscapes_labels(tmp_path, stem) for stem in CITYSCAPES_STEMS
    ]
    missing = cityscapes_labels(tmp_path, CITYSCAPES_STEMS[2])
    missing.unlink()
    with pytest.raises(InputError, match=r"ha(s|ve) no label"):
        targets(snapshot, tmp_path, labeled=True)


def test_labels_of_the_target_stay_closed_unless_scores_are_asked_for(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    for stem in CITYSCAPES_STEMS:
        cityscapes_labels(tmp_path, stem).write_bytes(b"opening this fails")
    snapshot = snapshot_of("gc_640x360_b2_class_mix")
    before = targets(snapshot, tmp_path)
    assert [sample.stem for sample in before] == list(CITYSCAPES_STEMS)
    assert [sample.labels for sample in before] == [None] * 4
    shutil.rmtree(tmp_path / "Cityscapes" / "gtFine")
    (tmp_path / "Cityscapes" / "gtFine").write_text("a file: listing it fails")
    assert targets(snapshot, tmp_path) == before


def test_labels_that_hold_train_ids_are_not_scored(tmp_path: Path) -> None:
    """Without a 255 among them every file is readable, and every score would be nonsense."""
    write_cityscapes(tmp_path)
    for stem in CITYSCAPES_STEMS:
        path = cityscapes_labels(tmp_path, stem)
        write_png(path, np.arange(19, dtype=np.uint8).repeat(20).reshape(10, 38))
    with pytest.raises(InputError, match="these look like train ids"):
        targets(snapshot_of("gc_640x360_b2_class_mix"), tmp_path, labeled=True)


def test_other_splits_and_a_part_of_the_target(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    write_cityscapes(tmp_path, split="val", stems=("munster_000000_000019",))
    experiment = load_preset("gc_640x360_b2_class_mix")
    assert experiment.data.target is not None
    experiment.data.target.first = 3
    snapshot = tiny_snapshot(experiment)

    def stems(splits: tuple[str, ...] | None, first: int | None) -> list[str]:
        return [s.stem for s in targets(snapshot, tmp_path, splits=splits, first=first)]

    assert stems(None, None) == list(CITYSCAPES_STEMS[:3])
    assert stems(None, 2) == list(CITYSCAPES_STEMS[:2])
    assert stems(("val",), None) == ["munster_000000_000019"]
    assert stems(("val", "train"), 2) == ["munster_000000_000019", CITYSCAPES_STEMS[0]]
    with pytest.raises(InputError, match="there are only 4 images"):
        stems(("train",), 5)


def test_a_run_without_a_target_labels_the_data_set_it_is_scored_on(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, labeled=False)
    snapshot = snapshot_of("gc_640x360_b2_source_only")
    samples = targets(snapshot, tmp_path)
    assert [sample.stem for sample in samples] == list(CITYSCAPES_STEMS)


def test_a_missing_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cityscapes does not exist"):
        targets(snapshot_of("gc_640x360_b2_class_mix"), tmp_path)
