"""Protocols by name: their settings, their words, and scores worked out the authors' way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from factories import ColorSegmenter, colors_of, noise, written_sample
from tiny_runs import tiny_model
from uda.data.samples import Sample
from uda.evaluation.evaluate import EvaluationConfig, evaluate, predictions, protocol_line
from uda.evaluation.protocols import (
    PROTOCOLS,
    Protocol,
    input_line,
    labels_line,
    protocol_name,
    protocol_named,
)
from uda.labels.spaces import CITYSCAPES
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.segmenter import Segmenter
from uda.utilities.errors import InputError

WORDS = {
    "native": "input as stored; scale 1; no flip",
    "half_input": "input 1024x512; scale 1; no flip",
    "adaptsegnet": "input 1024x512; scale 1; no flip; logits upsampled; corners aligned",
    "fda": "input 1344x576; scale 1; no flip; probabilities upsampled; corners aligned",
    "mrnet": "input 1024x512; scale 1, 1.25; flip; both heads; probabilities upsampled; "
    "corners aligned",
    "single": "input 1024x512; scale 1; no flip; probabilities upsampled; corners aligned",
    "dacs": "input 1024x512, bilinear; scale 1; no flip; logits upsampled; corners aligned",
    "daformer": "input 1024x512, shape kept, bilinear without antialiasing; scale 1; no flip",
    "hrda": "input as stored; scale 1; no flip; windows of 1024x1024 with overlap 0.5",
    "segformer": "input as stored; scale 1; no flip; windows of 1024x1024 with overlap 0.25",
    "vfm_uda": "input 8192x1024, shape kept, bilinear; scale 1; no flip; windows of probabilities "
    "of 1024x1024 with overlap 0.5",
    "clothing_segmentation": "input 256x256, nearest; scale 1; no flip",
    "segmentron": "input as stored; scale 1; no flip; padded with the mean color to 2049x1025",
    "mmsegmentation": "input 2048x512, shape kept, bilinear without antialiasing; scale 1; no flip",
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_says_all_that_changes_a_number(name: str) -> None:
    assert input_line(PROTOCOLS[name]) == WORDS[name]
    sizes = {"dacs": "1024x512", "clothing_segmentation": "256x256"}
    labels = f"labels at {sizes.get(name, 'stored resolution')}"
    assert labels_line(PROTOCOLS[name]) == labels
    config = EvaluationConfig.following(name, dataset="cityscapes")
    assert protocol_line(config) == f"{name} on cityscapes val: {WORDS[name]}; {labels}"


def test_what_no_image_is_resized_by_is_not_in_the_words() -> None:
    protocol = Protocol(interpolation="nearest", window_average="probabilities")
    assert input_line(protocol) == WORDS["native"]
    assert protocol.idle().keys() == {"keep_ratio", "interpolation", "overlap", "window_average"}
    assert "nearest" in input_line(Protocol(interpolation="nearest", scales=(0.5,)))


def test_windows_are_in_the_words() -> None:
    protocol = Protocol(window=(512, 768), overlap=0.25)
    assert input_line(protocol).endswith("no flip; windows of 768x512 with overlap 0.25")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_name_stands_for_all_of_its_settings(name: str) -> None:
    config = EvaluationConfig(dataset="cityscapes", every=7, flip=True, window=(3, 3))
    config.follow(name)
    assert (config.dataset, config.every) == ("cityscapes", 7)
    assert protocol_name(config) == name
    assert protocol_name(replace(config, scales=(0.9,))) == "own settings"
    config.check("evaluation")


def test_the_default_is_native() -> None:
    assert protocol_name(EvaluationConfig(dataset="x")) == "native"


def test_the_precision_is_said_beside_the_name() -> None:
    config = EvaluationConfig(dataset="cityscapes", precision="bfloat16")
    assert protocol_name(config) == "native"
    assert "no flip; network in bfloat16; labels" in protocol_line(config)
    config.follow("mrnet")
    assert config.precision == "bfloat16", "no protocol has one of its own"


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="there is no protocol 'adaptsegnett'; did you mean \"ad"):
        protocol_named("adaptsegnett")


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (Protocol(window=(0, 4)), r"p\.window is \(0, 4\)"),
        (Protocol(pad_to=(4, 0)), r"p\.pad_to is \(4, 0\)"),
        (Protocol(label_size=(-1, 4)), r"p\.label_size is \(-1, 4\)"),
        (Protocol(window=(4, 4), overlap=1.0), r"p\.overlap is 1\.0; allowed: 0 up to, not"),
        (Protocol(keep_ratio=True), r"p\.keep_ratio is set, but there is no p\.input_size"),
        (Protocol(interpolation="nearest"), r"p\.interpolation is 'nearest', but images are read"),
        (Protocol(window_average="probabilities"), r"but there is no p\.window: set p\.window=H"),
        (Protocol(precision="float16"), "float16'; allowed: float32, bfloat16"),  # type: ignore[arg-type]
        (Protocol(overlap=0.5), r"p\.overlap is 0\.5, but there is no p\.window"),
        (Protocol(window=(4, 4), upsample="logits"), r"supports neither a window nor padding"),
        (
            Protocol(pad_to=(4, 4), upsample="probabilities"),
            r"supports neither a window nor padding",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(protocol: Protocol, message: str) -> None:
    with pytest.raises(InputError, match=message):
        protocol.check("p")


# --- what the numbers are


def two_heads() -> Segmenter:
    """A network whose main and auxiliary head differ, with aligned corners."""
    torch.manual_seed(3)
    config = DeepLabV2Config(
        backbone="resnet18", backbone_weights="none", backbone_width=8, dropout=0.0
    )
    return config.build(19).eval()


def smaller(name: str) -> EvaluationConfig:
    """The protocol for images of 64x128: a sixteenth of every size in it."""
    config = EvaluationConfig.following(name, dataset="cityscapes")
    for field in ("input_size", "label_size", "pad_to", "window"):
        size = getattr(config, field)
        if size is not None:
            setattr(config, field, (-(-size[0] // 16), -(-size[1] // 16)))
    return config


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return written_sample(tmp_path, "a", noise(5, (64, 128)))


def resized(
    sample: Sample, size: tuple[int, int], method: Image.Resampling = Image.Resampling.BICUBIC
) -> torch.Tensor:
    with Image.open(sample.image) as stored:
        pixels = np.array(stored.resize((size[1], size[0]), method))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255


def halved_by_opencv(sample: Sample) -> torch.Tensor:
    """At half its size, where OpenCV's bytes are exact."""
    cv2 = pytest.importorskip("cv2")
    with Image.open(sample.image) as stored:
        pixels = cv2.resize(np.asarray(stored), (stored.width // 2, stored.height // 2))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255


def labels_found(network: Segmenter, sample: Sample, name: str) -> torch.Tensor:
    """(H, W) train ids"""
    ((_, found),) = predictions(
        network, [sample], config=smaller(name), label_space=CITYSCAPES, workers=0
    )
    return found.labels


def test_mrnet_sums_four_softmaxes_of_both_heads(sample: Sample) -> None:
    network = two_heads()
    total = torch.zeros(1, 19, 64, 128)
    with torch.no_grad():
        for size in ((32, 64), (40, 80)):
            pixels = resized(sample, size)
            for mirrored in (False, True):
                coarse = network.coarse(pixels.flip(3) if mirrored else pixels)
                assert coarse.auxiliary_logits is not None
                found = (0.5 * coarse.auxiliary_logits + coarse.logits).softmax(1)
                found = found.flip(3) if mirrored else found
                total += F.interpolate(found, (64, 128), mode="bilinear", align_corners=True)
    assert torch.equal(labels_found(network, sample, "mrnet"), total[0].argmax(0))


def test_adaptsegnet_upsamples_logits_of_the_main_head(sample: Sample) -> None:
    network = two_heads()
    with torch.no_grad():
        coarse = network.coarse(resized(sample, (32, 64))).logits
        full = F.interpolate(coarse, (64, 128), mode="bilinear", align_corners=True)
    assert torch.equal(labels_found(network, sample, "adaptsegnet"), full[0].argmax(0))


def test_single_upsamples_probabilities_of_the_main_head(sample: Sample) -> None:
    network = two_heads()
    with torch.no_grad():
        coarse = network.coarse(resized(sample, (32, 64))).logits.softmax(1)
        full = F.interpolate(coarse, (64, 128), mode="bilinear", align_corners=True)
    assert torch.equal(labels_found(network, sample, "single"), full[0].argmax(0))


def network_of_one_head() -> Segmenter:
    torch.manual_seed(0)
    return tiny_model().build(19).eval()


def test_segmentron_pads_the_normalized_image(sample: Sample) -> None:
    """With black, as it once was, other classes were predicted."""
    network = network_of_one_head()
    with torch.no_grad():
        normalized = (resized(sample, (64, 128)) - network.mean) / network.std
        logits = network.decode(network.encode(F.pad(normalized, (0, 1, 0, 1)))).logits
        expected = F.interpolate(logits, (65, 129), mode="bilinear")[0, :, :64, :128]
    ((_, found),) = predictions(
        network, [sample], config=smaller("segmentron"), label_space=CITYSCAPES, workers=0,
        confidence=True,
    )  # fmt: skip
    assert torch.equal(found.labels, expected.argmax(0))
    assert found.confidence is not None
    torch.testing.assert_close(found.confidence, expected.softmax(0).amax(0), rtol=1e-6, atol=1e-6)


def test_dacs_reads_bilinear_images(sample: Sample) -> None:
    network = two_heads()
    with torch.no_grad():
        coarse = network.coarse(resized(sample, (32, 64), Image.Resampling.BILINEAR)).logits
        full = F.interpolate(coarse, (32, 64), mode="bilinear", align_corners=True)
    assert torch.equal(labels_found(network, sample, "dacs"), full[0].argmax(0))


def test_clothing_segmentation_reads_nearest_pixels(sample: Sample) -> None:
    network = network_of_one_head()
    with torch.no_grad():
        found = network(resized(sample, (16, 16), Image.Resampling.NEAREST)).logits[0].argmax(0)
    assert torch.equal(labels_found(network, sample, "clothing_segmentation"), found)


def test_daformer_resizes_logits_twice(sample: Sample) -> None:
    network = network_of_one_head()
    with torch.no_grad():
        coarse = network.coarse(halved_by_opencv(sample)).logits
        half = F.interpolate(coarse, (32, 64), mode="bilinear")
        full = F.interpolate(half, (64, 128), mode="bilinear")
    assert torch.equal(labels_found(network, sample, "daformer"), full[0].argmax(0))


def slid(network: Segmenter, pixels: torch.Tensor, *, probabilities: bool) -> torch.Tensor:
    """(C, H, W): the mean over windows of 64x64 with stride 32, as mmsegmentation slides them."""
    height, width = pixels.shape[2:]
    total, times = torch.zeros(1, 19, height, width), torch.zeros(height, width)
    for row in range(max(height - 64 + 31, 0) // 32 + 1):
        for column in range(max(width - 64 + 31, 0) // 32 + 1):
            bottom, right = min(32 * row + 64, height), min(32 * column + 64, width)
            where = (slice(bottom - 64, bottom), slice(right - 64, right))
            with torch.no_grad():
                logits = network(pixels[:, :, *where]).logits
            total[:, :, *where] += logits.softmax(1) if probabilities else logits
            times[where] += 1
    return (total / times)[0]


def test_hrda_averages_logits_of_windows(tmp_path: Path) -> None:
    network = network_of_one_head()
    for stored in ((64, 128), (68, 120)):  # as 1024x2048 and 1080x1920
        sample = written_sample(tmp_path, f"{stored}", noise(5, stored))
        expected = slid(network, resized(sample, stored), probabilities=False)
        assert torch.equal(labels_found(network, sample, "hrda"), expected.argmax(0))


def test_vfm_uda_averages_probabilities_of_windows(tmp_path: Path) -> None:
    """Images whose short side is 68 are shrunk to 64; both ways of averaging are told apart."""
    network = network_of_one_head()
    for layer in (m for m in network.modules() if isinstance(m, torch.nn.Conv2d)):
        layer.weight.data *= 1.3  # sure of itself, so that the two means differ
    for stored, read in (((64, 128), (64, 128)), ((68, 120), (64, 113))):
        sample = written_sample(tmp_path, f"{stored}", noise(5, stored))
        pixels = resized(sample, read, Image.Resampling.BILINEAR)
        found = labels_found(network, sample, "vfm_uda")
        for probabilities in (True, False):
            expected = slid(network, pixels, probabilities=probabilities)
            full = F.interpolate(expected[None], stored, mode="bilinear")[0].argmax(0)
            assert torch.equal(found, full) == probabilities


def test_dacs_compares_at_half_the_labels_size(tmp_path: Path) -> None:
    """One label of every four is compared: the odd pixel in the corner is not."""
    labels = np.full((4, 8), 3, np.uint8)
    labels[0, 0] = 4
    sample = written_sample(tmp_path, "a", colors_of(np.full((4, 8), 3, np.uint8)), labels)
    config = EvaluationConfig.following("dacs", dataset="cityscapes")
    config.input_size = config.label_size = (2, 4)
    halved = evaluate(ColorSegmenter(), [sample], config=config, label_space=CITYSCAPES).scores
    config.label_size = None
    stored = evaluate(ColorSegmenter(), [sample], config=config, label_space=CITYSCAPES).scores
    assert (halved.confusion[3][3], halved.confusion[4][3]) == (8, 0)
    assert (stored.confusion[3][3], stored.confusion[4][3]) == (31, 1)


def test_mmsegmentation_keeps_the_shape_of_each_image(tmp_path: Path) -> None:
    """Into a box of 32x128: 64x128 becomes 32x64; 192x64, upright, 96x32; labels stay as stored."""
    network = tiny_model().build(19).eval()
    for stored in ((64, 128), (192, 64)):
        sample = written_sample(tmp_path, f"{stored}", noise(5, stored))
        with torch.no_grad():
            found = network(halved_by_opencv(sample)).logits
            full = F.interpolate(found, stored, mode="bilinear")
        assert torch.equal(labels_found(network, sample, "mmsegmentation"), full[0].argmax(0))
