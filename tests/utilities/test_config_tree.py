"""Dataclass trees as plain values, and overrides from the command line."""

from dataclasses import fields
from typing import Any

import pytest

from uda.data.config import DataConfig, DomainConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig
from uda.experiments import PRESETS, load_preset
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.models.registry import model_from_plain
from uda.objectives.supervised import SupervisedConfig
from uda.optim.teacher import TeacherConfig
from uda.utilities.config_tree import (
    apply_override,
    check_types,
    differences,
    from_plain,
    suggest,
    to_plain,
)
from uda.utilities.errors import InputError


def experiment() -> Experiment:
    return load_preset("aagc_640x360_b2")


def rebuilt(plain: dict[str, Any], like: Experiment) -> Experiment:
    """The experiment of plain values; the classes of its objectives are those of `like`."""
    objectives = {}
    for name, config in like.objectives.items():
        values = dict(plain["objectives"][name])
        assert values.pop("type") == type(config).__name__
        objectives[name] = from_plain(type(config), values, origin="test")
    teacher = plain["teacher"]
    return Experiment(
        data=from_plain(DataConfig, plain["data"], origin="test"),
        model=model_from_plain(plain["model"], origin="test"),
        objectives=objectives,
        teacher=None if teacher is None else from_plain(TeacherConfig, teacher, origin="test"),
        train=from_plain(TrainConfig, plain["train"], origin="test"),
        evaluation=from_plain(EvaluationConfig, plain["evaluation"], origin="test"),
    )


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_as_plain_values(name: str) -> None:
    original = load_preset(name)
    plain = to_plain(original)
    assert rebuilt(plain, original) == original
    assert differences(plain, to_plain(load_preset(name))) == []


def test_plain_values_hold_nothing_but_builtin_types() -> None:
    def kinds(value: object) -> set[type]:
        if isinstance(value, dict):
            return {dict}.union(*map(kinds, value.values()))
        if isinstance(value, tuple):
            return {tuple}.union(*map(kinds, value))
        return {type(value)}

    for name in PRESETS:
        allowed = {dict, tuple, str, int, float, bool, type(None)}
        assert kinds(to_plain(load_preset(name))) <= allowed


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.steps=12", 12),
        ("train.optimizer.lr=1e-4", 1e-4),
        ("train.optimizer.lr=1", 1.0),
        ("data.source.mirror=false", False),
        ("data.source.mirror=True", True),
        ("data.root= /data/with space ", "/data/with space"),
        ("data.root=a=b", "a=b"),
        ("data.crop=32, 64", (32, 64)),
        ("data.crop=(32,64)", (32, 64)),
        ("data.source.scale=0.5,1", (0.5, 1.0)),
        ("data.exclude=gta5/00001", ("gta5/00001",)),
        ("data.exclude=", ()),
        ("evaluation.scales=0.5,1,2", (0.5, 1.0, 2.0)),
        ("evaluation.input_size=none", None),
        ("evaluation.input_size=256,512", (256, 512)),
        ("data.target=None", None),
        ("data.target.first=500", 500),
        ("train.initial_snapshot=some/file.pth", "some/file.pth"),
        ("model.batch_norm=frozen", "frozen"),
        ("model.output_stride=8", 8),
        (" objectives.supervised.hardest = 0.5", 0.5),
    ],
)
def test_an_override_sets_the_value_it_spells(override: str, value: object) -> None:
    config: Any = experiment()
    apply_override(config, override)
    for name in override.partition("=")[0].strip().split("."):
        config = config[name] if isinstance(config, dict) else getattr(config, name)
    assert config == value
    assert type(config) is type(value)


def test_an_override_changes_nothing_else() -> None:
    config = experiment()
    apply_override(config, "train.optimizer.lr=0.5")
    assert differences(to_plain(config), to_plain(experiment())) == ["train.optimizer.lr"]


def test_none_removes_an_objective() -> None:
    config = experiment()
    apply_override(config, "objectives.memory=none")
    assert list(config.objectives) == ["supervised", "adversarial"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps", "write it as name=value"),
        ("=3", "write it as name=value"),
        ("trian.steps=3", "no 'trian'; did you mean \"train\"?"),
        ("train.stepz=3", 'did you mean "steps"?'),
        ("train.zzzzzz=3", "known: backbone_lr_factor, batch_size,"),
        ("train..steps=3", "there is no ''"),
        ("objectives.memori=none", 'did you mean "memory"?'),
        ("objectives.memori.weight=1", 'did you mean "memory"?'),
        (
            "objectives.memory=0.5",
            "'0.5' is not ObjectiveConfig; allowed: none; fields are set one by one: --set obj",
        ),
        ("objectives=none", "names, each with a ObjectiveConfig"),
        ("data.crop.height=3", "'height' is below a value that has no fields"),
        ("teacher.momentum=0.5", "teacher is none in this preset"),
        ("train.steps=ten", "'ten' is not a whole number"),
        ("train.steps=1.5", "'1.5' is not a whole number"),
        ("train.steps=none", "'none' is not a whole number"),
        ("train.optimizer.lr=fast", "'fast' is not a finite number"),
        ("train.optimizer.lr=nan", "'nan' is not a finite number"),
        ("train.optimizer.lr=inf", "'inf' is not a finite number"),
        ("train.optimizer.lr=1e308", "is not a finite number (up to 1e30)"),
        ("data.source.mirror=yes", "'yes' is not true or false"),
        ("data.crop=360", "is not 2 values, separated by commas: a whole number, a whole number"),
        ("data.crop=360,640,3", "is not 2 values"),
        ("data.crop=360,wide", "is not 2 values"),
        ("evaluation.scales=1,x", "is not any number of a finite number (up to 1e30), separated"),
        ("evaluation.input_size=big", "a whole number, a whole number or none"),
        ("model.batch_norm=freeze", "is not one of train, frozen_affine, frozen"),
        ("model.output_stride=32", "is not one of 8, 16"),
        ("data.target=cityscapes", "is not DomainConfig or none"),
        ("train=3", "'3' is not TrainConfig"),
    ],
)
def test_an_override_that_does_not_fit_is_refused(override: str, message: str) -> None:
    config = experiment()
    with pytest.raises(InputError) as refusal:
        apply_override(config, override)
    assert message in str(refusal.value)
    assert override.partition("=")[0] in str(refusal.value)
    assert config == experiment()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("train.steps", "3", "experiment.train.steps is '3'; allowed: a whole number"),
        ("train.steps", True, "experiment.train.steps is True; allowed: a whole number"),
        ("train.optimizer.lr", True, "allowed: a finite number"),
        ("train.optimizer.lr", float("nan"), "allowed: a finite number"),
        ("data.crop", [360, 640], "experiment.data.crop is [360, 640]; allowed: 2 values"),
        ("data.exclude", ("a", 1), "experiment.data.exclude is ('a', 1); allowed: any number"),
        (
            "data.source",
            DeepLabV3PlusConfig(),
            "experiment.data.source cannot be a DeepLabV3PlusConfig",
        ),
        ("data.crop", None, "experiment.data.crop is None; allowed: 2 values"),
        ("model.output_stride", 16.0, "experiment.model.output_stride is 16.0; allowed: one of"),
        ("objectives", {"x": DeepLabV3PlusConfig()}, "allowed: names, each with a ObjectiveConfig"),
        ("objectives", {1: SupervisedConfig()}, "allowed: names, each with a ObjectiveConfig"),
        ("objectives", None, "experiment.objectives is None"),
    ],
)
def test_a_value_of_another_type_is_refused(field: str, value: object, message: str) -> None:
    config: Any = experiment()
    *parents, last = field.split(".")
    owner = config
    for name in parents:
        owner = getattr(owner, name)
    setattr(owner, last, value)
    with pytest.raises(InputError) as refusal:
        check_types(config, origin="experiment")
    assert message in str(refusal.value)


def test_members_of_a_dict_are_checked_too() -> None:
    config: Any = experiment()
    config.objectives["memory"].weight = "much"
    with pytest.raises(InputError, match=r"experiment\.objectives\.memory\.weight is 'much'"):
        check_types(config, origin="experiment")


def test_plain_values_with_other_fields_are_refused() -> None:
    good = to_plain(DomainConfig(datasets=("gta5",)))
    names = sorted(field.name for field in fields(DomainConfig))
    without = {name: value for name, value in good.items() if name != "datasets"}
    for odd in (without, good | {"zoom": 2}, ["gta5"], None):
        with pytest.raises(InputError) as refusal:
            from_plain(DomainConfig, odd, origin="file.json")  # type: ignore[arg-type]
        assert f"file.json: DomainConfig has fields {names}" in str(refusal.value)
    with pytest.raises(InputError, match=r"file\.json\.mirror is 1; allowed: true or false"):
        from_plain(DomainConfig, good | {"mirror": 1}, origin="file.json")


def test_a_file_may_be_older_than_a_field_that_has_a_default() -> None:
    config = DomainConfig(datasets=("gta5",), mirror=True)
    older = {name: value for name, value in to_plain(config).items() if name != "scale"}
    assert from_plain(DomainConfig, older, origin="file.json") == config


def test_plain_values_nested_wrongly_are_refused() -> None:
    plain = to_plain(experiment().data)
    with pytest.raises(InputError, match="DomainConfig has fields"):
        from_plain(DataConfig, plain | {"target": {"splits": ("train",)}}, origin="file")
    with pytest.raises(InputError, match=r"file\.target is 3; allowed: DomainConfig or none"):
        from_plain(DataConfig, plain | {"target": 3}, origin="file")


def test_differences_name_what_differs() -> None:
    ours = {"a": 1, "b": {"c": (1, 2), "d": None}, "e": True}
    assert differences(ours, ours) == []
    assert differences(ours, {"a": 1.0, "b": {"c": (1, 2), "d": None}, "e": True}) == []
    theirs = {"a": 2, "b": {"c": (2, 1), "x": 0}, "e": 1}
    assert differences(ours, theirs) == ["a", "b.c", "b.d", "b.x", "e"]
    assert differences({"teacher": None}, {"teacher": {"momentum": 0.9}}) == ["teacher"]


def test_suggest() -> None:
    assert suggest("cityscape", ["gta5", "cityscapes"]) == 'did you mean "cityscapes"?'
    assert suggest("xyz", ["gta5", "cityscapes"]) == "known: cityscapes, gta5"
    many = [f"network{number:04}" for number in range(2000)]
    assert suggest("xyz", many).endswith(", network0059, and 1940 more")


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("train.steps=" + "9" * 5000, "is not a whole number"),
        ("train.steps=9223372036854775808", "'9223372036854775808' is not a number of 64 bits"),
        ("train.steps=\u0661\u0662", "is not a whole number"),
        ("train.optimizer.lr=1e999", "'1e999' is not a finite number"),
        ("train.optimizer.lr=nan", "'nan' is not a finite number"),
        ("x" * 10**6 + "=1", "there is no 'xxx"),
        ("train." + "x" * 10**6 + "=1", "there is no 'xxx"),
        ("(" * 10**6, "write it as name=value"),
        ("data.crop=" + "(" * 10**5, "is not 2 values"),
        ("data.crop=" + "1," * 10**5, "is not 2 values"),
        ("train.seed.x=1", "'x' is below a value that has no fields"),
    ],
)
def test_no_text_is_too_odd_to_be_refused_in_a_line(override: str, complaint: str) -> None:
    with pytest.raises(InputError) as refusal:
        apply_override(experiment(), override)
    assert complaint in str(refusal.value)
    assert len(str(refusal.value)) < 1500


def test_a_whole_number_for_a_float_may_not_be_larger_than_floats_are() -> None:
    config = experiment()
    config.train.power = 10**400
    with pytest.raises(InputError, match=r"train\.power is 1000.* \.\.\. .*; allowed: a finite"):
        check_types(config, origin="experiment")
    config.train.power, config.train.steps = 1, 2**63
    with pytest.raises(InputError, match=r"train\.steps is 9223372036854775808; allowed: a whole"):
        check_types(config, origin="experiment")
