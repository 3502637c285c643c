"""Figures of a logged step: worked out by hand from its counts."""

import pytest
import torch
from torch import Tensor, nn

from uda.labels.spaces import IGNORE_INDEX
from uda.objectives.counts import StepCounts, of_all_processes
from uda.objectives.functional.pseudo_labels import PseudoLabels
from uda.training.monitors import figures_of, verdict

NAMES = ("road", "car", "bus")


def logits_of(labels: Tensor) -> Tensor:
    """(N, 3, H, W) float that say exactly these labels."""
    return nn.functional.one_hot(labels, 3).movedim(3, 1).float()


def labels(*rows: list[int]) -> Tensor:
    """(1, H, W) int64."""
    return torch.tensor([rows])


def test_predictions_compared_with_the_sources_labels() -> None:
    counts = StepCounts({}, num_classes=3)
    counts.source(labels([0, 0, 1, 2], [0, 0, 1, IGNORE_INDEX]))
    counts.student("target", logits_of(labels([0, 0, 0, 0], [0, 0, 1, 1])))
    found = figures_of(of_all_processes(counts.by_name), NAMES)
    assert found.words == {"predicted_on": "target"}
    assert found.numbers == pytest.approx({
        "source/road": 4 / 7, "source/car": 2 / 7, "source/bus": 1 / 7,
        "predicted/road": 6 / 8, "predicted/car": 2 / 8, "predicted/bus": 0,
        "vanished_classes": 1,
        # What road has too much, car and bus have too little.
        "histogram_distance": 6 / 8 - 4 / 7,
    })  # fmt: skip


def test_agreement_of_teacher_and_student() -> None:
    counts = StepCounts({}, num_classes=3)
    counts.teacher(labels([0, 1, 2, 2]))
    counts.student("target", logits_of(labels([0, 1, 1, 2])))
    assert figures_of(counts.by_name, NAMES).numbers["agreement"] == 0.75
    assert "vanished_classes" not in figures_of(counts.by_name, NAMES).numbers, "there is no source"


def test_pixels_that_the_teacher_is_sure_of() -> None:
    objective = nn.Identity()
    counts = StepCounts({objective: "mix"}, num_classes=3)
    confidence = torch.tensor([[[0.9, 0.5, 0.8, 0.2]]])
    counts.sure(objective, PseudoLabels(labels([0, 0, 1, 1]), confidence), 0.8)
    assert figures_of(counts.by_name, NAMES).numbers == {
        "kept/mix": 0.5, "kept/mix/road": 0.5, "kept/mix/car": 0.5,
    }, "0.8 is sure enough; bus is never predicted, so it has no share"  # fmt: skip


def test_pixels_that_a_folder_labels_count_for_the_students_class() -> None:
    objective = nn.Identity()
    counts = StepCounts({objective: "folder"}, num_classes=3)
    there = labels([1, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX])
    counts.labeled(objective, there, logits_of(labels([0, 0, 2, 2])))
    assert figures_of(counts.by_name, NAMES).numbers == {
        "kept/folder": 0.25, "kept/folder/road": 0.5, "kept/folder/bus": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(("source_label", "boundary"), [(0.0, 0.0), (1.0, 0.5)])
def test_accuracy_of_a_discriminator_over_all_its_maps(
    source_label: float, boundary: float
) -> None:
    """AdaptSegNet's convention with cross-entropy, MRNet's with least squares."""
    objective = nn.Identity()
    toward_source = boundary + (0.1 if source_label else -0.1)
    toward_target = boundary - (0.1 if source_label else -0.1)
    source_maps = [torch.full((1, 1, 2, 3), toward_source), torch.full((1, 1, 1, 2), toward_target)]
    target_maps = [torch.tensor([[[[toward_target, toward_target, toward_target, toward_source]]]])]
    counts = StepCounts({objective: "adversarial"}, num_classes=3)
    counts.discriminator(
        objective, "main", source_maps, target_maps, source_label=source_label, boundary=boundary
    )
    found = figures_of(counts.by_name, NAMES)
    name = "discriminator/adversarial/main"
    assert found.numbers == {f"{name}/source": 6 / 8, f"{name}/target": 3 / 4}
    assert found.words == {f"{name}/verdict": "working"}


def test_who_watches_nobody_counts_nothing() -> None:
    counts = StepCounts()
    counts.source(labels([0]))
    counts.teacher(labels([0]))
    counts.student("target", logits_of(labels([0])))
    counts.labeled(nn.Identity(), labels([0]), logits_of(labels([0])))
    assert counts.by_name == {}
    assert of_all_processes(counts.by_name) == {}


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [(1.0, 0.99, "saturated"), (1.0, 0.98, "working"), (0.5, 0.5, "inactive"),
     (1.0, 0.0, "inactive"), (0.0, 1.0, "inactive"), (0.6, 0.52, "working"),
     (0.2, 0.3, "inactive")],
)  # fmt: skip
def test_verdicts(source: float, target: float, expected: str) -> None:
    assert verdict(source, target) == expected
