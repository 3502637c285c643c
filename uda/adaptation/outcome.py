"""What came of an adaptation, as its record says it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from uda.data.registry import layout_named, root_of
from uda.evaluation.evaluate import EvaluationConfig, protocol_line
from uda.labels.spaces import LabelSpace
from uda.models.segmenter import Segmenter
from uda.prediction.scoring import score_network


def reasons(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why the result is what it is, in sentences."""
    sentences = [
        f"{stage['name']} was {'kept' if stage['kept'] else 'not kept'}, as the change is "
        f"{stage['verdict']}: {'; '.join(stage['reasons'])}."
        for stage in stages
    ]
    return sentences or ["Nothing was done: see the warnings."]


def scored_split(dataset: str) -> str:
    """The split to score on: its validation images, if it has such."""
    splits = layout_named(dataset).splits
    return "val" if "val" in splits else splits[-1]


def scores_of(
    networks: Mapping[str, Segmenter],
    dataset: str,
    *,
    config: EvaluationConfig,
    label_space: LabelSpace,
    data_root: str,
    workers: int,
) -> dict[str, Any]:
    """Scores of the networks by name on a data set, see `scored_split`."""
    config = replace(config, dataset=dataset, split=scored_split(dataset))
    found: dict[str, Any] = {
        "dataset": f"{dataset} {config.split}", "protocol": protocol_line(config),
    }  # fmt: skip
    for name, network in networks.items():
        scored = score_network(
            network,
            config=config,
            label_space=label_space,
            root=root_of(data_root, [dataset]),
            facts={},
            workers=workers,
        )
        ious = {c: None if math.isnan(iou) else iou for c, iou in scored.iou.items()}
        found[name] = {"miou": scored.miou, "ious": ious}
    return found
