"""Described data sets whose classes are stored in other ways: 16 bits, a mapping, polygons."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from test_image_kinds import write_deep

from factories import noise, write_png
from uda.checkpoints.stored import plain_label_space, stored_space
from uda.data.described.file import Description, description_of
from uda.data.described.layouts import described_layout, layout_of
from uda.data.known_files import KnownFiles
from uda.data.label_files import read_train_ids
from uda.data.listing import list_split
from uda.data.registry import check_raw_ids, check_sizes
from uda.utilities.errors import InputError

SIZE = (2, 4)
HEAD = 'images = "images/{name}.png"\nlabels = "labels/{name}.png"\nsplits = ["train"]\n'
NAMES = '[[classes]]\nname = "road"\n[[classes]]\nname = "car"\n'
WANTED = [[0, 0, 1, 255], [1, 255, 0, 1]]


def train_ids(folder: Path, text: str, path: Path) -> list[list[int]]:
    """Of a label file, as a snapshot's label space reads it, too."""
    space = description_of(text, folder / "own.toml").space
    again = stored_space(plain_label_space(space), Path("snapshot"))
    assert again.coding == space.coding
    found = read_train_ids(path, SIZE, space)
    assert np.array_equal(found, read_train_ids(path, SIZE, again))
    return found.tolist()


def stored(road: int, car: int, none: int) -> npt.NDArray[np.uint16]:
    return np.array([road, car] + [0] * 253 + [none], np.uint16)[np.array(WANTED)]


def test_values_of_16_bits(tmp_path: Path) -> None:
    text = HEAD + "ignore = [65535]\n" + NAMES.replace('"road"', '"road"\nvalues = [1000, 7]')
    text = text.replace('"car"', '"car"\nvalue = 24001')
    path = tmp_path / "labels/a.png"
    path.parent.mkdir()
    Image.fromarray(stored(1000, 24001, 65535)).save(path)
    assert train_ids(tmp_path, text, path) == WANTED
    deep = np.stack([np.full(SIZE, 9), stored(7, 24001, 65535), np.zeros(SIZE)], 2)
    write_deep(path, deep.astype(np.uint16))
    assert train_ids(tmp_path, 'label_channel = "green"\n' + text, path) == WANTED
    Image.fromarray(stored(1000, 24001, 500)).save(path)
    with pytest.raises(InputError, match=r"the label values 500 \(1 in all\) are of no class"):
        train_ids(tmp_path, text, path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ids.json", '{"7": "road", "26": "car", "3": null}'),
        ("ids.json", '{"7": 0, "26": 1, "3": 255}'),
        ("ids.json", '{"road": [7], "car": [26], "ignore": [3]}'),
        ("ids.json", '[{"id": 7, "name": "road"}, {"id": 26, "name": "car"}, '
                     '{"id": 3, "name": "void"}]'),
        ("ids.csv", "id,class\n7,road\n26,car\n3,ignore\n"),
        ("ids.csv", "name,value\nroad,7\ncar,26\n,3\n"),
        ("ids.csv", "7,0\n26,1\n3,255\n"),
    ],
)  # fmt: skip
def test_a_mapping_file(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    path = write_png(tmp_path / "labels/a.png", stored(7, 26, 3).astype(np.uint8))
    text = HEAD + f'mapping = "{name}"\n' + NAMES
    assert train_ids(tmp_path, text, path) == WANTED
    first = description_of(text, tmp_path / "own.toml").content
    (tmp_path / name).write_text(content + "\n")
    assert description_of(text, tmp_path / "own.toml").content != first, "the run would differ"


def test_a_mapping_of_colors(tmp_path: Path) -> None:
    """Several channels: no single one tells the class."""
    colors = np.zeros((256, 3), np.uint8)
    colors[0], colors[1], colors[255] = (10, 1, 0), (10, 2, 0), (0, 2, 9)
    (tmp_path / "ids.csv").write_text("name,r,g,b\nroad,10,1,0\ncar,10,2,0\nvoid,0,2,9\n")
    path = write_png(tmp_path / "labels/a.png", colors[np.array(WANTED)])
    assert train_ids(tmp_path, HEAD + 'mapping = "ids.csv"\n' + NAMES, path) == WANTED


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"7": "raod"}', "there is no class 'raod'; did you mean \"road\"?"),
        ('{"7": 2}', "there is no class 2; 0 to 1, or 255"),
        ('{"700000": "road"}', ": 700000 is neither a value"),
        ('[{"id": 7}]', "allowed: an entry with one of id, value"),
        ('{"7": "road", "car": [7]}', "7 means two classes"),
        ("[", "cannot be read as JSON"),
        ("{}", "has no value"),
    ],
)
def test_what_is_wrong_with_a_mapping_is_named(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "ids.json").write_text(content)
    with pytest.raises(InputError) as refusal:
        description_of(HEAD + 'mapping = "ids.json"\n' + NAMES, tmp_path / "own.toml")
    assert said in str(refusal.value)
    for text, why in (
        (NAMES + "value = 3\n", "omit ignore and the classes' values"),
        (NAMES.replace("[[", 'ignore_polygons = ["x"]\n[[', 1), "polygons are for label files"),
    ):
        mapping = 'mapping = "ids.json"\n' if "value" in text else ""
        with pytest.raises(InputError, match=why):
            description_of(HEAD + mapping + text, tmp_path / "own.toml")


def polygon_set(folder: Path) -> Description:
    objects = [
        {"label": "ground", "polygon": [[0, 0], [7, 0], [7, 7], [0, 7]]},
        {"label": "cargroup", "polygon": [[2, 2], [5, 2], [5, 5], [2, 5]]},
        {"label": "ego vehicle", "polygon": [[0, 6], [7, 6], [7, 7], [0, 7]]},
    ]
    content = {"imgHeight": 8, "imgWidth": 10, "objects": objects}
    write_png(folder / "images/train/a.png", noise(0, (8, 10)))
    path = folder / "labels/train/a_polygons.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    text = """images = "images/{split}/{name}.png"
labels = "labels/{split}/{name}_polygons.json"
splits = ["train"]
ignore_polygons = ["ego vehicle"]
[[classes]]
name = "road"
polygons = ["road", "ground"]
[[classes]]
name = "car"
[[classes]]
name = "train"
polygons = []
"""
    (folder / "own.toml").write_text(text)
    return description_of(text, folder / "own.toml")


def test_polygons_of_cityscapes_form(tmp_path: Path) -> None:
    description = polygon_set(tmp_path)
    (sample,) = list_split(layout_of(description), tmp_path, "train", labeled=True)
    check_sizes([sample], KnownFiles())
    check_raw_ids([sample])
    assert sample.labels is not None
    found = read_train_ids(sample.labels, (8, 10), description.space)
    assert found[0].tolist() == [0] * 8 + [255, 255]
    assert found[3].tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 255, 255]
    assert set(found[7].tolist()) == {255}
    assert description.space.not_scored == (2,), "trains have no pixel"


def test_a_polygon_of_another_name_is_named(tmp_path: Path) -> None:
    polygon_set(tmp_path)
    path = tmp_path / "own.toml"
    path.write_text(path.read_text().replace("ego vehicle", "ego"))
    layout = described_layout(str(path))
    (sample,) = list_split(layout, tmp_path, "train", labeled=True)
    with pytest.raises(InputError, match="a polygon is called 'ego vehicle'"):
        check_raw_ids([sample])


def test_more_classes_than_8_bits_hold(tmp_path: Path) -> None:
    classes = "".join(f'[[classes]]\nname = "c{n}"\nvalue = {n}\n' for n in range(255))
    with pytest.raises(InputError, match=r"255 entries; allowed: 1 to 254.*give several values"):
        description_of(HEAD + classes, tmp_path / "own.toml")
