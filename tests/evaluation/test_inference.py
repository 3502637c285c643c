"""One image's classes: averages by hand, and strips that are the whole."""

from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from factories import ColorSegmenter, probabilities, shown
from tiny_runs import tiny_model
from uda.data.transforms import resize_image
from uda.evaluation import inference
from uda.evaluation.inference import predict
from uda.evaluation.lazy_maps import Map, Resized
from uda.evaluation.protocols import PROTOCOLS, Protocol

SIZE = (22, 38)


def at_scale(image: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(resize_image(Image.fromarray(image.permute(1, 2, 0).numpy()), size))


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
    "windows of probabilities": Protocol(window=(16, 24), window_average="probabilities"),
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
    resized = Resized(Map(values), new, align_corners=align_corners)
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


def test_bfloat16_is_of_the_forward_pass_alone() -> None:
    segmenter = tiny_model().build(19).eval()
    images = [torch.randint(0, 256, (3, 32, 64), dtype=torch.uint8)]
    protocol = Protocol(precision="bfloat16")
    found = predict(segmenter, images, size=SIZE, protocol=protocol, confidence=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        coarse = segmenter.coarse(images[0][None] / 255).logits.float()
    logits = F.interpolate(coarse, (32, 64), mode="bilinear", align_corners=segmenter.align_corners)
    expected = F.interpolate(logits, SIZE, mode="bilinear").softmax(dim=1).amax(dim=1)[0]
    assert found.confidence is not None
    torch.testing.assert_close(found.confidence, expected)
    exact = predict(segmenter, images, size=SIZE, protocol=Protocol(), confidence=True)
    assert exact.confidence is not None
    assert not torch.equal(found.confidence, exact.confidence)
    torch.testing.assert_close(found.confidence, exact.confidence, atol=0.02, rtol=0)
