"""Rare class sampling: probabilities, what is counted and kept, and which samples come."""

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

import tiny_runs
from factories import describe_city, noise, write_png
from interruptions import run_to_end
from processes import finished, torchrun
from shells import CLASS_MIX
from tiny_runs import REPOSITORY, batch_tensors, interrupt, start_process, tiny_options, tiny_preset
from uda.checkpoints.snapshots import read
from uda.data import known_files
from uda.data.batch import Batch
from uda.data.config import DataConfig, DomainConfig, RareClassConfig
from uda.data.crops import ShownClass, choose_place
from uda.data.known_files import KnownFiles
from uda.data.rare_classes import class_probabilities, open_rare_classes, rare_classes
from uda.data.registry import list_domain
from uda.data.sampling import TrainingDataset, batches
from uda.data.training import TrainingData, open_training_data
from uda.experiment import Experiment, validate
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX
from uda.objectives.entropy import EntropyConfig
from uda.training.run_folder import samples_digest
from uda.utilities import reading
from uda.utilities.errors import InputError, WriteError

# Train ids and pixels of the 2975 training label maps of Cityscapes, as published with VFM-UDA.
CITYSCAPES_PIXELS = (
    2036416525, 336090793, 1260636120, 36199498, 48454166, 67789506, 11477088, 30448193, 879783988,
    63949536, 221979646, 67326424, 7463162, 386328286, 14772328, 12990290, 12863955, 5449152,
    22861233,
)  # fmt: skip
OF_CITYSCAPES = {17: 0.1127, 12: 0.1087, 6: 0.1011, 16: 0.0986, 15: 0.0984, 14: 0.0952, 18: 0.0823,
                 7: 0.0717, 3: 0.0646, 4: 0.0518, 9: 0.0391, 11: 0.0368, 5: 0.0365, 10: 0.0022,
                 1: 0.0003, 13: 0.0001, 8: 0, 2: 0, 0: 0}  # fmt: skip

RULES = RareClassConfig(temperature=0.1, min_pixels=1000, min_crop_pixels=300, tries=3)


# --- probabilities


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (0.01, (0, 5.6e-9, 0.000335, 0.999665)),
        (0.05, (8e-7, 0.018273, 0.164912, 0.816814)),
        (0.1, (0.000630, 0.093486, 0.280847, 0.625037)),
        (1.0, (0.154253, 0.254320, 0.283892, 0.307536)),
    ],
)
def test_probabilities_of_four_classes(temperature: float, expected: tuple[float, ...]) -> None:
    pixels = np.array([700, 200, 90, 10])
    found = class_probabilities(pixels, temperature, pixels > 0)
    assert found == pytest.approx(expected, rel=5e-3, abs=5e-7)
    absent = np.array([700, 200, 0, 90, 10])  # a class that does not occur takes no part
    assert class_probabilities(absent, temperature, absent > 0)[[0, 1, 3, 4]] == pytest.approx(
        found
    )


def test_probabilities_of_cityscapes() -> None:
    pixels = np.array(CITYSCAPES_PIXELS)
    assert pixels.sum() == 5523279889
    found = class_probabilities(pixels, 0.01, pixels > 0)
    assert found == pytest.approx([OF_CITYSCAPES[c] for c in range(19)], abs=5e-5)
    flatter = class_probabilities(pixels, 0.05, pixels > 0)
    assert flatter[[17, 12]] == pytest.approx((0.0772, 0.0766), abs=5e-5)


def test_only_images_with_more_pixels_are_candidates() -> None:
    counts = np.zeros((4, 19), np.int64)
    counts[:, 0] = (3000, 3001, 9000, 5)
    counts[2, 5] = 3000
    counts[3, 7] = 3001
    rare = rare_classes(counts, RareClassConfig(), CITYSCAPES)
    assert [place.tolist() for place in rare.candidates if len(place)] == [[1, 2], [3]]
    assert rare.without_candidates == ("pole",)
    # Shares are those of all pixels, also of the class that is never chosen.
    total = counts.sum()
    ratio = np.exp((counts[:, 0].sum() - 3001) / total / 0.01)
    assert rare.probabilities[7] / rare.probabilities[0] == pytest.approx(ratio)
    assert rare.probabilities.sum() == pytest.approx(1)
    assert rare.line == (
        "traffic sign 100.0 %, 1 more below 0.1 %; never chosen, as no image has more than 3000 "
        "pixels: pole"
    )


def test_without_any_candidate_a_run_is_refused() -> None:
    counts = np.full((2, 19), 3000)
    with pytest.raises(InputError, match=r"more than 3000 pixels of a class: add --set data\.rare_"
                                         r"classes\.min_pixels=150$"):  # fmt: skip
        rare_classes(counts, RareClassConfig(), CITYSCAPES)
    with pytest.raises(InputError, match=r"rare_classes=none, or choose another source"):
        rare_classes(counts * 0, RareClassConfig(min_pixels=0), CITYSCAPES)


def test_the_lowest_temperature_chooses_one_class() -> None:
    counts = np.array([[5000, 4000, 6000] + [0] * 16])
    rare = rare_classes(counts, RareClassConfig(temperature=1e-6), CITYSCAPES)
    assert rare.probabilities[:3].tolist() == [0, 1, 0]
    assert rare.choose(np.random.default_rng(0))[1].train_id == 1


def test_classes_come_as_often_as_they_should_and_images_uniformly() -> None:
    counts = np.zeros((5, 19), np.int64)
    counts[:3, 0], counts[3:, 1] = 6000, 4000
    rare = rare_classes(counts, RareClassConfig(temperature=1.0), CITYSCAPES)
    chosen = [rare.choose(np.random.default_rng(k)) for k in range(2000)]
    assert all((place < 3) == (shown.train_id == 0) for place, shown in chosen)
    times = np.bincount([place for place, _ in chosen])
    expected = [rare.probabilities[0] / 3] * 3 + [rare.probabilities[1] / 2] * 2
    assert times / 2000 == pytest.approx(expected, abs=0.03)


# --- crops


class Tried(NamedTuple):
    """Crops of a row of pixels, one each, by a generator that returns its places in turn."""

    place: int
    crops: int


def tried(labels: list[int], places: list[int], rules: RareClassConfig, **domain: object) -> Tried:
    class Given:
        crops = 0

        def integers(self, room: int) -> int:
            if room == 1:  # the only row
                return 0
            self.crops += 1
            return places[self.crops - 1]

    rng = Given()
    config = replace(DomainConfig(datasets=("gta5",)), **domain)  # type: ignore[arg-type]
    row = np.array([labels], np.uint8)
    found = choose_place(row, row.shape, (1, 2), config, rng, ShownClass(7, rules))  # type: ignore[arg-type]
    return Tried(found.left, rng.crops)


def test_a_crop_is_sampled_again_until_it_shows_the_class() -> None:
    row = [0, 0, 7, 7, 0, 7]
    rules = RareClassConfig(min_crop_pixels=1, tries=3)
    assert tried(row, [0, 1, 2, 9], rules) == (2, 3)  # more than one pixel of it: both
    assert tried(row, [0, 1, 3, 4, 2], rules) == (4, 4)  # three times at most; the last is kept
    assert tried(row, [0, 1], replace(rules, min_crop_pixels=0)) == (1, 2)
    assert tried(row, [0], replace(rules, tries=0)) == (0, 1)


def test_every_try_is_a_crop_that_the_other_rules_chose() -> None:
    """DAFormer: crops of one class are sampled again before the pixels of the class are counted,
    and a crop that the last of them leaves counts as well."""
    row = [0, 0, 7, 7, 0, 7]
    rules = RareClassConfig(min_crop_pixels=0, tries=2)
    shares = {"crop_max_share": 0.75, "crop_tries": 2}
    assert tried(row, [0, 1], rules, **shares) == (1, 2)  # one class; two classes with a 7
    assert tried(row, [0, 2], rules, **shares) == (2, 2)  # the second one class is kept: it has 7
    assert tried(row, [0, 0, 0, 0, 0, 0], rules, **shares) == (0, 6)


def test_or_all_rules_have_to_hold_at_once() -> None:
    """VFM-UDA: so many tries, each of one crop, then one that is kept as it is."""
    row = [0, 0, 7, 7, 0, 7]
    rules = RareClassConfig(min_crop_pixels=0, tries=3, joint_tries=True)
    shares = {"crop_max_share": 0.75, "crop_tries": 2}
    assert tried(row, [0, 2, 3], rules, **shares) == (3, 3)
    assert tried(row, [0, 2, 0, 2], rules, **shares) == (2, 4)


# --- counts


@pytest.fixture
def root(toy_root: Path, tmp_path: Path) -> Path:
    """A toy city of its own, written a while ago, without labels of its target."""
    root = tmp_path / "city"
    shutil.copytree(toy_root, root)
    shutil.rmtree(root / "Cityscapes/gtFine/train")
    then = time.time() - 86400
    for path in root.rglob("*.png"):
        os.utime(path, (then, then))
    return root


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pictures that are opened."""
    original, names = reading.opened, list[str]()

    def counted(path: Path) -> BufferedReader:
        names.append(str(path))
        return original(path)

    monkeypatch.setattr("uda.data.files.open_file", counted)
    return names


def data_of(root: Path, **fields: object) -> DataConfig:
    source = DomainConfig(datasets=("gta5",), size=(64, 128), scale=(0.8, 1.2), mirror=True)
    target = DomainConfig(datasets=("cityscapes",), size=(48, 96))
    data = DataConfig(root=str(root), source=source, target=target, crop=(32, 64), workers=0,
                      rare_classes=replace(RULES))  # fmt: skip
    return replace(data, **fields)  # type: ignore[arg-type]


def open_data(data: DataConfig) -> TrainingData:
    data.check("data")
    return open_training_data(data, seed=0, evaluated="cityscapes")


def counts_of(data: DataConfig) -> np.ndarray:
    assert data.source is not None
    source = list_domain(data, data.source, labeled=True)
    seen: list[np.ndarray] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uda.data.rare_classes.rare_classes", lambda counts, *_: seen.append(counts))
        open_rare_classes(data, source, CITYSCAPES, KnownFiles())
    return seen[0]


def counted_here(root: Path, *folders: str) -> list[list[int]]:
    found = []
    for path in sorted(path for folder in folders for path in (root / folder / "labels").iterdir()):
        with Image.open(path) as labels:
            ids = CITYSCAPES.to_train_ids(np.asarray(labels), str(path))
        found.append(np.bincount(ids.ravel(), minlength=IGNORE_INDEX + 1)[:19].tolist())
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_label_files_are_counted_as_stored(root: Path, workers: int) -> None:
    data = data_of(root, workers=workers)
    assert counts_of(data).tolist() == counted_here(root, "GTA5")


def test_they_are_counted_once(root: Path, opened: list[str]) -> None:
    first = counts_of(data_of(root))
    assert len(opened) == 6
    kept = root / "GTA5/class_pixels_gta5.json"
    assert len(json.loads(kept.read_text())["files"]) == 6
    opened.clear()
    assert counts_of(data_of(root)).tolist() == first.tolist()
    assert opened == []
    path = root / "GTA5/labels/00003.png"
    write_png(path, np.full((64, 128), 7, np.uint8))
    os.utime(path, (time.time() - 999,) * 2)
    again = counts_of(data_of(root))
    assert opened == [str(path)]
    assert again[2].tolist() == [64 * 128] + [0] * 18
    whole = kept.read_text()
    for damaged in ("{", re.sub(r"\[(\d+),", r"[[\1],", whole), whole.replace(",0", ""),
                    whole.replace(",0", ",-1"), whole.replace(",0", ",0.5")):  # fmt: skip
        kept.write_text(damaged)  # costs time only
        assert counts_of(data_of(root)).tolist() == again.tolist()


def test_another_label_space_is_counted_for_itself(root: Path) -> None:
    described, _ = describe_city(root, root)
    before = counts_of(data_of(root))
    source = DomainConfig(datasets=(str(described),), size=(64, 128))
    assert counts_of(data_of(root, source=source)).tolist() == before.tolist()
    assert len(list(root.rglob("class_pixels_*.json"))) == 2


def test_several_data_sets_parts_and_exclusions(root: Path) -> None:
    everything = counted_here(root, "GTA5") + counted_here(root, "CycleGTA5")
    source = DomainConfig(datasets=("gta5", "cyclegta5"), size=(64, 128))
    assert counts_of(data_of(root, source=source)).tolist() == everything
    names = {path.name for path in root.rglob("class_pixels_*.json")}
    assert names == {"class_pixels_gta5.json", "class_pixels_cyclegta5.json"}
    part = data_of(root, source=replace(source, first=3), exclude=("gta5/00002",))
    assert counts_of(part).tolist() == [everything[place] for place in (0, 2, 3)]


def test_labels_of_translated_images_have_their_own_size(root: Path) -> None:
    for path in (root / "CycleGTA5/images").iterdir():
        write_png(path, noise(0, (32, 64)))
    source = DomainConfig(datasets=("cyclegta5",), size=(64, 128))
    data = data_of(root, source=source)
    assert counts_of(data).tolist() == counted_here(root, "CycleGTA5")
    assert len(stream(open_data(data).dataset)) == 6


def test_what_was_counted_before_an_error_is_kept(root: Path, opened: list[str]) -> None:
    path = root / "GTA5/labels/00004.png"
    content = path.read_bytes()
    for bad, message in ((b"no picture", "cannot be decoded"), (None, "label values 200")):
        if bad is None:
            write_png(path, np.full((64, 128), 200, np.uint8))
        else:
            path.write_bytes(bad)
        with pytest.raises(InputError, match=rf"00004\.png.*{message}"):
            counts_of(data_of(root))
    path.write_bytes(content)
    opened.clear()
    counts_of(data_of(root))
    assert [Path(name).stem for name in opened] == ["00004", "00005", "00006"]


def test_a_killed_count_continues(root: Path, monkeypatch: pytest.MonkeyPatch,
                                  opened: list[str]) -> None:  # fmt: skip
    """It saves every so often, here after each file; this one is killed after the second."""
    monkeypatch.setattr("uda.data.class_pixels._SAVE_EVERY", -1)
    save, saved = known_files.FileCache.save, list[int]()

    class Killed(BaseException):
        pass

    def watched(cache: known_files.FileCache, *, always: bool = False) -> None:
        if len(saved) == 3:
            raise Killed
        saved.append(1)
        save(cache, always=always)

    monkeypatch.setattr(known_files.FileCache, "save", watched)
    with pytest.raises(Killed):
        counts_of(data_of(root))
    monkeypatch.setattr(known_files.FileCache, "save", save)
    opened.clear()
    assert counts_of(data_of(root)).tolist() == counted_here(root, "GTA5")
    assert len([name for name in opened if "labels" in name]) == 4


def test_a_folder_that_takes_no_file_is_refused_before_the_work(
    root: Path, opened: list[str], tmp_path: Path
) -> None:
    (root / "GTA5/class_pixels_gta5.json").mkdir()  # whoever may write everywhere cannot here
    with pytest.raises(WriteError, match=r"class_pixels_gta5\.json cannot be written .*; name a "
                       r"folder .* --set data\.rare_classes\.statistics=FOLDER"):  # fmt: skip
        counts_of(data_of(root))
    assert opened == []
    elsewhere = replace(RULES, statistics=str(tmp_path / "new/folder"))
    expected = counted_here(root, "GTA5")
    assert counts_of(data_of(root, rare_classes=elsewhere)).tolist() == expected
    assert (tmp_path / "new/folder/class_pixels_gta5.json").is_file()


# --- samples


def stream(data: TrainingDataset, *, first_step: int = 0, workers: int = 0) -> list[Batch]:
    return list(batches(data, batch_size=2, first_step=first_step, steps=6, workers=workers))


def assert_equal(ours: list[Batch], theirs: list[Batch]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert (one.source_names, one.target_names) == (other.source_names, other.target_names)
        left, right = batch_tensors(one), batch_tensors(other)
        assert all(torch.equal(left[name], right[name]) for name in left)


def test_neither_processes_nor_interruptions_change_a_sample(root: Path) -> None:
    data = open_data(data_of(root)).dataset
    alone = stream(data)
    assert_equal(alone, stream(data, workers=2))
    assert_equal(alone[4:], stream(open_data(data_of(root)).dataset, first_step=4))


def test_samples_show_the_class_that_they_are_chosen_for(root: Path) -> None:
    data = open_data(data_of(root)).dataset
    (rare,) = data.rare_classes
    counts = np.array(counted_here(root, "GTA5"))
    shows, chosen = [], []
    for k in range(40):
        sample, shown = data._choose(k, 0, data.source)
        assert shown is not None
        place = data.source.index(sample)
        assert counts[place, shown.train_id] > RULES.min_pixels
        found = data[k]
        assert not isinstance(found, InputError)
        assert found.source is not None
        assert found.source_name == sample.name
        assert found.source.labels is not None
        chosen.append(shown.train_id)
        shows.append(np.count_nonzero(found.source.labels == shown.train_id) > 300)
    assert np.mean(shows) > 0.8
    assert set(chosen) <= set(np.flatnonzero(rare.probabilities).tolist())


def test_target_images_come_with_replacement_or_in_passes(root: Path) -> None:
    def targets(rules: RareClassConfig) -> list[str]:
        found = stream(open_data(data_of(root, rare_classes=rules)).dataset)
        return [name for batch in found for name in batch.target_names]

    assert len(set(targets(RULES)[:6])) < 6
    passes = targets(replace(RULES, target_with_replacement=False))
    assert len(set(passes[:6])) == len(set(passes[6:])) == 6
    plain = stream(open_data(data_of(root, rare_classes=None)).dataset)
    assert passes == [name for batch in plain for name in batch.target_names]


def test_no_label_of_the_target_is_opened(toy_root: Path, tmp_path: Path) -> None:
    """Source and target are splits of one data set in one folder."""
    root = tmp_path / "city"
    shutil.copytree(toy_root, root)
    touched: list[str] = []
    watching = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event in ("open", "os.listdir", "os.scandir"):
            touched.append(str(arguments[0]))

    sys.addaudithook(hook)
    source = DomainConfig(datasets=("cityscapes",), splits=("val",), size=(64, 128))
    found = stream(open_data(data_of(root, source=source)).dataset)
    watching = False
    assert any("gtFine/val" in path for path in touched)
    assert not [path for path in touched if "gtFine/train" in path]
    shutil.rmtree(root / "Cityscapes/gtFine/train")
    (root / "Cityscapes/class_pixels_cityscapes.json").unlink(missing_ok=True)
    assert_equal(found, stream(open_data(data_of(root, source=source)).dataset))


def test_a_run_belongs_to_its_counts(root: Path) -> None:
    """A label file that changes changes the digest that --resume compares; pixels that move inside
    it do not, as neither do images."""

    def digest(data: DataConfig) -> str:
        return samples_digest(open_data(data))

    before, plain = digest(data_of(root)), digest(data_of(root, rare_classes=None))
    assert before != plain
    assert digest(data_of(root)) == before
    path = root / "GTA5/labels/00001.png"
    with Image.open(path) as labels:
        pixels = np.asarray(labels)
    write_png(path, pixels[::-1])
    assert digest(data_of(root)) == before
    write_png(path, np.where(pixels == 7, 8, pixels).astype(np.uint8))
    assert digest(data_of(root)) != before
    assert digest(data_of(root, rare_classes=None)) == plain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: setattr(data, "source", None), "data.source is none: add --set data.source="),
        (lambda data: setattr(data.rare_classes, "min_crop_pixels", 2048),
         r"no more than 2048 pixels: add --set data.rare_classes.min_crop_pixels=10"),
        (lambda data: setattr(data.rare_classes, "temperature", 0.0), "temperature is 0.0"),
        (lambda data: setattr(data.rare_classes, "tries", -1), "tries is -1"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used(change: Callable[[DataConfig], None], message: str) -> None:
    data = data_of(Path())
    change(data)
    with pytest.raises(InputError, match=message):
        data.check("data")


# --- runs


def run_of(root: Path) -> Experiment:
    experiment = tiny_preset("toy_class_mix", root)
    experiment.data.rare_classes = RareClassConfig(
        temperature=0.1, min_pixels=500, min_crop_pixels=50
    )
    assert experiment.data.target is not None
    experiment.data.target.ignored_borders = (0.1, 0.25, 0, 3)
    experiment.train.resume_every = experiment.train.snapshot_every = 2
    return experiment


@pytest.mark.slow
def test_a_run_is_resumed_bit_by_bit_and_with_its_own_counts_only(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_to_end(run_of(root), tmp_path / "whole")
    assert re.search(r"^rare classes     \w[^\n]* \d+\.\d %", capsys.readouterr().out, re.MULTILINE)
    interrupt(run_of(root), tmp_path / "again", at=3)
    resumed = run_of(root)
    resumed.data.rare_classes.statistics = str(tmp_path / "elsewhere")  # type: ignore[union-attr]
    state = shutil.copytree(tmp_path / "again", tmp_path / "other")
    run_to_end(resumed, tmp_path / "again", resume=True)
    students = [read(tmp_path / run / "resume.pth")["student"] for run in ("whole", "again")]
    tiny_runs.assert_same(*students)
    write_png(root / "GTA5/labels/00001.png", np.full((64, 128), 7, np.uint8))
    with pytest.raises(InputError, match="other labels to choose rare classes by"):
        run_to_end(run_of(root), state, resume=True)


@pytest.mark.slow
def test_the_same_bits_without_labels_of_the_target(
    toy_root: Path, root: Path, tmp_path: Path
) -> None:
    """`root` has none of its training images."""
    assert not (root / "Cityscapes/gtFine/train").exists()
    for name, city in (("with", toy_root), ("without", root)):
        run_to_end(run_of(city), tmp_path / name)
    states = [read(tmp_path / name / "resume.pth") for name in ("with", "without")]
    assert [state["supervision"] for state in states] == ["none", "none"]
    tiny_runs.assert_same(*(state["student"] for state in states))


@pytest.mark.slow
def test_two_processes_count_once_and_read_what_one_does(root: Path, tmp_path: Path) -> None:
    """The first one counts; a label file that cannot be read ends both with its message."""
    options = [*CLASS_MIX, *tiny_options(root), "--set", "data.rare_classes=default",
               "--set", "data.rare_classes.min_pixels=500",
               "--set", "data.rare_classes.min_crop_pixels=50"]  # fmt: skip
    script = str(REPOSITORY / "train_uda.py")
    out = finished(torchrun(script, *options, "--run", "two", cwd=tmp_path))
    assert out.count("rare classes     ") == 1
    one = start_process(tmp_path, "train_uda.py", *options, "--run", "one")
    alone, _ = one.communicate(timeout=240)
    line = next(text for text in alone.splitlines() if text.startswith("rare classes"))
    assert line in out
    samples = [read(tmp_path / f"snapshots/{run}/resume.pth")["samples"] for run in ("one", "two")]
    assert samples[0] == samples[1]
    (root / "GTA5/labels/00004.png").write_bytes(b"no picture")
    (root / "GTA5/class_pixels_gta5.json").unlink()
    job = torchrun(script, *options, "--run", "bad", cwd=tmp_path)
    _, error = job.communicate(timeout=240)
    assert job.returncode != 0
    assert "00004.png cannot be decoded" in error


def test_only_objectives_that_mix_domains_want_crops_of_one_size(
    toy_root: Path, tmp_path: Path
) -> None:
    experiment = tiny_preset("toy_class_mix", toy_root)
    assert experiment.data.target is not None
    experiment.data.target.crop = (32, 64)
    advice = r"--set data\.source\.crop=none --set data\.target\.crop=none"
    with pytest.raises(InputError, match=rf"'class_mix' needs .* crops of one size, .* {advice}"):
        validate(experiment)
    del experiment.objectives["class_mix"]
    experiment.objectives["entropy"] = EntropyConfig()
    experiment.train.steps = 3
    run_to_end(experiment, tmp_path / "run")


def test_settings_that_would_change_nothing_are_told(toy_root: Path) -> None:
    experiment = tiny_preset("toy_class_mix", toy_root)
    assert experiment.data.source is not None
    assert experiment.data.target is not None
    experiment.data.source.ignored_borders = (1, 0, 0, 0)
    experiment.data.source.crop = experiment.data.target.crop = experiment.data.crop
    remarks = " ".join(validate(experiment).remarks)
    assert "data.source.ignored_borders" in remarks
    assert "source and target have crops of their own" in remarks
    experiment.data.target.ignored_borders = (1, 0, 0, 0)
    del experiment.objectives["class_mix"]
    experiment.teacher = None
    experiment.objectives["entropy"] = EntropyConfig()
    remarks = " ".join(validate(experiment).remarks)
    assert "data.target.ignored_borders" in remarks
    with pytest.raises(InputError, match=r"ignored_borders is set, but is not used"):
        validate(experiment, typed=["data.target.ignored_borders"])
