"""A mirrored right hand is a left hand: in labels, pseudo-labels and `--flip`, from files on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from factories import Bytes, write_png
from trials import any_manifest
from uda.data.batch import Batch
from uda.data.config import DataConfig, DomainConfig, SecondViewConfig
from uda.data.datasets.body_parts import BODY_PARTS, NOONBODY
from uda.data.pseudo_label_folder import PseudoLabelWriter
from uda.data.registry import LAYOUTS, list_dataset
from uda.data.sampling import batches
from uda.data.training import open_training_data
from uda.evaluation.evaluate import EvaluationConfig, evaluate
from uda.models.encoders.base import FeatureMaps, Normalization
from uda.models.segmenter import SegmentationOutput, Segmenter

# Right and left hand, a head, background, and a pixel that is not labeled.
LABELS = np.array([[0, 2, 2, 0, 0, 3], [14, 2, 0, 0, 255, 3]], np.uint8)
MIRRORED = np.array([[2, 0, 0, 3, 3, 0], [2, 255, 0, 0, 3, 14]], np.uint8)
WITHOUT_SIDES = MIRRORED.copy()  # what a plain flip would make of it
WITHOUT_SIDES[MIRRORED == 2], WITHOUT_SIDES[MIRRORED == 3] = 3, 2


def picture(seed: int) -> Bytes:
    """(2, 6, 3): hands are bright; everything else, by which the mirror is told, is dim noise."""
    dim = np.random.default_rng(seed).integers(0, 60, (*LABELS.shape, 3), dtype=np.uint8)
    return np.where(np.isin(LABELS, (2, 3))[..., None], 255, dim).astype(np.uint8)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    """Four images of a source, four of a target with pseudo-labels; all look at LABELS."""
    layout = replace(NOONBODY, name="photos", folder="Photos")
    monkeypatch.setitem(LAYOUTS, "photos", layout)
    stems = [f"image_{seed}" for seed in range(4)]
    for folder in ("NoonBody", "Photos"):
        for seed, stem in enumerate(stems):
            path = tmp_path / folder / "images/train" / f"{stem}.png"
            write_png(path, picture(seed)).rename(path.with_suffix(".jpg"))  # without JPEG's noise
            write_png(tmp_path / folder / "labels/train" / f"{stem}.png", LABELS)
    with PseudoLabelWriter(tmp_path / "pseudo") as writer:
        for stem in stems:
            writer.write(stem, LABELS)
        writer.finish(any_manifest(stems, BODY_PARTS))
    return DataConfig(
        root=str(tmp_path),
        source=DomainConfig(datasets=("noonbody",), size=LABELS.shape, mirror=True),
        target=DomainConfig(datasets=("photos",), size=LABELS.shape, mirror=True),
        pseudo_labels=str(tmp_path / "pseudo"),
        second_target_view=SecondViewConfig(policy=None),
        crop=LABELS.shape,
        workers=0,
    )


def loaded(data: DataConfig) -> list[Batch]:
    opened = open_training_data(data, seed=0, evaluated="photos")
    return list(batches(opened.dataset, batch_size=2, first_step=0, steps=8, workers=0))


def is_mirrored(image: Tensor, name: str) -> bool:
    """Of a loaded picture, by its pixels; it is one or the other."""
    stored = torch.from_numpy(picture(int(name[-1])).transpose(2, 0, 1).copy())
    if torch.equal(image, stored):
        return False
    assert torch.equal(image, stored.flip(2))
    return True


@pytest.mark.parametrize("mirror", [True, False])
def test_labels_and_pseudo_labels_follow_their_picture(data: DataConfig, mirror: bool) -> None:
    assert data.source is not None
    assert data.target is not None
    data.source.mirror = data.target.mirror = mirror
    seen: dict[str, set[bool]] = {"source": set(), "target": set(), "second": set()}
    for batch in loaded(data):
        assert batch.target_pseudo_labels is not None
        assert batch.target_second_images is not None
        for domain, images, names, labels in (
            ("source", batch.source_images, batch.source_names, batch.source_labels),
            ("target", batch.target_images, batch.target_names, batch.target_pseudo_labels),
        ):
            for image, name, label in zip(images, names, labels, strict=True):
                mirrored = is_mirrored(image, name)
                expected = MIRRORED if mirrored else LABELS
                assert (label.numpy() == expected).all()
                seen[domain].add(mirrored)
        for image, name in zip(batch.target_second_images, batch.target_names, strict=True):
            seen["second"].add(is_mirrored(image, name))  # it comes without labels
    assert all(states == ({True, False} if mirror else {False}) for states in seen.values())


class SideSegmenter(Segmenter):
    """Bright pixels are the right hand in the left half of the picture, else the left hand."""

    def __init__(self) -> None:
        nothing = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        super().__init__(nn.Conv2d(1, 1, 1), provenance="none", normalization=nothing)

    @property
    def has_auxiliary_head(self) -> bool:
        return False

    def encode(self, normalized: Tensor) -> FeatureMaps:
        return (normalized,)

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        (normalized,) = features
        bright = normalized[:, 0] > 0.5
        in_left_half = torch.arange(normalized.shape[3]) < normalized.shape[3] // 2
        classes = torch.where(bright, torch.where(in_left_half, 2, 3), 0)
        logits = 9 * nn.functional.one_hot(classes, 15).permute(0, 3, 1, 2).float()
        return SegmentationOutput(logits, None, normalized)


@pytest.mark.parametrize("flip", [False, True])
def test_the_mean_over_mirror_images_agrees_on_the_side(data: DataConfig, flip: bool) -> None:
    """The network sees a right hand in the left half of both pictures. With its names left as they
    are, the mean would be half right hand, half left hand."""
    samples = list_dataset(Path(data.root), "photos", "train", labeled=True)
    config = EvaluationConfig(dataset="photos", split="train", flip=flip)
    found = evaluate(SideSegmenter(), samples, config=config, label_space=BODY_PARTS).scores
    assert found.iou[2] == found.iou[3] == 1.0
    blind = replace(BODY_PARTS, mirror_swaps=())
    without = evaluate(SideSegmenter(), samples, config=config, label_space=blind).scores
    assert (without.iou[3] == 1.0) != flip, "so the test would notice"


def test_the_maps_are_as_meant() -> None:
    assert (BODY_PARTS.mirror(LABELS) == MIRRORED).all()
    assert (LABELS[:, ::-1] == WITHOUT_SIDES).all()
