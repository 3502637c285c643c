"""Windows, padding, what is upsampled, and mirror images, worked out by hand."""

import math
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from factories import ColorSegmenter, probabilities, shown
from uda.evaluation import inference, passes
from uda.evaluation.inference import predict, probability_strips
from uda.evaluation.protocols import Protocol
from uda.models.encoders.base import FeatureMaps, Normalization
from uda.models.segmenter import SegmentationOutput, Segmenter

SIZE = (22, 38)


Upsample = Literal["via_input", "logits", "probabilities"]


def test_equal_classes_are_won_by_the_first() -> None:
    """A network that knows nothing says 0 everywhere: so does argmax."""
    silent = TwoColumns((0.0, 0.0), (0.0, 0.0))
    image = torch.zeros(3, 1, 2, dtype=torch.uint8)
    found = predict(silent, [image], size=(4, 8), protocol=Protocol())
    assert not found.labels.any()


@pytest.mark.parametrize(
    ("size", "window", "overlap", "starts"),
    [
        (10, 4, 0.5, [0, 2, 4, 6]),
        (9, 4, 0.5, [0, 2, 4, 5]),
        (9, 4, 0.0, [0, 4, 5]),
        (8, 4, 0.0, [0, 4]),
        (4, 4, 0.9, [0]),
        (3, 4, 0.5, [0]),
        (1024, 512, 0.5, [0, 256, 512]),  # HRDA's
        (2048, 1024, 0.5, [0, 512, 1024]),
        (1080, 1024, 0.5, [0, 56]),
        (1920, 1024, 0.5, [0, 512, 896]),
    ],
)
def test_windows_begin_evenly_and_end_with_the_image(
    size: int, window: int, overlap: float, starts: list[int]
) -> None:
    assert passes._window_starts(size, window, overlap) == starts


def test_a_network_that_looks_at_single_pixels_needs_no_window() -> None:
    whole = probabilities(ColorSegmenter(), [shown()], SIZE)
    for overlap in (0.0, 0.3, 0.75):
        windows = probabilities(
            ColorSegmenter(), [shown()], SIZE, Protocol(window=(10, 16), overlap=overlap)
        )
        torch.testing.assert_close(windows, whole)


def test_logits_of_overlapping_windows_are_averaged() -> None:
    """Class 0 grows by 1 from column to column of each window; windows begin at 0, 2 and 4."""
    image = torch.zeros(3, 1, 8, dtype=torch.uint8)
    image[0] = 10  # class 1, of logit 0
    seen = [[0], [1], [2, 0], [3, 1], [2, 0], [3, 1], [2], [3]]
    expected = torch.tensor([np.mean(column) for column in seen])
    segmenter = ColorSegmenter(2, slope=1.0)
    found = probabilities(segmenter, [image], (1, 8), Protocol(window=(1, 4), overlap=0.5))
    torch.testing.assert_close(found[0, 0].logit(), expected.float())


def test_or_their_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, but logits 2 and 0 of one pixel make the mean of two probabilities."""
    image = torch.zeros(3, 1, 8, dtype=torch.uint8)
    image[0] = 10
    seen = [[0], [1], [2, 0], [3, 1], [2, 0], [3, 1], [2], [3]]
    sure = [[1 / (1 + math.exp(-logit)) for logit in column] for column in seen]
    expected = torch.tensor([np.mean(column) for column in sure]).float()
    segmenter = ColorSegmenter(2, slope=1.0)
    protocol = Protocol(window=(1, 4), overlap=0.5, window_average="probabilities")
    found = probabilities(segmenter, [image], (1, 8), protocol)
    torch.testing.assert_close(found[0, 0], expected)
    torch.testing.assert_close(found.sum(0), torch.ones(1, 8))
    whole = probabilities(segmenter, [image], (4, 16), protocol)
    monkeypatch.setattr(inference, "_STRIP_VALUES", 1)
    torch.testing.assert_close(probabilities(segmenter, [image], (4, 16), protocol), whole)


class Sizes(ColorSegmenter):
    """Remembers what it was shown."""

    def __init__(self, mean: float = 0.0) -> None:
        super().__init__()
        self.mean += mean
        self.shown: list[Tensor] = []

    def encode(self, normalized: Tensor) -> FeatureMaps:
        self.shown.append(normalized)
        return super().encode(normalized)


def test_padding_is_the_mean_color_below_and_to_the_right_and_cut_off_again() -> None:
    segmenter = Sizes(mean=0.375)
    found = probabilities(segmenter, [shown()], SIZE, Protocol(pad_to=(24, 41)))
    (seen,) = segmenter.shown
    assert seen.shape == (1, 3, 24, 41)
    torch.testing.assert_close(seen[0, :, :22, :38], shown() / 255 - 0.375)
    assert not seen[..., 22:, :].any()
    assert not seen[..., 38:].any()
    torch.testing.assert_close(found, probabilities(Sizes(mean=0.375), [shown()], SIZE))


def test_padding_is_an_images_lowest_value_where_this_is_0() -> None:
    segmenter = Sizes()
    segmenter.min_max = True
    probabilities(segmenter, [shown()], SIZE, Protocol(pad_to=(24, 38)))
    (seen,) = segmenter.shown
    probabilities(segmenter, [shown()], SIZE)
    torch.testing.assert_close(seen[..., :22, :], segmenter.shown[1])
    assert not seen[..., 22:, :].any()


def test_an_image_that_is_larger_than_the_padding_stays() -> None:
    segmenter = Sizes()
    probabilities(segmenter, [shown()], SIZE, Protocol(pad_to=(10, 10)))
    assert segmenter.shown[0].shape == (1, 3, *SIZE)


class TwoColumns(Segmenter):
    """Two classes, two columns of logits for any image: the main head's and the auxiliary's."""

    def __init__(self, main: tuple[float, float], auxiliary: tuple[float, float]) -> None:
        nothing = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        super().__init__(
            nn.Conv2d(1, 1, 1), provenance="none", normalization=nothing, align_corners=True
        )
        self.columns = [torch.tensor([[[[0.0, 0.0]], [list(c)]]]) for c in (main, auxiliary)]

    @property
    def has_auxiliary_head(self) -> bool:
        return True

    def encode(self, normalized: Tensor) -> FeatureMaps:
        return (normalized,)

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        main, auxiliary = self.columns
        return SegmentationOutput(main, auxiliary, features[0])


def second_class(network: Segmenter, protocol: Protocol) -> list[float]:
    """The probability of class 1 in three pixels, of which the middle one lies between columns."""
    image = torch.zeros(3, 1, 2, dtype=torch.uint8)
    found: list[float] = probabilities(network, [image], (1, 3), protocol)[1, 0].tolist()
    return found


def test_what_is_upsampled_decides_what_lies_between() -> None:
    """Logits ln 3 and 0: probabilities 3/4 and 1/2, and between them sigmoid(ln 3 / 2) or 5/8."""
    network = TwoColumns((math.log(3), 0.0), (0.0, 0.0))
    half_way = math.sqrt(3) / (1 + math.sqrt(3))
    logits = second_class(network, Protocol(upsample="logits", align_corners=True))
    assert logits == pytest.approx([0.75, half_way, 0.5])
    found = second_class(network, Protocol(upsample="probabilities", align_corners=True))
    assert found == pytest.approx([0.75, 0.625, 0.5])


@pytest.mark.parametrize("upsample", ["via_input", "logits", "probabilities"])
def test_both_heads_count_the_auxiliary_half(upsample: Upsample) -> None:
    network = TwoColumns((0.0, 0.0), (2 * math.log(3), 2 * math.log(3)))
    main = second_class(network, Protocol(upsample=upsample))
    assert main == pytest.approx([0.5, 0.5, 0.5])
    both = second_class(network, Protocol(upsample=upsample, heads="fused"))
    assert both == pytest.approx([0.75, 0.75, 0.75])


@pytest.mark.parametrize("upsample", ["via_input", "logits", "probabilities"])
def test_a_mirror_image_is_turned_back_before_it_is_added(upsample: Upsample) -> None:
    """This network says the same of both, so the average has the two columns mixed."""
    network = TwoColumns((math.log(3), 0.0), (0.0, 0.0))
    left, _, right = second_class(network, Protocol(upsample=upsample, flip=True))
    assert (left, right) == pytest.approx((0.625, 0.625))


def test_sides_change_places_in_the_mean_over_mirror_images() -> None:
    """A network that calls whatever is bright the class of its column's half, left or right."""

    class Sided(ColorSegmenter):
        def decode(self, features: FeatureMaps) -> SegmentationOutput:
            (normalized,) = features
            logits = torch.zeros(len(normalized), 3, *normalized.shape[2:])
            middle = normalized.shape[3] // 2
            bright = normalized.mean(dim=1) > 0.5
            logits[:, 0] = 4.0
            logits[:, 1, :, :middle][bright[..., :middle]] = 8.0
            logits[:, 2, :, middle:][bright[..., middle:]] = 8.0
            return SegmentationOutput(logits, None, normalized)

    image = torch.full((3, 4, 8), 250, dtype=torch.uint8)
    image[:, 2:] = 0
    expected = [[1] * 4 + [2] * 4] * 2 + [[0] * 8] * 2
    flip = Protocol(flip=True)
    swapped = predict(Sided(), [image], size=(4, 8), protocol=flip, mirrored=(0, 2, 1))
    assert swapped.labels.tolist() == expected
    unswapped = next(iter(probability_strips(Sided(), [image], size=(4, 8), protocol=flip)))
    assert unswapped[1, :2].tolist() == unswapped[2, :2].tolist()
