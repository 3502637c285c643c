"""One image's classes: averages by hand, and strips that are the whole."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from factories import ColorSegmenter, noise
from tiny_runs import tiny_model
from uda.data.transforms import resize_image
from uda.evaluation import inference
from uda.evaluation.inference import predict, probability_strips
from uda.evaluation.protocols import PROTOCOLS, Protocol
from uda.models.encoders.base import FeatureMaps, Normalization
from uda.models.segmenter import SegmentationOutput, Segmenter

SIZE = (22, 38)
Upsample = Literal["via_input", "logits", "probabilities"]


def shown(seed: int = 6, size: tuple[int, int] = SIZE) -> Tensor:
    """An image (3, H, W) uint8 that ColorSegmenter can read."""
    image = noise(seed, size)
    image[..., 0] %= 190
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


def at_scale(image: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(resize_image(Image.fromarray(image.permute(1, 2, 0).numpy()), size))


NATIVE = Protocol()


def probabilities(
    segmenter: Segmenter,
    images: Sequence[Tensor],
    size: tuple[int, int],
    protocol: Protocol = NATIVE,
) -> Tensor:
    """(C, H, W)"""
    return torch.cat(list(probability_strips(segmenter, images, size=size, protocol=protocol)), 1)


@pytest.fixture
def small_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows of 38 pixels and 19 classes at a time."""
    monkeypatch.setattr(inference, "_STRIP_VALUES", 3 * 19 * 38 + 5)


def test_the_input_may_be_of_another_size() -> None:
    image = shown(size=(12, 20))
    logits = ColorSegmenter()(image[None] / 255).logits
    logits = F.interpolate(logits, (24, 40), mode="bilinear", align_corners=False)
    found = probabilities(ColorSegmenter(), [image], (24, 40))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, logits[0].softmax(0))


@pytest.mark.parametrize("strips", ["one", "small"])
def test_scales_and_flips_are_averaged_probabilities(
    strips: str, request: pytest.FixtureRequest
) -> None:
    if strips == "small":
        request.getfixturevalue("small_strips")
    segmenter = ColorSegmenter(slope=0.4)
    image = shown()
    larger = at_scale(image, (33, 57))
    parts = []
    for seen in (image, larger):
        pixels = seen[None] / 255
        plain = segmenter(pixels).logits
        mirrored = segmenter(pixels.flip(3)).logits.flip(3)
        for logits in (plain, mirrored):
            full = F.interpolate(logits, SIZE, mode="bilinear", align_corners=False)
            parts.append(full[0].softmax(0))
    assert not torch.allclose(parts[0], parts[1])

    def found(images: list[Tensor], *, flip: bool) -> Tensor:
        return probabilities(segmenter, images, SIZE, Protocol(flip=flip))

    torch.testing.assert_close(found([image], flip=False), parts[0])
    torch.testing.assert_close(found([image], flip=True), (parts[0] + parts[1]) / 2)
    torch.testing.assert_close(found([image, larger], flip=False), (parts[0] + parts[2]) / 2)
    torch.testing.assert_close(found([image, larger], flip=True), torch.stack(parts).mean(0))


WAYS = {
    "native": Protocol(),
    "aligned": Protocol(align_corners=True),
    "logits": Protocol(upsample="logits", align_corners=True),
    "probabilities": Protocol(upsample="probabilities"),
    "both heads": Protocol(heads="fused", flip=True),
    "padded": Protocol(pad_to=(33, 65)),
    "windows": Protocol(window=(16, 24), overlap=0.4),
    "windows, mirrored and padded": Protocol(window=(20, 20), flip=True, pad_to=(31, 31)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [SIZE, (44, 60), (13, 31)])
def test_strips_are_the_whole(
    way: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    segmenter = tiny_model().build(19).eval()
    images = [shown(), at_scale(shown(), (30, 50))]
    whole = probabilities(segmenter, images, size, WAYS[way])
    assert whole.shape == (19, *size)
    torch.testing.assert_close(whole.sum(0), torch.ones(size))
    for rows in (1, 5):
        monkeypatch.setattr(inference, "_STRIP_VALUES", rows * 19 * size[1])
        pieces = probabilities(segmenter, images, size, WAYS[way])
        torch.testing.assert_close(pieces, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((5, 7), (23, 31)),
        ((32, 64), (128, 256)),
        ((40, 30), (17, 29)),
        ((1, 3), (6, 9)),
        ((9, 8), (1, 1)),
    ],
)
def test_any_rows_of_a_resized_map_are_pytorchs(
    old: tuple[int, int], new: tuple[int, int], align_corners: bool
) -> None:
    values = torch.randn(1, 3, *old, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(values, new, mode="bilinear", align_corners=align_corners)
    resized = inference._Resized(inference._Map(values), new, align_corners=align_corners)
    for first in range(0, new[0], 3):
        last = min(first + 4, new[0])
        torch.testing.assert_close(resized.rows(first, last), expected[:, :, first:last])


class Watch(TorchDispatchMode):
    """Remembers the largest floating-point tensor that any operation returned."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                self.largest = max(self.largest, leaf.numel())
        return result


@pytest.mark.parametrize("name", ["native", "adaptsegnet", "mrnet", "single", "segmentron"])
def test_no_map_of_all_classes_at_full_size_is_ever_held(name: str) -> None:
    """512x1024 pixels of 19 classes are ten million numbers, a strip four."""
    torch.manual_seed(0)
    segmenter = tiny_model().build(19).eval()
    size = (512, 1024)
    image = torch.randint(0, 256, (3, 64, 128), dtype=torch.uint8)
    with Watch() as watch:
        predict(segmenter, [image], size=size, protocol=Protocol(heads=PROTOCOLS[name].heads,
                upsample=PROTOCOLS[name].upsample, flip=PROTOCOLS[name].flip), confidence=True,
                among=[(0, 3)])  # fmt: skip
    assert 0 < watch.largest <= inference._STRIP_VALUES
    with Watch() as watch, torch.no_grad():
        F.interpolate(segmenter(image[None] / 255).logits, size)
    assert watch.largest == 19 * size[0] * size[1], "the watch sees what it should"


def test_the_prediction_is_the_most_probable_class_with_its_probability() -> None:
    found = predict(
        ColorSegmenter(slope=0.4), [shown()], size=SIZE, protocol=Protocol(), confidence=True
    )
    expected = probabilities(ColorSegmenter(slope=0.4), [shown()], SIZE)
    assert torch.equal(found.labels, expected.argmax(0))
    assert found.confidence is not None
    torch.testing.assert_close(found.confidence, expected.max(0).values)
    assert found.among == ()


@pytest.mark.usefixtures("small_strips")
def test_the_most_probable_of_some_classes_is_their_position() -> None:
    groups = ((2, 3, 11), (0, 18))
    found = predict(ColorSegmenter(), [shown()], size=SIZE, protocol=Protocol(), among=groups)
    expected = probabilities(ColorSegmenter(), [shown()], SIZE)
    assert [set(restricted.unique().tolist()) for restricted in found.among] == [{0, 1, 2}, {0, 1}]
    for group, restricted in zip(groups, found.among, strict=True):
        assert torch.equal(restricted, expected[list(group)].argmax(0))
    assert found.confidence is None


def test_equal_classes_are_won_by_the_first() -> None:
    """A network that knows nothing says 0 everywhere: so does argmax."""
    silent = TwoColumns((0.0, 0.0), (0.0, 0.0))
    image = torch.zeros(3, 1, 2, dtype=torch.uint8)
    found = predict(silent, [image], size=(4, 8), protocol=Protocol())
    assert not found.labels.any()


# --- windows and padding


@pytest.mark.parametrize(
    ("size", "window", "overlap", "starts"),
    [
        (10, 4, 0.5, [0, 2, 4, 6]),
        (9, 4, 0.5, [0, 2, 4, 5]),
        (9, 4, 0.0, [0, 4, 5]),
        (8, 4, 0.0, [0, 4]),
        (4, 4, 0.9, [0]),
        (3, 4, 0.5, [0]),
    ],
)
def test_windows_begin_evenly_and_end_with_the_image(
    size: int, window: int, overlap: float, starts: list[int]
) -> None:
    assert inference._window_starts(size, window, overlap) == starts


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


class Sizes(ColorSegmenter):
    """Remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Tensor] = []

    def encode(self, normalized: Tensor) -> FeatureMaps:
        self.shown.append(normalized)
        return super().encode(normalized)


def test_padding_is_black_below_and_to_the_right_and_cut_off_again() -> None:
    segmenter = Sizes()
    found = probabilities(segmenter, [shown()], SIZE, Protocol(pad_to=(24, 41)))
    (seen,) = segmenter.shown
    assert seen.shape == (1, 3, 24, 41)
    torch.testing.assert_close(seen[0, :, :22, :38], shown() / 255)
    assert not seen[..., 22:, :].any()
    assert not seen[..., 38:].any()
    torch.testing.assert_close(found, probabilities(ColorSegmenter(), [shown()], SIZE))


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
