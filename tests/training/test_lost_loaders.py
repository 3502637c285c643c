"""A loader process that is killed ends the run with its state saved and the way to resume."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from interruptions import before_step, experiment_of, files, run_to_end
from tiny_runs import assert_same
from uda.checkpoints.snapshots import read
from uda.evaluation import inference
from uda.utilities.loading import LoaderLostError

RESUME = r"; the run is saved after step {}; resume with: uda.train\(\.\.\., resume=True\)$"


def kill_loaders() -> None:
    for process in multiprocessing.active_children():
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)


def computed(folder: Path) -> dict[str, Any]:
    """The files of a run, as if it had been made without loader processes."""
    found = files(folder)
    for name in found.keys() - {"metrics"}:
        found[name]["experiment"]["data"]["workers"] = 0
    return found


def test_a_killed_loader_ends_the_run_which_can_be_resumed(
    toy_root: Path, tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While step 3 of 6 is made, then within the evaluation of step 4."""
    experiment = experiment_of(toy_root)
    experiment.data.workers = 1
    message = r"^loader process \d+ was killed by SIGKILL, as .*"
    with (
        before_step(2, kill_loaders),
        pytest.raises(LoaderLostError, match=message + RESUME.format(3)),
    ):
        run_to_end(experiment, tmp_path / "run")
    assert read(tmp_path / "run/resume.pth")["step"] == 3

    original = inference.predict

    def predict(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        kill_loaders()
        return original(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr("uda.evaluation.evaluate.predict", predict)
        with pytest.raises(LoaderLostError, match=RESUME.format(4)):
            run_to_end(experiment, tmp_path / "run", resume=True)
    assert read(tmp_path / "run/resume.pth")["unfinished"]
    run_to_end(experiment, tmp_path / "run", resume=True)
    assert_same(computed(tmp_path / "run"), undisturbed)


@pytest.mark.slow
def test_a_loader_that_dies_over_the_first_batch(
    toy_root: Path, tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = experiment_of(toy_root)
    experiment.data.workers = 1
    with monkeypatch.context() as patch:
        patch.setattr("uda.data.sampling.load_cropped", lambda *_, **__: os._exit(1))
        with pytest.raises(LoaderLostError, match="is saved after step 0; resume with: "):
            run_to_end(experiment, tmp_path / "run")
    run_to_end(experiment, tmp_path / "run", resume=True)
    assert_same(computed(tmp_path / "run"), undisturbed)
