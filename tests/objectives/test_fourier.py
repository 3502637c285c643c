"""Fourier domain adaptation: the images by hand, and what learns from them."""

import pytest
import torch
from torch import Tensor

from tiny_runs import CPU, random_batch
from uda.augmentation.fourier import Window, lowest_frequencies, swap_amplitude
from uda.data.batch import Batch
from uda.experiment import validate
from uda.experiments import load_preset
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.fourier import Fourier, FourierConfig
from uda.objectives.functional.losses import cross_entropy
from uda.utilities.errors import InputError

SOURCE = torch.tensor([[1, 2, 0, 4], [3, 1, 5, 2], [2, 6, 1, 1], [0, 3, 2, 7.0]])[None, None]
TARGET = torch.tensor([[10, 12, 8, 9], [11, 30, 7, 2], [5, 6, 40, 3], [1, 2, 9, 20.0]])[None, None]
# At b = 1; no coefficient is 0, so that every phase is known.
BY_HAND = {
    "asymmetric": [
        [6.39740, 7.15500, 9.07405, 13.31645], [8.95619, 7.56218, 15.11763, 11.51163],
        [10.16455, 14.40695, 12.11400, 11.87160], [7.60577, 9.99977, 12.07042, 17.67641],
    ],
    "symmetric": [
        [7.11171, -4.88777, 5.95620, 22.95568], [15.23515, 9.44127, 8.03748, 8.83136],
        [6.13719, 23.13667, 18.54490, 5.54542], [-1.98625, 4.80763, 22.46361, 23.66973],
    ],
}  # fmt: skip
WINDOWS: tuple[Window, ...] = ("asymmetric", "symmetric")
CONTEXT = StepContext(step=0, seed=0, indices=(0, 1))


def noise(seed: int, *size: int) -> Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(seed))


# --- the images


@pytest.mark.parametrize("window", WINDOWS)
def test_images_by_hand(window: Window) -> None:
    found = swap_amplitude(SOURCE, TARGET, band=0.25, window=window)
    torch.testing.assert_close(found[0, 0], torch.tensor(BY_HAND[window]), rtol=0, atol=2e-5)
    assert found.mean().item() == pytest.approx(10.9375)


def test_below_one_frequency_only_the_symmetric_window_moves_the_mean() -> None:
    same = swap_amplitude(SOURCE, TARGET, band=0.24, window="asymmetric")
    assert torch.equal(same, SOURCE)
    moved = swap_amplitude(SOURCE, TARGET, band=0.24, window="symmetric")
    torch.testing.assert_close(moved, SOURCE + 8.4375)


def test_with_every_frequency_and_equal_signs_the_other_image_comes_out() -> None:
    source, target = torch.tensor([[1, 2], [3, 4.0]]), torch.tensor([[10, 10], [10, 30.0]])
    for window in WINDOWS:
        found = swap_amplitude(source[None, None], target[None, None], band=0.5, window=window)
        torch.testing.assert_close(found[0, 0], target)


@pytest.mark.parametrize(("band", "b"), [(0.01, 5), (0.05, 25), (0.09, 46)])
def test_as_many_coefficients_change_as_the_paper_has_it(band: float, b: int) -> None:
    assert lowest_frequencies((512, 1024), band) == b
    generator = torch.Generator().manual_seed(0)
    source, target = torch.rand(2, 1, 1, 512, 1024, generator=generator).unbind()
    before = torch.fft.fft2(source).abs()
    # Of real images only pairs can change: the asymmetric window's imaginary part is dropped.
    for window, count in (("symmetric", (2 * b + 1) ** 2), ("asymmetric", (2 * b) ** 2)):
        after = torch.fft.fft2(swap_amplitude(source, target, band=band, window=window)).abs()  # type: ignore[arg-type]
        changed = int(((after - before).abs() > 0.05).sum())
        extra = 4 * b - 1 if window == "asymmetric" else 0  # the partners outside of the window
        assert 0.9 * count < changed <= count + extra


@pytest.mark.parametrize("window", WINDOWS)
def test_the_unit_of_images_does_not_matter(window: Window) -> None:
    """FDA computes in 0 to 255, we in 0 to 1."""
    source, target = noise(0, 16, 24), noise(1, 16, 24)
    ours = swap_amplitude(source, target, band=0.1, window=window)
    theirs = swap_amplitude(255 * source, 255 * target, band=0.1, window=window)
    torch.testing.assert_close(255 * ours, theirs, rtol=1e-5, atol=1e-3)
    # But a color must not be subtracted first: an amplitude does not tell dark from bright.
    darker = 0.2 * target
    ours = swap_amplitude(source, darker, band=0.1, window=window)
    shifted = swap_amplitude(source - 0.3, darker - 0.3, band=0.1, window=window)
    assert (shifted + 0.3 - ours).mean() > 0.1


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("size", [(16, 24), (15, 23)])
def test_an_image_keeps_its_own_amplitude_and_channels_their_places(
    window: Window, size: tuple[int, int]
) -> None:
    source, target = noise(0, *size), noise(1, *size)
    torch.testing.assert_close(swap_amplitude(source, source, band=0.2, window=window), source)
    whole = swap_amplitude(source, target, band=0.2, window=window)
    for image in range(2):
        for channel in range(3):
            where = (slice(image, image + 1), slice(channel, channel + 1))
            alone = swap_amplitude(source[where], target[where], band=0.2, window=window)
            torch.testing.assert_close(alone, whole[where])


def test_nothing_is_clamped() -> None:
    dark, bright = noise(0, 16, 16), noise(1, 16, 16) + 3
    assert swap_amplitude(dark, bright, band=0.1, window="asymmetric").min() > 1


def test_float32_under_autocast_and_for_half_precision() -> None:
    source, target = noise(0, 15, 23), noise(1, 15, 23)
    expected = swap_amplitude(source, target, band=0.1, window="asymmetric")
    with torch.autocast("cpu", torch.bfloat16):
        found = swap_amplitude(source, target, band=0.1, window="asymmetric")
    assert torch.equal(found, expected)
    half = swap_amplitude(source.half(), target.half(), band=0.1, window="asymmetric")
    assert half.dtype == torch.float32


def test_an_amplitude_of_zero_has_the_phase_zero() -> None:
    found = swap_amplitude(torch.zeros_like(TARGET), TARGET, band=0.25, window="symmetric")
    assert found.isfinite().all()
    assert torch.fft.fft2(found)[0, 0, 0, 1].real > 0


def test_images_that_cannot_be_swapped_are_refused() -> None:
    with pytest.raises(InputError, match=r"crops of one size"):
        swap_amplitude(noise(0, 8, 8), noise(0, 8, 9), band=0.2, window="symmetric")
    with pytest.raises(InputError, match="allowed: asymmetric, symmetric"):
        swap_amplitude(noise(0, 8, 8), noise(0, 8, 8), band=0.2, window="round")  # type: ignore[arg-type]


# --- the objective


def objective(**settings: object) -> Fourier:
    return FourierConfig(**settings).build(6)  # type: ignore[arg-type]


def batch() -> Batch:
    return random_batch().to_device(CPU)


@pytest.mark.parametrize("window", WINDOWS)
def test_the_view_has_the_sources_labels_and_changes_no_tensor(window: Window) -> None:
    given = batch()
    before = [given.source_images.clone(), given.target_images.clone(), given.source_labels.clone()]
    (view,) = objective(band=0.1, window=window).views(given, CONTEXT)
    assert view.name == "fourier"
    assert view.labels is given.source_labels
    assert view.weights is None
    expected = swap_amplitude(given.source_images, given.target_images, band=0.1, window=window)
    assert torch.equal(view.images, expected)
    assert view.images.is_contiguous(memory_format=torch.channels_last)
    assert not view.images.requires_grad
    after = [given.source_images, given.target_images, given.source_labels]
    assert all(map(torch.equal, before, after))


def test_terms_are_cross_entropies_of_both_heads() -> None:
    fourier = objective(auxiliary_weight=0.1)
    (view,) = fourier.views(batch(), CONTEXT)
    assert view.labels is not None
    logits, auxiliary = torch.randn(2, 2, 6, *view.images.shape[-2:]).unbind()
    features = torch.zeros(2, 1, 1, 1)
    terms = fourier.terms(view, SegmentationOutput(logits, auxiliary, features), CONTEXT)
    assert list(terms) == ["main", "auxiliary"]
    torch.testing.assert_close(terms["main"], cross_entropy(logits, view.labels))
    torch.testing.assert_close(terms["auxiliary"], 0.1 * cross_entropy(auxiliary, view.labels))
    alone = objective(auxiliary_weight=0.0)
    terms = alone.terms(view, SegmentationOutput(logits, None, features), CONTEXT)
    assert list(terms) == ["main"]


def test_what_it_needs_and_reads() -> None:
    needs = {"source", "target", "equal_crops"}
    assert FourierConfig().needs() == needs | {"auxiliary_head"}
    assert FourierConfig(auxiliary_weight=0.0).needs() == needs
    assert FourierConfig().reads() == FourierConfig().adds() == {"fourier"}
    assert FourierConfig().learns_fixed_labels()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"band": 0.0}, "band is 0.0; allowed: above 0"), ({"band": 0.6}, "band is 0.6"),
     ({"auxiliary_weight": -1.0}, "auxiliary_weight is -1.0")],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=rf"objectives\.fourier\.{message}"):
        FourierConfig(**settings).check("objectives.fourier")  # type: ignore[arg-type]


def test_a_band_below_one_frequency_is_refused_before_anything_is_read() -> None:
    """With the value to type, which is accepted."""
    experiment = load_preset("fda_gta5")
    objective = experiment.objectives["fourier"]
    assert isinstance(objective, FourierConfig)
    experiment.data.crop = (64, 96)
    for domain in (experiment.data.source, experiment.data.target):
        assert domain is not None
        domain.crop = None
    objective.band = 0.01
    with pytest.raises(
        InputError, match=r"of 96x64 pixels .* objectives\.fourier\.band=0\.016 or more"
    ):
        validate(experiment)
    objective.band = 0.016
    validate(experiment)
    objective.band, objective.window = 0.01, "symmetric"  # it swaps the means
    validate(experiment)
