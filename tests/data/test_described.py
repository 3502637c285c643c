"""Data sets described by a TOML file: what is read, what is listed, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factories import noise, write_png
from tiny_runs import REPOSITORY
from uda.data.described.file import description_of, read_description
from uda.data.described.layouts import described_layout
from uda.data.label_files import read_raw_labels, read_train_ids
from uda.data.patterns import Pattern, name_of
from uda.data.registry import layout_named, list_dataset
from uda.labels.spaces import IGNORE_INDEX, LabelSpace
from uda.utilities.errors import InputError

CLASSES = """
[[classes]]
name = "road"
values = [7, 8]

[[classes]]
name = "car"
value = 26
color = [0, 0, 142]
"""
COLORED = """
[[classes]]
name = "road"
color = [128, 64, 128]

[[classes]]
name = "car"
colors = [[0, 0, 142], [0, 0, 70]]
"""
HEAD = """images = "images/{split}/{name}.jpg"
labels = "labels/{split}/{name}_mask.png"
splits = ["train", "val"]
"""
PLAIN = HEAD + "ignore = [0]\n" + CLASSES


def written(folder: Path, text: str, name: str = "own.toml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def images(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        write_png(folder / name, noise(number))


def names(path: Path, split: str, *, labeled: bool = False) -> list[str]:
    return [s.stem for s in list_dataset(Path(), str(path), split, labeled=labeled)]


def refusal(text: str) -> str:
    """What is said of a file of this content, after its path."""
    with pytest.raises(InputError) as error:
        description_of(text, Path("own.toml"))
    message = str(error.value)
    assert message.startswith("own.toml")
    assert "\n" not in message
    return message.removeprefix("own.toml")


# --- what the file says


def test_the_example_of_the_documentation_is_read() -> None:
    text = (REPOSITORY / "docs/own_data.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    found = description_of(example, Path("somewhere/example.toml"))
    assert found.name == "my_city"
    assert [split.name for split in found.splits] == ["train", "val", "test", "new"]
    assert found.space.classes == ("background", "left hand", "right hand")
    assert found.space.raw_to_train == {0: 0, 4: 0, 1: 1, 2: 2, 255: IGNORE_INDEX}
    assert found.space.mirror_swaps == ((1, 2),)
    assert found.space.unscored == (0,)
    assert found.root == Path("somewhere").absolute()


def test_values_become_train_ids_in_the_order_of_the_classes() -> None:
    space = description_of(PLAIN, Path("own.toml")).space
    raw = np.array([[7, 8, 26, 0]], np.uint8)
    assert space.to_train_ids(raw, "file").tolist() == [[0, 0, 1, IGNORE_INDEX]]
    assert space.palette[1] == (0, 0, 142)
    assert space.name == "own"
    with pytest.raises(InputError, match="label values 9 are outside the raw ids of own"):
        space.to_train_ids(np.array([[9]], np.uint8), "file")


def colored_space() -> LabelSpace:
    text = HEAD + "ignore_colors = [[0, 0, 0]]\n" + COLORED
    return description_of(text, Path("own.toml")).space


def test_label_files_of_colors(tmp_path: Path) -> None:
    """RGB, RGBA and palettes; a color that is of no class is counted and refused."""
    space = colored_space()
    pixels = np.array([[[128, 64, 128], [0, 0, 70]], [[0, 0, 142], [0, 0, 0]]], np.uint8)
    expected = [[0, 1], [1, IGNORE_INDEX]]
    path = write_png(tmp_path / "rgb.png", pixels)
    assert read_train_ids(path, (2, 2), space).tolist() == expected
    Image.fromarray(pixels).convert("RGBA").save(tmp_path / "rgba.png")
    assert read_train_ids(tmp_path / "rgba.png", (2, 2), space).tolist() == expected
    palette = Image.fromarray(np.array([[5, 6], [7, 8]], np.uint8))
    palette.putpalette([0] * 15 + pixels.ravel().tolist())
    palette.save(tmp_path / "palette.png")
    assert read_train_ids(tmp_path / "palette.png", (2, 2), space).tolist() == expected
    palette.save(tmp_path / "palette.png", transparency=bytes([0, 100, 200]))
    assert read_train_ids(tmp_path / "palette.png", (2, 2), space).tolist() == expected
    write_png(path, np.array([[[1, 2, 3], [1, 2, 3]], [[0, 0, 70], [9, 9, 9]]], np.uint8))
    with pytest.raises(InputError, match=r"3 pixels have 2 colors .* the first is \[1, 2, 3\]"):
        read_train_ids(path, (2, 2), space)


def test_sixteen_bits_with_small_values(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.array([[7, 255]], np.uint16)).save(path)
    assert np.asarray(read_raw_labels(path)).tolist() == [[7, 255]]
    Image.fromarray(np.array([[7, 256]], np.uint16)).save(path)
    with pytest.raises(InputError, match="the value 256 is not a label id"):
        read_raw_labels(path)


def test_reduce_zero_label_takes_name_and_value_together() -> None:
    text = HEAD + 'reduce_zero_label = true\n[[classes]]\nname = "other"\nvalue = 0\n' + CLASSES
    space = description_of(text, Path("own.toml")).space
    assert space.classes == ("road", "car")
    raw = np.array([[0, 7, 26]], np.uint8)
    assert space.to_train_ids(raw, "file").tolist() == [[IGNORE_INDEX, 0, 1]]
    assert "but road has another" in refusal(HEAD + "reduce_zero_label = true\n" + CLASSES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("images = [", "cannot be read as TOML"),
        (PLAIN.replace("ignore", "ignroe"), "no key 'ignroe'; did you mean \"ignore\"?"),
        (PLAIN.replace("value = 26", "valeu = 26"), "classes.1 has no key 'valeu'; did you mean"),
        (PLAIN.replace("value = 26", "value = true"), "classes.1.value is True; allowed: a whole"),
        (PLAIN.replace("value = 26", "value = 70000"), "class car has the value 70000; allow"),
        (PLAIN.replace("26", "8"), "value 8 is of class road and of class car"),
        (PLAIN.replace("[0]", "[7]"), "value 7 is of class road and of ignore"),
        (PLAIN.replace('"car"', '"road"'), "two classes are called 'road'"),
        (PLAIN.replace("value = 26\n", ""), "class car has no value, as others have"),
        (PLAIN.replace("value = 26", "value = 26\nvalues = [1]"), "(car) has value and values"),
        (PLAIN.replace("[0, 0, 142]", "[0, 0]"), "class car has the color [0, 0]; allowed: [R, G"),
        (HEAD + "ignore = [0]\n" + COLORED, "ignore is for values, but no class has one"),
        (HEAD + COLORED.replace("0, 0, 70", "128, 64, 128"), "color (128, 64, 128) is of class ro"),
        ('mirror_swaps = [["road", "cat"]]\n' + PLAIN, "no class 'cat'; did you mean \"car\"?"),
        ('mirror_swaps = [["road", "road"]]\n' + PLAIN, "allowed: pairs of two classes"),
        (PLAIN.replace('["train", "val"]', "[]"), "splits is empty"),
        (PLAIN.replace('"val"', '"train"'), "splits names one twice"),
        (PLAIN.replace("{split}/", ""), "has the images of the other splits"),
        (PLAIN.replace("{name}_mask", "*_mask"), "must have the wildcards of images"),
        (PLAIN.replace("{name}.jpg", "one.jpg"), "it needs {name} once"),
        (PLAIN.replace('"images/', '"/images/'), "allowed: a path below root"),
        (PLAIN.replace('"images/', '"../images/'), "allowed: a path below root"),
        (PLAIN.replace('["train", "val"]', '{train = {folder = "../{name}"}}'), "without wild"),
        (PLAIN.replace('["train", "val"]', '{train = {folder = "/etc"}}'), "a folder below root"),
        (PLAIN.replace('"val"', '"va*"'), "{split} stands for 'va*'; allowed: a folder below root"),
        ('name = "a/b"\n' + PLAIN, "name is 'a/b'; allowed: a name without"),
        ("seed = 1\n" + PLAIN, "seed is given, but no split has a share"),
        (PLAIN.replace('["train", "val"]', "{train = {shares = 1.0}}"), 'did you mean "share"?'),
        (PLAIN.replace('["train", "val"]', "{train = {share = 0.9}}"), "remove {split}"),
        (PLAIN + "scored = false\n[[classes]]\nname = 5", "classes.2.name is 5; allowed: text"),
        (HEAD, "has no classes"),
        (PLAIN.replace("values", "scored=false\nvalues") + "scored=false", "no class is scored"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    assert said in refusal(text)


def test_a_name_of_this_library_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, 'name = "gta5"\n' + PLAIN)
    with pytest.raises(InputError, match="name is gta5, which is a data set of this library"):
        layout_named(str(path))
    with pytest.raises(InputError, match=r"nowhere\.toml does not exist"):
        layout_named(str(tmp_path / "nowhere.toml"))


def test_a_path_is_looked_up_below_uda_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "root/city", PLAIN)
    monkeypatch.setenv("UDA_DATA", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    assert described_layout("city/own.toml").folder == str(tmp_path / "root/city")


# --- which samples there are


@pytest.mark.parametrize(
    ("pattern", "path", "values"),
    [
        ("a/{name}.png", "a/b/c.png", ("b/c",)),
        ("a/*.png", "a/b/c.png", None),
        ("a/**/*.png", "a/c.png", ("", "c")),
        ("a/**/*.png", "a/b/d/c.png", ("b/d/", "c")),
        ("a/?.png", "a/cc.png", None),
        ("a.b/{name}.png", "axb/c.png", None),
        ("{split}/{name}.png", "val/c.png", None),
    ],
)
def test_patterns(pattern: str, path: str, values: tuple[str, ...] | None) -> None:
    found = Pattern(pattern, "images")
    assert found.match(path, "train") == values
    if values is not None:
        assert found.write(values, "train") == path
        assert name_of(values) == "/".join(filter(None, (v.strip("/") for v in values)))


def test_samples_are_sorted_and_paired_by_what_the_wildcards_stand_for(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN)
    images(tmp_path / "images", "train/b/2.jpg", "train/b/1.jpg", "train/a.jpg", "val/a.jpg",
           "train/._a.jpg", "train/note.png")  # fmt: skip
    labels = ("train/b/2_mask.png", "train/b/1_mask.png", "train/a_mask.png", "train/odd_mask.png")
    images(tmp_path / "labels", *labels, "val/other_mask.png")
    assert names(path, "train", labeled=True) == ["train__a", "train__b__1", "train__b__2"]
    samples = list_dataset(Path(), str(path), "train", labeled=True)
    assert samples[1].image == tmp_path / "images/train/b/1.jpg"
    assert samples[1].labels == tmp_path / "labels/train/b/1_mask.png"
    assert samples[0].space == read_description(path).space
    with pytest.raises(InputError, match=r"1 of 1 images have no label, the first is a; expected"):
        names(path, "val", labeled=True)
    assert names(path, "val") == ["val__a"]


def test_unlabeled_samples_need_no_folder_of_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is asked of it: the folder's name is made up in no call at all."""
    path = written(tmp_path, PLAIN)
    images(tmp_path / "images", "train/a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels").chmod(0)
    monkeypatch.setattr(Pattern, "write", lambda *_: pytest.fail("a label's path was made"))
    assert names(path, "train") == ["train__a"]


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    both = '["images/{split}/{name}.jpg", "images/{split}/{name}.png"]'
    path = written(tmp_path, PLAIN.replace('"images/{split}/{name}.jpg"', both))
    images(tmp_path / "images", "train/a.jpg", "train/b.png")
    assert names(path, "train") == ["train__a", "train__b"]
    images(tmp_path / "images", "train/a.png")
    with pytest.raises(InputError, match=r"train/a\.jpg and images/train/a\.png are both called a"):
        names(path, "train")


def test_labels_beside_their_images_are_no_images(tmp_path: Path) -> None:
    text = PLAIN.replace("images/{split}/{name}.jpg", "{split}/{name}.png")
    path = written(tmp_path, text.replace("labels/{split}", "{split}"))
    images(tmp_path / "train", "a.png", "a_mask.png", "b.png", "b_mask.png")
    assert names(path, "train", labeled=True) == ["train__a", "train__b"]


def test_splits_by_lists_and_by_shares(tmp_path: Path) -> None:
    images(tmp_path, *(f"images/{number}.jpg" for number in range(10)))
    base = 'images = "images/{name}.jpg"\n'
    (tmp_path / "train.txt").write_text("7\n2\n\n")
    listed = written(tmp_path, f'{base}[splits]\ntrain = {{list = "train.txt"}}\n{CLASSES}')
    assert names(listed, "train") == ["2", "7"]
    (tmp_path / "train.txt").write_text("2\n77\n")
    with pytest.raises(InputError, match="no image called '77'"):
        names(listed, "train")
    (tmp_path / "train.txt").write_text("2\n2\n")
    with pytest.raises(InputError, match="lists '2' twice"):
        names(listed, "train")
    shares = "[splits]\ntrain = {share = 0.6}\nval = {share = 0.2}\n"
    drawn = {
        seed: [names(written(tmp_path, f"{base}seed = {seed}\n{shares}{CLASSES}"), split)
               for split in ("train", "val")]
        for seed in (0, 1)
    }  # fmt: skip
    assert [len(part) for part in drawn[0]] == [6, 2]
    assert not set(drawn[0][0]) & set(drawn[0][1])
    assert drawn[0] != drawn[1]
    assert drawn[0][0] == sorted(drawn[0][0])
    both = '[splits]\ntrain = {share = 0.6}\nval = {list = "train.txt"}\n'
    assert "could overlap: use one kind" in refusal(base + both + CLASSES)


def test_one_split_may_have_all_images_and_no_labels(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "deep/b.jpg")
    path = written(tmp_path, f'images = "{{name}}.jpg"\nsplits = ["train"]\n{CLASSES}')
    assert names(path, "train") == ["a", "deep__b"]
    with pytest.raises(InputError, match="split train has no labels by its description"):
        names(path, "train", labeled=True)
