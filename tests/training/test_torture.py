"""Kills at random moments lose no bit: what scripts/torture.py counts."""

import json
from pathlib import Path

import pytest
import torch

import torture_runs
from interruptions import (
    start_group,
)
from tiny_runs import (
    REPOSITORY,
)
from trials import kinds
from uda.experiment import validate


@pytest.mark.parametrize("name", kinds())
def test_every_objective_can_be_tortured(name: str) -> None:
    validate(torture_runs.shrunk(name, Path("folder")))


def test_figures_of_torture() -> None:
    figures = json.loads((REPOSITORY / "docs/torture.json").read_text())
    assert figures["objectives"].keys() <= kinds().keys()
    assert sum(one["kills"] for one in figures["objectives"].values()) >= 100
    assert figures["differing_bits"] == figures.get("silent", 0) == 0


def test_bits_are_counted() -> None:
    one = {"a": torch.tensor([1.0, 2.0]), "b": 3}
    assert torture_runs.differing_bits(one, {"a": torch.tensor([1.0, 2.0]), "b": 3}) == 0
    # 1.0 is 0x3f800000, -1.0 is 0xbf800000
    assert torture_runs.differing_bits(one, {"a": torch.tensor([-1.0, 2.0]), "b": 3}) == 1
    assert torture_runs.differing_bits(one, {"a": torch.tensor([1.0]), "b": 3}) == 64
    assert torture_runs.differing_bits(one, {"a": one["a"]}) > 0


@pytest.mark.slow
def test_five_kills_lose_no_bit(tmp_path: Path) -> None:
    """In processes of a program of their own: this one may have threads, which no fork survives."""
    done = start_group(
        tmp_path, str(REPOSITORY / "scripts/torture.py"), "--kills", "5", "--only", "ClassMix",
        "--parts", "kills",
        "--json", "figures.json",
    )  # fmt: skip
    out, error = done.communicate(timeout=240)
    assert done.returncode == 0, error
    assert out.endswith("5 kills, 0 differing bits, 0 flipped bits not noticed\n")
    figures = json.loads((tmp_path / "figures.json").read_text())["objectives"]["ClassMix"]
    assert figures["kills"] == 5
    assert figures["resumed"] > 0


@pytest.mark.slow
def test_commands_survive_chosen_operations_and_flipped_bits(tmp_path: Path) -> None:
    done = start_group(
        tmp_path, str(REPOSITORY / "scripts/torture.py"), "--parts", "operations", "random",
        "writers", "frozen", "bits", "--commands", "label", "predict", "translate", "--trials", "2",
        "--seed", "1", "--json", "figures.json",
    )  # fmt: skip
    out, error = done.communicate(timeout=280)
    assert done.returncode == 0, error
    assert out.endswith(" 0 differing bits, 0 flipped bits not noticed\n")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["kills"] >= 20
    assert figures["flipped_bits"] >= 1000
    for name in ("label", "predict", "translate"):
        assert figures["operations"][name]["ENOSPC"]["refused"] > 0
        # The second may come when the first has ended: then it writes, too, and what it finds.
        assert figures["writers"][name]["both_refused"] == 0
