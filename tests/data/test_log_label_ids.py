"""The experiment log's mistakes as tests: C4, train ids were mapped a second time.

Files of train ids were read as files of raw ids.
"""

from pathlib import Path

import numpy as np
import pytest

from factories import (
    CITYSCAPES_STEMS,
    Bytes,
    cityscapes_labels,
    raw_labels,
    write_cityscapes,
    write_gta5,
    write_png,
)
from log_lessons import (
    SIZE,
    blocks,
    from_the_start,
    loaded,
    of_pictures,
    run_to_end,
    write_pictures,
)
from tiny_runs import (
    tiny_preset,
    write_pseudo_labels,
)
from uda.data.batch import Batch
from uda.data.pseudo_label_folder import file_name
from uda.experiment import validate
from uda.experiments import PRESETS, load_preset
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX
from uda.training import loop as engine
from uda.training.run import Run, StepResult
from uda.training.step import train_step
from uda.utilities.errors import InputError

C4_TABLE = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5}  # all other train ids became 255
VAL_STEM = "munster_000000_000019"
PLACES = ("source", "target", "validation")


def write_train_ids(root: Path, place: str, *, ignored: int) -> None:
    """Writes all data sets. One has train ids as labels, with `ignored` for unlabeled pixels."""
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
    """It mapped any value, and unknown values became 255."""

    def logs_reader(raw: Bytes) -> Bytes:
        train = np.full_like(raw, IGNORE_INDEX)
        for raw_id, train_id in CITYSCAPES.raw_to_train.items():
            train[raw == raw_id] = train_id
        return train

    train_ids = np.array([[*range(19), IGNORE_INDEX]], np.uint8)
    again = logs_reader(train_ids)
    changed = {i: int(new) for i, new in enumerate(again[0, :19]) if new != IGNORE_INDEX}
    assert changed == C4_TABLE
    with pytest.raises(InputError, match="255 means the file has train ids already"):
        CITYSCAPES.to_train_ids(train_ids, "labelIds.png")


@pytest.fixture(scope="module")
def student_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root whose target pixels encode their place (row, column, image). Next to it are
    pseudo-labels with every train id and 255."""
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
    """(H, W) train ids and 255, sampled for each pixel."""
    ids = np.array([*range(19), IGNORE_INDEX], np.uint8)
    return np.random.default_rng(index).choice(ids, SIZE)


def in_file_and_batch(root: Path, *, mapped_twice: bool) -> set[tuple[int, int]]:
    """Pairs (value in the file, value in the batch) of all pixels in a student's batches."""
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
    """They are cropped and mirrored with their image."""
    pairs = in_file_and_batch(student_root, mapped_twice=False)
    assert pairs == {(value, value) for value in (*range(19), IGNORE_INDEX)}


def test_c4_mapped_twice_is_the_logs_table(student_root: Path) -> None:
    """The mistake on purpose: the control of the test above."""
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
    (remark,) = validate(experiment).remarks
    assert remark.endswith("mapped_twice (True) is not used, as there are no pseudo-labels")
