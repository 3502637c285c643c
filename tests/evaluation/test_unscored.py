"""Classes that are learned but not scored, and the mean over images of the NoonBody challenge."""

import json
import random
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from uda.evaluation.measures import Tally
from uda.evaluation.metrics import Scores
from uda.evaluation.named_measures import PerImageUnionMiou
from uda.evaluation.report_formats import FORMATS, format_scores
from uda.evaluation.reports import fact_lines, scores_json
from uda.labels.spaces import IGNORE_INDEX, LabelSpace

SPACE = LabelSpace(
    name="hands",
    classes=("background", "right hand", "left hand", "head"),
    report_names=("background", "right hand", "left hand", "head"),
    palette=((0, 0, 0), (9, 0, 0), (0, 9, 0), (0, 0, 9)),
    raw_to_train={0: 0, 1: 1, 2: 2, 3: 3, 255: IGNORE_INDEX},
    mirror_swaps=((1, 2),),
    unscored=(3,),
)


def maps(*rows: str) -> Tensor:
    """Train ids, one digit each; x is 255."""
    return torch.tensor([[IGNORE_INDEX if c == "x" else int(c) for c in row] for row in rows])


# Image 1: background 2 of 4 (one predicted as head, one missed), right hand 1 of 2, head 1 of 3.
FIRST = (maps("0013", "0010"), maps("0001", "x003"))
# Worked out below pixel by pixel: (prediction, labels).
SECOND = (maps("22"), maps("22"))  # left hand alone: 1
THIRD = (maps("33"), maps("33"))  # nothing that is scored
FOURTH = (maps("01"), maps("xx"))  # nothing labeled


def measured(*images: tuple[Tensor, Tensor], space: LabelSpace = SPACE) -> dict[str, object]:
    measure = PerImageUnionMiou(space)
    for predicted, labels in images:
        measure.add(predicted, labels)
    return measure.fact(Scores((), 0.0, 0.0, (), ()))


def test_mean_over_images_by_hand() -> None:
    """Image 1, pixel by pixel (predicted/labeled): 0/0 0/0 1/0 3/1 0/- 0/0 1/0 0/3. Background: 3
    hits, labeled 5, predicted 4, union 6. Right hand: no hit, union 3. Left hand: in neither."""
    first = 100 * (3 / 6 + 0 / 3) / 2
    assert measured(FIRST)["value"] == pytest.approx(first, abs=1e-4)
    both = measured(FIRST, SECOND, THIRD, FOURTH)
    assert both["value"] == pytest.approx((first + 100) / 2, abs=1e-4)
    assert both["images"] == 2
    scored = replace(SPACE, unscored=())
    assert measured(FIRST, space=scored)["value"] == pytest.approx(
        100 / 6, abs=1e-4
    )  # 0 of 2 heads


def test_nothing_scored_has_no_value() -> None:
    assert measured(THIRD, FOURTH) == {
        "value": None,
        "definition": PerImageUnionMiou.definition,
        "images": 0,
    }


def test_no_class_is_a_miss() -> None:
    """Of a folder of label maps: 4 stands for "no class"."""
    assert measured((maps("04"), maps("00")))["value"] == 50.0


def test_the_sum_does_not_depend_on_order_or_processes() -> None:
    generator = torch.Generator().manual_seed(0)
    images = [tuple(torch.randint(0, 4, (2, 5, 7), generator=generator)) for _ in range(40)]
    whole = PerImageUnionMiou(SPACE)
    for predicted, labels in images:
        whole.add(predicted, labels)
    random.Random(0).shuffle(images)
    parts = [PerImageUnionMiou(SPACE) for _ in range(3)]
    for index, (predicted, labels) in enumerate(images):
        parts[index % 3].add(predicted, labels)
    parts[0].merge(parts[1])
    parts[2].merge(parts[0])
    assert torch.equal(parts[2].counts, whole.counts)
    exact = sum(image_miou(*image) for image in images) / len(images)
    value = whole.fact(Scores((), 0.0, 0.0, (), ()))["value"]
    assert value == pytest.approx(100 * float(exact), abs=1e-4)


def image_miou(predicted: Tensor, labels: Tensor) -> Fraction:
    """The same in fractions, with sets."""
    pixels = list(zip(predicted.flatten().tolist(), labels.flatten().tolist(), strict=True))
    ious = []
    for c in (0, 1, 2):
        union = [pair for pair in pixels if c in pair]
        if union:
            ious.append(Fraction(sum(pair == (c, c) for pair in union), len(union)))
    return sum(ious, Fraction(0)) / len(ious)


def tallied(space: LabelSpace = SPACE) -> tuple[Scores, dict[str, object]]:
    tally = Tally(space, measures=("f1", "per_image_union_miou"))
    tally.add(*FIRST)
    tally.add(*SECOND)
    found = tally.measured()
    return found.scores, found.facts


def test_means_leave_the_class_out_but_its_iou_is_there() -> None:
    """IoU: background 3 / 6, right hand 0 / 3, left hand 2 / 2, head 0 / 2."""
    scores, facts = tallied()
    assert scores.iou == pytest.approx((1 / 2, 0, 1, 0))
    assert scores.miou == pytest.approx(0.5)
    assert scores.mean_accuracy == pytest.approx((3 / 5 + 0 + 1) / 3)
    assert scores.pixel_accuracy == pytest.approx(5 / 9)
    f1 = facts["f1"]
    assert isinstance(f1, dict)
    assert f1["value"] == pytest.approx(100 * (2 / 3 + 0 + 1) / 3, abs=1e-4)
    everything, _ = tallied(replace(SPACE, unscored=()))
    assert everything.miou == pytest.approx(1.5 / 4)


@pytest.mark.parametrize("name", FORMATS)
def test_reports_say_what_is_not_scored(name: str) -> None:
    scores, _ = tallied()
    text = format_scores(name, scores, SPACE, {})
    assert "head" in text
    if name == "log":
        assert text.startswith("not scored: head\n===>background:\t50.0\n")
        assert text.endswith("===>head:\t0.0\n===> mIoU: 50.0")
    if name == "json":
        assert json.loads(text)["not_scored"] == "head"
    plain = format_scores(name, tallied(replace(SPACE, unscored=()))[0], SPACE, {})
    assert "not scored" not in plain
    assert "not_scored" not in plain


def test_values_are_published_with_their_definition() -> None:
    scores, facts = tallied()
    line = fact_lines(facts)[-2:]
    assert line[0].startswith("per image union miou: 62.5 (percent; per image, the mean IoU of the")
    assert line[1] == "per image union miou: images 2"
    assert scores_json(scores, SPACE.report_names, **facts)["not_scored"] == "head"
