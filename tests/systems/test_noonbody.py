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
from experiments import load_preset
from shells import Shell
from tiny_runs import CPU, REPOSITORY, metrics
from uda.config import Experiment, TrainConfig, validate
from uda.data.body_parts import BODY_PARTS, NOONBODY
from uda.data.config import DataConfig, DomainConfig
from uda.data.registry import LAYOUTS, list_dataset
from uda.data.samples import Sample
from uda.data.sampling import batches
from uda.data.training import open_training_data
from uda.data.transforms import load_cropped
from uda.engine import train_step
from uda.evaluation import EvaluationConfig
from uda.objectives import SupervisedConfig
from uda.run import start_run
from uda.schedules import CosineRestartsConfig

PRESETS = {
    "noonbody_unet_mobilenet_v2": (15 * 3304, "adamw", 1e-2),
    "noonbody_unet_mobilenetv3_large_100": (15 * 6609, "adamw", 1e-2),
    "noonbody_unet_efficientnet_lite4": (15 * 3304, "adamw", 1e-2),
    "noonbody_unet_timm_efficientnet_b3": (25 * 3304, "radam", 1e-3),
    "noonbody_unet_timm_efficientnet_b3_cosine": (25 * 3304, "radam", 1e-3),
    "noonbody_unet_efficientnet_b3": (40 * 3304, "radam", 1e-3),
    "noonbody_deeplabv3_resnet34": (50 * 1652, "radam", 1e-2),
    "noonbody_unet_vgg16_bn": (40 * 3304, "radam", 1e-3),
}


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


def test_raw_files_to_the_report(root: Path, shell: Shell) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    settings = {
        "data.root": root, "data.workers": 0, "data.crop": "64,48", "data.source.size": "64,512",
        "model.backbone_weights": "none", "train.precision": "float32", "train.batch_size": 2,
        "train.steps": 60, "train.log_every": 5, "train.snapshot_every": 60,
        "train.resume_every": 60, "train.cosine_restarts.period": 20, "evaluation.every": 30,
        "train.optimizer.lr": 0.003,
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
    flipped = shell.run("eval_single.py", "--restore-from", str(snapshot), "--device", "cpu",
                        "--flip")  # fmt: skip
    assert "flip" in flipped


@pytest.mark.parametrize("name", PRESETS)
def test_every_record_is_a_preset_that_trains(name: str, root: Path) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    experiment = load_preset(name)
    validate(experiment)
    steps, optimizer, lr = PRESETS[name]
    settings = experiment.train
    assert (settings.steps, settings.optimizer.name, settings.optimizer.lr) == (
        steps, optimizer, lr,
    )  # fmt: skip
    # A step of it on two small images.
    experiment.data.root, experiment.data.crop = str(root), (64, 48)
    assert experiment.data.source is not None
    experiment.data.source.size = (64, 512)
    experiment.model.backbone_weights = "none"
    settings.batch_size, settings.precision = 2, "float32"
    data = open_training_data(experiment.data, seed=0, evaluated="noonbody")
    run = start_run(experiment, num_classes=15, device=CPU)
    before = [p.detach().clone() for p in run.student.head_parameters()]
    (batch,) = batches(data.dataset, batch_size=2, first_step=0, steps=1, workers=0)
    (loss,) = train_step(run, batch).losses.values()
    assert 0 < float(loss) < 10
    after = run.student.head_parameters()
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def _photographs(root: Path, split: str, labeled: bool) -> list[Sample]:
    return [s._replace(dataset="photos") for s in NOONBODY.list_samples(root, split, labeled)]


PHOTOS = replace(NOONBODY, name="photos", list_samples=_photographs)


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


def test_the_second_schedule_of_a_preset_starts_after_ten_epochs() -> None:
    experiment = load_preset("noonbody_unet_timm_efficientnet_b3_cosine")
    assert experiment.train.cosine_restarts == CosineRestartsConfig(
        period=5 * 3304, from_step=10 * 3304
    )
    assert experiment.train.plateau is not None
    assert experiment.evaluation.every == 3304
