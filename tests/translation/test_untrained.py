"""Translations that need no training: colors, and amplitudes of low frequencies."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from factories import noise
from uda.augmentation.fourier import swap_amplitude
from uda.data.samples import Sample
from uda.translation.amplitudes import AmplitudeTranslator
from uda.translation.color_statistics import (
    ColorTranslator,
    color_statistics,
    lab_to_rgb,
    match_colors,
    rgb_to_lab,
)
from uda.translation.translators import Partners
from uda.utilities.errors import InputError


def image(seed: int, size: tuple[int, int] = (24, 32)) -> Tensor:
    return torch.from_numpy(noise(seed, size)).permute(2, 0, 1).float() / 255


def muted(seed: int, size: tuple[int, int] = (24, 32)) -> Tensor:
    """An image without extreme colors: none of its translations below leaves [0, 1]."""
    return 0.35 + 0.2 * image(seed, size)


def partners(tmp_path: Path, count: int, *, seed: int = 0) -> Partners:
    paths = [tmp_path / f"{index}.png" for index in range(count)]
    for path in paths:
        path.write_bytes(path.name.encode())
    samples = [Sample("city", path.stem, path, None) for path in paths]
    return Partners(samples, seed=seed)


class TestLab:
    @pytest.mark.parametrize(
        ("rgb", "lab"),
        [
            ((1, 1, 1), (100, 0, 0)),
            ((0, 0, 0), (0, 0, 0)),
            ((1, 0, 0), (53.24, 80.09, 67.20)),
            ((0, 1, 0), (87.73, -86.18, 83.18)),
            ((0, 0, 1), (32.30, 79.19, -107.86)),
            ((119 / 255, 119 / 255, 119 / 255), (50.03, 0, 0)),
        ],
    )
    def test_known_colors(self, rgb: tuple[float, ...], lab: tuple[float, ...]) -> None:
        color = torch.tensor(rgb).float()[:, None, None]
        assert rgb_to_lab(color).flatten().tolist() == pytest.approx(lab, abs=0.02)

    def test_equals_opencv(self) -> None:
        cv2 = pytest.importorskip("cv2")
        ours = rgb_to_lab(image(0)).permute(1, 2, 0).numpy()
        pixels = np.ascontiguousarray(image(0).permute(1, 2, 0).numpy())
        # OpenCV interpolates in tables.
        assert np.abs(ours - cv2.cvtColor(pixels, cv2.COLOR_RGB2Lab)).max() < 0.4

    def test_there_and_back(self) -> None:
        assert (lab_to_rgb(rgb_to_lab(image(1))) - image(1)).abs().max() < 1e-4

    def test_colors_that_no_screen_shows_are_clipped(self) -> None:
        lab = torch.tensor([[110.0, 50, -10], [0, 120, 0], [0, -120, 0]])[:, :, None]
        found = lab_to_rgb(lab)
        assert found.isfinite().all()
        assert found.min() >= 0
        assert found.max() <= 1


class TestColors:
    def test_statistics_are_those_of_all_pixels(self) -> None:
        parts = [image(1, (8, 8)), image(2, (4, 24))]
        pixels = torch.cat([rgb_to_lab(part).flatten(1) for part in parts], dim=1).double()
        found = color_statistics(parts)
        assert torch.allclose(found.mean, pixels.mean(1), atol=1e-6)
        assert torch.allclose(found.covariance, torch.cov(pixels, correction=0), atol=1e-4)

    def test_the_result_has_the_targets_mean_and_covariance(self) -> None:
        target = color_statistics([muted(2) * torch.tensor([1.1, 1.0, 0.8])[:, None, None]])
        found = color_statistics([match_colors(muted(1), target)])
        assert torch.allclose(found.mean, target.mean, atol=0.01)
        assert torch.allclose(found.covariance, target.covariance, atol=0.1)

    def test_equal_statistics_change_nothing(self) -> None:
        same = match_colors(image(3), color_statistics([image(3)]))
        assert (same - image(3)).abs().max() < 1e-3

    def test_it_is_a_symmetric_map_and_so_moves_colors_least(self) -> None:
        """A gradient of a convex function: no rotation of colors in it."""
        own, target = color_statistics([muted(1)]), color_statistics([muted(2) ** 2])
        before = rgb_to_lab(muted(1)).flatten(1).double() - own.mean[:, None]
        after = rgb_to_lab(match_colors(muted(1), target)).flatten(1).double()
        matrix = (after - target.mean[:, None]) @ torch.linalg.pinv(before)
        assert torch.allclose(matrix, matrix.T, atol=1e-3)
        assert torch.linalg.eigvalsh((matrix + matrix.T) / 2).min() > 0

    def test_an_image_of_one_color_stays_of_one_color(self) -> None:
        gray = torch.full((3, 8, 8), 0.5)
        found = match_colors(gray, color_statistics([image(2)]))
        assert found.isfinite().all()
        assert (found - found[:, :1, :1]).abs().max() < 1e-4


class TestTranslators:
    def test_colors_of_the_set_or_of_the_partner(self, tmp_path: Path) -> None:
        whole = ColorTranslator(statistics=color_statistics([muted(2)]), target="city")
        drawn = ColorTranslator(partners=partners(tmp_path, 3))
        assert torch.equal(whole(muted(1), None), drawn(muted(1), muted(2)))
        assert whole.facts()["match"] == "set"
        assert whole.facts()["target"] == drawn.facts()["target"] == "city"
        assert len(whole.facts()["covariance"].split()) == 9
        assert drawn.facts()["partners"] == "3"

    def test_amplitudes_are_those_of_fda_clipped(self, tmp_path: Path) -> None:
        translate = AmplitudeTranslator(partners(tmp_path, 1), band=0.1, window="symmetric")
        expected = swap_amplitude(
            image(1)[None], image(2)[None], band=0.1, window="symmetric"
        ).clamp(0, 1)
        assert torch.equal(translate(image(1), image(2)), expected[0])

    def test_a_band_out_of_range(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"--band 0.6: allowed are shares above 0"):
            AmplitudeTranslator(partners(tmp_path, 1), band=0.6)


def test_a_partner_is_a_function_of_seed_and_name(tmp_path: Path) -> None:
    drawn, again = partners(tmp_path, 10), partners(tmp_path, 10)
    other = partners(tmp_path, 10, seed=1)
    names = [f"gta5/{index:05d}" for index in range(200)]
    chosen = [drawn.of(name).stem for name in names]
    assert chosen == [again.of(name).stem for name in reversed(names)][::-1]
    assert set(chosen) == set(map(str, range(10)))
    assert chosen != [other.of(name).stem for name in names]
