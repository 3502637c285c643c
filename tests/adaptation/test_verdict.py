"""Criteria without labels, by hand, and what is concluded from them."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from uda.adaptation.criteria import Look, changed_shares, given_up, look_at
from uda.adaptation.verdict import BETTER, UNCLEAR, WORSE, is_foreign, judge, statistics_moved
from uda.data.samples import Sample
from uda.evaluation.evaluate import EvaluationConfig
from uda.labels.spaces import LabelSpace
from uda.models.segmenter import SegmentationOutput, Segmenter

SPACE = LabelSpace(
    name="two",
    classes=("dark", "bright"),
    report_names=("dark", "bright"),
    palette=((0, 0, 0), (255, 255, 255)),
    raw_to_train={0: 0, 1: 1},
)


class Brightness(Segmenter):
    """Class 1 where an image is bright, and the surer the brighter; a mirror image confuses it if
    `left` is given: it then sees class 1 in the left half."""

    has_auxiliary_head = False

    def __init__(self, *, left: bool = False) -> None:
        super().__init__(nn.Conv2d(1, 1, 1), provenance="none")
        self.left = left

    def encode(self, normalized: Tensor) -> tuple[Tensor, ...]:
        return (normalized * self.std + self.mean,)

    def decode(self, features: tuple[Tensor, ...]) -> SegmentationOutput:
        values = features[0].mean(dim=1, keepdim=True)
        if self.left:
            places = torch.arange(values.shape[3]) < values.shape[3] // 2
            values = places.float().expand_as(values)
        logits = torch.cat([20 * (0.5 - values), 20 * (values - 0.5)], dim=1)
        return SegmentationOutput(logits, None, features[0])


def halves(folder: Path, count: int = 3) -> list[Sample]:
    """Images whose left half is dark and whose right half is bright."""
    picture = np.zeros((8, 16, 3), np.uint8)
    picture[:, 8:] = 255
    samples = []
    for number in range(count):
        Image.fromarray(picture).save(folder / f"{number}.png")
        samples.append(Sample("images", str(number), folder / f"{number}.png", None))
    return samples


def look(network: Segmenter, samples: list[Sample]) -> Look:
    config = EvaluationConfig(dataset="cityscapes")
    return look_at(network, samples, config=config, label_space=SPACE)


def test_a_network_that_sees_halves(tmp_path: Path) -> None:
    found = look(Brightness(), halves(tmp_path))
    values = found.values()
    assert values["agreement"] > 0.85  # bicubic resizing blurs the border of the smaller view
    assert values["entropy"] == pytest.approx(0, abs=1e-3)
    assert values["information"] == pytest.approx(math.log(2), abs=1e-3)
    assert values["classes"] == pytest.approx(2)
    assert found.shares().tolist() == [0.5, 0.5]
    assert all(sure.double().mean() > 0.85 for sure in found.sure)


def test_a_network_that_a_mirror_image_confuses(tmp_path: Path) -> None:
    """It sees the left of every image: the mirrored view has everything at the other side, the
    smaller one agrees. Of 2 views with 64 pixels of each class, half agree: IoU 1/3."""
    found = look(Brightness(left=True), halves(tmp_path))
    assert found.values()["agreement"] == pytest.approx(1 / 3)
    assert not any(sure.any() for sure in found.sure)


def looks(*, shares: list[float], agreeing: float, count: int = 20, spread: float = 0.01) -> Look:
    """Images of 100 pixels in a row with classes of these shares, in whose views so much agrees,
    give or take a `spread` from image to image."""
    classes = len(shares)
    labels = torch.repeat_interleave(
        torch.arange(classes), torch.tensor([round(100 * s) for s in shares])
    )
    counts = []
    for number in range(count):
        share = agreeing + spread * (-1) ** number
        own = torch.bincount(labels, minlength=classes).double() * 100
        matrix = torch.diag(own * share)
        for one in range(classes):
            matrix[one, (one + 1) % classes] += own[one] * (1 - share)
        counts.append(matrix.long())
    probabilities = torch.tensor(shares, dtype=torch.float64).expand(count, -1)
    picture = labels.view(1, -1).to(torch.uint8)
    return Look(
        tuple(map(str, range(count))),
        torch.linspace(0.3, 0.4, count, dtype=torch.float64),
        torch.ones(count, dtype=torch.float64),
        probabilities,
        torch.stack(counts),
        (picture,) * count,
        (torch.ones(1, 100, dtype=torch.bool),) * count,
    )


EVEN = [0.25, 0.25, 0.25, 0.25]


def test_better_where_views_agree_more() -> None:
    verdict = judge(looks(shares=EVEN, agreeing=0.6), looks(shares=EVEN, agreeing=0.7))
    assert verdict.word == BETTER
    assert "agreement between views" in verdict.reasons[0]
    assert "a rise" in verdict.reasons[0]


def test_worse_where_they_agree_less() -> None:
    verdict = judge(looks(shares=EVEN, agreeing=0.7), looks(shares=EVEN, agreeing=0.6))
    assert verdict.word == WORSE


def test_unclear_where_images_differ_more_than_networks() -> None:
    before = looks(shares=EVEN, agreeing=0.6, spread=0.2)
    after = looks(shares=EVEN, agreeing=0.6, spread=0.2)
    assert judge(before, after).word == UNCLEAR


def test_a_collapse_is_worse_however_much_agrees() -> None:
    collapsed = looks(shares=[0.97, 0.01, 0.01, 0.01], agreeing=0.99)
    verdict = judge(looks(shares=EVEN, agreeing=0.6), collapsed)
    assert verdict.word == WORSE
    assert "effective number fell from 4.0 to 1.2" in verdict.reasons[0]


def test_what_was_sure_must_not_change() -> None:
    before, after = looks(shares=EVEN, agreeing=0.6), looks(shares=EVEN, agreeing=0.7)
    turned = tuple(labels.roll(30) for labels in after.predicted)
    after = replace(after, predicted=turned)
    assert changed_shares(before, after)[0] == pytest.approx(1.0)
    assert given_up(before, after) == pytest.approx(1.0)
    assert judge(before, after).word == WORSE
    unsure = replace(before, sure=tuple(torch.zeros_like(sure) for sure in before.sure))
    assert given_up(unsure, after) == 0


def test_a_self_taught_network_must_not_lose_density() -> None:
    before, after = looks(shares=EVEN, agreeing=0.6), looks(shares=EVEN, agreeing=0.7)
    thinner = replace(after, density=0.97 * after.density)
    assert judge(before, thinner, self_taught=True).word == WORSE
    assert judge(before, thinner).word == BETTER, "with labels of a source it may"
    assert judge(before, replace(after, density=0.99 * after.density), self_taught=True).word == (
        BETTER
    )


def test_images_of_another_world() -> None:
    assert is_foreign(looks(shares=EVEN, agreeing=0.2), moved=0.0)
    doubtful = looks(shares=EVEN, agreeing=0.6)
    assert doubtful.values()["agreement"] < 0.5
    assert is_foreign(doubtful, moved=0.4)
    assert not is_foreign(doubtful, moved=0.1)
    assert not is_foreign(looks(shares=EVEN, agreeing=0.9), moved=0.9)


def test_distance_of_statistics_by_hand() -> None:
    before = {"a.running_var": torch.tensor([1.0, 1.0]), "a.weight": torch.ones(2)}
    after = {"a.running_var": torch.tensor([math.e, 1 / math.e]), "a.weight": torch.zeros(2)}
    assert statistics_moved(before, after) == pytest.approx(1.0, abs=1e-4)
    assert statistics_moved({"weight": torch.ones(1)}, {"weight": torch.ones(1)}) == 0
