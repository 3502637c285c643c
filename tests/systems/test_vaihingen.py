"""ISPRS from the published archives' files to a report: tiles, training, evaluation."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from every_objective import OBJECTIVES, steps_with
from PIL import Image

from shells import Shell
from tiny_runs import CPU, assert_same, metrics
from trials import small_mask2former
from uda.checkpoints import snapshots
from uda.checkpoints.snapshots import read
from uda.commands.data import prepare_vaihingen
from uda.data.batch import Batch
from uda.data.datasets.isprs import ISPRS6
from uda.data.datasets.isprs_areas import AREAS, Area, IsprsName
from uda.data.registry import list_dataset
from uda.data.sampling import batches
from uda.data.training import open_training_data
from uda.experiment import Experiment, validate
from uda.experiments import load_preset
from uda.labels.spaces import IGNORE_INDEX
from uda.objectives.adversarial import AdversarialConfig
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.cut_mix import CutMixConfig
from uda.objectives.entropy import EntropyConfig
from uda.objectives.fix_match import FixMatchConfig
from uda.objectives.mask_classification import MaskClassificationConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.teacher import TeacherConfig
from uda.training import loop as engine
from uda.training.loop import train
from uda.training.run import Run, StepResult, start_run
from uda.training.step import train_step
from uda.utilities.errors import InputError

TILE = 64  # pixels
MASK2FORMER = small_mask2former()
SMALL: dict[str, object] = {  # what makes a preset's run a matter of seconds
    "data.workers": 0, "data.crop": "64,64", "data.source.size": "64,64",
    "model.backbone": "resnet18", "model.backbone_weights": "none", "model.backbone_width": 8,
    "train.steps": 3, "train.batch_size": 2, "train.log_every": 1, "train.precision": "float32",
}  # fmt: skip
SMALL_MASKS: dict[str, object] = {
    "model.queries": 8, "model.channels": 64, "model.attention_heads": 4,
    "model.encoder_layers": 1, "model.encoder_width": 32, "model.decoder_layers": 2,
    "model.decoder_width": 32, "objectives.masks.points": 64,
}  # fmt: skip
SMALL_DEEPLAB: dict[str, object] = {
    "model.aspp_rates": "1,2", "model.aspp_channels": 8, "model.low_level_channels": 4,
    "model.decoder_channels": 8,
}  # fmt: skip
ADAPTED = SMALL_DEEPLAB | {"train.warmup_steps": 1}
PRESETS: dict[str, dict[str, object]] = {
    "vaihingen_mask2former_r50": SMALL_MASKS,
    "vaihingen_deeplabv3plus_r101": SMALL_DEEPLAB,
    "potsdam_to_vaihingen_source_only": ADAPTED,
    "potsdam_to_vaihingen": ADAPTED | {"data.target.size": "64,64"},
}
GROUND_TRUTH = "ground truth (32 images)"


def write_raw(raw: Path, dataset: IsprsName, width: int, height: int) -> None:
    """Every area in the official naming: blocks whose colors say the class, some of it unknown."""
    colors = np.array([(0, 0, 0), *ISPRS6.palette], np.uint8)
    for number, area in enumerate(AREAS[dataset].areas):
        rng = np.random.default_rng(number)
        blocks = rng.integers(0, 7, (-(-height // 16), -(-width // 16)))
        ids = np.kron(blocks, np.ones((16, 16), int))[:height, :width]
        image = (30 * ids)[..., None] + rng.integers(0, 40, (height, width, 3))
        for path, pixels in zip(raw_files(raw, dataset, area), (image, colors[ids]), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)


def raw_files(raw: Path, dataset: IsprsName, area: Area) -> tuple[Path, Path]:
    """Where the archives' image and labels of an area unpack to."""
    kind = AREAS[dataset]
    images, labels = (
        ("ISPRS_semantic_labeling_Vaihingen/top",
         "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE")
        if dataset == "vaihingen" else ("3_Ortho_IRRG", "5_Labels_all_noBoundary")
    )  # fmt: skip
    return (
        raw / images / kind.image.format(area=area.name, channels="IRRG"),
        raw / labels / kind.labels.format(area=area.name),
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with both data sets, made of TIFFs by the script: an area of Vaihingen is two
    tiles, one of Potsdam (116 pixels of 5 cm are 64 of 9 cm) is one. Only read it."""
    folder = tmp_path_factory.mktemp("isprs")
    options = ["--clip", str(TILE), "--stride", str(TILE // 2)]
    write_raw(folder / "vaihingen", "vaihingen", 80, 64)
    write_raw(folder / "potsdam", "potsdam", 116, 116)
    for name, output in (("vaihingen", "Vaihingen"), ("potsdam", "Potsdam")):
        prepare_vaihingen.main(
            [str(folder / name), "--dataset", name, "--output", str(folder / "data" / output),
             *options]
        )  # fmt: skip
    return folder / "data"


def small(name: str, root: Path, steps: int = 3) -> Experiment:
    """A preset of Vaihingen alone at the size of the tests, without policies."""
    experiment = load_preset(name)
    experiment.data.root, experiment.data.workers = str(root), 0
    experiment.data.crop = (TILE, TILE)
    for domain in (experiment.data.source, experiment.data.target):
        if domain is not None:
            domain.size, domain.first = (TILE, TILE), 8
    train = experiment.train
    train.steps, train.batch_size, train.warmup_steps = steps, 2, 0
    train.log_every, train.snapshot_every, train.resume_every = 1, steps, steps
    experiment.evaluation.every = steps
    return experiment


def with_masks(root: Path, steps: int = 3) -> Experiment:
    experiment = small("vaihingen_mask2former_r50", root, steps)
    experiment.model = MASK2FORMER
    experiment.objectives = {"masks": MaskClassificationConfig(points=64)}
    return experiment


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_from_raw_files_to_the_report(name: str, root: Path, shell: Shell) -> None:
    if "mask2former" in name:
        pytest.importorskip("transformers")
    sets = [f"{field}={value}" for field, value in (SMALL | PRESETS[name]).items()]
    options = [part for override in sets for part in ("--set", override)]
    shell.run(
        "train_uda.py", "--preset", name, "--data-root", str(root), "--device", "cpu", *options
    )  # fmt: skip
    source = "POTSDAM" if name.startswith("potsdam") else "VAIHINGEN"
    snapshot = f"snapshots/{name}/{source}_3.pth"
    report = shell.run("eval_single.py", "--restore-from", snapshot, "--device", "cpu")
    lines = [line for line in report.splitlines() if line.startswith("===>")]
    assert [line.split(":")[0] for line in lines] == [
        *(f"===>{c}" for c in ISPRS6.classes), "===> mIoU"
    ]  # fmt: skip
    supervision = "none" if source == "POTSDAM" else GROUND_TRUTH
    assert f"supervision: {supervision}" in report
    sized = "data.target.size" in PRESETS[name]  # which then decides the size of scoring, too
    assert f"{'own settings' if sized else 'native'} on vaihingen val" in report
    assert ("75.97" in report) == (name == "vaihingen_mask2former_r50")  # what is published


def test_tiles_are_read_with_zero_ignored_and_classes_from_one(root: Path) -> None:
    for name, split, count in (("vaihingen", "train", 32), ("vaihingen", "val", 34),
                               ("potsdam", "train", 24), ("potsdam", "val", 14)):  # fmt: skip
        assert len(list_dataset(root, name, split, labeled=True)) == count
    sample = list_dataset(root, "vaihingen", "val", labeled=True)[0]
    assert sample.stem == "area10_0_0_64_64"
    assert sample.labels is not None
    raw = np.array(range(7), np.uint8)[None]
    assert ISPRS6.to_train_ids(raw, "x").tolist() == [[IGNORE_INDEX, 0, 1, 2, 3, 4, 5]]
    assert ISPRS6.classes[4] == "car"
    assert ISPRS6.palette[4] == (255, 255, 0)


def test_no_target_label_is_opened_in_adaptation(root: Path, tmp_path: Path) -> None:
    """Vaihingen's training labels are not even there."""
    (tmp_path / "Vaihingen").mkdir()
    (tmp_path / "Potsdam").symlink_to(root / "Potsdam")
    (tmp_path / "Vaihingen/img_dir").symlink_to(root / "Vaihingen/img_dir")
    data = small("potsdam_to_vaihingen", tmp_path).data
    assert open_training_data(data, seed=0, evaluated="vaihingen").supervision == "none"
    with pytest.raises(InputError, match="ann_dir/val does not exist; expected img_dir"):
        list_dataset(tmp_path, "vaihingen", "val", labeled=True)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_takes_a_step(name: str, root: Path, tmp_path: Path) -> None:
    steps_with(name, small("potsdam_to_vaihingen", root), tmp_path)


# --- Mask2Former


@pytest.fixture
def _library() -> None:
    pytest.importorskip("transformers")


def first_batch(experiment: Experiment) -> tuple[Run, Batch]:
    data = open_training_data(experiment.data, seed=0, evaluated="vaihingen")
    run = start_run(experiment, num_classes=6, device=CPU)
    (batch,) = batches(data.dataset, batch_size=2, first_step=0, steps=1, workers=0)
    return run, batch


@pytest.mark.usefixtures("_library")
def test_mask2former_learns_under_pixelwise_objectives(root: Path) -> None:
    """All at once, beside its own, in the precision of a GPU: adaptation of a mask classifier."""
    experiment = small("potsdam_to_vaihingen", root)
    experiment.model = MASK2FORMER
    experiment.train.precision = "bfloat16"
    experiment.teacher = TeacherConfig()
    experiment.objectives = {
        "masks": MaskClassificationConfig(points=64),
        "supervised": SupervisedConfig(auxiliary_weight=0.0),
        "entropy": EntropyConfig(),
        "adversarial": AdversarialConfig(),
        "class_mix": ClassMixConfig(),
        "cut_mix": CutMixConfig(),
        "fix_match": FixMatchConfig(),
    }
    validate(experiment)
    run, batch = first_batch(experiment)
    losses = train_step(run, batch).losses
    assert {name.split("/")[1] for name in losses} == set(experiment.objectives)
    assert all(value.isfinite() for value in losses.values())
    assert all(v.dtype == torch.float32 for n, v in losses.items() if "/masks/" in n)
    unmoved = [n for n, p in run.student.named_parameters() if p.grad is None]
    assert unmoved == []


@pytest.mark.usefixtures("_library")
def test_mask2former_learns_what_it_is_shown(root: Path) -> None:
    """Its loss falls on one batch, with the preset's optimizer and clipping."""
    experiment = with_masks(root, steps=30)
    experiment.train.optimizer.lr = 1e-3
    run, batch = first_batch(experiment)
    losses = [sum(v.item() for v in train_step(run, batch).losses.values()) for _ in range(25)]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


@pytest.mark.slow
@pytest.mark.usefixtures("_library")
def test_mask2former_interrupted_and_resumed_equals_straight(root: Path, tmp_path: Path) -> None:
    """Points are drawn anew in the steps that are made again, the same ones."""
    experiment = with_masks(root, steps=4)
    experiment.train.resume_every = 2

    def run_in(name: str, *, resume: bool = False) -> None:
        train(experiment, tmp_path / name, preset="tiny", device=CPU, resume=resume)

    run_in("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "train_step", _stopping_at(3))
        with pytest.raises(KeyboardInterrupt):
            run_in("resumed")
    run_in("resumed", resume=True)
    states = [read(tmp_path / name / "resume.pth") for name in ("straight", "resumed")]
    for state in states:
        state.pop("scores")
    assert_same(*states)
    assert metrics(tmp_path / "straight") == metrics(tmp_path / "resumed")


def _stopping_at(step: int) -> Callable[[Run, Batch], StepResult]:
    original = train_step

    def stopping(run: Run, batch: Batch) -> StepResult:
        if run.step == step:
            raise KeyboardInterrupt
        return original(run, batch)

    return stopping


@pytest.mark.usefixtures("_library")
def test_a_snapshot_of_mask2former_comes_back_whole(
    root: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shell.snapshots / "masks"
    train(with_masks(root, steps=1), folder, preset="tiny", device=CPU)
    path = folder / "VAIHINGEN_1.pth"
    snapshot = snapshots.load(path)
    network = snapshot.build()
    assert snapshot.model == MASK2FORMER
    assert_same(network.state_dict(), read(path)["student"])
    images = torch.rand(1, 3, 70, 90)
    with torch.no_grad():
        assert torch.equal(network(images).logits, snapshot.build()(images).logits)
    monkeypatch.setitem(sys.modules, "transformers", None)
    error = shell.refused("eval_single.py", "--restore-from", str(path), "--device", "cpu")
    assert "pip install 'uda[transformers]'" in error
