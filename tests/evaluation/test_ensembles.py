"""Several networks that predict as one: by hand, by every protocol, and what cannot be averaged."""

import pytest
import torch

import uda
from factories import ColorSegmenter, probabilities, shown
from tiny_runs import tiny_model
from uda.evaluation import inference
from uda.evaluation.ensembles import Average, Ensemble
from uda.evaluation.inference import predict
from uda.evaluation.protocols import PROTOCOLS, Protocol
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.prediction.opened import title_of
from uda.utilities.errors import InputError

SIZE = (22, 38)
WAYS = {
    "native": Protocol(),
    "adaptsegnet": Protocol(upsample="logits", align_corners=True),
    "fda": Protocol(upsample="probabilities", align_corners=True),
    "windows": Protocol(window=(16, 24), overlap=0.4, flip=True),
    "both heads": Protocol(heads="fused", flip=True),
}
OF_LOGITS = [way for way in WAYS if way != "fda"]


def networks(count: int = 3) -> list[Segmenter]:
    torch.manual_seed(0)
    return [tiny_model().build(19).eval() for _ in range(count)]


@pytest.mark.parametrize("way", WAYS)
def test_the_mean_of_probabilities(way: str) -> None:
    members = networks()
    alone = [probabilities(member, [shown()], SIZE, WAYS[way]) for member in members]
    together = probabilities(Ensemble(members), [shown()], SIZE, WAYS[way])
    torch.testing.assert_close(together, torch.stack(alone).mean(0))
    assert not torch.allclose(alone[0], alone[1])
    found = predict(Ensemble(members), [shown()], size=SIZE, protocol=WAYS[way], confidence=True)
    assert torch.equal(found.labels, together.argmax(0))


class Fixed(ColorSegmenter):
    """Says the same of every pixel."""

    def __init__(self, *logits: float) -> None:
        super().__init__(len(logits))
        self.logits = torch.tensor(logits).view(1, -1, 1, 1)

    def decode(self, features: tuple[torch.Tensor, ...]) -> SegmentationOutput:
        return SegmentationOutput(self.logits, None, self.logits)


def test_both_means_by_hand() -> None:
    """A network that is sure decides more in the mean of logits."""
    sure, unsure, image = Fixed(0, 3), Fixed(2, 0), torch.zeros(3, 1, 1, dtype=torch.uint8)
    mean = (torch.tensor([0.0, 3.0]).softmax(0) + torch.tensor([2.0, 0.0]).softmax(0)) / 2
    found = probabilities(Ensemble([sure, unsure]), [image], (1, 1)).flatten()
    torch.testing.assert_close(found, mean)
    found = probabilities(Ensemble([sure, unsure], "logits"), [image], (1, 1)).flatten()
    torch.testing.assert_close(found, torch.tensor([1.0, 1.5]).softmax(0))


@pytest.mark.parametrize("way", OF_LOGITS)
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_strips_are_the_whole_and_copies_change_nothing(
    way: str, average: Average, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = networks(2)
    whole = probabilities(Ensemble(members, average), [shown()], SIZE, WAYS[way])
    twice = probabilities(Ensemble([members[0]] * 2, average), [shown()], SIZE, WAYS[way])
    torch.testing.assert_close(twice, probabilities(members[0], [shown()], SIZE, WAYS[way]))
    monkeypatch.setattr(inference, "_STRIP_VALUES", 3 * 19 * SIZE[1])
    pieces = probabilities(Ensemble(members, average), [shown()], SIZE, WAYS[way])
    torch.testing.assert_close(pieces, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["fda", "mrnet", "single", "vfm_uda"])
def test_no_logits_to_average(name: str) -> None:
    with pytest.raises(InputError, match=rf"protocol {name} .*--average probabilities"):
        inference.check_average(Ensemble(networks(2), "logits"), PROTOCOLS[name])
    inference.check_average(Ensemble(networks(2)), PROTOCOLS[name])
    with pytest.raises(InputError, match="no logits to average"):
        probabilities(Ensemble(networks(2), "logits"), [shown()], SIZE, WAYS["fda"])


def test_what_is_no_ensemble() -> None:
    with pytest.raises(InputError, match="ensemble of 1 networks; allowed: 2"):
        Ensemble(networks(1))
    with pytest.raises(InputError, match="allowed: probabilities, logits"):
        Ensemble(networks(2), "votes")  # type: ignore[arg-type]
    other = Ensemble([ColorSegmenter(19), ColorSegmenter(3)])
    with pytest.raises(InputError, match="networks have 3 and 19 classes"):
        probabilities(other, [shown()], SIZE)


def test_in_python() -> None:
    ensemble = Ensemble(networks(2))
    assert title_of(ensemble) == (
        "mean of the probabilities of 2 networks: DeepLabV3Plus, DeepLabV3Plus"
    )
    image = shown().permute(1, 2, 0).numpy()
    (found,) = uda.predict(ensemble, image)
    expected = probabilities(ensemble, [shown()], SIZE)
    assert torch.equal(found.labels, expected.argmax(0))
    torch.testing.assert_close(found.confidence, expected.amax(0))
