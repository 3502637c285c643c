"""Mixing: what is pasted, what is chosen, and that no input changes."""

import pytest
import torch

from uda.labels.spaces import IGNORE_INDEX
from uda.objectives.functional.mixing import half_of_classes, paste, random_boxes

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def random_labels(samples: int, *, num_classes: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, num_classes, (samples, 6, 8), generator=generator)
    labels[:, 0] = IGNORE_INDEX
    return labels


def test_paste_labels_by_hand() -> None:
    where = torch.tensor([[[True, False], [False, True]]])
    mixed = paste(torch.full((1, 2, 2), 5), onto=torch.zeros(1, 2, 2).long(), where=where)
    assert mixed.tolist() == [[[5, 0], [0, 5]]]


@pytest.mark.parametrize("device", DEVICES)
def test_paste_takes_every_channel_of_the_chosen_pixels(device: str) -> None:
    pasted, onto = torch.rand(2, 2, 3, 4, 5, device=device)
    where = torch.rand(2, 4, 5, device=device) < 0.5
    mixed = paste(pasted, onto=onto, where=where)
    for channel in range(3):
        assert torch.equal(mixed[:, channel][where], pasted[:, channel][where])
        assert torch.equal(mixed[:, channel][~where], onto[:, channel][~where])


@pytest.mark.parametrize("chosen", [True, False])
def test_paste_shares_no_memory_with_its_inputs_and_leaves_them_alone(chosen: bool) -> None:
    pasted, onto = torch.rand(2, 1, 3, 4, 5)
    before = pasted.clone(), onto.clone()
    mixed = paste(pasted, onto=onto, where=torch.full((1, 4, 5), chosen))
    mixed.zero_()
    assert torch.equal(pasted, before[0])
    assert torch.equal(onto, before[1])


def test_paste_keeps_channels_last() -> None:
    pasted, onto = torch.rand(2, 2, 3, 4, 5).unbind()
    pasted = pasted.contiguous(memory_format=torch.channels_last)
    onto = onto.contiguous(memory_format=torch.channels_last)
    mixed = paste(pasted, onto=onto, where=torch.rand(2, 4, 5) < 0.5)
    assert mixed.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("mask", [(1, 4, 5), (2, 1, 4, 5), (2, 5, 4)])
def test_paste_refuses_a_mask_of_another_shape(mask: tuple[int, ...]) -> None:
    images = torch.rand(2, 3, 4, 5)
    with pytest.raises(ValueError, match=r"the mask \(2, 4, 5\)"):
        paste(images, onto=images, where=torch.ones(mask, dtype=torch.bool))


@pytest.mark.parametrize("num_classes", [1, 2, 5, 6])
@pytest.mark.parametrize("device", DEVICES)
def test_half_of_the_classes_present_rounded_up(num_classes: int, device: str) -> None:
    labels = (torch.arange(60) % num_classes * 3).view(1, 6, 10).to(device)  # ids 0, 3, 6, ...
    labels[:, 0, :3] = IGNORE_INDEX
    mask = half_of_classes(labels, generators(0))
    assert mask.dtype == torch.bool
    assert mask.device == labels.device
    assert len(labels[mask].unique()) == (num_classes + 1) // 2
    assert not mask[labels == IGNORE_INDEX].any()
    # A chosen class is chosen with all its pixels.
    assert torch.isin(labels, labels[mask].unique()).equal(mask)


def test_half_of_classes_without_labels_is_empty() -> None:
    labels = random_labels(2)
    labels[0] = IGNORE_INDEX
    mask = half_of_classes(labels, generators(0, 1))
    assert not mask[0].any()
    assert mask[1].any()


def test_every_class_is_as_likely_as_the_others() -> None:
    labels = torch.arange(4).view(1, 2, 2).expand(2000, -1, -1)
    shares = half_of_classes(labels, generators(*range(2000))).float().mean(dim=0)
    # Each is drawn with probability 1/2; four standard deviations of 2000 draws are 0.045.
    assert shares.flatten().tolist() == pytest.approx([0.5] * 4, abs=0.045)


def test_half_of_classes_is_drawn_per_sample() -> None:
    labels = random_labels(3)
    before = labels.clone()
    together = half_of_classes(labels, generators(10, 11, 12))
    assert torch.equal(labels, before)
    for index, seed in enumerate((10, 11, 12)):
        alone = half_of_classes(labels[index : index + 1], generators(seed))
        assert torch.equal(alone[0], together[index])


@pytest.mark.parametrize("count", [1, 3])
def test_one_generator_per_sample_is_required(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} generators for 2 samples"):
        half_of_classes(random_labels(2), generators(*range(count)))


def test_boxes_cover_a_third_of_the_image() -> None:
    boxes = random_boxes((90, 160), generators(*range(2000)))
    assert boxes.shape == (2000, 90, 160)
    assert boxes.dtype == torch.bool
    # The log's CutMix: 31.9 % on average. The standard deviation over boxes is about 0.23, so four
    # standard errors are 0.02.
    assert boxes.float().mean().item() == pytest.approx(0.319, abs=0.02)


def test_a_box_is_a_filled_rectangle() -> None:
    for box in random_boxes((18, 32), generators(*range(50))):
        rows, columns = box.any(dim=1), box.any(dim=0)
        assert torch.equal(box, rows.unsqueeze(1) & columns)
        for side in (rows, columns):
            assert (side.int().diff().abs().sum() + side[0] + side[-1]).item() in (0, 2)


@pytest.mark.parametrize("device", DEVICES)
def test_boxes_are_drawn_per_sample(device: str) -> None:
    together = random_boxes((9, 16), generators(4, 5, 6), device=torch.device(device))
    assert together.device.type == device
    for index, seed in enumerate((4, 5, 6)):
        assert torch.equal(random_boxes((9, 16), generators(seed))[0], together[index].cpu())
