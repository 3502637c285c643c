"""Any encoder with any decoder: pairs that fit, pairs that do not, and a decoder from one file."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import uda.models.decoders
from uda.checkpoints import snapshots
from uda.data.config import DataConfig, DomainConfig
from uda.data.registry import list_dataset
from uda.evaluation.evaluate import EvaluationConfig, evaluate
from uda.experiment import Experiment, TrainConfig
from uda.experiments.by_path import preset_from_file
from uda.experiments.overrides import change
from uda.models.decoders.aspp import AsppConfig
from uda.models.decoders.base import DecoderConfig, decoder_configs
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import FeatureShapes
from uda.models.registry import model_from_plain
from uda.objectives.supervised import SupervisedConfig
from uda.training import loop
from uda.utilities.config_tree import to_plain
from uda.utilities.errors import InputError

EXAMPLE = Path(__file__).parents[1] / "examples/a_decoder.py"
TINY = EncoderDecoderConfig(backbone="resnet18", backbone_weights="none", backbone_width=8)
TIMM = replace(TINY, backbone="timm/resnet10t", backbone_width=64)
STRIDES = "output_stride is 4; allowed: 8, 16, 32"
IMAGES = torch.rand(2, 3, 65, 97)


@pytest.mark.parametrize("name", decoder_configs())
@pytest.mark.parametrize(
    "config",
    [replace(TINY, output_stride=8), TINY, TIMM],
    ids=["resnet18 at stride 8", "resnet18 at stride 16", "timm"],
)
def test_every_decoder_reads_the_maps_of_every_encoder(
    config: EncoderDecoderConfig, name: str
) -> None:
    network = replace(config, decoder=decoder_configs()[name]()).build(5)
    output = network(IMAGES)
    assert output.logits.shape == (2, 5, 65, 97)
    assert output.auxiliary_logits is None
    output.logits.square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())
    of_decoder = {id(p) for p in network.decoder.parameters()}
    assert {id(p) for p in network.head_parameters()} == of_decoder
    assert not of_decoder & {id(p) for p in network.backbone_parameters()}


@pytest.mark.parametrize("name", decoder_configs())
def test_dropout_is_the_decoders(name: str) -> None:
    network = replace(TINY, decoder=decoder_configs()[name](), dropout=0.25).build(5)
    found = [m for m in network.decoder.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)]
    assert [m.p for m in found] == [0.25]


@pytest.mark.parametrize("name", decoder_configs())
def test_settings_come_back_from_plain_values(name: str) -> None:
    config = replace(TINY, decoder=decoder_configs()[name]())
    values = to_plain(experiment(config, Path("nowhere")))["model"]
    assert values["decoder"]["type"] == type(config.decoder).__name__
    assert model_from_plain(values, origin="snapshot") == config


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"type": "NoConfig"}, r"snapshot: unknown decoder 'NoConfig'; known: .*LinearConfig"),
        ({"type": 3}, "unknown decoder 3"),
        ({"width": 3}, "AsppConfig has fields"),
        ({"channels": "many"}, "snapshot.channels is 'many'"),
    ],
)
def test_a_snapshot_with_an_unknown_decoder_is_refused(changes: dict[str, Any], says: str) -> None:
    values = to_plain(experiment(TINY, Path("nowhere")))["model"]
    values["decoder"] |= changes
    with pytest.raises(InputError, match=says):
        model_from_plain(values, origin="snapshot")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            replace(TINY, output_stride=32),
            r"AsppConfig cannot decode the feature maps of resnet18 of width 8: model.decoder.rates"
            r".* stride 8 or 16, and this one has 32: use --set model.output_stride=16 .*"
            r"--set model.decoder=linear",
        ),
        (replace(TINY, decoder=AsppConfig(rates=(0,))), "decoder.rates is .* 1 or more"),
        (replace(TINY, decoder=AsppConfig(channels=1)), "decoder.channels is 1; allowed: 2"),
        (replace(TINY, decoder=AsppConfig(channels=10**9)), "decoder.channels is 1000000000"),
        (replace(TINY, decoder=AsppConfig(norm="none")), "decoder.norm"),  # type: ignore[arg-type]
        (replace(TINY, output_stride=4), STRIDES),  # type: ignore[arg-type]
        (replace(TIMM, output_stride=4), STRIDES),  # type: ignore[arg-type]
        (replace(TINY, backbone="resnet19"), "'resnet19'; allowed: resnet18, .*, or timm/ and"),
        (replace(TINY, input_scaling="none"), "statistics, min_max"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_built_is_refused(config: EncoderDecoderConfig, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        config.build(5)
    assert "\n" not in str(caught.value)


@dataclass(kw_only=True, slots=True)
class TwoClassesConfig(DecoderConfig):
    """A decoder with a mistake."""

    def build(self, maps: FeatureShapes, *, num_classes: int, dropout: float) -> nn.Module:
        class Two(nn.Module):
            def forward(self, features: tuple[torch.Tensor, ...]) -> torch.Tensor:
                return features[0][:, :2]

        return Two()


def test_a_decoder_that_returns_something_else_is_told() -> None:
    network = replace(TINY, decoder=TwoClassesConfig()).build(5)
    with pytest.raises(InputError, match=r"Two returned \(2, 2, 17, 25\); needed: logits \(2, 5,"):
        network(IMAGES)


@pytest.fixture
def sum_of_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[DecoderConfig]]:
    """The example as a file in the folder of decoders."""
    shutil.copy(EXAMPLE, tmp_path / "sum_of_maps.py")
    monkeypatch.setattr(
        uda.models.decoders, "__path__", [*uda.models.decoders.__path__, str(tmp_path)]
    )
    decoder_configs.cache_clear()
    yield decoder_configs()["sum_of_maps"]
    del sys.modules["uda.models.decoders.sum_of_maps"]
    decoder_configs.cache_clear()


def experiment(model: EncoderDecoderConfig, root: Path) -> Experiment:
    return Experiment(
        data=DataConfig(
            root=str(root), source=DomainConfig(datasets=("gta5",)), crop=(32, 64), workers=0
        ),
        model=model,
        objectives={"supervised": SupervisedConfig(auxiliary_weight=0.0)},
        train=TrainConfig(steps=2, batch_size=2, precision="float32", snapshot_every=2),
        evaluation=EvaluationConfig(dataset="cityscapes", input_size=(32, 64), every=2),
    )


def test_a_decoder_is_chosen_by_name(sum_of_maps: type[DecoderConfig], toy_root: Path) -> None:
    chosen = experiment(TINY, toy_root)
    overrides = ["model=encoder_decoder", "model.decoder=sum_of_maps", "model.decoder.channels=16"]
    change(chosen, overrides)
    assert chosen.model == EncoderDecoderConfig(decoder=sum_of_maps(channels=16))  # type: ignore[call-arg]
    with pytest.raises(InputError, match=r"'lines' is not a decoder; known: aspp, linear, sum_of"):
        change(chosen, ["model.decoder=lines"])
    with pytest.raises(InputError, match=r"model.decoder.rates"):
        change(chosen, ["model.decoder.rates=1"])


def test_a_decoder_of_a_users_file_is_trained(toy_root: Path, tmp_path: Path) -> None:
    """The class stands in the preset's own file."""
    study = tmp_path / "study.py"
    study.write_text(f"""{EXAMPLE.read_text()}

from uda.experiments.toy_city import toy_source_only


def sum_of_maps():
    experiment = toy_source_only()
    experiment.data.root = {str(toy_root)!r}
    experiment.objectives["supervised"].auxiliary_weight = 0.0
    experiment.train.steps = experiment.train.batch_size = experiment.evaluation.every = 2
    experiment.train.warmup_steps = 0
    return experiment
""")
    preset = preset_from_file(str(study))
    change(preset, ["model=encoder_decoder", "model.decoder=sum_of_maps", "data.workers=0",
                    "model.backbone=resnet18", "model.backbone_width=8",
                    "model.backbone_weights=none", "data.crop=32,64"])  # fmt: skip
    loop.train(preset, tmp_path / "run", preset="sum_of_maps", device=torch.device("cpu"))
    assert list((tmp_path / "run").glob("*_2.pth"))


def test_a_decoder_is_one_file(
    sum_of_maps: type[DecoderConfig], toy_root: Path, tmp_path: Path
) -> None:
    """Trained, evaluated, stored and loaded, with nothing else edited."""
    assert len(EXAMPLE.read_text().splitlines()) <= 50
    config = replace(TINY, decoder=sum_of_maps(), output_stride=32)
    trained = experiment(config, toy_root)
    loop.train(trained, tmp_path / "run", preset="tiny", device=torch.device("cpu"))
    (path,) = (tmp_path / "run").glob("*_2.pth")
    snapshot = snapshots.load(path)
    assert snapshot.model == config
    assert snapshot.scores is not None
    measured = evaluate(
        snapshot.build(),
        list_dataset(toy_root, "cityscapes", "val", labeled=True),
        config=trained.evaluation,
        label_space=snapshot.label_space,
    )
    assert snapshot.scores["miou"] == pytest.approx(100 * measured.scores.miou, abs=0.01)
