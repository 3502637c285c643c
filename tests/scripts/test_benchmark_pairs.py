"""Pairs of encoders and decoders are measured, each in its own process."""

import json
from pathlib import Path

import pytest
import torch

import benchmark_pairs
from benchmark_pairs import PAIRS, Measured, Pair, markdown, measure
from uda.models.encoders.mit import SIZES

FACTS = {"processor": "a kind", "torch": "2.0"}


def test_names_are_distinct() -> None:
    assert len({pair.name for pair in PAIRS}) == len(PAIRS) >= 10


@pytest.mark.parametrize(
    "pair", [p for p in PAIRS if not p.encoder.startswith("timm/")], ids=lambda pair: pair.name
)
def test_every_pair_can_be_built(pair: Pair) -> None:
    with torch.device("meta"):
        network = pair.config(size=512, checkpointing=True).build(19)
    assert network.backbone.checkpointing


def test_parameters_memory_and_time_of_a_pair() -> None:
    (pair,) = [pair for pair in PAIRS if pair.name == "mit_b0 + segformer"]
    found = measure(pair, size=64, checkpointing=True)
    assert found.encoder == pytest.approx(3.32e6, rel=2e-3), "as published"
    channels = SIZES["mit_b0"].channels
    head = sum(256 * c + 256 for c in channels) + 4 * 256 * 256 + 2 * 256 + 256 * 19 + 19
    assert found.heads == head
    assert found.peak > 0
    assert found.step > 0


def test_the_table() -> None:
    plain = Measured(encoder=3_000_000, heads=1_500_000, peak=3 * 2**29, step=2.04)
    saving = Measured(encoder=3_000_000, heads=1_500_000, peak=2**29, step=3.0)
    text = markdown({"a + b": (plain, saving), "c + d": (plain, None)}, FACTS, size=512)
    assert "an image of 512x512" in text
    assert "(a kind; torch 2.0)" in text
    assert "| a + b | 4.5 | 3.0 | 1.50 | 2.0 | 0.50 | 3.0 |" in text
    assert "| c + d | 4.5 | 3.0 | 1.50 | 2.0 | - | - |" in text


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = {name: str(tmp_path / name) for name in ("json", "markdown")}
    benchmark_pairs.main(
        ["--size", "64", "--only", "mit_b0 + segformer", "resnet101 + deeplabv3plus",
         "--json", paths["json"], "--markdown", paths["markdown"]]
    )  # fmt: skip
    values = json.loads(Path(paths["json"]).read_text())
    assert list(values["pairs"]) == ["mit_b0 + segformer", "resnet101 + deeplabv3plus"]
    for one in values["pairs"].values():
        assert one["without"]["heads"] == one["checkpointing"]["heads"]
    assert Path(paths["markdown"]).read_text() == capsys.readouterr().out
