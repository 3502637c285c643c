"""Policies: the log's against PIL's own arithmetic, and that none of them moves a pixel."""

import random
from collections import Counter
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from uda.augmentation import policies
from uda.augmentation.clahe import Levels
from uda.augmentation.policies import PIXELWISE, PolicyName, _torchvision_policy, apply_policy
from uda.utilities.errors import InputError

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
NAMES: tuple[PolicyName, ...] = get_args(PolicyName)
# What these make of a pixel depends on its neighborhood at most a pixel or two away.
POINTWISE = tuple(name for name in NAMES if name != "clahe_brightness_contrast")

Change = Callable[[Image.Image], Image.Image]
Operation = tuple[Change, ...]  # equally likely changes


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(height: int = 30, width: int = 50) -> Image.Image:
    """Enough pixels that equalizing does something: PIL wants one per level."""
    levels = np.random.default_rng(0).integers(30, 220, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def photograph(height: int = 48, width: int = 64) -> Image.Image:
    """Smooth ramps of all three colors, and a bright box."""
    y, x = np.mgrid[:height, :width] / (height, width)[0]
    levels = np.stack([40 + 120 * y, 60 + 90 * x, 200 - 70 * (x + y)], axis=2)
    levels[10:20, 12:30] += 40
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def as_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).contiguous()


# The log's policy once more, in PIL's own functions and with magnitudes worked out by hand from
# their index k of 0..9: bits 8 - 4k/9, rounded; threshold 256 - 256k/9; factor 1 +- k/10.
def posterize(bits: int) -> Operation:
    return (lambda image: ImageOps.posterize(image, bits),)


def solarize(first_inverted: int) -> Operation:
    levels = [v if v < first_inverted else 255 - v for v in range(256)]
    return (lambda image: image.point(levels * 3),)


def color(change: float) -> Operation:
    return (
        lambda image: ImageEnhance.Color(image).enhance(1 + change),
        lambda image: ImageEnhance.Color(image).enhance(1 - change),
    )


def contrast(change: float) -> Operation:
    return (
        lambda image: ImageEnhance.Contrast(image).enhance(1 + change),
        lambda image: ImageEnhance.Contrast(image).enhance(1 - change),
    )


def sharpness(change: float) -> Operation:
    return (
        lambda image: ImageEnhance.Sharpness(image).enhance(1 + change),
        lambda image: ImageEnhance.Sharpness(image).enhance(1 - change),
    )


EQUALIZE: Operation = (ImageOps.equalize,)
AUTOCONTRAST: Operation = (ImageOps.autocontrast,)
INVERT: Operation = (ImageOps.invert,)
# Index 5 of solarize: 256 * 4/9 = 113.8, so 114 is the first level inverted; index 4: 142.2; index
# 3: 170.7; index 7: 56.9. Posterize at 5: 5.8 bits, at 6: 5.3, at 7: 4.9.
LOG = (
    ((0.6, solarize(114)), (0.6, AUTOCONTRAST)),
    ((0.8, EQUALIZE), (0.6, EQUALIZE)),
    ((0.6, posterize(5)), (0.6, posterize(5))),
    ((0.4, EQUALIZE), (0.2, solarize(143))),
    ((0.6, solarize(171)), (0.6, EQUALIZE)),
    ((0.8, posterize(6)), (1.0, EQUALIZE)),
    ((0.6, EQUALIZE), (0.4, posterize(5))),
    ((0.0, EQUALIZE), (0.8, EQUALIZE)),
    ((0.6, INVERT), (1.0, EQUALIZE)),
    ((0.6, color(0.4)), (1.0, contrast(0.8))),
    ((0.8, color(0.8)), (0.8, solarize(57))),
    ((0.4, sharpness(0.7)), (0.6, INVERT)),
    ((0.4, color(0.0)), (0.6, EQUALIZE)),
    ((0.4, EQUALIZE), (0.2, solarize(143))),
    ((0.6, solarize(114)), (0.6, AUTOCONTRAST)),
    ((0.6, INVERT), (1.0, EQUALIZE)),
    ((0.6, color(0.4)), (1.0, contrast(0.8))),
    ((0.8, EQUALIZE), (0.6, EQUALIZE)),
)


def log_results(image: Image.Image) -> dict[bytes, float]:
    """Every result that the log's policy can have, with its probability."""
    results: Counter[bytes] = Counter()  # type: ignore[type-arg, unused-ignore]
    for sub_policy in LOG:
        so_far = [(image, 1 / len(LOG))]
        for probability, changes in sub_policy:
            so_far = [
                (change(before), share * probability / len(changes))
                for before, share in so_far
                for change in changes
            ] + [(before, share * (1 - probability)) for before, share in so_far]
        for result, share in so_far:
            results[result.tobytes()] += share  # type: ignore[assignment, unused-ignore]
    return {result: share for result, share in results.items() if share > 0}


def test_the_logs_policy_has_the_results_of_pil_as_often_as_its_table_says() -> None:
    image = noise()
    expected = log_results(image)
    assert sum(expected.values()) == pytest.approx(1)
    assert len(expected) == 30, "the image tells the operations apart"
    draws, generator = 8000, seeded(0)
    seen = Counter(
        apply_policy(image, "autoaugment_log", generator).tobytes() for _ in range(draws)
    )
    assert seen.keys() <= expected.keys()
    for result, share in expected.items():
        deviation = (share * (1 - share) / draws) ** 0.5
        assert seen[result] / draws == pytest.approx(share, abs=4 * deviation)


def test_a_gray_image_by_hand() -> None:
    """Level 100 stays but for: 5 bits, 100 & 248 = 96; invert, or solarize from 56.9, 155."""
    image = Image.new("RGB", (6, 4), (100, 100, 100))
    draws, generator = 4000, seeded(1)
    seen: Counter[int] = Counter()
    for _ in range(draws):
        (level,) = {*apply_policy(image, "autoaugment_log", generator).tobytes()}
        seen[level] += 1
    assert set(seen) == {100, 96, 155}
    # 5 bits: twice .6 in one sub-policy, .4 in another. Inverted: .6 in three, .8 in one.
    assert seen[96] / draws == pytest.approx((0.84 + 0.4) / 18, abs=0.016)
    assert seen[155] / draws == pytest.approx((3 * 0.6 + 0.8) / 18, abs=0.022)


def moves_pixels(
    apply: Callable[[Image.Image, int], Image.Image], monkeypatch: pytest.MonkeyPatch
) -> bool:
    """Whether shuffling an image's pixels before gives another image than shuffling them after.

    Sharpening alone looks at a pixel's neighbors without moving any; it is left out.
    """
    monkeypatch.setattr(functional, "adjust_sharpness", lambda image, sharpness_factor: image)
    image = noise()
    order = np.random.default_rng(1).permutation(image.width * image.height)

    def shuffled(image: Image.Image) -> Image.Image:
        pixels = np.asarray(image)
        return Image.fromarray(pixels.reshape(-1, 3)[order].reshape(pixels.shape))

    results = [(apply(shuffled(image), seed), apply(image, seed)) for seed in range(300)]
    return any(before.tobytes() != shuffled(after).tobytes() for before, after in results)


@pytest.mark.parametrize("name", POINTWISE)
def test_no_pixel_is_moved(name: PolicyName, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not moves_pixels(lambda image, s: apply_policy(image, name, seeded(s)), monkeypatch)


@pytest.mark.parametrize("transform", [v2.AutoAugment(), v2.RandAugment()])
def test_a_policy_with_its_geometric_operations_would_be_noticed(
    transform: v2.Transform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def apply(image: Image.Image, seed: int) -> Image.Image:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return transform(image)

    assert moves_pixels(apply, monkeypatch)


def test_18_of_torchvisions_sub_policies_stay_whole_and_7_keep_one_half() -> None:
    sub_policies = _torchvision_policy("autoaugment")._policies
    assert Counter(len(sub_policy) for sub_policy in sub_policies) == {2: 18, 1: 7}


@pytest.mark.parametrize("kind", ["pil", "tensor"])
def test_equalized_tiles_keep_an_edge_where_it_is(kind: str) -> None:
    levels = np.full((48, 64, 3), 40, np.uint8)
    levels[:, 30:] = 150
    image = Image.fromarray(levels)
    for seed in range(60):
        if kind == "pil":
            result = as_tensor(apply_policy(image, "clahe_brightness_contrast", seeded(seed)))
        else:
            result = apply_policy(as_tensor(image), "clahe_brightness_contrast", seeded(seed))
        assert (result == result[:, :1]).all(), "every row is the first one"
        jumps = result[0, 0].int().diff().abs()
        assert int(jumps.argmax()) == 29


def test_contrast_and_brightness_by_hand() -> None:
    """Draws that leave CLAHE out: a level v becomes 255 * b + c * v, cut off at 0 and 255."""
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2))
    seen = 0
    for seed in range(40):
        clahe, _, change, contrast, brightness = torch.rand(5, generator=seeded(seed)).tolist()
        if clahe < 0.5:
            continue
        result = apply_policy(image, "clahe_brightness_contrast", seeded(seed))
        factor, shift = 0.8 + 0.4 * contrast, 0.4 * brightness - 0.2
        expected = (np.arange(256) * factor + 255 * shift).round().clip(0, 255)
        expected = expected if change < 0.5 else np.arange(256)
        assert (np.asarray(result)[..., 1].ravel() == expected).all()
        seen += change < 0.5
    assert seen > 5


def test_the_clip_limit_is_drawn_from_1_to_4(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []

    def equalized(image: Levels, *, clip_limit: float) -> Levels:
        limits.append(clip_limit)
        return image

    monkeypatch.setattr(policies, "equalize_lightness", equalized)
    for seed in range(200):
        apply_policy(noise(), "clahe_brightness_contrast", seeded(seed))
    assert 70 < len(limits) < 130, "half of the images"
    assert min(limits) == pytest.approx(1, abs=0.2)
    assert max(limits) == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("kind", ["pil", "tensor"])
def test_an_edge_stays_where_it_is(name: PolicyName, kind: str) -> None:
    levels = np.full((48, 64, 3), 40, np.uint8)
    levels[:, 30:] = 150
    image = Image.fromarray(levels)
    edges = 0
    for seed in range(200):
        if kind == "pil":
            result = as_tensor(apply_policy(image, name, seeded(seed)))
        else:
            result = apply_policy(as_tensor(image), name, seeded(seed))
        result = result[:, 2:-2].int()  # sharpening leaves the border out, twice two rows
        assert (result == result[:, :1]).all(), "every row is the first one"
        # Sharpening reaches one pixel far, sharpening twice two.
        for side in (result[:, 0, :28], result[:, 0, 32:]):
            assert (side == side[:, :1]).all()
        edges += bool((result[:, 0, 29] != result[:, 0, 30]).any())
    assert edges > 150  # solarizing may give both sides one level


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_alone_decides(name: PolicyName) -> None:
    image = noise()
    torch.manual_seed(1)
    first = [apply_policy(image, name, generator) for generator in [seeded(5)] for _ in range(20)]
    torch.manual_seed(2)
    again = [apply_policy(image, name, generator) for generator in [seeded(5)] for _ in range(20)]
    assert [x.tobytes() for x in first] == [x.tobytes() for x in again]
    assert len({x.tobytes() for x in first}) > 5, "each draw moves the generator on"


@pytest.mark.parametrize("name", NAMES)
def test_global_random_states_are_left_alone(name: PolicyName) -> None:
    def states() -> tuple[bytes, str, str]:
        numpy_state = repr(np.random.get_state())  # noqa: NPY002, the global one is meant
        return torch.get_rng_state().numpy().tobytes(), numpy_state, repr(random.getstate())

    before = states()
    for seed in range(20):
        apply_policy(noise(), name, seeded(seed))
        apply_policy(as_tensor(noise()), name, seeded(seed))
    assert states() == before


@pytest.mark.parametrize("name", NAMES)
def test_kind_and_size_stay_and_the_image_is_not_changed(name: PolicyName) -> None:
    image = noise()
    tensor = as_tensor(image)
    pixels = image.tobytes()
    for seed in range(60):
        picture = apply_policy(image, name, seeded(seed))
        assert isinstance(picture, Image.Image)
        assert (picture.mode, picture.size) == (image.mode, image.size)
        result = apply_policy(tensor, name, seeded(seed))
        assert (result.dtype, result.shape) == (torch.uint8, tensor.shape)
    assert image.tobytes() == pixels
    assert torch.equal(tensor, as_tensor(image))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("device", DEVICES)
def test_tensors_follow_pil_within_a_few_gray_levels(name: PolicyName, device: str) -> None:
    image = photograph()
    tensor = as_tensor(image).to(device)
    differences = []
    for seed in range(150):
        result = apply_policy(tensor, name, seeded(seed))
        assert result.device == tensor.device
        expected = as_tensor(apply_policy(image, name, seeded(seed)))
        differences.append((result.cpu().int() - expected.int()).abs())
    levels = torch.stack(differences)
    # Solarizing after another change turns one level of difference into many, at its threshold.
    assert (levels <= 3).float().mean().item() > 0.995
    assert levels.float().mean().item() < 0.5


@pytest.mark.parametrize("name", NAMES)
def test_neither_memory_format_nor_autocast_changes_a_value(name: PolicyName) -> None:
    image = as_tensor(photograph())
    batch = image.unsqueeze(0).contiguous(memory_format=torch.channels_last)
    for seed in range(60):
        expected = apply_policy(image, name, seeded(seed))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(apply_policy(image, name, seeded(seed)), expected)
        assert torch.equal(apply_policy(batch[0], name, seeded(seed)), expected)


@pytest.mark.parametrize(
    ("size", "dtype"),
    [((3, 4, 4), torch.float32), ((1, 3, 4, 4), torch.uint8), ((1, 4, 4), torch.uint8)],
)
def test_other_tensors_are_refused(size: tuple[int, ...], dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match=r"as PIL image or \(3, H, W\) uint8, got \("):
        apply_policy(torch.zeros(size, dtype=dtype), "autoaugment", seeded(0))


def test_pictures_without_colors_are_refused() -> None:
    with pytest.raises(InputError, match=r"policies take RGB, .* got a PIL image of mode L"):
        apply_policy(Image.new("L", (4, 4)), "autoaugment_log", seeded(0))


def test_other_names_are_refused() -> None:
    with pytest.raises(InputError, match='"randaugment"'):
        apply_policy(noise(), "randaugmnt", seeded(0))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_a_pixelwise_policy_may_follow_the_crop(name: PolicyName) -> None:
    """And one that looks at the whole image may not."""
    image, same = as_tensor(photograph()), []
    for seed in range(40):
        whole = apply_policy(image, name, seeded(seed))[:, 5:30, 20:50]
        alone = apply_policy(image[:, 5:30, 20:50], name, seeded(seed))
        same.append(torch.equal(whole, alone))
    assert all(same) == (name in PIXELWISE)
