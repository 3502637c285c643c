"""Output-space adversarial adaptation: target predictions must look like source predictions.

Sources: Tsai et al., "Learning to Adapt Structured Output Space", CVPR 2018, arXiv 1802.10349;
with the input "self_information", "AdvEnt" of Vu et al., "ADVENT", CVPR 2019, arXiv 1811.12833.
"""

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from uda.data.batch import View
from uda.models.discriminators import DiscriminatorName, HeadDiscriminators
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional import adversarial as game
from uda.optim.optimizers import OptimizerConfig
from uda.utilities.errors import require


@dataclass(kw_only=True, slots=True)
class AdversarialConfig(ObjectiveConfig):
    """Settings of `Adversarial`; a head with weight 0 has no discriminator."""

    main_weight: float = 0.001  # lambda of the main head's adversarial term
    auxiliary_weight: float = 0.0  # lambda of the auxiliary head's; above 0: multi-level
    loss: game.AdversarialKind = "vanilla"
    # What discriminators get: probabilities, or AdvEnt's uncertainty maps of -p log p / log C.
    input: game.DiscriminatorInput = "softmax"
    discriminator: DiscriminatorName = "fully_convolutional"
    gradient_penalty: float = 0.0  # weight of the discriminators' R1 term
    # Of the source, each head's gets the same head, or "fused": softmax(main + 0.5 * auxiliary).
    source_prediction: game.SourcePrediction = "same_head"
    # The views that serve as source and target, also of other objectives. In the experiment log,
    # CutMix runs used mixed images as source, and AdaptSegNet runs, by mistake, source as target.
    source_view: str = "source"
    target_view: str = "target"
    # None: the discriminators keep their random initialization, as in one run of the log.
    optimizer: OptimizerConfig | None = field(
        default_factory=lambda: OptimizerConfig(name="adam", lr=1e-4, betas=(0.9, 0.99))
    )

    def needs(self) -> frozenset[Need]:
        with_auxiliary = self.auxiliary_weight > 0 or self.source_prediction == "fused"
        domains: set[Need] = {"source", "target"}
        heads: set[Need] = {"auxiliary_head"} if with_auxiliary else set()
        return frozenset(heads | {domain for domain in domains if domain in self.reads()})

    def reads(self) -> frozenset[str]:
        learned = () if self.optimizer is None else (self.source_view,)  # fixed ones need none
        return frozenset({self.target_view, *learned})

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

    def idle(self) -> dict[str, str]:
        names = ("gradient_penalty", "source_prediction", "source_view")
        idle = names if self.optimizer is None else ()
        return dict.fromkeys(idle, "without an optimizer, no discriminator learns")

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
        self.discriminators = HeadDiscriminators(
            config.discriminator, num_classes, self.weights, trained=config.optimizer is not None
        )
        # Detached inputs of the current step: domain -> head -> (N, C, H, W).
        self._seen: dict[str, dict[str, Tensor]] = {}

    def restore_beside(self, path: Path, *, auxiliary_head: bool) -> str:
        return self.discriminators.fill_beside(path, auxiliary_head=auxiliary_head)

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        config, weights = self.config, self.weights
        if view.name == config.source_view:
            prediction = config.source_prediction
            self._seen["source"] = game.source_inputs(output, weights, config.input, prediction)
        if view.name != config.target_view:
            return {}
        inputs = game.target_inputs(output, weights, config.input)
        self._seen["target"] = {head: seen.detach() for head, seen in inputs.items()}
        return game.fool_each(self.discriminators, inputs, weights, config.loss)

    def after_backward(self, context: StepContext) -> dict[str, Tensor]:
        seen, self._seen = self._seen, {}
        loss, weight = self.config.loss, self.config.gradient_penalty
        terms: dict[str, Tensor] = {}
        for head in self.weights if self.optimizer is not None else ():
            network = self.discriminators[head]
            source = seen["source"][head].requires_grad_(weight > 0)
            of_source = network.score(source)
            maps = of_source.maps, network(seen["target"][head])
            terms[f"discriminator_{head}"] = game.tell_apart(*maps, loss, network.convention)
            if weight:
                penalty = game.gradient_penalty(network, of_source, source)
                terms[f"gradient_penalty_{head}"] = weight * penalty
            label = network.convention.source_label
            context.counts.discriminator(self, head, *maps, label, game.boundary(loss))
        return terms
