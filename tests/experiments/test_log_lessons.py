"""What went wrong in the experiment log, as guarantees. Each one fails on the log's own mistake.

The numbers C1 ... C5k are those of the log's analysis: a mistake that nobody noticed for weeks, and
the number of the log that it made.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import uda.training.records
from factories import (
    CITYSCAPES_STEMS,
    Bytes,
    ColorSegmenter,
    cityscapes_image,
    cityscapes_labels,
    colors_of,
    raw_labels,
    write_cityscapes,
    write_gta5,
    write_png,
)
from tiny_runs import (
    CPU,
    assert_different,
    assert_same,
    batch_for,
    batch_tensors,
    metrics,
    random_batch,
    steps,
    tiny_preset,
    tiny_run,
    without_dropout,
    write_pseudo_labels,
)
from uda.augmentation.jitter import JitterConfig
from uda.checkpoints.snapshots import load, read
from uda.data.batch import Batch, View
from uda.data.config import DataConfig
from uda.data.pseudo_label_folder import file_name
from uda.data.registry import list_dataset
from uda.data.samples import Sample
from uda.data.sampling import batches
from uda.data.training import TrainingData, open_training_data
from uda.evaluation.evaluate import EvaluationConfig, evaluate
from uda.evaluation.measures import Measured
from uda.evaluation.metrics import ConfusionMatrix, Scores
from uda.experiment import Experiment, RestartConfig, TrainConfig, validate
from uda.experiments import PRESETS, load_preset
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX, LabelSpace
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.objectives.base import Objective, StepContext
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.cut_mix import CutMixConfig
from uda.objectives.fix_match import FixMatchConfig
from uda.objectives.functional.mixing import mix_domains, paste
from uda.objectives.pseudo_label import PseudoLabelConfig
from uda.optim.schedules import learning_rate_factor
from uda.optim.teacher import TeacherConfig
from uda.prediction.pseudo_labeling import label_images
from uda.training import loop as engine
from uda.training.loop import train
from uda.training.records import evaluate_student
from uda.training.run import Run, StepResult
from uda.training.run_folder import RunFolder
from uda.training.signals import Stop
from uda.training.step import _collect_views, train_step
from uda.utilities.config_tree import to_plain
from uda.utilities.errors import InputError

SIZE = (80, 160)  # pixels (height, width) of the pictures drawn below


def from_the_start(name: str, root: Path, *, steps: int = 3) -> Experiment:
    """The preset, tiny, with every objective from the first step on, and nothing drawn in it."""
    experiment = without_dropout(tiny_preset(name, root, steps=steps))
    experiment.train.precision = "float32"
    for objective in experiment.objectives.values():
        objective.start_step = 0
    return experiment


def of_pictures(name: str, root: Path, *, steps: int = 3) -> Experiment:
    """The same on the pictures at `root` in crops of (64, 128), without resizing them."""
    experiment = from_the_start(name, root, steps=steps)
    for domain, datasets in (
        (experiment.data.source, "gta5"),
        (experiment.data.target, "cityscapes"),
    ):
        if domain is not None:
            domain.datasets, domain.size, domain.scale = (datasets,), SIZE, (1.0, 1.0)
    return experiment


def loaded(experiment: Experiment) -> Iterator[Batch]:
    """The batches of the experiment's steps, from its files."""
    data = open_training_data(experiment.data, seed=experiment.train.seed, evaluated="cityscapes")
    return batches(
        data.dataset,
        batch_size=experiment.train.batch_size,
        first_step=0,
        steps=experiment.train.steps,
        workers=0,
    )


def quarter(batch: Batch) -> Batch:
    """The upper left quarter of every image, where speed matters."""
    tensors = batch_tensors(batch)
    parts: dict[str, Any] = {name: tensor[..., :32, :64] for name, tensor in tensors.items()}
    return replace(batch, **parts)


def run_to_end(experiment: Experiment, folder: Path, *, resume: bool = False) -> Scores:
    return train(experiment, folder, preset="tiny", device=CPU, resume=resume)


def write_pictures(root: Path, *, source: Sequence[Bytes], target: Sequence[Bytes]) -> Path:
    """A data root with these pictures (H, W, 3); the source's come with labels."""
    for index, picture in enumerate(source):
        write_png(root / "GTA5" / "images" / f"{index:05d}.png", picture)
        labels = raw_labels(index, (picture.shape[0], picture.shape[1]))
        write_png(root / "GTA5" / "labels" / f"{index:05d}.png", labels)
    for stem, picture in zip(CITYSCAPES_STEMS, target, strict=True):
        write_png(cityscapes_image(root, stem), picture)
    return root


# --- C1: CutMix wrote into its arguments, so the clean loss was the mixed one


def left_half(batch: Batch) -> Tensor:
    columns = torch.arange(batch.source_labels.shape[2])
    return (columns < len(columns) // 2).expand_as(batch.source_labels)


def ground_truth(batch: Batch) -> Tensor:
    assert batch.target_ground_truth is not None
    return batch.target_ground_truth


def class_three(images: Tensor) -> Tensor:
    """A teacher that is sure of class 3 everywhere."""
    logits = torch.zeros(len(images), 19, *images.shape[2:])
    logits[:, 3] = 20
    return logits


def views_of(objective: Objective) -> Callable[[Batch], object]:
    return lambda batch: objective.views(batch, StepContext(0, 0, batch.indices, class_three))


MIXERS: dict[str, Callable[[Batch], object]] = {
    "paste images": lambda batch: paste(
        batch.source_images, onto=batch.target_images, where=left_half(batch)
    ),
    "paste labels": lambda batch: paste(
        batch.source_labels, onto=ground_truth(batch), where=left_half(batch)
    ),
    "mix_domains": lambda batch: mix_domains(
        batch,
        ground_truth(batch),
        name="mixed",
        from_source=left_half(batch),
        target_weights=torch.ones(len(batch.indices), 1, 1),
    ),
    "CutMix": views_of(CutMixConfig(jitter=JitterConfig()).build(19)),
    "the log's CutMix": views_of(
        CutMixConfig(labels="ground_truth", one_box_per_batch=True).build(19)
    ),
    "ClassMix": views_of(ClassMixConfig().build(19)),
}


def changed_by(mix: Callable[[Batch], object]) -> list[str]:
    """Names of the tensors of a batch that `mix` changes."""
    batch = random_batch(ground_truth=True).to_device(CPU)
    before = batch_tensors(batch)
    mix(batch)
    after = batch_tensors(batch)
    return [name for name in before if not torch.equal(before[name], after[name])]


@pytest.mark.parametrize("mixer", MIXERS)
def test_c1_mixing_leaves_its_inputs_untouched(mixer: str) -> None:
    assert changed_by(MIXERS[mixer]) == []


def patch_images(batch: Batch) -> tuple[Tensor, Tensor]:
    """The log's paste: into its arguments, which it returns."""
    box = (..., slice(8, 40), slice(16, 80))
    batch.source_images[box] = batch.target_images[box]
    batch.source_labels[box] = ground_truth(batch)[box]
    return batch.source_images, batch.source_labels


def test_c1_a_paste_in_place_is_caught() -> None:
    assert changed_by(patch_images) == ["source_images", "source_labels"]


def mix_in_place(
    batch: Batch, labels: Tensor, *, name: str, from_source: Tensor, target_weights: Tensor
) -> View:
    """`mix_domains` as the log would have written it."""
    from_target = ~from_source
    source, target = (images.movedim(1, 3) for images in (batch.source_images, batch.target_images))
    source[from_target] = target[from_target]
    batch.source_labels[from_target] = labels[from_target]
    weights = torch.where(from_source, 1.0, target_weights)
    return View(name, batch.source_images, batch.source_labels, weights)


def said_of_clean_and_mixed(toy_root: Path) -> tuple[dict[str, Tensor], StepResult]:
    """The student's logits by view in a step on clean source images and on mixed ones."""
    run = tiny_run(from_the_start("toy_cut_mix_ground_truth", toy_root))
    run.experiment.train.log_every = 2  # a logged step also looks at the plain target images
    said: list[Tensor] = []
    run.student.register_forward_hook(lambda *found: said.append(found[2].logits.detach().clone()))
    result = train_step(run, batch_for(run.experiment))
    return dict(zip((view.name for view in result.views), said, strict=True)), result


def test_c1_clean_and_mixed_predictions_differ(toy_root: Path) -> None:
    said, result = said_of_clean_and_mixed(toy_root)
    assert set(said) == {"source", "cut_mix"}
    assert not torch.equal(said["source"], said["cut_mix"])
    clean, mixed = (result.losses[f"loss/{name}/main"] for name in ("supervised", "cut_mix"))
    assert not torch.equal(clean, mixed)


def test_c1_pasted_in_place_they_would_be_equal(
    toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, so that loss + 0.5 * loss was 1.5 times the loss of the mixed image."""
    monkeypatch.setattr("uda.objectives.cut_mix.mix_domains", mix_in_place)
    said, result = said_of_clean_and_mixed(toy_root)
    assert torch.equal(said["source"], said["cut_mix"])
    clean, mixed = (result.losses[f"loss/{name}/main"] for name in ("supervised", "cut_mix"))
    assert torch.equal(clean, mixed)


# --- C2: target labels took part in "unsupervised" runs


def watched_run(
    experiment: Experiment, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, list[Batch]]:
    """What the run's snapshot says of its supervision, and the batches it trained on."""
    seen: list[Batch] = []

    def step(run: Run, batch: Batch) -> StepResult:
        seen.append(batch)
        return train_step(run, batch)

    monkeypatch.setattr(engine, "train_step", step)
    run_to_end(experiment, folder)
    (snapshot,) = folder.glob(f"*_{experiment.train.steps}.pth")
    assert len(seen) == experiment.train.steps
    return load(snapshot).supervision, seen


def honest(supervision: str, seen: list[Batch]) -> bool:
    """A run says "ground truth" exactly if it was given the target's labels."""
    given = any(batch.target_ground_truth is not None for batch in seen)
    return supervision.startswith("ground truth") == given


@pytest.mark.parametrize(
    ("name", "declared"),
    [
        ("logged_aagc_640x360_b2_single_cutmix", "ground truth (6 images)"),
        ("logged_aagc_640x360_b2_single_cutmix_real_d100", "ground truth (4 images)"),
        ("toy_cut_mix_ground_truth", "ground truth (6 images)"),
        ("aagc_640x360_b2_single_cutmix", "none"),
        ("toy_cut_mix", "none"),
    ],
)
def test_c2_the_labels_that_cut_mix_pastes_are_declared(
    name: str,
    declared: str,
    toy_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    experiment = from_the_start(name, toy_root, steps=2)
    supervision, seen = watched_run(experiment, tmp_path / "run", monkeypatch)
    assert supervision == declared
    assert honest(supervision, seen)
    assert all((batch.target_ground_truth is None) == (declared == "none") for batch in seen)
    printed = capsys.readouterr().out
    assert f"supervision      {declared} (of the target)\n" in printed
    assert re.search(rf"mIoU [\d.]+ \(supervision: {re.escape(declared)}\)", printed)


def test_c2_labels_that_are_loaded_and_not_declared_are_caught(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log's loader: labels come with every target image, and nobody says so."""

    def careless(data: DataConfig, *, seed: int, evaluated: str) -> TrainingData:
        labeled = replace(data, target_ground_truth=True)
        opened = open_training_data(labeled, seed=seed, evaluated=evaluated)
        return replace(opened, supervision="none")

    monkeypatch.setattr(engine, "open_training_data", careless)
    experiment = from_the_start("toy_cut_mix", toy_root, steps=1)
    assert not honest(*watched_run(experiment, tmp_path / "run", monkeypatch))


# --- C5b: a "student" that never learned from its pseudo-labels


STUDENTS = tuple(f"aagc_640x360_b2_student{end}" for end in
                 ("", "_autoaug", "_full", "_full_autoaug"))  # fmt: skip


def learns_from_pseudo_labels(experiment: Experiment) -> bool:
    """Whether other pseudo-labels lead to another student after one step."""
    batch = quarter(batch_for(experiment))
    assert batch.target_pseudo_labels is not None
    students = []
    for train_id in (0, 2):
        run = tiny_run(experiment)
        labels = torch.full_like(batch.target_pseudo_labels, train_id)
        train_step(run, replace(batch, target_pseudo_labels=labels))
        students.append(run.student.state_dict())
    one, other = students
    return not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", STUDENTS)
def test_c5b_students_learn_from_their_pseudo_labels(name: str, toy_root: Path) -> None:
    assert learns_from_pseudo_labels(from_the_start(name, toy_root))


def test_c5b_the_logs_student_is_caught_and_refused(toy_root: Path) -> None:
    """It loaded its labels, and no loss read them."""
    experiment = from_the_start("aagc_640x360_b2_student", toy_root)
    del experiment.objectives["pseudo_label"]
    assert not learns_from_pseudo_labels(experiment)
    with pytest.raises(InputError, match=r"data\.pseudo_labels is set, but no objective uses it"):
        validate(experiment)


@pytest.mark.parametrize("name", STUDENTS)
def test_c5b_what_was_run_has_no_pseudo_labels_at_all(name: str) -> None:
    experiment = load_preset(f"logged_{name}")
    assert experiment.data.pseudo_labels is None
    assert not any("pseudo_labels" in o.needs() for o in experiment.objectives.values())


# --- C3: two views that lie nowhere alike, compared pixel by pixel


def blocks(seed: int) -> Bytes:
    """A picture (H, W, 3) of 50 blocks of 16x16 pixels in 12 colors, so that no shift of it and no
    mirror image lays each color on one color."""
    rng = np.random.default_rng(seed)
    colors = rng.integers(0, 256, (12, 3), dtype=np.uint8)
    which = rng.integers(0, 12, (SIZE[0] // 16, SIZE[1] // 16))
    return colors[which].repeat(16, axis=0).repeat(16, axis=1)


@pytest.fixture(scope="module")
def block_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root of such pictures, at the size they are trained on."""
    return write_pictures(
        tmp_path_factory.mktemp("blocks") / "root",
        source=[blocks(seed) for seed in range(2)],
        target=[blocks(seed) for seed in range(10, 14)],
    )


def inside_blocks(images: Tensor) -> Tensor:
    """Pixels (N, H, W) bool of (N, 3, H, W) whose neighbors, two pixels around, are like them."""
    padded = F.pad(images, (2, 2, 2, 2), mode="replicate")
    highest = F.max_pool2d(padded, 5, stride=1)
    lowest = -F.max_pool2d(-padded, 5, stride=1)
    return (highest == lowest).all(dim=1)


def spread(weak: Tensor, strong: Tensor) -> list[float]:
    """For each sample of two views (N, 3, H, W): the widest range that one color of the weak view
    takes in the strong one. 0: the strong view is a function of the weak view's colors, so every
    pixel shows the same place in both."""
    found = []
    for one, other, inside in zip(weak, strong, inside_blocks(weak), strict=True):
        colors, which = one[:, inside].unique(dim=1, return_inverse=True)
        assert colors.shape[1] > 8, "there are enough of them to tell places apart"
        index = which.expand(3, -1)
        empty = torch.zeros_like(colors)
        highest = empty.scatter_reduce(1, index, other[:, inside], "amax", include_self=False)
        lowest = empty.scatter_reduce(1, index, other[:, inside], "amin", include_self=False)
        found.append((highest - lowest).max().item())
    return found


POINTWISE = JitterConfig(blur_probability=0, noise_probability=0)


@pytest.mark.parametrize(
    "config",
    [
        FixMatchConfig(policy="autoaugment_log", jitter=None),
        FixMatchConfig(policy="randaugment", jitter=POINTWISE),
    ],
    ids=["log", "jitter"],
)
def test_c3_both_fix_match_views_are_the_same_crop(
    config: FixMatchConfig, block_root: Path
) -> None:
    """From the files to the student: labels and strong view belong to the crop that was loaded."""
    experiment = of_pictures("toy_fix_match", block_root, steps=8)
    experiment.objectives["fix_match"] = config
    run = tiny_run(experiment)
    assert run.teacher is not None
    labeled: list[tuple[Tensor, Tensor]] = []
    run.teacher.register_forward_hook(lambda _, images, logits: labeled.append((*images, logits)))
    shown = []
    for batch in loaded(experiment):
        result = train_step(run, batch)
        (view,) = (view for view in result.views if view.name == "fix_match")
        ((images, logits),) = labeled
        labeled.clear()
        weak = batch.to_device(CPU).target_images
        assert torch.equal(images, weak)
        assert view.labels is not None
        of_labels = logits.gather(1, view.labels.unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(of_labels, logits.amax(dim=1))
        assert spread(weak, view.images) == pytest.approx([0, 0], abs=1e-3)
        shown += [len(image.flatten(1).unique(dim=1).T) for image in view.images]
    assert sum(colors > 5 for colors in shown) > 12, "of 16: some operations hide nearly everything"


def test_c3_the_logs_second_view_is_caught(block_root: Path) -> None:
    """Cross view repeats it on purpose: a crop of its own, and no pixel shows the same place."""
    experiment = of_pictures("toy_cross_view", block_root, steps=4)
    run = tiny_run(experiment)
    for batch in loaded(experiment):
        views = {view.name: view.images for view in train_step(run, batch).views}
        assert spread(views["target"], views["target"]) == [0, 0]
        assert min(spread(views["target"], views["cross_view"])) > 0.1


def test_c3_fix_match_on_the_second_view_would_be_caught(
    block_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = of_pictures("toy_cross_view", block_root, steps=1)
    experiment.objectives["fix_match"] = FixMatchConfig(jitter=POINTWISE)
    original = type(FixMatchConfig().build(19)).views

    def views(self: Objective, batch: Batch, context: StepContext) -> tuple[View, ...]:
        (view,) = original(self, batch, context)  # type: ignore[arg-type]
        assert batch.target_second_images is not None
        return (replace(view, images=batch.target_second_images),)

    monkeypatch.setattr("uda.objectives.fix_match.FixMatch.views", views)
    run = tiny_run(experiment)
    for batch in loaded(experiment):
        shown = {view.name: view.images for view in train_step(run, batch).views}
        assert min(spread(batch.to_device(CPU).target_images, shown["fix_match"])) > 0.1


# --- C4: train ids under the name of raw ids were mapped a second time


C4_TABLE = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5}  # every other train id became 255
VAL_STEM = "munster_000000_000019"
PLACES = ("source", "target", "validation")


def write_train_ids(root: Path, place: str, *, ignored: int) -> None:
    """All data sets, the labels of one of them as train ids, unlabeled pixels as `ignored`."""
    write_gta5(root)
    write_cityscapes(root)
    write_cityscapes(root, split="val", stems=(VAL_STEM,))
    files = {
        "source": sorted((root / "GTA5" / "labels").iterdir()),
        "target": [cityscapes_labels(root, stem) for stem in CITYSCAPES_STEMS],
        "validation": [cityscapes_labels(root, VAL_STEM, "val")],
    }[place]
    for index, path in enumerate(files):
        train_ids = CITYSCAPES.to_train_ids(raw_labels(index), "drawn")
        write_png(path, np.where(train_ids == IGNORE_INDEX, ignored, train_ids).astype(np.uint8))


@pytest.mark.parametrize(
    ("place", "ignored"),
    [
        *((place, 0) for place in PLACES),
        ("source", IGNORE_INDEX),
        ("target", IGNORE_INDEX),
        ("validation", IGNORE_INDEX),
    ],
)
def test_c4_train_ids_in_label_files_are_refused_before_anything_is_learned(
    place: str, ignored: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_train_ids(tmp_path / "root", place, ignored=ignored)
    experiment = from_the_start("toy_cut_mix_ground_truth", tmp_path / "root", steps=1)
    updates = []

    def step(run: Run, batch: Batch) -> StepResult:
        updates.append(run.step)
        return train_step(run, batch)

    monkeypatch.setattr(engine, "train_step", step)
    with pytest.raises(InputError, match="train ids"):
        run_to_end(experiment, tmp_path / "run")
    assert updates == []
    assert not (tmp_path / "run").exists()


def test_c4_the_logs_reader_would_have_taken_them() -> None:
    """It mapped whatever came, and what it did not know became 255."""

    def logs_reader(raw: Bytes) -> Bytes:
        train = np.full_like(raw, IGNORE_INDEX)
        for raw_id, train_id in CITYSCAPES.raw_to_train.items():
            train[raw == raw_id] = train_id
        return train

    train_ids = np.array([[*range(19), IGNORE_INDEX]], np.uint8)
    again = logs_reader(train_ids)
    changed = {i: int(new) for i, new in enumerate(again[0, :19]) if new != IGNORE_INDEX}
    assert changed == C4_TABLE
    with pytest.raises(InputError, match="255 means the file holds train ids already"):
        CITYSCAPES.to_train_ids(train_ids, "labelIds.png")


@pytest.fixture(scope="module")
def student_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root whose target images say where each of their pixels is (row, column, image), and
    pseudo-labels beside it that hold every train id and 255."""
    pictures = []
    for index in range(4):
        rows, columns = np.indices(SIZE)
        pictures.append(np.stack([rows, columns, np.full(SIZE, index)], axis=2).astype(np.uint8))
    root = tmp_path_factory.mktemp("student") / "root"
    write_pictures(root, source=[blocks(0)], target=pictures)
    write_pseudo_labels(root.parent / "pseudo_labels", root)
    for index, stem in enumerate(CITYSCAPES_STEMS):
        write_png(root.parent / "pseudo_labels" / file_name(stem), pseudo_labels(index))
    return root


def pseudo_labels(index: int) -> Bytes:
    """(H, W) train ids and 255, drawn pixel by pixel."""
    ids = np.array([*range(19), IGNORE_INDEX], np.uint8)
    return np.random.default_rng(index).choice(ids, SIZE)


def in_file_and_batch(root: Path, *, mapped_twice: bool) -> set[tuple[int, int]]:
    """Pairs (value in the file, value in the batch) of all pixels that a student's batches show."""
    experiment = of_pictures("toy_class_mix_student", root, steps=4)
    experiment.data.pseudo_labels_mapped_twice = mapped_twice
    files = np.stack([pseudo_labels(index) for index in range(4)])
    pairs: set[tuple[int, int]] = set()
    for batch in loaded(experiment):
        assert batch.target_pseudo_labels is not None
        rows, columns, images = batch.target_images.numpy().swapaxes(0, 1)
        stored = files[images, rows, columns]
        arrived = batch.target_pseudo_labels.numpy()
        pairs |= set(zip(stored.ravel().tolist(), arrived.ravel().tolist(), strict=True))
    return pairs


def test_c4_pseudo_labels_arrive_as_they_were_written(student_root: Path) -> None:
    """In their places, too: cropped and mirrored with their image."""
    pairs = in_file_and_batch(student_root, mapped_twice=False)
    assert pairs == {(value, value) for value in (*range(19), IGNORE_INDEX)}


def test_c4_mapped_twice_is_the_logs_table(student_root: Path) -> None:
    """The mistake on purpose, and so the control of the test above."""
    pairs = in_file_and_batch(student_root, mapped_twice=True)
    values = (*range(19), IGNORE_INDEX)
    assert pairs == {(value, C4_TABLE.get(value, IGNORE_INDEX)) for value in values}


def test_c4_the_mistake_has_to_be_asked_for(toy_root: Path) -> None:
    asked = {name for name in PRESETS if load_preset(name).data.pseudo_labels_mapped_twice}
    assert asked == {
        "toy_pseudo_label_mapped_twice",
        "logged_aagc_640x360_b2_single_cutmix_student_own",
        "logged_aagc_640x360_b2_single_cutmix_student_conf05",
    }
    experiment = tiny_preset("toy_source_only", toy_root)
    experiment.data.pseudo_labels_mapped_twice = True
    with pytest.raises(InputError, match=r"is set, but there are no data\.pseudo_labels"):
        validate(experiment)


# --- C5a: the target batch was the source batch


RED, BLUE = (220, 20, 20), (20, 20, 220)


@pytest.fixture(scope="module")
def colored_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root whose source is red and whose target is blue."""

    def pictures(color: tuple[int, int, int], count: int) -> list[Bytes]:
        return [np.full((*SIZE, 3), color, np.uint8)] * count

    return write_pictures(
        tmp_path_factory.mktemp("colored") / "root",
        source=pictures(RED, 2),
        target=pictures(BLUE, len(CITYSCAPES_STEMS)),
    )


def domain_of(images: Tensor) -> str:
    """The domain of images (N, 3, H, W), by their color."""
    (color,) = {tuple((255 * pixel).round().int().tolist()) for pixel in images.mean(dim=(2, 3))}
    return {RED: "source", BLUE: "target"}[color]


def domains_seen(experiment: Experiment) -> tuple[dict[str, str], list[str]]:
    """The domain that the student sees in each view of a step, and those whose predictions the
    discriminator sees: when it is fooled, as source, and as target."""
    experiment.train.log_every = 2  # a logged step also looks at target images that no view has
    run = tiny_run(experiment)
    said: list[tuple[str, Tensor]] = []
    judged: list[Tensor] = []

    def listen(_: nn.Module, inputs: tuple[Tensor], output: SegmentationOutput) -> None:
        said.append((domain_of(inputs[0]), output.logits.detach().softmax(dim=1)))

    run.student.register_forward_hook(listen)
    discriminators = run.objectives["adversarial"].get_submodule("discriminators")
    discriminators.get_submodule("main").register_forward_hook(
        lambda _, inputs, maps: judged.append(inputs[0].detach().clone())
    )
    result = train_step(run, next(loaded(experiment)))
    views = {view.name: domain_of(view.images) for view in result.views}
    assert list(views.values()) == [domain for domain, _ in said]
    whose = [{d for d, p in said if torch.equal(p, prediction)} for prediction in judged]
    return views, [domain for (domain,) in whose]


RIGHT = {"source": "source", "target": "target"}, ["target", "source", "target"]


@pytest.mark.parametrize("name", ["toy_adversarial", "aagc_640x360_b2_single"])
def test_c5a_the_target_batch_is_the_target(name: str, colored_root: Path) -> None:
    assert domains_seen(of_pictures(name, colored_root)) == RIGHT


def test_c5a_the_logs_slip_is_caught(colored_root: Path) -> None:
    """As the preset that repeats it, and in a preset that loads a target."""
    logged = of_pictures("logged_multi_640x360_lsgan_b2", colored_root)
    assert logged.data.target is None
    assert domains_seen(logged) == ({"source": "source"}, ["source"] * 3)
    slipped = of_pictures("toy_adversarial", colored_root)
    slipped.objectives["adversarial"].target_view = "source"  # type: ignore[attr-defined]
    assert domains_seen(slipped)[1] == ["source"] * 3
    with pytest.raises(InputError, match=r"data\.target is set, but no objective uses it"):
        validate(slipped)


def test_c5a_the_slip_in_the_loop_would_be_caught(
    colored_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log's line: the target's loader is advanced, and the source's batch is unpacked."""
    collect = _collect_views

    def slipped(
        run: Run, active: Mapping[str, Objective], batch: Batch, context: StepContext
    ) -> list[View]:
        return collect(run, active, replace(batch, target_images=batch.source_images), context)

    monkeypatch.setattr("uda.training.step._collect_views", slipped)
    views, judged = domains_seen(of_pictures("toy_adversarial", colored_root))
    assert views == {"source": "source", "target": "source"}
    assert judged == ["source"] * 3


# --- C5d: 255 in predictions


Histogram = Callable[[Tensor, Tensor], object]


def refuses(count: Histogram, prediction: int) -> bool:
    """Whether `count` refuses predictions (1, 2, 2) with a pixel of `prediction`."""
    predictions = torch.tensor([[[0, prediction], [2, 1]]])
    labels = torch.tensor([[[0, 0], [2, 1]]])
    try:
        count(predictions, labels)
    except InputError as error:
        message = str(error)
    else:
        return False
    assert f"predictions outside 0..18: {prediction};" in message
    return True


@pytest.mark.parametrize("prediction", [IGNORE_INDEX, 254, 19, -1])
def test_c5d_predictions_that_are_no_class_are_refused(prediction: int) -> None:
    matrix = ConfusionMatrix(19)
    assert refuses(matrix.update, prediction)
    assert matrix.counts.sum() == 0
    assert not refuses(matrix.update, 18)
    assert matrix.counts.sum() == 4


def test_c5d_the_logs_histogram_counted_them_as_something_else() -> None:
    counts: list[Tensor] = []

    def logs_histogram(predictions: Tensor, labels: Tensor) -> None:
        cells = 19 * labels.flatten() + predictions.flatten()
        counts.append(torch.bincount(cells, minlength=19 * 19).view(19, 19))

    assert not refuses(logs_histogram, IGNORE_INDEX)
    # 255 = 13 * 19 + 8: a road pixel without prediction is a car, taken for vegetation.
    assert counts[0][13, 8] == 1
    assert counts[0][0].sum() == 1


SURE = 5  # class of the upper half of each picture; the lower half is of class 8, but unsure


@pytest.fixture(scope="module")
def confident_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root whose target `ColorSegmenter` is sure of in the upper half, and not below."""
    train_ids = np.full(SIZE, SURE, np.uint8)
    train_ids[SIZE[0] // 2 :] = 8
    green = np.where(train_ids == SURE, 240, 16).astype(np.uint8)  # logits 15 and 1
    root = write_pictures(
        tmp_path_factory.mktemp("confident") / "root",
        source=[blocks(0)],
        target=[colors_of(train_ids, green)] * len(CITYSCAPES_STEMS),
    )
    for stem in CITYSCAPES_STEMS:  # to score the pseudo-labels on
        write_png(cityscapes_labels(root, stem), raw_labels(0, SIZE))
    return root


def test_c5d_unsure_pixels_are_255_from_the_file_to_the_loss(
    confident_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "snapshot.pth").write_bytes(b"weights")
    result = label_images(
        ColorSegmenter(),
        list_dataset(confident_root, "cityscapes", "train", labeled=True),
        tmp_path / "labels",
        threshold=0.5,  # e^15 / (e^15 + 18) is above it, e / (e + 18) below
        config=EvaluationConfig(dataset="cityscapes", input_size=None),
        label_space=CITYSCAPES,
        snapshot=tmp_path / "snapshot.pth",
        supervision="none",
    )
    assert result.scores is not None, "the log's script stumbled over 255 among its predictions"
    truth = CITYSCAPES.to_train_ids(raw_labels(0, SIZE), "drawn")
    scored = (truth[: SIZE[0] // 2] != IGNORE_INDEX).sum() * len(CITYSCAPES_STEMS)
    assert sum(map(sum, result.scores.confusion)) == scored
    assert result.manifest.share_kept == 0.5

    experiment = of_pictures("toy_class_mix_student", confident_root, steps=1)
    experiment.data.pseudo_labels = str(tmp_path / "labels")
    (batch,) = loaded(experiment)
    labels = batch.to_device(CPU).target_pseudo_labels
    assert labels is not None
    sure = batch.target_images[:, 1] > 128  # by the green of its pixels
    assert (labels[sure] == SURE).all()
    assert (labels[~sure] == IGNORE_INDEX).all()
    assert 0.3 < sure.float().mean() < 0.7

    # A student that says nothing: log 19 nats wherever there is a label, and nothing elsewhere.
    logits = torch.zeros(2, 19, *labels.shape[1:], requires_grad=True)
    output = SegmentationOutput(logits, None, logits)
    objective = PseudoLabelConfig(auxiliary_weight=0.0).build(19)
    view = View("target", batch.target_images, labels)
    loss = objective.terms(view, output, StepContext(0, 0, batch.indices))["main"]
    assert loss.item() == pytest.approx(np.log(19))
    loss.backward()
    assert logits.grad is not None
    learned = logits.grad.abs().sum(dim=1) > 0
    assert torch.equal(learned, sure)


# --- C5e: validation images went through the network in training mode


def buffers(network: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


def validation(root: Path) -> list[Sample]:
    return list_dataset(root, "cityscapes", "val", labeled=True)


def statistics_survive_evaluation(toy_root: Path) -> bool:
    run = tiny_run(from_the_start("cityscapes_seg", toy_root))
    steps(run, 1)
    before = buffers(run.student)
    assert "backbone.bn1.running_mean" in before
    assert run.student.training
    evaluate_student(run, CITYSCAPES, validation(toy_root), Stop())
    after = buffers(run.student)
    return all(torch.equal(before[name], after[name]) for name in before)


def training_survives_evaluation(toy_root: Path, folder: Path) -> bool:
    """Whether a run that is evaluated after each step ends like one evaluated at its end."""
    students = []
    for every in (1, 3):
        experiment = from_the_start("cityscapes_seg", toy_root)
        experiment.evaluation.every = every
        run_to_end(experiment, folder / f"{every}")
        students.append(read(folder / f"{every}" / "resume.pth")["student"])
    often, once = students
    return all(torch.equal(often[name], once[name]) for name in once)


def test_c5e_validation_images_never_touch_the_statistics(toy_root: Path, tmp_path: Path) -> None:
    assert statistics_survive_evaluation(toy_root)
    assert training_survives_evaluation(toy_root, tmp_path)


def test_c5e_the_logs_validation_loss_is_caught(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_a_validation_loss(
        segmenter: Segmenter,
        samples: Sequence[Sample],
        *,
        config: EvaluationConfig,
        label_space: LabelSpace,
        **_: object,
    ) -> Measured:
        segmenter.train()
        segmenter(torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0)))
        return evaluate(segmenter, samples, config=config, label_space=label_space)

    monkeypatch.setattr(uda.training.records, "evaluate", with_a_validation_loss)
    assert not statistics_survive_evaluation(toy_root)
    assert not training_survives_evaluation(toy_root, tmp_path)


# --- C5f: a resumed run had forgotten all but the student's weights


def everything_that_moves(toy_root: Path) -> Experiment:
    """Momenta of two kinds, discriminators, class balance and a teacher."""
    experiment = from_the_start("aagc_640x360_b2", toy_root, steps=6)
    experiment.objectives["class_mix"] = ClassMixConfig(threshold=0.056, confidence="pixel")
    experiment.teacher = TeacherConfig()
    experiment.train.optimizer.lr = 0.01
    return experiment


def move(run: Run, count: int) -> None:
    """`count` steps on random images, with the classes 0 to 5 up to the third and others then."""
    batch = quarter(batch_for(run.experiment))
    labels = batch.source_labels
    others = torch.where(labels == IGNORE_INDEX, labels, labels + 6)
    for _ in range(count):
        train_step(run, batch if run.step < 3 else replace(batch, source_labels=others))


@pytest.fixture(scope="module")
def moved(toy_root: Path) -> Run:
    """A run after three of its six steps. Only read it."""
    run = tiny_run(everything_that_moves(toy_root))
    move(run, 3)
    return run


@pytest.fixture(scope="module")
def saved(moved: Run, toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Its state as resume.pth brings it back."""
    path = tmp_path_factory.mktemp("resumed") / "run"
    path.mkdir()
    experiment = moved.experiment
    data = open_training_data(experiment.data, seed=0, evaluated="cityscapes")
    folder = RunFolder(path, "tiny", to_plain(experiment), data, data.supervision, "random")
    folder.save_resume(moved.state())
    return folder.load_resume().state


def two_steps_after(state: Mapping[str, Any], experiment: Experiment) -> dict[str, Tensor]:
    """The student two steps after a new process took over `state`."""
    run = tiny_run(experiment)
    run.load_state(copy.deepcopy(dict(state)))
    assert run.step == state["step"]
    move(run, 2)
    return {name: tensor.clone() for name, tensor in run.student.state_dict().items()}


def test_c5f_a_resumed_run_has_forgotten_nothing(moved: Run, saved: dict[str, Any]) -> None:
    resumed = tiny_run(moved.experiment)
    resumed.load_state(saved)
    assert_same(resumed.state(), moved.state())
    straight = tiny_run(moved.experiment)
    move(straight, 5)
    assert_same(two_steps_after(saved, moved.experiment), straight.student.state_dict())


def forget(state: dict[str, Any], path: str, new: Mapping[str, Any]) -> None:
    """The part of `state` at `path` becomes what it is in a new run."""
    *parents, last = path.split("/")
    for name in parents:
        state, new = state[name], new[name]
    state[last] = new[last]


PARTS = {
    "momentum": ("optimizers/student/state",),
    "the discriminators' moments": ("optimizers/adversarial/state",),
    "discriminators": ("objectives/adversarial",),
    "class balance": ("objectives/supervised/balance.rarity",),
    "teacher": ("teacher",),
    "student": ("student",),
    "step": ("step",),
    "all but the student, as in the log": ("optimizers", "objectives", "teacher", "step"),
}


@pytest.mark.parametrize("part", PARTS)
def test_c5f_any_part_that_is_lost_shows_in_the_student(
    part: str, moved: Run, saved: dict[str, Any]
) -> None:
    new = tiny_run(moved.experiment).state()
    state = copy.deepcopy(saved)
    for path in PARTS[part]:
        forget(state, path, new)
    assert_different(
        two_steps_after(state, moved.experiment), two_steps_after(saved, moved.experiment)
    )


# --- C5g: networks were read in the first fifth of a schedule


TRAINING = tuple(name for name in PRESETS if load_preset(name).train.steps > 0)
PLAIN = tuple(name for name in TRAINING if not name.startswith("logged_"))
LOGGED = tuple(name for name in TRAINING if name.startswith("logged_"))


def rate_at(train: TrainConfig, step: int) -> float:
    """The learning rate of the update that `step` updates came before."""
    return train.optimizer.lr * learning_rate_factor(
        step, steps=train.decay_steps(step), warmup_steps=train.warmup_steps, power=train.power
    )


def ends_where_it_is_read(train: TrainConfig) -> bool:
    last = rate_at(train, train.steps - 1) / train.optimizer.lr
    return last < 2 * (1 / train.steps) ** 0.9


@pytest.mark.parametrize("name", PLAIN)
def test_c5g_a_schedule_ends_where_its_network_is_read(name: str) -> None:
    train = load_preset(name).train
    assert train.schedule_steps is None
    assert train.restart is None
    assert ends_where_it_is_read(train)


@pytest.mark.parametrize("name", LOGGED)
def test_c5g_the_logs_schedules_are_caught(name: str) -> None:
    train = load_preset(name).train
    assert train.schedule_steps is not None
    assert train.schedule_steps > train.steps
    assert train.restart is None or train.restart.schedule_steps > train.steps
    assert not ends_where_it_is_read(train)


@pytest.mark.parametrize(
    ("name", "step", "rate"),
    [
        # 2e-4 * (1 - 40000 / 250000) ** 0.9
        ("logged_aagc_640x360_b2", 39_999, 1.7e-4),
        ("logged_aagc_640x360_b2_single_cutmix", 29_999, 1.78e-4),
        # From 30000 on 2e-4 * (1 - step / 45000) ** 0.9: most of the log's gain by CutMix.
        ("logged_aagc_640x360_b2_single_cutmix", 30_001, 7.4e-5),
        ("logged_aagc_640x360_b2_single_cutmix", 39_999, 2.8e-5),
        ("aagc_640x360_b2", 44_999, 1.3e-8),
    ],
)
def test_c5g_rates_as_the_log_had_them(name: str, step: int, rate: float) -> None:
    assert rate_at(load_preset(name).train, step) == pytest.approx(rate, rel=0.02)


def test_c5g_the_last_step_is_the_one_that_is_read(toy_root: Path, tmp_path: Path) -> None:
    experiment = from_the_start("toy_source_only", toy_root)
    experiment.train.warmup_steps = 0
    experiment.evaluation.every = 2
    run_to_end(experiment, tmp_path / "run")
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines if "miou" in line] == [2, 3]
    rates = [line["lr"] for line in lines if "lr" in line]
    lr = experiment.train.optimizer.lr
    assert rates == pytest.approx([lr, lr * (2 / 3) ** 0.9, lr * (1 / 3) ** 0.9])


# --- C5i, C5j, C5k: no seed, half of a head, and a backbone that moved three times a step


def test_c5i_the_seed_is_used(toy_root: Path) -> None:
    states = []
    for seed in (0, 0, 1):
        experiment = tiny_preset("aagc_640x360_b2", toy_root)
        experiment.train.seed = seed
        run = tiny_run(experiment)
        steps(run, 1)
        states.append(run.state())
    assert_same(states[0], states[1])
    assert_different(states[0], states[2])


def test_c5j_how_many_branches_are_summed_is_an_option(toy_root: Path) -> None:
    """The log's return inside a loop built four and summed two."""
    for branches in (2, 4):
        config = DeepLabV2Config(
            backbone="resnet18", backbone_weights="none", backbone_width=8, levels=1, head="sum",
            aspp_rates=(1, 2, 18, 24), aspp_branches=branches, dropout=0.0,
        )  # fmt: skip
        network = config.build(19)
        features = torch.rand(1, 64, 6, 8)
        convolutions = network.get_submodule("main.conv2d_list").children()
        expected = torch.stack([branch(features) for branch in convolutions][:branches]).sum(dim=0)
        torch.testing.assert_close(network.get_submodule("main")(features), expected)
        # The others are no weights that training only seems to move.
        trained = {id(weight) for weight in network.head_parameters()}
        held = [id(branch.weight) in trained
                for branch in network.get_submodule("main.conv2d_list").children()]  # fmt: skip
        assert held == [place < branches for place in range(4)]


def displacements(toy_root: Path, factor: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """How far one step of plain SGD moves each trained weight, and the gradient that it followed,
    in a run with this factor for its backbone."""
    experiment = from_the_start("gc_640x360_b2_source_only", toy_root)
    train = experiment.train
    train.optimizer = replace(train.optimizer, lr=0.1, momentum=0, nesterov=False, weight_decay=0)
    train.warmup_steps, train.backbone_lr_factor = 0, factor
    run = tiny_run(experiment)
    weights = {name: w for name, w in run.student.named_parameters() if w.requires_grad}
    before = {name: weight.detach().double() for name, weight in weights.items()}
    steps(run, 1)
    moved = {name: weight.detach().double() - before[name] for name, weight in weights.items()}
    return moved, {name: some_tensor(weight.grad).double() for name, weight in weights.items()}


def some_tensor(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def test_c5k_the_backbones_factor_moves_the_backbone_and_nothing_else(toy_root: Path) -> None:
    """What the log had by accident: three times the step that its settings say."""
    once, gradients = displacements(toy_root, 1.0)
    thrice, _ = displacements(toy_root, 3.0)
    assert sum(name.startswith("backbone.") for name in once) > 10
    for name, moved in once.items():
        ours = name.startswith("backbone.")
        # lr * factor * gradient, at the first step of a schedule; heads have a factor of 10.
        expected = -0.1 * (1 if ours else 10) * gradients[name]
        torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(thrice[name], (3 if ours else 1) * moved, rtol=1e-3, atol=1e-7)


def test_c5k_a_weight_that_is_held_thrice_moves_thrice(toy_root: Path) -> None:
    """The log's generator yields a weight once for every module around it; ours only once."""
    backbone = tiny_run(from_the_start("gc_640x360_b2_source_only", toy_root)).student.backbone
    stages = [child for child in backbone.children() if list(child.parameters())]

    def logs_parameters() -> Iterator[nn.Parameter]:
        for stage in stages:
            for module in stage.modules():
                yield from module.parameters()

    for name, times in (("layer4.0.conv1.weight", 3), ("layer4.0.downsample.0.weight", 4)):
        weight = backbone.get_parameter(name)
        assert sum(held is weight for held in logs_parameters()) == times
        assert sum(held is weight for held in backbone.parameters()) == 1
    student = tiny_run(from_the_start("gc_640x360_b2_source_only", toy_root)).student
    ours = [*student.backbone_parameters(), *student.head_parameters()]
    assert len({id(parameter) for parameter in ours}) == len(ours)


# --- restarts: what C5f and C5g did together to the log's CutMix runs, on purpose


def restarted(toy_root: Path, *, at_step: int | None = 3) -> Experiment:
    """Six steps of a schedule of ten; from `at_step` on, everything anew under one of twelve."""
    experiment = from_the_start("aagc_640x360_b2_single", toy_root, steps=6)
    experiment.data.crop = (32, 64)
    experiment.train.warmup_steps = 0
    experiment.train.schedule_steps = 10
    if at_step is not None:
        experiment.train.restart = RestartConfig(at_step=at_step, schedule_steps=12)
    return experiment


def test_restart_begins_all_anew_but_the_student(
    toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(restarted(toy_root))
    move(run, 3)
    before = copy.deepcopy(run.state())
    at_restart: list[dict[str, Any]] = []
    collect = _collect_views

    def watched(
        run: Run, active: Mapping[str, Objective], batch: Batch, context: StepContext
    ) -> list[View]:
        at_restart.append(copy.deepcopy(run.state()))
        return collect(run, active, batch, context)

    monkeypatch.setattr("uda.training.step._collect_views", watched)
    move(run, 1)
    (after,) = at_restart
    assert_same(after["student"], before["student"])
    assert before["optimizers"]["student"]["state"]
    for optimizer in after["optimizers"].values():
        assert optimizer["state"] == {}
    # Class balance begins at 1; three steps without a class make 1 + 6 * (1 - 0.9 ** 3) of it.
    assert before["objectives"]["supervised"]["balance.rarity"].max() == pytest.approx(2.626)
    assert after["objectives"]["supervised"]["balance.rarity"].tolist() == [1.0] * 19
    old, new = (state["objectives"]["adversarial"] for state in (before, after))
    matrices = [name for name, weight in old.items() if weight.ndim == 4]
    assert len(matrices) > 8
    for name in matrices:
        assert old[name].shape == new[name].shape
        assert not torch.isclose(old[name], new[name]).all(), name


def test_restart_changes_the_schedule(toy_root: Path) -> None:
    """By hand: (1 - step / 10) ** 0.9 up to the restart, then (1 - step / 12) ** 0.9."""
    run = tiny_run(restarted(toy_root))
    rates = []
    for _ in range(6):
        move(run, 1)
        rates.append([run.optimizers[name].param_groups[0]["lr"] for name in run.optimizers])
    factors = [1, 0.909533, 0.818052, 0.771890, 0.694253, 0.615638]
    assert list(run.optimizers) == ["student", "adversarial"]
    assert rates == [pytest.approx([2e-4 * f, 1e-4 * f], rel=1e-5) for f in factors]


def test_restart_happens_at_its_step_and_only_once(toy_root: Path) -> None:
    straight, early, late = (
        tiny_run(restarted(toy_root, at_step=at_step)) for at_step in (None, 2, 4)
    )
    for run in (straight, early, late):
        move(run, 2)
    assert_same(straight.state(), early.state())
    for run in (straight, early, late):
        move(run, 2)
    assert_same(straight.state(), late.state())
    assert_different(straight.state()["objectives"], early.state()["objectives"])
    # The second of two steps since: Adam counts them.
    moments = early.state()["optimizers"]["adversarial"]["state"].values()
    assert {int(moment["step"]) for moment in moments} == {2}


@pytest.mark.parametrize("at", [2, 3, 4])
def test_a_run_interrupted_around_its_restart_equals_a_straight_one(
    at: int, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = restarted(toy_root)
    experiment.train.resume_every = 1
    run_to_end(experiment, tmp_path / "straight")

    def step(run: Run, batch: Batch) -> StepResult:
        if run.step == at:
            raise KeyboardInterrupt
        return train_step(run, batch)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "train_step", step)
        with pytest.raises(KeyboardInterrupt):
            run_to_end(experiment, tmp_path / "resumed")
    assert read(tmp_path / "resumed/resume.pth")["step"] == at
    run_to_end(experiment, tmp_path / "resumed", resume=True)
    straight, resumed = (read(tmp_path / run / "resume.pth") for run in ("straight", "resumed"))
    assert straight["step"] == 6
    assert_same(straight, resumed)
    assert metrics(tmp_path / "straight") == metrics(tmp_path / "resumed")
