"""Records of a run: what is kept on resume, what NaN becomes, what the pictures show."""

import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing import (  # type: ignore[import-untyped]
    event_accumulator,
)
from tqdm import tqdm

from uda.data.batch import View
from uda.evaluation.inference import Prediction
from uda.evaluation.metrics import Scores
from uda.evaluation.views import Views
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX
from uda.training.tracking import Tracker, prediction_panel, progress_bar, view_panel
from uda.utilities.sealed_json import line_values

NAMES = CITYSCAPES.report_names


def tracker(folder: Path, *, first_step: int = 0) -> Tracker:
    return Tracker(folder, name="run", steps=10, first_step=first_step, batch_size=2)


def scores_with_absent_class() -> Scores:
    iou = (0.5, math.nan, *[0.25] * 17)
    return Scores(iou=iou, miou=0.26, pixel_accuracy=0.7, absent=("sidewalk",), confusion=())


def lines(folder: Path) -> list[dict[str, Any]]:
    return [line_values(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_losses_and_scores_are_lines_of_json(tmp_path: Path) -> None:
    with tracker(tmp_path) as records:
        records.log(5, {"loss/supervised/main": torch.tensor(1.5)}, lr=0.125)
        records.record_scores(5, scores_with_absent_class(), NAMES, protocol="native", facts={})
    losses, found = lines(tmp_path)
    assert losses.pop("images_per_second") > 0
    assert losses == {"step": 5, "lr": 0.125, "loss/supervised/main": 1.5}
    assert found["miou"] == 0.26
    assert found["iou/road"] == 0.5
    assert "iou/sidewalk" not in found, "NaN is no JSON and no score"
    assert found["protocol"] == "native", "no score without its protocol"
    assert len(found) == 3 + 18


def test_measures_are_fractions_as_all_scores_are_and_warnings_are_next_to_them(
    tmp_path: Path,
) -> None:
    facts = {
        "f1": {"value": 62.5, "definition": "percent; ..."},
        "per_image_union_miou": {"value": None, "definition": "percent; ..."},
        "name_warning": "names are shifted by one: ...",
    }
    with tracker(tmp_path) as records:
        records.record_scores(5, scores_with_absent_class(), NAMES, protocol="native", facts=facts)
    (found,) = lines(tmp_path)
    assert found["measure/f1"] == 0.625
    assert "measure/per_image_union_miou" not in found
    assert found["name_warning"] == "names are shifted by one: ..."


def test_resuming_drops_what_lies_ahead_and_the_half_written_line(tmp_path: Path) -> None:
    kept = [{"step": step, "lr": 0.5} for step in (1, 2, 2)]
    ahead = [{"step": step, "lr": 0.5} for step in (3, 4)]
    text = "".join(json.dumps(line) + "\n" for line in kept + ahead)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 1, "lr')
    with tracker(tmp_path, first_step=2) as records:
        records.log(3, {"loss/a/main": torch.tensor(1.0)}, lr=0.5)
    *before, last = lines(tmp_path)
    assert before == kept
    assert last["step"] == 3
    assert last["loss/a/main"] == 1


def test_a_complete_line_without_its_newline_is_kept(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}')
    with tracker(tmp_path, first_step=2) as records:
        records.log(3, {"loss/a/main": torch.tensor(1.0)}, lr=0.5)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]


def test_a_new_run_takes_nothing_over(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    with tracker(tmp_path):
        pass
    assert lines(tmp_path) == []


def test_tensorboard_holds_scalars_and_pictures(tmp_path: Path) -> None:
    with tracker(tmp_path) as records:
        records.log(1, {"loss/a/main": torch.tensor(1.5)}, lr=0.5)
        records.picture(1, "views", torch.rand(3, 8, 20))
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"lr", "images_per_second", "loss/a/main"}
    (scalar,) = events.Scalars("loss/a/main")
    assert (scalar.step, scalar.value) == (1, 1.5)
    (picture,) = events.Images("views")
    assert Image.open(io.BytesIO(picture.encoded_image_string)).size == (20, 8)


def test_a_panel_has_a_row_per_view_with_image_and_labels_side_by_side() -> None:
    images = torch.rand(2, 3, 4, 6)
    labels = torch.full((2, 4, 6), IGNORE_INDEX)
    labels[0, 0, 0] = 10
    panel = view_panel([View("source", images, labels), View("target", images)], CITYSCAPES)
    assert panel.shape == (3, 2 * 4, 2 * 6)
    assert panel.dtype == torch.float32
    assert torch.equal(panel[:, :4, :6], images[0])
    assert (255 * panel[:, 0, 6]).round().tolist() == list(CITYSCAPES.palette[10])
    assert not panel[:, 0, 7:].any(), "ignored pixels are black"
    assert torch.equal(panel[:, 4:, :6], images[0])
    assert not panel[:, 4:, 6:].any(), "a view without labels has none to show"
    smaller = View("target", images[:, :, 1:, 2:])
    panel = view_panel([View("source", images, labels), smaller], CITYSCAPES)
    assert panel.shape == (3, 4 + 3, 2 * 6)
    assert torch.equal(panel[:, 4:, :4], images[0, :, 1:, 2:])
    assert not panel[:, 4:, 4:].any()


def test_a_short_bar_prints_nothing_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(progress_bar(range(3), total=3, description="evaluate")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_a_bar_in_a_log_is_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Carriage returns hid the warnings between its states."""
    bar: tqdm[None] = progress_bar((), total=3, description="train")
    bar.delay = bar.mininterval = 0
    for step in range(3):
        print(f"warning: {step}", file=sys.stderr)
        bar.update()
        bar.refresh()
    bar.close()
    lines = capsys.readouterr().err.split("\n")
    assert [line for line in lines if line.startswith("warning")] == [
        f"warning: {step}" for step in range(3)
    ]
    assert not any("\r" in line for line in lines)
    assert any(line.startswith("train: 100%") for line in lines)


def test_a_panel_of_predictions_reduces_label_maps_to_the_input() -> None:
    image = torch.randint(0, 256, (3, 2, 4), dtype=torch.uint8)
    labels = torch.full((4, 8), 13, dtype=torch.uint8)
    labels[:, 4:] = IGNORE_INDEX
    prediction = Prediction(torch.full((4, 8), 2), None, ())
    found = [(Views("stem", [image], labels, (4, 8)), prediction)] * 2
    panel = prediction_panel(found, CITYSCAPES)
    assert panel.shape == (3, 2 * 2, 3 * 4)
    assert torch.equal(panel[:, 2:, :4], image / 255)
    assert (255 * panel[:, 0, 4]).round().tolist() == list(CITYSCAPES.palette[13])
    assert not panel[:, :, 6:8].any(), "ignored pixels are black"
    for column in range(8, 12):
        assert (255 * panel[:, 3, column]).round().tolist() == list(CITYSCAPES.palette[2])
