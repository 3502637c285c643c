"""Scores of probabilities per batch: by hand, against all of it at once, in several processes."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tiny_runs import REPOSITORY, tiny_model
from uda.data.toy_city.city import write_toy_city
from uda.data.training import open_labeled_split
from uda.evaluation import inference
from uda.evaluation.evaluate import EvaluationConfig, evaluate
from uda.evaluation.inference import predict
from uda.evaluation.measures import Tally
from uda.evaluation.named_measures import SoftBatch
from uda.evaluation.protocols import protocol_named
from uda.evaluation.soft_scores import SMOOTH, soft_scores, soft_sums
from uda.labels.spaces import CITYSCAPES

# A class and its rest, in a row of four pixels, of which the last is unlabeled.
PROBABILITIES = torch.tensor([[[0.8, 0.4, 0.1, 0.5]], [[0.2, 0.6, 0.9, 0.5]]])
LABELS = torch.tensor([[0, 0, 1, 255]])


def test_by_hand() -> None:
    sums = soft_sums(PROBABILITIES, LABELS)
    # Where labeled so: 0.8 + 0.4 and 0.9; everywhere: 1.3 and 1.7; labeled: 2 and 1.
    loss = -torch.tensor([0.8, 0.4, 0.9]).log().sum()
    assert sums.tolist() == pytest.approx([1.2, 0.9, 1.3, 1.7, 2, 1, float(loss), 3])
    found = soft_scores(sums[None])
    assert found.iou == pytest.approx((1.2 / (1.3 + 2 - 1.2) + 0.9 / (1.7 + 1 - 0.9)) / 2, abs=1e-5)
    assert found.f1 == pytest.approx((2.4 / 3.3 + 1.8 / 2.7) / 2, abs=1e-5)
    assert found.loss == pytest.approx(float(loss) / 3)


def test_batches_of_eight_weigh_the_same_however_many_images_the_last_one_has() -> None:
    right = torch.tensor([4.0, 0, 4, 0, 4, 0, 0, 4]).double()  # class 0 alone, all of it right
    wrong = torch.tensor([0.0, 0, 0, 4, 4, 0, 8, 4]).double()  # taken for class 1
    found = soft_scores(torch.stack([right] * 8 + [wrong]))
    # First batch: 1 and, for what is nowhere, 1. Second: two classes with nothing right.
    nothing = SMOOTH / (4 + SMOOTH)
    assert found.iou == pytest.approx((1 + 1 + 2 * nothing) / 4)
    assert found.loss == pytest.approx(8 / 36)
    # In another order every batch but the last holds other images.
    assert soft_scores(torch.stack([wrong] + [right] * 8)).iou != pytest.approx(found.iou, abs=1e-3)


def dense(probabilities: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """The same of a batch (N, C, H, W), written down as segmentation_models defines it."""
    truth = F.one_hot(labels, probabilities.shape[1]).permute(0, 3, 1, 2).double()
    probabilities = probabilities.double()
    axes = (0, 2, 3)
    intersection = (truth * probabilities).sum(axes)
    union = (truth + probabilities).sum(axes) - intersection
    iou = ((intersection + 1e-5) / (union + 1e-5)).mean()
    wrong, missed = probabilities.sum(axes) - intersection, truth.sum(axes) - intersection
    f1 = (2 * intersection + 1e-5) / (2 * intersection + missed + wrong + 1e-5)
    loss = -(truth * probabilities.clamp(1e-7, 1 - 1e-7).log()).sum(1).mean()
    return float(iou), float(f1.mean()), float(loss)


@pytest.mark.parametrize("protocol", ["native", "adaptsegnet", "mrnet", "single"])
def test_one_pass_is_the_dense_computation(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the protocol makes of the logits, strip by strip; and no class changes by it."""
    monkeypatch.setattr(inference, "_STRIP_VALUES", 19 * 40 * 5)
    torch.manual_seed(0)
    settings = replace(protocol_named(protocol), input_size=None)
    segmenter = tiny_model().build(19).eval()
    for head in segmenter.parameters():
        head.data.mul_(1.5)
    found, all_probabilities, all_labels = [], [], []
    for _ in range(3):
        image = torch.randint(0, 256, (3, 32, 48), dtype=torch.uint8)
        images = [image] * len(settings.scales)
        labels = torch.randint(0, 19, (33, 40))
        size = (33, 40)
        plain = predict(segmenter, images, size=size, protocol=settings)
        soft = predict(segmenter, images, size=size, protocol=settings, soft_labels=labels)
        assert torch.equal(plain.labels, soft.labels)
        assert plain.soft_sums is None
        assert soft.soft_sums is not None
        found.append(soft.soft_sums)
        strips = inference.probability_strips(segmenter, images, size=size, protocol=settings)
        all_probabilities.append(torch.cat(list(strips), dim=1))
        all_labels.append(labels)
    wanted = dense(torch.stack(all_probabilities), torch.stack(all_labels))
    assert soft_scores(torch.stack(found)) == pytest.approx(wanted, rel=1e-6)


def test_the_tally_publishes_it_with_its_definition() -> None:
    space = replace(CITYSCAPES, name="two", classes=("a", "b"), report_names=("a", "b"),
                    palette=((0, 0, 0), (1, 1, 1)), raw_to_train={0: 0, 1: 1})  # fmt: skip
    tally = Tally(space, measures=("soft_batch", "f1"))
    assert tally.needs_probabilities
    tally.add(
        torch.tensor([[0, 1, 1, 0]]), LABELS, soft_sums=soft_sums(PROBABILITIES, LABELS)
    )  # fmt: skip
    fact: Any = tally.measured().facts["soft_batch"]
    iou, f1, loss = soft_scores(soft_sums(PROBABILITIES, LABELS)[None])
    assert fact["value"] == pytest.approx(100 * iou, abs=1e-4)
    assert (fact["f1"], fact["loss"]) == pytest.approx((100 * f1, loss), abs=1e-4)
    assert "segmentation_models" in fact["definition"]
    assert "batch of 8" in fact["definition"]
    assert not Tally(space, measures=("f1",)).needs_probabilities
    assert SoftBatch(space).fact(tally.measured().scores)["value"] is None


def test_evaluation_sums_up_in_its_one_pass(tmp_path: Path) -> None:
    write_toy_city(
        tmp_path / "city", source_images=1, target_images=1, validation_images=3, size=(64, 128)
    )
    samples = open_labeled_split(tmp_path / "city", "cityscapes", "val", label_space=CITYSCAPES)
    config = EvaluationConfig(dataset="cityscapes", measures=("soft_batch",))
    segmenter = tiny_model().build(19)
    plain = evaluate(
        segmenter, samples, config=replace(config, measures=()), label_space=CITYSCAPES
    )
    found = evaluate(segmenter, samples, config=config, label_space=CITYSCAPES)
    assert found.scores == plain.scores
    fact: Any = found.facts["soft_batch"]
    assert fact["images"] == 3
    assert 0 < fact["value"] < 100


DEALT = """
import torch
from uda.utilities.distributed import in_dealt_order, own_share, process_group
with process_group(torch.device("cpu")):
    for count in (5, 6, 1):
        rows = torch.arange(2.0 * count, dtype=torch.float64).view(count, 2)
        own = rows[list(own_share(range(count)))]
        assert torch.equal(in_dealt_order(own), rows), (count, own)
    print("in order")
"""


@pytest.mark.slow
def test_two_processes_bring_images_into_the_order_of_the_data_set(tmp_path: Path) -> None:
    script = tmp_path / "dealt.py"
    script.write_text(DEALT)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(script)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "in order" in done.stdout
