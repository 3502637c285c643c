"""A network and a labeled split -> scores together with what they are scores of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from uda.data.class_range import range_facts
from uda.data.samples import Sample
from uda.data.training import open_labeled_split
from uda.evaluation.ensembles import Network
from uda.evaluation.evaluate import EvaluationConfig, Progress, evaluate, protocol_line
from uda.evaluation.metrics import Scores
from uda.evaluation.report_formats import format_scores
from uda.evaluation.reports import fact_lines
from uda.labels.spaces import LabelSpace
from uda.utilities.distributed import own_share


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Scores and their facts. `str()` is what `uda eval` prints; scores are fractions in [0, 1]."""

    scores: Scores
    label_space: LabelSpace
    facts: dict[str, object]  # what the scores are published with, the protocol included

    @property
    def miou(self) -> float:
        """The mean over the classes that are scored and not absent."""
        return self.scores.miou

    @property
    def iou(self) -> dict[str, float]:
        """By class name; NaN of an absent class."""
        return dict(zip(self.label_space.classes, self.scores.iou, strict=True))

    @property
    def absent(self) -> tuple[str, ...]:
        """The classes that neither labels nor predictions have."""
        return self.scores.absent

    @property
    def protocol(self) -> str:
        """What the network saw of the images and what was compared, in one line."""
        return str(self.facts["protocol"])

    def __str__(self) -> str:
        return "\n".join(
            [*fact_lines(self.facts), format_scores("log", self.scores, self.label_space, {})]
        )


def score_network(
    network: Network,
    *,
    config: EvaluationConfig,
    label_space: LabelSpace,
    root: Path,
    facts: dict[str, object],
    boundary_ratio: float | None = None,
    workers: int = 0,
    progress: Callable[[int], Progress] = lambda total: iter,
    samples: Sequence[Sample] | None = None,
) -> Evaluation:
    """Scores on the data set and split of `config`, below `root`, published with `facts`.

    `samples`: those of the split, where they have been opened. The other arguments are those of
    `uda.evaluation.evaluate.evaluate`; `progress` makes, of the number of images, what draws a bar
    over them. Raises InputError when the data cannot be used or the network is one for other
    classes.
    """
    if samples is None:
        samples = open_labeled_split(root, config.dataset, config.split, label_space=label_space)
    scores, measured = evaluate(
        network,
        samples,
        config=config,
        label_space=label_space,
        boundary_ratio=boundary_ratio,
        workers=workers,
        progress=progress(len(own_share(samples))),
    )
    facts = facts | {"protocol": protocol_line(config), "images": len(samples)}
    facts |= range_facts(samples) | measured
    return Evaluation(scores=scores, label_space=label_space, facts=facts)
