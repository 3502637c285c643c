"""A folder of predictions: paired by name, read or refused, and scored as Cityscapes scores it."""

import copy
import json
import math
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling
from cityscapesscripts.helpers.labels import id2label
from PIL import Image
from torch import Tensor

from factories import CITYSCAPES_STEMS, SIZE, Bytes, cityscapes_labels, write_png
from tiny_runs import REPOSITORY
from uda.data.prediction_folder import Ids, Pair, check_files, pair_files, read_prediction
from uda.evaluation.boundaries import BoundaryMatrix
from uda.evaluation.folder_scoring import score_pairs, sets_of_maps
from uda.evaluation.measures import Measured
from uda.evaluation.metrics import ConfusionMatrix, scores
from uda.evaluation.reports import boundary_fact
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX
from uda.utilities.errors import InputError

NO_CLASS = 19
STEM = CITYSCAPES_STEMS[0]


def drawn(seed: int, values: int | list[int], size: tuple[int, int] = SIZE) -> Bytes:
    """(H, W) of `values`, or of all below it, in patches of 2x2."""
    rng = np.random.default_rng(seed)
    small = rng.choice(values, (size[0] // 2, size[1] // 2)).astype(np.uint8)
    return np.kron(small, np.ones((2, 2), np.uint8))


def write_labels(root: Path, raw: dict[str, Bytes]) -> Path:
    """Raw label files as Cityscapes has them; the folder of the split."""
    paths = [write_png(cityscapes_labels(root, stem, "val"), ids) for stem, ids in raw.items()]
    return paths[0].parent.parent


def write_predictions(root: Path, ids: dict[str, Bytes], suffix: str = "_leftImg8bit.png") -> Path:
    for stem, values in ids.items():
        write_png(root / "predictions" / f"{stem}{suffix}", values)
    return root / "predictions"


def raw_folders(root: Path, count: int = 4) -> tuple[Path, Path]:
    """Predictions in raw ids and labels, drawn at random."""
    stems = CITYSCAPES_STEMS[:count]
    labels = write_labels(root, {stem: drawn(i, 34) for i, stem in enumerate(stems)})
    found = write_predictions(root, {stem: drawn(9 + i, 34) for i, stem in enumerate(stems)})
    return found, labels


def scored(
    predictions: Path,
    labels: Path,
    *,
    ids: Ids,
    sets: tuple[str, ...] = (),
    boundary_ratio: float | None = None,
) -> Measured:
    pairs, _ = pair_files(predictions, labels)
    groups = sets_of_maps(sets, space=CITYSCAPES)
    return score_pairs(pairs, ids=ids, space=CITYSCAPES, sets=groups, boundary_ratio=boundary_ratio)


# --- pairs


@pytest.mark.parametrize(
    "suffix",
    [
        ".png", "_leftImg8bit.png", "_pseudo_trainIds.png", "_gtFine_labelIds.png",
        "_leftImg8bit_gray.png", "-pred.png",
    ],
)  # fmt: skip
def test_predictions_are_found_by_the_beginning_of_their_names(tmp_path: Path, suffix: str) -> None:
    ids = dict.fromkeys(CITYSCAPES_STEMS, drawn(0, 19))
    labels = write_labels(tmp_path, ids)
    folder = write_predictions(tmp_path, ids, suffix)
    city = folder / "aachen" / "deeper"
    city.mkdir(parents=True)
    moved = folder / f"{STEM}{suffix}"
    moved.rename(city / moved.name)
    write_png(folder / f"{STEM}_leftImg8bit_color.png", np.zeros((*SIZE, 3), np.uint8))
    (folder / "readme.txt").write_text("no picture")
    pairs, strays = pair_files(folder, labels)
    assert [pair.stem for pair in pairs] == sorted(CITYSCAPES_STEMS)
    assert pairs[0] == Pair(
        STEM, city / moved.name, labels / "aachen" / f"{STEM}_gtFine_labelIds.png"
    )
    assert strays == []


def test_folders_may_be_links(tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "elsewhere", {STEM: drawn(0, 19)})
    found = write_predictions(tmp_path / "elsewhere", {STEM: drawn(0, 19)})
    for name, folder in (("predictions", found), ("labels", labels)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "aachen").symlink_to(folder)
    assert len(pair_files(tmp_path / "predictions", tmp_path / "labels")[0]) == 1


def test_predictions_without_labels_are_left_over(tmp_path: Path) -> None:
    ids = dict.fromkeys(CITYSCAPES_STEMS, drawn(0, 19))
    labels = write_labels(tmp_path, {STEM: ids[STEM]})
    folder = write_predictions(tmp_path, ids | {"legend": drawn(0, 19)}, ".png")
    pairs, strays = pair_files(folder, labels)
    assert [pair.stem for pair in pairs] == [STEM]
    assert [path.stem for path in strays] == sorted([*CITYSCAPES_STEMS[1:], "legend"])


def test_pairs_that_cannot_be(tmp_path: Path) -> None:
    ids = dict.fromkeys(CITYSCAPES_STEMS, drawn(0, 19))
    labels, folder = write_labels(tmp_path, ids), write_predictions(tmp_path, ids)

    def complaint() -> str:
        with pytest.raises(InputError) as caught:
            pair_files(folder, labels)
        return str(caught.value)

    again = write_png(folder / "more" / f"{STEM}_gtFine_labelIds.png", drawn(0, 19))
    assert f"{again} are of one image, and 0 more images have several files" in complaint()
    again.unlink()
    for stem in CITYSCAPES_STEMS[:3]:
        (folder / f"{stem}_leftImg8bit.png").unlink()
    message = complaint()
    assert message.startswith(f"{labels / 'aachen' / STEM}_gtFine_labelIds.png has no prediction")
    assert "nor have 2 more of 4 label files" in message
    assert message.endswith(f"expected {STEM}*.png below {folder}")
    write_png(labels / "street_gtFine_labelIds.png", drawn(0, 19))
    assert "street_gtFine_labelIds.png: a name of Cityscapes begins with" in complaint()


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    labels = write_labels(tmp_path, {STEM: drawn(0, 19)})
    with pytest.raises(InputError, match=r"nowhere cannot be listed .*: give a folder that exists"):
        pair_files(tmp_path / "nowhere", labels)
    with pytest.raises(InputError, match=r"file cannot be listed"):
        pair_files(labels, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \*_gtFine_labelIds.png below .*empty"):
        pair_files(labels, tmp_path / "empty")


def test_files_of_another_kind_or_size(tmp_path: Path) -> None:
    ids = dict.fromkeys(CITYSCAPES_STEMS, drawn(0, 19))
    labels, folder = write_labels(tmp_path, ids), write_predictions(tmp_path, ids)
    pairs, _ = pair_files(folder, labels)
    check_files(pairs)
    path = pairs[1].prediction

    def complaint() -> str:
        with pytest.raises(InputError) as caught:
            check_files(pairs)
        assert str(path) in str(caught.value)
        return str(caught.value)

    write_png(path, np.zeros((*SIZE, 3), np.uint8))
    assert (
        "PNG RGB holds no ids; allowed: 8-bit gray or palette PNG (so it is with 0 " in complaint()
    )
    Image.fromarray(np.zeros(SIZE, np.uint16)).save(path)
    assert "PNG I;16 holds no ids" in complaint()
    Image.fromarray(drawn(0, 19)).save(path, format="JPEG")
    assert "JPEG L holds no ids" in complaint()
    path.write_bytes(b"no picture")
    assert "cannot be decoded" in complaint()
    for pair in pairs[1:]:
        write_png(pair.prediction, drawn(0, 19, (4, 8)))
    message = complaint()
    assert "is 8x4, its labels are 16x8: resize the network's output" in message
    assert message.endswith("(so it is with 2 more of 4 files)")


# --- values


def test_values_of_predictions(tmp_path: Path) -> None:
    train = write_png(tmp_path / "train.png", np.array([[0, 18, 255, 7]], np.uint8))
    found, largest = read_prediction(train, ids="train", space=CITYSCAPES)
    assert (found.tolist(), largest) == ([[0, 18, NO_CLASS, 7]], 255)
    raw = write_png(tmp_path / "raw.png", np.array([[7, 33, 0, 9, 34, 16]], np.uint8))
    found, largest = read_prediction(raw, ids="raw", space=CITYSCAPES)
    assert (found.tolist(), largest) == ([[0, 18, *[NO_CLASS] * 4]], 34)


def test_palette_files_hold_indices(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 18, 255]], np.uint8))
    image.putpalette([value % 256 for value in range(7, 7 + 3 * 256)])
    image.save(tmp_path / "palette.png")
    found, _ = read_prediction(tmp_path / "palette.png", ids="train", space=CITYSCAPES)
    assert found.tolist() == [[0, 18, NO_CLASS]]


@pytest.mark.parametrize(
    ("ids", "values", "message"),
    [
        ("train", [0, 26], "value 26 is no train id; allowed: 0..18, 255 for no class; these are "
         "raw ids: give --ids raw"),
        ("train", [0, 19, 255], "value 19 is no train id; allowed: 0..18, 255 for no class; write"),
        ("train", [0, 77, 78], "value 77 is no train id"),
        ("raw", [0, 255], "value 255 is no raw id of cityscapes19; allowed: 0..34; these are train "
         "ids: give --ids train"),
        ("raw", [33, 255], "value 255 is no raw id of cityscapes19; allowed: 0..34; write the"),
        ("raw", [35], "value 35 is no raw id"),
    ],
)  # fmt: skip
def test_values_that_are_no_ids(tmp_path: Path, ids: Ids, values: list[int], message: str) -> None:
    path = write_png(tmp_path / "ids.png", np.array([values], np.uint8))
    with pytest.raises(InputError) as caught:
        read_prediction(path, ids=ids, space=CITYSCAPES)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_what_may_be_train_ids_is_scored_with_a_warning(tmp_path: Path) -> None:
    """One by one they are raw ids, as of images without sky and cars."""
    stems = CITYSCAPES_STEMS[:2]
    large, small = ({stem: drawn(i, n) for i, stem in enumerate(stems)} for n in (34, 19))
    labels, few_labels = write_labels(tmp_path, large), write_labels(tmp_path / "few", small)
    found, few = write_predictions(tmp_path, large), write_predictions(tmp_path / "few", small)
    assert "warning" not in scored(found, labels, ids="raw").facts
    assert "warning" not in scored(few, labels, ids="train").facts
    message = "no value of the {} is above 18: if these are train ids"
    assert warning(scored(few, labels, ids="raw")).startswith(message.format("predictions"))
    assert warning(scored(few, few_labels, ids="train")).startswith(message.format("labels"))
    both = warning(scored(few, few_labels, ids="raw"))
    assert both.startswith(message.format("labels and predictions"))


def warning(measured: Measured) -> str:
    return str(measured.facts["warning"])


def test_label_files_with_a_train_id_of_255_are_refused(tmp_path: Path) -> None:
    labels = write_labels(tmp_path, {STEM: drawn(0, [0, 3, IGNORE_INDEX])})
    found = write_predictions(tmp_path, {STEM: drawn(0, 19)})
    with pytest.raises(InputError, match="255 means the file holds train ids already"):
        scored(found, labels, ids="train")


# --- scores


def test_no_class_is_a_miss_and_no_false_positive(tmp_path: Path) -> None:
    """Labels: 4 road, 2 sky, 2 ignored; of the road one is no class and one sky, of the sky one is
    no class; what is predicted where labels are ignored does not matter."""
    labels = write_labels(tmp_path, {STEM: np.array([[7, 7, 7, 7, 23, 23, 0, 3]], np.uint8)})
    train = write_predictions(
        tmp_path, {STEM: np.array([[0, 0, 255, 10, 10, 255, 255, 10]], np.uint8)}
    )
    raw = write_predictions(
        tmp_path / "raw", {STEM: np.array([[7, 7, 0, 23, 23, 34, 9, 23]], np.uint8)}
    )
    for found in (scored(train, labels, ids="train"), scored(raw, labels, ids="raw")):
        assert found.scores.iou[0] == pytest.approx(2 / 4)
        assert found.scores.iou[10] == pytest.approx(1 / 3)
        assert len(found.scores.absent) == 17
        assert found.scores.miou == pytest.approx((2 / 4 + 1 / 3) / 2)
        assert found.scores.pixel_accuracy == pytest.approx(3 / 6)
        assert list(found.facts) == ["no_class"]
        assert fact(found, "no_class")["value"] == pytest.approx(100 * 2 / 6, abs=1e-4)


def test_folders_are_scored_as_one_confusion_matrix(tmp_path: Path) -> None:
    """Raw and train ids alike, boundaries as well."""
    found, labels = raw_folders(tmp_path)
    matrix, edges = ConfusionMatrix(20), BoundaryMatrix(19, 0.1)
    train_ids = {}
    for pair in pair_files(found, labels)[0]:
        predicted, _ = read_prediction(pair.prediction, ids="raw", space=CITYSCAPES)
        train_ids[pair.stem] = np.where(predicted == NO_CLASS, 255, predicted).astype(np.uint8)
        true = CITYSCAPES.to_train_ids(np.asarray(Image.open(pair.labels)), "labels")
        for counts in (matrix, edges):
            counts.update(*(batch_of(ids) for ids in (predicted, true)))
    again = write_predictions(tmp_path / "train", train_ids)
    for result in (
        scored(found, labels, ids="raw", boundary_ratio=0.1),
        scored(again, labels, ids="train", boundary_ratio=0.1),
    ):
        assert result.scores == scores(matrix, CITYSCAPES.report_names)
        near = scores(edges, CITYSCAPES.report_names)
        assert fact(result, "boundary_iou") == boundary_fact(
            near, CITYSCAPES.report_names, ratio=0.1
        )
        assert 20 < fact(result, "no_class")["value"] < 70


def fact(measured: Measured, name: str) -> dict[str, Any]:
    found = measured.facts[name]
    assert isinstance(found, dict)
    return found


def batch_of(ids: Bytes) -> Tensor:
    return torch.from_numpy(np.array(ids))[None]


def test_means_over_sets_of_classes(tmp_path: Path) -> None:
    result = scored(*raw_folders(tmp_path), ids="raw", sets=("miou16_subset", "miou19"))
    assert list(result.facts) == ["no_class", "sets"]
    sets = fact(result, "sets")
    assert sets["miou19"]["value"] == round(100 * result.scores.miou, 4)
    sixteen = [iou for i, iou in enumerate(result.scores.iou) if i not in (9, 14, 16)]
    expected = pytest.approx(100 * np.nanmean(sixteen), abs=1e-4)
    assert sets["miou16_subset"]["value"] == expected


def test_a_restricted_set_needs_the_network() -> None:
    with pytest.raises(InputError, match=r"miou16_restricted is computed from a netw"):
        sets_of_maps(["miou19", "miou16_restricted"], space=CITYSCAPES)


# --- as Cityscapes' own evaluation


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
        {stem: drawn(100 * seed + 10 * which + i, list(ids), size)
         for i, stem in enumerate(CITYSCAPES_STEMS)}
        for which, ids in enumerate(values)
    )  # fmt: skip
    for stem, ids in found.items():  # half of it right, where it may be
        right = np.isin(true[stem], values[1]) & (drawn(seed, 2, size) == 1)
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


# --- the command


class Shell:
    """scripts/score_folder.py in this process."""

    def __init__(self, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch = patch
        self._capsys = capsys

    def run(self, *arguments: str | Path) -> str:
        """What is printed; warnings go to `errors`."""
        self._patch.setattr(sys, "argv", ["score_folder.py", *map(str, arguments)])
        self._capsys.readouterr()
        runpy.run_path(str(REPOSITORY / "scripts/score_folder.py"), run_name="__main__")
        out, self.errors = self._capsys.readouterr()
        return out

    def refused(self, *arguments: str | Path) -> str:
        """The one line that the command ends with, status 2."""
        with pytest.raises(SystemExit) as end:
            self.run(*arguments)
        assert end.value.code == 2
        out, error = self._capsys.readouterr()
        assert (out, error.count("\n")) == ("", 1)
        return error


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


def test_command(tmp_path: Path, shell: Shell) -> None:
    found, labels = raw_folders(tmp_path)
    target = tmp_path / "scores.json"
    lines = shell.run(
        found, labels, "--ids", "raw", "--sets", "miou16_subset", "miou13_subset", "--boundary",
        "--json", target,
    ).splitlines()  # fmt: skip
    assert shell.errors == ""
    assert lines[:5] == [
        f"predictions: {found}",
        f"labels: {labels}",
        "images: 4",
        "ids: raw",
        "protocol: labels at stored resolution",
    ]
    assert [line.split(":")[0] for line in lines[5:10]] == [
        "no class", "sets miou16_subset", "sets miou13_subset", "boundary iou",
        "boundary iou per_class",
    ]  # fmt: skip
    assert [line[:4] for line in lines[10:]] == ["===>"] * 20
    written = json.loads(target.read_text())
    assert lines[-1] == f"===> mIoU: {round(written['miou'], 2)}"
    assert set(written["sets"]) == {"miou16_subset", "miou13_subset"}
    assert "within 0.005 of" in written["boundary_iou"]["definition"]
    same = shell.run(found, labels, "--ids", "raw", "--sets", "miou16_subset", "miou13_subset",
                     "--boundary", "0.005", "--format", "json")  # fmt: skip
    assert json.loads(same) == written


def test_command_warns_of_predictions_without_labels(tmp_path: Path, shell: Shell) -> None:
    found, labels = raw_folders(tmp_path)
    stray = write_png(found / "aachen_999999_000019.png", drawn(0, 19))
    for name in ("csv", "markdown"):
        shell.run(found, labels, "--ids", "raw", "--format", name)
        assert shell.errors == (
            f"warning: 1 predictions have no label file and are not scored, the first is {stray}\n"
        )


def test_command_refuses(tmp_path: Path, shell: Shell) -> None:
    found, labels = raw_folders(tmp_path)
    both = (found, labels)
    for arguments, message in (
        (both, "is no train id; allowed: 0..18, 255 for no class; these are raw ids: give --ids r"),
        ((*both, "--sets", "miou16_restricted"), "miou16_restricted is computed from a network"),
        ((*both, "--sets", "miou17"), "no set of classes 'miou17'"),
        ((*both, "--ids", "raw", "--boundary", "3"), "a boundary ratio of 3"),
        ((*both, "--json", tmp_path / "no" / "s.json"), "give a file in a folder that exists"),
        ((labels / "none", labels), "cannot be listed"),
    ):
        assert message in shell.refused(*arguments)
