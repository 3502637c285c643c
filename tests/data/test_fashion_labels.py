"""Fashionpedia's and iMaterialist's annotations become label maps of five groups."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashion_files import Box, coco, picture, write_coco, write_images, write_kaggle
from uda.commands.data import prepare_fashionpedia
from uda.data.datasets.fashion_classes import FASHION_CLASSES, GROUPS
from uda.data.files import read_header
from uda.data.preparation.fashion_annotations import Instance, KaggleTable, read_annotations
from uda.data.preparation.fashion_labels import label_map, prepare
from uda.data.preparation.json_elements import JsonFile
from uda.utilities.errors import InputError

SIZE = (40, 32)

# From D.3 of the facts: id -> group, everything that is not named is background.
GROUP_OF = (
    dict.fromkeys(range(6), "upperbody")
    | dict.fromkeys((6, 7, 8), "lowerbody")
    | dict.fromkeys((9, 10, 11), "wholebody")
    | dict.fromkeys((20, 22, 23), "feet")
    | dict.fromkeys((*range(13, 20), 24, 25, 26, 34, 37), "accessories")
)
BACKGROUND = "cape;tights, stockings;hood;collar;lapel;epaulette;sleeve;pocket;neckline;zipper;" \
    "applique;bow;flower;fringe;ribbon;rivet;ruffle;sequin;tassel"  # fmt: skip
DROPPED_PARENTS = {"garment parts", "closures", "decorations"}


@pytest.mark.parametrize("index", range(46))
def test_each_class_has_the_group_of_the_document(index: int) -> None:
    row = FASHION_CLASSES[index]
    assert row.id == index
    assert GROUPS[row.group] == GROUP_OF.get(index, "background")
    assert (row.group == 0) == (row.name in BACKGROUND.split(";"))


def test_groups_follow_from_super_categories_but_for_four_classes() -> None:
    of_parent = {"upperbody": 1, "lowerbody": 2, "wholebody": 3, "legs and feet": 4}
    of_parent |= dict.fromkeys(DROPPED_PARENTS, 0)
    odd = {row.name for row in FASHION_CLASSES if row.group != of_parent.get(row.supercategory, 5)}
    assert odd == {"cape", "tights, stockings", "buckle", "bead"}
    assert len(FASHION_CLASSES) == 46


def test_the_largest_group_wins_and_parts_leave_the_garment() -> None:
    def mask(*columns: int) -> Any:  # noqa: ANN401
        found = np.zeros((1, 5), np.bool_)
        found[0, list(columns)] = True
        return found

    instances = [
        Instance(24, mask(1)),  # a bag
        Instance(0, mask(0, 1, 2, 3)),  # a shirt
        Instance(31, mask(0)),  # its sleeve
        Instance(6, mask(3, 4)),  # pants
    ]
    assert label_map(instances, (1, 5)).tolist() == [[1, 5, 1, 2, 2]]
    assert label_map(reversed(instances), (1, 5)).tolist() == [[1, 5, 1, 2, 2]]


@pytest.fixture
def drawn(tmp_path: Path) -> dict[str, list[Box]]:
    found = write_images(tmp_path / "train", 4, SIZE)
    write_coco(tmp_path / "train.json", found, SIZE)
    for year in (2019, 2020):
        write_kaggle(tmp_path / f"{year}.csv", found, SIZE, year=year)
    return found


def labels_below(folder: Path) -> dict[str, Any]:
    return {path.name: np.asarray(Image.open(path)) for path in (folder / "labels").iterdir()}


def by_hand(boxes: list[Box]) -> Any:  # noqa: ANN401
    labels = np.zeros(SIZE, np.uint8)
    for box in boxes:
        part = labels[box.top : box.bottom, box.left : box.right]
        part[...] = np.maximum(part, FASHION_CLASSES[box.class_id].group)
    return labels


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("source", ["train.json", "2019.csv", "2020.csv"])
def test_all_layouts_give_the_same_label_maps(
    source: str, tmp_path: Path, drawn: dict[str, list[Box]]
) -> None:
    prepared = prepare([tmp_path / source], [tmp_path / "train"], tmp_path / "out")
    assert prepared == (4, 0, 0)
    found = labels_below(tmp_path / "out")
    assert found.keys() == {f"{name}.png" for name in drawn}
    for name, boxes in drawn.items():
        assert np.array_equal(found[f"{name}.png"], by_hand(boxes))
        image = tmp_path / "out" / "images" / f"{name}.jpg"
        assert image.samefile(tmp_path / "train" / f"{name}.jpg")  # takes no room
    manifest = json.loads((tmp_path / "out" / "groups.json").read_text())
    assert manifest["annotations"][0]["file"] == source
    assert manifest["classes"][13] == {
        "id": 13, "name": "glasses", "supercategory": "head", "group": "accessories"
    }  # fmt: skip


def test_the_command_goes_on_after_an_interruption(
    tmp_path: Path, drawn: dict[str, list[Box]], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    calls = 0
    real = os.link

    def dies(*arguments: Any, **options: Any) -> None:  # noqa: ANN401
        nonlocal calls
        calls += 1
        if calls >= 3:
            raise KeyboardInterrupt
        real(*arguments, **options)

    given = ["--annotations", str(tmp_path / "train.json"), "--images", str(tmp_path / "train"),
             "--output", str(tmp_path / "out"), "--threads", "1"]  # fmt: skip
    monkeypatch.setattr(os, "link", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare_fashionpedia.main(given)
    monkeypatch.undo()
    assert not (tmp_path / "out" / "groups.json").exists()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/labels").iterdir()}
    assert len(before) >= 3  # of the third one on, the images were not linked
    prepare_fashionpedia.main(given)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/labels").iterdir()}
    assert len(after) == len(drawn)
    assert sum(after[name] == before[name] for name in before) == 2
    assert "images: 4" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "groups.json", "images", "labels"
    ]  # fmt: skip


def test_other_annotations_do_not_mix_into_a_folder(
    tmp_path: Path, drawn: dict[str, list[Box]]
) -> None:
    prepare([tmp_path / "train.json"], [tmp_path / "train"], tmp_path / "out")
    with pytest.raises(InputError, match="made of other annotations"):
        prepare([tmp_path / "2019.csv"], [tmp_path / "train"], tmp_path / "out")
    with pytest.raises(InputError, match="nothing says"):
        prepare([tmp_path / "2019.csv"], [tmp_path / "train"], tmp_path)
    assert len(labels_below(tmp_path / "out")) == len(drawn)


def test_missing_images_are_refused_or_left_out(
    tmp_path: Path, drawn: dict[str, list[Box]]
) -> None:
    first = next(iter(drawn))
    (tmp_path / "train" / f"{first}.jpg").unlink()
    arguments: Any = ([tmp_path / "train.json"], [tmp_path / "train"], tmp_path / "out")
    with pytest.raises(InputError, match=rf"1 images .* the first is {first}.jpg"):
        prepare(*arguments)
    assert prepare(*arguments, allow_missing=True) == (3, 1, 0)


def test_gray_images_get_three_channels(tmp_path: Path, drawn: dict[str, list[Box]]) -> None:
    path = tmp_path / "train" / f"{next(iter(drawn))}.jpg"
    Image.fromarray(picture(0, drawn[path.stem], SIZE)).convert("L").save(path)
    prepared = prepare([tmp_path / "train.json"], [tmp_path / "train"], tmp_path / "out")
    assert prepared.converted == 1
    written = tmp_path / "out" / "images" / path.name
    assert (read_header(written).mode, read_header(path).mode) == ("RGB", "L")


def test_an_image_of_another_size_is_refused(tmp_path: Path, drawn: dict[str, list[Box]]) -> None:
    path = tmp_path / "train" / f"{next(iter(drawn))}.jpg"
    Image.fromarray(picture(0, drawn[path.stem], SIZE)).rotate(90, expand=True).save(path)
    with pytest.raises(InputError, match="40x32, its annotations are of 32x40"):
        prepare([tmp_path / "train.json"], [tmp_path / "train"], tmp_path / "out")


def change(values: dict[str, Any], place: str) -> None:
    """Damages one place of a COCO file."""
    match place:
        case "category name":
            values["categories"][3]["name"] = "hoodie"
        case "category id":
            values["categories"][45]["id"] = 46
        case "few categories":
            values["categories"].pop()
        case "category of an instance":
            values["annotations"][0]["category_id"] = 46
        case "no image":
            values["annotations"][1]["image_id"] = 9
        case "path":
            values["images"][0]["file_name"] = "../../x.jpg"
        case "size":
            values["images"][0]["height"] = "40"
        case "twice":
            values["images"].append(values["images"][0] | {"id": 99})
        case "segmentation":
            values["annotations"][1]["segmentation"] = [[1, 2]]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("category name", "hoodie.*cardigan"),
        ("category id", "46.*tassel"),
        ("few categories", "category 45 is None"),
        ("category of an instance", "class 46; allowed: 0 to 45"),
        ("no image", "image 9, which is not there"),
        ("path", "not a file name"),
        ("size", "needs id, file_name, height, width"),
        ("twice", "a second time"),
        ("segmentation", "an instance of 0.*polygon"),
    ],
)
def test_damaged_annotations_are_refused_in_one_line(
    place: str, says: str, tmp_path: Path, drawn: dict[str, list[Box]]
) -> None:
    values = coco(drawn, SIZE)
    change(values, place)
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=says) as caught:
        prepare([path], [tmp_path / "train"], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n", "begins with 'a,b'; allowed: ImageId"),
        ("{h}\nx.jpg,1 1,40,32\n", "is not ImageId"),
        ("{h}\nx.jpg,1 1,40,-32,3\n", "is not ImageId"),
        ("{h}\nx.jpg,1 1,40,32,46\n", "class 46"),
        ("{h}\nx.jpg,1 1,40,32,3\nx.jpg,1 1,32,40,3\n", "several sizes"),
        ("{h}\n../x.jpg,1 1,40,32,3\n", "not a file name"),
    ],
)
def test_damaged_tables_are_refused(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(text.format(h="ImageId,EncodedPixels,Height,Width,ClassId"))
    with pytest.raises(InputError, match=says):
        KaggleTable(path)


def test_annotations_that_are_not_there(tmp_path: Path) -> None:
    for name in ("train.csv", "train.json"):
        with pytest.raises(InputError, match="cannot be read"):
            read_annotations(tmp_path / name)


@pytest.mark.parametrize("window", [1, 2, 7, 64, 10**6])
def test_elements_of_a_json_file_whatever_is_held(
    window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uda.data.preparation.json_elements._WINDOW", window)
    values: dict[str, Any] = {
        "a": [{"x": [1.5, -2e3], "y": "é\"]}"}, {}, 17, "é,"],
        "empty": [], "b": {"c": [1]}, "n": 12,
    }  # fmt: skip
    path = tmp_path / "file.json"
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")
    file = JsonFile(path)
    found = [(key, file.read(span)) for key, span in file.elements()]
    assert found == [*(("a", value) for value in values["a"]), ("b", {"c": [1]}), ("n", 12)]


@pytest.mark.parametrize(
    "text",
    ["[1]", "{", '{"a"', '{"a": [1, 2', '{"a": [1 2]}', '{"a": nul', "[" * 10**5, '{"a":' * 9999],
)
def test_files_that_hold_no_object(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"file\.json is not a JSON object"):
        list(JsonFile(path).elements())
