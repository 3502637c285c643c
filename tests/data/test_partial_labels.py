"""Labels of some of the classes only, and labels in one channel of a picture, as SYNTHIA's are."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from factories import noise, write_png
from street_sets import write_deep
from tiny_runs import CPU, metrics, tiny_preset
from uda.checkpoints.snapshots import load
from uda.commands import evaluate
from uda.data.class_range import cut_off_warning
from uda.data.described.file import description_of
from uda.data.files import decode, read_image
from uda.data.label_files import read_raw_labels, read_train_ids
from uda.data.registry import list_dataset
from uda.data.training import open_training_data
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX, Coding, LabelSpace
from uda.training.loop import train
from uda.utilities.errors import InputError

RED = Coding(channel="red")
LACKING = ("terrain", "truck", "train")  # of Cityscapes' classes, in SYNTHIA
HEAD = 'images = "{name}.png"\nlabels = "{name}_labels.png"\nsplits = ["train"]\n'


def with_instances(labels: npt.NDArray[np.integer], channels: int = 3) -> npt.NDArray[np.int64]:
    """The labels in the first channel, numbers of instances in the second."""
    picture = np.zeros((*labels.shape, channels), np.int64)
    picture[..., 0] = labels
    picture[..., 1] = np.arange(labels.size).reshape(labels.shape) * 97
    return picture


@pytest.mark.parametrize("channels", [3, 4])
def test_the_first_of_three_channels_of_16_bits(tmp_path: Path, channels: int) -> None:
    labels = np.random.default_rng(0).integers(0, 256, (9, 16))
    path = write_deep(tmp_path / "labels.png", with_instances(labels, channels))
    assert np.array_equal(np.asarray(read_raw_labels(path, (9, 16), coding=RED)), labels)


def test_a_channel_of_8_bits(tmp_path: Path) -> None:
    picture = noise(0)
    path = write_png(tmp_path / "labels.png", picture)
    for place, channel in enumerate(("red", "green", "blue")):
        found = read_raw_labels(path, coding=Coding(channel=channel))
        assert np.array_equal(np.asarray(found), picture[..., place])


def test_a_value_that_no_label_has_is_refused(tmp_path: Path) -> None:
    labels = np.full((2, 2), 7)
    labels[1, 1] = 263
    path = write_deep(tmp_path / "labels.png", with_instances(labels))
    with pytest.raises(InputError, match=r"labels\.png: the value 263 is not a label id"):
        read_raw_labels(path, coding=RED)
    gray = write_png(tmp_path / "gray.png", np.full((2, 2), 7, np.uint8))
    with pytest.raises(InputError, match="mode L has no channel red"):
        read_raw_labels(gray, coding=RED)


def test_16_bits_are_never_cut_to_8_in_silence(tmp_path: Path) -> None:
    path = write_deep(tmp_path / "picture.png", with_instances(np.full((2, 2), 7)))
    for read in (read_raw_labels, decode):
        with pytest.raises(InputError, match=r'16 bits per channel.* label_channel = "red"'):
            read(path)
    with pytest.raises(InputError, match=r"more than 8 bits.* image_range = \[0, 4095\]"):
        read_image(path)


# --- classes without pixels


def synthia(*, lacking: tuple[str, ...] = LACKING) -> LabelSpace:
    kept = [name for name in CITYSCAPES.classes if name not in lacking]
    raw = {place + 1: CITYSCAPES.classes.index(name) for place, name in enumerate(kept)}
    return LabelSpace("synthia", CITYSCAPES.classes, CITYSCAPES.report_names, CITYSCAPES.palette,
                      {0: IGNORE_INDEX} | raw)  # fmt: skip


def test_a_label_space_may_have_classes_without_pixels() -> None:
    space = synthia()
    assert [space.classes[train_id] for train_id in space.not_scored] == list(LACKING)
    assert len(space.labeled) == 16
    raw = np.arange(17, dtype=np.uint8)[None]
    train_ids = space.to_train_ids(raw, "file")
    assert set(train_ids.ravel().tolist()) == {*space.labeled, IGNORE_INDEX}
    assert np.array_equal(space.to_raw_ids(train_ids, ignored=0), raw)
    assert space.to_raw_ids(np.full((1, 1), 9, np.uint8), ignored=0).tolist() == [[0]]
    with pytest.raises(InputError, match="mean no class"):
        synthia(lacking=CITYSCAPES.classes)


def test_classes_without_pixels_do_not_shift_names() -> None:
    space = synthia()
    assert cut_off_warning(space.labeled, space, files=16) == ""
    assert "from road to motorcycle" in cut_off_warning(space.labeled[:-1], space, files=16)


def test_a_description_names_classes_without_pixels() -> None:
    classes = '[[classes]]\nname = "road"\nvalue = 3\n[[classes]]\nname = "train"\n'
    space = description_of(f"{HEAD}{classes}values = []\n", Path("own.toml")).space
    assert (space.classes, space.labeled, space.raw_to_train) == (("road", "train"), (0,), {3: 0})
    with pytest.raises(InputError, match=r"write values = \[\] if no label file"):
        description_of(f"{HEAD}{classes}", Path("own.toml"))
    with pytest.raises(InputError, match="no class has a value"):
        description_of(f'{HEAD}[[classes]]\nname = "a"\nvalues = []\n', Path("own.toml"))
    colors = classes.replace("value = 3", "color = [1, 2, 3]")
    space = description_of(f"{HEAD}{colors}colors = []\n", Path("own.toml")).space
    assert space.raw_colors == ((1, 2, 3),)


@pytest.mark.parametrize("channel", ["alpha", "red"])
def test_a_channel_in_a_description(channel: str, tmp_path: Path) -> None:
    coded = "value = 3" if channel == "alpha" else "color = [1, 2, 3]"
    text = f'{HEAD}label_channel = "{channel}"\n[[classes]]\nname = "road"\n{coded}\n'
    with pytest.raises(InputError, match="allowed: red, green, blue, for label files of colors"):
        description_of(text, tmp_path / "own.toml")


@pytest.fixture
def described(tmp_path: Path, toy_root: Path) -> Path:
    """SYNTHIA's form of the toy city's source: 16 of 19 classes, in a channel of 16 bits."""
    kept = [name for name in CITYSCAPES.classes if name not in LACKING]
    for sample in list_dataset(toy_root, "gta5", "train", labeled=True):
        assert sample.labels is not None
        train_ids = read_train_ids(sample.labels, (64, 128), CITYSCAPES)
        values = np.zeros(256, np.int64)
        for place, name in enumerate(kept):
            values[CITYSCAPES.classes.index(name)] = place + 1
        write_deep(tmp_path / f"labels/{sample.stem}.png", with_instances(values[train_ids]))
    lines = [f"root = {json.dumps(str(tmp_path))}", 'images = "images/{name}.png"',
             'labels = "labels/{name}.png"', 'splits = ["train"]', "ignore = [0]",
             'label_channel = "red"', 'domain = "source"']  # fmt: skip
    (tmp_path / "images").symlink_to(toy_root / "GTA5/images")
    for name in CITYSCAPES.classes:
        values_of = f"value = {kept.index(name) + 1}" if name in kept else "values = []"
        lines += ["[[classes]]", f'name = "{name}"', values_of]
    (tmp_path / "my_synthia.toml").write_text("\n".join(lines))
    return tmp_path / "my_synthia.toml"


def test_from_16_classes_to_scores(
    described: Path, toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = tiny_preset("toy_class_mix", toy_root, steps=2)
    assert experiment.data.source is not None
    experiment.data.source.datasets = (str(described),)
    scores = train(experiment, tmp_path / "run", preset="tiny", device=CPU)
    assert [CITYSCAPES.classes[train_id] for train_id in scores.unscored] == list(LACKING)
    kept = [iou for place, iou in enumerate(scores.iou) if place not in scores.unscored]
    assert scores.miou == pytest.approx(np.nanmean(kept))
    assert load(tmp_path / "run/my_synthia_2.pth").label_space.labeled == synthia().labeled
    evaluate.main(["--restore-from", str(tmp_path / "run/my_synthia_2.pth"), "--device", "cpu"])
    assert "not scored: terrain, truck, train" in capsys.readouterr().out


SETS = ("miou16_subset", "miou13_subset", "miou16_restricted")


def test_what_validation_prints_stores_and_selects_by_is_not_the_mean_of_19(
    described: Path, toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = tiny_preset("toy_class_mix", toy_root, steps=2)
    assert experiment.data.source is not None
    experiment.data.source.datasets = (str(described),)
    experiment.evaluation.sets = (*SETS, "miou19")
    scores = train(experiment, tmp_path / "run", preset="tiny", device=CPU)
    stored = load(tmp_path / "run/my_synthia_2.pth").scores
    assert stored is not None
    values = {name: fact["value"] for name, fact in stored["sets"].items()}
    assert stored["miou"] == pytest.approx(100 * scores.miou, abs=1e-4)
    assert values["miou16_subset"] == stored["miou"]
    assert len({stored["miou"], values["miou13_subset"], values["miou19"]}) == 3
    assert stored["not_scored"] == stored["absent_from_training_labels"] == ", ".join(LACKING)
    assert "among these 16 only" in stored["sets"]["miou16_restricted"]["definition"]
    shown = capsys.readouterr().out
    assert f"step 2: mIoU {100 * scores.miou:.2f}, over 16 of 19 classes (supervision" in shown
    for name in SETS:
        assert f"step 2: sets {name}: {values[name]} (mean IoU over" in shown
    (line,) = [line for line in metrics(tmp_path / "run") if "miou" in line]
    assert line["set/miou13_subset"] == pytest.approx(values["miou13_subset"] / 100)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert {row["miou"] for row in summary["selection"]} == {stored["miou"]}
    evaluate.main(["--restore-from", str(tmp_path / "run/my_synthia_2.pth"), "--device", "cpu"])
    again = capsys.readouterr().out
    assert f"sets miou16 restricted: {values['miou16_restricted']}" in again.replace("_", " ")
    assert "absent from training labels: terrain, truck, train" in again


def test_a_set_of_classes_that_there_is_not_is_refused_before_the_first_step(
    toy_root: Path, tmp_path: Path
) -> None:
    experiment = tiny_preset("toy_class_mix", toy_root, steps=2)
    experiment.evaluation.sets = ("miou16",)
    with pytest.raises(InputError, match="no set of classes 'miou16'"):
        train(experiment, tmp_path / "run", preset="tiny", device=CPU)
    assert not (tmp_path / "run").exists()


def test_a_class_that_one_of_several_sources_has_is_scored(described: Path, toy_root: Path) -> None:
    experiment = tiny_preset("toy_class_mix", toy_root, steps=2)
    assert experiment.data.source is not None
    experiment.data.source.datasets = (str(described), "gta5")
    experiment.data.source.weights = (1.0, 1.0)
    assert open_training_data(experiment.data, seed=0, evaluated="cityscapes").label_space == (
        CITYSCAPES
    )
