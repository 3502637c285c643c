"""Pseudo-labels: which pixels get one, what the manifest says, and that truth changes nothing."""

import hashlib
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

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
from uda.data.files import read_image
from uda.data.label_files import read_raw_labels
from uda.data.pseudo_label_folder import PseudoLabelFolder, PseudoLabelWriter, read_manifest
from uda.data.samples import Sample
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiments import load_preset
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX
from uda.objectives.functional.class_thresholds import adapted_thresholds
from uda.prediction.labeling_rules import (
    ClassBalanced,
    ConfidenceCounts,
    FixedThreshold,
    InstanceAdaptive,
    Quantile,
    Rule,
)
from uda.prediction.pseudo_labeling import LabelingResult, label_images, list_target
from uda.utilities.errors import InputError, WriteError

# ColorSegmenter gives the class a logit of green / 16 and the 18 others 0.
GREENS = (0, 16, 48, 64, 240)
CONFIDENCES = tuple(math.exp(green / 16) / (math.exp(green / 16) + 18) for green in GREENS)
# 0.05, 0.13, 0.53, 0.75, 1.00

PREDICTED = np.array([[2, 2, 2, 2, 2], [13, 13, 13, 13, 13], [5, 5, 7, 7, 7]], np.uint8)
GREEN = np.array([[16, 48, 64, 240, 240], [16, 16, 16, 48, 240], [48, 16, 16, 16, 48]], np.uint8)


def label(
    samples: list[Sample], folder: Path, *, threshold: float, workers: int = 0
) -> LabelingResult:
    return label_by(FixedThreshold(threshold=threshold), samples, folder, workers=workers)


def label_by(
    rule: Rule, samples: list[Sample], folder: Path, *, workers: int = 0
) -> LabelingResult:
    snapshot = folder.parent / "GTA5_7.pth"
    snapshot.write_bytes(b"weights")
    return label_images(
        ColorSegmenter(),
        samples,
        folder,
        rule=rule,
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


# --- rules with a threshold for each class


def counted(*confidences: float) -> ConfidenceCounts:
    """Of class 0 of two."""
    counts = ConfidenceCounts(2, every=1)
    values = torch.tensor([confidences])
    counts.add(torch.zeros_like(values, dtype=torch.int64), values)
    return counts


@pytest.mark.parametrize(
    ("rule", "confidences", "threshold"),
    [
        (ClassBalanced(portion=0.2), (0.9, 0.5, 0.8, 0.7, 0.6), 0.9),
        (ClassBalanced(portion=0.5), (0.9, 0.5, 0.8, 0.7, 0.6), 0.8),
        (ClassBalanced(portion=0.2), (0.9, 0.5, 0.8, 0.7), 1.0),
        (Quantile(cap=1.0), (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99), 0.95),
        (Quantile(), (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99), 0.9),
        (Quantile(), (0.2, 0.4, 0.6), 0.6),
        (Quantile(), (0.91, 0.92, 0.95), 0.9),
        (Quantile(), (0.3,), 0.3),
        (Quantile(quantile=0.5), (0.3, 0.4, 0.6, 0.7), 0.6),
    ],
)
def test_thresholds_of_all_images_by_hand(
    rule: ClassBalanced | Quantile, confidences: tuple[float, ...], threshold: float
) -> None:
    found, absent = rule.thresholds(counted(*confidences))
    assert threshold - 4e-6 < found <= threshold, "as exact as the docstring says"
    assert absent == (1.0 if isinstance(rule, ClassBalanced) else 0.0)


def test_counts_take_every_fourth_row_and_column() -> None:
    counts = ConfidenceCounts(3, every=4)
    labels = torch.arange(54).view(6, 9) % 3
    counts.add(labels, torch.full((6, 9), 0.5))
    part = labels[::4, ::4]
    assert part.shape == (2, 3)
    assert counts.totals() == [int((part == c).sum()) for c in range(3)]


def several(folder: Path) -> list[Sample]:
    """Three images that differ, of a size that every fourth row and column leaves something of."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    samples = []
    for stem in "abc":
        ids = rng.integers(0, 4, (24, 32)).astype(np.uint8)
        green = rng.integers(0, 100, (24, 32)).astype(np.uint8)
        samples.append(written_sample(folder, stem, colors_of(ids, green)))
    return samples


def predicted_by_color(sample: Sample) -> tuple[Bytes, np.ndarray]:
    """Labels and probabilities (C, H, W) of ColorSegmenter."""
    image = torch.from_numpy(np.asarray(read_image(sample.image)).copy()).permute(2, 0, 1)
    with torch.no_grad():
        logits = ColorSegmenter()(image[None].float() / 255).logits[0]
    probabilities = logits.softmax(dim=0)
    return probabilities.argmax(dim=0).numpy().astype(np.uint8), probabilities.numpy()


def test_class_balanced_labels_against_numpy(tmp_path: Path) -> None:
    samples = several(tmp_path / "images")
    result = label_by(ClassBalanced(portion=0.3), samples, tmp_path / "labels")
    seen = [predicted_by_color(sample) for sample in samples]
    highest = np.concatenate([p.max(0)[::4, ::4].ravel() for _, p in seen])
    classes = np.concatenate([labels[::4, ::4].ravel() for labels, _ in seen])
    thresholds = np.ones(19)
    for c in np.unique(classes):
        descending = np.sort(highest[classes == c])[::-1]
        if place := math.floor(len(descending) * 0.3):
            thresholds[c] = descending[place - 1]
    assert result.manifest.thresholds is not None
    found = list(result.manifest.thresholds.values())
    assert found == pytest.approx(thresholds.tolist(), abs=4e-6)
    assert result.manifest.rule_settings == {"portion": 0.3, "every": 4}
    assert result.manifest == read_manifest(tmp_path / "labels")
    for sample, (_, probabilities) in zip(samples, seen, strict=True):
        quotients = probabilities / np.asarray(found, np.float32)[:, None, None]
        expected = np.where(quotients.max(0) >= 1, quotients.argmax(0), 255)
        path = tmp_path / "labels" / f"{sample.stem}_pseudo_trainIds.png"
        assert np.array_equal(np.asarray(read_raw_labels(path, (24, 32))), expected)


def test_adaptive_labels_follow_the_order_of_the_list(tmp_path: Path) -> None:
    samples = several(tmp_path / "images")
    rule = InstanceAdaptive(start=0.5, gamma=1.0, images=2)
    result = label_by(rule, samples, tmp_path / "labels")
    thresholds = torch.full((19,), 0.5, dtype=torch.float64)
    for group in (samples[:2], samples[2:]):
        seen = [predicted_by_color(sample) for sample in group]
        labels = torch.tensor(np.stack([labels for labels, _ in seen])).long()
        confidence = torch.tensor(np.stack([p.max(0) for _, p in seen]))
        thresholds = adapted_thresholds(thresholds, labels, confidence, rule.moving)
        sure = (confidence >= thresholds[labels]).numpy()
        for sample, own, keeps in zip(group, labels.numpy(), sure, strict=True):
            path = tmp_path / "labels" / f"{sample.stem}_pseudo_trainIds.png"
            found = np.asarray(read_raw_labels(path, (24, 32)))
            assert np.array_equal(found, np.where(keeps, own, 255))
    assert result.manifest.thresholds is not None
    assert list(result.manifest.thresholds.values()) == thresholds.tolist()
    other = label_by(rule, samples[::-1], tmp_path / "other")
    assert other.manifest.thresholds != result.manifest.thresholds


def test_a_fixed_threshold_leaves_the_manifest_that_it_always_left(tmp_path: Path) -> None:
    label([drawn(tmp_path)], tmp_path / "labels", threshold=0.5)
    written = json.loads((tmp_path / "labels" / "manifest.json").read_text())
    assert list(written) == [
        "id_space", "label_space", "classes", "rule", "threshold", "protocol", "snapshot",
        "snapshot_sha256", "supervision", "image_count", "images", "share_kept",
        "share_kept_per_class", "sha256",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        (ClassBalanced(portion=0.0), "--portion 0: allowed: above 0, up to 1"),
        (Quantile(quantile=1.5), "--quantile 1.5: allowed"),
        (Quantile(cap=math.nan), "--cap nan: allowed"),
        (InstanceAdaptive(start=1.0), "--start 1: allowed"),
        (InstanceAdaptive(alpha=2.0), "--alpha 2: allowed"),
    ],
)
def test_rules_refuse_what_cannot_be(tmp_path: Path, rule: Rule, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        label_by(rule, [drawn(tmp_path)], tmp_path / "labels")


def test_an_adaptive_rule_needs_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uda.prediction.labeling_rules.world_size", lambda: 2)
    with pytest.raises(InputError, match="start it without torchrun"):
        InstanceAdaptive().check()


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


def test_a_label_that_cannot_be_written_ends_it_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the thread that writes is behind."""
    samples = [
        written_sample(tmp_path, name, colors_of(PREDICTED, GREEN), None) for name in "abcdef"
    ]
    written: list[str] = []
    whole = PseudoLabelWriter.write

    def write(self: PseudoLabelWriter, stem: str, labels: Bytes) -> None:
        if stem == "c":
            raise WriteError("c cannot be written")
        whole(self, stem, labels)
        written.append(stem)

    monkeypatch.setattr(PseudoLabelWriter, "write", write)
    with pytest.raises(WriteError, match="c cannot be written"):
        label(samples, tmp_path / "labels", threshold=0.5)
    assert written == ["a", "b"]
    assert not list(tmp_path.glob("labels*"))
    assert not list(tmp_path.glob(".labels*"))
