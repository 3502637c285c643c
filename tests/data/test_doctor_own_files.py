"""The data doctor on what people have: copies, companions, turned photographs, JPEG labels."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_drafts import SIZE, labels
from test_image_kinds import write_turned

from factories import noise, write_png
from uda.data.doctor.check import Report, check_data
from uda.data.doctor.contents import check_contents
from uda.data.doctor.file_facts import FactsCache, FileFacts
from uda.data.doctor.findings import Finding
from uda.data.doctor.listing import Listing, Wish
from uda.data.doctor.plan import plan_of_datasets
from uda.data.registry import LAYOUTS
from uda.data.samples import KnownSplit, Sample

TOML = """images = ["images/{split}/{name}.jpg", "images/{split}/{name}.png"]
labels = "labels/{split}/{name}_label.png"
splits = ["train", "val"]
ignore = [255]
classes = [{ name = "a", value = 0 }, { name = "b", value = 1 }, { name = "c", value = 2 }]
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A described data set without fault."""
    for seed, split in ((0, "train"), (10, "val")):
        for number in range(3):
            write_png(tmp_path / f"images/{split}/{split}{number}.png", noise(seed + number, SIZE))
            path = tmp_path / f"labels/{split}/{split}{number}_label.png"
            write_png(path, labels(seed + number))
    (tmp_path / "own.toml").write_text(TOML)
    return tmp_path


def report(folder: Path) -> Report:
    plan = plan_of_datasets([str(folder / "own.toml")])
    return check_data(
        plan, Path(), FactsCache(folder / "facts.json"), workers=1,
        progress=lambda files, _: files,
    )  # fmt: skip


def found(folder: Path) -> list[tuple[str, str]]:
    first: list[tuple[str, str]] = [(f.severity, f.kind) for f in report(folder).findings]
    assert first == [(f.severity, f.kind) for f in report(folder).findings], "from the cache"
    return first


def the_only(folder: Path) -> Finding:
    (finding,) = report(folder).findings
    return finding


def test_nothing_is_found_where_nothing_is_wrong(own: Path) -> None:
    assert found(own) == []


def test_one_picture_in_two_splits_under_different_names(own: Path) -> None:
    shutil.copyfile(own / "images/train/train0.png", own / "images/val/val1.png")
    assert found(own) == [("problem", "copies")]
    assert the_only(own).items[0].name == "own train: train__train0 = own val: val__val1"
    shutil.copyfile(own / "images/val/val2.png", own / "images/val/val1.png")
    assert found(own) == [("note", "copies")]


def test_companions_of_labels_need_no_image(own: Path) -> None:
    for number in range(3):
        write_png(own / f"labels/train/train{number}_inst_label.png", labels(0))
    assert found(own) == []
    write_png(own / "labels/train/train7_label.png", labels(0))
    assert found(own) == [("note", "no image")]


def test_kinds_of_images_are_said(own: Path) -> None:
    Image.fromarray(noise(0, SIZE)).convert("L").save(own / "images/train/train0.png")
    assert found(own) == [("note", "converted")]
    assert the_only(own).text == "1 images are gray: they are converted to 8-bit RGB"


def test_a_photograph_upside_down(own: Path) -> None:
    (own / "images/train/train0.png").unlink()
    write_turned(own / "images/train/train0.jpg", 3, SIZE)
    assert found(own) == [("problem", "turned")]
    assert 'write orientation = "upright"' in the_only(own).items[0].name
    (own / "own.toml").write_text('orientation = "upright"\n' + TOML)
    assert found(own) == []


def test_labels_that_went_through_jpeg(own: Path) -> None:
    text = TOML.split("classes")[0] + "classes = [\n"
    text += "".join(f'{{ name = "c{v}", value = {v} }},\n' for v in range(254)) + "]\n"
    (own / "own.toml").write_text(text)
    path = own / "labels/train/train0_label.png"
    buffer = io.BytesIO()
    moved = np.roll(np.array(Image.open(path)) * 100, (3, 3), (0, 1))
    large = Image.fromarray(np.kron(moved, np.ones((5, 5), np.uint8)))
    large.save(buffer, "JPEG", quality=90)
    Image.open(buffer).save(path)
    write_png(own / "images/train/train0.png", noise(0, (160, 240)))
    kinds = found(own)
    assert ("problem", "jpeg") in kinds
    assert ("problem", "copies") not in kinds


def test_values_that_the_file_does_not_list(own: Path) -> None:
    damaged = labels(0)
    damaged[0, 0] = 11
    write_png(own / "labels/train/train0_label.png", damaged)
    assert found(own) == [("problem", "values")]
    assert the_only(own).fix.startswith("give each value to a class or to ignore in the TOML file")


def test_a_class_may_be_without_a_pixel() -> None:
    """In clothing sets some are; 1,000 good files ended with a problem."""
    layout = LAYOUTS["clothes59"]
    samples = tuple(Sample("x", f"{n}", Path(f"{n}.png"), Path(f"l{n}.png")) for n in range(150))
    facts = {}
    for sample in samples:
        assert sample.labels is not None
        facts[sample.image, "image"] = FileFacts(SIZE, {})
        facts[sample.labels, "labels"] = FileFacts(SIZE, {v: 9 for v in range(59) if v != 8})
    wish = Wish(layout=layout, split="train")
    listing = Listing(wish=wish, images=150, known=KnownSplit((150,)), samples=samples)
    _, findings = check_contents(listing, facts)  # type: ignore[arg-type]
    assert [(f.severity, f.kind, f.items[0].name) for f in findings] == [
        ("note", "empty classes", "bra")
    ]
