"""Rectified pseudo-labels: values by hand, and labels that count less where heads disagree."""

import math

import pytest
import torch
from torch import Tensor

from uda.augmentation.jitter import JitterConfig
from uda.data.batch import Batch, View
from uda.labels.spaces import IGNORE_INDEX
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.rectified_pseudo_label import RectifiedPseudoLabelConfig
from uda.utilities.errors import InputError

CONTEXT = StepContext(step=0, seed=0, indices=(0,))
LOG_2, LOG_3 = math.log(2), math.log(3)


def logits(*pixels: tuple[float, float]) -> Tensor:
    """(1, 2, 1, P) whose softmax is `pixels`."""
    return torch.tensor(pixels).log().T.reshape(1, 2, 1, -1)


def output() -> SegmentationOutput:
    """The heads disagree in the first pixel, (1, 1) / 2 and (1, 3) / 4, and not in the second."""
    return SegmentationOutput(
        logits((0.5, 0.5), (0.25, 0.75)).requires_grad_(),
        logits((0.25, 0.75), (0.25, 0.75)).requires_grad_(),
        torch.zeros(1, 1, 1, 1),
    )


def view(*labels: int) -> View:
    return View("target", torch.zeros(1, 3, 1, 2), torch.tensor([[labels]]))


# KL(auxiliary || main) = 1/4 log 1/2 + 3/4 log 3/2, and KL(main || auxiliary) = 1/2 log 2 + 1/2
# log 2/3, both of the first pixel and 0 in the second.
OF_MAIN = 0.75 * LOG_3 - LOG_2
OF_AUXILIARY = LOG_2 - 0.5 * LOG_3


def test_both_heads_by_hand() -> None:
    terms = RectifiedPseudoLabelConfig().build(2).terms(view(1, 0), output(), CONTEXT)
    assert list(terms) == ["main", "auxiliary"]
    # The labels cost the main head log 2 and log 4, the auxiliary one log 4/3 and log 4.
    main = (LOG_2 * math.exp(-OF_MAIN) + 2 * LOG_2 + OF_MAIN) / 2
    first = (2 * LOG_2 - LOG_3) * math.exp(-OF_AUXILIARY)
    auxiliary = (first + 2 * LOG_2 + OF_AUXILIARY) / 2
    assert terms["main"].item() == pytest.approx(main)
    assert terms["auxiliary"].item() == pytest.approx(0.5 * auxiliary)


def test_ignored_pixels_count_in_both_means() -> None:
    said = output()
    terms = RectifiedPseudoLabelConfig().build(2).terms(view(IGNORE_INDEX, 0), said, CONTEXT)
    assert terms["main"].item() == pytest.approx((2 * LOG_2 + OF_MAIN) / 2)
    assert terms["auxiliary"].item() == pytest.approx(0.5 * (2 * LOG_2 + OF_AUXILIARY) / 2)
    nothing = view(IGNORE_INDEX, IGNORE_INDEX)
    terms = RectifiedPseudoLabelConfig().build(2).terms(nothing, said, CONTEXT)
    assert terms["main"].item() == pytest.approx(OF_MAIN / 2)


def test_class_weights_are_factors_of_the_cross_entropy_alone() -> None:
    """Both classes are rare (weight 7); class 1 is absent too: 7 * (0.9 + 0.1 * 7)."""
    objective = RectifiedPseudoLabelConfig(class_balance=True).build(2)
    terms = objective.terms(view(IGNORE_INDEX, 0), output(), CONTEXT)
    assert terms["main"].item() == pytest.approx((7 * 2 * LOG_2 + OF_MAIN) / 2)
    terms = objective.terms(view(IGNORE_INDEX, 1), output(), CONTEXT)
    # The average of class 1 was 1.6 and is 0.9 * 1.6 + 0.1 * 1 = 1.54; log 4/3 is its cost.
    main = (7 * 1.54 * (2 * LOG_2 - LOG_3) + OF_MAIN) / 2
    assert terms["main"].item() == pytest.approx(main)
    assert list(objective.state_dict()) == ["balance.rarity"]


@pytest.mark.parametrize(("against", "share"), [(0.5, 1.0), (0.25, 0.877), (0.01, 0.529)])
def test_disagreement_takes_the_labels_part_away(against: float, share: float) -> None:
    """What the label adds to the main head's loss, log 2, counts exp(-KL(other || (1, 1) / 2))."""
    said = output().replace(
        logits=logits((0.5, 0.5)), auxiliary_logits=logits((1 - against, against))
    )
    objective = RectifiedPseudoLabelConfig().build(2)
    with_label, without = (
        objective.terms(View("target", torch.zeros(1, 3, 1, 1), labels), said, CONTEXT)["main"]
        for labels in (torch.tensor([[[1]]]), torch.tensor([[[IGNORE_INDEX]]]))
    )
    assert (with_label - without).item() == pytest.approx(share * LOG_2, abs=1e-3)


def test_gradients_reach_both_heads_from_either_term() -> None:
    for term in ("main", "auxiliary"):
        said = output()
        RectifiedPseudoLabelConfig().build(2).terms(view(1, 0), said, CONTEXT)[term].backward()
        assert said.auxiliary_logits is not None
        for head in (said.logits, said.auxiliary_logits):
            assert head.grad is not None
            assert head.grad.any()


def test_with_jitter_the_student_sees_a_view_of_its_own() -> None:
    config = RectifiedPseudoLabelConfig(jitter=JitterConfig())
    plain, jittered = RectifiedPseudoLabelConfig().build(2), config.build(2)
    images = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    batch = Batch(
        source_images=images,
        source_labels=torch.zeros(1, 8, 12, dtype=torch.int64),
        target_images=images,
        target_pseudo_labels=torch.ones(1, 8, 12, dtype=torch.int64),
        indices=CONTEXT.indices,
        source_names=("a",),
        target_names=("b",),
    )
    assert plain.reads == {"target"}
    assert plain.views(batch, CONTEXT) == ()
    assert jittered.reads == {"rectified_pseudo_label"}
    (seen,) = jittered.views(batch, CONTEXT)
    assert seen.name == "rectified_pseudo_label"
    assert seen.labels is batch.target_pseudo_labels
    assert not torch.equal(seen.images, images)
    assert config.adds() == {"rectified_pseudo_label"}
    assert RectifiedPseudoLabelConfig().adds() == frozenset()


def test_needs_both_heads_whatever_the_settings() -> None:
    config = RectifiedPseudoLabelConfig()
    assert config.needs() == {"target", "pseudo_labels", "auxiliary_head"}
    config.check("rectified")
    for weight in (0.0, -0.5):
        with pytest.raises(InputError, match=r"rectified\.auxiliary_weight is .* above 0"):
            RectifiedPseudoLabelConfig(auxiliary_weight=weight).check("rectified")
