"""The benchmark compares like with like, and its tables say what was measured."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import benchmark
from benchmark_plain import STEPS, whole
from benchmark_report import Figure, Row, markdown, plain_values
from benchmark_step import PRESETS, NetworkClock, Way, experiment_of, start, synthetic_batch
from shells import Shell
from tiny_runs import CPU, without_dropout
from uda.models.segmenter import SegmentationOutput
from uda.objectives.class_mix import ClassMixConfig
from uda.training.run import Run
from uda.training.step import _step_seed, train_step

ROW = Row(
    name="training step",
    case="toy, batch 2",
    unit="images/s",
    reference=[2.0, 4.0, 3.0],
    ours=[6.0, 6.0, 7.2],
    target=1.9,
    meaning="this and that.",
)
MEMORY = Row(
    name="peak memory",
    unit="GiB",
    reference=[3.0],
    ours=[1.9996],
    target=0.5,
    at_most=True,
    meaning="the most.",
)
FIGURE = Figure(name="copy", unit="GB/s", rounds=[10.0, 12.0], meaning="bytes.")


def run_of(preset: str, way: Way) -> Run:
    """A tiny run in float32, without dropout: only the engine seeds that."""
    experiment = without_dropout(experiment_of(preset, batch_size=2, quick=True))
    experiment.train.precision = "float32"
    for objective in experiment.objectives.values():
        if isinstance(objective, ClassMixConfig):
            objective.threshold = 0.05  # of a network that knows nothing
    return start(experiment, way, CPU)


def gradients(run: Run) -> dict[str, Tensor]:
    modules = {"student": run.student, **run.objectives}
    return {
        f"{module}.{name}": parameter.grad.contiguous()
        for module, network in modules.items()
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_the_plain_way_computes_the_same(preset: str) -> None:
    plain, ours = run_of(preset, "plain"), run_of(preset, "ours")
    batch = synthetic_batch(plain.experiment)
    batch.source_labels[:, :32] = 13  # cells of cars alone
    torch.manual_seed(_step_seed(plain.experiment.train.seed, 0))  # for stochastic depth
    losses = STEPS[preset](plain, batch)
    # Transformers round more in another order of their memory.
    rtol = 1e-4 if preset == "daformer_gta5" else 1e-5
    torch.testing.assert_close(losses, train_step(ours, batch).losses, rtol=rtol, atol=1e-7)
    assert all(losses.values())
    expected, found = gradients(plain), gradients(ours)
    assert any("discriminators" in name for name in expected) == ("adversarial" in plain.objectives)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    # The optimizers have made the same of them.
    weights = dict(plain.student.named_parameters())
    for name, weight in ours.student.named_parameters():
        torch.testing.assert_close(weight, weights[name], rtol=1e-3, atol=1e-6)
    assert plain.step == ours.step == 1
    assert (plain.teacher is None) == (ours.teacher is None)
    if plain.teacher is not None and ours.teacher is not None:
        torch.testing.assert_close(
            dict(plain.teacher.named_parameters()), dict(ours.teacher.named_parameters()),
            rtol=1e-3, atol=1e-6,
        )  # fmt: skip


def test_the_plain_way_holds_whole_maps() -> None:
    run = run_of(PRESETS[0], "plain")
    output = run.student(torch.rand(2, 3, 64, 128))
    assert output.tensors()["logits"].shape[2:] == (16, 32)
    assert whole(output).tensors()["logits"].shape[2:] == (64, 128)


def test_the_plain_way_is_float32_and_channels_first() -> None:
    plain = start(experiment_of(PRESETS[0], batch_size=2, quick=True), "plain", CPU)
    seen: list[tuple[Tensor, SegmentationOutput]] = []
    plain.student.register_forward_hook(lambda _, images, output: seen.append((images[0], output)))
    STEPS[PRESETS[0]](plain, synthetic_batch(plain.experiment))
    assert len(seen) == 2
    for images, output in seen:
        assert images.is_contiguous()
        assert output.features.dtype == torch.float32
        assert output.features.is_contiguous()


def test_the_network_clock_sees_each_forward_and_each_backward() -> None:
    run = run_of(PRESETS[0], "ours")
    ticks = iter(range(100))
    clock = NetworkClock(run.student, lambda: float(next(ticks)))
    train_step(run, synthetic_batch(run.experiment))
    # Two views, forward and backward: four times from one tick to the next.
    assert clock.seconds == 4.0
    assert next(ticks) == 8


class TestReport:
    def test_the_ratio_is_the_quotient_of_the_figures_shown(self) -> None:
        line = next(ln for ln in markdown([ROW], {}).splitlines() if "toy, batch 2" in ln)
        # Medians 3 and 6; rounds 6/2, 6/4 and 7.2/3.
        assert line == (
            "| training step, toy, batch 2 | images/s | 3 | 6 | 2.00 | 1.50 to 3.00 | "
            "at least 1.9: met |"
        )
        assert plain_values([ROW], {})["rows"][0]["ratio"] == 2.0

    def test_a_ratio_that_has_to_be_small(self) -> None:
        line = next(ln for ln in markdown([MEMORY], {}).splitlines() if "peak memory |" in ln)
        assert line.endswith("| 3 | 2 | 0.67 | 0.67 to 0.67 | at most 0.5: missed |")

    def test_every_meaning_stands_there_once(self) -> None:
        text = markdown([ROW, ROW, FIGURE], {"cores": 2})
        assert text.count("- **training step** (images/s): this and that.") == 1
        assert "- **copy** (GB/s): bytes." in text
        assert "| copy | GB/s | 11 | 10 to 12 |" in text
        assert text.startswith("cores: 2.")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the files of a quick run of all parts."""
    folder = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        benchmark.main(
            ["--quick", "--device", "cpu", "--json", str(folder / "figures.json"),
             "--markdown", str(folder / "tables.md")]
        )  # fmt: skip
    return folder


@pytest.mark.slow
class TestQuickRun:
    def values(self, quick: Path) -> dict[str, Any]:
        values: dict[str, Any] = json.loads((quick / "figures.json").read_text())
        return values

    def test_every_row_has_a_ratio(self, quick: Path) -> None:
        values = self.values(quick)
        assert values["comparable"] is False
        assert [(row["name"], row["target"], row["target_is"]) for row in values["rows"]] == [
            *len(PRESETS) * [
                ("training step", 1.9, "at least"),
                ("work of a step", None, "at least"),
                ("peak memory", 0.45, "at most"),
                ("time to first step", None, "at least"),
            ],
            ("two processes", None, "at least"),
            ("loader", 0.9, "at least"),
            ("loader with data.cache", 3.0, "at least"),
            ("evaluation", 0.95, "at least"),
            ("evaluation, work", None, "at least"),
            ("pseudo-labeling", 0.95, "at least"),
            ("pseudo-labeling, work", None, "at least"),
            ("matrix product", None, "at least"),
        ]  # fmt: skip
        for row in values["rows"]:
            assert math.isfinite(row["ratio"])
            assert row["ratio"] > 0
            assert row["ratio"] == pytest.approx(row["ours"] / row["reference"], abs=1e-4)
        for figure in values["figures"]:
            assert figure["value"] > 0
        shares = [f["value"] for f in values["figures"] if f["name"] == "outside the network"]
        assert len(shares) == len(PRESETS)
        assert max(shares) < 1

    def test_the_table_says_the_same(self, quick: Path) -> None:
        text = (quick / "tables.md").read_text()
        assert "not for comparison" in text
        rows = re.findall(r"\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| [\d.]+ to", text)
        assert len(rows) == len(self.values(quick)["rows"])
        for reference, ours, ratio in rows:
            assert ratio == f"{float(ours) / float(reference):.2f}"

    def test_nothing_says_where_it_was_measured(self, quick: Path) -> None:
        for path in (quick / "figures.json", quick / "tables.md"):
            assert "/home" not in path.read_text()
            assert str(benchmark.DOCS.parent) not in path.read_text()


def test_a_quick_run_is_not_written_to_the_docs(shell: Shell) -> None:
    target = benchmark.DOCS / "performance.json"
    error = shell.refused("scripts/benchmark.py", "--quick", "--json", str(target))
    assert "--quick" in error
