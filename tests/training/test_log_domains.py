"""The experiment log's mistakes as tests: C5a, the target batch was the source batch."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from factories import (
    CITYSCAPES_STEMS,
    Bytes,
)
from log_lessons import SIZE, loaded, of_pictures, write_pictures
from tiny_runs import (
    tiny_run,
)
from uda.data.batch import Batch, View
from uda.experiment import Experiment, validate
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Objective, StepContext
from uda.training.run import Run
from uda.training.step import _collect_views, train_step

RED, BLUE = (220, 20, 20), (20, 20, 220)


@pytest.fixture(scope="module")
def colored_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root whose source is red and whose target is blue."""

    def pictures(color: tuple[int, int, int], count: int) -> list[Bytes]:
        return [np.full((*SIZE, 3), color, np.uint8)] * count

    return write_pictures(
        tmp_path_factory.mktemp("colored") / "root",
        source=pictures(RED, 2),
        target=pictures(BLUE, len(CITYSCAPES_STEMS)),
    )


def domain_of(images: Tensor) -> str:
    """The domain of images (N, 3, H, W), by their color."""
    (color,) = {tuple((255 * pixel).round().int().tolist()) for pixel in images.mean(dim=(2, 3))}
    return {RED: "source", BLUE: "target"}[color]


def domains_seen(experiment: Experiment) -> tuple[dict[str, str], list[str]]:
    """The domain of each view of the student in a step, and the domains whose predictions the
    discriminator gets: to be fooled, as source, and as target."""
    experiment.train.log_every = 2  # a logged step also runs on target images that no view has
    run = tiny_run(experiment)
    said: list[tuple[str, Tensor]] = []
    judged: list[Tensor] = []

    def listen(_: nn.Module, inputs: tuple[Tensor], output: SegmentationOutput) -> None:
        said.append((domain_of(inputs[0]), output.logits.detach().softmax(dim=1)))

    run.student.register_forward_hook(listen)
    discriminators = run.objectives["adversarial"].get_submodule("discriminators")
    discriminators.get_submodule("main").register_forward_hook(
        lambda _, inputs, maps: judged.append(inputs[0].detach().clone())
    )
    result = train_step(run, next(loaded(experiment)))
    views = {view.name: domain_of(view.images) for view in result.views}
    assert list(views.values()) == [domain for domain, _ in said]
    whose = [{d for d, p in said if torch.allclose(p, prediction)} for prediction in judged]
    return views, [domain for (domain,) in whose]


RIGHT = {"source": "source", "target": "target"}, ["target", "source", "target"]


@pytest.mark.parametrize("name", ["toy_adversarial", "aagc_640x360_b2_single"])
def test_c5a_the_target_batch_is_the_target(name: str, colored_root: Path) -> None:
    assert domains_seen(of_pictures(name, colored_root)) == RIGHT


def test_c5a_the_logs_slip_is_caught(colored_root: Path) -> None:
    """In the preset that repeats it, and in a preset that loads a target."""
    logged = of_pictures("logged_multi_640x360_lsgan_b2", colored_root)
    assert logged.data.target is None
    assert domains_seen(logged) == ({"source": "source"}, ["source"] * 3)
    slipped = of_pictures("toy_adversarial", colored_root)
    slipped.objectives["adversarial"].target_view = "source"  # type: ignore[attr-defined]
    assert domains_seen(slipped)[1] == ["source"] * 3
    found = validate(slipped)
    assert found.remarks[0] == "data.target is not used, as no objective needs it"
    assert found.experiment.data.target is None


def test_c5a_the_slip_in_the_loop_would_be_caught(
    colored_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log's line: the target's loader is advanced, and the source's batch is unpacked."""
    collect = _collect_views

    def slipped(
        run: Run, active: Mapping[str, Objective], batch: Batch, context: StepContext
    ) -> list[View]:
        return collect(run, active, replace(batch, target_images=batch.source_images), context)

    monkeypatch.setattr("uda.training.step._collect_views", slipped)
    views, judged = domains_seen(of_pictures("toy_adversarial", colored_root))
    assert views == {"source": "source", "target": "source"}
    assert judged == ["source"] * 3
