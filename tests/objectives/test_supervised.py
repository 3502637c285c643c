"""Supervised: plain cross-entropy, and the experiment log's balanced loss of the hardest pixels."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from uda.data.batch import View
from uda.labels.spaces import IGNORE_INDEX
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.supervised import SupervisedConfig

CONTEXT = StepContext(step=0, seed=0, indices=(0, 1))
CLASSES = 5
SIZE = (2, 80, 100)


def case(seed: int) -> tuple[View, SegmentationOutput]:
    """Class 0 is frequent, 1 and 2 have fewer than 4096 pixels per image, 3 and 4 are absent."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(SIZE, dtype=torch.int64)
    labels[:, :10], labels[0, 10:20], labels[:, 70:] = 1, 2, IGNORE_INDEX
    main, auxiliary = torch.randn(2, 2, CLASSES, *SIZE[1:], generator=generator).unbind()
    output = SegmentationOutput(main, auxiliary, torch.zeros(2, 1, 1, 1))
    return View("source", torch.zeros(2, 3, *SIZE[1:]), labels), output


def log_probabilities(logits: torch.Tensor) -> npt.NDArray[np.float64]:
    values = logits.double().numpy()
    values = values - values.max(axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    return result


def balanced_hard_loss(
    logits: torch.Tensor, labels: torch.Tensor, class_weights: npt.NDArray[np.float64]
) -> float:
    """The log's loss in numpy, pixel by pixel: its 80th percentile, its weighted mean."""
    table = np.append(class_weights, np.zeros(256 - CLASSES))
    ids = labels.numpy()
    known = np.where(ids == IGNORE_INDEX, 0, ids)
    nll = -np.take_along_axis(log_probabilities(logits), known[:, None], axis=1)[:, 0]
    losses = table[ids] * nll  # 0 where ignored, and those zeros count in the percentile
    kept = losses >= np.percentile(losses, 80)
    return float((losses * kept).sum() / (table[ids] * kept).sum())


def test_plain_cross_entropy_of_both_heads() -> None:
    view, output = case(0)
    terms = SupervisedConfig(auxiliary_weight=0.5).build(CLASSES).terms(view, output, CONTEXT)
    assert view.labels is not None
    assert output.auxiliary_logits is not None
    main = F.cross_entropy(output.logits, view.labels, ignore_index=IGNORE_INDEX)
    auxiliary = F.cross_entropy(output.auxiliary_logits, view.labels, ignore_index=IGNORE_INDEX)
    assert terms["main"].item() == pytest.approx(main.item())
    assert terms["auxiliary"].item() == pytest.approx(0.5 * auxiliary.item())


def test_balanced_loss_of_the_hardest_pixels_by_hand() -> None:
    """Two steps: the moving average of a class's absence is part of its weight in the second."""
    objective = SupervisedConfig(class_balance=True, hardest=0.2).build(CLASSES)
    average = np.ones(CLASSES)
    for seed in (0, 1):
        view, output = case(seed)
        terms = objective.terms(view, output, CONTEXT)
        average = 0.9 * average + 0.1 * np.array([1, 1, 1, 7, 7])
        class_weights = np.array([1, 7, 7, 7, 7]) * average
        assert view.labels is not None
        assert output.auxiliary_logits is not None
        main = balanced_hard_loss(output.logits, view.labels, class_weights)
        auxiliary = balanced_hard_loss(output.auxiliary_logits, view.labels, class_weights)
        assert terms["main"].item() == pytest.approx(main, rel=1e-5)
        assert terms["auxiliary"].item() == pytest.approx(0.5 * auxiliary, rel=1e-5)


def test_each_option_matters() -> None:
    view, output = case(0)
    configs = (
        SupervisedConfig(),
        SupervisedConfig(class_balance=True),
        SupervisedConfig(hardest=0.2),
        SupervisedConfig(class_balance=True, hardest=0.2),
    )
    values = [c.build(CLASSES).terms(view, output, CONTEXT)["main"].item() for c in configs]
    assert len({round(value, 5) for value in values}) == len(configs)


def test_without_auxiliary_weight_the_head_is_neither_needed_nor_read() -> None:
    view, output = case(0)
    config = SupervisedConfig(auxiliary_weight=0.0)
    assert config.needs() == {"source"}
    assert SupervisedConfig().needs() == {"source", "auxiliary_head"}
    terms = config.build(CLASSES).terms(view, output.replace(auxiliary_logits=None), CONTEXT)
    assert list(terms) == ["main"]


def test_the_moving_average_is_saved_with_the_run() -> None:
    balanced = SupervisedConfig(class_balance=True).build(CLASSES)
    balanced.terms(*case(0), CONTEXT)
    state = balanced.state_dict()
    assert list(state) == ["balance.rarity"]
    assert state["balance.rarity"].tolist() == pytest.approx([1, 1, 1, 1.6, 1.6])
    assert SupervisedConfig().build(CLASSES).state_dict() == {}
