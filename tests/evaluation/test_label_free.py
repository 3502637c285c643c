"""Label-free criteria, worked out by hand, and the table of what each of them would select."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from factories import write_png
from tiny_runs import CPU, metrics, tiny_preset
from uda.data.samples import Sample
from uda.evaluation import label_free
from uda.evaluation.evaluate import EvaluationConfig
from uda.evaluation.label_free import (
    CRITERIA,
    label_free_criteria,
    soft_neighborhood_density,
)
from uda.labels.spaces import CITYSCAPES
from uda.models.encoders.base import FeatureMaps
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.training.loop import train
from uda.training.summary import ORACLE, Summary, summarized, summary_text
from uda.utilities.errors import InputError

CLASSES = CITYSCAPES.num_classes


class BySide(Segmenter):
    """Says class 0 or 1 by whether a pixel is dark or bright, with a logit of `sureness`."""

    has_auxiliary_head = False

    def __init__(self, sureness: float) -> None:
        super().__init__(nn.Conv2d(3, 1, 1), provenance="none")
        self.sureness = sureness

    def encode(self, normalized: Tensor) -> FeatureMaps:
        return (normalized,)

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        (normalized,) = features
        logits = normalized.new_zeros(len(normalized), CLASSES, *normalized.shape[2:])
        bright = normalized[:, 0] > 0
        logits[:, 0] = self.sureness * (~bright)
        logits[:, 1] = self.sureness * bright
        return SegmentationOutput(logits, None, normalized)


def samples(folder: Path, *grays: tuple[int, int]) -> list[Sample]:
    """Images of 8x16 pixels whose halves have these grays, with labels that do not exist."""
    found = []
    for index, (left, right) in enumerate(grays):
        pixels = np.full((8, 16, 3), left, np.uint8)
        pixels[:, 8:] = right
        path = write_png(folder / f"{index}.png", pixels)
        found.append(Sample("toy", f"{index}", path, folder / "no such labels.png"))
    return found


def criteria(sureness: float, taken: list[Sample], count: int = 100) -> dict[str, float]:
    config = EvaluationConfig(dataset="cityscapes", scales=(0.5, 1.0), flip=True)
    network = BySide(sureness)
    return label_free_criteria(network, taken, count=count, config=config, label_space=CITYSCAPES)


def test_values_by_hand(tmp_path: Path) -> None:
    """Two images: one of one half each, one all dark. Labels are not opened: there are none."""
    found = criteria(100.0, samples(tmp_path, (0, 255), (0, 0)))
    assert found["mean_entropy"] == pytest.approx(0, abs=1e-6)
    quarter = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found["information_maximization"] == pytest.approx(quarter)
    # 64 alike of 128 pixels in the first image, whose others weigh exp(-20) as much; all of them
    # in the second.
    density = (math.log(63) + math.log(127)) / 2
    assert found["soft_neighborhood_density"] == pytest.approx(density, abs=1e-4)


def test_a_network_that_knows_nothing_has_the_highest_entropy(tmp_path: Path) -> None:
    found = criteria(0.0, samples(tmp_path, (0, 255)))
    assert found["mean_entropy"] == pytest.approx(math.log(CLASSES))
    assert found["information_maximization"] == pytest.approx(0, abs=1e-9)


def test_a_collapsed_network_fools_two_of_three(tmp_path: Path) -> None:
    """As the module says: all of one class, and sure of it."""
    collapsed = criteria(100.0, samples(tmp_path, (0, 0), (0, 0)))
    healthy = criteria(4.0, samples(tmp_path, (0, 255), (0, 255)))
    assert collapsed["mean_entropy"] < healthy["mean_entropy"]
    assert collapsed["soft_neighborhood_density"] > healthy["soft_neighborhood_density"]
    assert collapsed["information_maximization"] < healthy["information_maximization"]


def test_density_of_three_by_hand() -> None:
    """Two alike and one across: exp(20) to 1 for the alike, 1 to 1 for the third."""
    found = soft_neighborhood_density(torch.tensor([[3.0, 0.0], [5.0, 0.0], [0.0, 1.0]]))
    p = math.exp(20) / (math.exp(20) + 1)
    alike = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    assert float(found) == pytest.approx((2 * alike + math.log(2)) / 3, abs=1e-6)
    warm = soft_neighborhood_density(torch.eye(3), temperature=1e6)
    assert float(warm) == pytest.approx(math.log(3)), "at a high temperature even it is a neighbor"


def test_large_images_are_looked_at_on_a_grid() -> None:
    """All alike: the logarithm of how many others there are tells how many were taken."""
    density = label_free.criteria_of_image(torch.zeros(1, 3, 300, 500))[1]
    taken = round(math.exp(float(density))) + 1
    assert 512 < taken <= 1024


def test_nothing_is_computed_without_images(tmp_path: Path) -> None:
    assert criteria(1.0, []) == {}
    assert criteria(1.0, samples(tmp_path, (0, 255)), count=0) == {}


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (broken,) = samples(tmp_path, (0, 255))
    broken.image.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"0\.png cannot be decoded"):
        criteria(1.0, [broken])


# --- the table


def log(*rows: tuple[int, float, float, float, float]) -> list[dict[str, float]]:
    """Lines of metrics.jsonl: step, mIoU, then the criteria in their order."""
    lines = [{"step": 1, "lr": 0.5}]
    for step, miou, *values in rows:
        lines.append({"step": step, "miou": miou})
        named = zip(CRITERIA, values, strict=True)
        lines.append({"step": step} | {f"label_free/{name}": value for name, value in named})
    return lines


LOG = log((10, 0.30, 0.5, 0.9, 2.0), (20, 0.45, 0.7, 1.2, 3.0), (30, 0.40, 0.6, 1.2, 4.0))


def test_the_table_shows_each_way_to_select(tmp_path: Path) -> None:
    (tmp_path / "GTA5_30.pth").touch()
    summary = summarized(LOG, lambda step: tmp_path / f"GTA5_{step}.pth")
    assert summary.steps == (10, 20, 30)
    assert summary_text(summary).splitlines() == [
        "| selection | step | mIoU | criterion | snapshot |",
        "| --- | ---: | ---: | ---: | --- |",
        "| last | 30 | 40.00 | - | GTA5_30.pth |",
        "| best by mean entropy | 10 | 30.00 | 0.5000 | not kept |",
        "| best by information maximization | 30 | 40.00 | 1.2000 | GTA5_30.pth |",
        "| best by soft neighborhood density | 30 | 40.00 | 4.0000 | GTA5_30.pth |",
        f"| {ORACLE} | 20 | 45.00 | - | not kept |",
    ]


def test_runs_without_criteria_or_with_one_evaluation(tmp_path: Path) -> None:
    def snapshot(step: int) -> Path:
        return tmp_path / str(step)

    unlabeled = [line for line in LOG if len(line) == 2]
    ways = [choice.way for choice in summarized(unlabeled, snapshot).choices]
    assert ways == ["last", ORACLE]
    once = summarized(LOG[:3], snapshot)
    assert summary_text(once) == "evaluated once, at step 10: there was nothing to select"
    assert summarized(LOG[:1], snapshot) == Summary((), ())


@pytest.mark.parametrize(("name", "there"), [("toy_class_mix", True), ("toy_source_only", False)])
def test_in_a_run(
    name: str, there: bool, toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At every evaluation, where there are target images; and the table survives a resume."""
    experiment = tiny_preset(name, toy_root, steps=2)
    experiment.evaluation.every = 1
    if there:
        experiment.train.unlabeled_images = 4
    train(experiment, tmp_path / "run", preset=name, device=CPU)
    lines = [line for line in metrics(tmp_path / "run") if "label_free/mean_entropy" in line]
    assert [line["step"] for line in lines] == ([1, 2] if there else [])
    for line in lines:
        assert line.keys() == {"step", *(f"label_free/{name}" for name in CRITERIA)}
    table = [text for text in capsys.readouterr().out.splitlines() if text[0] == "|"]
    assert len(table) == 2 + (5 if there else 2)
    assert "| not kept |" in table[-1] or "GTA5_2.pth" in table[-1]
    summary = (tmp_path / "run/summary.json").read_text()
    train(experiment, tmp_path / "run", preset=name, device=CPU, resume=True)
    assert [text for text in capsys.readouterr().out.splitlines() if text[0] == "|"] == table
    assert (tmp_path / "run/summary.json").read_text() == summary
