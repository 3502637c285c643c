"""People clothing (documents 000 and 001): from the files of the archive to the report."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from every_objective import OBJECTIVES, steps_with
from people_clothing import write_names, write_people_clothing
from PIL import Image

from shells import Shell
from uda.data.class_range import range_facts
from uda.data.config import DataConfig, DomainConfig
from uda.data.datasets.clothes import CLOTHES58, CLOTHES58_CLASSES, CLOTHES59_CLASSES, voc_color
from uda.data.registry import list_dataset
from uda.data.start_checks import range_remarks
from uda.data.training import open_training_data
from uda.evaluation.evaluate import EvaluationConfig, protocol_line
from uda.experiment import Experiment, TrainConfig
from uda.experiments import load_preset
from uda.labels.spaces import LabelSpace
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.optim.schedules import learning_rate_factor
from uda.utilities.errors import InputError

# All that the presets' runs do, in small: sizes, lengths and widths.
SMALL = {
    "data.crop": "48,48", "data.source.size": "48,192", "data.workers": 0,
    "model.backbone": "resnet18", "model.backbone_weights": "none", "model.backbone_width": 12,
    "model.aspp_channels": 16, "model.decoder_channels": 16, "model.low_level_channels": 8,
    "train.steps": 80, "train.batch_size": 4, "train.log_every": 50, "train.snapshot_every": 80,
    "train.optimizer.lr": 0.05,
    "evaluation.every": 80, "evaluation.input_size": "48,192",
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_people_clothing(root)
    return root


def trained(shell: Shell, root: Path, preset: str) -> str:
    sets = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    return shell.run(
        "train_uda.py", "--preset", preset, "--device", "cpu", "--set", f"data.root={root}", *sets
    )


@pytest.mark.slow
@pytest.mark.parametrize("space", [CLOTHES59_CLASSES, CLOTHES58_CLASSES], ids=lambda s: s.name)
def test_the_preset_trains_and_reports_as_mmsegmentation_does(
    shell: Shell, root: Path, space: LabelSpace
) -> None:
    said = trained(shell, root, f"{space.name}_deeplabv3plus_r50")
    assert "supervision      ground truth (16 images) (of the target)" in said
    assert "16 source images with labels, 4 images to evaluate" in said
    snapshot = f"snapshots/{space.name}_deeplabv3plus_r50/{space.name.upper()}_80.pth"
    report = shell.run(
        "eval_single.py", "--restore-from", snapshot, "--device", "cpu", "--workers", "0",
        "--format", "mmseg", "--json", "scores.json",
    )  # fmt: skip
    how = "input 192x48, shape kept, bilinear without antialiasing; scale 1"
    assert f"own settings on {space.name} val: {how}" in report
    assert "supervision: ground truth (16 images)" in report
    box = report[report.index("per class results:") :].splitlines()
    assert re.fullmatch(r"\+-+\+-+\+-+\+", box[2])
    assert [cell.strip() for cell in box[3].split("|")[1:-1]] == ["Class", "IoU", "Acc"]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in box[5:-2]]
    assert tuple(name for name, *_ in rows) == space.classes
    assert all(re.fullmatch(r"nan|\d+\.\d{1,2}", value) for _, *values in rows for value in values)
    figures = re.fullmatch(r"aAcc: (\S+)  mIoU: (\S+)  mAcc: (\S+)", box[-1])
    assert figures is not None
    scores = json.loads((shell.cwd / "scores.json").read_text())
    assert float(figures[2]) == pytest.approx(scores["miou"], abs=0.01)
    assert "name_warning" not in scores
    assert float(figures[1]) > 25, "twice as good as chance, at least"


def learning_rate(train: TrainConfig, step: int) -> float:
    return train.optimizer.lr * learning_rate_factor(
        step, steps=train.steps, power=train.power, final=train.final_lr_factor
    )


def test_the_recipe_is_mmsegmentations() -> None:
    experiment = load_preset("clothes59_deeplabv3plus_r50")
    assert protocol_line(experiment.evaluation) == (
        "mmsegmentation on clothes59 val: input 2048x512, shape kept, bilinear without "
        "antialiasing; scale 1; no flip; labels at "
        "stored resolution"
    )
    data, train, model = experiment.data, experiment.train, experiment.model
    assert data.source is not None
    assert data.target is None
    assert (data.source.crop_max_share, data.source.policy) == (0.75, "photometric_distortion")
    rates = [learning_rate(train, step) for step in (0, 80_000, 160_000)]
    assert rates == pytest.approx([0.01, 1e-4 + (0.01 - 1e-4) * 0.5**0.9, 1e-4])
    assert isinstance(model, DeepLabV3PlusConfig)
    assert (model.output_stride, model.aspp_rates, model.separable) == (8, (), True)
    assert experiment.evaluation.every == train.snapshot_every == 16_000


# --- the files


def test_the_split_is_drawn_once_for_all(root: Path, tmp_path: Path) -> None:
    for name in ("clothes59", "clothes58"):
        train, val = (list_dataset(root, name, part, labeled=True) for part in ("train", "val"))
        assert (len(train), len(val)) == (16, 4)
        stems = [sample.stem for sample in train + val]
        assert sorted(stems) == [f"img_{index:04d}" for index in range(1, 21)]
        assert stems[:16] == sorted(stems[:16])
        for sample in train + val:
            assert sample.labels is not None
            assert sample.image.parts[-3:-1] == ("png_images", "IMAGES")
            assert sample.labels.parts[-3:] == ("png_masks", "MASKS", f"seg_{sample.stem[4:]}.png")
    again = [s.stem for s in list_dataset(root, "clothes59", "val", labeled=False)]
    assert again == [s.stem for s in list_dataset(root, "clothes59", "val", labeled=True)]
    assert again != [f"img_{index:04d}" for index in range(17, 21)], "drawn, not cut off"


def test_an_unlabeled_target_opens_no_label_folder(tmp_path: Path) -> None:
    folder = write_people_clothing(tmp_path)
    for path in (folder / "png_masks").rglob("*.png"):
        path.unlink()
    (folder / "png_masks/MASKS").rmdir()
    (folder / "labels.csv").unlink()
    assert len(list_dataset(tmp_path, "clothes59", "train", labeled=False)) == 16


def test_labels_csv_has_to_name_the_same_classes(tmp_path: Path) -> None:
    folder = write_people_clothing(tmp_path, 10)
    ours = CLOTHES59_CLASSES.classes

    def complaint() -> str:
        with pytest.raises(InputError) as caught:
            list_dataset(tmp_path, "clothes59", "train", labeled=True)
        message = str(caught.value)
        assert "\n" not in message
        return message

    def fine() -> bool:
        return len(list_dataset(tmp_path, "clothes58", "train", labeled=True)) == 8

    write_names(folder, ours)
    assert fine()
    (folder / "labels.csv").write_text("\n".join(["null", *ours[1:]]))  # neither ids nor header
    assert fine()
    (folder / "labels.csv").unlink()
    assert fine()
    write_names(folder, (*ours[1:], "zebra"))
    assert "class 0 is called 'accessories', in clothes59 it is 'background'" in complaint()
    write_names(folder, (*ours[:5], ours[6], ours[5], *ours[7:]))
    assert "class 5 is called 'bodysuit', in clothes59 it is 'blouse'" in complaint()
    write_names(folder, ours[:-1])
    assert "names 58 classes; clothes59 has 59, from background to wedges" in complaint()


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    folder = write_people_clothing(tmp_path, 10)
    missing = list_dataset(tmp_path, "clothes59", "val", labeled=False)[1].stem
    (folder / "png_masks/MASKS" / missing.replace("img", "seg")).with_suffix(".png").unlink()
    with pytest.raises(
        InputError, match=rf"1 of 2 images have no label, the first is \S+{missing}"
    ):
        list_dataset(tmp_path, "clothes59", "val", labeled=True)
    assert len(list_dataset(tmp_path, "clothes59", "train", labeled=True)) == 8


# --- the classes


def test_the_classes_of_the_reports() -> None:
    """Document 000 printed them, 001 with background for null; ids by D.5's table."""
    ids = {"background": 0, "accessories": 1, "gloves": 18, "hair": 19, "skin": 41, "wedges": 58}
    assert {CLOTHES59_CLASSES.classes[index]: index for index in ids.values()} == ids
    assert len(set(CLOTHES59_CLASSES.palette)) == 59
    # As in VOC's color map: 1 is dark red, 15 (its person) is this.
    assert [voc_color(index) for index in (0, 1, 15)] == [(0, 0, 0), (128, 0, 0), (192, 128, 128)]


def test_clothes58_moves_names_and_ids_together() -> None:
    raw = np.array([[0, 1, 19, 58]], np.uint8)
    train = CLOTHES58_CLASSES.to_train_ids(raw, "x")
    assert train.tolist() == [[255, 0, 18, 57]]
    names = [CLOTHES58_CLASSES.classes[index] for index in train[0, 1:]]
    assert names == ["accessories", "hair", "wedges"]
    colors = [CLOTHES58_CLASSES.palette[index] for index in train[0, 1:]]
    assert colors == [voc_color(1), voc_color(19), voc_color(58)]
    assert CLOTHES58.label_space is CLOTHES58_CLASSES


# --- names against labels, on disk


def test_an_id_that_no_class_has_is_refused_where_a_run_starts(tmp_path: Path) -> None:
    folder = write_people_clothing(tmp_path)
    Image.fromarray(np.full((72, 48), 59, np.uint8)).save(folder / "png_masks/MASKS/seg_0001.png")
    for name in ("clothes59", "clothes58"):
        data = DataConfig(root=str(tmp_path), source=DomainConfig(datasets=(name,)))
        with pytest.raises(InputError, match=rf"values 59 are outside the raw ids of {name} "):
            open_training_data(data, seed=0, evaluated=name)


def whole_list(folder: Path, *, first: int = 0, last: int = 58) -> None:
    """Every label file holds the ids of `first` to `last`, in stripes."""
    for path in (folder / "png_masks/MASKS").glob("*.png"):
        stripes = np.linspace(first, last, 72).round().astype(np.uint8)
        Image.fromarray(np.repeat(stripes[:, None], 48, axis=1)).save(path)


def remarks(root: Path, dataset: str = "clothes59") -> list[str]:
    data = DataConfig(root=str(root), source=DomainConfig(datasets=(dataset,)))
    return range_remarks(data, root, dataset=dataset, split="val")


def test_a_name_too_many_is_remarked_where_a_run_starts(tmp_path: Path) -> None:
    """000's mystery: 59 names, and labels that stop at 57 because background was taken out."""
    folder = write_people_clothing(tmp_path, 50)
    assert remarks(tmp_path) == [], "a long list has gaps everywhere"
    whole_list(folder)
    assert remarks(tmp_path) == []
    whole_list(folder, last=57)
    said = remarks(tmp_path)
    assert [line.split(":")[0] for line in said] == ["clothes59 val", "clothes59 train"]
    assert "the classes in 16 label files go from background to watch" in said[1]
    assert "the 59 names of clothes59 from background to wedges" in said[1]
    whole_list(folder, first=1)
    assert "label files go from accessories to wedges" in remarks(tmp_path)[0]
    assert remarks(tmp_path, "clothes58") == []
    samples = list_dataset(tmp_path, "clothes59", "val", labeled=True)
    assert list(range_facts(samples)) == ["class_range_warning"]


def test_few_files_prove_nothing(tmp_path: Path) -> None:
    whole_list(write_people_clothing(tmp_path, 7), last=57)
    assert remarks(tmp_path) == []


def test_check_data_looks_at_all_files(shell: Shell, tmp_path: Path) -> None:
    """Both splits share folders, which is no trouble; a class list that is too long is."""
    folder = write_people_clothing(tmp_path / "root", 125)
    whole_list(folder)
    arguments = ("scripts/check_data.py", "--data-root", str(tmp_path / "root"))
    code, said = shell.ended(*arguments)
    assert code == 1, "it has 125 images, not 1000"
    assert "class range" not in said
    assert "not read" not in said
    assert "no image" not in said
    assert "problem: clothes59 train: 100 images; the data set has 800" in said
    assert "clothes58" not in said, "the same files"
    preset = ("--preset", "clothes58_deeplabv3plus_r50")
    said = shell.ended(*arguments, *preset)[1]
    assert "clothes58 train" in said
    assert "smaller than" not in said, "images that keep their shape have no one size"
    whole_list(folder, last=57)
    said = shell.ended(*arguments)[1]
    assert "note: clothes59 train: the classes in 100 label files go from background to wa" in said


# --- a domain adaptation task in waiting


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_takes_a_step(name: str, root: Path, tmp_path: Path) -> None:
    data = DataConfig(
        root=str(root),
        source=DomainConfig(datasets=("clothes59",), size=(48, 192), keep_ratio=True),
        target=DomainConfig(datasets=("clothes59",), splits=("val",), size=(72, 48)),
        crop=(48, 48),
    )
    experiment = Experiment(
        data=data,
        train=TrainConfig(steps=1, batch_size=2),
        evaluation=EvaluationConfig(dataset="cityscapes"),
    )
    steps_with(name, experiment, tmp_path)
