"""Mask2Former: values worked out by hand, and what every network owes its users."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

from trials import small_mask2former
from uda.models.encoders.resnet import resnet_backbone
from uda.models.mask2former import Mask2FormerConfig, log_scores
from uda.models.segmenter import BatchNormMode
from uda.utilities.errors import InputError

TINY = replace(small_mask2former(), backbone_width=4, queries=6, encoder_width=16, decoder_width=16)


@pytest.fixture(autouse=True, scope="module")
def _library() -> None:
    pytest.importorskip("transformers")


def logit(share: float) -> float:
    return math.log(share / (1 - share))


def test_logits_by_hand() -> None:
    """Two queries, two classes, one pixel.

    Class shares 0.5, 0.3 (none: 0.2) and 0.1, 0.8 (none: 0.1); masks 0.9 and 0.25. Scores
    0.5 * 0.9 + 0.1 * 0.25 = 0.475 and 0.3 * 0.9 + 0.8 * 0.25 = 0.47.
    """
    classes = torch.tensor([[[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]]).log() + 3  # softmax drops the 3
    masks = torch.tensor([logit(0.9), logit(0.25)]).view(1, 2, 1, 1)
    logits = log_scores(classes, masks)
    assert logits.flatten().tolist() == pytest.approx([math.log(0.475), math.log(0.47)])
    shares = logits.softmax(dim=1).flatten().tolist()
    assert shares == pytest.approx([0.475 / 0.945, 0.47 / 0.945])


def test_logits_are_finite_where_no_query_is() -> None:
    masks = torch.full((1, 2, 1, 1), -200.0, requires_grad=True)
    logits = log_scores(torch.zeros(1, 2, 4), masks)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert masks.grad is not None
    assert masks.grad.isfinite().all()


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (17, 33), (1, 1)])
def test_any_size_and_every_layer_speaks(size: tuple[int, int]) -> None:
    output = TINY.build(5)(torch.rand(2, 3, *size))
    assert output.logits.shape == (2, 5, *size)
    assert output.auxiliary_logits is None
    assert output.features.shape == (2, 32, *(-(-side // 32) for side in size))
    assert output.query_classes is not None
    assert output.query_masks is not None
    assert output.query_classes.shape == (3, 2, 6, 6)  # before the first of two layers, too
    assert output.query_masks.shape == (3, 2, 6, *(-(-side // 4) for side in size))


def test_only_training_keeps_what_layers_say() -> None:
    network = TINY.build(5).eval()
    output = network(torch.rand(1, 3, 32, 32))
    assert output.query_classes is None
    assert output.query_masks is None
    assert network.has_auxiliary_head is TINY.has_auxiliary_head is False
    assert TINY.has_queries


def test_what_losses_read_is_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        output = TINY.build(5)(torch.rand(2, 3, 64, 64))
    for part in (output.logits, output.query_classes, output.query_masks):
        assert part is not None
        assert part.dtype == torch.float32


def test_pixelwise_losses_reach_every_parameter() -> None:
    torch.manual_seed(0)
    network = TINY.build(5)
    labels = torch.randint(5, (2, 64, 64))
    nn.functional.cross_entropy(network(torch.rand(2, 3, 64, 64)).logits, labels).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("mode", get_args(BatchNormMode))
def test_parameter_groups_and_batch_norm(mode: BatchNormMode) -> None:
    network = replace(TINY, batch_norm=mode).build(5)
    backbone, heads = network.backbone_parameters(), network.head_parameters()
    assert {id(p) for p in backbone}.isdisjoint(id(p) for p in heads)
    assert len(backbone) + len(heads) == sum(p.requires_grad for p in network.parameters())
    norms = [m for m in network.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.weight.requires_grad == (mode == "train") for norm in norms)
    assert all(norm.training == (mode != "frozen") for norm in norms)


def test_weights_of_a_file_and_where_they_came_from(tmp_path: Path) -> None:
    path = tmp_path / "trunk.pth"
    trunk = resnet_backbone("resnet18", width=4, weights="none")
    torch.save(trunk.state_dict(), path)
    network = replace(TINY, backbone_weights=str(path)).build(5)
    assert network.provenance.startswith("file trunk.pth sha256:")
    assert torch.equal(network.backbone.state_dict()["conv1.weight"], trunk.conv1.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dropout": 0.1}, "model.dropout is 0.1, but Mask2Former has none"),
        ({"queries": 0}, "model.queries is 0; allowed: 1 or more"),
        ({"decoder_layers": 0}, "model.decoder_layers is 0"),
        ({"channels": 80}, "model.channels is 80; allowed: multiples of 32"),
        ({"channels": 32}, "model.channels is 32; allowed: .* 64 or more"),
        ({"attention_heads": 3}, r"of model.attention_heads \(3\)"),
        ({"queries": 10_000}, "model.queries is 10000; allowed: up to"),
        ({"backbone": "vgg16"}, "'vgg16'; allowed: resnet18"),
    ],
)
def test_values_that_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(TINY, **changes).build(5)  # type: ignore[arg-type]


def test_the_papers_size() -> None:
    """44 million parameters on a ResNet-50, as table 1 of the paper has it."""
    with torch.device("meta"):
        network = Mask2FormerConfig(backbone_weights="none").build(133)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(44e6, rel=0.01)


def test_without_the_extra_one_line_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"Mask2Former needs .*pip install 'uda\[transformers\]'"):
        TINY.build(5)
