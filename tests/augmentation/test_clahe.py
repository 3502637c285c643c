"""CLAHE against OpenCV's, and what it leaves alone."""

import numpy as np
import numpy.typing as npt
import pytest

from uda.augmentation.clahe import Levels, clahe, equalize_lightness


def gray(height: int, width: int) -> Levels:
    """A dark ramp with noise and a bright box."""
    rng = np.random.default_rng(height * width)
    ramp = np.add.outer(np.linspace(20, 60, height), np.linspace(0, 50, width))
    ramp[: height // 3, width // 2 :] += 90
    return (ramp + rng.normal(0, 4, ramp.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("clip_limit", [1.0, 1.7, 4.0])
@pytest.mark.parametrize("size", [(64, 96), (61, 96), (96, 61), (67, 75), (9, 8), (130, 258)])
def test_gray_pictures_are_equalized_as_by_opencv(size: tuple[int, int], clip_limit: float) -> None:
    cv2 = pytest.importorskip("cv2")
    image = gray(*size)
    theirs = cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(8, 8)).apply(image)
    difference = np.abs(clahe(image, clip_limit=clip_limit).astype(int) - theirs.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01, "floats of other orders may round to another level"


def colors() -> Levels:
    return np.stack([gray(64, 96), gray(64, 96)[::-1], gray(64, 96)[:, ::-1]], axis=2)


def lightness(image: Levels) -> npt.NDArray[np.float64]:
    """L of CIE LAB (H, W), 0..255, by its definition."""
    levels = image / 255
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    luminance = light @ (0.2126, 0.7152, 0.0722)
    bent = np.where(luminance > 216 / 24389, np.cbrt(luminance) * 116 - 16, luminance * 24389 / 27)
    return 2.55 * bent


def test_the_lightness_of_colors_is_equalized() -> None:
    image = colors()
    wanted = clahe(lightness(image).round().astype(np.uint8), clip_limit=3.0).astype(float)
    found = equalize_lightness(image, clip_limit=3.0)
    assert np.abs(lightness(image) - wanted).max() > 30, "it does something"
    in_gamut = ((found > 0) & (found < 255)).all(axis=2)
    assert in_gamut.mean() > 0.8
    off = np.abs(lightness(found) - wanted)[in_gamut]
    assert off.mean() < 0.5
    assert np.percentile(off, 99) < 1.5  # an L halfway between two levels may fall into either


def test_colors_are_equalized_as_by_opencv() -> None:
    """In floats: its way through bytes loses up to 40 levels of a dark color. Its L is off by up to
    0.15, so one in five pixels falls into the next level, from where the tables lead further."""
    cv2 = pytest.importorskip("cv2")
    lab = cv2.cvtColor(colors().astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    equalize = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(8, 8)).apply
    lab[..., 0] = equalize((lab[..., 0] * 2.55).round().astype(np.uint8)) / np.float32(2.55)
    theirs = (cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * 255).round()
    difference = np.abs(equalize_lightness(colors(), clip_limit=3.0) - theirs)
    assert np.percentile(difference, 99) <= 6
    assert difference.mean() < 1.5


def test_a_flat_tile_is_spread_by_hand() -> None:
    """64 x 64 pixels of level 100: 64 in each tile. Limit 4 * 64 / 256 = 1, so 63 are over, every
    4th level gets one of them: 0, 4, ... 248. Up to level 100 that is 26, and 1 of its own."""
    image = np.full((64, 64), 100, np.uint8)
    assert (clahe(image, clip_limit=4.0) == round(27 * 255 / 64)).all()


def test_grays_stay_gray_and_pictures_of_any_size_are_taken() -> None:
    for size in ((1, 1), (3, 20), (17, 33)):
        image = np.repeat(gray(*size)[..., None], 3, axis=2)
        found = equalize_lightness(image, clip_limit=2.0)
        assert found.shape == image.shape
        assert (np.ptp(found.astype(int), axis=2) <= 1).all()
