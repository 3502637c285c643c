"""Adversarial adaptation: who learns from which loss, and what each discriminator sees."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from uda.data.batch import View
from uda.models.discriminators import Discriminator
from uda.models.segmenter import SegmentationOutput
from uda.objectives.adversarial import Adversarial, AdversarialConfig
from uda.objectives.base import StepContext
from uda.objectives.functional.adversarial import (
    AdversarialKind,
    DiscriminatorInput,
    fool,
    gradient_penalty,
    seen_by_discriminators,
    tell_apart,
)
from uda.objectives.supervised import SupervisedConfig
from uda.optim.optimizers import build_optimizer, set_learning_rate
from uda.utilities.errors import InputError
from uda.utilities.weight_files import sha256

CLASSES = 5
CONTEXT = StepContext(step=0, seed=0, indices=(0, 1))


def objective(**settings: object) -> Adversarial:
    torch.manual_seed(0)
    return AdversarialConfig(**settings).build(CLASSES)  # type: ignore[arg-type]


def output(seed: int) -> SegmentationOutput:
    """What a student might say; its logits are leaves, so gradients can be read from them."""
    generator = torch.Generator().manual_seed(seed)
    main, auxiliary = torch.randn(2, 2, CLASSES, 32, 64, generator=generator).unbind()
    return SegmentationOutput(
        main.requires_grad_(), auxiliary.requires_grad_(), torch.zeros(2, 1, 1, 1)
    )


def view(name: str) -> View:
    return View(name, torch.zeros(2, 3, 32, 64))


def step(adversarial: Adversarial) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The student's terms and the discriminators' of one step, without backward."""
    assert adversarial.terms(view("source"), output(1), CONTEXT) == {}
    terms = adversarial.terms(view("target"), output(2), CONTEXT)
    return terms, adversarial.after_backward(CONTEXT)


INPUTS: tuple[DiscriminatorInput, ...] = ("softmax", "self_information")


@pytest.mark.parametrize("seen", INPUTS)
@pytest.mark.parametrize("kind", ["fully_convolutional", "multi_scale"])
def test_the_students_step_leaves_the_discriminators_without_gradient(
    kind: str, seen: DiscriminatorInput
) -> None:
    adversarial = objective(discriminator=kind, auxiliary_weight=0.1, input=seen)
    said = output(2)
    terms = adversarial.terms(view("target"), said, CONTEXT)
    torch.stack(list(terms.values())).sum().backward()
    assert said.logits.grad is not None
    assert said.logits.grad.any()
    assert said.auxiliary_logits is not None
    assert said.auxiliary_logits.grad is not None
    assert said.auxiliary_logits.grad.any()
    assert all(weight.grad is None for weight in adversarial.parameters())
    assert all(weight.requires_grad for weight in adversarial.parameters())


@pytest.mark.parametrize("source_prediction", ["same_head", "fused"])
@pytest.mark.parametrize("penalty", [0.0, 0.01])
@pytest.mark.parametrize("seen", INPUTS)
def test_the_discriminators_step_leaves_the_student_without_gradient(
    source_prediction: str, penalty: float, seen: DiscriminatorInput
) -> None:
    adversarial = objective(
        auxiliary_weight=0.1,
        source_prediction=source_prediction,
        gradient_penalty=penalty,
        input=seen,
    )
    source, target = output(1), output(2)
    adversarial.terms(view("source"), source, CONTEXT)
    adversarial.terms(view("target"), target, CONTEXT)
    own = adversarial.after_backward(CONTEXT)
    torch.stack(list(own.values())).sum().backward()
    for said in (source, target):
        assert said.logits.grad is None
        assert said.auxiliary_logits is not None
        assert said.auxiliary_logits.grad is None
    assert all(weight.grad is not None for weight in adversarial.parameters())


def test_single_level_builds_no_unused_discriminator() -> None:
    adversarial = objective(main_weight=0.01)
    assert list(adversarial.discriminators) == ["main"]
    terms, own = step(adversarial)
    assert list(terms) == ["main"]
    assert list(own) == ["discriminator_main"]
    only_auxiliary = objective(main_weight=0.0, auxiliary_weight=0.01)
    assert list(only_auxiliary.discriminators) == ["auxiliary"]


def test_single_level_needs_no_auxiliary_head() -> None:
    domains = {"source", "target"}
    assert AdversarialConfig().needs() == domains
    assert AdversarialConfig(auxiliary_weight=0.1).needs() == {*domains, "auxiliary_head"}
    assert AdversarialConfig(source_prediction="fused").needs() == {*domains, "auxiliary_head"}
    adversarial = objective()
    without = output(1).replace(auxiliary_logits=None)
    adversarial.terms(view("source"), without, CONTEXT)
    assert adversarial.terms(view("target"), without, CONTEXT)
    assert adversarial.after_backward(CONTEXT)


@pytest.mark.parametrize("seen", INPUTS)
@pytest.mark.parametrize("source_prediction", ["same_head", "fused"])
@pytest.mark.parametrize(
    ("kind", "loss"),
    [("fully_convolutional", "vanilla"), ("fully_convolutional", "least_squares"),
     ("multi_scale", "least_squares")],
)  # fmt: skip
def test_terms_by_hand(
    source_prediction: str, kind: str, loss: AdversarialKind, seen: DiscriminatorInput
) -> None:
    adversarial = objective(
        input=seen,
        main_weight=0.001,
        auxiliary_weight=0.0002,
        loss=loss,
        discriminator=kind,
        gradient_penalty=0.01,
        source_prediction=source_prediction,
    )
    terms, own = step(adversarial)
    source, target = output(1), output(2)
    assert source.auxiliary_logits is not None
    assert target.auxiliary_logits is not None
    heads = {
        "main": (0.001, source.logits, target.logits),
        "auxiliary": (0.0002, source.auxiliary_logits, target.auxiliary_logits),
    }
    assert list(terms) == list(heads)
    for head, (weight, source_logits, target_logits) in heads.items():
        network = adversarial.discriminators[head]
        assert isinstance(network, Discriminator)
        if source_prediction == "fused":
            source_logits = source.logits + 0.5 * source.auxiliary_logits
        real = seen_by_discriminators(source_logits.detach(), seen).requires_grad_()
        fake_maps = network(seen_by_discriminators(target_logits, seen))
        expected = weight * fool(fake_maps, loss, network.convention)
        assert terms[head].item() == pytest.approx(expected.item(), rel=1e-5)
        apart = tell_apart(network(real), fake_maps, loss, network.convention)
        assert own[f"discriminator_{head}"].item() == pytest.approx(apart.item(), rel=1e-5)
        penalty = 0.01 * gradient_penalty(network, network.score(real), real)
        assert own[f"gradient_penalty_{head}"].item() == pytest.approx(penalty.item(), rel=1e-5)
        assert penalty > 0


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ((0.7, 0.2, 0.1), (0.227262, 0.292995, 0.209590)),
        ((0.5, 0.5, 0.0), (0.315465, 0.315465, 0.0)),
        ((1 / 3, 1 / 3, 1 / 3), (1 / 3, 1 / 3, 1 / 3)),
        ((1.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    ],
)
def test_self_information_by_hand(
    probabilities: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    logits = torch.tensor(probabilities).log().clamp(min=-200).view(1, 3, 1, 1).requires_grad_()
    found = seen_by_discriminators(logits, "self_information")
    assert found.flatten().tolist() == pytest.approx(expected, abs=1e-6)
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = seen_by_discriminators(logits, "self_information")
    assert torch.equal(rounded, found.to(torch.bfloat16))  # computed in float32


def test_self_information_is_highest_at_one_over_e() -> None:
    share = 1 / torch.e
    logits = torch.tensor([share, *[(1 - share) / 18] * 18]).log().view(1, 19, 1, 1)
    found = seen_by_discriminators(logits, "self_information")
    assert found.max().item() == pytest.approx(0.12494, abs=5e-6)


def test_source_and_target_may_differ_in_size() -> None:
    """AdvEnt: 1280x720 and 1024x512, nothing resized between."""
    adversarial = objective(auxiliary_weight=0.0002, input="self_information")
    main, auxiliary = torch.randn(2, 1, CLASSES, 48, 96).unbind()
    source = SegmentationOutput(main, auxiliary, torch.zeros(1, 1, 1, 1))
    assert adversarial.terms(view("source"), source, CONTEXT) == {}
    assert len(adversarial.terms(view("target"), output(2), CONTEXT)) == 2
    assert all(value.isfinite() for value in adversarial.after_backward(CONTEXT).values())


def test_a_fresh_discriminator_starts_at_log_2() -> None:
    """Maps are small, there is no norm: scores begin near 0."""
    _, own = step(objective(input="self_information"))
    assert own["discriminator_main"].item() == pytest.approx(0.693, abs=0.01)


def test_without_gradient_penalty_there_is_no_such_term() -> None:
    _, own = step(objective(auxiliary_weight=0.1, gradient_penalty=0.0))
    assert list(own) == ["discriminator_main", "discriminator_auxiliary"]


def test_the_gradient_penalty_reaches_the_discriminator() -> None:
    adversarial = objective(gradient_penalty=0.01)
    _, own = step(adversarial)
    own["gradient_penalty_main"].backward()
    weights = dict(adversarial.named_parameters())
    gradient = weights["discriminators.main.conv1.weight"].grad
    assert gradient is not None
    assert gradient.any()


@pytest.mark.parametrize("kind", ["fully_convolutional", "multi_scale"])
def test_discriminators_learn_to_tell_a_fixed_batch_apart(kind: str) -> None:
    loss = "vanilla" if kind == "fully_convolutional" else "least_squares"
    adversarial = objective(discriminator=kind, loss=loss)
    assert adversarial.optimizer is not None
    optimizer = build_optimizer(
        adversarial.optimizer, [{"params": list(adversarial.parameters()), "lr_factor": 1.0}]
    )
    set_learning_rate(optimizer, 1e-3)
    sure = output(1)
    with torch.no_grad():
        sure.logits.mul_(5)  # sure of themselves on the source, unsure on the target
    losses = []
    for _ in range(12):
        adversarial.terms(view("source"), sure, CONTEXT)
        adversarial.terms(view("target"), output(2), CONTEXT)
        (loss_value,) = adversarial.after_backward(CONTEXT).values()
        optimizer.zero_grad()
        loss_value.backward()
        optimizer.step()
        losses.append(loss_value.item())
    assert losses[-1] < 0.7 * losses[0]


def test_fooling_moves_target_predictions_towards_the_source() -> None:
    """One gradient step on the target's logits lowers the loss they are judged by."""
    adversarial = objective(main_weight=1.0)
    said = output(2)
    before = adversarial.terms(view("target"), said, CONTEXT)["main"]
    before.backward()
    assert said.logits.grad is not None
    moved = said.replace(logits=(said.logits - 100 * said.logits.grad).detach())
    assert adversarial.terms(view("target"), moved, CONTEXT)["main"] < before


@pytest.mark.parametrize(
    "settings",
    [{"main_weight": 0.0}, {"auxiliary_weight": -0.1}, {"gradient_penalty": -0.01}],
)
def test_weights_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=rf"adversarial\.{next(iter(settings))}"):
        AdversarialConfig(**settings).check("adversarial")  # type: ignore[arg-type]


# --- discriminators from files beside another project's network


def saved(
    path: Path, adversarial: Adversarial, head: str, *, prefix: str = ""
) -> dict[str, Tensor]:
    """The state of a head's discriminator, written in the layout of both projects."""
    state = adversarial.discriminators[head].state_dict()
    torch.save({prefix + name: tensor for name, tensor in state.items()}, path)
    return state


def assert_is(adversarial: Adversarial, head: str, state: dict[str, Tensor]) -> None:
    found = adversarial.discriminators[head].state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("kind", ["fully_convolutional", "multi_scale"])
def test_on_two_levels_the_first_file_is_the_auxiliary_heads(kind: str, tmp_path: Path) -> None:
    theirs = objective(discriminator=kind, auxiliary_weight=0.1)
    first = saved(tmp_path / "GTA5_5000_D1.pth", theirs, "auxiliary")
    second = saved(tmp_path / "GTA5_5000_D2.pth", theirs, "main", prefix="module.")
    torch.manual_seed(1)
    ours = AdversarialConfig(discriminator=kind, auxiliary_weight=0.1).build(CLASSES)  # type: ignore[arg-type]
    before = [id(parameter) for parameter in ours.parameters()]
    said = ours.restore_beside(tmp_path / "GTA5_5000.pth", auxiliary_head=True)
    digests = [sha256(tmp_path / f"GTA5_5000_D{n}.pth")[:12] for n in (1, 2)]
    assert said == f"GTA5_5000_D1.pth sha256:{digests[0]}, GTA5_5000_D2.pth sha256:{digests[1]}"
    assert_is(ours, "auxiliary", first)
    assert_is(ours, "main", second)
    assert [id(parameter) for parameter in ours.parameters()] == before  # an optimizer holds them
    assert all(parameter.requires_grad for parameter in ours.parameters())


def test_on_one_level_the_first_file_is_the_main_heads(tmp_path: Path) -> None:
    first = saved(tmp_path / "GTA5_5000_D1.pth", objective(), "main")
    torch.manual_seed(1)
    ours = AdversarialConfig().build(CLASSES)
    said = ours.restore_beside(tmp_path / "GTA5_5000.pth", auxiliary_head=False)
    assert said.startswith("GTA5_5000_D1.pth sha256:")
    assert_is(ours, "main", first)


def test_one_discriminator_on_two_levels_takes_its_heads_file(tmp_path: Path) -> None:
    second = saved(tmp_path / "x_D2.pt", objective(), "main")
    torch.manual_seed(1)
    ours = AdversarialConfig().build(CLASSES)
    assert ours.restore_beside(tmp_path / "x.pt", auxiliary_head=True).startswith("x_D2.pt sha256:")
    assert_is(ours, "main", second)


@pytest.mark.parametrize("settings", [{}, {"optimizer": None}])
def test_without_files_or_training_discriminators_stay_randomly_initialized(
    settings: dict[str, None], tmp_path: Path
) -> None:
    ours = objective(**settings)
    before = {n: t.clone() for n, t in ours.discriminators["main"].state_dict().items()}
    saved(tmp_path / "other_D1.pth", objective(), "main")
    if settings:
        torch.manual_seed(1)
        saved(tmp_path / "x_D1.pth", AdversarialConfig().build(CLASSES), "main")
    said = ours.restore_beside(tmp_path / "x.pth", auxiliary_head=False)
    assert said == "discriminators randomly initialized"
    assert_is(ours, "main", before)


def test_discriminator_files_that_cannot_be_used(tmp_path: Path) -> None:
    ours = objective(auxiliary_weight=0.1)
    file, path = tmp_path / "x_D1.pth", tmp_path / "x.pth"
    saved(file, ours, "main")
    with pytest.raises(
        InputError, match=r"x_D2.pth, the discriminator of the main head, does not exi"
    ):
        ours.restore_beside(path, auxiliary_head=True)
    with pytest.raises(InputError, match=r"x_D1.pth .* a multi_scale .*: 0 of 84 .*=fully_con"):
        objective(discriminator="multi_scale").restore_beside(path, auxiliary_head=False)
    torch.manual_seed(0)
    with pytest.raises(
        InputError, match=r"9 of 10 tensors match, .* 1 \(conv1.weight, ...\) of ano"
    ):
        AdversarialConfig().build(CLASSES + 1).restore_beside(path, auxiliary_head=False)
    torch.save(ours.discriminators["main"], file)
    refusal = r"x_D1.pth holds uda\S+, which could .*: python scripts/convert_checkpoint.py --te"
    with pytest.raises(InputError, match=refusal):
        objective().restore_beside(path, auxiliary_head=False)


def test_an_objective_without_networks_says_nothing(tmp_path: Path) -> None:
    assert SupervisedConfig().build(5).restore_beside(tmp_path / "x.pth", auxiliary_head=True) == ""
