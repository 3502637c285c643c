"""The helper itself, on the toy city."""

from pathlib import Path

import pytest
from every_objective import OBJECTIVES, steps_with

from uda.data.config import DataConfig, DomainConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig


@pytest.mark.parametrize("name", ["Adversarial", "CrossView", "PseudoLabel"])
def test_every_objective_takes_a_step(name: str, toy_root: Path, tmp_path: Path) -> None:
    data = DataConfig(
        root=str(toy_root),
        source=DomainConfig(datasets=("gta5",), size=(64, 128)),
        target=DomainConfig(datasets=("cityscapes",), size=(64, 128)),
        crop=(64, 64),
    )
    experiment = Experiment(
        data=data,
        train=TrainConfig(steps=1, batch_size=2),
        evaluation=EvaluationConfig(dataset="cityscapes"),
    )
    steps_with(name, experiment, tmp_path)


def test_all_objectives_are_tried() -> None:
    assert len(OBJECTIVES) >= 10
    assert {"Supervised", "Adversarial", "CutMix", "CrossView", "PseudoLabel"} <= set(OBJECTIVES)
