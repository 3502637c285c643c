"""The check of the data on street scenes: good folders pass, typical mistakes are named."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from factories import Bytes
from street_sets import CITYSCAPES_IDS, ORIGINALS, SIZE, name_of, write_gray, write_palette
from uda.commands.data import check as command
from uda.data.doctor import contents
from uda.data.doctor.check import Report, check_data
from uda.data.doctor.file_facts import FactsCache
from uda.data.doctor.plan import plan_of_datasets, plan_of_root
from uda.data.registry import LAYOUTS

TOY = "toy_city.json"  # data below a folder with this file have no known counts


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / TOY).write_text("{}")
    return tmp_path


def checked(root: Path, name: str = "") -> Report:
    def progress(files: Iterator[Any], total: int) -> Iterable[Any]:
        return files

    plan = plan_of_datasets([name], root=root) if name else plan_of_root(root)
    return check_data(plan, root, FactsCache(root / "cache.json"), workers=1, progress=progress)


def problems(root: Path, name: str = "") -> list[str]:
    found = checked(root, name).findings
    return [
        f"{finding.kind}: {finding.text}{'; '.join(map(str, finding.items))}"
        for finding in found
        if finding.severity == "problem"
    ]


@pytest.mark.parametrize("form", ORIGINALS)
def test_a_good_folder_has_no_problem(root: Path, form: str) -> None:
    name, original = name_of(form), ORIGINALS[form]
    original.write_to(root)
    report = checked(root, name)
    assert report.findings == [
        finding for finding in report.findings if finding.kind == "empty classes"
    ]
    assert report.problems == 0
    assert [listing.wish.split for listing, _ in report.sets] == list(original.splits)
    for listing, summary in report.sets:
        assert listing.images == summary.label_files == len(original.stems)
        seen = np.flatnonzero(summary.pixels).tolist()
        assert seen == [i for i in range(original.classes) if i not in original.absent]


def test_the_command_ends_with_status_0_on_a_good_folder(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for form in ("synthia", "acdc_night", "idd", "foggy_cityscapes_002"):
        ORIGINALS[form].write_to(root)
    cache = ["--cache", str(root / "cache.json"), "--workers", "1"]
    assert command.main(["--data-root", str(root), *cache]) == 0
    shown = capsys.readouterr().out
    for name in ("synthia train", "acdc train", "acdc val", "idd val", "foggy_cityscapes_002 val"):
        assert name in shown
    for name in ("acdc_night", "synthia_lanes", "foggy_cityscapes_001", "acdc test"):
        assert name not in shown


@pytest.mark.parametrize("form", ORIGINALS)
def test_known_counts_are_the_published_ones(tmp_path: Path, form: str) -> None:
    original = ORIGINALS[form]
    original.write_to(tmp_path)
    found = [f.text for f in checked(tmp_path, name_of(form)).findings if f.kind == "count"]
    expected = [" or ".join(map(str, counts)) for counts in original.counts]
    assert [text.partition("the data set has ")[2] for text in found] == expected


# --- typical mistakes


def overwrite_labels(root: Path, form: str, picture: Bytes) -> None:
    original = ORIGINALS[form]
    for split, folder in original.splits.items():
        for stem in original.stems_of(split):
            where = {"split": folder, "stem": stem}
            write_gray(root / original.folder / original.labels.format(**where), picture)


@pytest.mark.parametrize("form", ["nightcity", "kitti", "synscapes", "foggy_cityscapes_002"])
def test_labels_that_are_mapped_already(root: Path, form: str) -> None:
    original = ORIGINALS[form]
    original.write_to(root)
    train_ids = np.resize(np.array([*range(19), 255], np.uint8), SIZE)
    overwrite_labels(root, form, train_ids)
    found = problems(root, name_of(form))
    assert len(found) == len(original.splits)
    assert all("these look like train ids" in problem for problem in found)


@pytest.mark.parametrize("form", ["acdc", "bdd100k", "dark_zurich"])
def test_labels_that_are_not_mapped_yet(root: Path, form: str) -> None:
    ORIGINALS[form].write_to(root)
    overwrite_labels(root, form, np.resize(np.array(CITYSCAPES_IDS, np.uint8), SIZE))
    for problem in problems(root, form):
        assert "label files have values that are not raw ids of train_ids19 (0..255)" in problem
        assert "values 19, 20, 21" in problem


@pytest.mark.parametrize("channels", [1, 3])
def test_a_copy_of_8_bits_of_synthia(root: Path, channels: int) -> None:
    ORIGINALS["synthia"].write_to(root)
    shape = SIZE if channels == 1 else (*SIZE, channels)
    overwrite_labels(root, "synthia", np.full(shape, 3, np.uint8))
    (found,) = problems(root, "synthia")
    assert "with 8 bits; the data set's own label files have 16 bits per channel" in found
    assert "has been mapped already" in found


@pytest.mark.parametrize("form", ["bdd100k", "bdd100k/2018", "mapillary", "mapillary/2.0"])
def test_colors_for_viewing(root: Path, form: str) -> None:
    """BDD100K's colormaps, and Mapillary's palette after convert("RGB")."""
    ORIGINALS[form].write_to(root)
    overwrite_labels(root, form, np.full((*SIZE, 3), 128, np.uint8))
    found = problems(root, name_of(form))
    assert len(found) == 2
    assert all("mode RGB cannot hold label ids" in problem for problem in found)


def test_labels_of_mapillary_2(root: Path) -> None:
    ORIGINALS["mapillary"].write_to(root)
    original = ORIGINALS["mapillary"]
    for split, folder in original.splits.items():
        for stem in original.stems_of(split):
            path = root / "Mapillary" / original.labels.format(split=folder, stem=stem)
            write_palette(path, np.full(SIZE, 123, np.uint8))
    assert all("not raw ids of mapillary_1.2_to_19" in p for p in problems(root, "mapillary"))


def test_fog_of_another_density(root: Path) -> None:
    ORIGINALS["foggy_cityscapes_001"].write_to(root)
    (found,) = problems(root, "foggy_cityscapes_002")
    assert "no images of split 'train'; expected leftImg8bit_foggy/" in found
    assert "beta 0.02" in found
    assert problems(root, "foggy_cityscapes_001") == []
    assert problems(root) == []  # what is there is checked


def test_idd_without_polygons(root: Path) -> None:
    ORIGINALS["idd"].write_to(root)
    shutil.rmtree(root / "IDD_Segmentation/gtFine/val")
    write_gray(
        root / "IDD_Segmentation/gtFine/val/0/frame00291_gtFine_labelcsTrainIds.png",
        np.zeros(SIZE, np.uint8),
    )
    (found,) = problems(root, "idd")
    assert found.startswith("no labels: 2 images have no label file")


def test_a_damaged_polygon_file(root: Path) -> None:
    ORIGINALS["idd"].write_to(root)
    path = root / "IDD_Segmentation/gtFine/val/0/frame00291_gtFine_polygons.json"
    path.write_text(path.read_text()[:-9])
    (found,) = problems(root, "idd")
    assert "cannot be read as a JSON file of polygons" in found


def camvid(root: Path, order: tuple[int, ...]) -> None:
    """A training split in which class i of ours has the id order[i], with the usual shares."""
    shares = np.array(LAYOUTS["camvid"].class_shares)
    counts = np.maximum(1, np.rint(shares * 2000)).astype(int)
    values = np.repeat(np.array(order, np.uint8), counts)
    labels = values[: len(values) // 10 * 10].reshape(-1, 10)
    for number in range(4):
        picture = np.full((*labels.shape, 3), number, np.uint8)
        write_gray(root / f"CamVid/train/0001TP_{number:06d}.png", picture)
        write_gray(root / f"CamVid/trainannot/0001TP_{number:06d}.png", labels)


def test_camvid_in_another_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "ENOUGH_LABELS", 4)
    camvid(tmp_path, tuple(range(11)))
    kinds = [finding.kind for finding in checked(tmp_path, "camvid").findings]
    assert kinds == ["count"]
    # building 0, tree 1, sky 2, car 3, sign 4, road 5, pedestrian 6, fence 7, pole 8, ...
    camvid(tmp_path, (2, 0, 8, 5, 9, 1, 4, 7, 3, 6, 10))
    for name in ("camvid", "camvid19"):
        (found,) = (f for f in checked(tmp_path, name).findings if f.kind == "class shares")
        assert found.severity == "problem"
        assert "road" in [item.name for item in found.items]
