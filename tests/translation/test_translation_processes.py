"""Two processes learn a translation as one does."""

from pathlib import Path

import pytest
import torch
from translation_steps import steps_of

from processes import finished, torchrun


@pytest.mark.slow
def test_two_processes_are_one(toy_root: Path, tmp_path: Path) -> None:
    job = torchrun(
        "tests/translation/translation_steps.py", str(toy_root), str(tmp_path / "two.pt")
    )
    finished(job)
    two, one = torch.load(tmp_path / "two.pt"), steps_of(toy_root)
    assert two.keys() == one.keys()
    for name, value in one.items():
        # Means over ranks are float32, and Adam enlarges the rounding of biases that count for
        # nothing, those before a norm.
        torch.testing.assert_close(two[name].double(), value, rtol=1e-6, atol=1e-7)
