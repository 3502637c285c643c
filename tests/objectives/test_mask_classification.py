"""Mask classification: right masks cost least, what is not labeled is no mask."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from uda.data.batch import View
from uda.data.config import DataConfig, DomainConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig, validate
from uda.labels.spaces import IGNORE_INDEX
from uda.models.config import ModelConfig
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.models.mask2former import Mask2FormerConfig
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.functional.masks import masks_of
from uda.objectives.mask_classification import MaskClassificationConfig
from uda.objectives.supervised import SupervisedConfig
from uda.utilities.errors import InputError

CLASSES, QUERIES, SIDE = 4, 6, 16
CONFIG = MaskClassificationConfig(points=200)
CONTEXT = StepContext(step=0, seed=0, indices=(10, 11))


@pytest.fixture(autouse=True, scope="module")
def _library() -> None:
    pytest.importorskip("transformers")


def drawn_labels() -> Tensor:
    """(2, 64, 64): classes 0 and 2 side by side; class 3 above, nothing known below."""
    labels = torch.zeros(2, 64, 64, dtype=torch.uint8)
    labels[0, :, 32:] = 2
    labels[1] = 3
    labels[1, 32:] = IGNORE_INDEX
    return labels


def saying(labels: Tensor, *, mirrored: bool = False, renamed: int = 0) -> SegmentationOutput:
    """What queries that know `labels` say, in both of two layers: sure of mask and class; left and
    right, or classes, may be wrong."""
    classes = torch.full((2, len(labels), QUERIES, CLASSES + 1), -8.0)
    masks = torch.full((2, len(labels), QUERIES, SIDE, SIDE), -8.0)
    classes[..., -1] = 8.0
    for n, image in enumerate(labels[:, ::4, ::4]):
        for q, c in enumerate(image.unique()[image.unique() != IGNORE_INDEX].tolist()):
            where = (image == c).flip(1) if mirrored else image == c
            masks[:, n, q] = torch.where(where, 8.0, -8.0)
            classes[:, n, q, -1] = -8.0
            classes[:, n, q, (c + renamed) % CLASSES] = 8.0
    zero = torch.zeros(1)
    return SegmentationOutput(zero, None, zero, classes.requires_grad_(), masks.requires_grad_())


def terms(
    output: SegmentationOutput,
    labels: Tensor,
    config: MaskClassificationConfig = CONFIG,
    context: StepContext = CONTEXT,
) -> dict[str, float]:
    view = View("source", torch.zeros(len(labels), 3, 64, 64), labels)
    found = config.build(CLASSES).terms(view, output, context)
    assert all(value.dtype == torch.float32 for value in found.values())
    return {name: value.item() for name, value in found.items()}


def test_one_mask_per_class_and_none_of_what_is_unlabeled() -> None:
    first, second = drawn_labels()
    classes, masks = masks_of(first)
    assert classes.tolist() == [0, 2]
    assert masks.sum(dim=(1, 2)).tolist() == [2048, 2048]
    assert torch.equal(masks.sum(0), torch.ones(64, 64))
    classes, masks = masks_of(second)
    assert classes.tolist() == [3]
    assert masks[0, 32:].sum() == 0
    assert masks_of(torch.full((64, 64), IGNORE_INDEX))[1].shape == (0, 64, 64)


def test_right_masks_cost_less_than_wrong_ones() -> None:
    labels = drawn_labels()
    right = terms(saying(labels), labels)
    assert set(right) == {"class", "mask", "dice"}
    # Most points lie on borders, where masks at stride 4 cannot be sure.
    assert right["class"] < 1e-4
    assert sum(right.values()) < 2
    misplaced = terms(saying(labels.flip(2).roll(16, 2), mirrored=True), labels)
    assert misplaced["mask"] > 5 * right["mask"]
    assert misplaced["dice"] > 5 * right["dice"]
    renamed = terms(saying(labels, renamed=1), labels)
    assert renamed["class"] > 20 * max(right["class"], 0.1)
    silent = saying(torch.full_like(labels, IGNORE_INDEX))
    assert sum(terms(silent, labels).values()) > 5 * sum(right.values())


def test_weights_scale_terms() -> None:
    """Matching is the same: all costs that matter here have one order."""
    labels = drawn_labels()
    torch.manual_seed(0)
    output = saying(labels, renamed=1)
    base = terms(output, labels)
    for name in ("class", "mask", "dice"):
        factor = {f"{name}_weight": 3 * getattr(CONFIG, f"{name}_weight")}
        changed = terms(output, labels, replace(CONFIG, **factor))
        assert changed[name] == pytest.approx(3 * base[name])


def test_an_image_without_labels_teaches_that_there_is_no_object() -> None:
    labels = torch.full((2, 64, 64), IGNORE_INDEX, dtype=torch.uint8)
    found = terms(saying(drawn_labels()), labels)
    assert found["mask"] == found["dice"] == 0
    assert found["class"] > 1
    assert terms(saying(labels), labels)["class"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("queries", [QUERIES, 1])
def test_a_batch_is_the_mean_of_its_images_by_masks_and_by_queries(queries: int) -> None:
    """Two masks and one, of six queries: masks weigh 2 and 1, queries 2 + 4 * 0.1 and 1 + 5 * 0.1;
    of one query, which finds one mask of the two, 1 and 1. Points are those of the sample alone."""
    labels = drawn_labels()
    said = saying(labels.flip(1), renamed=1)
    assert said.query_classes is not None
    assert said.query_masks is not None
    queries_said = said.query_classes[:, :, :queries], said.query_masks[:, :, :queries]

    def of(chosen: slice) -> dict[str, float]:
        classes, masks = (part[:, chosen] for part in queries_said)
        output = said.replace(query_classes=classes, query_masks=masks)
        context = StepContext(step=0, seed=0, indices=CONTEXT.indices[chosen])
        return terms(output, labels[chosen], context=context)

    both, first, second = of(slice(2)), of(slice(0, 1)), of(slice(1, 2))
    for name, weights in (
        ("mask", (2, 1)), ("dice", (2, 1)), ("class", (2.4, 1.5) if queries == QUERIES else (1, 1))
    ):  # fmt: skip
        mean = (weights[0] * first[name] + weights[1] * second[name]) / sum(weights)
        assert both[name] == pytest.approx(mean), name


def test_gradients_reach_every_layer() -> None:
    labels = drawn_labels()
    output = saying(labels)
    view = View("source", torch.zeros(2, 3, 64, 64), labels)
    found = CONFIG.build(CLASSES).terms(view, output, CONTEXT)
    torch.stack(list(found.values())).sum().backward()
    for part in (output.query_classes, output.query_masks):
        assert part is not None
        assert part.grad is not None
        assert (part.grad.flatten(1).abs().sum(dim=1) > 0).all()


def test_points_follow_from_seed_and_samples_alone() -> None:
    labels = drawn_labels()
    output = saying(labels.roll(5, 2))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = terms(output, labels)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert terms(output, labels) == first
    other = StepContext(step=0, seed=0, indices=(12, 13))
    assert terms(output, labels, context=other)["mask"] != first["mask"]


def test_a_network_without_queries_is_refused() -> None:
    def experiment(model: ModelConfig) -> Experiment:
        return Experiment(
            data=DataConfig(source=DomainConfig(datasets=("vaihingen",)), crop=(64, 64)),
            model=model,
            objectives={"masks": MaskClassificationConfig()},
            train=TrainConfig(steps=1, batch_size=2),
            evaluation=EvaluationConfig(dataset="vaihingen"),
        )

    validate(experiment(Mask2FormerConfig()))
    with pytest.raises(InputError, match="'masks' needs a network with queries, such as Mask2F"):
        validate(experiment(DeepLabV3PlusConfig(auxiliary_head=False)))
    pixelwise = experiment(Mask2FormerConfig())
    pixelwise.objectives = {"supervised": SupervisedConfig(auxiliary_weight=0.0)}
    validate(pixelwise)


@pytest.mark.parametrize(
    "changes",
    [
        {"points": 0},
        {"points": 2**20 + 1},
        {"oversample": 0.5},
        {"oversample": 101.0},
        {"importance": 1.5},
        {"no_object_weight": 0.0},
    ],
)
def test_figures_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(InputError, match=rf"objectives\.masks\.{next(iter(changes))} is "):
        replace(CONFIG, **changes).check("objectives.masks")  # type: ignore[arg-type]
