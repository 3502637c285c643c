"""The experiment log's mistakes as tests: evaluation.

C5d: predictions contained 255. C5e: validation images passed through the network in training
mode.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import uda.training.records
from factories import (
    CITYSCAPES_STEMS,
    ColorSegmenter,
    cityscapes_labels,
    colors_of,
    raw_labels,
    write_png,
)
from log_lessons import (
    SIZE,
    blocks,
    from_the_start,
    loaded,
    of_pictures,
    run_to_end,
    write_pictures,
)
from tiny_runs import (
    CPU,
    steps,
    tiny_run,
)
from uda.checkpoints.snapshots import read
from uda.data.batch import View
from uda.data.registry import list_dataset
from uda.data.samples import Sample
from uda.evaluation.evaluate import EvaluationConfig, evaluate
from uda.evaluation.measures import Measured
from uda.evaluation.metrics import ConfusionMatrix
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX, LabelSpace
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.objectives.base import StepContext
from uda.objectives.pseudo_label import PseudoLabelConfig
from uda.prediction.labeling_rules import FixedThreshold
from uda.prediction.pseudo_labeling import label_images
from uda.training.records import evaluate_network
from uda.training.signals import Stop
from uda.utilities.errors import InputError

Histogram = Callable[[Tensor, Tensor], object]


def refuses(count: Histogram, prediction: int) -> bool:
    """Whether `count` refuses predictions (1, 2, 2) with a pixel of `prediction`."""
    predictions = torch.tensor([[[0, prediction], [2, 1]]])
    labels = torch.tensor([[[0, 0], [2, 1]]])
    try:
        count(predictions, labels)
    except InputError as error:
        message = str(error)
    else:
        return False
    assert f"predictions outside 0..18: {prediction};" in message
    return True


@pytest.mark.parametrize("prediction", [IGNORE_INDEX, 254, 19, -1])
def test_c5d_predictions_that_are_no_class_are_refused(prediction: int) -> None:
    matrix = ConfusionMatrix(19)
    assert refuses(matrix.update, prediction)
    assert matrix.counts.sum() == 0
    assert not refuses(matrix.update, 18)
    assert matrix.counts.sum() == 4


def test_c5d_the_logs_histogram_counted_them_as_something_else() -> None:
    counts: list[Tensor] = []

    def logs_histogram(predictions: Tensor, labels: Tensor) -> None:
        cells = 19 * labels.flatten() + predictions.flatten()
        counts.append(torch.bincount(cells, minlength=19 * 19).view(19, 19))

    assert not refuses(logs_histogram, IGNORE_INDEX)
    # 255 = 13 * 19 + 8: a road pixel without a prediction counts as a car predicted as vegetation.
    assert counts[0][13, 8] == 1
    assert counts[0][0].sum() == 1


SURE = 5  # class of the upper half of each picture; the lower half is class 8 with low confidence


@pytest.fixture(scope="module")
def confident_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with target images whose upper half `ColorSegmenter` is confident of."""
    train_ids = np.full(SIZE, SURE, np.uint8)
    train_ids[SIZE[0] // 2 :] = 8
    green = np.where(train_ids == SURE, 240, 16).astype(np.uint8)  # logits 15 and 1
    root = write_pictures(
        tmp_path_factory.mktemp("confident") / "root",
        source=[blocks(0)],
        target=[colors_of(train_ids, green)] * len(CITYSCAPES_STEMS),
    )
    for stem in CITYSCAPES_STEMS:  # to score the pseudo-labels on
        write_png(cityscapes_labels(root, stem), raw_labels(0, SIZE))
    return root


def test_c5d_unsure_pixels_are_255_from_the_file_to_the_loss(
    confident_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "snapshot.pth").write_bytes(b"weights")
    result = label_images(
        ColorSegmenter(),
        list_dataset(confident_root, "cityscapes", "train", labeled=True),
        tmp_path / "labels",
        rule=FixedThreshold(threshold=0.5),  # e^15 / (e^15 + 18) is above it, e / (e + 18) below
        config=EvaluationConfig(dataset="cityscapes", input_size=None),
        label_space=CITYSCAPES,
        snapshot=tmp_path / "snapshot.pth",
        supervision="none",
    )
    assert result.scores is not None, "the log's script stumbled over 255 among its predictions"
    truth = CITYSCAPES.to_train_ids(raw_labels(0, SIZE), "drawn")
    scored = (truth[: SIZE[0] // 2] != IGNORE_INDEX).sum() * len(CITYSCAPES_STEMS)
    assert sum(map(sum, result.scores.confusion)) == scored
    assert result.manifest.share_kept == 0.5

    experiment = of_pictures("toy_class_mix_student", confident_root, steps=1)
    experiment.data.pseudo_labels = str(tmp_path / "labels")
    (batch,) = loaded(experiment)
    labels = batch.to_device(CPU).target_pseudo_labels
    assert labels is not None
    sure = batch.target_images[:, 1] > 128  # the confidence that green encodes
    assert (labels[sure] == SURE).all()
    assert (labels[~sure] == IGNORE_INDEX).all()
    assert 0.3 < sure.float().mean() < 0.7

    # A student with equal logits: a loss of log 19 nats at labeled pixels, none elsewhere.
    logits = torch.zeros(2, 19, *labels.shape[1:], requires_grad=True)
    output = SegmentationOutput(logits, None, logits)
    objective = PseudoLabelConfig(auxiliary_weight=0.0).build(19)
    view = View("target", batch.target_images, labels)
    loss = objective.terms(view, output, StepContext(0, 0, batch.indices))["main"]
    assert loss.item() == pytest.approx(np.log(19))
    loss.backward()
    assert logits.grad is not None
    learned = logits.grad.abs().sum(dim=1) > 0
    assert torch.equal(learned, sure)


def buffers(network: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


def validation(root: Path) -> list[Sample]:
    return list_dataset(root, "cityscapes", "val", labeled=True)


def statistics_survive_evaluation(toy_root: Path) -> bool:
    run = tiny_run(from_the_start("cityscapes_seg", toy_root))
    steps(run, 1)
    before = buffers(run.student)
    assert "backbone.bn1.running_mean" in before
    assert run.student.training
    evaluate_network(
        run.student, validation(toy_root), experiment=run.experiment, label_space=CITYSCAPES,
        stop=Stop(),
    )  # fmt: skip
    after = buffers(run.student)
    return all(torch.equal(before[name], after[name]) for name in before)


def training_survives_evaluation(toy_root: Path, folder: Path) -> bool:
    """Whether evaluating after each step gives the same weights as evaluating once at the end."""
    students = []
    for every in (1, 3):
        experiment = from_the_start("cityscapes_seg", toy_root)
        experiment.evaluation.every = every
        run_to_end(experiment, folder / f"{every}")
        students.append(read(folder / f"{every}" / "resume.pth")["student"])
    often, once = students
    return all(torch.equal(often[name], once[name]) for name in once)


def test_c5e_validation_images_never_touch_the_statistics(toy_root: Path, tmp_path: Path) -> None:
    assert statistics_survive_evaluation(toy_root)
    assert training_survives_evaluation(toy_root, tmp_path)


def test_c5e_the_logs_validation_loss_is_caught(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_a_validation_loss(
        segmenter: Segmenter,
        samples: Sequence[Sample],
        *,
        config: EvaluationConfig,
        label_space: LabelSpace,
        **_: object,
    ) -> Measured:
        segmenter.train()
        segmenter(torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0)))
        return evaluate(segmenter, samples, config=config, label_space=label_space)

    monkeypatch.setattr(uda.training.records, "evaluate", with_a_validation_loss)
    assert not statistics_survive_evaluation(toy_root)
    assert not training_survives_evaluation(toy_root, tmp_path)
