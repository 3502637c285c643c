"""--preflight: steps of a preset on generated images, and what they took."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from shells import Shell
from tiny_runs import CPU, tiny_preset
from uda.data.batch import Batch
from uda.data.config import SecondViewConfig
from uda.experiment import Experiment, validate
from uda.experiments import PRESETS
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.segmenter import Segmenter
from uda.objectives.entropy import Entropy, EntropyConfig
from uda.objectives.pseudo_label import PseudoLabelConfig
from uda.objectives.supervised import SupervisedConfig
from uda.training import preflight as module
from uda.training.preflight import generated_batch, preflight
from uda.training.run import Run, StepResult
from uda.training.step import train_step
from uda.utilities.errors import InputError

NOWHERE = Path("no/data/set")


def tiny(name: str = "toy_class_mix") -> Experiment:
    """A small preset whose data sets do not exist."""
    return validate(tiny_preset(name, NOWHERE)).experiment


@pytest.fixture(autouse=True)
def nothing_is_read_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterable[None]:
    """In an empty folder that stays empty; images and labels cannot be opened."""
    monkeypatch.chdir(tmp_path)

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a preflight opens no image")

    monkeypatch.setattr(Image, "open", refused)
    yield
    assert list(tmp_path.iterdir()) == []


def facts(said: str) -> dict[str, str]:
    return {line[:17].strip(): line[17:] for line in said.splitlines() if not line.startswith(" ")}


@pytest.mark.parametrize("name", ["toy_aagc", "toy_fix_match", "toy_cross_view", "toy_oracle"])
def test_steps_of_presets_without_their_data(name: str) -> None:
    said = preflight(tiny(name), device=CPU, measured=1)
    assert list(facts(said)) == [
        "preflight", "device", "precision", "batch", "objectives", "network", "peak memory",
        "seconds per step", "expected",
    ]  # fmt: skip


def test_what_it_says() -> None:
    experiment = tiny()
    experiment.train.steps, experiment.evaluation.every = 3600, 1000
    said = facts(preflight(experiment, device=CPU, measured=1))
    assert said["batch"] == "2 source + 2 target images of 128x64"
    assert said["objectives"] == "supervised, class_mix: all take part"
    assert "M parameters" in said["network"]
    assert said["peak memory"].endswith("GiB, of the whole process on the CPU")
    seconds = float(said["seconds per step"].split()[0])
    assert float(said["expected"].split()[0]) == pytest.approx(seconds, rel=0.1, abs=0.01)
    assert said["expected"].endswith("3600 steps; evaluation (4 times) is not in it")


def test_every_objective_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = tiny()
    experiment.train.steps = 1000
    experiment.objectives["class_mix"].start_step = 900
    steps, views = [], []

    def watched(run: Run, batch: Batch) -> StepResult:
        steps.append(run.step)
        result = train_step(run, batch)
        views.append({view.name for view in result.views})
        return result

    monkeypatch.setattr(module, "train_step", watched)
    preflight(experiment, device=CPU, measured=1)
    assert steps == [900, 901]
    assert all(found == {"source", "class_mix"} for found in views)
    assert experiment.objectives["class_mix"].start_step == 900


def test_pseudo_labels_are_generated() -> None:
    experiment = tiny("toy_source_only")
    assert experiment.data.source is not None
    experiment.data.target = replace(experiment.data.source, datasets=("cityscapes",))
    experiment.data.pseudo_labels = "snapshots/parent/pseudo_labels"
    experiment.objectives["pseudo_label"] = PseudoLabelConfig()
    assert "pseudo_label: all" in preflight(experiment, device=CPU, measured=1)


@dataclass(kw_only=True, slots=True)
class LooksFirstConfig(EntropyConfig):
    """Entropy that wants to see three batches."""

    def first_batches(self) -> int:
        return 3

    def build(self, num_classes: int) -> "LooksFirst":
        return LooksFirst(self)


class LooksFirst(Entropy):
    seen: tuple[torch.Size, ...] = ()

    def before_first_step(self, student: Segmenter, batches: Iterable[Batch]) -> None:
        LooksFirst.seen = tuple(b.target_images.shape for b in batches)


def test_objectives_see_first_batches() -> None:
    experiment = tiny("toy_entropy")
    experiment.objectives["entropy"] = LooksFirstConfig()
    preflight(experiment, device=CPU, measured=1)
    assert LooksFirst.seen == (torch.Size((2, 3, 64, 128)),) * 3


def test_weights_that_are_not_there_do_not_stop_it() -> None:
    experiment = tiny()
    experiment.objectives["supervised"] = SupervisedConfig(auxiliary_weight=0.0)
    experiment.model = EncoderDecoderConfig(
        encoder=EncoderConfig(name="mit_b0", weights="weights/mit_b0.pth")
    )
    experiment.train.initial_snapshot = "snapshots/other/GTA5_10.pth"
    lines = preflight(experiment, device=CPU, measured=1).splitlines()
    for setting in (
        "model.encoder.weights=weights/mit_b0.pth",
        "train.initial_snapshot=snapshots/other/GTA5_10.pth",
    ):
        assert f"{'':17}randomly initialized instead of {setting}" in lines
    assert experiment.train.initial_snapshot == "snapshots/other/GTA5_10.pth"


# --- the batch


def test_generated_batches_have_what_the_preset_reads() -> None:
    experiment = tiny()
    experiment.data.crop = (50, 70)  # no multiple of anything
    experiment.data.pseudo_labels = "somewhere"
    experiment.data.second_target_view = SecondViewConfig()
    batch = generated_batch(experiment, num_classes=19, step=7)
    assert batch.source_images.shape == (2, 3, 50, 70)
    assert batch.source_images.dtype == torch.uint8
    assert batch.target_second_images is not None
    assert batch.target_pseudo_labels is not None
    assert batch.target_pseudo_labels.shape == batch.source_labels.shape == (2, 50, 70)
    assert batch.target_ground_truth is None
    assert batch.target_valid is None
    assert experiment.data.target is not None
    experiment.data.target.ignored_borders = (1, 2, 3, 4)
    bordered = generated_batch(experiment, num_classes=19, step=7)
    assert bordered.target_valid is not None
    assert bordered.target_valid.shape == (2, 50, 70)
    assert batch.indices == (14, 15)
    assert set(batch.source_labels.unique().tolist()) <= {*range(19), 255}
    again = generated_batch(experiment, num_classes=19, step=7)
    assert torch.equal(batch.target_images, again.target_images)


def test_a_domain_that_the_preset_lacks_is_empty() -> None:
    batch = generated_batch(tiny("toy_source_only"), num_classes=19, step=0)
    assert batch.target_images.shape == (0, 3, 64, 128)


def test_every_field_of_a_batch_is_known() -> None:
    """A new one has to be generated, where a preset reads it, and added here."""
    assert {field.name for field in fields(Batch)} == {
        "source_images", "source_labels", "target_images", "target_pseudo_labels", "indices",
        "source_names", "target_names", "target_ground_truth", "target_second_images",
        "target_valid",
    }  # fmt: skip


# --- too little memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
    ids=["host", "device", "allocator"],
)
def test_too_little_memory_says_what_to_lower(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, "train_step", fails)
    experiment = tiny()
    experiment.model = EncoderDecoderConfig(encoder=EncoderConfig(name="mit_b0", weights="none"))
    experiment.train = replace(experiment.train, batch_size=3, precision="float32")
    with pytest.raises(InputError) as refusal:
        preflight(experiment, device=CPU)
    for setting in ("train.precision=bfloat16", "model.encoder.checkpointing=true",
                    "train.batch_size=1", "data.crop=32,64"):  # fmt: skip
        assert f"--set {setting}" in str(refusal.value)

    experiment.train = replace(experiment.train, batch_size=1, precision="bfloat16")
    experiment.model.encoder.checkpointing = True
    with pytest.raises(InputError) as refusal:
        preflight(experiment, device=CPU)
    assert str(refusal.value).count("--set") == 1


def test_other_errors_are_not_called_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(module, "train_step", fails)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        preflight(tiny(), device=CPU)


# --- the command


@pytest.mark.parametrize(
    "option",
    [
        ("--resume",),
        ("--run", "name"),
        ("--smoke",),
        ("--sanity-check",),
        ("--code-changed",),
        ("--data-changed",),
    ],
    ids=" ".join,
)
def test_options_of_a_run_are_refused(option: tuple[str, ...], shell: Shell) -> None:
    error = shell.refused("train_uda.py", "--preset", "toy_class_mix", "--preflight", *option)
    assert error == f"error: --preflight makes no run: omit {option[0]}\n"


def test_a_preset_that_trains_nothing_is_refused(shell: Shell) -> None:
    error = shell.refused(
        "train_uda.py", "--preset", "toy_class_mix", "--set", "train.steps=0", "--preflight",
        "--restore-from", "some.pth",
    )  # fmt: skip
    assert "train.steps is 0: there is no step to preflight" in error


def test_the_command_follows_set(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "small", tiny)
    said = facts(
        shell.run("train_uda.py", "--preset", "small", "--preflight", "--device", "cpu",
                  "--set", "train.batch_size=3", "--set", "data.crop=32,64")
    )  # fmt: skip
    assert said["preset"] == "small"
    assert said["batch"] == "3 source + 3 target images of 64x32"
