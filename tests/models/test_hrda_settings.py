"""HRDA in a preset: settings that are refused, stored and chosen by name, and a run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from uda.checkpoints import snapshots
from uda.experiments import load_preset
from uda.experiments.overrides import change
from uda.models.decoders.daformer import DAFormerConfig
from uda.models.decoders.deeplabv3plus import DeepLabV3PlusDecoderConfig
from uda.models.decoders.linear import LinearConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.hrda import HrdaConfig
from uda.models.registry import model_from_plain
from uda.training import loop
from uda.utilities.config_tree import to_plain
from uda.utilities.errors import InputError

SMALL = EncoderDecoderConfig(
    encoder=EncoderConfig(name="resnet18", weights="none", width=8),
    decoder=DAFormerConfig(channels=8),
    hrda=HrdaConfig(crop=32, attention=DAFormerConfig(channels=8, fusion="conv1")),
    dropout=0.0,
)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hrda": HrdaConfig(crop=36)}, r"hrda.crop is 36; .*resnet18.* stride 4: multiples of 8"),
        ({"hrda": HrdaConfig(crop=0)}, "hrda.crop is 0"),
        (
            {"hrda": HrdaConfig(attention=DAFormerConfig(channels=0))},
            "model.hrda.attention.channels is 0; allowed: 1",
        ),
        (
            {
                "encoder": EncoderConfig(name="dinov3_vits16", weights="none"),
                "hrda": HrdaConfig(attention=DeepLabV3PlusDecoderConfig()),
            },
            r"model.hrda.attention.name=deeplabv3plus cannot read .* dinov3_vits16: it refines",
        ),
        ({"align_corners": True}, "align_corners is true; with model.hrda, allowed: none and fal"),
        ({"input_scale": 1.1}, "input_scale is 1.1 and"),
    ],
)
def test_refusals(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(SMALL, **changes).build(5)


def test_settings_come_back_from_plain_values() -> None:
    preset = load_preset("toy_class_mix")
    change(preset, ["model=encoder_decoder", "model.hrda=default", "model.hrda.attention=linear"])
    assert isinstance(preset.model, EncoderDecoderConfig)
    assert preset.model.hrda == HrdaConfig(attention=LinearConfig())
    assert preset.model.title.startswith("HRDA of ")
    plain = to_plain(preset)["model"]
    assert model_from_plain(plain, origin="snapshot") == preset.model
    change(preset, ["model.hrda.attention.name=linear"])
    assert preset.model.hrda == HrdaConfig(attention=LinearConfig())
    change(preset, ["model.hrda=none"])
    assert preset.model.hrda is None
    del plain["hrda"]  # an older file
    assert model_from_plain(plain, origin="snapshot") == preset.model


@pytest.mark.slow
def test_a_run(toy_root: Path, tmp_path: Path) -> None:
    """A student and a teacher with mixed images, scored, stored and loaded; a resumed run would
    draw the same details, because each step seeds the generator."""
    preset = load_preset("toy_class_mix")
    change(
        preset,
        [
            f"data.root={toy_root}", "data.workers=0", "data.crop=64,64", "train.steps=2",
            "train.warmup_steps=0", "train.batch_size=2", "evaluation.every=2",
            "objectives.class_mix.start_step=0", "model=encoder_decoder",
            "model.encoder.name=mit_b0", "model.encoder.weights=none",
            "model.decoder.name=daformer", "model.decoder.channels=8",
            "model.hrda=default", "model.hrda.crop=32", "model.hrda.attention=daformer",
            "model.hrda.attention.fusion=conv1", "model.hrda.attention.channels=8",
        ],
    )  # fmt: skip
    preset.objectives["supervised"].auxiliary_weight = 0.0  # type: ignore[attr-defined]
    loop.train(preset, tmp_path / "run", preset="hrda", device=torch.device("cpu"))
    (path,) = (tmp_path / "run").glob("*_2.pth")
    snapshot = snapshots.load(path)
    assert snapshot.model == preset.model
    assert snapshot.scores is not None
    assert snapshot.build()(torch.rand(1, 3, 64, 64)).logits.shape == (1, 19, 64, 64)
