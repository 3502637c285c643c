"""Parts of images that share a forward pass: the same predictions, fewer passes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from factories import ColorSegmenter, noise, written_sample
from tiny_runs import tiny_model
from uda.data.samples import Sample
from uda.evaluation.ensembles import Ensemble, Network, members_of
from uda.evaluation.evaluate import EvaluationConfig, one_ahead, predictions
from uda.evaluation.inference import Prediction
from uda.labels.spaces import CITYSCAPES
from uda.models.segmenter import SegmentationOutput
from uda.utilities.errors import InputError

SIZES = [(32, 48), (32, 48), (48, 32), (32, 48), (32, 48), (32, 48)]
WAYS = {
    "plain": EvaluationConfig(dataset="cityscapes"),
    "views": EvaluationConfig(dataset="cityscapes", scales=(0.5, 1.0), flip=True),
    "windows": EvaluationConfig(dataset="cityscapes", window=(32, 32), overlap=0.5, flip=True),
    "probabilities": EvaluationConfig(dataset="cityscapes", upsample="probabilities", flip=True),
    "padded": EvaluationConfig(dataset="cityscapes", pad_to=(64, 64)),
}


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return [
        written_sample(tmp_path, f"{number}", noise(number, size), None)
        for number, size in enumerate(SIZES)
    ]


def predicted(
    network: Network, samples: list[Sample], config: EvaluationConfig
) -> list[Prediction]:
    found = predictions(
        network, samples, config=config, label_space=CITYSCAPES, workers=0, confidence=True
    )
    return [prediction for _, prediction in found]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_predictions_are_those_of_single_passes(
    way: str, several: bool, samples: list[Sample]
) -> None:
    torch.manual_seed(0)
    network: Network = tiny_model().build(19)
    if several:
        network = Ensemble([tiny_model().build(19), tiny_model().build(19)])
    alone = predicted(network, samples, WAYS[way])
    assert [found.labels.shape for found in alone] == SIZES
    for batch in (2, 3, 100):
        together = predicted(network, samples, replace(WAYS[way], batch=batch))
        for one, other in zip(alone, together, strict=True):
            assert one.confidence is not None
            assert other.confidence is not None
            torch.testing.assert_close(other.confidence, one.confidence, atol=1e-6, rtol=0)
            assert (other.labels != one.labels).float().mean() < 0.01


class Counting(ColorSegmenter):
    """Notes the shapes of what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def normalize(self, images: Tensor) -> Tensor:
        self.shapes.append(tuple(images.shape))
        return super().normalize(images)


def passes(samples: list[Sample], config: EvaluationConfig) -> list[tuple[int, ...]]:
    network = Counting()
    predicted(network, samples, config)
    return network.shapes


def test_what_follows_in_one_size_shares_a_pass(samples: list[Sample]) -> None:
    plain = WAYS["plain"]
    wide, high = (3, 32, 48), (3, 48, 32)
    assert passes(samples, plain) == [(1, *(high if k == 2 else wide)) for k in range(6)]
    twos = [(2, *wide), (1, *high), (2, *wide), (1, *wide)]
    assert passes(samples, replace(plain, batch=2)) == twos
    threes = [(2, *wide), (1, *high), (3, *wide)]
    assert passes(samples, replace(plain, batch=3)) == threes
    both = [(2, *wide), (2, *wide)]
    assert passes(samples[:2], replace(plain, flip=True, batch=2)) == both
    windows = replace(plain, window=(32, 32), batch=8)  # two of each
    assert passes(samples, windows) == [(8, 3, 32, 32), (4, 3, 32, 32)]


def test_what_does_not_fit_into_memory_may_be_the_batch(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> SegmentationOutput:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(ColorSegmenter, "coarse", full)
    for batch, advice in ((1, "these: --window 512x512, .* evaluation.window="),
                          (2, "these: --batch 1, --window .* evaluation.batch=1")):  # fmt: skip
        with pytest.raises(InputError, match=rf"^image '0', which .* at 48x32, .*{advice}"):
            predicted(ColorSegmenter(), samples, replace(WAYS["plain"], batch=batch))


def test_networks_of_an_ensemble_have_passes_of_their_own(samples: list[Sample]) -> None:
    network = Ensemble([Counting(), Counting()])
    predicted(network, samples[:2], replace(WAYS["plain"], batch=2))
    assert [getattr(one, "shapes", None) for one in members_of(network)] == 2 * [[(2, 3, 32, 48)]]


def test_one_ahead_keeps_the_order() -> None:
    made: list[int] = []

    def numbers(count: int) -> Iterator[int]:
        for number in range(count):
            made.append(number)
            yield number

    for count in (0, 1, 4):
        made.clear()
        seen = [(number, len(made)) for number in one_ahead(numbers(count))]
        assert seen == [(number, min(number + 2, count)) for number in range(count)]
