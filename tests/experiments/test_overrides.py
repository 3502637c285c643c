"""What --set, --smoke and --sanity-check make of a preset: parts by name, and what follows them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from uda.augmentation.color_jitter import ColorJitterConfig
from uda.augmentation.jitter import JitterConfig
from uda.data.config import DomainConfig
from uda.experiment import Experiment, validate
from uda.experiments import PRESETS, load_preset
from uda.experiments.overrides import change
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.registry import model_configs
from uda.objectives.adversarial import AdversarialConfig
from uda.objectives.base import Objective, ObjectiveConfig
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.entropy import EntropyConfig
from uda.objectives.registry import objective_configs
from uda.optim.optimizers import OptimizerConfig
from uda.optim.plateau import PlateauConfig
from uda.optim.teacher import TeacherConfig
from uda.utilities.errors import InputError


def prepared(name: str, *overrides: str, **options: bool) -> tuple[Experiment, list[str]]:
    """The preset as it is run with these overrides, and the remarks on it."""
    preset = load_preset(name)
    changed = change(preset, overrides, **options)
    found = validate(preset, typed=changed.typed)
    return found.experiment, [*changed.remarks, *found.remarks]


def complaints(name: str, overrides: Sequence[str]) -> tuple[str, ...]:
    with pytest.raises(InputError) as refusal:
        prepared(name, *overrides)
    return refusal.value.problems


# --- parts by name


def test_an_objective_is_added_changed_replaced_and_removed() -> None:
    experiment, remarks = prepared(
        "gc_640x360_b2_source_only",
        "data.target=cityscapes",
        "objectives.entropy=entropy",
        "objectives.entropy.weight=0.1",
    )
    assert experiment.objectives["entropy"] == EntropyConfig(weight=0.1)
    assert experiment.data.target == DomainConfig(datasets=("cityscapes",))
    assert remarks == []
    experiment, _ = prepared("toy_entropy", "objectives.entropy=adversarial")
    assert experiment.objectives["entropy"] == AdversarialConfig()
    experiment, _ = prepared("toy_entropy", "objectives.supervised=none", "objectives.s=supervised")
    assert list(experiment.objectives) == ["entropy", "s"]


@pytest.mark.parametrize("name", objective_configs())
def test_every_objective_can_be_added_by_its_name(name: str) -> None:
    preset = load_preset("gc_640x360_b2_source_only")
    change(preset, [f"objectives.new={name}"])
    assert type(preset.objectives["new"]) is objective_configs()[name]


@pytest.mark.parametrize("name", model_configs())
def test_every_network_can_be_chosen_by_its_name(name: str) -> None:
    preset = load_preset("gc_640x360_b2_source_only")
    change(preset, [f"model={name}", "model.dropout=0"])
    assert type(preset.model) is model_configs()[name]
    assert preset.model.dropout == 0


def test_a_network_gets_its_own_defaults() -> None:
    experiment, _ = prepared("toy_source_only", "model=deeplabv2", "model.backbone_width=8")
    assert experiment.model == DeepLabV2Config(backbone_width=8)


def test_optional_parts_get_their_defaults() -> None:
    experiment, _ = prepared(
        "gc_640x360_b2_source_only",
        "data.target=cityscapes",
        "teacher=default",
        "teacher.momentum=0.5",
        "objectives.class_mix=class_mix",
        "objectives.class_mix.jitter=none",
        "objectives.class_mix.jitter=default",
        "train.plateau=default",
        "train.plateau.patience=1",
    )
    assert experiment.teacher == TeacherConfig(momentum=0.5)
    assert experiment.objectives["class_mix"] == objective_configs()["class_mix"]()
    assert experiment.train.plateau == PlateauConfig(patience=1)


def test_jitter_by_name() -> None:
    path = "objectives.class_mix.jitter"
    experiment, _ = prepared("toy_class_mix", f"{path}=color_jitter", f"{path}.hue=0.1")
    mixed = experiment.objectives["class_mix"]
    assert isinstance(mixed, ClassMixConfig)
    assert mixed.jitter == ColorJitterConfig(hue=0.1)
    experiment, _ = prepared("dacs_gta5", f"{path}=jitter")
    mixed = experiment.objectives["class_mix"]
    assert isinstance(mixed, ClassMixConfig)
    assert mixed.jitter == JitterConfig()
    (said,) = complaints("toy_class_mix", [f"{path}=colors"])
    assert "'colors' is no jitter; known: jitter, color_jitter, none" in said
    (said,) = complaints("toy_class_mix", [f"{path}=color_jitter", f"{path}.gamma=1"])
    assert "there is no 'gamma'" in said


def test_an_optimizer_gets_figures_that_suit_it() -> None:
    experiment, remarks = prepared("aagc_640x360_b2", "train.optimizer=adamw")
    assert experiment.train.optimizer == OptimizerConfig(name="adamw", lr=6e-5, weight_decay=0.01)
    assert remarks == []
    path = "objectives.adversarial.optimizer"
    experiment, _ = prepared("aagc_640x360_b2", f"{path}=sgd", f"{path}.lr=0.1")
    adversarial = experiment.objectives["adversarial"]
    assert isinstance(adversarial, AdversarialConfig)
    assert adversarial.optimizer == OptimizerConfig(lr=0.1)
    # A field's own default has that field's figures.
    experiment, _ = prepared("aagc_640x360_b2", f"{path}=none", f"{path}=adam")
    assert experiment == load_preset("aagc_640x360_b2")


def test_overrides_are_applied_in_their_order() -> None:
    experiment, _ = prepared("toy_class_mix", "train.seed=1", "train.seed=2")
    assert experiment.train.seed == 2
    assert complaints("toy_class_mix", ["model.dropout=0", "model=deeplabv2"]) == (
        "--set model.dropout changes nothing: a later --set model replaces it; omit it, or put it "
        "after that",
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objectives.x=entropi", "'entropi' is not an objective; known: adversarial, "),
        ("objectives.supervised=0.5", "'0.5' is not an objective; known: "),
        ("objectives.entropy.weight=1", "to add it: --set objectives.entropy=entropy"),
        ("model=resnet", "'resnet' is not a network; known: deeplabv2, deeplabv3plus, "),
        ("objectives.x=default", "'default' is not an objective; known: "),
        ("train.optimizer=adagrad", "not an optimizer; known: sgd, adam, adamw, radam"),
        ("teacher=on", "'on' is not TeacherConfig or none; allowed: default or none"),
        (
            "teacher.momentum=0.5",
            "teacher is none in this preset; before it, add --set teacher=def",
        ),
        ("data.target.first=3", "before it, add --set data.target=NAME"),
        ("data.target=default", "name the data sets, such as --set data.target=cityscapes"),
        ("train.restart=default", "is not RestartConfig or none; allowed: none"),
    ],
)
def test_a_name_that_is_not_known_is_refused(override: str, message: str) -> None:
    (problem,) = complaints("gc_640x360_b2_source_only", [override])
    assert message in problem
    assert problem.startswith(f"--set {override.partition('=')[0]}")


def test_all_overrides_that_do_not_fit_are_told_at_once() -> None:
    found = complaints("toy_class_mix", ["train.stepz=3", "train.seed=1", "teacher=on"])
    assert len(found) == 2


@dataclass(kw_only=True, slots=True)
class MaskedImageLossConfig(ObjectiveConfig):
    """An objective of a user's own file, as far as names are concerned."""

    def build(self, num_classes: int) -> Objective:
        return Objective(self)


def test_an_objective_of_the_users_own_has_a_name() -> None:
    assert MaskedImageLossConfig.__module__ in sys.modules
    preset = load_preset("toy_source_only")
    change(preset, ["objectives.mine=masked_image_loss"])
    assert type(preset.objectives["mine"]) is MaskedImageLossConfig


def test_objectives_of_a_preset_file_and_its_neighbors_have_names(tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(
        "from dataclasses import dataclass\n"
        "from uda.experiments import load_preset\n"
        "from uda.objectives.base import Objective, ObjectiveConfig\n\n"
        "@dataclass(kw_only=True, slots=True)\n"
        "class PatchContrastConfig(ObjectiveConfig):\n"
        "    temperature: float = 0.1\n\n"
        "    def build(self, num_classes):\n        return Objective(self)\n\n"
        "def mine():\n    return load_preset('toy_source_only')\n"
    )
    preset = load_preset(f"{tmp_path / 'study.py'}:mine")
    change(preset, ["objectives.mine=patch_contrast", "objectives.mine.temperature=0.2"])
    assert type(preset.objectives["mine"]).__name__ == "PatchContrastConfig"


# --- what a preset brings and an override makes idle


def test_class_mix_off_is_one_override() -> None:
    experiment, remarks = prepared("toy_class_mix", "objectives.class_mix=none")
    whole, none = prepared(
        "toy_class_mix", "objectives.class_mix=none", "teacher=none", "data.target=none",
        "train.unlabeled_images=100",
    )  # fmt: skip
    assert experiment == whole
    assert none == []
    assert remarks == [
        "data.target is not used, as no objective needs it",
        "teacher is not used, as no objective needs it",
        "train.unlabeled_images (40) is not used, as there are no target images, as data.target is "
        "none",
    ]


def test_another_optimizer_under_its_name_is_one_override() -> None:
    experiment, remarks = prepared("aagc_640x360_b2", "train.optimizer.name=adamw")
    assert experiment.train.optimizer == OptimizerConfig(name="adamw", lr=2e-4, weight_decay=5e-4)
    assert remarks == ["train.optimizer.nesterov (True) is not used, as adamw has no nesterov"]


@pytest.mark.parametrize(
    ("name", "override", "idle"),
    [
        ("aagc_640x360_b2", "train.optimizer.momentum=0", ["train.optimizer.nesterov (True)"]),
        ("aagc_640x360_b2", "objectives.adversarial.optimizer=none",
         ["objectives.adversarial.gradient_penalty (0.01)",
          "objectives.adversarial.source_prediction (fused)"]),
        ("aagc_640x360_b2", "train.cosine_restarts=default", ["train.warmup_steps (5000)"]),
        ("toy_cut_mix", "train.optimizer.weight_decay=0", []),
        ("vaihingen_mask2former_r50", "train.optimizer.weight_decay=0",
         ["train.decay_norms (False)"]),
        ("clothes59_deeplabv3plus_r50", "evaluation.input_size=none",
         ["evaluation.keep_ratio (True)", "evaluation.interpolation (bilinear_no_antialias)"]),
        ("aagc_640x360_b2", "data.source.center_crop=true",
         ["data.source.crop_label_values (10)"]),
    ],
)  # fmt: skip
def test_what_an_override_makes_idle_is_a_remark(name: str, override: str, idle: list[str]) -> None:
    experiment, remarks = prepared(name, override)
    assert [remark.partition(" is not used")[0] for remark in remarks] == idle
    assert validate(experiment).remarks == ()  # it is gone


_COMPOSED = ("model=encoder_decoder", "objectives.supervised.auxiliary_weight=0")


@pytest.mark.parametrize(
    ("overrides", "vain"),
    [
        (["teacher.momentum=0.5", "objectives.class_mix=none"], "teacher.momentum"),
        (["objectives.class_mix=none", "data.target.mirror=false"], "data.target.mirror"),
        (["train.optimizer.momentum=0.5"], "train.optimizer.momentum"),
        (["train.optimizer.name=sgd", "train.optimizer.betas=0,0"], "train.optimizer.betas"),
        (["train.cosine_restarts=default", "train.power=2"], "train.power"),
        (["evaluation.overlap=0.5"], "evaluation.overlap"),
        ([*_COMPOSED, "model.auxiliary_map=7"], "model.auxiliary_map"),
        (
            [*_COMPOSED, "model.hrda=default", "model.hrda.attention.rates=1"],
            "model.hrda.attention.rates",
        ),
    ],
)
def test_what_was_typed_in_vain_is_refused(overrides: list[str], vain: str) -> None:
    (problem,) = complaints("toy_class_mix", overrides)
    assert problem.startswith(f"{vain} ")
    assert problem.endswith(f"; omit --set {vain}")


# --- lengths


def test_lengths_beyond_the_end_follow() -> None:
    experiment, remarks = prepared("aagc_640x360_b2", "train.steps=9000")
    assert experiment.train.warmup_steps == 5000  # it still fits
    assert experiment.objectives["memory"].start_step == 3000
    assert remarks == [
        "objectives.memory.start_step is 3000 instead of 15000, as train.steps is 9000, not 45000"
    ]
    longer, _ = prepared("logged_aagc_640x360_b2", "train.steps=400000")
    assert longer.train.schedule_steps == 2_500_000


def test_a_length_that_was_typed_stays() -> None:
    overrides = ["train.steps=100", "train.warmup_steps=200"]
    assert complaints("toy_source_only", overrides) == (
        "train.warmup_steps is 200; it must be below train.steps (100): add "
        "--set train.warmup_steps=10",
    )


@pytest.mark.parametrize("name", [n for n in PRESETS if load_preset(n).train.steps])
def test_any_preset_can_be_smoked(name: str) -> None:
    experiment, _ = prepared(name, smoke=True)
    assert experiment.train.steps == 10
    assert {*experiment.objectives} == {*load_preset(name).objectives}
    assert all(0 <= o.start_step < 10 for o in experiment.objectives.values())
    assert experiment.train.warmup_steps < 10


def test_a_smoke_run_may_be_longer() -> None:
    experiment, _ = prepared("aagc_640x360_b2", "train.steps=90", smoke=True)
    assert (experiment.train.steps, experiment.train.warmup_steps) == (90, 10)


def test_nothing_is_smoked_where_nothing_is_trained() -> None:
    preset = load_preset("logged_segmentron_deeplabv3plus_r101_cityscapes")
    with pytest.raises(InputError, match="this preset trains nothing: omit it"):
        change(preset, [], smoke=True)


# --- a sanity check


def test_a_sanity_check_scores_what_it_trains_on() -> None:
    experiment, _ = prepared("toy_class_mix", sanity_check=True)
    assert experiment.data.source is not None
    assert experiment.data.source.first == experiment.train.batch_size
    assert (experiment.evaluation.dataset, experiment.evaluation.split) == ("gta5", "train")
    assert experiment.train.sanity_check
    mixed = load_preset("toy_agc_source_only")
    with pytest.raises(InputError, match=r"set data\.source to one data set and split"):
        change(mixed, [], sanity_check=True)
    odd = load_preset("toy_class_mix")
    change(odd, ["train.sanity_check=true"])
    with pytest.raises(InputError, match=r"are not those of data\.source: start it with --sanity"):
        validate(odd)
