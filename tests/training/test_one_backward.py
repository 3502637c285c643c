"""A step's gradients, made view by view, are those of one backward through the graphs of all."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tiny_runs import CPU, batch_for, tiny_preset, tiny_run, without_dropout
from trials import equip, kinds
from uda.data.config import DomainConfig
from uda.experiment import Experiment
from uda.models.discriminators import Discriminator, Scores
from uda.objectives.adversarial import AdversarialConfig
from uda.objectives.base import StepContext
from uda.objectives.supervised import SupervisedConfig
from uda.training.run import Run
from uda.training.step import _collect_views, _step_seed, train_step


def with_objective(kind: str, root: Path) -> Experiment:
    """Source labels and one objective more, from the first step on."""
    experiment = without_dropout(tiny_preset("gc_640x360_b2_source_only", root))
    objectives = {"supervised": SupervisedConfig(auxiliary_weight=0.0), "tried": kinds()[kind]()}
    target = DomainConfig(datasets=("cityscapes",), size=(88, 176))
    equip(experiment, objectives, target=target, pseudo_labels=root.parent / "pseudo_labels")
    for objective in experiment.objectives.values():
        objective.start_step = 0
    experiment.train.precision = "float32"
    return experiment


def one_backward(run: Run) -> None:
    """The gradients of a step whose graphs are all kept until one backward, at the end."""
    batch = batch_for(run.experiment).to_device(CPU)
    torch.manual_seed(_step_seed(run.experiment.train.seed, run.step))
    context = StepContext(
        run.step, run.experiment.train.seed, batch.indices, run.teacher,
        target_images=batch.target_images,
    )  # fmt: skip
    if run.teacher is not None:
        run.teacher.restart(run.student)
    run.student.train()
    outputs, losses = {}, list[Tensor]()
    for view in _collect_views(run, run.objectives, batch, context):
        readers = [o for o in run.objectives.values() if view.name in o.reads]
        joined = [o for o in run.objectives.values() if view.name in o.joint]
        if not readers and not joined:
            continue
        outputs[view.name] = run.student(
            view.images, perturb=view.perturb, hide_tokens=view.hide_tokens
        )
        for objective in readers:
            terms = objective.terms(view, outputs[view.name], context)
            losses += [objective.config.weight * term for term in terms.values()]
    for objective in run.objectives.values():
        if objective.joint:
            shown = {name: outputs[name] for name in sorted(objective.joint)}
            terms = objective.joint_terms(shown, context)
            losses += [objective.config.weight * term for term in terms.values()]
    torch.stack(losses).sum().backward()
    own = [t for o in run.objectives.values() for t in o.after_backward(context).values()]
    if own:
        torch.stack(own).sum().backward()


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_views_one_by_one_have_the_gradients_of_one_backward(kind: str, toy_root: Path) -> None:
    experiment = with_objective(kind, toy_root)
    stepped, whole = tiny_run(experiment), tiny_run(experiment)
    train_step(stepped, batch_for(experiment))
    one_backward(whole)
    for ours, theirs in zip(stepped.networks(), whole.networks(), strict=True):
        found, expected = gradients(ours), gradients(theirs)
        assert found.keys() == expected.keys()
        length = sum(float(g.double().square().sum()) for g in expected.values()) ** 0.5
        apart = sum(float((found[n] - g).double().square().sum()) for n, g in expected.items())
        assert apart**0.5 <= 1e-5 * length
    assert gradients(stepped.student), "the student learns"
    if stepped.teacher is not None:
        assert not gradients(stepped.teacher), "the teacher learns by no gradient"


def test_what_discriminators_see_gets_no_gradient(
    toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient penalty needs one of its own; that of the losses would be a waste."""
    seen: list[Tensor] = []
    scored = Discriminator.score

    def listening(network: Discriminator, probabilities: Tensor) -> Scores:
        seen.append(probabilities)
        return scored(network, probabilities)

    monkeypatch.setattr(Discriminator, "score", listening)
    experiment = with_objective("Adversarial", toy_root)
    adversarial = experiment.objectives["tried"]
    assert isinstance(adversarial, AdversarialConfig)
    adversarial.gradient_penalty = 0.1
    run = tiny_run(experiment)
    result = train_step(run, batch_for(experiment))
    assert result.losses["loss/tried/gradient_penalty_main"] > 0
    assert seen
    assert all(each.requires_grad and each.grad is None for each in seen)
    assert gradients(run.objectives["tried"])
