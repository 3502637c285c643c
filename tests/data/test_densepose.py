"""DensePose-COCO's annotations to label maps, worked out by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from densepose_files import compressed, part_masks, standing, write_densepose
from uda.data.datasets.body_parts import BODY_PARTS, NOONBODY
from uda.data.preparation.densepose import PARTS, Labels, label_map, prepare, read_people
from uda.data.registry import list_dataset
from uda.utilities.errors import InputError


def people_of(tmp_path: Path, *annotations: dict[str, Any]) -> list[Any]:
    """The people of one image as read from a file."""
    defaults = {"image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [0.0, 0.0, 4.0, 4.0]}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [defaults | {"id": n} | a for n, a in enumerate(annotations)],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    return read_people(path)["a.jpg"]


def whole(part: int) -> list[Any]:
    """`dp_masks` of a frame that shows nothing but part number `part`."""
    return part_masks(np.full((256, 256), part, np.uint8))


def text(labels: Labels) -> list[str]:
    return ["".join("x" if v == 255 else f"{v:x}" for v in row) for row in labels]


def test_the_documented_order_is_that_of_the_challenge() -> None:
    """DENSEPOSE_DATASETS.md beside document 004, word by word."""
    documented = (
        "Torso", "Right Hand", "Left Hand", "Left Foot", "Right Foot", "Upper Leg Right",
        "Upper Leg Left", "Lower Leg Right", "Lower Leg Left", "Upper Arm Left",
        "Upper Arm Right", "Lower Arm Left", "Lower Arm Right", "Head",
    )  # fmt: skip
    words = {"thigh": "upper leg", "calf": "lower leg", "forearm": "lower arm"}
    for theirs, ours, train_id in zip(documented, PARTS, range(1, 15), strict=True):
        for word, other in words.items():
            ours = ours.replace(word, other)
        assert sorted(theirs.lower().split()) == sorted(ours.split())
        assert BODY_PARTS.classes[train_id] == PARTS[train_id - 1]


def test_right_and_left_change_places_in_a_mirror() -> None:
    for name, mirrored in zip(BODY_PARTS.classes, BODY_PARTS.mirrored, strict=True):
        swapped = name.replace("right", "?").replace("left", "right").replace("?", "left")
        assert BODY_PARTS.classes[mirrored] == swapped
    assert [BODY_PARTS.classes[i] for i in BODY_PARTS.unscored] == ["head"]


def test_a_frame_is_stretched_over_its_box(tmp_path: Path) -> None:
    """Left half torso (1), right half head (14); box from x 1.5 to 5.5 and y 1 to 3: the centers
    1.5 to 4.5 and 1.5, 2.5 lie in it, and the frame's middle at 3.5 is the right half's."""
    frame = np.full((256, 256), 14, np.uint8)
    frame[:, :128] = 1
    people = people_of(tmp_path, {"bbox": [1.5, 1.0, 4.0, 2.0], "dp_masks": part_masks(frame)})
    assert text(label_map(people, (4, 7))) == ["0000000", "011ee00", "011ee00", "0000000"]


def test_rows_are_seen_at_their_centers(tmp_path: Path) -> None:
    """Upper half torso, lower half head; box from y 1.5 to 5.5: centers 1.5 to 4.5, of which 3.5 is
    the frame's middle and thus the lower half's."""
    frame = np.full((256, 256), 14, np.uint8)
    frame[:128] = 1
    people = people_of(tmp_path, {"bbox": [0.0, 1.5, 1.0, 4.0], "dp_masks": part_masks(frame)})
    assert "".join(text(label_map(people, (7, 1)))) == "011ee00"


def test_a_box_may_leave_the_image(tmp_path: Path) -> None:
    people = people_of(tmp_path, {"bbox": [-2.0, 1.0, 4.0, 9.0], "dp_masks": whole(3)})
    assert text(label_map(people, (3, 4))) == ["0000", "3300", "3300"]


@pytest.mark.parametrize("larger_first", [True, False])
def test_smaller_people_lie_over_larger_ones(larger_first: bool, tmp_path: Path) -> None:
    pair = [
        {"bbox": [0.0, 0.0, 4.0, 2.0], "dp_masks": whole(1)},
        {"bbox": [1.0, 0.0, 2.0, 2.0], "dp_masks": whole(2)},
    ]
    people = people_of(tmp_path, *(pair if larger_first else pair[::-1]))
    assert text(label_map(people, (2, 5))) == ["12210", "12210"]


def test_people_without_parts_are_ignored_not_background(tmp_path: Path) -> None:
    """By polygon, by run lengths, by box; what is annotated lies over all of them."""
    crowd = np.zeros((3, 8), np.bool_)
    crowd[0, 2:4] = True
    people = people_of(
        tmp_path,
        {"bbox": [6.0, 0.0, 2.0, 2.0], "dp_masks": whole(5)},
        {"bbox": [0.0, 0.0, 2.0, 3.0], "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]},
        {"iscrowd": 1, "segmentation": {"counts": compressed(crowd), "size": [3, 8]},
         "dp_masks": whole(1)},
        {"bbox": [5.0, 1.0, 3.0, 2.0], "dp_masks": [[]] * 14},
        {"bbox": [4.0, 0.0, 1.0, 1.0], "category_id": 18, "dp_masks": whole(1)},
    )  # fmt: skip
    assert text(label_map(people, (3, 8))) == ["xxxx0055", "xx000x55", "00000xxx"]


def test_parts_that_are_absent_are_background(tmp_path: Path) -> None:
    people = people_of(tmp_path, {"bbox": [0.0, 0.0, 256.0, 256.0],
                                  "dp_masks": part_masks(standing())})  # fmt: skip
    assert (label_map(people, (256, 256)) == standing()).all()


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"dp_masks": [[]] * 13}, "13 masks; allowed"),
        ({"dp_masks": whole(1), "bbox": [0, 0, 0, 3]}, r"annotation 0 has bbox \[0, 0, 0, 3\]"),
        ({"dp_masks": whole(1), "bbox": [0, 0, 3]}, "not as COCO and DensePose write annotations"),
        ({"dp_masks": whole(1), "image_id": 2}, "not as COCO and DensePose write annotations"),
        ({"dp_masks": [{"counts": "0", "size": [256, 256]}] + [[]] * 13}, "its torso is damaged"),
        ({"dp_masks": [{"counts": "PP`0"}] + [[]] * 13}, "annotation 0: the mask of its torso"),
        ({"dp_masks": ["torso"] + [[]] * 13}, "the mask of its torso is damaged"),
        ({"segmentation": [[1, 2]]}, "annotation 0: polygon"),
    ],
)
def test_damaged_annotations_are_refused(
    annotation: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        label_map(people_of(tmp_path, annotation), (3, 3))
    assert "\n" not in str(refused.value)


# --- whole folders


def test_a_data_set_is_prepared(tmp_path: Path) -> None:
    annotations, images = write_densepose(tmp_path, count=4)
    content = json.loads(annotations.read_text())
    for field in ("dp_masks", "dp_I"):  # of the fourth image's only person
        del content["annotations"][3][field]
    annotations.write_text(json.dumps(content))
    gray = images / "COCO_train2014_000000000002.jpg"
    Image.open(gray).convert("L").save(gray)
    done = prepare(annotations, images, tmp_path / "NoonBody", split="train")
    assert (done.written, done.left_out, done.people, done.ignored_people) == (3, 1, 3, 0)
    samples = list_dataset(tmp_path, "noonbody", "train", labeled=True)
    assert [s.stem for s in samples] == [f"COCO_train2014_00000000000{n}" for n in (1, 2, 3)]
    for sample in samples:
        assert sample.labels is not None
        with Image.open(sample.image) as image, Image.open(sample.labels) as labels:
            assert image.mode == "RGB"
            assert image.size == labels.size
            assert set(np.unique(np.asarray(labels))) == set(range(15))
    before = {path: path.read_bytes() for path in (tmp_path / "NoonBody").rglob("*.*")}
    prepare(annotations, images, tmp_path / "NoonBody", split="train")
    assert {p: p.read_bytes() for p in (tmp_path / "NoonBody").rglob("*.*")} == before


def test_missing_images_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    annotations, images = write_densepose(tmp_path, count=2)
    next(images.iterdir()).unlink()
    with pytest.raises(InputError, match="lacks 1 of 2 images"):
        prepare(annotations, images, tmp_path / "NoonBody", split="train")
    assert not (tmp_path / "NoonBody").exists()
    with pytest.raises(InputError, match="does not exist: give densepose_train2014"):
        read_people(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match=r"bad\.json is not a JSON file"):
        read_people(tmp_path / "bad.json")


def test_images_need_labels_where_labels_are_wanted(tmp_path: Path) -> None:
    annotations, images = write_densepose(tmp_path, count=2)
    prepare(annotations, images, tmp_path / "NoonBody", split="test")
    (tmp_path / "NoonBody/labels/test/COCO_train2014_000000000002.png").unlink()
    with pytest.raises(InputError, match="1 of 2 images have no label"):
        list_dataset(tmp_path, "noonbody", "test", labeled=True)
    assert len(list_dataset(tmp_path, "noonbody", "test", labeled=False)) == 2
    assert NOONBODY.label_file(
        tmp_path, "test", tmp_path / "images/test/a.jpg"
    ) == tmp_path / "labels/test/a.png"  # fmt: skip
