"""Presets validate, share nothing, and what would not run is refused before anything is."""

import re
import sys
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from uda import experiments
from uda.experiment import Experiment, Validated, validate
from uda.experiments import PRESETS, load_preset
from uda.experiments.listed import list_presets
from uda.experiments.overrides import change
from uda.experiments.published import note_on_name, published
from uda.objectives.base import Objective, ObjectiveConfig
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.pseudo_label import PseudoLabelConfig
from uda.optim.teacher import TeacherConfig
from uda.utilities.config_tree import apply_override
from uda.utilities.errors import InputError


def experiment(*overrides: str) -> Experiment:
    preset = load_preset("aagc_640x360_b2")
    change(preset, overrides)
    return preset


def checked(name: str, *overrides: str) -> Validated:
    """The preset with overrides, as the command line validates it."""
    preset = load_preset(name)
    return validate(preset, typed=change(preset, overrides).typed)


def refused(name: str, *overrides: str) -> str:
    """What `checked` says when it refuses the overrides."""
    with pytest.raises(InputError) as refusal:
        checked(name, *overrides)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid(name: str) -> None:
    validate(load_preset(name))


def mutable_parts(config: object) -> set[int]:
    """The identity of every object of a dataclass tree that somebody could assign to."""
    if isinstance(config, dict):
        children = list(config.values())
    elif is_dataclass(config):
        children = [getattr(config, field.name) for field in fields(config)]
    else:
        return set()
    return {id(config)}.union(*map(mutable_parts, children))


def test_presets_share_no_state() -> None:
    loaded = [load_preset(name) for name in [*PRESETS, *PRESETS]]  # all alive: identities are so
    parts = [mutable_parts(preset) for preset in loaded]
    assert len(set().union(*parts)) == sum(map(len, parts))
    for preset in loaded:
        domains = [preset.data.source, preset.data.target]
        assert domains[0] is None or domains[0] is not domains[1]


def test_an_unknown_preset_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match='did you mean "aagc_640x360_b2"'):
        load_preset("aagc_640x360b2")


def test_every_preset_is_described() -> None:
    lines = [line for line in list_presets().split("\n") if re.match("  [^ ]", line)]
    described = dict(line.strip().split(maxsplit=1) for line in lines)
    assert len(lines) == len(described)
    assert described.keys() == PRESETS.keys()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        *(
            (f"{name}=0", f"{name} is 0")
            for name in (
                "train.batch_size",
                "train.log_every",
                "train.snapshot_every",
                "train.resume_every",
                "train.optimizer.lr",
                "train.head_lr_factor",
                "objectives.memory.weight",
            )
        ),
        ("train.optimizer.lr=-0.1", "train.optimizer.lr is -0.1; it must be above 0"),
        ("evaluation.scales=1,0", "evaluation.scales is (1.0, 0.0)"),
        ("evaluation.scales=", "evaluation.scales is ()"),
        ("evaluation.input_size=0,512", "evaluation.input_size is (0, 512)"),
        ("data.crop=0,640", "data.crop is (0, 640)"),
        ("train.seed=-1", "train.seed is -1; it must not be negative"),
        ("train.power=-0.9", "train.power is -0.9; it must not be negative"),
        ("train.optimizer.weight_decay=-1", "train.optimizer.weight_decay is -1"),
        ("objectives.adversarial.optimizer.lr=0", "objectives.adversarial.optimizer.lr is 0"),
        ("data.workers=-1", "data.workers is -1; it must not be negative"),
        ("data.cache_gib=5", "data.cache_gib is set, but is not used, as data.cache is empty"),
        ("data.source.crop_label_values=-1", "data.source.crop_label_values is -1"),
        ("train.optimizer.momentum=1", "train.optimizer.momentum is 1.0"),
        ("train.optimizer.momentum=-0.1", "train.optimizer.momentum is -0.1"),
        ("objectives.adversarial.optimizer.betas=1,0.9", "its betas are (1.0, 0.9); allowed: 0"),
        ("objectives.adversarial.optimizer.betas=0.9,-1", "its betas are (0.9, -1.0)"),
        (
            "train.optimizer.betas=0.5,0.9",
            "train.optimizer.betas is set, but is not used, as sgd has no betas; "
            "omit --set train.optimizer.betas",
        ),
        ("objectives.adversarial.optimizer.momentum=0.5", "as adam has no momentum"),
        ("objectives.adversarial.gradient_penalty=-1", "adversarial.gradient_penalty is -1.0"),
        ("objectives.supervised.hardest=20", "supervised.hardest is 20.0; allowed: 0 to 1"),
        ("objectives.supervised.auxiliary_weight=-1", "supervised.auxiliary_weight is -1.0"),
        ("train.warmup_steps=45000", "train.warmup_steps is 45000; it must be below train.steps"),
        ("train.warmup_steps=-1", "train.warmup_steps is -1"),
        ("objectives.memory.start_step=45000", "the objective would never take part"),
        ("objectives.memory.start_step=-1", "objectives.memory.start_step is -1"),
        ("data.source.scale=0,1", "data.source.scale is (0.0, 1.0); allowed: 0 < lowest"),
        ("data.target.scale=2,1", "data.target.scale is (2.0, 1.0)"),
        ("data.source.size=400,700", "data.crop (360, 640) does not fit data.source"),
        ("data.crop=513,640", "data.crop (513, 640) does not fit data.target"),
        ("data.source.first=0", "data.source.first is 0; allowed: none or at least 1"),
        ("data.target.first=0", "data.target.first is 0"),
        (
            "data.target.crop_label_values=1",
            "crop_label_values is set, but is not used, as target images have no labels",
        ),
        ("data.target=none", "objective 'adversarial' needs data.target"),
        ("model.auxiliary_head=false", "objective 'supervised' needs model.auxiliary_head"),
        ("model.auxiliary=none", "which this preset lacks: add --set model.auxiliary=fcn or"),
        (
            "data.pseudo_labels=folder",
            "data.pseudo_labels is set, but is not used, as no objective needs it",
        ),
    ],
)
def test_what_cannot_run_is_refused(override: str, message: str) -> None:
    assert message in refused("aagc_640x360_b2", override)


def test_the_largest_crop_that_fits_is_allowed() -> None:
    validate(experiment("data.crop=512,1024", "data.source.scale=1,1"))


def test_types_are_checked_first() -> None:
    odd: Any = experiment()
    odd.train.steps = "many"
    with pytest.raises(InputError, match=r"experiment\.train\.steps is 'many'"):
        validate(odd)


def test_nothing_to_learn_from_is_refused() -> None:
    empty = experiment()
    empty.objectives.clear()
    with pytest.raises(InputError, match="nothing to learn from"):
        validate(empty)


def test_an_objective_gets_what_it_needs() -> None:
    without_teacher = experiment()
    without_teacher.objectives["class_mix"] = ClassMixConfig()
    with pytest.raises(InputError, match=r"'class_mix' needs teacher, which .* --set teacher=def"):
        validate(without_teacher)
    without_folder = experiment()
    without_folder.objectives["pseudo_label"] = PseudoLabelConfig()
    with pytest.raises(InputError, match=r"'pseudo_label' needs data\.pseudo_labels, .* add --set"):
        validate(without_folder)


def test_what_no_objective_needs_is_not_used_and_said() -> None:
    idle_teacher = experiment()
    idle_teacher.teacher = TeacherConfig()
    found = validate(idle_teacher)
    assert found.remarks == ("teacher is not used, as no objective needs it",)
    assert found.experiment == experiment()
    assert idle_teacher.teacher is not None  # the user's own is left alone
    idle_head = load_preset("gc_640x360_b2_source_only")
    apply_override(idle_head, "objectives.supervised.auxiliary_weight=0")
    found = validate(idle_head)
    assert found.remarks == ("model.auxiliary_head (True) is not used, as no objective needs it",)
    assert not found.experiment.model.has_auxiliary_head


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_the_teachers_momentum_has_a_range(momentum: float) -> None:
    preset = load_preset("gc_640x360_b2_class_mix")
    preset.teacher = TeacherConfig(momentum=momentum)
    with pytest.raises(InputError, match=r"teacher\.momentum is"):
        validate(preset)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objectives.class_mix.threshold=90", "class_mix.threshold is 90.0; allowed: 0 to 1"),
        ("objectives.class_mix.jitter.noise=3", "class_mix.jitter.noise is 3.0"),
        ("objectives.class_mix.jitter.blur_sigma=2,1", "jitter.blur_sigma is (2.0, 1.0)"),
        ("objectives.class_mix.jitter.gamma=-1", "jitter.gamma is -1.0"),
    ],
)
def test_what_class_mix_cannot_use_is_refused(override: str, message: str) -> None:
    preset = load_preset("gc_640x360_b2_class_mix")
    apply_override(preset, override)
    with pytest.raises(InputError) as refusal:
        validate(preset)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("toy_class_mix", "data.source=none", "'supervised' needs data.source"),
        ("toy_source_only", "data.source=none", "data.source and data.target are both none"),
        ("toy_cut_mix_ground_truth", "data.target_ground_truth=false",
         "'cut_mix' needs data.target_ground_truth, which this preset lacks"),
        ("toy_class_mix", "data.target_ground_truth=true",
         "data.target_ground_truth is set, but is not used, as no objective needs it"),
        ("toy_class_mix_student", "data.target_ground_truth=true",
         "data.target_ground_truth is set, but is not used"),
        ("toy_class_mix", "data.pseudo_labels_mapped_twice=true",
         "data.pseudo_labels_mapped_twice is set, but is not used, as there are no pseudo-labels"),
        ("toy_cross_view", "data.second_target_view=none", "needs data.second_target_view"),
        ("toy_cut_mix_ground_truth", "objectives.cut_mix.threshold=0.5",
         "objectives.cut_mix.threshold is set, but is not used, as ground truth has no confid"),
        ("toy_adversarial", "objectives.adversarial.source_view=cut_mix",
         "reads the view 'cut_mix' from step 150 on, which no other objective adds"),
        ("logged_aagc_640x360_b2_single_cutmix", "objectives.cut_mix.start_step=5",
         "reads the view 'cut_mix' from step 0 on"),
        ("toy_adversarial", "objectives.adversarial.optimizer=none", ""),
        ("toy_source_only", "train.schedule_steps=499", "train.schedule_steps is 499; it must not"),
        ("logged_aagc_640x360_b2_single_cutmix", "train.restart.at_step=40000",
         "train.restart.at_step is 40000; allowed: above 0 and below the run's 40000"),
        ("logged_aagc_640x360_b2_single_cutmix", "train.restart.schedule_steps=39999",
         "train.restart.schedule_steps is 39999; the run has 40000 steps"),
        ("aagc_640x360_b2_single", "evaluation.heads=fused", "the network has no auxiliary head"),
        ("logged_aagc_640x360_b2_single", "model.levels=2",
         "model.levels is set, but is not used, as no objective needs it; omit --set model.levels"),
        ("toy_source_only", "train.backbone_lr_factor=0", "train.backbone_lr_factor is 0"),
        ("logged_segmentron_deeplabv3plus_r101_cityscapes", "train.initial_snapshot=none",
         "train.steps is 0: nothing is trained"),
        ("toy_source_only", "train.steps=0", "train.steps is 0: nothing is trained, so add --res"),
    ],
)  # fmt: skip
def test_what_would_be_ignored_or_is_missing_is_refused(
    name: str, override: str, message: str
) -> None:
    if message:
        assert message in refused(name, override)
    else:
        checked(name, override)


def test_evaluation_only_uses_no_data_and_no_objectives() -> None:
    weights = "train.initial_snapshot=some.pth"
    found = checked("toy_class_mix", "train.steps=0", weights)
    (remark,) = found.remarks
    assert remark.startswith("data.crop, data.source, data.target, evaluation.every, objectives.")
    assert remark.endswith("not used, because train.steps is 0, so nothing is trained")
    assert found.experiment.objectives == {}
    assert found.experiment.evaluation.dataset == "cityscapes"
    for vain in ("train.seed=3", "data.source.mirror=false", "teacher.momentum=0.5"):
        name = vain.partition("=")[0]
        message = refused("toy_class_mix", "train.steps=0", weights, vain)
        assert message.startswith(f"{name} changes nothing: train.steps is 0")
        assert message.endswith(f"omit --set {name}")


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("data.source.scale=1e29,1e29", "data.source.scale is (1e+29, 1e+29); allowed: 0 < low"),
        ("data.source.size=99999,99999", "data.source.size is (99999, 99999); allowed: height"),
        ("data.crop=1,99999", "data.crop is (1, 99999); allowed: height, width above 0 and up to"),
        ("data.workers=1000000000", "data.workers is 1000000000; it must not be negative, nor abo"),
        ("evaluation.scales=1e29", "evaluation.scales is (1e+29,); one or more, above 0 and up"),
        ("evaluation.window=0,9", "evaluation.window is (0, 9); allowed: height, width above 0"),
        ("evaluation.pad_to=9,40000", "evaluation.pad_to is (9, 40000); allowed: height, width"),
        ("objectives.class_mix.jitter.gamma=1e9", "jitter.gamma is 1000000000.0; allowed: 0 to 10"),
        (
            "objectives.class_mix.jitter.blur_sigma=1,1e9",
            "jitter.blur_sigma is (1.0, 1000000000",
        ),
    ],
)
def test_what_no_machine_could_do_is_refused(override: str, complaint: str) -> None:
    experiment = load_preset("toy_class_mix")
    apply_override(experiment, override)
    with pytest.raises(InputError) as refusal:
        validate(experiment)
    assert complaint in str(refusal.value)


@pytest.mark.parametrize("field", ["backbone_width", "aspp_channels", "decoder_channels"])
def test_networks_have_a_largest_width(field: str) -> None:
    model = load_preset("toy_class_mix").model
    setattr(model, field, 10**9)
    with pytest.raises(InputError, match=rf"model\.{field} is 1000000000; allowed: up to 8192"):
        model.build(19)


# --- all problems at once


def test_all_problems_are_told_at_once() -> None:
    preset = load_preset("toy_class_mix")
    typed = change(
        preset,
        ["train.seed=-1", "train.batch_size=0", "objectives.supervised.hardest=3",
         "data.crop=0,0", "data.target=none", "train.optimizer.momentum=0.5"],
    ).typed  # fmt: skip
    with pytest.raises(InputError) as refusal:
        validate(preset, typed=typed)
    found = refusal.value.problems
    assert len(found) == 6, found
    parts = ("train.optimizer.momentum is set", "train.batch_size is 0", "train.seed is -1",
             "data.crop is (0, 0)", "objectives.supervised.hardest is 3.0",
             "'class_mix' needs data.target")  # fmt: skip
    assert all(part in problem for part, problem in zip(parts, found, strict=True)), found
    assert str(refusal.value).startswith("6 problems: 1. ")


def test_all_wrong_types_are_told_at_once() -> None:
    odd: Any = experiment()
    odd.train.steps, odd.data.crop, odd.objectives["memory"].weight = "many", None, "much"
    with pytest.raises(InputError) as refusal:
        validate(odd)
    assert len(refusal.value.problems) == 3


# --- objectives that do not fit each other


def with_objectives(**objectives: ObjectiveConfig) -> Experiment:
    preset = load_preset("toy_class_mix")
    preset.objectives |= objectives
    return preset


@dataclass(kw_only=True, slots=True)
class OddConfig(ObjectiveConfig):
    """An objective with declarations of the test's choice."""

    needed: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    def needs(self) -> frozenset[Any]:
        return frozenset(self.needed)

    def reads(self) -> frozenset[str]:
        return frozenset(self.read)

    def adds(self) -> frozenset[str]:
        return frozenset(self.added)

    def build(self, num_classes: int) -> Objective:
        return Objective(self)


@pytest.mark.parametrize(
    ("odd", "complaint"),
    [
        (ClassMixConfig(start_step=300), "'odd' adds the view 'class_mix', as objective 'class_m"),
        (OddConfig(added=("source",), read=("source",)), "adds the view 'source', as the data"),
        (
            OddConfig(needed=("teachr",), read=("source",)),
            "'odd' needs 'teachr', an unknown need; ",
        ),
        (OddConfig(read=("clas_mix",)), "'odd' reads the view 'clas_mix' from step 0 on, which no"),
        (
            OddConfig(read=("class_mix",)),
            "before step 150: add --set objectives.odd.start_step=150",
        ),
        (OddConfig(), "'odd' reads no view and adds none that is read: it can never act"),
        (
            OddConfig(added=("unread",)),
            "it can never act; remove it, with --set objectives.odd=none",
        ),
    ],
)
def test_an_objective_that_cannot_act_is_refused(odd: ObjectiveConfig, complaint: str) -> None:
    with pytest.raises(InputError) as refusal:
        validate(with_objectives(odd=odd))
    assert complaint in str(refusal.value)


def test_an_objective_may_add_a_view_for_others() -> None:
    validate(
        with_objectives(
            giver=OddConfig(added=("given",)), taker=OddConfig(read=("given",), start_step=3)
        )
    )


def test_reading_a_domain_is_a_need_for_it() -> None:
    preset = load_preset("gc_640x360_b2_source_only")
    preset.objectives["odd"] = OddConfig(read=("target",))
    with pytest.raises(
        InputError, match=r"'odd' needs data\.target, .* --set data\.target=citysca"
    ):
        validate(preset)
    preset = load_preset("toy_entropy")
    preset.objectives["entropy"] = OddConfig(read=("target",))
    assert validate(preset).experiment.data.target is not None


# --- names


# Every run of the experiment log, by its name there.
LOG_NAMES = (
    "segmentron_deeplabv3plus_r101_cityscapes",
    *("multi_640x360_lsgan_b2", "multi_640x360_lsgan_b1", "gc_640x360_b1", "agc_640x360_b1"),
    *(f"aagc_640x360_b2{name}" for name in (
        "", "_multiaug", "_student", "_student_autoaug", "_student_full", "_student_full_autoaug",
        "_d1000", "_d500", "_single", "_single_cutmix", "_single_cutmix_real", "_single_fixmatch",
        "_single_cutmix_student", "_single_cutmix_student_gt", "_single_cutmix_student_own",
        "_single_cutmix_student_conf05", "_single_finetune", "_single_cutmix_real_d1000",
        "_single_cutmix_real_d500", "_single_cutmix_real_d100",
    )),
    "gc_640x360_b2_d1000",
    *(f"cityscapes_seg{name}" for name in ("", "_d2000", "_d1000", "_d500", "_d100")),
)  # fmt: skip
NO_FIGURE = {f"aagc_640x360_b2_single_cutmix_student_{name}" for name in ("own", "conf05")}


@pytest.mark.parametrize("name", LOG_NAMES)
def test_a_name_of_the_log_works(name: str) -> None:
    assert name in PRESETS
    assert f"logged_{name}" in PRESETS
    assert (published(name, None) is None) == (name in NO_FIGURE)
    assert published(f"logged_{name}", None) == published(name, None)


@pytest.mark.parametrize("prefix", ["", "logged_"])
def test_the_logs_cut_mix_student_is_the_one_that_was_scored(prefix: str) -> None:
    name = f"{prefix}aagc_640x360_b2_single_cutmix_student"
    assert load_preset(name) == load_preset(f"{name}_gt")
    entry = published(name, 10_000)
    assert entry is not None
    assert entry.miou == 66.37
    assert note_on_name(name) == (
        f"{name} is {name}_gt: of the runs that the log has under "
        "aagc_640x360_b2_single_cutmix_student, the one that it scored"
    )
    assert note_on_name(f"{name}_gt") == ""


def test_a_new_study_is_found_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new_study.py").write_text(
        '"""A study."""\nfrom uda.experiments.toy_city import toy_source_only\n\n\n'
        'def found_by_itself():\n    """A preset."""\n    return toy_source_only()\n'
    )
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(tmp_path)])
    found = experiments._studies()
    assert list(found)[-2:] == ["toy_city", "toy_methods"]
    assert [preset.name for preset in found["new_study"].presets] == ["found_by_itself"]
    monkeypatch.delitem(sys.modules, "uda.experiments.new_study", raising=False)
