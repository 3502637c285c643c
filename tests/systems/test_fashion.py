"""Fashionpedia and iMaterialist from raw files to the report: label maps, training, evaluation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from every_objective import OBJECTIVES, steps_with
from PIL import Image

from fashion_files import write_coco, write_images, write_kaggle
from shells import Shell
from uda.checkpoints.snapshots import load
from uda.commands.data import prepare_fashionpedia
from uda.data.config import DataConfig, DomainConfig
from uda.data.datasets.fashion import FASHION5
from uda.data.files import read_header
from uda.data.registry import list_dataset
from uda.data.samples import seeded_split
from uda.evaluation.soft_scores import soft_scores, soft_sums
from uda.experiments import load_preset
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.utilities.errors import InputError

PRESET = "fashion5_deeplabv3plus_inception_resnet_v2"
COUNT, SIZE = 20, (72, 56)  # images, pixels (height, width)
SHORT: dict[str, object] = {
    "data.workers": 0, "train.steps": 3, "train.batch_size": 2, "train.log_every": 1,
    "train.snapshot_every": 3, "train.resume_every": 3, "evaluation.every": 3,
    "train.precision": "float32", "model.backbone_weights": "none",
}  # fmt: skip
SMALL: dict[str, object] = {
    "data.crop": "64,64", "data.source.size": "64,64",
    "model.backbone": "timm/mobilenetv3_small_050", "model.aspp_channels": 8,
    "model.low_level_channels": 4, "model.decoder_channels": 8,
    "evaluation.input_size": "64,64", "evaluation.label_size": "64,64",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data/`, prepared from Fashionpedia's JSON, and `kaggle/`, from the tables of two years; of
    the same pictures. Only read it."""
    folder = tmp_path_factory.mktemp("fashion")
    drawn = write_images(folder / "train", COUNT, SIZE)
    write_coco(folder / "train.json", drawn, SIZE)
    half = COUNT // 2
    write_kaggle(folder / "2019.csv", dict(list(drawn.items())[:half]), SIZE)
    write_kaggle(folder / "2020.csv", dict(list(drawn.items())[half:]), SIZE, year=2020)
    for output, annotations in (("data", ["train.json"]), ("kaggle", ["2019.csv", "2020.csv"])):
        prepare_fashionpedia.main(
            ["--annotations", *(str(folder / name) for name in annotations),
             "--images", str(folder / "train"), "--output", str(folder / output / "Fashion5")]
        )  # fmt: skip
    return folder


def samples_below(root: Path, split: str) -> list[Any]:
    return list_dataset(root, "fashion5", split, labeled=True)


def test_both_sources_give_the_same_data_set(folder: Path) -> None:
    seen = set()
    for split, count in (("train", 16), ("val", 2), ("test", 2)):
        ours, theirs = (
            samples_below(folder / "data", split),
            samples_below(folder / "kaggle", split),
        )
        assert [sample.stem for sample in ours] == [sample.stem for sample in theirs]
        assert len(ours) == count
        seen |= {sample.stem for sample in ours}
        for one, other in zip(ours, theirs, strict=True):
            with Image.open(one.labels) as labels, Image.open(other.labels) as again:
                assert np.array_equal(np.asarray(labels), np.asarray(again))
    assert len(seen) == COUNT


def test_the_split_is_drawn_by_the_documents_seed(folder: Path) -> None:
    names = sorted(path.stem for path in (folder / "train").iterdir())
    parts = seeded_split(COUNT, (0.8, 0.1, 0.1), seed=1337)
    for split, part in zip(("train", "val", "test"), parts, strict=True):
        stems = [sample.stem for sample in samples_below(folder / "data", split)]
        assert stems == [names[index] for index in part]


def test_an_unfinished_preparation_is_no_data_set(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "Fashion5").symlink_to(folder / "data" / "Fashion5")
    assert len(samples_below(tmp_path, "train")) == 16
    (tmp_path / "Fashion5").unlink()
    for part in ("images", "labels"):
        (tmp_path / "Fashion5" / part).mkdir(parents=True)
    with pytest.raises(InputError, match=r"has no groups\.json.*prepare_fashionpedia"):
        samples_below(tmp_path, "train")


def train(shell: Shell, root: Path, changes: dict[str, object]) -> Path:
    """Trains the preset for three steps; its last snapshot."""
    sets = [text for f, v in (SHORT | changes).items() for text in ("--set", f"{f}={v}")]
    common = ["--data-root", str(root), "--device", "cpu"]
    shell.run("train_uda.py", "--preset", PRESET, "--run", "clothes", *common, *sets)
    return shell.snapshots / "clothes" / "FASHION5_3.pth"


def train_and_score(shell: Shell, root: Path, changes: dict[str, object]) -> dict[str, Any]:
    """Trains the preset and scores its last snapshot on the test images."""
    snapshot = train(shell, root, changes)
    common = ["--data-root", str(root), "--device", "cpu"]
    output = shell.run(
        "eval_single.py", "--restore-from", str(snapshot), "--split", "test", "--workers", "0",
        "--json", "scores.json", *common,
    )  # fmt: skip
    for name in ("f1", "soft batch"):
        assert f"\n{name}: " in output
    return json.loads((shell.cwd / "scores.json").read_text())


def check_report(report: dict[str, Any]) -> None:
    assert list(report["per_class"]) == ["background", "upperbody", "lowerbody", "wholebody",
                                         "feet", "accessories"]  # fmt: skip
    assert 0 <= report["miou"] <= 100
    assert "over all pixels of the data set" in report["f1"]["definition"]
    soft = report["soft_batch"]
    assert "segmentation_models" in soft["definition"]
    assert soft["images"] == 2
    assert 0 < soft["value"] <= soft["f1"] <= 100
    assert 0 < soft["loss"] < 20


@pytest.mark.slow
def test_from_raw_files_to_the_report(folder: Path, shell: Shell) -> None:
    pytest.importorskip("timm")
    root = folder / "data"
    report = train_and_score(shell, root, SMALL)
    check_report(report)
    assert "64x64" in report["protocol"]
    # What is published is what the network says of all test images at once.
    snapshot = load(shell.snapshots / "clothes" / "FASHION5_3.pth")
    network = snapshot.build().eval()
    probabilities, labels = [], []
    for sample in samples_below(root, "test"):
        with Image.open(sample.image) as image, Image.open(sample.labels) as raw:
            small = image.resize((64, 64), Image.Resampling.BICUBIC)
            pixels = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)[None] / 255
            labels.append(torch.from_numpy(np.asarray(raw.resize((64, 64), 0)).copy()))
        with torch.no_grad():
            probabilities.append(network(pixels).logits.softmax(dim=1)[0])
    sums = [soft_sums(p, truth) for p, truth in zip(probabilities, labels, strict=True)]
    iou, f1, loss = soft_scores(torch.stack(sums))
    soft = report["soft_batch"]
    assert [soft["value"], soft["f1"]] == pytest.approx([100 * iou, 100 * f1], abs=0.01)
    assert soft["loss"] == pytest.approx(loss, abs=1e-3)


@pytest.mark.slow
def test_predictions_and_pseudo_labels_have_the_images_own_size(folder: Path, shell: Shell) -> None:
    """Though the protocol that the snapshot was scored by compares at another one."""
    pytest.importorskip("timm")
    snapshot = train(shell, folder / "data", SMALL)
    common = ["--restore-from", str(snapshot), "--workers", "0", "--device", "cpu"]
    shell.run("predict.py", *common, "--images", str(folder / "train"), "--output", "predicted")
    root = ["--data-root", str(folder / "data"), "--splits", "val"]
    shell.run("pseudo_label.py", *common, *root, "--threshold", "0", "--output", "labels")
    for place, count in (("predicted/ids", COUNT), ("labels", 2)):
        pictures = sorted((shell.cwd / place).glob("*.png"))
        assert len(pictures) == count
        assert {read_header(path).size for path in pictures} == {SIZE}
    for manifest in ("predicted/predictions.json", "labels/manifest.json"):
        assert "input 64x64" in json.loads((shell.cwd / manifest).read_text())["protocol"]


@pytest.mark.slow
def test_the_preset_itself_trains(folder: Path, shell: Shell) -> None:
    """InceptionResNetV2 and the heads as they are, on smaller images."""
    pytest.importorskip("timm")
    size: dict[str, object] = {
        "data.crop": "75,75", "data.source.size": "75,75", "evaluation.input_size": "75,75",
        "evaluation.label_size": "75,75",
    }  # fmt: skip
    check_report(train_and_score(shell, folder / "data", size))
    model = load(shell.snapshots / "clothes" / "FASHION5_3.pth").model
    assert isinstance(model, DeepLabV3PlusConfig)
    assert (model.backbone, model.input_scaling) == ("timm/inception_resnet_v2", "min_max")


def test_the_preset_is_the_documents() -> None:
    experiment = load_preset(PRESET)
    assert experiment.train.steps == 35 * 676
    assert experiment.train.batch_size == 8
    assert (experiment.train.optimizer.name, experiment.train.optimizer.lr) == ("adam", 1e-3)
    assert experiment.train.final_lr_factor == experiment.train.head_lr_factor == 1
    source = experiment.data.source
    assert source is not None
    assert (source.size, source.mirror, source.policy) == ((256, 256), False, None)
    assert not experiment.model.has_auxiliary_head
    assert FASHION5.num_classes == 6


def test_the_doctor_finds_nothing_wrong(folder: Path, shell: Shell) -> None:
    status, output = shell.ended(
        "scripts/check_data.py", "--data-root", str(folder / "data"), "--cache", "facts.json"
    )
    assert status == 0, output


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_takes_a_step(name: str, folder: Path, tmp_path: Path) -> None:
    """fashion5 is an adaptation task in waiting: here its validation images have no labels."""
    size = (64, 48)
    data = DataConfig(
        root=str(folder / "data"),
        source=DomainConfig(datasets=("fashion5",), size=size, first=4),
        target=DomainConfig(datasets=("fashion5",), splits=("val",), size=size),
        crop=(48, 48),
    )
    experiment = load_preset(PRESET)
    experiment.data = data
    steps_with(name, experiment, tmp_path)
