"""Body parts, from COCO's and DensePose's files to the report."""

import json
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from every_objective import OBJECTIVES, steps_with
from PIL import Image

from densepose_files import write_densepose
from shells import Shell
from tiny_runs import CPU, REPOSITORY, metrics
from uda.data.config import DataConfig, DomainConfig
from uda.data.datasets.body_parts import BODY_PARTS, NOONBODY
from uda.data.registry import LAYOUTS, list_dataset
from uda.data.sampling import batches
from uda.data.training import open_training_data
from uda.data.transforms import load_cropped
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig, validate
from uda.experiments import PRESETS as PRESET_FUNCTIONS
from uda.experiments import Preset, load_preset
from uda.models.smp import SmpConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.plateau import PlateauConfig
from uda.optim.schedules import CosineRestartsConfig
from uda.training.run import start_run
from uda.training.step import train_step

# The training records of document 004, row by row: mIoU, width and height, encoder, architecture,
# images per batch, epochs, optimizer, schedule, learning rate, augmentation.
RECORDS = """
mobilenet_v2: 0.4348 384,512 mobilenet_v2 unet 8 15 adamw cosines 1e-2 -
mobilenetv3_large_100: 0.4968 768,1024 timm-mobilenetv3_large_100 unet 4 15 adamw cosines 1e-2 -
efficientnet_lite4: 0.5347 384,512 timm-tf_efficientnet_lite4 unet 8 15 adamw cosines 1e-2 -
timm_efficientnet_b3: 0.6226 384,512 timm-efficientnet-b3 unet 8 25 radam plateau 1e-3 clahe
timm_efficientnet_b3_cosine: 0.6285 384,512 timm-efficientnet-b3 unet 8 25 radam both 1e-3 clahe
efficientnet_b3: 0.6408 384,512 efficientnet-b3 unet 8 40 radam plateau 1e-3 clahe
resnet34: 0.6461 384,512 resnet34 deeplabv3 16 50 radam plateau 1e-2 clahe
vgg16_bn: 0.6653 384,512 vgg16_bn unet 8 40 radam plateau 1e-3 clahe
"""


def record(row: str) -> tuple[str, list[str]]:
    """The preset of a row of `RECORDS`, and its cells."""
    name, _, cells = row.partition(": ")
    return f"noonbody_{cells.split()[3]}_{name}", cells.split()


PRESETS = dict(map(record, RECORDS.strip().splitlines()))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with NoonBody, written by the script out of COCO's and DensePose's files."""
    raw, root = tmp_path_factory.mktemp("coco"), tmp_path_factory.mktemp("data")
    for split, subset, count in (("train", "train2014", 6), ("val", "val2014", 3),
                                 ("test", "test2014", 4)):  # fmt: skip
        annotations, images = write_densepose(raw, count=count, subset=subset)
        with pytest.MonkeyPatch.context() as patch:
            arguments = ["--annotations", annotations, "--images", images,
                         "--output", root / "NoonBody", "--split", split]  # fmt: skip
            patch.setattr(sys, "argv", ["prepare_densepose.py", *map(str, arguments)])
            runpy.run_path(str(REPOSITORY / "scripts/prepare_densepose.py"), run_name="__main__")
    return root


@pytest.mark.slow
def test_raw_files_to_the_report(root: Path, shell: Shell) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    settings = {
        "data.root": root, "data.workers": 0, "data.crop": "64,48", "data.source.size": "64,512",
        "model.backbone_weights": "none", "train.precision": "float32", "train.batch_size": 2,
        "train.steps": 60, "train.log_every": 5, "train.snapshot_every": 60,
        "train.resume_every": 60, "train.cosine_restarts.period": 20, "evaluation.every": 30,
        "train.optimizer.lr": 0.003, "evaluation.input_size": "64,512",
    }  # fmt: skip
    sets = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    preset = "noonbody_unet_mobilenet_v2"
    out = shell.run("train_uda.py", "--preset", preset, "--device", "cpu", *sets)
    assert "initial weights  random" in out
    assert re.search(r"step 30: per image union miou: \d+\.\d+ \(percent; per image, the mean", out)
    lines = metrics(shell.snapshots / preset)
    losses = [line["loss/supervised/main"] for line in lines if "lr" in line]
    assert losses[-1] < losses[0] / 2
    snapshot = shell.snapshots / preset / "NOONBODY_60.pth"
    report = shell.run("eval_single.py", "--restore-from", str(snapshot), "--device", "cpu",
                       "--json", "scores.json")  # fmt: skip
    names = re.findall(r"^===>(.*):\t", report, re.MULTILINE)
    assert tuple(names) == BODY_PARTS.report_names
    assert "\nnot scored: head\n" in report
    assert "\nper image union miou: " in report
    scores = json.loads((shell.cwd / "scores.json").read_text())
    assert scores["not_scored"] == "head"
    assert scores["per_image_union_miou"]["images"] == 3
    present = [v for n, v in scores["per_class"].items() if v is not None and n != "head"]
    assert scores["miou"] == pytest.approx(sum(present) / len(present), abs=1e-3)
    assert scores["miou"] > 15, f"chance is below 7: {scores}"


def cells_of(name: str) -> list[str]:
    """The row of `RECORDS` that a preset stands for, read from the preset."""
    experiment = load_preset(name)
    validate(experiment)
    preset = PRESET_FUNCTIONS[name]
    assert isinstance(preset, Preset)
    (summary,) = re.findall(r"\(004: (0\.\d+)\)\.$", preset.summary)
    data, settings, model = experiment.data, experiment.train, experiment.model
    assert isinstance(model, SmpConfig)
    assert data.source is not None
    assert data.source.center_crop
    assert not data.source.mirror
    assert data.source.size[0] == data.crop[0]
    scored = experiment.evaluation
    assert (scored.input_size, scored.keep_ratio) == (data.source.size, data.source.keep_ratio)
    epoch = 26437 // settings.batch_size
    assert (experiment.evaluation.every, settings.steps % epoch) == (epoch, 0)
    plateau, cosines = settings.plateau, settings.cosine_restarts
    if plateau is not None:
        assert plateau == PlateauConfig(watches="loss", patience=3, factor=0.5)
    if cosines is not None:  # three of five epochs each
        start = 0 if plateau is None else 10 * epoch
        assert cosines == CosineRestartsConfig(period=5 * epoch, from_step=start)
        assert start + 3 * cosines.period == settings.steps
    schedules = {"plateau": plateau, "cosines": cosines}
    used = [schedule for schedule, config in schedules.items() if config is not None]
    return [
        summary,
        f"{data.crop[1]},{data.crop[0]}",
        model.backbone,
        model.architecture,
        str(settings.batch_size),
        str(settings.steps // epoch),
        settings.optimizer.name,
        "both" if len(used) == 2 else used[0],
        {0.01: "1e-2", 0.001: "1e-3"}[settings.optimizer.lr],
        {None: "-", "clahe_brightness_contrast": "clahe"}[data.source.policy],
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_every_cell_of_the_records_is_the_presets(name: str) -> None:
    assert cells_of(name) == PRESETS[name]
    assert load_preset(name).evaluation.measures == ("per_image_union_miou",)


def test_every_preset_is_of_a_record() -> None:
    assert {name for name in PRESET_FUNCTIONS if name.startswith("noonbody")} == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_every_record_is_a_preset_that_trains(name: str, root: Path) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    experiment = load_preset(name)
    settings = experiment.train
    # A step of it on two small images.
    experiment.data.root, experiment.data.crop = str(root), (64, 48)
    assert experiment.data.source is not None
    experiment.data.source.size = (64, 512)
    experiment.model = experiment.model.without_weights()
    settings.batch_size, settings.precision = 2, "float32"
    data = open_training_data(experiment.data, seed=0, evaluated="noonbody")
    run = start_run(experiment, num_classes=15, device=CPU)
    before = [p.detach().clone() for p in run.student.head_parameters()]
    (batch,) = batches(data.dataset, batch_size=2, first_step=0, steps=1, workers=0)
    (loss,) = train_step(run, batch).losses.values()
    assert 0 < float(loss) < 10
    after = run.student.head_parameters()
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


PHOTOS = replace(NOONBODY, name="photos")


def adaptation(root: Path) -> Experiment:
    """DensePose-COCO to other photographs, without their labels."""
    return Experiment(
        data=DataConfig(
            root=str(root),
            source=DomainConfig(datasets=("noonbody",), size=(96, 80), mirror=True),
            target=DomainConfig(datasets=("photos",), splits=("test",), size=(96, 80),
                                mirror=True),
            crop=(64, 64),
        ),
        objectives={"supervised": SupervisedConfig()},
        train=TrainConfig(steps=1, batch_size=2),
        evaluation=EvaluationConfig(dataset="photos"),
    )  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_takes_a_step(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAYOUTS, "photos", PHOTOS)
    steps_with(name, adaptation(root), tmp_path)


def test_a_mirrored_sample_has_its_sides_exchanged(root: Path) -> None:
    """Sample by sample: a picture and labels are those of the file, or both are mirrored, and then
    right is left."""
    (sample, *_) = list_dataset(root, "noonbody", "train", labeled=True)
    assert sample.labels is not None
    with Image.open(sample.labels) as file:
        stored = np.asarray(file)
    swapped = stored[:, ::-1].copy()
    for one, other in BODY_PARTS.mirror_swaps:
        mask = stored[:, ::-1] == one
        swapped[stored[:, ::-1] == other] = one
        swapped[mask] = other
    domain = DomainConfig(datasets=("noonbody",), size=stored.shape, mirror=True)
    seen = set()
    for seed in range(12):
        found = load_cropped(
            sample, domain, crop=stored.shape, label_space=BODY_PARTS, pseudo_labels=None,
            rng=np.random.default_rng(seed),
        )  # fmt: skip
        assert found.labels is not None
        mirrored = bool((found.labels == swapped).all())
        assert mirrored or (found.labels == stored).all()
        with Image.open(sample.image) as image:
            pixels = np.asarray(image).transpose(2, 0, 1)
        assert (found.image == (pixels[:, :, ::-1] if mirrored else pixels)).all()
        seen.add(mirrored)
    assert seen == {True, False}
