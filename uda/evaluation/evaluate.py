"""A network and labeled images -> scores, at the labels' own resolution."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import tee
from typing import Self, TypeVar

from torch import Tensor

from uda.data.samples import Sample
from uda.evaluation.ensembles import Network, members_of
from uda.evaluation.inference import Prediction, predict
from uda.evaluation.measures import Measured, Tally
from uda.evaluation.named_measures import MeasureName
from uda.evaluation.passes import outputs_of
from uda.evaluation.protocols import (
    Protocol,
    input_line,
    labels_line,
    protocol_fields,
    protocol_name,
    protocol_named,
)
from uda.evaluation.views import Views, read_views
from uda.labels.class_sets import ClassSet, class_set_named
from uda.labels.spaces import LabelSpace
from uda.utilities.distributed import own_share
from uda.utilities.errors import require
from uda.utilities.host_memory import saying_what_to_lower


@dataclass(kw_only=True, slots=True)
class EvaluationConfig(Protocol):
    """What a network is scored on, when, and by which protocol; any field of it can be set."""

    dataset: str
    split: str = "val"
    # Steps between evaluations; the last step is always evaluated. 0: nothing is scored, and no
    # label of the data set is opened.
    every: int = 5000
    # Of uda/evaluation/named_measures.py, in addition to IoU and accuracy.
    measures: tuple[MeasureName, ...] = ()
    # Of classes, by the names in uda/labels/class_sets.py: averaged over besides, each published
    # with its definition. mIoU itself is over the classes that the labels trained on and the
    # labels scored on both have.
    sets: tuple[str, ...] = ()

    @classmethod
    def following(cls, name: str, *, dataset: str) -> Self:
        """Settings with the protocol called `name`; InputError when there is none."""
        return cls(dataset=dataset, **protocol_fields(protocol_named(name)))

    def follow(self, name: str) -> None:
        """Takes the settings of the protocol called `name`; InputError when there is none."""
        for field, value in protocol_fields(protocol_named(name)).items():
            setattr(self, field, value)

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        require(
            self.every >= 0,
            f"{path}.every is {self.every}; allowed: steps between evaluations, or 0 to score "
            "nothing",
        )
        require(
            len(set(self.measures)) == len(self.measures),
            f"{path}.measures is {self.measures}: name each measure once",
        )
        require(
            len(set(self.sets)) == len(self.sets),
            f"{path}.sets is {self.sets}: name each set of classes once",
        )
        Protocol.check(self, path)

    def idle(self) -> dict[str, str]:
        """The fields that change nothing, each with the reason."""
        found = Protocol.idle(self)
        if not self.every:
            found |= dict.fromkeys(
                ("split", "measures", "sets"), "nothing is scored, as every is 0"
            )
        return found

    def class_sets(self, space: LabelSpace) -> list[ClassSet]:
        """The sets of classes of `space` to average over; InputError when it has no such set."""
        return [class_set_named(name, space=space) for name in self.sets]


def protocol_line(config: EvaluationConfig) -> str:
    """The protocol in one line, to be printed with every score."""
    return (
        f"{protocol_name(config)} on {config.dataset} {config.split}: {input_line(config)}; "
        f"{labels_line(config)}"
    )


def predictions(
    network: Network,
    samples: Sequence[Sample],
    *,
    config: EvaluationConfig,
    label_space: LabelSpace,
    workers: int,
    confidence: bool = False,
    among: Sequence[Sequence[int]] = (),
    soft: bool = False,
    divisors: Tensor | None = None,
    unreadable: dict[str, str] | None = None,
) -> Iterator[tuple[Views, Prediction]]:
    """Each image of `samples` with its prediction (see inference.py) at the labels' size.

    `soft`: with the sums of probabilities by the labels, which all samples must have; `divisors`:
    see `predict`; `unreadable`: see `read_views`. The network is put into evaluation mode. Raises
    the InputError of a file that cannot be used.
    """
    pinned = next(network.parameters()).device.type == "cuda"
    read = read_views(
        samples, config, label_space, workers=workers, unreadable=unreadable, pinned=pinned
    )
    found = predictions_of(
        network,
        read,
        config=config,
        confidence=confidence,
        among=among,
        mirrored=label_space.mirrored,
        soft=soft,
        num_classes=label_space.num_classes,
        divisors=divisors,
    )
    # A GPU is given the next image before anybody waits for what it makes of this one.
    yield from one_ahead(found) if pinned else found


T = TypeVar("T")


def one_ahead(items: Iterable[T]) -> Iterator[T]:
    """The same, each once the next one has been made."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def predictions_of(
    network: Network,
    read: Iterable[Views],
    *,
    config: Protocol,
    confidence: bool = False,
    among: Sequence[Sequence[int]] = (),
    mirrored: Sequence[int] | None = None,
    soft: bool = False,
    num_classes: int | None = None,
    divisors: Tensor | None = None,
) -> Iterator[tuple[Views, Prediction]]:
    """Each image that was read with its prediction; `soft`: see `predictions`, the others:
    `predict`. Of images that share a forward pass, all are read before the first is predicted."""
    network.eval()
    own, *ahead = tee(read, 1 + len(members_of(network)))
    outputs = [
        outputs_of(segmenter, (views.images for views in one), config)
        for segmenter, one in zip(members_of(network), ahead, strict=True)
    ]
    for views in own:
        with saying_what_to_lower(partial(views.too_large, config.batch)):
            found = predict(
                network,
                views.images,
                size=views.size,
                protocol=config,
                confidence=confidence,
                among=among,
                mirrored=mirrored,
                soft_labels=views.labels if soft else None,
                num_classes=num_classes,
                divisors=divisors,
                outputs=outputs,
            )
        yield views, found


Progress = Callable[[Iterable[tuple[Views, Prediction]]], Iterable[tuple[Views, Prediction]]]


def _scored_space(space: LabelSpace, samples: Sequence[Sample]) -> LabelSpace:
    """The network's label space, in which classes that these label files cannot have are not
    scored, either."""
    theirs = samples[0].space if samples else None
    lacking = theirs.not_scored if theirs is not None else ()
    return replace(space, unscored=tuple(sorted({*space.unscored, *lacking})))


def _lacking_fact(space: LabelSpace) -> dict[str, object]:
    """The classes that no label which the network was trained on can have, as a fact; {} if it has
    all."""
    lacking = [n for i, n in enumerate(space.report_names) if i not in space.labeled]
    return {"absent_from_training_labels": ", ".join(lacking)} if lacking else {}


def evaluate(
    network: Network,
    samples: Sequence[Sample],
    *,
    config: EvaluationConfig,
    label_space: LabelSpace,
    boundary_ratio: float | None = None,
    workers: int = 0,
    progress: Progress = iter,
) -> Measured:
    """Scores of a network, or of an ensemble, on labeled samples (see `open_labeled_split`), and
    the measures and means over sets of classes that `config` names. It stays on its device and is
    left in evaluation mode.

    `boundary_ratio`: of the image's diagonal, for boundary scores (see boundaries.py); `progress`
    may wrap the iteration over images to draw a bar. With several processes each evaluates its
    share of the samples, and all return the scores of all. Raises InputError when a file cannot be
    used, or the network does not fit the labels or the protocol.
    """
    facts = _lacking_fact(label_space)
    label_space = _scored_space(label_space, samples)
    tally = Tally(
        label_space,
        sets=config.class_sets(label_space),
        boundary_ratio=boundary_ratio,
        measures=config.measures,
    )
    found = predictions(
        network,
        own_share(samples),
        config=config,
        label_space=label_space,
        workers=workers,
        among=tally.groups,
        soft=tally.needs_probabilities,
    )
    for views, prediction in progress(found):
        assert views.labels is not None, "evaluation samples are listed with their labels"
        tally.add(prediction.labels, views.labels, prediction.among, prediction.soft_sums)
    tally.gather()
    scores, measured = tally.measured()
    return Measured(scores, facts | measured)
