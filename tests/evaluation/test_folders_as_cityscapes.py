"""Scores and ids are those of Cityscapes' own evaluation."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling
from cityscapesscripts.helpers.labels import id2label

from factories import CITYSCAPES_STEMS
from label_folders import (
    random_ids,
    scored,
    write_labels,
    write_predictions,
)
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX


def cityscapes_scores(predictions: Path, labels: Path) -> dict[str, Any]:
    options = copy.copy(evalPixelLevelSemanticLabeling.args)
    options.evalInstLevelScore, options.evalPixelAccuracy = False, False
    options.JSONOutput, options.quiet = False, True
    options.predictionPath, options.predictionWalk = str(predictions), None
    true = [str(path) for path in sorted(labels.rglob("*_gtFine_labelIds.png"))]
    found = [evalPixelLevelSemanticLabeling.getPrediction(options, path) for path in true]
    result: dict[str, Any] = evalPixelLevelSemanticLabeling.evaluateImgLists(found, true, options)
    return result


IGNORED = [raw for raw in range(34) if id2label[raw].ignoreInEval]


CASES = {
    "every id": (list(range(34)), list(range(34))),
    "absent classes": ([0, 3, 7, 8, 21, 26, 31], [4, 7, 8, 11, 21, 26]),
    "only ignored labels but one": ([0, 5, 10, 24], list(range(34))),
    "no class everywhere": (list(range(34)), [*IGNORED, 20]),
    "few ids": ([7, 23], [7, 23]),
    "no id above 18": ([7, 8, 11], [7, 8, 11, 0]),
    "nothing labeled": ([0, 1, 2, 3], [7, 8, 11]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_cityscapesscripts(tmp_path: Path, case: str, seed: int) -> None:
    values = CASES[case]
    size = (32, 48)
    true, found = (
        {stem: random_ids(100 * seed + 10 * which + i, list(ids), size)
         for i, stem in enumerate(CITYSCAPES_STEMS)}
        for which, ids in enumerate(values)
    )  # fmt: skip
    for stem, ids in found.items():  # half of it right, where it may be
        right = np.isin(true[stem], values[1]) & (random_ids(seed, 2, size) == 1)
        ids[right] = true[stem][right]
    labels = write_labels(tmp_path, true)
    folder = write_predictions(tmp_path, found, "_leftImg8bit.png")
    theirs = cityscapes_scores(folder, labels)
    ours = scored(folder, labels, ids="raw").scores
    for name, iou in zip(CITYSCAPES.classes, ours.iou, strict=True):
        expected = theirs["classScores"][name]
        assert iou == expected or (math.isnan(iou) and math.isnan(expected)), name
    mean = theirs["averageScoreClasses"]
    assert ours.miou == mean or (math.isnan(ours.miou) and math.isnan(mean))
    assert case == "nothing labeled" or sum(not math.isnan(iou) for iou in ours.iou) >= 2


def test_ids_are_those_of_cityscapesscripts() -> None:
    for raw_id, train_id in CITYSCAPES.raw_to_train.items():
        if raw_id != 34:  # of GTA5
            ignored = train_id == IGNORE_INDEX
            assert id2label[raw_id].ignoreInEval == ignored
            assert id2label[raw_id].trainId == train_id
