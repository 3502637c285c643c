"""What an objective declares is checked, and errors name the objective."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor

from tiny_runs import CPU, random_batch, tiny_preset, tiny_run
from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.counts import StepCounts
from uda.objectives.cut_mix import CutMixConfig
from uda.objectives.fix_match import FixMatchConfig
from uda.objectives.registry import objective_configs
from uda.optim.teacher import TeacherConfig
from uda.training.run import Run
from uda.training.step import train_step
from uda.utilities.errors import InputError


def variants(cls: type[ObjectiveConfig]) -> Iterator[ObjectiveConfig]:
    """Its settings by default, and with each choice or switch of one field."""
    yield cls()
    hints = get_type_hints(cls)
    for field in fields(cls):
        hint = hints[field.name]
        choices = [arg for arg in get_args(hint) if get_origin(hint) is Literal]
        choices += [True, False] if hint is bool else []
        choices += [None] if type(None) in get_args(hint) else []
        choices += [0.0, 1.0] if field.name.endswith("_weight") else []
        for choice in choices:
            yield cls(**{field.name: choice})


@pytest.mark.parametrize("name", objective_configs())
def test_needs_are_known_and_every_objective_acts(name: str) -> None:
    for config in variants(objective_configs()[name]):
        assert config.needs() <= set(get_args(Need))
        assert config.reads() | config.joint(), "an objective that reads no view has no terms"
        domains = {"source", "target"}
        assert (config.reads() | config.joint()) & domains <= config.needs(), (
            "a domain that is read is needed"
        )
        assert not config.adds() & domains
        objective = config.build(3)
        assert objective.config is config
        assert objective.reads == config.reads()
        assert objective.joint == config.joint()


def test_a_check_that_calls_super_checks_what_all_objectives_have() -> None:
    @dataclass(kw_only=True, slots=True)
    class Config(ObjectiveConfig):
        def check(self, path: str) -> None:
            super().check(path)

    with pytest.raises(InputError, match=r"objectives\.x\.weight"):
        Config(weight=-1.0).check("objectives.x")


@dataclass(kw_only=True, slots=True)
class ViewsConfig(ObjectiveConfig):
    """An objective that declares and returns what the test says."""

    declared: tuple[str, ...] = ("own",)
    returned: tuple[str, ...] = ("own",)
    read: tuple[str, ...] = ("own",)
    together: tuple[str, ...] = ()

    def adds(self) -> frozenset[str]:
        return frozenset(self.declared)

    def reads(self) -> frozenset[str]:
        return frozenset(self.read)

    def joint(self) -> frozenset[str]:
        return frozenset(self.together)

    def build(self, num_classes: int) -> "Views":
        return Views(self)


class Views(Objective):
    config: ViewsConfig

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        return tuple(View(name, batch.target_images) for name in self.config.returned)

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        return {"mean": output.logits.square().mean()}


def run_with(config: ObjectiveConfig, root: Path) -> Run:
    experiment = tiny_preset("toy_source_only", root)
    experiment.objectives["mine"] = config
    return tiny_run(experiment)


def test_declared_views_are_learned_from(toy_root: Path) -> None:
    result = train_step(run_with(ViewsConfig(), toy_root), random_batch())
    assert "loss/mine/mean" in result.losses


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ViewsConfig(returned=("own", "typo")),
         r"objective 'mine' adds the view 'typo', but adds\(\) of its config names 'own'"),
        (ViewsConfig(declared=()), r"adds the view 'own', but adds\(\) of its config names none"),
        (ViewsConfig(returned=()), "objective 'mine' reads 'own', but the views of step 0 are "
         "'source', 'target'"),
        (ViewsConfig(read=("own", "traget")), "objective 'mine' reads 'traget', but the views"),
        (ViewsConfig(together=("source", "other")), "objective 'mine' reads 'other', but"),
        (ViewsConfig(declared=("source",), returned=("source",), read=("source",)),
         "objective 'mine' adds a view of the name 'source', which another view"),
        (ViewsConfig(returned=("own", "own")), "objective 'mine' adds a view of the name 'own'"),
    ],
)  # fmt: skip
def test_a_view_that_is_not_as_declared_is_refused(
    config: ObjectiveConfig, message: str, toy_root: Path
) -> None:
    with pytest.raises(InputError, match=message):
        train_step(run_with(config, toy_root), random_batch())


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (lambda logits: logits.mean(dim=(1, 2, 3)),
         r"objective 'mine': term 'mean' is a tensor \(2,\); allowed: a scalar"),
        (lambda logits: logits.detach().mean(), "objective 'mine': no gradient flows from mean"),
    ],
)  # fmt: skip
def test_a_term_that_cannot_be_learned_is_refused(
    term: object, message: str, toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(term)
    monkeypatch.setattr(Views, "terms", lambda self, view, output, _: {"mean": term(output.logits)})
    with pytest.raises(InputError, match=message):
        train_step(run_with(ViewsConfig(), toy_root), random_batch())


def test_the_teacher_labels_the_same_images_once_in_a_step(toy_root: Path) -> None:
    experiment = tiny_preset("toy_class_mix", toy_root)
    experiment.objectives = {
        "class_mix": ClassMixConfig(),
        "cut_mix": CutMixConfig(),
        "fix_match": FixMatchConfig(),
    }
    experiment.teacher = TeacherConfig()
    run = tiny_run(experiment)
    assert run.teacher is not None
    asked: list[Tensor] = []
    run.teacher.register_forward_hook(lambda _, inputs, __: asked.append(inputs[0]))
    for made in (1, 2):
        train_step(run, random_batch())
        assert len(asked) == made, "once per step, whichever objectives ask"


def test_the_teacher_labels_other_or_changed_images_again() -> None:
    calls = []

    def teacher(images: Tensor) -> Tensor:
        calls.append(images)
        return torch.stack([images[:, 0], images[:, 1]], dim=1)

    context = StepContext(0, 0, (0,), teacher)
    images = torch.rand(1, 3, 2, 2)
    first = context.teacher_labels(images)
    assert context.teacher_labels(images) is first
    assert len(calls) == 1
    context.teacher_labels(images.clone())
    assert len(calls) == 2
    images.zero_()
    assert not torch.equal(context.teacher_labels(images).confidence, first.confidence)
    assert len(calls) == 3
    StepContext(1, 0, (0,), teacher).teacher_labels(images)
    assert len(calls) == 4, "the next step's teacher is another"


def test_asking_for_a_teacher_that_is_not_needed_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"none: let needs\(\) of the objective's config include \"teacher\""
    ):
        StepContext(0, 0, (0,)).teacher_labels(torch.rand(1, 3, 2, 2, device=CPU))


def test_only_labels_of_the_target_images_count_as_agreement() -> None:
    """An objective may ask for labels of other images, even of another number of them."""
    target = torch.rand(1, 3, 2, 2)
    counts = StepCounts({}, num_classes=2)
    context = StepContext(0, 0, (0,), lambda images: images[:, :2], counts, target)
    context.teacher_labels(target)
    context.teacher_labels(torch.cat([target, target]))
    counts.student("target", target[:, :2])
    assert counts.by_name["agreement"].tolist() == [4, 4]
