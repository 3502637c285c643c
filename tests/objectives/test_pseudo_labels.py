"""Pseudo-labels and their confidence on maps of a few pixels."""

import pytest
import torch

from uda.objectives.functional.pseudo_labels import confidence_weights, pseudo_label


def test_the_most_probable_class_and_its_probability() -> None:
    probabilities = torch.tensor([[0.7, 0.1], [0.2, 0.45], [0.1, 0.45]])
    probabilities[2, 1] += 0.01
    logits = probabilities.log().view(1, 3, 1, 2) + 5  # a constant changes no probability
    labels, confidence = pseudo_label(logits)
    assert labels.tolist() == [[[0, 2]]]
    assert labels.dtype == torch.int64
    assert confidence.flatten().tolist() == pytest.approx([0.7, 0.46 / 1.01])


def test_no_gradient_and_no_change_of_the_logits() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    before = logits.detach().clone()
    pseudo = pseudo_label(logits)
    assert not pseudo.confidence.requires_grad
    assert torch.equal(logits.detach(), before)


def test_confidence_of_half_precision_logits_is_single_precision() -> None:
    # Just below 1, bfloat16 knows 0.996 only: 0.998 would come out as 0.996 or 1.
    logits = torch.tensor([6.25, 0.0], dtype=torch.bfloat16).view(1, 2, 1, 1)
    confidence = pseudo_label(logits).confidence
    assert confidence.dtype == torch.float32
    assert confidence.item() == pytest.approx(0.998073, abs=1e-6)


def test_weights_from_confidence() -> None:
    confidence = torch.tensor([[[0.5, 0.9], [0.75, 0.2]], [[0.1, 0.1], [0.1, 0.8]]])
    weights = confidence_weights(confidence, 0.75, "pixel")  # 0.75 itself is confident
    assert weights.tolist() == [[[0, 1], [1, 0]], [[0, 0], [0, 1]]]
    assert weights.dtype == torch.float32
    assert confidence_weights(confidence, 0.75, "image_share").tolist() == [[[0.5]], [[0.25]]]


def test_the_share_of_the_whole_batch_by_hand() -> None:
    """Two images of four pixels: 4 of 8 are sure; DACS, DAFormer and MIC weigh both by that."""
    confidence = torch.tensor([[[0.97, 0.5], [0.99, 0.968]], [[0.2, 0.2], [0.2, 0.97]]])
    assert confidence_weights(confidence, 0.968, "batch_share").tolist() == [[[0.5]], [[0.5]]]
    assert confidence_weights(confidence, 0.968, "image_share").tolist() == [[[0.75]], [[0.25]]]
