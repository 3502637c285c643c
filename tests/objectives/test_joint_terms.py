"""Terms over several views: their gradients, and those that would be lost."""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tiny_runs import CPU, batch_for, random_batch, tiny_preset, tiny_run, without_dropout
from uda.data.batch import View
from uda.experiment import Experiment
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.memory_regularization import MemoryRegularizationConfig
from uda.training.run import Run
from uda.training.step import _collect_views, _start_teacher, _step_seed, train_step
from uda.utilities.errors import InputError


@dataclass(kw_only=True, slots=True)
class CoralConfig(ObjectiveConfig):
    """Sun and Saenko, "Deep CORAL", 2016, arXiv 1607.01719, here for feature maps."""

    weight: float = 1e4
    views: tuple[str, str] = ("source", "target")

    def needs(self) -> frozenset[Need]:
        return frozenset({"source", "target"})

    def joint(self) -> frozenset[str]:
        return frozenset(self.views)

    def build(self, num_classes: int) -> "Coral":
        return Coral(self)


class Coral(Objective):
    config: CoralConfig

    def joint_terms(
        self, outputs: Mapping[str, SegmentationOutput], context: StepContext
    ) -> dict[str, Tensor]:
        assert set(outputs) == set(self.config.views)
        one, other = (_covariance(outputs[name].features) for name in self.config.views)
        return {"coral": (one - other).square().mean()}


def _covariance(features: Tensor) -> Tensor:
    """(D, D) of feature maps (N, D, h, w)."""
    flat = features.movedim(1, 0).flatten(1)
    return torch.cov(flat)


@dataclass(kw_only=True, slots=True)
class AgreementConfig(CoralConfig):
    def build(self, num_classes: int) -> "Agreement":
        return Agreement(self)


class Agreement(Coral):
    """Logits of both heads instead of features."""

    def joint_terms(
        self, outputs: Mapping[str, SegmentationOutput], context: StepContext
    ) -> dict[str, Tensor]:
        one, other = (outputs[name] for name in self.config.views)
        assert one.auxiliary_logits is not None
        return {
            "main": (one.logits - other.logits).square().mean(),
            "crossed": (one.auxiliary_logits.softmax(1) * other.logits).mean(),
        }


def coral_only(root: Path) -> Experiment:
    experiment = tiny_preset("toy_entropy", root)
    experiment.objectives = {"coral": CoralConfig()}
    return experiment


def mixed_with_terms_per_view(root: Path) -> Experiment:
    """Two heads, a teacher, a view that an objective adds, and joint sets that overlap."""
    experiment = tiny_preset("aagc_640x360_b2_student", root)
    mixing = tiny_preset("toy_class_mix", root)
    experiment.teacher = mixing.teacher
    experiment.objectives |= {
        "coral": CoralConfig(),
        "class_mix": mixing.objectives["class_mix"],
        "memory": MemoryRegularizationConfig(),
        "agreement": AgreementConfig(weight=3.0, views=("target", "class_mix")),
    }
    return experiment


def in_double(experiment: Experiment) -> Run:
    """A run without dropout in which everything takes part from the first step."""
    for objective in experiment.objectives.values():
        objective.start_step = 0
    experiment.train.precision = "float32"
    experiment.train.max_grad_norm = None
    run = tiny_run(without_dropout(experiment))
    run.student.double()
    if run.teacher is not None:
        run.teacher.double()
    return run


def gradients(run: Run) -> dict[str, Tensor]:
    return {n: p.grad for n, p in run.student.named_parameters() if p.grad is not None}


def by_one_backward(run: Run) -> dict[str, Tensor]:
    """The gradients of the sum of all terms, with the graphs of all views in memory."""
    torch.manual_seed(_step_seed(run.experiment.train.seed, run.step))
    batch = batch_for(run.experiment).to_device(CPU)
    context = StepContext(run.step, run.experiment.train.seed, batch.indices, run.teacher)
    _start_teacher(run)
    run.student.train()
    read = {name for o in run.objectives.values() for name in o.reads | o.joint}
    views = [v for v in _collect_views(run, run.objectives, batch, context) if v.name in read]
    outputs = {view.name: run.student(view.images, perturb=view.perturb) for view in views}
    total = torch.zeros(())
    for objective in run.objectives.values():
        terms = [
            term
            for view in views
            if view.name in objective.reads
            for term in objective.terms(view, outputs[view.name], context).values()
        ]
        if objective.joint:
            joint = {name: outputs[name] for name in objective.joint}
            terms += objective.joint_terms(joint, context).values()
        total = total + objective.config.weight * torch.stack(terms).sum()
    total.backward()
    return gradients(run)


@pytest.mark.parametrize(
    ("made", "tolerance"),
    # Logits are float32 whatever the network is, and so are sums of their gradients.
    [(coral_only, 1e-12), (mixed_with_terms_per_view, 1e-5)],
)
def test_gradients_are_those_of_one_backward_over_everything(
    made: Callable[[Path], Experiment], tolerance: float, toy_root: Path
) -> None:
    """With batch norm in training, whose updates are the same, too."""
    ours, plain = (in_double(made(toy_root)) for _ in range(2))
    expected = by_one_backward(plain)
    train_step(ours, batch_for(ours.experiment))
    found = gradients(ours)
    assert found.keys() == expected.keys()
    scale = torch.stack([gradient.norm() for gradient in expected.values()]).max()
    for name, gradient in expected.items():
        assert gradient.any(), f"{name} has no gradient, so nothing is compared"
        error = (found[name] - gradient).norm() / (gradient.norm() + 1e-6 * scale)
        assert error < tolerance, f"{name}: {error}"
    buffers = dict(plain.student.named_buffers())
    for name, buffer in ours.student.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


def test_both_views_are_reached(toy_root: Path) -> None:
    """The gradient is that of source and target, not of the view that came last."""
    steps = []
    for detached in (None, "source", "target"):
        run = in_double(coral_only(toy_root))
        objective = run.objectives["coral"]
        joint_terms = objective.joint_terms

        def some_detached(
            outputs: Mapping[str, SegmentationOutput],
            context: StepContext,
            *,
            detached: str | None = detached,
            joint_terms: Callable[..., dict[str, Tensor]] = joint_terms,
        ) -> dict[str, Tensor]:
            cut = {n: o.replace(features=o.features.detach()) for n, o in outputs.items()}
            return joint_terms({n: cut[n] if n == detached else o for n, o in outputs.items()},
                               context)  # fmt: skip

        objective.joint_terms = some_detached  # type: ignore[method-assign]
        train_step(run, batch_for(run.experiment))
        steps.append(torch.cat([g.flatten() for g in gradients(run).values()]))
    both, target_only, source_only = steps
    assert torch.allclose(both, source_only + target_only, rtol=1e-9, atol=1e-12)
    assert min(source_only.norm(), target_only.norm()) > 1e-3 * both.norm()


@pytest.mark.parametrize(
    ("joint", "kept"),
    [(True, [set(), {"source"}, {"target"}]), (False, [set(), set(), set()])],
)
def test_only_views_that_are_compared_later_stay_in_memory(
    joint: bool, kept: list[set[str]], toy_root: Path
) -> None:
    """When the student sees a view, the graphs of earlier ones are gone, unless a joint term of
    theirs is still to come."""
    run = tiny_run(mixed_with_terms_per_view(toy_root))
    for name, objective in [*run.objectives.items()]:
        objective.config.start_step = 0
        if objective.joint and not joint:
            del run.objectives[name]
    outputs: dict[str, weakref.ref[Tensor]] = {}
    names = iter(("source", "target", "class_mix"))
    found = []

    def note(network: nn.Module, inputs: object, output: SegmentationOutput) -> None:
        found.append({name for name, output in outputs.items() if output() is not None})
        outputs[next(names)] = weakref.ref(output.features)

    run.student.register_forward_hook(note)
    run.experiment.train.log_every = 1000
    train_step(run, batch_for(run.experiment))
    assert found == kept


@dataclass(kw_only=True, slots=True)
class StashingConfig(ObjectiveConfig):
    detach: bool = False

    def reads(self) -> frozenset[str]:
        return frozenset({"source", "target"})

    def build(self, num_classes: int) -> "Stashing":
        return Stashing(self)


class Stashing(Objective):
    """Compares features of two views without saying so in `joint`."""

    config: StashingConfig

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        if view.name == "source":
            self.kept = output.features.detach() if self.config.detach else output.features
            return {}
        return {"distance": (self.kept.mean() - output.features.mean()).square()}


def stashing(root: Path, config: ObjectiveConfig) -> Run:
    experiment = tiny_preset("toy_source_only", root)
    experiment.objectives["stashing"] = config
    return tiny_run(experiment)


def test_a_gradient_that_would_be_lost_is_refused(toy_root: Path) -> None:
    message = r"objective 'stashing' .* output on view 'source' .* would be lost.*joint_terms"
    with pytest.raises(InputError, match=message):
        train_step(stashing(toy_root, StashingConfig()), random_batch())


def test_what_is_detached_may_be_kept(toy_root: Path) -> None:
    result = train_step(stashing(toy_root, StashingConfig(detach=True)), random_batch())
    assert "loss/stashing/distance" in result.losses


def test_a_gradient_lost_after_the_last_view_is_refused(toy_root: Path) -> None:
    """In `after_backward`, no graph of the student is left."""
    run = stashing(toy_root, StashingConfig(detach=True))
    stash = run.objectives["stashing"]

    def after_backward(context: StepContext) -> dict[str, Tensor]:
        return {"late": kept[0].square().mean()}

    def terms(view: View, output: SegmentationOutput, context: StepContext) -> dict[str, Tensor]:
        kept.append(output.features)
        return {}

    kept: list[Tensor] = []
    stash.terms, stash.after_backward = terms, after_backward  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"objective 'stashing' .* view 'source'"):
        train_step(run, random_batch())


def test_keeping_outputs_of_a_joint_view_until_its_joint_terms_is_allowed(toy_root: Path) -> None:
    """The graph of a view that is compared is still there when a later view is learned from."""

    @dataclass(kw_only=True, slots=True)
    class Config(StashingConfig):
        def joint(self) -> frozenset[str]:
            return self.reads()

        def build(self, num_classes: int) -> "Stashing":
            return Stashing(self)

    result = train_step(stashing(toy_root, Config()), random_batch())
    assert "loss/stashing/distance" in result.losses
