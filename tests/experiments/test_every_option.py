"""Every option changes what a run does, or is refused: none is accepted and ignored."""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from option_cases import (
    BOX,
    CASES,
    ENCODER,
    LABELS,
    OTHER_LABELS,
    SNAPSHOT,
    WEIGHTS,
    Case,
    small,
    trained_before,
    under_teacher,
    with_objective,
)
from option_effects import ignored, same, unchanged, unchanged_whole_run, updates, whole_run
from option_values import Option, changed, options_of
from PIL import Image
from torch import Tensor

from networks import small_network
from tiny_runs import CPU, thinned, tiny_model, write_pseudo_labels
from uda.data.config import DataConfig
from uda.data.samples import Sample
from uda.evaluation.evaluate import EvaluationConfig, evaluate
from uda.evaluation.measures import Measured
from uda.experiment import Experiment, TrainConfig, validate
from uda.labels.spaces import LabelSpace
from uda.models.segmenter import Segmenter
from uda.models.smp import SmpConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.optimizers import OptimizerConfig
from uda.training.loop import train
from uda.utilities.errors import InputError


@pytest.fixture(scope="module")
def root(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with all those files beside it."""
    root = tmp_path_factory.mktemp("every_option") / "toy_city"
    root.symlink_to(toy_root)
    write_pseudo_labels(root.parent / LABELS, root)
    shutil.copytree(root.parent / LABELS, root.parent / OTHER_LABELS)
    for path in (root.parent / OTHER_LABELS).glob("*.png"):
        with Image.open(path) as image:
            labels = np.asarray(image)
        Image.fromarray(np.roll(labels, 8, axis=1)).save(path)
    trained = small(root)
    trained.train.optimizer = OptimizerConfig(name="adamw", lr=0.003)
    trained.train.head_lr_factor = 1.0
    trained.train.steps = trained.evaluation.every = 10  # until it tells some classes apart
    train(trained, root.parent / Path(SNAPSHOT).parent, preset="trained", device=CPU)
    torch.manual_seed(1)
    torch.save(tiny_model().build(19).backbone.state_dict(), root.parent / WEIGHTS)
    if find_spec("segmentation_models_pytorch"):
        torch.save(small_network(SmpConfig).build(19).backbone.state_dict(), root.parent / ENCODER)
    return root


# Options that leave every bit as it is.
SAME_BITS = {
    "data.cache": "the same bits from there: tests/data/test_pixel_cache.py",
    "data.rare_classes.statistics": "only where counts are kept: tests/data/test_rare_classes.py",
    "data.workers": "promise 2: the number of loader processes changes nothing",
    "evaluation.batch": "the same passes, several at a time: tests/evaluation/test_batches.py",
    "model.encoder.checkpointing": "less memory for more time: tests/models/test_checkpointing.py",
    "train.skip_nonfinite": "all is finite here; what it does otherwise: test_survival.py",
}


OPTIONS = [option for name, case in CASES.items() for option in options_of(name, case)]


@pytest.mark.parametrize("case", CASES)
def test_a_case_is_accepted_before_an_option_changes(case: str, root: Path) -> None:
    """Otherwise each of its options would seem to be refused."""
    validate(CASES[case].build(root))


@pytest.mark.parametrize(
    "option", thinned(OPTIONS, one_in=4), ids=lambda option: f"{option.case}-{option.path}"
)
def test_every_option_matters_or_is_refused(option: Option, root: Path, tmp_path: Path) -> None:
    if option.path in SAME_BITS:
        assert ignored(option, root, tmp_path), "it may change nothing"
        return
    assert ignored(option, root, tmp_path) == []


def settings_classes() -> dict[str, type]:
    """Every dataclass of which an Experiment can consist, by name."""
    found: dict[str, type] = {}
    waiting: list[object] = [Experiment]
    while waiting:
        annotation = waiting.pop()
        waiting += get_args(annotation)
        if isinstance(annotation, type) and is_dataclass(annotation):
            # Not those of a file that another test has put into the package.
            ours = {name for name in sys.modules if name.startswith("uda.")}
            # No preset can have these: they come with a file, for inference.
            ours -= {name for name in ours if name.startswith("uda.models.from_files")}
            below = (cls for cls in annotation.__subclasses__() if cls.__module__ in ours)
            waiting += [cls for cls in below if cls.__name__ not in found]
            if annotation.__name__ not in found:
                found[annotation.__name__] = annotation
                waiting += get_type_hints(annotation).values()
    return found


def test_no_option_is_left_out() -> None:
    """Options of objectives and networks are found by themselves, those of other settings by the
    cases that have them."""
    walked = {(option.owner, option.path.rpartition(".")[2]) for option in OPTIONS}
    classes = settings_classes()
    assert {"TeacherConfig", "RestartConfig", "SegmenTronConfig", "JitterConfig"} <= set(classes)
    # Their options are walked in those below them.
    for base in ("ObjectiveConfig", "TeacherLabelsConfig", "ModelConfig", "BackboneModelConfig",
                 "ResNetConfig", "DecoderConfig", "BackboneConfig"):  # fmt: skip
        del classes[base]
    missing = [
        f"{name}.{field}"
        for name, cls in classes.items()
        for field, annotation in get_type_hints(cls).items()
        # A part that cannot be none has no other value: its own options are walked.
        if not is_dataclass(annotation) and get_origin(annotation) is not dict
        if (name, field) not in walked
    ]
    assert missing == [], (
        "no test changes these options: let a case of option_cases.py walk them or, if the type "
        "has no obvious other value, name some in OTHERS of option_values.py"
    )


@pytest.mark.parametrize("case", ["adapting", "under_teacher"])
def test_the_same_options_give_the_same_bits(case: str, root: Path) -> None:
    """So that a difference above comes from the option."""
    assert tuple(updates(CASES[case].build(root))) == unchanged(case, root)


def test_the_same_whole_run_leaves_the_same(root: Path, tmp_path: Path) -> None:
    again = whole_run(CASES["small"].build(root), tmp_path / "again")
    assert same(again, unchanged_whole_run("small", root))


@dataclass(kw_only=True, slots=True)
class ForgetfulConfig(SupervisedConfig):
    """Supervised, with an option that nobody reads."""

    smoothing: float = 0.1


def test_an_option_that_nobody_reads_is_noticed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(partial(with_objective, ForgetfulConfig), ("objectives.subject",))
    monkeypatch.setitem(CASES, "forgetful", case)
    options = {option.path: option for option in options_of("forgetful", case)}
    assert ignored(options["objectives.subject.smoothing"], root, tmp_path) == [0.05]
    assert ignored(options["objectives.subject.weight"], root, tmp_path) == []


def test_an_option_that_gets_lost_on_its_way_is_noticed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_jitter(images: Tensor, *_: object) -> Tensor:
        return images

    case = Case(under_teacher, ("objectives.subject.jitter.gamma",))
    monkeypatch.setitem(CASES, "without_jitter", case)
    monkeypatch.setattr("uda.objectives.class_mix.jitter", without_jitter)
    (option,) = options_of("without_jitter", case)
    assert ignored(option, root, tmp_path) == [0.2]


def test_an_option_of_the_evaluation_that_gets_lost_is_noticed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_flip(
        segmenter: Segmenter,
        samples: Sequence[Sample],
        *,
        config: EvaluationConfig,
        label_space: LabelSpace,
        **_: object,
    ) -> Measured:
        config = replace(config, flip=False)
        return evaluate(segmenter, samples, config=config, label_space=label_space)

    case = Case(trained_before, ("evaluation.flip",))
    monkeypatch.setitem(CASES, "without_flip", case)
    monkeypatch.setattr("uda.training.records.evaluate", without_flip)
    (option,) = options_of("without_flip", case)
    assert ignored(option, root, tmp_path) == [True]


# --- a preset that trains nothing


def evaluation_only(root: Path) -> Experiment:
    return Experiment(
        data=DataConfig(root=str(root), workers=0),
        model=small(root).model,
        train=TrainConfig(steps=0, batch_size=1, initial_snapshot=str(root.parent / SNAPSHOT)),
        evaluation=EvaluationConfig(dataset="cityscapes", input_size=BOX),
    )


# How a network was begun and trained: true of the one in a file, and nothing that scoring reads.
OF_THE_NETWORK = {"model.backbone_weights", "model.batch_norm", "model.dropout"}


@pytest.mark.slow
def test_a_preset_that_trains_nothing_uses_or_refuses_every_option(
    root: Path, tmp_path: Path
) -> None:
    case = Case(evaluation_only, ("data", "model", "teacher", "train", "evaluation"))

    def scores(experiment: Experiment) -> tuple[object, ...]:
        found = train(experiment, tmp_path / "none", preset="tiny", device=CPU)
        measured = json.loads((tmp_path / "none" / "scores.json").read_text())
        return found.confusion, measured.keys()

    before = scores(case.build(root))
    idle = set()
    for option in options_of("evaluation_only", case):
        for value in option.others:
            try:
                experiment = changed(case, option.path, value, root)
                validate(experiment, typed=[option.path])
                after = scores(experiment)
            except InputError:
                continue
            if after == before:
                idle.add(option.path)
    assert sorted(idle - OF_THE_NETWORK - set(SAME_BITS)) == []
