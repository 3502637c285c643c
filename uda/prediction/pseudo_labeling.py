"""A network and unlabeled images -> a folder of pseudo-labels."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from uda.checkpoints.snapshots import Snapshot
from uda.data.config import DomainConfig
from uda.data.label_files import read_train_ids
from uda.data.pseudo_label_folder import ID_SPACE, Manifest, PseudoLabelWriter
from uda.data.registry import check_raw_ids, list_domain
from uda.data.samples import Sample
from uda.evaluation.ensembles import Ensemble, Network
from uda.evaluation.evaluate import EvaluationConfig, Progress, predictions
from uda.evaluation.metrics import ConfusionMatrix, Scores, scores
from uda.evaluation.protocols import input_line, protocol_name
from uda.evaluation.reports import absent_line, fact_lines, iou_lines, unscored_fact
from uda.labels.spaces import IGNORE_INDEX, LabelSpace
from uda.prediction.labeling_rules import (
    ClassBalanced,
    FixedThreshold,
    Predicted,
    Rule,
    first_thresholds,
    judged,
    settings_of,
)
from uda.utilities.behind import Behind
from uda.utilities.distributed import any_of, own_share, sum_over_ranks
from uda.utilities.errors import InputError
from uda.utilities.weight_files import sha256


class LabelingResult(NamedTuple):
    """What was written, and how good it is if that was asked for."""

    manifest: Manifest
    scores: Scores | None  # of the pixels that kept a label; None without readable ground truth
    why_unscored: str = ""


def list_target(
    snapshot: Snapshot,
    root: str | Path,
    *,
    splits: Sequence[str] | None,
    first: int | None,
    labeled: bool,
) -> list[Sample]:
    """The target images of a snapshot's run, or other splits of the data set it is scored on.

    Without `labeled`, no label file is opened, listed or looked for. With it, raises InputError
    when an image has no label file, or the label files cannot be used.
    """
    data = replace(snapshot.data, root=str(root))
    domain = data.target or DomainConfig(datasets=(snapshot.evaluation.dataset,))
    if splits is not None:
        domain = replace(domain, splits=tuple(splits), first=None)
    if first is not None:
        domain = replace(domain, first=first)
    samples = list_domain(data, domain, labeled=labeled)
    check_raw_ids(samples)
    return samples


def label_images(
    network: Network,
    samples: Sequence[Sample],
    folder: Path,
    *,
    rule: Rule,
    config: EvaluationConfig,
    label_space: LabelSpace,
    snapshot: Path | Sequence[Path],
    supervision: str,
    workers: int = 0,
    progress: Progress = iter,
) -> LabelingResult:
    """Writes `folder` (see uda/data/pseudo_label_folder.py) with the classes of the pixels at
    stored resolution, whatever size the protocol compares labels at, and 255 where `rule` gives no
    label. A rule that looks at the confidences of all images first predicts every image twice.

    `snapshot`: the file of the network, or those of an ensemble, which the manifest names.
    Of several processes each labels its share of the images. If all samples come with readable
    labels, they are scored, too; what is written does not depend on that. Raises InputError,
    leaving no folder behind, when an image cannot be read, or the folder exists.
    """
    rule.check()
    files = [snapshot] if isinstance(snapshot, Path) else snapshot
    averaged = f"; {network}" if isinstance(network, Ensemble) else ""
    counts = _Counts(label_space)
    own = own_share(samples)

    def predicted(divisors: Tensor | None = None) -> Iterator[Predicted]:
        found = predictions(
            network,
            [sample._replace(labels=None) for sample in own],
            config=replace(config, label_size=None),
            label_space=label_space,
            workers=workers,
            confidence=True,
            divisors=divisors,
        )
        for views, prediction in progress(found):
            assert prediction.confidence is not None, "it was asked for"
            yield Predicted(views.stem, prediction.labels, prediction.confidence)

    with PseudoLabelWriter(folder) as writer:
        thresholds = first_thresholds(rule, predicted, label_space.num_classes)
        divisors = thresholds if isinstance(rule, ClassBalanced) else None
        decided = judged(rule, predicted(divisors), thresholds)
        with Behind() as behind:
            for sample, (stem, labels, sure) in zip(own, decided, strict=True):
                ignored = sure.to(torch.uint8) - 1  # 255 where a pixel gets no label
                kept = labels.to(torch.uint8) | ignored
                behind(partial(writer.write, stem, kept.cpu().numpy()))
                counts.add(sample, labels, kept, ignored)
        counts.gather()
        by_class = None
        if thresholds is not None:
            by_class = dict(zip(label_space.classes, thresholds.tolist(), strict=True))
        manifest = Manifest(
            id_space=ID_SPACE,
            label_space=label_space.name,
            classes=label_space.classes,
            rule=rule.words,
            threshold=float(rule.threshold) if isinstance(rule, FixedThreshold) else None,
            rule_settings=settings_of(rule),
            thresholds=by_class,
            protocol=f"{protocol_name(config)}: {input_line(config)}" + averaged,
            snapshot=" + ".join(file.name for file in files),
            snapshot_sha256=" + ".join(map(sha256, files)),
            supervision=supervision,
            image_count=len(samples),
            images=tuple(sorted(sample.stem for sample in samples)),
            share_kept=int(counts.kept.sum()) / int(counts.predicted.sum()),
            share_kept_per_class=counts.share_kept_per_class(),
        )
        writer.finish(manifest)
    if counts.why_unscored:
        return LabelingResult(manifest, None, counts.why_unscored)
    found = scores(counts.matrix, label_space.report_names, unscored=label_space.not_scored)
    return LabelingResult(manifest, found)


class _Counts:
    """Pixels of each class that were predicted and that kept their label, and how right these are,
    as long as every image comes with labels that can be read."""

    def __init__(self, label_space: LabelSpace) -> None:
        self.label_space = label_space
        self.predicted = torch.zeros(label_space.num_classes, dtype=torch.int64)
        self.kept = torch.zeros_like(self.predicted)
        self.matrix = ConfusionMatrix(label_space.num_classes)
        self.why_unscored = ""

    def add(self, sample: Sample, labels: Tensor, kept: Tensor, ignored: Tensor) -> None:
        """Counts one image: labels (H, W) int64, those that are kept, (H, W) uint8 with 255
        elsewhere, and (H, W) uint8 that is 0 where they are kept and 255 elsewhere."""
        count = self.label_space.num_classes
        self.predicted += torch.bincount(labels.flatten(), minlength=count).cpu()
        self.kept += torch.bincount(kept.flatten(), minlength=IGNORE_INDEX + 1)[:count].cpu()
        if self.why_unscored:
            return
        height, width = labels.shape
        try:
            truth = _truth(sample, (height, width), self.label_space).to(labels.device)
            self.matrix.update(labels[None], (truth | ignored)[None])
        except InputError as error:
            self.why_unscored = str(error)

    def gather(self) -> None:
        """Adds what all other processes have counted."""
        self.predicted, self.kept = sum_over_ranks(self.predicted), sum_over_ranks(self.kept)
        self.matrix.counts = sum_over_ranks(self.matrix.counts)
        self.why_unscored = any_of(self.why_unscored)

    def share_kept_per_class(self) -> dict[str, float | None]:
        """By the name of each class; None where it was never predicted."""
        pairs = zip(self.kept.tolist(), self.predicted.tolist(), strict=True)
        shares = [kept / predicted if predicted else None for kept, predicted in pairs]
        return dict(zip(self.label_space.classes, shares, strict=True))


def _truth(sample: Sample, size: tuple[int, int], label_space: LabelSpace) -> Tensor:
    """Train ids (H, W) uint8 of a sample; InputError when it has none that can be read."""
    if sample.labels is None:
        raise InputError("no label file was opened; add --score to compare with ground truth")
    return torch.from_numpy(read_train_ids(sample.labels, size, sample.space or label_space))


def labeling_report(result: LabelingResult, names: Sequence[str]) -> str:
    """The share of the pixels that kept their label, in total and for each class of `names`, with
    the class's threshold if it has one, and the scores of those pixels or the reason why there are
    none."""
    lines = [f"share kept: {result.manifest.share_kept:.1%}"]
    shares = result.manifest.share_kept_per_class.values()
    thresholds = result.manifest.thresholds or {}
    limits = [f", threshold {value:.4f}" for value in thresholds.values()] or [""] * len(shares)
    for name, share, limit in zip(names, shares, limits, strict=True):
        kept = "never predicted" if share is None else f"{share:.1%}"
        lines.append(f"  {name}: {kept}{limit}")
    if result.scores is None:
        return "\n".join([*lines, f"not scored: {result.why_unscored}"])
    lines.append("against ground truth, pixels with a label:")
    if result.scores.absent:
        lines.append(absent_line(result.scores))
    lines += fact_lines(unscored_fact(result.scores, names))
    return "\n".join([*lines, iou_lines(result.scores, names)])
