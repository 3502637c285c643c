"""Drafts of descriptions of what people have: mixed suffixes, lists, companions, odd labels."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from test_image_kinds import write_deep, write_turned

from factories import noise, write_png
from uda.data.described.file import Description, description_of
from uda.data.described.layouts import described_layout, layout_of
from uda.data.drafts.contact_sheet import contact_sheet
from uda.data.drafts.draft import Draft, draft_description
from uda.data.label_files import read_train_ids
from uda.data.listing import list_split
from uda.labels.spaces import CITYSCAPES
from uda.utilities.errors import InputError

SIZE = (32, 48)
Labels = npt.NDArray[np.uint8]


def labels(seed: int, values: tuple[int, ...] = (0, 1, 2)) -> Labels:
    """(H, W) in blocks of 8 pixels."""
    blocks = np.random.default_rng(seed).choice(values, (SIZE[0] // 8, SIZE[1] // 8))
    blocks.flat[: len(values)] = values
    return np.kron(blocks, np.ones((8, 8))).astype(np.uint8)


def write_image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed, SIZE)).save(path)


def pairs(folder: Path, *names: str, values: tuple[int, ...] = (0, 1, 2)) -> Path:
    for number, name in enumerate(names):
        write_image(folder / f"images/{name}", number)
        stem = name.rpartition(".")[0]
        write_png(folder / f"labels/{stem}.png", labels(number, values))
    return folder


def drafted(folder: Path, **options: str) -> tuple[Draft, Description]:
    file = folder / "dataset.toml"
    draft = draft_description(folder, file, **options)
    file.write_text(draft.text)
    return draft, description_of(draft.text, file)


def listed(description: Description, split: str, *, labeled: bool = True) -> list[str]:
    found = list_split(layout_of(description), description.root, split, labeled=labeled)
    return [sample.image.name for sample in found]


# --- images


def test_all_suffixes_of_a_folder_are_taken(tmp_path: Path) -> None:
    names = ("a.jpg", "b.JPG", "c.jpeg", "d.png", "e.jpg", "f.bmp")
    draft, description = drafted(pairs(tmp_path, *names))
    assert sorted(listed(description, "train") + listed(description, "val")) == sorted(names)
    assert "6 images, 6 of them" in draft.text


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    pairs(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    write_image(tmp_path / "images/scan.tif")
    draft, _ = drafted(tmp_path)
    assert any(
        remark.startswith("1 pictures .tif are left out") and "images/scan.tif" in remark
        for remark in draft.to_check
    )


def test_companions_of_labels_are_no_labels(tmp_path: Path) -> None:
    for number in range(4):
        write_image(tmp_path / f"{number}.jpg", number)
        for kind in ("label", "inst_label", "color_label"):
            write_png(tmp_path / f"{number}_{kind}.png", labels(number))
    _, description = drafted(tmp_path)
    assert description.splits[0].labels is not None
    assert description.splits[0].labels.text == "{name}_label.png"


def test_a_split_without_labels_that_sorts_first(tmp_path: Path) -> None:
    """Labels for two of three splits: the first eight stems said nothing."""
    for split, count in (("test", 9), ("train", 3), ("val", 2)):
        for number in range(count):
            write_image(tmp_path / f"images/{split}/{split}{number}.jpg", number)
            if split != "test":
                write_png(tmp_path / f"labels/{split}/{split}{number}.png", labels(number))
    draft, description = drafted(tmp_path)
    assert [split.name for split in description.splits] == ["train", "val", "test"]
    assert description.splits[2].labels is None
    assert draft.facts["split train"] == "3 images"


def test_images_alone_are_a_target(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / f"city/photos/{number}.jpg", number)
        write_image(tmp_path / f"city/photos/x{number}.JPG", number)
    pairs(tmp_path / "source", "a.jpg", "b.jpg")
    drafted(tmp_path / "source")
    file = str(tmp_path / "source/dataset.toml")
    draft, description = drafted(tmp_path / "city", classes_of=file)
    assert description.space.classes == ("class_0", "class_1", "class_2")
    assert len(listed(description, "train", labeled=False)) == 6
    assert draft.facts["split train"] == "6 images, none of them with labels"
    assert 'classes_of = "../source/dataset.toml"' in draft.text
    alone, _ = drafted(tmp_path / "city")
    assert any("--classes-of NAME" in remark for remark in alone.to_check)
    _, cityscapes = drafted(tmp_path / "city", classes_of="cityscapes")
    assert cityscapes.space.num_classes == 19


def test_unlabeled_images_in_split_folders(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_image(tmp_path / f"frames/{split}/a.jpg")
    _, description = drafted(tmp_path, classes_of="cityscapes")
    assert [split.name for split in description.splits] == ["train", "test"]


def test_gray_and_deep_images_are_said(tmp_path: Path) -> None:
    for number in range(3):
        values = np.full((*SIZE, 3), 100 * number, np.uint16)
        values[0, 0] = 4095
        write_deep(tmp_path / f"images/{number}.png", values)
        write_png(tmp_path / f"labels/{number}.png", labels(number))
    draft, description = drafted(tmp_path)
    assert description.image_range == (0, 4095)
    assert any(r.startswith("3 of 3 images are 16 bits per channel") for r in draft.to_check)


@pytest.mark.parametrize(
    ("orientation", "upright", "line"),
    [(3, False, 'orientation = "stored"  # guessed'),
     (6, False, 'orientation = "stored"  # by the sizes'),
     (6, True, 'orientation = "upright"  # by the sizes')],
)  # fmt: skip
def test_turned_photographs(tmp_path: Path, orientation: int, upright: bool, line: str) -> None:
    pairs(tmp_path, "a.jpg", "b.jpg")
    write_turned(tmp_path / "images/c.jpg", orientation, SIZE)
    own = np.ascontiguousarray(labels(2).T) if upright else labels(2)
    write_png(tmp_path / "labels/c.png", own)
    draft, description = drafted(tmp_path)
    assert line in draft.text.splitlines()
    assert description.orientation == ("upright" if upright else "stored")
    assert any("1 of 3 images are turned by their EXIF" in remark for remark in draft.to_check)


# --- lists

FORMS: dict[str, Callable[[Path, str], str]] = {
    "names": lambda _, name: f"{name}",
    "suffixes": lambda _, name: f"{name}.jpg",
    "pairs": lambda _, name: f"images/{name}.jpg labels/{name}.png",
    "voc": lambda _, name: f"/images/{name}.jpg /labels/{name}.png",
    "tabs": lambda _, name: f"{name}.jpg\t{name}.png",
    "relative": lambda _, name: f"./images/{name}.jpg",
    "absolute": lambda folder, name: f"{folder}/images/{name}.jpg",
    "another machine": lambda _, name: f"/home/me/old/images/{name}.jpg",
    "windows": lambda _, name: f"data\\images\\{name}.jpg",
    "comments": lambda _, name: f"# a comment\n\n{name}  # good",
    "csv": lambda _, name: f'"images/{name}.jpg","labels/{name}.png"',
    "csv with numbers": lambda _, name: f"0,images/{name}.jpg,labels/{name}.png",
}


@pytest.mark.parametrize("form", FORMS)
def test_lists_in_every_usual_form(tmp_path: Path, form: str) -> None:
    names = [f"shot {n}" if form not in ("pairs", "voc", "comments") else f"{n}" for n in range(6)]
    pairs(tmp_path, *(f"{name}.jpg" for name in names))
    suffix = ".csv" if form.startswith("csv") else ".txt"
    for split, own in (("train", names[:4]), ("val", names[4:])):
        lines = [FORMS[form](tmp_path, name) for name in own]
        head = ["id,image,label"] if form == "csv with numbers" else []
        path = tmp_path / f"lists/{split}_images{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*head, *lines]).encode())
    draft, description = drafted(tmp_path)
    assert [split.list_file for split in description.splits] == [
        f"lists/train_images{suffix}", f"lists/val_images{suffix}"
    ]  # fmt: skip
    assert listed(description, "train") == [f"{name}.jpg" for name in names[:4]]
    assert not any("no folder or list" in remark for remark in draft.to_check)


def test_one_table_with_a_column_of_splits(tmp_path: Path) -> None:
    pairs(tmp_path, *(f"{n}.jpg" for n in range(5)))
    rows = "".join(f"{n}.jpg,{n}.png,{'training' if n < 3 else 'val'}\n" for n in range(5))
    (tmp_path / "meta.csv").write_text("image,label,split\n" + rows)
    _, description = drafted(tmp_path)
    assert listed(description, "train") == ["0.jpg", "1.jpg", "2.jpg"]
    assert listed(description, "val") == ["3.jpg", "4.jpg"]


def test_a_list_that_does_not_fit_is_said(tmp_path: Path) -> None:
    pairs(tmp_path, *(f"{n}.jpg" for n in range(5)))
    (tmp_path / "train.txt").write_text("0.jpg\n1.jpg\n2.jpg\n99.jpg\n")
    draft, description = drafted(tmp_path)
    assert any("line 4, 99.jpg" in remark for remark in draft.to_check)
    assert description.splits[0].share == 0.8
    text = draft.text.replace("share = 0.8", 'list = "train.txt"').replace("seed = 0", "# ")
    text = text.replace("val = { share = 0.2 }", "")
    with pytest.raises(InputError) as refusal:
        listed(description_of(text, tmp_path / "x.toml"), "train")
    assert "there is no image called '99.jpg' (line 4)" in str(refusal.value)
    assert len(str(refusal.value)) < 400 + len(str(tmp_path))


def test_a_list_that_names_other_labels_is_refused(tmp_path: Path) -> None:
    pairs(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "train.txt").write_text("a.jpg a.png\nb.jpg b_fine.png\n")
    draft, description = drafted(tmp_path)
    assert any("names other label files" in remark for remark in draft.to_check)
    with pytest.raises(InputError, match=r"line 2: 'b\.jpg b_fine\.png' names another label file"):
        listed(description, "train")


# --- labels


def test_16_bits_per_channel_have_their_classes_in_one(tmp_path: Path) -> None:
    """SYNTHIA's form: the class in red, the object in green. One class was found, and learned."""
    for number in range(3):
        write_image(tmp_path / f"RGB/{number}.png", number)
        deep = np.zeros((*SIZE, 3), np.uint16)
        deep[..., 0], deep[..., 1] = labels(number, (0, 3, 7)), 300 + number
        write_deep(tmp_path / f"labels/{number}.png", deep)
    draft, description = drafted(tmp_path)
    assert description.space.raw_channel == "red"
    assert description.space.classes == ("class_0", "class_3", "class_7")
    (path,) = tmp_path.glob("labels/0.png")
    train_ids = read_train_ids(path, SIZE, description.space)
    assert np.array_equal(train_ids, np.searchsorted([0, 3, 7], labels(0, (0, 3, 7))))
    assert draft.seen is not None


@pytest.mark.parametrize("kind", ["1 bit", "16 bits", "tif", "bmp", "alpha"])
def test_labels_of_other_kinds(tmp_path: Path, kind: str) -> None:
    suffix = f".{kind}" if kind in ("tif", "bmp") else ".png"
    for number in range(3):
        write_image(tmp_path / f"images/{number}.jpg", number)
        path = tmp_path / f"labels/{number}{suffix}"
        path.parent.mkdir(exist_ok=True)
        values = labels(number, (0, 1))
        picture = Image.fromarray(values)
        if kind == "1 bit":
            picture = Image.fromarray(values > 0)
        elif kind == "16 bits":
            picture = Image.fromarray(values.astype(np.uint16))
        elif kind == "alpha":
            picture = Image.merge("LA", (picture, Image.new("L", picture.size, 255)))
        picture.save(path)
    _, description = drafted(tmp_path)
    assert description.space.classes == ("class_0", "class_1")
    path = next(tmp_path.glob("labels/0.*"))
    assert np.array_equal(read_train_ids(path, SIZE, description.space), labels(0, (0, 1)))


def test_labels_that_went_through_jpeg_are_said(tmp_path: Path) -> None:
    pairs(tmp_path, *(f"{n}.jpg" for n in range(4)), values=(0, 60, 120, 180, 240))
    for path in tmp_path.glob("labels/*.png"):
        buffer = io.BytesIO()
        moved = Image.fromarray(np.roll(np.array(Image.open(path)), (3, 3), (0, 1)))
        moved.save(buffer, "JPEG", quality=90)
        Image.open(buffer).save(path)
    draft, _ = drafted(tmp_path)
    assert any("saved as JPEG" in remark for remark in draft.to_check)
    fine, _ = drafted(pairs(tmp_path / "fine", "a.jpg", "b.jpg", values=tuple(range(0, 240, 20))))
    assert not any("saved as JPEG" in remark for remark in fine.to_check)


def test_a_region_off_by_one_is_said(tmp_path: Path) -> None:
    pairs(tmp_path, *(f"{n}.jpg" for n in range(6)), values=(0, 4, 9))
    path = tmp_path / "labels/3.png"
    damaged = np.array(Image.open(path))
    damaged[4:6, 4:6] = 10
    write_png(path, damaged)
    draft, _ = drafted(tmp_path)
    assert any(
        remark.startswith("the value 10 has 4 pixels, in 1 of 6 files (3.png)")
        for remark in draft.to_check
    )


def write_camvid(folder: Path) -> Path:
    """12 values, 11 in thin lines between regions."""
    for split, count in (("train", 4), ("val", 2)):
        for number in range(count):
            name = f"0001TP_{number:06d}.png"
            write_png(folder / f"{split}/{name}", noise(number, SIZE))
            values = np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4), 10, 0).repeat(12, 1)
            write_png(folder / f"{split}annot/{name}", values[:30, : SIZE[1]])
            Image.open(folder / f"{split}/{name}").crop((0, 0, 48, 30)).save(
                folder / f"{split}/{name}"
            )
    return folder


def test_camvid_is_recognized(tmp_path: Path) -> None:
    """Its last value, 11, means no label."""
    draft, description = drafted(write_camvid(tmp_path))
    assert description.space.classes[:3] == ("sky", "building", "pole")
    assert description.space.raw_to_train[11] == 255
    assert str(draft.facts["recognized"]).startswith("CamVid (11 classes)")


@pytest.mark.parametrize(
    ("image", "label", "values", "name", "first", "ignored"),
    [
        ("JPEGImages/2007_00000{}.jpg", "SegmentationClass/2007_00000{}.png", (0, 1, 15, 255),
         "PASCAL VOC", "background", 255),
        ("leftImg8bit/train/ulm/ulm_000000_00000{}_leftImg8bit.png",
         "gtFine/train/ulm/ulm_000000_00000{}_gtFine_labelIds.png", (3, 7, 11, 26),
         "Cityscapes (label ids)", "road", 3),
        ("leftImg8bit/train/ulm/ulm_000000_00000{}_leftImg8bit.png",
         "gtFine/train/ulm/ulm_000000_00000{}_gtFine_labelTrainIds.png", (0, 1, 13, 255),
         "Cityscapes (train ids)", "road", 255),
    ],
)  # fmt: skip
def test_other_known_sets_are_recognized(
    tmp_path: Path, image: str, label: str, values: tuple[int, ...], name: str, first: str,
    ignored: int,
) -> None:  # fmt: skip
    for number in range(4):
        write_image(tmp_path / image.format(number), number)
        write_png(tmp_path / label.format(number), labels(number, values))
    draft, description = drafted(tmp_path)
    assert str(draft.facts["recognized"]).startswith(name)
    assert description.space.classes[0] == first
    assert description.space.raw_to_train[ignored] == 255


def test_jpeg_files_in_the_place_of_labels(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / f"images/{number}.jpg", number)
        write_image(tmp_path / f"labels/{number}.jpg", number)
    with pytest.raises(InputError, match=r"labels/0\.jpg is where labels belong, and is a JPEG"):
        draft_description(tmp_path, tmp_path / "dataset.toml")


def test_folders_of_any_name_are_told_by_their_contents(tmp_path: Path) -> None:
    """CamVid as its authors publish it: colors, named in label_colors.txt."""
    colors = np.array([(64, 128, 64), (192, 0, 128), (0, 128, 192)], np.uint8)
    for number in range(4):
        write_image(tmp_path / f"701_StillsRaw_full/0001TP_{number}.png", number)
        path = tmp_path / f"LabeledApproved_full/0001TP_{number}_L.png"
        write_png(path, colors[labels(number)])
    names = "64 128 64\tAnimal\n192 0 128\t\tArchway\n0 128 192\tBicyclist\n"
    (tmp_path / "label_colors.txt").write_text(names)
    _, description = drafted(tmp_path)
    assert description.splits[0].labels is not None
    assert description.splits[0].labels.text == "LabeledApproved_full/{name}_L.png"
    assert description.space.classes == ("Animal", "Archway", "Bicyclist")


def test_train_ids_by_values_alone_are_to_be_checked(tmp_path: Path) -> None:
    names = [f"{n}.jpg" for n in range(4)]
    draft, description = drafted(pairs(tmp_path, *names, values=(*range(19), 255)))
    assert description.space.classes[13] == "car"
    assert any("by the values 0 to 18 and 255 alone" in remark for remark in draft.to_check)


def test_label_ids_by_values_alone_are_to_be_checked(tmp_path: Path) -> None:
    """A game's renders under names of their own; without one of the classes, it is a guess."""
    names = [f"{n}.jpg" for n in range(4)]
    ids = (0, *CITYSCAPES.trained_raw_ids)
    draft, description = drafted(pairs(tmp_path / "a", *names, values=ids))
    assert description.space.classes == CITYSCAPES.classes
    assert description.space.raw_to_train[26] == 13
    assert any("by the values 7, 8, 11, ..., 33 alone" in remark for remark in draft.to_check)
    draft, _ = drafted(pairs(tmp_path / "b", *names, values=ids[:-1]))
    assert "recognized" not in draft.facts


def test_ade20k_is_recognized_and_named_by_its_own_table(tmp_path: Path) -> None:
    for split, name in (("training", "train"), ("validation", "val")):
        for number in range(2):
            stem = f"{split}/ADE_{name}_{number + 1:08d}"
            write_image(tmp_path / f"images/{stem}.jpg")
            write_png(tmp_path / f"annotations/{stem}.png", labels(number, (0, 1, 2)))
    rows = (
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t1\t1\t1\twall\n2\t0.1\t1\t1\t1\tbuilding, x\n"
    )
    (tmp_path / "objectInfo150.txt").write_text(rows)
    _, description = drafted(tmp_path)
    assert description.space.classes == ("wall", "building")
    assert description.space.raw_to_train == {0: 255, 1: 0, 2: 1}


def test_how_often_and_where_a_value_is(tmp_path: Path) -> None:
    for number in range(4):
        write_image(tmp_path / f"images/{number}.jpg", number)
        values = np.zeros(SIZE, np.uint8)
        values[:8] = 1  # sky
        values[24:] = 2  # road
        values[16, 10:30] = 3
        write_png(tmp_path / f"labels/{number}.png", values)
    draft, _ = drafted(tmp_path)
    lines = draft.text.splitlines()
    assert "value = 1  # 25 % of the pixels, in 4 of 4 files, at the top" in lines
    assert "value = 2  # 25 % of the pixels, in 4 of 4 files, at the bottom" in lines
    assert "value = 3  # 1.3 % of the pixels, in 4 of 4 files, in thin lines" in lines
    assert any("the highest value 3 (1.3 %" in remark for remark in draft.to_check)


def test_background_around_something_is_not_in_the_middle(tmp_path: Path) -> None:
    for number in range(2):
        write_image(tmp_path / f"images/{number}.jpg", number)
        values = np.zeros(SIZE, np.uint8)
        values[8:24, 20:40] = 1
        write_png(tmp_path / f"labels/{number}.png", values)
    lines = drafted(tmp_path)[0].text.splitlines()
    assert any(
        line.startswith("value = 0") and line.endswith("all over the image") for line in lines
    )
    assert any(line.startswith("value = 1") and line.endswith("in the middle") for line in lines)


def test_a_contact_sheet_shows_each_value_in_its_images(tmp_path: Path) -> None:
    draft, _ = drafted(pairs(tmp_path, *(f"{n}.jpg" for n in range(4))))
    assert draft.seen is not None
    sheet = contact_sheet(draft.seen, draft.names, draft.images)
    assert sheet.mode == "RGB"
    assert sheet.height > 3 * 160
    pixels = np.asarray(sheet)
    assert (pixels == (255, 230, 0)).all(axis=2).sum() > 300, "outlines"


def test_classes_of_something_unknown(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('images = "{name}.png"\nsplits = ["a"]\nclasses_of = "citiscapes"')
    with pytest.raises(InputError, match=r'classes_of is .*did you mean "cityscapes"'):
        described_layout(str(path))
