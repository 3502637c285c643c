"""What all tests share: a tiny toy city, and one thread."""

from pathlib import Path

import pytest
import torch

from uda.data.toy_city import write_toy_city


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small networks are slower on several threads, and tests of bits want one order of sums."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 6 source, 6 target and 3 validation images of 64x128 pixels (height,
    width). Only read it: every test of the session sees it."""
    root = tmp_path_factory.mktemp("data") / "toy_city"
    write_toy_city(root, source_images=6, target_images=6, validation_images=3, size=(64, 128))
    return root
