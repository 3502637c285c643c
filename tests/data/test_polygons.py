"""Label files of polygons: what is drawn, in which order, and what is refused."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uda.data.files import read_header
from uda.data.known_files import KnownFiles
from uda.data.label_files import label_header, read_raw_labels
from uda.data.polygons import draw_labels, read_outlines
from uda.labels.spaces import Coding
from uda.utilities.errors import InputError

IDS = {"unlabeled": 9, "road": 1, "car": 2, "sky": 3}


def box(label: str, left: float, top: float, right: float, bottom: float) -> dict[str, Any]:
    """An object whose outline includes its last row and column, as polygons are drawn."""
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return {"label": label, "polygon": corners}


def written(folder: Path, *objects: object, **fields: object) -> Path:
    path = folder / "aachen_000000_000019_gtFine_polygons.json"
    content = {"imgHeight": 3, "imgWidth": 5, "objects": list(objects)} | fields
    path.write_text(json.dumps(content))
    return path


def test_later_polygons_hide_earlier_ones(tmp_path: Path) -> None:
    path = written(
        tmp_path, box("sky", 0, 0, 4, 0), box("road", 0, 1, 4, 2), box("car", 1, 0, 2, 1)
    )
    expected = [[3, 2, 2, 3, 3], [1, 2, 2, 1, 1], [1, 1, 1, 1, 1]]
    assert np.asarray(draw_labels(path, IDS)).tolist() == expected
    found = read_raw_labels(path, (3, 5), coding=Coding(names=tuple(IDS.items())))
    assert np.asarray(found).tolist() == expected


def test_what_no_polygon_covers_is_unlabeled(tmp_path: Path) -> None:
    path = written(tmp_path, box("road", 0, 0, 1, 1))
    assert np.asarray(draw_labels(path, IDS))[2].tolist() == [9] * 5


def test_points_outside_of_the_image_and_between_pixels(tmp_path: Path) -> None:
    path = written(tmp_path, box("sky", -7, -3, 99, 99), box("car", 2.6, -1.5, 3.4, 1.4))
    found = np.asarray(draw_labels(path, IDS))
    assert np.unique(found).tolist() == [2, 3]
    assert found[2].tolist() == [3] * 5
    assert found[0, 3] == 2


def test_deleted_objects_and_points_are_not_drawn(tmp_path: Path) -> None:
    deleted = box("car", 0, 0, 4, 2) | {"deleted": 1}
    dot = {"label": "road", "polygon": [[1, 1]]}
    path = written(tmp_path, box("sky", 0, 0, 4, 2), deleted, dot, {"label": "car", "polygon": []})
    assert np.unique(np.asarray(draw_labels(path, IDS))).tolist() == [3]
    assert [polygon.label for polygon in read_outlines(path).polygons] == ["sky", "road", "car"]


def test_groups_are_what_they_are_groups_of(tmp_path: Path) -> None:
    path = written(tmp_path, box("cargroup", 0, 0, 4, 2))
    assert np.unique(np.asarray(draw_labels(path, IDS))).tolist() == [2]


def test_the_size_is_read_without_drawing(tmp_path: Path) -> None:
    path = written(tmp_path, box("what nobody knows", 0, 0, 1, 1))
    assert label_header(path).size == (3, 5)
    assert KnownFiles().image_sizes([path]) == [(3, 5)]
    with pytest.raises(InputError, match="cannot be decoded"):
        read_header(path)  # it is no image


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    coding = Coding(names=tuple(IDS.items()))
    with pytest.raises(InputError, match="labels are 5x3, the image is 6x3"):
        read_raw_labels(written(tmp_path), (3, 6), coding=coding)


def test_an_unknown_name_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is called 'raod', .*did you mean .road"):
        draw_labels(written(tmp_path, box("raod", 0, 0, 1, 1)), IDS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"imgHeight": 0}, "imgHeight is '0'; allowed: a number of pixels"),
        ({"imgWidth": True}, "imgWidth is 'True'"),
        ({"imgWidth": None}, "imgWidth is 'None'"),
        ({"imgHeight": 10**5, "imgWidth": 10**5}, "100000x100000 is larger than can be read"),
        ({"objects": {}}, "has no list of objects"),
        ({"objects": [3]}, "an object has no label or no polygon"),
        ({"objects": [{"label": 3, "polygon": []}]}, "an object has no label or no polygon"),
        ({"objects": [{"label": "car", "polygon": [[1]]}]}, "'car' has the point '.1.'"),
        ({"objects": [{"label": "car", "polygon": [[1, "2"]]}]}, "has the point"),
        (
            {"objects": [{"label": "car", "polygon": [[1, float("nan")]]}]},
            "NaN is no number of JSON",
        ),
        ({"objects": [{"label": "car", "polygon": [[1, float("inf")]]}]}, "Infinity is no number"),
        ({"objects": [{"label": "car", "polygon": [[1, 10**400]]}]}, "numbers of up to"),
    ],
)
def test_damage_is_named_in_one_line(
    tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    path = written(tmp_path, **fields)
    with pytest.raises(InputError, match=message) as refusal:
        draw_labels(path, IDS)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a JSON file of polygons"),
        (b"\xff\xfe", "cannot be read as a JSON file of polygons"),
        (b"[]", "is not a JSON file of polygons, which has imgHeight"),
        (b'{"objects": ' + b"[" * 10**5, "nested too deeply|cannot be read"),
    ],
)
def test_what_is_no_json_file_of_polygons(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        draw_labels(path, IDS)


def test_missing_files_and_pipes(tmp_path: Path) -> None:
    import os

    with pytest.raises(InputError, match=r"a\.json does not exist"):
        read_outlines(tmp_path / "a.json")
    os.mkfifo(tmp_path / "b.json")
    with pytest.raises(InputError, match="it is a pipe or a device"):
        read_outlines(tmp_path / "b.json")


def test_what_would_take_minutes_to_draw_is_refused_at_once(tmp_path: Path) -> None:
    tall = {"label": "car", "polygon": [[index % 2, index % 2 * 10**6] for index in range(2000)]}
    path = written(tmp_path, tall, imgHeight=10**6, imgWidth=2)
    began = time.process_time()
    with pytest.raises(InputError, match="too many polygons to draw"):
        draw_labels(path, IDS)
    whole = [box("car", 0, 0, 9999, 9999)] * 1000
    with pytest.raises(InputError, match="too many polygons to draw"):
        draw_labels(written(tmp_path, *whole, imgHeight=10**4, imgWidth=10**4), IDS)
    assert time.process_time() - began < 1
