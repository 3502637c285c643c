"""Several data sets at once: how often samples are of each."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_sampling import assert_equal, stream

from factories import write_png
from tiny_runs import CPU, tiny_preset
from uda.checkpoints import snapshots
from uda.data.config import DataConfig, DomainConfig, RareClassConfig
from uda.data.sampling import TrainingDataset
from uda.data.set_choice import SetChoice
from uda.data.training import open_training_data
from uda.experiment import validate
from uda.training.loop import train
from uda.training.signals import Stopped
from uda.training.step import train_step
from uda.utilities.errors import InputError

SETS = ("gta5", "cyclegta5")
RARE = RareClassConfig(temperature=0.1, min_pixels=1000, min_crop_pixels=300, tries=3)


@pytest.fixture
def root(toy_root: Path, tmp_path: Path) -> Path:
    root = tmp_path / "city"
    shutil.copytree(toy_root, root)
    return root


def data_of(root: Path, **fields: object) -> DataConfig:
    source = DomainConfig(
        datasets=SETS, weights=(3.0, 1.0), size=(64, 128), scale=(0.8, 1.2), mirror=True
    )
    target = DomainConfig(datasets=("cityscapes",), size=(48, 96))
    data = DataConfig(root=str(root), source=source, target=target, crop=(32, 64), workers=0)
    return replace(data, **fields)  # type: ignore[arg-type]


def opened(data: DataConfig, *, seed: int = 0) -> TrainingDataset:
    data.check("data")
    return open_training_data(data, seed=seed, evaluated="cityscapes").dataset


def names(data: TrainingDataset, count: int, stream_number: int = 0) -> list[str]:
    samples = (data.source, data.target)[stream_number]
    return [data._choose(k, stream_number, samples)[0].name for k in range(count)]


def choice(seed: int = 0, stream_number: int = 0) -> SetChoice:
    members = [np.arange(5), np.arange(5, 8), np.arange(8, 9)]
    return SetChoice((2.0, 1.0, 1.0), members, seed=seed, stream=stream_number)


def test_sets_are_chosen_in_proportion_to_their_weights_and_counted() -> None:
    one = choice()
    assert one.shares == (0.5, 0.25, 0.25)
    chosen = [one.of(k) for k in range(10_000)]
    shares = np.bincount([c.place for c in chosen]) / 10_000
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.02)
    seen: Counter[int] = Counter()
    for sample in chosen:  # across two borders of blocks
        assert sample.before == seen[sample.place]
        seen[sample.place] += 1


def test_the_set_of_a_sample_does_not_depend_on_what_was_asked_before() -> None:
    forward = [choice().of(k) for k in (0, 4095, 4096, 9000)]
    one = choice()
    assert [one.of(k) for k in (9000, 4096, 4095, 0)] == forward[::-1]
    assert [choice(seed=1).of(k) for k in range(50)] != [choice().of(k) for k in range(50)]
    assert [choice(stream_number=1).of(k) for k in range(50)] != [choice().of(k) for k in range(50)]


def test_each_set_has_passes_of_its_own(root: Path) -> None:
    found = names(opened(data_of(root)), 400)
    by_set = {name: [n for n in found if n.startswith(f"{name}/")] for name in SETS}
    assert 270 < len(by_set["gta5"]) < 330
    for of_set in by_set.values():  # of six images each
        assert all(len(set(of_set[i : i + 6])) == 6 for i in range(0, len(of_set) - 5, 6))
    stems = [[name.split("/")[1] for name in of_set[:6]] for of_set in by_set.values()]
    assert stems[0] != stems[1]


def test_without_weights_images_are_joined_as_before(root: Path) -> None:
    """The first samples of seed 0, as they were before there were weights."""
    data = data_of(root)
    assert data.source is not None
    joined = opened(replace(data, source=replace(data.source, weights=None)))
    expected = [joined.source[int(i)].name
                for i in np.random.default_rng((0, 0, 0, 0)).permutation(12)]  # fmt: skip
    assert names(joined, 12) == expected


def test_a_target_has_weights_too(root: Path) -> None:
    target = DomainConfig(datasets=SETS, weights=(1.0, 9.0), size=(48, 96))
    source = DomainConfig(datasets=("cityscapes",), splits=("val",), size=(64, 128))
    data = opened(data_of(root, source=source, target=target))
    found = Counter(name.split("/")[0] for name in names(data, 300, 1))
    assert 15 < found["gta5"] < 45
    rare = opened(data_of(root, source=source, target=target, rare_classes=RARE))
    found = Counter(name.split("/")[0] for name in names(rare, 300, 1))
    assert 15 < found["gta5"] < 45


@pytest.mark.parametrize("rare", [None, RARE])
def test_the_same_bits_whoever_loads_and_wherever_it_starts(
    root: Path, rare: RareClassConfig | None
) -> None:
    data = opened(data_of(root, rare_classes=rare))
    expected = stream(data)
    assert_equal(stream(data, workers=2), expected)
    assert_equal(stream(opened(data_of(root, rare_classes=rare)), first_step=4), expected[4:])


def test_rare_classes_are_chosen_within_the_set_that_the_weights_chose(root: Path) -> None:
    shutil.rmtree(root / "CycleGTA5/labels")
    (root / "CycleGTA5/labels").mkdir()
    for path in (root / "CycleGTA5/images").iterdir():  # road, and a little sky
        labels = np.full((64, 128), 7, np.uint8)
        labels[:10] = 23
        write_png(root / "CycleGTA5/labels" / path.name, labels)
    data = opened(data_of(root, rare_classes=RARE))
    plain = opened(data_of(root))
    gta5, cycle = data.rare_classes
    assert np.flatnonzero(cycle.probabilities).tolist() == [0, 10]
    assert np.count_nonzero(gta5.probabilities) > 2
    found, expected = names(data, 200), names(plain, 200)
    assert [n.split("/")[0] for n in found] == [n.split("/")[0] for n in expected]
    for k, name in enumerate(found):
        shown = data._choose(k, 0, data.source)[1]
        assert shown is not None
        assert name.startswith("gta5/") or shown.train_id in (0, 10)


def test_an_interrupted_run_continues_to_the_bit(root: Path, tmp_path: Path) -> None:
    def run(folder: str, *, resume: bool = False, until: int | None = None) -> None:
        experiment = tiny_preset("toy_source_only", root, steps=6)
        assert experiment.data.source is not None
        experiment.data.source.datasets, experiment.data.source.weights = SETS, (3.0, 1.0)
        experiment.train.resume_every = 3

        def stopping(run: object, batch: object) -> object:
            found = train_step(run, batch)  # type: ignore[arg-type]
            if run.step == until:  # type: ignore[attr-defined]
                raise Stopped("stopped")
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("uda.training.loop.train_step", stopping)
            train(experiment, tmp_path / folder, preset="p", device=CPU, resume=resume)

    run("whole")
    with pytest.raises(Stopped):
        run("part", until=4)
    run("part", resume=True)
    whole, part = (snapshots.read(tmp_path / name / "resume.pth") for name in ("whole", "part"))
    assert all((whole["student"][name] == part["student"][name]).all() for name in whole["student"])


def test_the_start_says_how_often_samples_are_of_each_set(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = tiny_preset("toy_source_only", root, steps=1)
    assert experiment.data.source is not None
    experiment.data.source.datasets, experiment.data.source.weights = SETS, (3.0, 1.0)
    train(experiment, tmp_path / "run", preset="p", device=CPU)
    shown = capsys.readouterr().out
    assert "source sets      gta5 75.0 % (6 images), cyclegta5 25.0 % (6 images)\n" in shown


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0), (1.0, float("inf")), (1.0, -1.0), ()])
def test_weights_that_cannot_be_used(root: Path, weights: tuple[float, ...]) -> None:
    data = data_of(root)
    assert data.source is not None
    data.source.weights = weights
    with pytest.raises(InputError, match=r"weights is .*add --set data\.source\.weights=none"):
        data.check("data")


def test_a_set_of_which_no_image_is_left(root: Path) -> None:
    data = data_of(root)
    assert data.source is not None
    data.source.first = 3
    with pytest.raises(InputError, match="cyclegta5 has a weight, but no image of it is left"):
        opened(data)


def test_a_weight_of_the_only_set_changes_nothing_and_is_refused(root: Path) -> None:
    experiment = tiny_preset("toy_source_only", root)
    assert experiment.data.source is not None
    experiment.data.source.weights = (2.0,)
    with pytest.raises(InputError, match="there is one data set"):
        validate(experiment, typed=["data.source.weights"])
    assert "data.source.weights" in " ".join(validate(experiment).remarks)


def test_processes_share_the_samples_that_one_process_has(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = opened(data_of(root, rare_classes=RARE))
    whole = [name for batch in stream(data) for name in batch.source_names]
    parts = []
    for own in (range(1), range(1, 3)):
        monkeypatch.setattr("uda.data.sampling.own_batch", lambda _, own=own: own)
        parts.append(
            [batch.source_names for batch in stream(opened(data_of(root, rare_classes=RARE)))]
        )
    assert [name for pair in zip(*parts, strict=True) for part in pair for name in part] == whole
