"""Any encoder with any decoder: pairs that fit, pairs that do not, and a decoder from one file."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import uda.models.decoders
from tiny_runs import thinned, tiny_model
from uda.checkpoints import snapshots
from uda.data.config import DataConfig, DomainConfig
from uda.data.registry import list_dataset
from uda.evaluation.evaluate import EvaluationConfig, evaluate
from uda.experiment import Experiment, TrainConfig
from uda.experiments import load_preset
from uda.experiments.by_path import preset_from_file
from uda.experiments.overrides import change
from uda.models.decoders.aspp import AsppConfig
from uda.models.decoders.base import DecoderConfig, decoder_configs
from uda.models.decoders.deeplabv3plus import DeepLabV3PlusDecoderConfig
from uda.models.decoders.fcn import FcnConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig, FeatureShapes
from uda.models.registry import model_from_plain
from uda.objectives.supervised import SupervisedConfig
from uda.training import loop
from uda.utilities.config_tree import to_plain
from uda.utilities.errors import InputError

EXAMPLE = Path(__file__).parents[1] / "examples/a_decoder.py"
RESNET = EncoderConfig(name="resnet18", weights="none", width=8)
TINY = EncoderDecoderConfig(encoder=RESNET, decoder=AsppConfig())
AT_8 = replace(TINY, encoder=replace(RESNET, output_stride=8))
AT_32 = replace(TINY, encoder=replace(RESNET, output_stride=32))
TIMM = replace(TINY, encoder=EncoderConfig(name="timm/resnet10t", weights="none"))
STRIDES = "model.encoder.output_stride is 4; allowed: 8, 16, 32"
IMAGES = torch.rand(2, 3, 65, 97)


def narrow_decoder(name: str) -> DecoderConfig:
    """With few channels where they can be chosen."""
    cls = decoder_configs()[name]
    narrow = {f.name: 16 for f in fields(cls) if f.name == "channels"}
    return cls(**narrow)


ENCODERS = {
    "resnet18 at stride 8": AT_8.encoder,
    "resnet18 at stride 16": RESNET,
    "resnet18 at stride 32": AT_32.encoder,
    "timm": TIMM.encoder,
    "mit_b0": EncoderConfig(name="mit_b0", weights="none"),
    "dinov2": EncoderConfig(name="dinov2_vits14", weights="none"),
}


@pytest.mark.parametrize(
    "pair", thinned(product(ENCODERS, decoder_configs()), one_in=3), ids="-".join
)
def test_every_decoder_reads_the_maps_of_every_encoder(pair: tuple[str, str]) -> None:
    encoder, name = pair
    config = EncoderDecoderConfig(encoder=ENCODERS[encoder], decoder=narrow_decoder(name))
    if name == "deeplabv3plus" and encoder == "dinov2":
        fitting = "aspp, or daformer, .*upernet, vfm_uda"
        with pytest.raises(
            InputError, match=rf"a finer one, .* --set model.decoder.name={fitting}"
        ):
            config.build(5)
        return
    network = config.build(5)
    output = network(IMAGES)
    assert output.logits.shape == (2, 5, 65, 97)
    assert output.auxiliary_logits is None
    output.logits.square().mean().backward()
    without = {n for n, p in network.named_parameters() if p.grad is None}
    # Norms of maps that the decoder does not read, and what stands for hidden tokens.
    norms = {f"backbone.norm{stage}.{p}" for stage in (1, 2, 3) for p in ("weight", "bias")}
    assert without <= norms | {"backbone.mask_token"}
    of_decoder = {id(p) for p in network.decoder.parameters()}
    assert {id(p) for p in network.head_parameters()} == of_decoder
    assert not of_decoder & {id(p) for p in network.backbone_parameters()}


@pytest.mark.parametrize("name", decoder_configs())
def test_dropout_is_the_decoders(name: str) -> None:
    network = replace(TINY, decoder=narrow_decoder(name), dropout=0.25).build(5)
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
        (replace(TINY, decoder=AsppConfig(rates=(0,))), "decoder.rates is .* 1 or more"),
        (replace(TINY, decoder=AsppConfig(channels=1)), "decoder.channels is 1; allowed: 2"),
        (replace(TINY, decoder=AsppConfig(channels=10**9)), "decoder.channels is 1000000000"),
        (replace(TINY, decoder=AsppConfig(norm="none")), "decoder.norm"),  # type: ignore[arg-type]
        (replace(TINY, encoder=replace(RESNET, output_stride=4)), STRIDES),
        (replace(TINY, encoder=replace(TIMM.encoder, output_stride=4)), STRIDES),
        (replace(TINY, encoder=EncoderConfig(name="resnet19")), "'resnet19'; allowed: .*resnet18"),
        (
            replace(TINY, encoder=replace(RESNET, drop_path=0.1, patch_norm_eps=1e-6)),
            "drop_path is 0.1, but resnet18 has no .*model.encoder.drop_path=none .*patch_norm_eps",
        ),
        (replace(TINY, encoder=replace(RESNET, drop_path=1.0)), "up to, not including, 1"),
        (replace(TINY, encoder=replace(RESNET, width=0)), "model.encoder.width is 0; allowed"),
        (replace(TINY, input_scale=0.0), "model.input_scale is 0.0; allowed: none, or above 0"),
        (replace(TINY, auxiliary=FcnConfig(), auxiliary_map=4), "has 4 feature maps; .* -4 to 3"),
        (
            replace(TINY, auxiliary=DeepLabV3PlusDecoderConfig()),
            r"model.auxiliary.name=deeplabv3plus cannot decode the feature maps of resnet18 of "
            r"width 8 \(strides 16\): .* these fit: --set model.auxiliary.name=aspp, or .*fcn",
        ),
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
    with pytest.raises(InputError, match=r"'lines' is not a decoder; known: aspp, .*sum_of"):
        change(chosen, ["model.decoder=lines"])
    with pytest.raises(InputError, match=r"model.decoder.rates"):
        change(chosen, ["model.decoder.rates=1"])


def test_encoder_and_decoder_of_any_preset_are_exchanged() -> None:
    chosen = load_preset("aagc_640x360_b2")
    remarks = change(
        chosen, ["model.encoder.name=resnet50", "model.decoder.name=aspp", "model.auxiliary=none"]
    ).remarks
    assert remarks == (
        "model is encoder_decoder now: the preset's network, made of an encoder, a decoder and an "
        "auxiliary head that --set can exchange",
    )
    change(chosen, ["model.encoder=resnet18"])
    assert chosen.model.encoder.name == "resnet18"  # type: ignore[attr-defined]
    change(chosen, ["model.encoder=resnet50"])
    expected = EncoderDecoderConfig(encoder=EncoderConfig(name="resnet50"), decoder=AsppConfig())
    assert chosen.model == replace(expected, batch_norm=chosen.model.batch_norm)
    with pytest.raises(InputError, match=r"a later --set model.encoder.name replaces it"):
        change(chosen, ["model.encoder.width=8", "model.encoder.name=resnet18"])
    for flat, later in (
        ("model.output_stride=8", "model.encoder.name=resnet18"),
        ("model.backbone_width=8", "model.encoder=default"),
        ("model.backbone_weights=file.pth", "model.encoder.name=mit_b0"),
        ("model.aspp_channels=8", "model.decoder.name=segformer"),
        ("model.auxiliary_head=false", "model.auxiliary=fcn"),
    ):
        with pytest.raises(InputError, match=f"{flat.partition('=')[0]} changes nothing: a later"):
            change(load_preset("aagc_640x360_b2"), [flat, later])
    change(load_preset("aagc_640x360_b2"), ["model.backbone_weights=none", "model.encoder.name=x"])
    change(load_preset("aagc_640x360_b2"), ["model.auxiliary_map=0"])
    with pytest.raises(InputError, match=r"deeplabv2, .* add --set model=encoder_decoder"):
        change(load_preset("logged_multi_640x360_lsgan_b2"), ["model.decoder.name=aspp"])


def test_the_composed_network_is_the_same() -> None:
    """DeepLabV3+ as a network of its own, and as an encoder, a decoder and an auxiliary head."""
    flat = tiny_model("frozen", "group")
    torch.manual_seed(0)
    network = flat.build(5)
    torch.manual_seed(0)
    composed = flat.composed().build(5)
    assert [p.shape for p in network.parameters()] == [p.shape for p in composed.parameters()]
    assert all(map(torch.equal, network.parameters(), composed.parameters()))
    torch.manual_seed(0)
    expected = network(IMAGES).tensors()
    torch.manual_seed(0)
    found = composed(IMAGES).tensors()
    assert found.keys() == expected.keys() >= {"logits", "auxiliary_logits", "features"}
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_images_are_resized_inside_the_network() -> None:
    """As VFM-UDA does: 1.1 times as large, down to a multiple of the patch."""
    network = replace(TINY, input_scale=1.1).build(5).eval()
    network.divisor = 14
    seen: list[tuple[int, ...]] = []
    network.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[2:]))
    assert network(torch.rand(1, 3, 64, 100)).logits.shape == (1, 5, 64, 100)
    assert network(torch.rand(1, 3, 10, 8)).logits.shape == (1, 5, 10, 8)
    assert seen == [(70, 98), (14, 14)]


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
    change(preset, ["model.decoder.name=sum_of_maps", "model.auxiliary=none", "data.workers=0",
                    "model.encoder.width=8", "data.crop=32,64", "model.hrda=default",
                    "model.hrda.crop=64", "model.hrda.attention=sum_of_maps"])  # fmt: skip
    loop.train(preset, tmp_path / "run", preset="sum_of_maps", device=torch.device("cpu"))
    (path,) = (tmp_path / "run").glob("*_2.pth")
    assert snapshots.load(path, code=study).build()(IMAGES).logits.shape[1] == 19


def test_a_decoder_is_one_file(
    sum_of_maps: type[DecoderConfig], toy_root: Path, tmp_path: Path
) -> None:
    """Trained, evaluated, stored and loaded, with nothing else edited."""
    assert len(EXAMPLE.read_text().splitlines()) <= 50
    config = replace(AT_32, decoder=sum_of_maps())
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
