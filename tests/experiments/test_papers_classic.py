"""AdaptSegNet, MinEnt, AdvEnt and FDA: what their presets run, and their steps on random images."""

from pathlib import Path

import pytest
from torch import Tensor

from tiny_runs import assert_different, assert_same, steps, tiny_preset, tiny_run
from uda.experiment import Experiment, validate
from uda.experiments import load_preset
from uda.experiments.overrides import change
from uda.models.deeplabv2 import DeepLabV2Config
from uda.objectives.adversarial import AdversarialConfig
from uda.training.run import STUDENT
from uda.utilities.errors import InputError

FDA = ("fda_gta5", "fda_gta5_005", "fda_gta5_009")
SELF_TRAINED = tuple(name.replace("gta5", "gta5_selftrain") for name in FDA)
ADVENT = ("minent_gta5", "advent_gta5")


@pytest.mark.parametrize("name", ["adaptsegnet_gta5", *ADVENT, *FDA, *SELF_TRAINED])
def test_what_they_share(name: str) -> None:
    experiment = load_preset(name)
    train, data, model = experiment.train, experiment.data, experiment.model
    assert (train.batch_size, train.precision, train.power) == (1, "float32", 0.9)
    sgd = train.optimizer
    assert (sgd.name, sgd.lr, sgd.momentum, sgd.weight_decay) == ("sgd", 2.5e-4, 0.9, 5e-4)
    assert train.head_lr_factor == 10
    assert not sgd.nesterov
    assert train.warmup_steps == 0
    assert data.source is not None
    assert data.target is not None
    assert (data.source.size, data.target.size) == ((720, 1280), (512, 1024))
    assert not data.source.mirror
    assert data.crop_of(data.target) == (512, 1024)
    whole = name not in (*FDA, *SELF_TRAINED)
    assert data.crop_of(data.source) == ((720, 1280) if whole else (512, 1024))
    assert isinstance(model, DeepLabV2Config)
    assert (model.head, model.batch_norm, model.align_corners) == ("sum", "frozen_affine", True)
    assert model.aspp_branches == (2 if name == "adaptsegnet_gta5" else 4)
    assert model.levels == (2 if whole else 1)


@pytest.mark.parametrize(
    ("name", "steps", "schedule", "every"),
    [("adaptsegnet_gta5", 150_000, 250_000, 5000), *((n, 120_000, 250_000, 2000) for n in ADVENT),
     *((n, 100_000, 150_000, 5000) for n in (*FDA, *SELF_TRAINED))],
)  # fmt: skip
def test_schedules_stop_early(name: str, steps: int, schedule: int, every: int) -> None:
    experiment = load_preset(name)
    assert (experiment.train.steps, experiment.train.schedule_steps) == (steps, schedule)
    assert (experiment.train.snapshot_every, experiment.evaluation.every) == (every, every)


@pytest.mark.parametrize("names", [FDA, SELF_TRAINED])
def test_fdas_bands_differ_in_nothing_else(names: tuple[str, ...]) -> None:
    presets = [load_preset(name) for name in names]
    assert [p.objectives["fourier"].band for p in presets] == [0.01, 0.05, 0.09]  # type: ignore[attr-defined]
    for preset in presets:
        preset.objectives["fourier"].band = 0.01  # type: ignore[attr-defined]
        assert preset == presets[0]
    assert (
        "supervised" not in presets[0].objectives
    )  # labels are learned in the target's style only


def test_the_weights_of_both_heads() -> None:
    entropy = load_preset("minent_gta5").objectives["entropy"]
    assert (entropy.weight, entropy.weight * entropy.auxiliary_weight) == (0.001, 0.0002)  # type: ignore[attr-defined]
    adversarial = load_preset("advent_gta5").objectives["adversarial"]
    assert adversarial.weight == 1
    assert (adversarial.main_weight, adversarial.auxiliary_weight) == (0.001, 0.0002)  # type: ignore[attr-defined]


def advent(root: Path) -> Experiment:
    experiment = tiny_preset("advent_gta5", root, steps=4)
    experiment.train.schedule_steps = 10
    return experiment


def test_discriminators_follow_the_schedule_of_the_run(toy_root: Path) -> None:
    run = tiny_run(advent(toy_root))
    steps(run, 2)
    factor = (1 - 1 / 10) ** 0.9
    (group,) = run.optimizers["adversarial"].param_groups
    assert group["lr"] == pytest.approx(1e-4 * factor)
    rates = [group["lr"] for group in run.optimizers[STUDENT].param_groups]
    assert rates == pytest.approx([2.5e-4 * factor, 2.5e-3 * factor])


def after_a_step(experiment: Experiment) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The student and the discriminators after one step."""
    run = tiny_run(experiment)
    steps(run, 1)
    return run.student.state_dict(), run.objectives["adversarial"].state_dict()


def test_student_and_discriminators_learn_from_their_own_losses_only(toy_root: Path) -> None:
    student, discriminators = after_a_step(advent(toy_root))
    fooling = advent(toy_root)
    fooling.objectives["adversarial"].weight = 100
    other_student, same_discriminators = after_a_step(fooling)
    assert_same(same_discriminators, discriminators)
    assert_different(other_student, student)
    slow = advent(toy_root)
    config = slow.objectives["adversarial"]
    assert isinstance(config, AdversarialConfig)
    assert config.optimizer is not None
    config.optimizer.lr /= 10
    same_student, other_discriminators = after_a_step(slow)
    assert_same(same_student, student)
    assert_different(other_discriminators, discriminators)


def test_a_schedule_shorter_than_the_run_is_refused_with_what_to_type() -> None:
    experiment = load_preset("adaptsegnet_gta5")
    change(experiment, ["train.schedule_steps=1000"])
    with pytest.raises(InputError, match=r"add --set train\.schedule_steps=none$"):
        validate(experiment)
    change(experiment, ["train.schedule_steps=none"])
    validate(experiment)
