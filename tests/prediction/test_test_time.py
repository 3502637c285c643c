"""Adaptation at test time: values by hand, states, streams, and what is refused."""

import copy
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from factories import noise, write_png
from shells import Trained
from uda.checkpoints.snapshots import load
from uda.evaluation.ensembles import Ensemble
from uda.evaluation.evaluate import EvaluationConfig
from uda.models.encoders.base import FeatureMaps, Normalization
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.prediction.drift import Drift, classes_of
from uda.prediction.folder import predict_folder
from uda.prediction.opened import OpenedNetwork
from uda.prediction.test_time import TestTimeAdapter
from uda.utilities.errors import InputError


class Colors(Segmenter):
    """Scores of three classes: the channels, normalized and then scaled by `sharpness`."""

    def __init__(self, norm: nn.Module, *, sharpness: float = 1.0) -> None:
        nothing = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        super().__init__(norm, provenance="none", normalization=nothing)
        self.scale = nn.Conv2d(1, 1, 1)  # a parameter of no norm
        self.sharpness = sharpness

    @property
    def has_auxiliary_head(self) -> bool:
        return False

    def encode(self, normalized: Tensor) -> FeatureMaps:
        return (self.backbone(normalized),)

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        return SegmentationOutput(self.sharpness * features[0], None, features[0])


def batch_normed(**settings: float) -> Colors:
    return Colors(nn.BatchNorm2d(3, eps=0.0), **settings).eval()


def picture(seed: int, size: tuple[int, int] = (8, 12)) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed))


def norm_of(adapter: TestTimeAdapter) -> nn.BatchNorm2d:
    norm = adapter.network.backbone
    assert isinstance(norm, nn.BatchNorm2d)
    return norm


def logits_of(image: Tensor, network: Segmenter) -> Tensor:
    logits: Tensor = network(image).logits
    return logits


# --- batch norm


def test_statistics_are_blended_by_hand() -> None:
    """Old (0, 1) as 16 images, the image's (2, 4): mean 2 / 17, variance 20 / 17."""
    image = torch.tensor([-1.0, 1.0] * 2).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    image = 2 + image * 3**0.5  # its unbiased variance was 4 / 3
    adapter = TestTimeAdapter(batch_normed(), prior=16)
    found = adapter(image)
    torch.testing.assert_close(norm_of(adapter).running_mean, torch.full((3,), 2 / 17))
    torch.testing.assert_close(norm_of(adapter).running_var, torch.full((3,), 20 / 17))
    torch.testing.assert_close(found, (image - 2 / 17) / (20 / 17) ** 0.5)


def test_without_a_prior_an_image_is_normalized_by_itself() -> None:
    found = TestTimeAdapter(batch_normed(), prior=0)(0.2 + picture(0) / 10)
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.var((0, 2, 3)), torch.ones(3))


def test_a_single_value_has_no_statistics() -> None:
    image = torch.full((1, 3, 1, 1), 0.7)
    torch.testing.assert_close(TestTimeAdapter(batch_normed(), prior=0)(image), image)


def test_continual_statistics_follow_the_images_one_by_one() -> None:
    adapter = TestTimeAdapter(batch_normed(), mode="continual", prior=3)
    mean = torch.zeros(3)
    for seed in range(3):
        image = picture(seed)
        adapter(image)
        mean = (3 * mean + image.mean((0, 2, 3))) / 4
        torch.testing.assert_close(norm_of(adapter).running_mean, mean)


# --- tent


def layer_normed(sharpness: float = 1.0) -> Colors:
    return Colors(nn.GroupNorm(1, 3, eps=0.0), sharpness=sharpness)


def gradient_by_hand(image: Tensor) -> Tensor:
    """Of the mean entropy to the norm's bias: dH/dz_k = -p_k (log p_k + H)."""
    p = image.softmax(1)
    entropy = -(p * p.log()).sum(1, keepdim=True)
    return (-p * (p.log() + entropy)).mean((0, 2, 3))


def test_a_step_by_hand() -> None:
    """Adam's first step has the length of its rate, against the sign of the gradient."""
    network, image = layer_normed(), picture(0)
    normalized = (image - image.mean()) / image.var(unbiased=False).sqrt()
    gradient = gradient_by_hand(normalized)
    adapter = TestTimeAdapter(network, method="tent", rate=0.01)
    found = adapter(image)
    bias = adapter.network.get_parameter("backbone.bias")
    torch.testing.assert_close(bias.grad, gradient)
    torch.testing.assert_close(bias.detach(), -0.01 * gradient.sign(), atol=1e-5, rtol=0)
    weight = adapter.network.get_parameter("backbone.weight").detach()
    expected = normalized * weight[:, None, None] + bias.detach()[:, None, None]
    torch.testing.assert_close(found, expected)  # episodic: after the step
    assert adapter.network.get_parameter("scale.weight").grad is None
    assert torch.equal(network.get_parameter("backbone.bias"), torch.zeros(3))  # as it was


def test_continual_is_predicted_before_the_step_that_stays() -> None:
    network, image = layer_normed(), picture(0)
    adapter = TestTimeAdapter(network, method="tent", mode="continual", rate=0.01)
    torch.testing.assert_close(adapter(image), network(image).logits)
    after = adapter(image)
    torch.testing.assert_close(after, TestTimeAdapter(network, method="tent", rate=0.01)(image))


@pytest.mark.parametrize("method", ["batch-norm", "tent"])
def test_episodic_is_a_fresh_network_for_every_image(method: str) -> None:
    adapter = TestTimeAdapter(batch_normed(), method=method, rate=None)  # type: ignore[arg-type]
    images = [picture(seed) for seed in range(3)]
    together = adapter(torch.cat(images))
    for image, found in zip(images, together, strict=True):
        fresh = TestTimeAdapter(batch_normed(), method=method)(image)  # type: ignore[arg-type]
        assert torch.equal(fresh[0], found)


def test_streams_do_not_influence_each_other() -> None:
    def found(*seeds: int) -> Tensor:
        adapter = TestTimeAdapter(batch_normed(), method="tent", mode="continual", rate=0.1)
        for seed in seeds:
            last = adapter.predict(picture(seed), partial(logits_of, picture(9)), stream=seed // 10)
        return last

    assert torch.equal(found(1, 2, 11, 12), found(11, 12))
    assert not torch.equal(found(1, 2, 3), found(2, 3))


# --- returning to the start


def test_classes_are_counted_by_their_shares() -> None:
    assert classes_of(torch.tensor([0.25] * 4)).item() == pytest.approx(4)
    assert classes_of(torch.tensor([1.0, 0.0])).item() == pytest.approx(1)


def test_drift_is_fewer_classes_or_other_ones_than_the_starts() -> None:
    start = 5 * torch.eye(4).view(1, 4, 2, 2)
    collapsed = start.clone()
    collapsed[:, 0] += 9
    assert not Drift().sees(start, start)
    assert Drift().sees(collapsed, start)
    assert Drift().sees(start.roll(1, 1), start)  # as many classes, but others
    assert Drift().sees(start.nan_to_num() * float("nan"), start)
    drift = Drift()
    assert not any(drift.sees(start, start) for _ in range(30))
    slightly = start.clone()
    slightly[:, 0] += 4.9  # 0.76 of the start's classes: of the last ten
    found = [drift.sees(slightly, start) for _ in range(10)]
    assert not any(found[:5])
    assert any(found)


def stream(seed: int, tint: Tensor) -> Tensor:
    """A picture whose pixels are red, green or blue under a tint."""
    truth = torch.randint(0, 3, (1, 16, 24), generator=torch.Generator().manual_seed(seed))
    colors = nn.functional.one_hot(truth, 3).permute(0, 3, 1, 2).float()
    return (0.2 + 0.6 * colors + picture(seed, (16, 24)) / 5) * tint.view(1, 3, 1, 1)


def test_a_stream_that_changes_halfway_does_not_collapse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At a rate at which Tent collapses. The start has all of it right."""
    network = batch_normed()
    day, dusk = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, 0.8, 0.6])
    frames = [stream(index, day if index < 20 else dusk) for index in range(40)]
    truth = [stream(index, day).argmax(1) for index in range(40)]

    def measured(adapter: TestTimeAdapter) -> tuple[Tensor, Tensor]:
        """The share of correct pixels and the number of classes of each frame."""
        found = [
            adapter.predict(frame, partial(logits_of, frame), name=str(index))
            for index, frame in enumerate(frames)
        ]
        right = [(f.argmax(1) == t).float().mean() for f, t in zip(found, truth, strict=True)]
        classes = [classes_of(f.softmax(1).mean((0, 2, 3))) for f in found]
        return torch.stack(right), torch.stack(classes)

    def adapter() -> TestTimeAdapter:
        return TestTimeAdapter(network, method="tent", mode="continual", rate=0.2)

    held = adapter()
    right, classes = measured(held)
    right_at_start, classes_at_start = measured(TestTimeAdapter(network))
    monkeypatch.setattr(Drift, "sees", lambda *_: False)
    right_alone, classes_alone = measured(adapter())
    assert held.returned
    assert all(int(name) > 0 for name in held.returned)
    of_ten = (classes / classes_at_start).unfold(0, 10, 1).mean(1)
    assert of_ten.min() > 0.75
    assert (classes_alone / classes_at_start)[-10:].mean() < 0.65
    assert right_at_start.min() > 0.9
    assert right.mean() > max(0.7 * right_at_start.mean(), right_alone.mean())


# --- refusals


def test_what_cannot_adapt_is_refused_with_what_can() -> None:
    bare = Colors(nn.Identity())
    with pytest.raises(InputError, match="use --adapt tent, for the 2 weights and biases"):
        TestTimeAdapter(layer_normed())
    with pytest.raises(InputError, match="none: adapt all of its weights with uda adapt"):
        TestTimeAdapter(bare)
    with pytest.raises(InputError, match="has none: adapt all of its weights with uda adapt"):
        TestTimeAdapter(bare, method="tent")
    with pytest.raises(InputError, match=r"of one Segmenter, as uda\.load returns it, not of an"):
        TestTimeAdapter(Ensemble([bare, bare]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rate": 0.1}, "--adapt-rate is 0.1; allowed: above 0, with --adapt tent only"),
        ({"method": "tent", "rate": 0.0}, "--adapt-rate is 0.0; allowed: above 0"),
        ({"prior": -1.0}, "--adapt-prior is -1.0; allowed: 0 or more images"),
        ({"prior": 0.0, "mode": "continual"}, "--adapt-prior 0 keeps nothing"),
        ({"method": "tend"}, "--adapt is 'tend'; allowed: batch-norm, tent"),
        ({"mode": "always"}, "--adapt-mode is 'always'; allowed: episodic, continual"),
    ],
)
def test_options_that_make_no_sense_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        TestTimeAdapter(batch_normed(), **settings)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--adapt-prior 3 is of batch normalization"):
        TestTimeAdapter(layer_normed(), method="tent", prior=3)


# --- folders


def test_folders_are_streams_whatever_the_loaders(trained: Trained, tmp_path: Path) -> None:
    """The same bytes with loader processes, and for a folder that is predicted alone."""
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        write_png(tmp_path / "in" / name, noise(len(name) + int(name[-5]), (32, 48)))
    snapshot = load(trained.snapshot)
    config = EvaluationConfig(dataset="cityscapes")
    network = OpenedNetwork(snapshot.build(), snapshot, config, "", {})

    def predicted(folder: str, output: str, workers: int = 0) -> dict[str, bytes]:
        adapter = TestTimeAdapter(network.segmenter, method="tent", mode="continual", rate=0.01)
        predict_folder(
            network, tmp_path / folder, tmp_path / output, snapshot=trained.snapshot,
            kinds=("confidence",), workers=workers, adapter=adapter,
        )  # fmt: skip
        below = tmp_path / output / "confidence"
        return {str(p.relative_to(below)): p.read_bytes() for p in sorted(below.rglob("*.png"))}

    before = copy.deepcopy(network.segmenter.state_dict())
    both = predicted("in", "both")
    assert both == predicted("in", "again", workers=1)
    alone = predicted("in/b", "alone")
    assert {f"b/{name}": picture for name, picture in alone.items()}.items() <= both.items()
    manifest = json.loads((tmp_path / "both/predictions.json").read_text())
    assert manifest["test_time"].startswith("tent, continual, ")
    assert "predicted before it, every folder is a stream" in manifest["test_time"]
    assert manifest["returned"] == []
    after = network.segmenter.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_looks_of_an_adapting_network_share_no_pass(trained: Trained, tmp_path: Path) -> None:
    snapshot = load(trained.snapshot)
    config = EvaluationConfig(dataset="cityscapes", flip=True, batch=2)
    network = OpenedNetwork(snapshot.build(), snapshot, config, "", {})
    with pytest.raises(InputError, match="--batch 2 takes several at once: use --batch 1"):
        predict_folder(
            network, tmp_path / "in", tmp_path / "out", snapshot=trained.snapshot, kinds=("ids",),
            adapter=TestTimeAdapter(network.segmenter),
        )  # fmt: skip
