"""What all tests share: a tiny toy city, a run on it, a shell, and one thread."""

import io
import runpy
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

from interruptions import experiment_of, files, run_to_end
from shells import CLASS_MIX, Shell, Trained
from tiny_runs import REPOSITORY, tiny_options
from uda.data.toy_city.city import write_toy_city


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small networks are slower on several threads, and tests of bits want one order of sums."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes into the user's cache, nor do the processes that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UDA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 6 source, 6 target and 3 validation images of 64x128 pixels (height,
    width). Only read it: every test of the session sees it."""
    root = tmp_path_factory.mktemp("data") / "toy_city"
    write_toy_city(root, source_images=6, target_images=6, validation_images=3, size=(64, 128))
    return root


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="session")
def trained(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    cwd = tmp_path_factory.mktemp("commands")
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output):
        patch.chdir(cwd)
        patch.setattr(
            sys, "argv", ["train_uda.py", *CLASS_MIX, *tiny_options(toy_root), "--run", "teacher"]
        )
        runpy.run_path(str(REPOSITORY / "train_uda.py"), run_name="__main__")
    return Trained(cwd / "snapshots/teacher", output.getvalue())


@pytest.fixture(scope="session")
def undisturbed(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The files of `interruptions.experiment_of` that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    run_to_end(experiment_of(toy_root), folder)
    return files(folder)
