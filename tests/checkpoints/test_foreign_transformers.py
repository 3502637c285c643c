"""Files of DAFormer, HRDA, MIC and SegFormer: the originals' logits, which networks they hold, and
which sizes."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import uda
from factories import file_of
from recipes import double_limit, recipe_image, recipe_weight
from uda.checkpoints.foreign import ForeignCheckpoint, read_foreign
from uda.checkpoints.formats.base import ForeignFormat
from uda.checkpoints.formats.daformer import DAFORMER, HRDA
from uda.checkpoints.formats.mit import mit_of
from uda.checkpoints.formats.segformer import MMSEGMENTATION_SEGFORMER, SEGFORMER
from uda.checkpoints.matching import describe_unknown
from uda.evaluation.protocols import PROTOCOLS
from uda.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.encoders.mit import SIZES, build
from uda.models.hrda import Box
from uda.utilities.errors import InputError

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
State = dict[str, Tensor]

# Entries that the file holds and no network reads.
UNUSED = {"decode_head.conv_seg.weight": torch.zeros(19, 128, 1, 1),
          "decode_head.conv_seg.bias": torch.zeros(19)}  # fmt: skip

_RENAMED = {
    "attn.proj": "attn.attn.out_proj",
    "mlp.fc1": "ffn.layers.0",
    "mlp.dwconv.dwconv": "ffn.layers.1",
    "mlp.fc2": "ffn.layers.4",
}


def as_mmsegmentation(state: State) -> State:
    """A file of mmsegmentation, from the same one with the authors' names of the encoder."""
    theirs: State = {}
    for name, tensor in state.items():
        found = re.fullmatch(r"backbone\.(patch_embed|block|norm)(\d)\.(.+)", name)
        if found is None:
            theirs[name] = tensor
            continue
        stage, rest = int(found[2]) - 1, found[3]
        layer = f"backbone.layers.{stage}"
        if found[1] != "block":
            place = f"{layer}.{0 if found[1] == 'patch_embed' else 2}"
            theirs[f"{place}.{rest.replace('proj', 'projection')}"] = tensor
            continue
        place = f"{layer}.1"
        if ".attn.q." in rest:
            both = torch.cat([tensor, state[name.replace(".q.", ".kv.")]])
            rest = rest.replace("attn.q.", "attn.attn.in_proj_")
            theirs[f"{place}.{rest}"] = both
        elif ".attn.kv." not in rest:
            for own, other in _RENAMED.items():
                rest = rest.replace(own, other)
            pointwise = rest.endswith((".0.weight", ".4.weight")) and tensor.ndim == 2
            theirs[f"{place}.{rest}"] = tensor[:, :, None, None] if pointwise else tensor
    return theirs


def names_of(foreign: ForeignFormat, model: EncoderDecoderConfig | None = None) -> State:
    """A file of the format, without values."""
    state = file_of(foreign, model)
    if foreign is SEGFORMER:
        return state | UNUSED
    return as_mmsegmentation(state) if foreign is MMSEGMENTATION_SEGFORMER else state


def read(state: State | dict[str, Any]) -> ForeignCheckpoint:
    found = read_foreign(state, origin="a file")
    assert found is not None
    return found


def loaded(foreign: ForeignFormat, folder: Path) -> EncoderDecoder:
    """What `uda.load` makes of a file whose student has the recipe's weights."""
    state = {name: recipe_weight(name, like) for name, like in names_of(foreign).items()}
    prefix = "model." if foreign.networks else ""
    path = folder / "file.pth"
    torch.save({"meta": {}, "state_dict": {prefix + n: t for n, t in state.items()}}, path)
    del state
    try:
        network = uda.load(path).eval()
    finally:
        path.unlink()  # of hundreds of megabytes, which pytest would keep
    assert isinstance(network, EncoderDecoder)
    return network


def check(ours: Tensor, expected: Any, limit: float) -> None:  # noqa: ANN401
    assert ours[0].shape == expected.shape
    assert np.abs(ours[0].numpy() - expected).max() / np.abs(expected).max() < limit


@pytest.mark.slow
@pytest.mark.parametrize(
    ("foreign", "file", "entries", "whole"),
    [
        (DAFORMER, "daformer_mitb5", 1110, False),
        pytest.param(DAFORMER, "daformer_mitb5", 1110, True, marks=pytest.mark.slow),
        pytest.param(SEGFORMER, "segformer_b5_nvlabs", 1070, True, marks=pytest.mark.slow),
        pytest.param(
            MMSEGMENTATION_SEGFORMER, "mmseg_segformer_b5", 980, True, marks=pytest.mark.slow
        ),
    ],
)
def test_a_file_of_the_original_gives_the_originals_logits(
    foreign: ForeignFormat, file: str, entries: int, whole: bool, tmp_path: Path
) -> None:
    """The float64 logits alone would notice a wrong epsilon."""
    assert len(names_of(foreign)) == entries
    network = loaded(foreign, tmp_path)
    golden = np.load(GOLDEN / f"{file}.npz")
    with torch.no_grad():
        check(network(recipe_image(65, 97)).logits[..., ::8, ::8], golden["main_65x97"], 1e-5)
        if whole:
            coarse = network.coarse(recipe_image(96, 160)).logits
            check(coarse[..., ::2, ::2], golden["coarse_96x160"], 1e-5)
            normalized = network.normalize(recipe_image(64, 96)).double()
            network.double()
            exact = network.decode(network.encode(normalized)).logits
            check(exact[..., ::2, ::2], golden["double_coarse_64x96"], double_limit(64, 96))


@pytest.mark.slow
def test_a_file_of_hrda_gives_the_originals_logits(tmp_path: Path) -> None:
    """For details of 64 pixels: all arrays, those of training with the box that was drawn then."""
    assert len(names_of(HRDA)) == 1126
    network = loaded(HRDA, tmp_path)
    hrda: Any = network.hrda
    assert hrda.crop == 512
    hrda.crop = 64
    golden = np.load(GOLDEN / "hrda_daformer_mitb5.npz")
    with torch.no_grad():
        coarse = network.coarse(recipe_image(96, 160)).logits
        check(coarse[..., ::2, ::2], golden["coarse_96x160_detail64"], 1e-5)

        wide = recipe_image(128, 192)
        total, seen = torch.zeros(1, 19, 128, 192), torch.zeros(192)
        for left in (0, 64):
            columns = slice(left, left + 128)
            total[..., columns] += network(wide[..., columns]).logits
            seen[columns] += 1
        every = (total / seen).softmax(1)[..., ::2, ::2]
        name = "probabilities_128x192_detail64_crop128_every2"
        check(every[..., ::8, ::8], golden[name], 1e-5)

        def head(features: tuple[Tensor, ...]) -> Tensor:
            return network.decode(features).logits

        normalized, box = network.normalize(recipe_image(96, 160)), Box(16, 80, 40, 104)
        output = hrda(normalized, network.encode, network.decode, head, box=box)
        check(output.logits[..., ::4, ::4], golden["train_fused_96x160"], 1e-5)
        check(output.detail_logits[..., ::2, ::2], golden["train_high_96x160"], 1e-5)
        context = network.encode(torch.nn.functional.avg_pool2d(normalized, 2))
        weights = hrda.attention(context).sigmoid()
        check(weights[..., ::2, ::2], golden["attention_96x160"], 1e-5)
        inside = torch.zeros_like(weights)
        box.divided(8).of(inside).fill_(1)
        low = (1 - weights * inside) * head(context)
        check(low[..., ::2, ::2], golden["train_low_96x160"], 1e-5)


def small(foreign: ForeignFormat, encoder: str = "mit_b0") -> EncoderDecoderConfig:
    """The format's network with another MiT."""
    usual = foreign.network({})
    assert isinstance(usual, EncoderDecoderConfig)
    return replace(usual, encoder=replace(usual.encoder, name=encoder))


@pytest.mark.parametrize("encoder", ["mit_b0", "mit_b1", "mit_b2"])
@pytest.mark.parametrize("foreign", [DAFORMER, SEGFORMER, MMSEGMENTATION_SEGFORMER])
def test_sizes_are_told_by_shapes(foreign: ForeignFormat, encoder: str) -> None:
    model = small(foreign, encoder)
    model.decoder.channels = 32  # type: ignore[attr-defined]
    found = read(names_of(foreign, model))
    assert found.format is foreign
    assert found.model == model
    assert found.title == f"{foreign.name.partition(' on ')[0]} on MiT-B{encoder[-1]}"
    assert found.format.protocol in PROTOCOLS


@pytest.mark.parametrize("name", SIZES)
def test_blocks_tell_the_size(name: str) -> None:
    with torch.device("meta"):
        shapes = build(EncoderConfig(name=name, weights="none")).state_dict()
    state = {n: torch.zeros(()).expand(t.shape) for n, t in shapes.items()}
    assert mit_of(state) == name
    left = {n: t for n, t in state.items() if not n.startswith("block4.")}
    assert mit_of({f"backbone.{n}": t for n, t in left.items()}, "backbone.") == name


def test_epsilons_are_the_projects() -> None:
    for foreign, expected in ((SEGFORMER, None), (MMSEGMENTATION_SEGFORMER, 1e-6)):
        found = read(names_of(foreign, small(foreign))).model
        assert isinstance(found, EncoderDecoderConfig)
        assert found.encoder.patch_norm_eps == expected
        assert small(foreign).encoder.patch_norm_eps == expected


def test_maps_of_the_authors_are_deepest_first() -> None:
    state = names_of(SEGFORMER, small(SEGFORMER))
    name = "decode_head.linear_fuse.conv.weight"
    width = len(state[name])
    groups = torch.arange(4.0).repeat_interleave(width).expand(width, -1)[:, :, None, None]
    found = read(state | {name: groups})
    assert found.state["decoder.fusion.0.weight"][0, ::width, 0, 0].tolist() == [3, 2, 1, 0]


def test_queries_keys_and_values_of_mmsegmentation() -> None:
    state = names_of(MMSEGMENTATION_SEGFORMER, small(MMSEGMENTATION_SEGFORMER))
    name = "backbone.layers.0.1.1.attn.attn.in_proj_bias"
    assert state[name].shape == (96,)
    found = read(state | {name: torch.arange(96.0)})
    assert found.state["backbone.block1.1.attn.q.bias"].tolist() == list(range(32))
    assert found.state["backbone.block1.1.attn.kv.bias"].tolist() == list(range(32, 96))


@pytest.mark.parametrize("foreign", [DAFORMER, HRDA])
@pytest.mark.parametrize(
    ("prefixes", "teacher", "networks"),
    [
        ([""], None, ""),
        (["model."], None, ""),
        (["model.", "ema_model."], 1.0, "student and teacher"),
        (
            ["model.", "ema_model.", "imnet_model."],
            1.0,
            "student and teacher; not read: the copy with ImageNet weights ({count} tensors)",
        ),
        (["model.", "mic.teacher.ema_model."], 1.0, "student and teacher"),
        (
            ["model.", "ema_model.", "mic.teacher.ema_model."],
            1.0,
            "student and teacher; not read: MIC's own teacher ({count} tensors)",
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_networks_of_a_training(
    foreign: ForeignFormat, prefixes: list[str], teacher: float | None, networks: str
) -> None:
    """The student is what its authors publish; the teacher is there for --weights teacher."""
    names = names_of(foreign, small(foreign))
    classifier = foreign.classifier
    state: State = {}
    for place, prefix in enumerate(prefixes):
        values = names | {classifier: torch.full_like(names[classifier], float(place))}
        state |= {prefix + name: tensor for name, tensor in values.items()}
    found = read({"meta": {}, "state_dict": state, "optimizer": {}})
    assert found.format is foreign
    own = "decoder.classifier.weight"
    assert found.state[own].unique().item() == 0
    assert (found.teacher is None) == (teacher is None)
    if found.teacher is not None:
        assert found.teacher[own].unique().item() == teacher
    assert found.networks == networks.format(count=len(names))


@pytest.mark.parametrize(
    ("foreign", "without", "says"),
    [
        (DAFORMER, "decode_head.fuse_layer.bottleneck.", r"DAFormer on MiT-B0"),
        (HRDA, "decode_head.scale_attention.", r"HRDA or MIC \(DAFormer on MiT-B0\)"),
        (SEGFORMER, "decode_head.linear_fuse.", r"SegFormer on MiT-B0"),
        (MMSEGMENTATION_SEGFORMER, "decode_head.convs.1.", r"mmsegmentation SegFormer on MiT-B0"),
    ],
)
def test_a_file_that_almost_fits_says_what_it_is(
    foreign: ForeignFormat, without: str, says: str
) -> None:
    names = names_of(foreign, small(foreign))
    left = {name: tensor for name, tensor in names.items() if not name.startswith(without)}
    with pytest.raises(InputError, match=f"a file looks like {says}, but .* missing"):
        read(left)


def test_an_encoder_alone_is_for_initial_weights() -> None:
    for name in ("mit_b0", "mit_b2"):
        with torch.device("meta"):
            shapes = build(EncoderConfig(name=name, weights="none")).state_dict()
        state = {n: torch.zeros(()).expand(t.shape) for n, t in shapes.items()}
        state |= {"head.weight": torch.zeros(1000, 4), "head.bias": torch.zeros(1000)}
        assert read_foreign(state, origin="a file") is None
        said = describe_unknown(state, "folder/file.pth")
        assert f"the encoder MiT-B{name[-1]} alone" in said
        assert f"--set model.encoder.name={name}" in said
        assert "--set model.encoder.weights=folder/file.pth" in said
