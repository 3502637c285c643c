"""Output-space adversarial adaptation: target predictions must look like source predictions.

Sources: Tsai et al., "Learning to Adapt Structured Output Space", CVPR 2018, arXiv 1802.10349;
with the input "self_information", "AdvEnt" of Vu et al., "ADVENT", CVPR 2019, arXiv 1811.12833.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from uda.data.batch import View
from uda.models.discriminators import (
    Discriminator,
    FullyConvolutionalDiscriminator,
    MultiScaleDiscriminator,
)
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.adversarial import (
    AdversarialKind,
    DiscriminatorInput,
    boundary,
    fool,
    gradient_penalty,
    seen_by_discriminators,
    tell_apart,
)
from uda.optim.optimizers import OptimizerConfig
from uda.utilities.errors import require
from uda.utilities.weight_files import fill_from_file, identity

_DISCRIMINATORS: dict[str, type[FullyConvolutionalDiscriminator | MultiScaleDiscriminator]] = {
    "fully_convolutional": FullyConvolutionalDiscriminator,
    "multi_scale": MultiScaleDiscriminator,
}


def _adam() -> OptimizerConfig:
    return OptimizerConfig(name="adam", lr=1e-4, betas=(0.9, 0.99))


@dataclass(kw_only=True, slots=True)
class AdversarialConfig(ObjectiveConfig):
    """Settings of `Adversarial`; a head with weight 0 has no discriminator."""

    main_weight: float = 0.001  # lambda of the main head's adversarial term
    auxiliary_weight: float = 0.0  # lambda of the auxiliary head's; above 0: multi-level
    loss: AdversarialKind = "vanilla"
    # What discriminators get of each prediction: class probabilities, or AdvEnt's maps of
    # -p log p / log C, which tell how uncertain a prediction is.
    input: DiscriminatorInput = "softmax"
    discriminator: Literal["fully_convolutional", "multi_scale"] = "fully_convolutional"
    gradient_penalty: float = 0.0  # weight of the discriminators' R1 term
    # The source prediction that a head's discriminator gets: "same_head": that of the same head;
    # "fused": softmax(main + 0.5 * auxiliary), for every head.
    source_prediction: Literal["same_head", "fused"] = "same_head"
    # The views that serve as source and target: "source", "target", or one that another objective
    # adds. In the experiment log, CutMix runs used mixed images as source, and AdaptSegNet runs, by
    # mistake, the source as target.
    source_view: str = "source"
    target_view: str = "target"
    # None: the discriminators keep their random initialization, as in one run of the log.
    optimizer: OptimizerConfig | None = field(default_factory=_adam)

    def needs(self) -> frozenset[Need]:
        with_auxiliary = self.auxiliary_weight > 0 or self.source_prediction == "fused"
        domains: tuple[Need, ...] = ("source", "target")
        needs = {domain for domain in domains if domain in self.reads()}
        return frozenset(needs | {"auxiliary_head"} if with_auxiliary else needs)

    def reads(self) -> frozenset[str]:
        if self.optimizer is None:  # the discriminators are fixed: the source is not needed
            return frozenset({self.target_view})
        return frozenset({self.source_view, self.target_view})

    def check(self, path: str) -> None:
        super().check(path)
        for name in ("main_weight", "auxiliary_weight", "gradient_penalty"):
            value = getattr(self, name)
            require(value >= 0, f"{path}.{name} is {value}; allowed: 0 or more")
        require(
            self.main_weight > 0 or self.auxiliary_weight > 0,
            f"{path}.main_weight and auxiliary_weight are both 0: raise one, or remove the "
            f"objective with --set {path}=none",
        )
        if self.optimizer is not None:
            self.optimizer.check(f"{path}.optimizer")

    def idle(self) -> dict[str, str]:
        if self.optimizer is not None:
            return {}
        names = ("gradient_penalty", "source_prediction", "source_view")
        return dict.fromkeys(names, "without an optimizer, no discriminator learns")

    def build(self, num_classes: int) -> "Adversarial":
        return Adversarial(self, num_classes)


class Adversarial(Objective):
    """One discriminator per head; the student learns to fool them on target images."""

    config: AdversarialConfig

    def __init__(self, config: AdversarialConfig, num_classes: int) -> None:
        super().__init__(config)
        self.optimizer = config.optimizer
        weights = {"main": config.main_weight, "auxiliary": config.auxiliary_weight}
        self.weights = {head: weight for head, weight in weights.items() if weight > 0}
        make = _DISCRIMINATORS[config.discriminator]
        self.discriminators = nn.ModuleDict({head: make(num_classes) for head in self.weights})
        self.discriminators.requires_grad_(config.optimizer is not None)
        # Detached inputs of the current step: domain -> head -> (N, C, H, W).
        self._seen: dict[str, dict[str, Tensor]] = {}

    def restore_beside(self, path: Path, *, auxiliary_head: bool) -> str:
        """Loads the discriminators, if they are trained, from files that AdaptSegNet and
        Seg-Uncertainty save next to X.pth: X_D1.pth for the auxiliary head and X_D2.pth for the
        main one, or X_D1.pth for the main head if it is the only one. Without such files they stay
        randomly initialized."""
        numbers = {"auxiliary": 1, "main": 2} if auxiliary_head else {"main": 1}
        files = {n: path.with_name(f"{path.stem}_D{n}{path.suffix}") for n in numbers.values()}
        if self.optimizer is None or not any(file.exists() for file in files.values()):
            return "discriminators randomly initialized"
        taken = {head: files[numbers[head]] for head in self.weights}
        for head, file in taken.items():
            require(
                file.exists(),
                f"{file}, the discriminator of the {head} head, does not exist, but that of the "
                "other head does: add this file, or remove the other, so that both are randomly "
                "initialized",
            )
            fill_from_file(
                self._discriminator(head),
                file,
                title=f"{self.config.discriminator} discriminator of this preset",
                kind="discriminator's state dict",
                instead="choose the other kind with --set objectives.NAME.discriminator="
                f"{' or '.join(k for k in _DISCRIMINATORS if k != self.config.discriminator)}, or "
                "remove the file, so that discriminators are randomly initialized",
            )
        return ", ".join(identity(file) for file in sorted(taken.values()))

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        if view.name == self.config.source_view:
            self._seen["source"] = self._source_inputs(output)
        if view.name != self.config.target_view:
            return {}
        inputs = {head: self._input(_logits(output, head)) for head in self.weights}
        self._seen["target"] = {head: seen.detach() for head, seen in inputs.items()}
        self.discriminators.requires_grad_(False)  # this loss trains the student only
        terms = {}
        for head, weight in self.weights.items():
            discriminator = self._discriminator(head)
            maps = discriminator(inputs[head])
            terms[head] = weight * fool(maps, self.config.loss, discriminator.convention)
        self.discriminators.requires_grad_(self.optimizer is not None)
        return terms

    def after_backward(self, context: StepContext) -> dict[str, Tensor]:
        seen, self._seen = self._seen, {}
        terms: dict[str, Tensor] = {}
        if self.optimizer is None:
            return terms
        for head in self.weights:
            discriminator = self._discriminator(head)
            source = seen["source"][head].requires_grad_(self.config.gradient_penalty > 0)
            source_maps = discriminator(source)
            target_maps = discriminator(seen["target"][head])
            terms[f"discriminator_{head}"] = tell_apart(
                source_maps, target_maps, self.config.loss, discriminator.convention
            )
            context.counts.discriminator(
                self,
                head,
                source_maps=source_maps,
                target_maps=target_maps,
                source_label=discriminator.convention.source_label,
                boundary=boundary(self.config.loss),
            )
            if self.config.gradient_penalty:
                penalty = gradient_penalty(source_maps, source)
                terms[f"gradient_penalty_{head}"] = self.config.gradient_penalty * penalty
        return terms

    def _source_inputs(self, output: SegmentationOutput) -> dict[str, Tensor]:
        if self.config.source_prediction == "same_head":
            return {h: self._input(_logits(output, h).detach()) for h in self.weights}
        fused = _logits(output, "main") + 0.5 * _logits(output, "auxiliary")
        seen = self._input(fused.detach())
        # One tensor object per head, because the gradient penalty sets its requires_grad.
        return {head: seen.detach() for head in self.weights}

    def _input(self, logits: Tensor) -> Tensor:
        return seen_by_discriminators(logits, self.config.input)

    def _discriminator(self, head: str) -> Discriminator:
        discriminator = self.discriminators[head]
        assert isinstance(discriminator, Discriminator)
        return discriminator


def _logits(output: SegmentationOutput, head: str) -> Tensor:
    logits = output.logits if head == "main" else output.auxiliary_logits
    assert logits is not None, "checked by validate()"
    return logits
