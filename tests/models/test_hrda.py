"""HRDA: the paper's geometry and fusion by hand, what its details learn, and runs with it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.models.decoders.base import decoder_configs
from uda.models.decoders.daformer import DAFormerConfig
from uda.models.decoders.linear import LinearConfig
from uda.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.hrda import Box, Hrda, HrdaConfig
from uda.models.segmenter import SegmentationOutput
from uda.objectives.functional.losses import cross_entropy, segmentation_loss
from uda.optim.teacher import MeanTeacher, TeacherConfig

SMALL = EncoderDecoderConfig(
    encoder=EncoderConfig(name="resnet18", weights="none", width=8),
    decoder=DAFormerConfig(channels=8),
    hrda=HrdaConfig(crop=32, attention=DAFormerConfig(channels=8, fusion="conv1")),
    dropout=0.0,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def geometry(*, crop: int = 512, stride: int = 4, unit: int = 8) -> Hrda:
    return Hrda(nn.Identity(), crop=crop, stride=stride, unit=unit)


def grid(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows)[None, None]


CONTEXT = grid([[1, 2], [3, 4]])
HALF = grid([[0.5, 0.5], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("weights", "box", "detail", "expected"),
    [
        (
            HALF,
            Box(0, 8, 0, 8),  # one cell of the context; its weight bleeds half a cell further
            torch.full((1, 1, 2, 2), 10.0),
            [
                [5.5, 4.625, 1.625, 2],
                [4.875, 4.28125, 2.15625, 2.5],
                [2.375, 2.65625, 3.21875, 3.5],
                [3, 3.25, 3.75, 4],
            ],
        ),
        (
            HALF,
            Box(0, 16, 0, 16),
            torch.full((1, 1, 4, 4), 10.0),
            [
                [5.5, 5.625, 5.875, 6],
                [5.75, 5.875, 6.125, 6.25],
                [6.25, 6.375, 6.625, 6.75],
                [6.5, 6.625, 6.875, 7],
            ],
        ),
    ],
    ids=["one detail", "details everywhere"],
)
def test_fusion(weights: Tensor, box: Box, detail: Tensor, expected: list[list[float]]) -> None:
    fused = geometry().fused(CONTEXT, weights, detail, box)
    torch.testing.assert_close(fused, grid(expected))


def test_context_is_weighted_before_it_is_upsampled() -> None:
    weights, nothing = grid([[1.0, 0.0], [0.0, 1.0]]), torch.zeros(1, 1, 4, 4)
    fused = geometry().fused(CONTEXT, weights, nothing, Box(0, 16, 0, 16))
    # The other order would give 0.375, 0.65625, 1.40625, 1.875.
    torch.testing.assert_close(fused[0, 0, 1], torch.tensor([0.75, 0.9375, 1.3125, 1.5]))


@pytest.mark.parametrize(
    ("side", "crop", "firsts"),
    [
        (1024, 512, [0, 256, 512]),
        (2048, 1024, [0, 512, 1024]),
        (1080, 1024, [0, 56]),
        (1920, 1024, [0, 512, 896]),
        (400, 512, [0]),
    ],
)
def test_windows(side: int, crop: int, firsts: list[int]) -> None:
    boxes = geometry(crop=crop).windows(side, crop)
    assert [box.top for box in boxes] == firsts
    assert all(box.size == (min(crop, side), crop) for box in boxes)
    across = geometry(crop=crop).windows(crop, side)
    assert [box.left for box in across] == firsts


def test_random_boxes() -> None:
    """Of 1024 pixels, details of 512 begin at 0, 8, ..., 504, and never at 512."""
    boxes = [geometry().random_box(1024, 512) for _ in range(1500)]
    assert {box.top for box in boxes} == set(range(0, 505, 8))
    assert {(box.left, box.right) for box in boxes} == {(0, 512)}
    assert geometry().random_box(40, 48) == Box(0, 40, 0, 48)
    torch.manual_seed(3)
    first = geometry().random_box(1024, 1024)
    torch.manual_seed(3)
    assert geometry().random_box(1024, 1024) == first


def test_average_of_windows() -> None:
    """Each detail answers with its own number: overlaps have the mean of theirs."""

    def number(parts: Tensor) -> Tensor:
        assert parts.shape == (6, 3, 16, 16)  # 3 details of each of 2 images, in that order
        return torch.arange(3.0).repeat_interleave(2)[:, None, None, None].expand(6, 1, 4, 4)

    found = geometry(crop=16).averaged(torch.rand(2, 3, 16, 32), number)
    row = torch.tensor([0, 0, 0.5, 0.5, 1.5, 1.5, 2, 2])
    torch.testing.assert_close(found, row.expand(2, 1, 4, 8))


def network(config: EncoderDecoderConfig = SMALL) -> EncoderDecoder:
    return config.build(5)


def test_learning_looks_at_one_detail() -> None:
    student = network()
    images = torch.rand(2, 3, 64, 96)
    output = student(images)
    assert output.detail_box is not None
    assert output.detail_logits is not None
    assert output.logits.shape == (2, 5, 64, 96)
    assert output.detail_logits.shape == (2, 5, 32, 32)
    top, bottom, left, right = output.detail_box.tolist()
    assert (bottom - top, right - left) == (32, 32)
    assert top % 8 == left % 8 == 0
    assert output.features.shape == (2, 64, 2, 3)  # of the context
    student.eval()  # otherwise other statistics normalize
    with torch.no_grad():
        box = Box(16, 48, 40, 72)
        normalized = student.normalize(images)
        hrda: Any = student.hrda

        def head(features: tuple[Tensor, ...]) -> Tensor:
            return student.decode(features).logits

        learned = hrda(normalized, student.encode, student.decode, head, box=box)
        detail = head(student.encode(box.of(normalized)))
        torch.testing.assert_close(learned.detail_logits, detail)
        features = student.encode(F.avg_pool2d(normalized, 2))
        weights = hrda.attention(features).sigmoid()
        expected = hrda.fused(head(features), weights, detail, box)
        torch.testing.assert_close(learned.logits, expected)


def test_labeling_looks_at_details_everywhere() -> None:
    student = network()
    seen: list[tuple[int, ...]] = []
    student.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    teacher = MeanTeacher(student, TeacherConfig())
    images = torch.rand(2, 3, 64, 96)
    logits = teacher(images)
    assert any(layer.training for layer in teacher.network.modules())
    assert logits.shape == (2, 5, 64, 96)
    output = student.eval()(images)
    assert output.detail_logits is None
    assert output.detail_box is None
    assert seen[-2:] == [(2, 3, 32, 48), (2 * 3 * 5, 3, 32, 32)]


@pytest.mark.parametrize("size", [(65, 97), (33, 20)])
def test_sizes_that_do_not_fit_are_padded(size: tuple[int, int]) -> None:
    student = network(replace(SMALL, auxiliary=LinearConfig()))
    images = torch.rand(2, 3, *size)
    output = student(images)
    assert output.logits.shape[2:] == size
    assert output.auxiliary_logits is not None
    assert output.auxiliary_logits.shape[2:] == size
    assert output.detail_logits is not None
    assert output.detail_box is not None
    top, bottom, left, right = output.detail_box.tolist()
    assert bottom <= size[0]
    assert right <= size[1]
    assert output.detail_logits.shape[2:] == (bottom - top, right - left)
    loss = segmentation_loss(output, torch.randint(0, 5, (2, *size)))
    loss.backward()
    assert student.eval()(images).logits.shape[2:] == size


def test_a_detail_of_images_that_patches_do_not_divide() -> None:
    """HRDA pads to whole details; what is learned of a detail ends with the image."""
    config = EncoderDecoderConfig(
        encoder=EncoderConfig(name="dinov2_vits14", weights="none"),
        decoder=LinearConfig(),
        hrda=HrdaConfig(crop=84),
    )
    output = config.build(5)(torch.rand(1, 3, 60, 75))
    assert output.logits.shape == (1, 5, 60, 75)
    assert output.detail_box is not None
    assert output.detail_box.tolist() == [0, 60, 0, 75]
    labels = torch.zeros(1, 60, 75, dtype=torch.long)
    segmentation_loss(output, labels).backward()


@pytest.mark.parametrize("name", decoder_configs())
def test_any_decoder(name: str) -> None:
    student = network(replace(SMALL, decoder=decoder_configs()[name](), hrda=HrdaConfig(crop=64)))
    images = torch.rand(2, 3, 128, 64)
    assert student(images).logits.shape == (2, 5, 128, 64)
    assert student.eval()(images).logits.shape == (2, 5, 128, 64)


def output_of(logits: Tensor, detail: Tensor, box: Box) -> SegmentationOutput:
    return SegmentationOutput(
        logits, None, logits, detail_logits=detail, detail_box=torch.tensor(box)
    )


def test_loss_of_a_detail() -> None:
    """0.9 of the mean over all labeled pixels, 0.1 of that over the detail's."""
    logits = torch.zeros(1, 2, 4, 4)
    detail = torch.zeros(1, 2, 2, 2)
    detail[:, 0] = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[0, 1, 2], labels[0, 0, 0] = 255, 255
    box = Box(1, 3, 2, 4)  # its first pixel has no label
    found = segmentation_loss(output_of(logits, detail, box), labels)
    of_detail = -torch.tensor([1.0, 2.0, 3.0]).sigmoid().log().mean()
    torch.testing.assert_close(found, 0.9 * torch.tensor(2.0).log() + 0.1 * of_detail)
    weights = torch.arange(16.0).view(1, 4, 4)
    weighted = segmentation_loss(output_of(logits, detail, box), labels, weights=weights)
    expected = 0.9 * cross_entropy(logits, labels, weights=weights) + 0.1 * cross_entropy(
        detail, labels[:, 1:3, 2:4], weights=weights[:, 1:3, 2:4]
    )
    torch.testing.assert_close(weighted, expected)
    plain = SegmentationOutput(logits, None, logits)
    assert torch.equal(segmentation_loss(plain, labels), cross_entropy(logits, labels))


@pytest.mark.parametrize(
    ("loss", "attention"),
    [
        (lambda output: segmentation_loss(output, torch.ones(2, 64, 96, dtype=torch.long)), True),
        (lambda output: output.logits.square().mean(), True),
        (lambda output: output.detail_logits.square().mean(), False),
    ],
    ids=["both", "fused", "detail"],
)
def test_gradients(loss: Callable[[SegmentationOutput], Tensor], attention: bool) -> None:
    """The attention learns through the fusion alone; all else from each of the two losses."""
    student = network()
    loss(student(torch.rand(2, 3, 64, 96))).backward()
    for name, parameter in student.named_parameters():
        learned = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert learned == (attention or not name.startswith("hrda.")), name
    heads = {id(p) for p in student.head_parameters()}
    assert student.hrda is not None
    assert all(id(p) in heads for p in student.hrda.parameters())


def test_attention_starts_near_one_half() -> None:
    student = network(replace(SMALL, hrda=HrdaConfig(crop=32))).eval()
    with torch.no_grad():
        features = student.encode(torch.rand(1, 3, 32, 32))
        hrda: Any = student.hrda
        assert hrda.attention(features).sigmoid().sub(0.5).abs().max() < 0.2


def test_the_deepest_features_are_the_contexts() -> None:
    network = SMALL.build(4).eval()
    for size in ((64, 96), (61, 90)):
        images = torch.rand(2, 3, *size)
        with torch.no_grad():
            assert torch.equal(network.deepest_features(images), network(images).features)
