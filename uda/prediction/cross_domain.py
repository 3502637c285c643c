"""A network on several data sets: each scored for itself, and the mean over them, as papers on
domain generalization print it."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from uda.checkpoints.snapshots import Snapshot
from uda.data.registry import layout_named, root_of
from uda.data.training import open_labeled_split
from uda.evaluation.evaluate import Progress
from uda.evaluation.metrics import mean_of_present
from uda.evaluation.report_formats import without_nan
from uda.evaluation.reports import (
    fact_lines,
    markdown_rows,
    per_class_percent,
    percent,
    rounded,
    scores_json,
    unscored_fact,
)
from uda.prediction.opened import OpenedNetwork
from uda.prediction.scoring import Evaluation, score_network
from uda.utilities.errors import InputError, require

UNKNOWN = "not known"  # of a file of another project: what it has seen


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossDomain:
    """The scores of a network on several data sets, by "NAME SPLIT"."""

    evaluations: Mapping[str, Evaluation]  # `facts` are those of the data set alone
    facts: Mapping[str, object]  # of the network

    @property
    def miou(self) -> float:
        """The mean over the data sets of their mIoU, each a mean over its own scored classes; a
        fraction, NaN where one of them has none."""
        values = [found.miou for found in self.evaluations.values()]
        return math.nan if any(map(math.isnan, values)) else mean_of_present(values)


def score_on_each(
    opened: OpenedNetwork,
    datasets: Sequence[str],
    splits: Sequence[str],
    *,
    boundary_ratio: float | None = None,
    workers: int = 0,
    progress: Callable[[int], Progress] = lambda total: iter,
) -> CrossDomain:
    """Scores the network on every one of `datasets`, by the protocol of `opened`.

    splits: one for each data set or one for all; none: that of `opened`. The other arguments are
    those of `score_network`. Raises InputError, before the first is scored, when one of them is
    missing, damaged, of other classes or named twice.
    """
    require(
        len(splits) in (0, 1, len(datasets)),
        f"{len(splits)} splits for {len(datasets)} data sets; allowed: one for all of them, or one "
        "for each, in their order",
    )
    splits = [*(splits or [opened.config.split])] * (1 if len(splits) > 1 else len(datasets))
    space = opened.snapshot.label_space
    waiting = {}
    for name, split in zip(datasets, splits, strict=True):
        layout = layout_named(name)
        require(
            split in layout.splits,
            f"{name} has no split {split!r}, only {', '.join(layout.splits)}: give --split with "
            "one for each data set, in their order",
        )
        key = f"{layout.name} {split}"
        require(key not in waiting, f"{key} is named twice; name each data set once")
        config = replace(opened.config, dataset=name, split=split)
        root = root_of(opened.configured_root, [name])
        samples = open_labeled_split(root, name, split, label_space=space)
        waiting[key] = (config, root, samples)
    found = {}
    for key, (config, root, samples) in waiting.items():
        layout = layout_named(config.dataset)
        scored = score_network(
            opened.network,
            config=config,
            label_space=space,
            root=root,
            facts={},
            boundary_ratio=boundary_ratio,
            workers=workers,
            progress=progress,
            samples=samples,
        )
        seen = _seen(opened.snapshot, config.dataset)
        own = {"labels": layout.label_space.name, "seen_in_training": seen}
        own |= unscored_fact(scored.scores, space.report_names)
        if scored.absent:
            own["absent"] = ", ".join(scored.absent)
        found[key] = replace(scored, facts=scored.facts | own)
    return CrossDomain(evaluations=found, facts=opened.facts)


def _seen(snapshot: Snapshot, dataset: str) -> str:
    """What the run of a snapshot has seen of the training images of a data set; sets in one folder
    are one."""
    data = snapshot.data
    if snapshot.is_foreign or (data.source is None and data.target is None):
        return UNKNOWN

    def in_domain(names: Sequence[str]) -> bool:
        return any(_identity(name) == _identity(dataset) for name in names)

    if data.source is not None and in_domain(data.source.datasets):
        return "labels"
    if data.target is not None and in_domain(data.target.datasets):
        labels = "pseudo-labels" if data.pseudo_labels is not None else "images without labels"
        return "labels" if data.target_ground_truth else labels
    return "nothing"


def _identity(dataset: str) -> str:
    """The folder of a data set of this library; the name of one that a file describes."""
    try:
        layout = layout_named(dataset)
    except InputError:  # its description has been removed since the run
        return dataset
    return layout.name if layout.description else layout.folder


# --- as text


def _table(found: CrossDomain) -> list[list[str]]:
    """A row for each data set and one for the mean, of what is printed by all formats."""
    sets = _class_sets(found)
    rows = [["data set", "images", "mIoU", *sets, "not in the mean", "seen in training"]]
    for key, scored in found.evaluations.items():
        facts = scored.facts
        lacking = ", ".join(str(facts[n]) for n in ("not_scored", "absent") if n in facts)
        values = [_two_decimals(percent(scored.miou))]
        values += [_two_decimals(_value(scored, name)) for name in sets]
        rows.append(
            [key, str(facts["images"]), *values, lacking or "-", str(facts["seen_in_training"])]
        )
    means = [_two_decimals(percent(found.miou)), *(_two_decimals(_mean(found, n)) for n in sets)]
    return [*rows, [f"mean of {len(found.evaluations)}", "", *means, "", ""]]


def as_log(found: CrossDomain) -> str:
    """The facts, a table with a row for each data set, and one with a row for each class."""
    lines = fact_lines(found.facts)
    for key, scored in found.evaluations.items():
        lines += [f"{key}: {line}" for line in fact_lines(scored.facts)]
    return "\n".join([*lines, "", _aligned(_table(found)), "", _aligned(_classes(found))])


def as_markdown(found: CrossDomain) -> str:
    """The same with Markdown's tables."""
    lines = [f"- {line}" for line in fact_lines(found.facts)]
    for key, scored in found.evaluations.items():
        lines += [f"- {key}: {line}" for line in fact_lines(scored.facts)]
    table, classes = _table(found), _classes(found)
    rules = ["---", *["---:"] * (len(table[0]) - 3), "---", "---"]
    of_classes = ["---", *["---:"] * (len(classes[0]) - 1)]
    return "\n".join(
        [
            *lines,
            "",
            markdown_rows([table[0], rules, *table[1:]]),
            "",
            markdown_rows([classes[0], of_classes, *classes[1:]]),
        ]
    )


def as_json(found: CrossDomain) -> str:
    """The facts, the mean over the data sets, and all of each; percent, null where there is no
    score."""
    per_set = {
        key: scores_json(
            scored.scores,
            scored.label_space.report_names,
            **{name: fact for name, fact in scored.facts.items() if name != "not_scored"},
        )
        for key, scored in found.evaluations.items()
    }
    values = dict(found.facts) | {"miou": percent(found.miou), "datasets": per_set}
    sets = {name: _mean(found, name) for name in _class_sets(found)}
    values |= {"miou_is": _MEAN} | ({"mean_of_class_sets": sets} if sets else {})
    return json.dumps(without_nan(values), indent=2, allow_nan=False)


def as_csv(found: CrossDomain) -> str:
    """The facts as comments, then a row for each data set and one for the mean: percent with four
    decimals, nothing where there is no score."""
    text = io.StringIO()
    text.writelines(f"# {line}\n" for line in fact_lines(found.facts))
    for key, scored in found.evaluations.items():
        text.writelines(f"# {key}: {line}\n" for line in fact_lines(scored.facts))
    writer = csv.writer(text, lineterminator="\n")
    sets = _class_sets(found)
    names = next(iter(found.evaluations.values())).label_space.report_names
    writer.writerow(("dataset", "images", "miou", *sets, "seen_in_training", *names))
    for key, scored in found.evaluations.items():
        values = [percent(scored.miou), *(_value(scored, name) for name in sets)]
        classes = per_class_percent(names, scored.scores.iou).values()
        cells = [*map(_four_decimals, values), str(scored.facts["seen_in_training"])]
        cells += map(_four_decimals, classes)
        writer.writerow([key, scored.facts["images"], *cells])
    means = [percent(found.miou), *(_mean(found, name) for name in sets)]
    writer.writerow(["mean", "", *map(_four_decimals, means), "", *[""] * len(names)])
    return text.getvalue().rstrip("\n")


FORMATS: Mapping[str, Callable[[CrossDomain], str]] = {
    "log": as_log,
    "markdown": as_markdown,
    "json": as_json,
    "csv": as_csv,
}
_MEAN = "the mean over the data sets of their mIoU"


def _classes(found: CrossDomain) -> list[list[str]]:
    """A row for each class, a column for each data set."""
    names = next(iter(found.evaluations.values())).label_space.report_names
    columns = [scored.scores.iou for scored in found.evaluations.values()]
    rows = [
        [name, *(_two_decimals(percent(iou)) for iou in row)]
        for name, *row in zip(names, *columns, strict=True)
    ]
    return [["class", *found.evaluations], *rows]


def _class_sets(found: CrossDomain) -> list[str]:
    """The sets of classes that were averaged over, by name."""
    return [*_sets_of(next(iter(found.evaluations.values())))]


def _sets_of(scored: Evaluation) -> Mapping[str, Mapping[str, float | None]]:
    found = scored.facts.get("sets", {})
    assert isinstance(found, Mapping)
    return found


def _value(scored: Evaluation, class_set: str) -> float | None:
    return _sets_of(scored)[class_set]["value"]


def _mean(found: CrossDomain, class_set: str) -> float | None:
    """Over the data sets, percent; None where one has no value."""
    values = [_value(scored, class_set) for scored in found.evaluations.values()]
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 4) if len(known) == len(values) else None


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _two_decimals(value: float | None) -> str:
    return "-" if value is None else f"{rounded(value / 100):.2f}"


def _four_decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
