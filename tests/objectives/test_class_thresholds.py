"""Thresholds per class: by hand, against plain numpy, and as rules of online teachers."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tiny_runs import batch_for, tiny_preset, tiny_run, without_dropout
from uda.data.batch import Batch
from uda.objectives.base import StepContext
from uda.objectives.counts import StepCounts
from uda.objectives.fix_match import FixMatchConfig
from uda.objectives.functional.class_thresholds import (
    AdaptiveConfig,
    adapted_thresholds,
    class_balanced_labels,
    class_balanced_thresholds,
)
from uda.objectives.teacher_labels import TeacherLabels, TeacherLabelsConfig
from uda.training.run import Run
from uda.training.step import train_step

CLASSES = 5


def of_class_0(*confidences: float) -> tuple[Tensor, Tensor]:
    """Labels, all 0, and their confidences."""
    return torch.zeros(len(confidences), dtype=torch.int64), torch.tensor(confidences)


@pytest.mark.parametrize(
    ("confidences", "portion", "threshold"),
    [
        ((0.9, 0.5, 0.8, 0.7, 0.6), 0.2, 0.9),
        ((0.9, 0.5, 0.8, 0.7, 0.6), 0.5, 0.8),
        ((0.9, 0.5, 0.8, 0.7), 0.2, 1.0),
    ],
)
def test_class_balanced_thresholds_by_hand(
    confidences: tuple[float, ...], portion: float, threshold: float
) -> None:
    found = class_balanced_thresholds(*of_class_0(*confidences), 2, portion=portion)
    assert found.tolist() == [pytest.approx(threshold, abs=1e-7), 1.0]


def test_class_balanced_labels_by_hand() -> None:
    probabilities = torch.tensor([[0.6, 0.4], [0.8, 0.2], [0.95, 0.05]]).T[None, :, None]
    found = class_balanced_labels(probabilities, torch.tensor([0.9, 0.3]).double())
    assert found.labels.tolist() == [[[1, 0, 0]]]
    expected = torch.tensor([1.3333, 0.8889, 1.0556])
    torch.testing.assert_close(found.confidence[0, 0], expected, rtol=0, atol=5e-5)


def balanced_by_numpy(probabilities: np.ndarray, portion: float) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds (C,), and labels (N, H, W) that are 255 where none counts: CRST's steps, spelled
    out."""
    predicted, highest = probabilities.argmax(1), probabilities.max(1)
    thresholds = np.ones(probabilities.shape[1])
    for c in range(len(thresholds)):
        descending = np.sort(highest[predicted == c])[::-1]
        place = math.floor(len(descending) * portion)
        if place > 0:
            thresholds[c] = descending[place - 1]
    quotients = probabilities / thresholds.astype(np.float32)[:, None, None]
    return thresholds, np.where(quotients.max(1) >= 1, quotients.argmax(1), 255)


@pytest.mark.parametrize("seed", range(8))
def test_class_balanced_labels_against_numpy(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, CLASSES, 9, 11, generator=generator) * 3
    logits[:, 3] -= 100  # a class that is never predicted
    probabilities = logits.softmax(dim=1)
    portion = (0.05, 0.2, 0.5, 1.0)[seed % 4]
    thresholds, labels = balanced_by_numpy(probabilities.numpy(), portion)
    confidence, predicted = probabilities.max(dim=1)
    ours = class_balanced_thresholds(predicted, confidence, CLASSES, portion=portion)
    assert np.array_equal(ours.numpy(), thresholds)
    found = class_balanced_labels(probabilities, ours)
    assert np.array_equal(torch.where(found.confidence >= 1, found.labels, 255).numpy(), labels)


def adapted(*batches: tuple[float, ...]) -> list[float]:
    """The threshold of class 0 after each batch; class 1 is in none of them."""
    thresholds = torch.full((2,), 0.9, dtype=torch.float64)
    seen = []
    for batch in batches:
        thresholds = adapted_thresholds(thresholds, *of_class_0(*batch), AdaptiveConfig())
        assert thresholds[1] == 0.9
        seen.append(thresholds[0].item())
    return seen


def test_adapted_thresholds_by_hand() -> None:
    exact = adapted((0.5, 0.75, 0.25), (0.875, 0.9375))
    assert exact == pytest.approx([0.89612580, 0.89957497], abs=1e-8)
    rounded = adapted((0.5, 0.6, 0.8, 0.95), (0.99, 0.98, 0.97))
    assert rounded == pytest.approx([0.90329094, 0.91171259], abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_adapted_thresholds_against_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, confidence = rng.integers(0, 3, 400), rng.uniform(0.2, 1, 400).astype(np.float32)
    before = rng.uniform(0.4, 0.95, 4)
    expected = []
    for c, threshold in enumerate(before):
        values = [threshold, *confidence[labels == c].astype(np.float16).astype(np.float64)]
        now = np.percentile(values, 100 * (1 - 0.2 * threshold**8))
        expected.append(0.9 * threshold + 0.1 * now)
    found = adapted_thresholds(
        torch.tensor(before), torch.tensor(labels), torch.tensor(confidence), AdaptiveConfig()
    )
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_a_threshold_stays_below_1() -> None:
    config = AdaptiveConfig(start=0.999, beta=0.0, gamma=0.0, alpha=0.0)
    before = torch.tensor([0.999], dtype=torch.float64)
    assert adapted_thresholds(before, *of_class_0(1.0, 1.0), config).item() == 0.999


# --- online


class Says:
    """A teacher of these logits, whatever it sees."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def __call__(self, images: Tensor) -> Tensor:
        return self.logits


def labeled_by(
    config: TeacherLabelsConfig, logits: Tensor
) -> tuple[Tensor, Tensor, TeacherLabels, Tensor]:
    """Labels, weights, the objective, and what it counted as kept, by class."""
    objective = config.build(CLASSES)
    assert isinstance(objective, TeacherLabels)
    size = (len(logits), 3, *logits.shape[2:])
    none = torch.empty(0)
    batch = Batch(none, none, torch.rand(size), None, (0, 1), (), ())
    counts = StepCounts({objective: "it"}, num_classes=CLASSES)
    labels, weights = objective.labeled(batch, StepContext(0, 0, (0, 1), Says(logits), counts))
    return labels, weights, objective, counts.by_name["kept/it"]


def test_a_teacher_with_balanced_classes() -> None:
    logits = torch.randn(2, CLASSES, 6, 8, generator=torch.Generator().manual_seed(1)) * 2
    config = FixMatchConfig(confidence="class_balanced", portion=0.3, ignored_rows=(1, 0))
    labels, weights, _, kept = labeled_by(config, logits)
    _, expected = balanced_by_numpy(logits.softmax(dim=1).numpy(), 0.3)
    counted = torch.from_numpy(expected)
    assert kept[0].tolist() == [int((counted == c).sum()) for c in range(CLASSES)]
    assert kept[1].sum() == labels.numel()
    expected[:, 0] = 255
    assert np.array_equal(torch.where(weights > 0, labels, 255).numpy(), expected)
    assert (labels != logits.argmax(dim=1)).any(), "a label need not be the most probable class"


def test_a_teacher_with_adaptive_thresholds() -> None:
    logits = torch.randn(2, CLASSES, 6, 8, generator=torch.Generator().manual_seed(1)) * 2
    settings = AdaptiveConfig(start=0.5, gamma=1.0)
    config = FixMatchConfig(confidence="instance_adaptive", adaptive=settings)
    labels, weights, objective, kept = labeled_by(config, logits)
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    start = torch.full((CLASSES,), 0.5, dtype=torch.float64)
    thresholds = adapted_thresholds(start, predicted, confidence, settings)
    assert objective.thresholds is not None
    assert torch.equal(objective.thresholds[:CLASSES], thresholds)
    sure = confidence >= thresholds[predicted]  # the thresholds that have just moved
    assert torch.equal(labels, predicted)
    assert torch.equal(weights, sure.float())
    assert kept[0].sum() == sure.sum()
    assert 0 < sure.sum() < sure.numel()


def under(confidence: str, root: Path) -> Run:
    experiment = without_dropout(tiny_preset("gc_640x360_b2_fix_match", root))
    experiment.objectives["fix_match"] = FixMatchConfig(
        confidence=confidence,  # type: ignore[arg-type]
        adaptive=AdaptiveConfig(start=0.06),
    )
    return tiny_run(experiment)


def test_moving_thresholds_survive_a_restart(toy_root: Path) -> None:
    run = under("instance_adaptive", toy_root)
    batch = batch_for(run.experiment)
    train_step(run, batch)
    moved = run.objectives["fix_match"].state_dict()["thresholds"]
    assert (moved != 0.06).any()
    other = under("instance_adaptive", toy_root)
    other.load_state(copy.deepcopy(run.state()))
    assert torch.equal(other.objectives["fix_match"].state_dict()["thresholds"], moved)
    losses = [train_step(each, batch).losses for each in (run, other)]
    assert {n: v.item() for n, v in losses[0].items()} == {
        n: v.item() for n, v in losses[1].items()
    }


def test_other_rules_keep_nothing_between_steps(toy_root: Path) -> None:
    assert under("class_balanced", toy_root).objectives["fix_match"].state_dict() == {}
