"""Collapse monitors: what warns and what does not, how often, and in whole runs."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiny_runs import CPU, assert_same, batch_for, metrics, steps, tiny_preset, tiny_run
from uda.evaluation.inference import predict
from uda.labels.spaces import IGNORE_INDEX
from uda.training.loop import train
from uda.training.monitors import REST, WINDOW, Figures, Monitor
from uda.training.run import Run
from uda.training.step import train_step
from uda.training.tracking import Tracker

FINE: Mapping[str, Any] = {
    "source/road": 0.5, "source/car": 0.4, "source/bus": 0.1, "predicted_on": "target",
    "predicted/road": 0.6, "predicted/car": 0.3, "predicted/bus": 0.1,
    "kept/mix": 0.5, "kept/mix/road": 0.5, "agreement": 0.9,
    "discriminator/adversarial/main/source": 0.7, "discriminator/adversarial/main/target": 0.8,
    "discriminator/adversarial/main/verdict": "working",
}  # fmt: skip


D = "discriminator/adversarial/main"


def after(log: Mapping[str, Any], *, logs: int = WINDOW) -> dict[str, str]:
    """What a monitor says at last of so many equal logs."""
    monitor = Monitor(steps=100)
    found = {}
    for index in range(logs):
        found = monitor.warnings_after(20 * (index + 1), log)
    return found


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {}),
        ({"predicted/bus": 0.0009}, {"vanished": "hardly ever predicted, though the source has "
                                                 "them: bus"}),
        ({"predicted/bus": 0.0, "source/bus": 0.9e-5}, {}),
        ({"predicted/road": 1.0, "predicted/car": 0.01, "predicted/bus": 0.001,
          "source/road": 0.49, "source/car": 0.41},
         {"histogram": "predictions are far from the source's labels: road has 100.0% of the "
                       "pixels, in the source 49.0%"}),
        ({"agreement": 0.49},
         {"agreement": "teacher and student agree on 49.0% of the target's pixels"}),
        ({"kept/mix": 0.0099}, {"kept": "mix learns from 0.99% of the pixels"}),
        ({"kept/mix/car": 0.0}, {"kept": "mix learns from hardly any pixel of car"}),
        ({f"{D}/verdict": "saturated", f"{D}/source": 1.0, f"{D}/target": 0.995},
         {"discriminator saturated": f"{D} is saturated: right on 100.0% of the source and "
                                     "99.5% of the target"}),
        ({f"{D}/verdict": "inactive", f"{D}/source": 0.9, f"{D}/target": 0.1},
         {"discriminator inactive": f"{D} is inactive: right on 90.0% of the source and "
                                    "10.0% of the target"}),
    ],
)  # fmt: skip
def test_each_kind_of_warning(change: dict[str, Any], expected: dict[str, str]) -> None:
    assert after({**FINE, **change}) == expected
    assert after({**FINE, **change}, logs=WINDOW - 1) == {}, "too few logs to be sure"


def test_two_complaints_of_a_kind_are_one_line() -> None:
    both = {"kept/mix": 0.0, "kept/folder": 0.0}
    text = "mix learns from 0.00% of the pixels; folder learns from 0.00% of the pixels"
    assert after(both) == {"kept": text}


def test_one_odd_batch_does_not_warn() -> None:
    monitor = Monitor(steps=100)
    odd = {**FINE, "predicted/bus": 0.0, "agreement": 0.0, f"{D}/verdict": "saturated"}
    logs = [FINE] * 15 + [odd] + [FINE] * 15
    assert all(monitor.warnings_after(20 * (i + 1), log) == {} for i, log in enumerate(logs))


@pytest.mark.parametrize(
    ("steps", "log_every", "expected"),
    [
        (5000, 20, [1000, 2000, 3000, 4000, 5000]),
        (5000, 300, [3000, 4200]),  # ten logs first, and then a thousand steps of rest
        (500, 20, [200]),
        (500, 5, [100]),
    ],
)
def test_at_most_one_warning_of_a_kind_in_a_thousand_steps(
    steps: int, log_every: int, expected: list[int]
) -> None:
    monitor = Monitor(steps=steps)
    said = {step: monitor.warnings_after(step, {"agreement": 0.1, "kept/mix": 0.0})
            for step in range(log_every, steps + 1, log_every)}  # fmt: skip
    for kind in ("agreement", "kept"):
        times = [step for step, warnings in said.items() if kind in warnings]
        assert times == expected
        assert all(b - a >= REST for a, b in itertools.pairwise(times))


def test_kinds_rest_each_on_its_own() -> None:
    monitor = Monitor(steps=100)
    kinds = []
    for index in range(30):
        change = {"agreement": 0.1} if index < 15 else {"agreement": 0.1, "kept/mix": 0.0}
        kinds.append(set(monitor.warnings_after(20 * (index + 1), {**FINE, **change})))
    assert kinds.count({"agreement"}) == kinds.count({"kept"}) == 1
    assert kinds.count(set()) == 28


def tracker(folder: Path, first_step: int = 0) -> Tracker:
    return Tracker(folder, name="run", steps=5000, first_step=first_step, batch_size=2)


def log_all(records: Tracker, first: int, last: int) -> None:
    numbers = {"agreement": 1 / 3, "kept/mix": 0.003}
    for step in range(first, last + 1, 20):
        records.record_figures(step, Figures(numbers, {"predicted_on": "target"}))


@pytest.mark.parametrize("interrupted_at", [900, 1000, 1900, 2000])
def test_a_resumed_run_warns_as_an_undisturbed_one(
    interrupted_at: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines, words and their number: also what was said before and lost, is said again."""
    with tracker(tmp_path / "straight") as records:
        log_all(records, 20, 2500)
    straight = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in straight] == ["step 1000"] * 2 + ["step 2000"] * 2
    assert straight[0] == (
        "step 1000: warning: teacher and student agree on 33.3% of the target's pixels"
    )
    with tracker(tmp_path / "resumed") as records:
        log_all(records, 20, interrupted_at + 40)
    with tracker(tmp_path / "resumed", interrupted_at) as records:
        capsys.readouterr()
        log_all(records, interrupted_at + 20, 2500)
    later = [s for s in straight if int(s.split()[1].rstrip(":")) > interrupted_at]
    assert capsys.readouterr().out.splitlines() == later
    texts = [(tmp_path / run / "metrics.jsonl").read_text() for run in ("straight", "resumed")]
    assert texts[0] == texts[1]
    warned = [json.loads(line) for line in texts[0].splitlines() if "warning/kept" in line]
    assert [line["step"] for line in warned] == [1000, 2000]


EXPECTED = {
    "toy_class_mix": {"source", "predicted/target", "agreement", "kept/class_mix"},
    "gc_640x360_b2_fix_match": {"source", "predicted/target", "agreement", "kept/fix_match"},
    "toy_cut_mix": {"source", "predicted/target", "agreement", "kept/cut_mix"},
    "toy_cross_view": {"source", "predicted/target", "agreement"},
    "toy_class_mix_student": {"source", "predicted/target", "kept/pseudo_label"},
    "toy_rectified": {"predicted/target", "kept/rectified"},
    "toy_adversarial_multi": {"source", "predicted/target", "discriminator/adversarial/main",
                              "discriminator/adversarial/auxiliary"},
    "toy_source_only": {"source", "predicted/source"},
    "toy_oracle": {"source", "predicted/source"},
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_every_kind_of_run_is_monitored(name: str, toy_root: Path) -> None:
    experiment = tiny_preset(name, toy_root)
    for objective in experiment.objectives.values():
        objective.start_step = 0
    run = tiny_run(experiment)
    batch = batch_for(experiment)
    counts = train_step(run, batch).counts
    assert counts.keys() == EXPECTED[name]
    pixels = batch.target_images[:, 0].numel() or batch.source_images[:, 0].numel()
    domain = next(name for name in counts if name.startswith("predicted/"))
    assert int(counts[domain].sum()) == pixels
    for key, count in counts.items():
        if key.startswith("kept/"):
            assert int(count[1].sum()) == pixels
            assert (count[0] <= count[1]).all()
    if "source" in counts:
        assert int(counts["source"].sum()) == int((batch.source_labels != IGNORE_INDEX).sum())


def test_only_steps_that_are_logged_are_counted(toy_root: Path) -> None:
    experiment = tiny_preset("toy_class_mix", toy_root, steps=5)
    experiment.train.log_every = 2
    results = steps(tiny_run(experiment), 5)
    assert [bool(result.counts) for result in results] == [False, True, False, True, True]


def state_after(name: str, toy_root: Path, folder: Path, *, log_every: int) -> dict[str, Any]:
    experiment = tiny_preset(name, toy_root, steps=3)
    for objective in experiment.objectives.values():
        objective.start_step = 0
    experiment.train.log_every = log_every
    run = tiny_run(experiment)
    steps(run, 3)
    return run.state()


@pytest.mark.parametrize("name", ["toy_class_mix", "toy_adversarial_multi", "toy_cross_view"])
def test_monitors_leave_no_trace(name: str, toy_root: Path, tmp_path: Path) -> None:
    """Neither in weights, nor in batch norm's statistics, nor in dropout's draws."""
    always, at_last = (state_after(name, toy_root, tmp_path, log_every=n) for n in (1, 3))
    assert_same(always, at_last)


def predictions_of(run: Run, images: Tensor) -> Tensor:
    """(19,) pixels by class, as an evaluation sees these images (N, 3, H, W) uint8."""
    protocol = run.experiment.evaluation
    run.student.eval()
    found = [
        predict(run.student, [image], size=(64, 128), protocol=protocol).labels for image in images
    ]
    return torch.bincount(torch.stack(found).flatten(), minlength=19)


def test_target_images_that_the_student_does_not_see_are_looked_at_as_in_an_evaluation(
    toy_root: Path,
) -> None:
    experiment = tiny_preset("toy_class_mix", toy_root)
    experiment.train.precision = "float32"
    run = tiny_run(experiment)
    batch = batch_for(experiment)
    train_step(run, batch)
    run.experiment.train.optimizer.lr = 0.0
    run.student.batch_norm = "train"
    for layer in run.student.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.0  # so that the statistics of the step are those after it
    before = predictions_of(run, batch.target_images)
    counts = train_step(run, batch).counts["predicted/target"]
    assert len(before.nonzero()) > 1
    assert int((counts - before).abs().sum()) <= 0.01 * int(before.sum())  # order of sums


def test_a_run_records_its_figures(toy_root: Path, tmp_path: Path) -> None:
    experiment = tiny_preset("toy_adversarial", toy_root, steps=3)
    train(experiment, tmp_path / "run", preset="toy_adversarial", device=CPU)
    lines = [line for line in metrics(tmp_path / "run") if "predicted_on" in line]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert f"{D}/verdict" not in lines[0], "it takes no part yet"
    assert lines[2][f"{D}/verdict"] in ("saturated", "inactive", "working")
    assert 0 <= lines[2][f"{D}/source"] <= 1
    assert sum(v for n, v in lines[2].items() if n.startswith("predicted/")) == pytest.approx(1)
