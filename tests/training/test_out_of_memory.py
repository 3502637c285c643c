"""Where memory is not enough: what did not fit, what to lower, and no good file is blamed."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageFile

from factories import noise, write_png
from interruptions import experiment_of, run_to_end
from shells import Shell, Trained
from uda.checkpoints.snapshots import read
from uda.data.files import read_image
from uda.data.sampling import batches
from uda.data.training import open_training_data
from uda.evaluation import evaluate
from uda.training import loop as engine
from uda.training.run import Run
from uda.training.step import train_step
from uda.utilities.errors import InputError
from uda.utilities.loading import read_ahead

ERRORS = [
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_step(
    error: Exception, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = train_step

    def failing(run: Run, batch: Any) -> Any:  # noqa: ANN401
        if run.step == 3:
            raise error
        return original(run, batch)

    monkeypatch.setattr(engine, "train_step", failing)
    with pytest.raises(InputError) as refused:
        run_to_end(experiment_of(toy_root), tmp_path / "run")
    said = str(refused.value)
    assert "a step with 2 images of each domain at 128x64 (" in said
    assert "train_0" in said or "00" in said  # names of its images
    assert "--set train.batch_size=1" in said
    assert read(tmp_path / "run/resume.pth")["step"] == 2


def test_another_error_stays_one(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(run: Run, batch: Any) -> Any:  # noqa: ANN401
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(engine, "train_step", failing)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        run_to_end(experiment_of(toy_root), tmp_path / "run")


def test_an_image_that_is_scored(
    trained: Trained, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: object, **options: object) -> None:
        raise ERRORS[0]

    monkeypatch.setattr(evaluate, "predict", failing)
    said = shell.refused(
        "eval_single.py", "--restore-from", str(trained.snapshot), "--device", "cpu",
        "--workers", "0",
    )  # fmt: skip
    assert "which the network reads at 128x64, does not fit into memory" in said
    assert "--window" in said


def test_reading_blames_no_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Image.Image) -> None:
        raise MemoryError

    write_png(tmp_path / "good.png", noise(1, (4, 4)))
    monkeypatch.setattr(ImageFile.ImageFile, "load", failing)
    with pytest.raises(InputError, match=r"^there is no memory left to read .*good\.png: use few"):
        read_image(tmp_path / "good.png")


def test_a_run_of_a_hundred_million_steps_begins_at_once(toy_root: Path) -> None:
    data = open_training_data(experiment_of(toy_root).data, seed=0, evaluated="cityscapes")
    started = time.monotonic()
    stream = batches(data.dataset, batch_size=2, first_step=7, steps=10**8, workers=0)
    assert next(stream).indices == (14, 15)
    assert time.monotonic() - started < 30  # building all indices took minutes and gigabytes


def test_no_more_processes_than_results(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    class Loader:
        def __init__(self, *_: object, num_workers: int, **__: object) -> None:
            started.append(num_workers)

        def __len__(self) -> int:
            return 0

        def __iter__(self) -> Iterator[object]:
            return iter(())

        def close(self) -> None:
            pass

    monkeypatch.setattr("uda.utilities.loading.DataLoader", Loader)
    monkeypatch.setattr("uda.utilities.loading._Loaders", lambda loader: loader)
    dataset: Any = []
    for workers, count in ((1000, 3), (0, 3), (100_000, 10**6)):
        assert list(read_ahead(dataset, [[0]] * count, workers=workers, collate=list)) == []
    assert started[:2] == [3, 0]
    assert started[2] < 100_000


@pytest.mark.parametrize("command", ["eval_single.py", "pseudo_label.py", "predict.py"])
def test_too_many_processes_are_refused(
    command: str, shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        shell.run(command, "--restore-from", "x.pth", "--workers", "100000")
    assert end.value.code == 2
    assert "100000 is too many; allowed: up to 1024" in capsys.readouterr().err
