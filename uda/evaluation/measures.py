"""Everything that is counted in one pass over predictions."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from uda.evaluation.boundaries import BoundaryMatrix
from uda.evaluation.metrics import ConfusionMatrix, Scores, scores
from uda.evaluation.name_check import name_warning
from uda.evaluation.named_measures import MeasureName, build_measures
from uda.evaluation.reports import boundary_fact, set_fact
from uda.labels.class_sets import ClassSet
from uda.labels.spaces import LabelSpace
from uda.utilities.distributed import sum_over_ranks


class Measured(NamedTuple):
    """Scores and further measures of predictions."""

    scores: Scores
    facts: dict[str, object]  # further measures and warnings, for `scores_json`


class Tally:
    """Confusion matrices of a label space, of restricted sets of its classes, and of its edges."""

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        sets: Sequence[ClassSet] = (),
        boundary_ratio: float | None = None,
        measures: Sequence[MeasureName] = (),
        no_class: bool = False,
    ) -> None:
        """`sets`: of classes, to be averaged over; `boundary_ratio`: of the image's diagonal, for
        boundary scores (see boundaries.py); `measures`: names of named_measures.py;
        `no_class`: predictions may be num_classes, for "no class": a miss."""
        self.names = label_space.report_names
        self.unscored = label_space.not_scored
        self.sets = sets
        self.matrix = ConfusionMatrix(label_space.num_classes + no_class)
        self.restricted = {s: ConfusionMatrix(len(s.classes)) for s in sets if s.restricted}
        self.named = build_measures(measures, label_space)
        self.edges = None
        if boundary_ratio is not None:
            self.edges = BoundaryMatrix(label_space.num_classes, boundary_ratio)

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """The groups in which `add` needs the most probable class: `among` of `predict`."""
        return [group.classes for group in self.restricted]

    @property
    def needs_probabilities(self) -> bool:
        """Whether `add` needs sums of probabilities."""
        return any(measure.needs_probabilities for measure in self.named.values())

    def add(
        self,
        predicted: Tensor,
        labels: Tensor,
        among: Sequence[Tensor] = (),
        soft_sums: Tensor | None = None,
    ) -> None:
        """Counts one image's pixels: the classes predicted, the labels, and, for each of `groups`,
        the positions in it that are predicted; all (H, W) integers, labels on any device.
        `soft_sums`: of uda/evaluation/soft_scores.py, where `needs_probabilities` says so."""
        labels = labels.to(predicted.device, non_blocking=True)[None]
        self.matrix.update(predicted[None], labels)
        for measure in self.named.values():
            measure.add(predicted, labels[0])
            if measure.needs_probabilities:
                assert soft_sums is not None, "predict() was given the labels"
                measure.add_soft(soft_sums)
        for (group, matrix), positions in zip(self.restricted.items(), among, strict=True):
            matrix.update(positions[None], group.positions(labels))
        if self.edges is not None:
            self.edges.update(predicted[None], labels)

    def merge(self, other: "Tally") -> None:
        """Adds the counts of another tally of the same kind."""
        for ours, theirs in zip(self._matrices(), other._matrices(), strict=True):
            ours.counts = ours.counts + theirs.counts.to(ours.counts.device)
        for name, measure in self.named.items():
            measure.merge(other.named[name])

    def gather(self) -> None:
        """Adds the counts of all other processes."""
        for matrix in self._matrices():
            matrix.counts = sum_over_ranks(matrix.counts)
        for measure in self.named.values():
            measure.gather()

    def _matrices(self) -> Iterator[ConfusionMatrix]:
        yield self.matrix
        yield from self.restricted.values()
        if self.edges is not None:
            yield self.edges

    def measured(self) -> Measured:
        """What has been counted so far."""
        total = scores(self.matrix, self.names, unscored=self.unscored)
        warning = name_warning(total, self.names)
        facts: dict[str, object] = {"name_warning": warning} if warning else {}
        facts |= {name: measure.fact(total) for name, measure in self.named.items()}
        if self.sets:
            facts["sets"] = {s.name: set_fact(self._scores_of(s, total), s) for s in self.sets}
        if self.edges is not None:
            near = scores(self.edges, self.names, unscored=self.unscored)
            facts["boundary_iou"] = boundary_fact(near, self.names, ratio=self.edges.ratio)
        return Measured(total, facts)

    def _scores_of(self, group: ClassSet, total: Scores) -> Scores:
        if not group.restricted:
            return total
        return scores(self.restricted[group], [self.names[index] for index in group.classes])
