"""mmsegmentation's photometric distortion, by hand and against Python's own color arithmetic."""

import colorsys
from collections import Counter
from itertools import product

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from uda.augmentation.policies import photometric_distortion, saturated

COLORS = ((200, 40, 90), (10, 250, 130), (60, 60, 60), (0, 0, 255), (255, 250, 0))


def picture(*colors: tuple[int, int, int]) -> Tensor:
    """(3, 1, W) uint8"""
    return torch.tensor(colors, dtype=torch.uint8).T[:, None].contiguous()


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.3, 1.5])
def test_saturation_is_that_of_hsv(factor: float) -> None:
    expected = []
    for color in COLORS:
        hue, saturation, value = colorsys.rgb_to_hsv(*(level / 255 for level in color))
        changed = colorsys.hsv_to_rgb(hue, min(1.0, factor * saturation), value)
        expected.append([round(255 * level) for level in changed])
    found = saturated(picture(*COLORS), factor)[:, 0].T
    assert (found.int() - torch.tensor(expected)).abs().max() <= 1


def test_gray_keeps_its_hue_and_saturation_and_moves_by_hand() -> None:
    """Level 100 plus 32 at most, times 0.5 to 1.5, in either order: 34 to 198. Added last, no more
    than 182 comes of it."""
    generator, draws = torch.Generator().manual_seed(0), 3000
    seen = torch.stack([
        photometric_distortion(picture((100, 100, 100)), generator).flatten() for _ in range(draws)
    ])  # fmt: skip
    assert torch.equal(seen[:, 0], seen[:, 1])
    assert torch.equal(seen[:, 0], seen[:, 2])
    levels = seen[:, 0].int()
    assert 34 <= levels.min() < 40
    assert 182 < levels.max() <= 198
    # Neither brightness nor contrast: a quarter, and the few that round to 100 again.
    assert (levels == 100).float().mean().item() == pytest.approx(0.25 + 0.0085, abs=0.015)


def test_each_change_comes_half_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    steps = []

    def noted(image: Tensor, hue_factor: float) -> Tensor:
        steps.append(round(180 * hue_factor))
        return image

    monkeypatch.setattr(functional, "adjust_hue", noted)
    generator, draws = torch.Generator().manual_seed(1), 2000
    for _ in range(draws):
        before = len(steps)
        changed = photometric_distortion(picture((200, 40, 90)), generator)[:, 0, 0].float()
        seen["hue"] += len(steps) - before
        saturation = 1 - changed.min() / changed.max()
        seen["pale"] += bool(saturation < 0.7)
    assert seen["hue"] / draws == pytest.approx(0.5, abs=0.035)
    assert set(steps) == set(range(-18, 18))
    assert 0.1 < seen["pale"] / draws < 0.4


def test_every_combination_occurs_and_one_leaves_the_image_itself() -> None:
    image = picture(*COLORS)
    results = [photometric_distortion(image, torch.Generator().manual_seed(s)) for s in range(400)]
    untouched = sum(result is image for result in results)
    assert untouched / 400 == pytest.approx(1 / 16, abs=0.04)
    assert len({result.numpy().tobytes() for result in results}) > 300


def test_a_crop_of_the_distorted_is_the_distorted_crop() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 12, 10), dtype=torch.uint8, generator=generator)
    for seed, (top, left) in product(range(30), ((0, 0), (5, 3))):
        whole = photometric_distortion(image, torch.Generator().manual_seed(seed))
        part = image[:, top : top + 6, left : left + 6]
        alone = photometric_distortion(part, torch.Generator().manual_seed(seed))
        assert torch.equal(whole[:, top : top + 6, left : left + 6], alone)
