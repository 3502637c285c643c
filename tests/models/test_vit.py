"""DINOv2's and DINOv3's encoders: the originals' values, files, sizes, gradients, drop path."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes import double_limit, recipe_image, recipe_weight
from uda.models.decoders.linear import LinearConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import IMAGENET, EncoderConfig
from uda.models.encoders.drop_path import DropPath
from uda.models.encoders.registry import build_encoder
from uda.models.encoders.vit import VisionTransformer, vit_in
from uda.models.encoders.vit_blocks import VitSize
from uda.models.encoders.vit_dinov2 import DinoV2
from uda.models.encoders.vit_dinov3 import DinoV3
from uda.models.encoders.vit_names import with_original_names
from uda.optim.teacher import disable_dropout
from uda.utilities.errors import InputError

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
KEPT = 8  # every how many channels of the golden arrays
TINY = VitSize(channels=32, blocks=4, heads=2)
NETWORKS = (
    "dinov2_vits14",
    "dinov3_vits16",
    pytest.param("dinov2_vitb14", marks=pytest.mark.slow),
    pytest.param("dinov3_vitb16", marks=pytest.mark.slow),
)
Kind = type[DinoV2] | type[DinoV3]
both = pytest.mark.parametrize("kind", [DinoV2, DinoV3])


def encoder(name: str, **changes: Any) -> VisionTransformer:  # noqa: ANN401
    built = build_encoder(EncoderConfig(name=name, weights="none", **changes))
    assert isinstance(built, VisionTransformer)
    return built


def original(name: str) -> VisionTransformer:
    """With weights of the recipe, and none drawn before."""
    with torch.device("meta"):
        network = encoder(name)
    if isinstance(network, DinoV3):
        network.rope_embed = DinoV3("tiny", replaced(network.size)).rope_embed
    return by_recipe(network)


def replaced(size: VitSize) -> VitSize:
    """Of the same channels in a head."""
    return VitSize(size.channels // size.heads, blocks=4, heads=1)


def tiny(kind: Kind, **changes: Any) -> VisionTransformer:  # noqa: ANN401
    """With weights of the recipe: with untrained ones, blocks change next to nothing."""
    return by_recipe(kind("tiny", TINY, **changes))


def by_recipe(network: VisionTransformer) -> VisionTransformer:
    constant = "rope_embed.periods"
    own = network.state_dict()
    network.load_state_dict(
        {name: t if name == constant else recipe_weight(name, t) for name, t in own.items()},
        assign=True,
    )
    return network.eval()


def images_of(network: VisionTransformer, rows: int, columns: int) -> Tensor:
    """The recipe's image of that many patches, normalized."""
    image = recipe_image(rows * network.patch, columns * network.patch)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET[:2])
    return (image - mean) / std


@pytest.mark.parametrize("name", NETWORKS)
def test_tokens_are_the_originals(name: str) -> None:
    """Every array: tokens with and without the final normalization, positions, float64."""
    network = original(name)
    golden = np.load(GOLDEN / f"{name}.npz")
    seen: dict[str, tuple[list[Tensor], tuple[Tensor, ...]]] = {}
    for array in sorted(golden.files):  # float64 first, then the same network in float32 again
        kind, _, size = array.rpartition("_")
        double = kind.startswith("double")
        rows, columns = (int(side) // network.patch for side in size.split("x"))
        with torch.no_grad():
            if kind == "position_embedding":
                assert isinstance(network, DinoV2)
                ours = network.positions(rows, columns)[0].T
            else:
                key = f"{double} {size}"
                if key not in seen:
                    network = network.double() if double else network.float()
                    images = images_of(network, rows, columns)
                    images = images.double() if double else images
                    seen[key] = network.hidden(images), network(images)
                hidden, maps = seen[key]
                ours = values(kind, network, hidden, maps, rows * columns)
        expected = golden[array]
        kept = ours[::KEPT].numpy().reshape(expected.shape)
        error = np.abs(kept - expected).max() / np.abs(expected).max()
        limit = double_limit(*map(int, size.split("x"))) if double else 1e-5
        assert error < limit, array


def values(
    kind: str,
    network: VisionTransformer,
    hidden: list[Tensor],
    maps: tuple[Tensor, ...],
    patches: int,
) -> Tensor:
    if kind.endswith("patch_tokens"):
        return maps[-1][0]
    if kind == "class_token":
        return network.norm(hidden[-1])[0, 0].to(network.cls_token.dtype)
    quarter = (int(kind.removeprefix("block")) + 1) * 4 // network.size.blocks - 1
    return hidden[quarter][0, -patches:].T


def test_positions_of_the_learned_grid_are_not_resized() -> None:
    """The original leaves them as they are; its scale factor of (37 + 0.1) / 37 would move them."""
    network = tiny(DinoV2)
    assert isinstance(network, DinoV2)
    assert torch.equal(network.positions(37, 37), network.pos_embed[:, 1:])
    other = network.positions(37, 38)
    assert other.shape == (1, 37 * 38, 32)


def test_registers_change_how_positions_are_resized() -> None:
    plain, registers = tiny(DinoV2), tiny(DinoV2, registers=4)
    assert isinstance(plain, DinoV2)
    assert isinstance(registers, DinoV2)
    assert torch.equal(plain.pos_embed, registers.pos_embed)
    grid = plain.pos_embed[:, 1:].unflatten(1, (37, 37)).permute(0, 3, 1, 2)
    wanted = F.interpolate(grid, size=(5, 7), mode="bicubic", antialias=True)
    found = registers.positions(5, 7)[0].T.reshape(32, 5, 7)
    assert torch.allclose(found, wanted[0], atol=1e-6)
    assert not torch.allclose(plain.positions(5, 7), registers.positions(5, 7), atol=0.01)


def test_registers_have_no_positions_and_are_no_patches() -> None:
    network = tiny(DinoV2, registers=4)
    tokens, rotation = network.embed(images_of(network, 2, 3))
    assert tokens.shape == (1, 1 + 4 + 6, 32)
    assert rotation is None
    assert torch.equal(tokens[:, 1:5], network.state_dict()["register_tokens"])
    assert [tuple(m.shape) for m in network(images_of(network, 2, 3))] == [(1, 32, 2, 3)] * 4


@both
def test_all_four_maps_are_normalized(kind: Kind) -> None:
    network = tiny(kind)
    images = images_of(network, 2, 3)
    maps = network(images)
    assert network.channels == (32,) * 4
    assert network.strides == (network.patch,) * 4
    for tokens, found in zip(network.hidden(images), maps, strict=True):
        wanted = F.layer_norm(
            tokens[:, -6:], (32,), network.norm.weight, network.norm.bias, network.norm_eps
        )
        assert torch.allclose(found.flatten(2).transpose(1, 2), wanted, atol=1e-6)
    with pytest.raises(ValueError, match=r"multiples of 1[46]"):
        network(torch.zeros(1, 3, network.patch, network.patch + 1))


@both
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_every_parameter(kind: Kind, checkpointing: bool) -> None:
    network = tiny(kind).train()
    network.checkpointing = checkpointing
    torch.stack(network(images_of(network, 2, 3))).square().mean().backward()
    assert network.mask_token.grad is None  # nothing was hidden
    torch.stack(network.hiding(images_of(network, 2, 3), first)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())
    if kind is DinoV3:  # the bias of keys is none
        bias = network.get_parameter("blocks.1.attn.qkv.bias")
        assert bias.grad is not None
        assert bias.grad[32:64].abs().max() == 0


@both
def test_the_backward_pass_computes_the_same_again(kind: Kind) -> None:
    gradients = []
    for checkpointing in (False, True):
        network = tiny(kind, drop_path=0.5).train()
        network.checkpointing = checkpointing
        torch.manual_seed(1)
        torch.stack(network(images_of(network, 2, 3))).square().mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    for once, again in zip(*gradients, strict=True):
        if once is None:  # the mask token's
            assert again is None
            continue
        assert again is not None
        assert torch.equal(once, again)


@both
def test_a_step_leaves_out_branches_and_nothing_else_does(kind: Kind) -> None:
    network = tiny(kind, drop_path=0.6)
    rates = [m.rate for m in network.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0, 0.2, 0.4, 0.6])
    images = images_of(network, 2, 3).expand(4, -1, -1, -1)
    evaluated = network(images)[-1]
    assert torch.equal(evaluated, network(images)[-1])
    assert torch.allclose(evaluated, tiny(kind)(images)[-1], atol=1e-6)
    network.train()
    dropped = network(images)[-1]
    assert not torch.allclose(dropped[0], dropped[1])  # each image on its own
    disable_dropout(network)
    assert torch.equal(evaluated, network(images)[-1])


def test_what_is_kept_makes_up_for_what_is_dropped() -> None:
    layer = DropPath(0.6).train()
    torch.manual_seed(0)
    kept = layer(torch.ones(2000, 1, 2))[:, 0]
    assert sorted(kept.unique().tolist()) == [0, pytest.approx(2.5)]
    assert torch.equal(kept[:, 0], kept[:, 1])
    assert kept.mean() == pytest.approx(1, abs=0.1)


@both
def test_half_precision_and_channels_last(kind: Kind) -> None:
    network = tiny(kind)
    images = images_of(network, 3, 4)
    exact = network(images)[-1]
    assert exact.is_contiguous(memory_format=torch.channels_last)
    last = network(images.to(memory_format=torch.channels_last))[-1]
    assert torch.allclose(last, exact, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(images)[-1]
    assert (half.float() - exact).abs().max() < 0.05 * exact.abs().max()


def first(rows: int, columns: int) -> Tensor:
    """Hides the first token of a grid."""
    hidden = torch.zeros(1, rows, columns, dtype=torch.bool)
    hidden[:, 0, 0] = True
    return hidden


@both
def test_the_mask_token_stands_for_what_is_hidden_and_for_nothing_else(kind: Kind) -> None:
    network = tiny(kind, **({"registers": 4} if kind is DinoV2 else {}))
    images = images_of(network, 2, 3)
    plain, hidden = network.embed(images)[0], network.embed(images, first)[0]
    changed = (plain != hidden).any(2)[0].nonzero().flatten().tolist()
    assert changed == [1 + 4]  # neither the class token nor registers
    position = network.positions(2, 3)[0, 0] if isinstance(network, DinoV2) else 0
    assert torch.equal(hidden[0, 5], network.mask_token[0] + position)
    none = lambda rows, columns: torch.zeros(1, rows, columns, dtype=torch.bool)  # noqa: E731
    for maps, same in zip(network(images), network.hiding(images, none), strict=True):
        assert torch.equal(maps, same)
    assert not torch.allclose(network(images)[-1], network.hiding(images, first)[-1], atol=1e-3)
    # What is under a hidden token reaches nothing.
    other = images.clone()
    other[..., : network.patch, : network.patch] = 1.5
    assert torch.equal(network.hiding(other, first)[-1], network.hiding(images, first)[-1])
    with pytest.raises(ValueError, match=r"gave \(1, 3, 3\) torch.bool; needed: \(1, 2, 3\) bool"):
        network.hiding(images, lambda rows, columns: first(3, 3))


def test_networks_hide_tokens_or_refuse() -> None:
    vit = EncoderConfig(name="dinov2_vits14", weights="none", width=4)
    images = torch.rand(1, 3, 28, 42)
    network = EncoderDecoderConfig(encoder=vit, decoder=LinearConfig(), dropout=0.0)
    assert network.hides_tokens
    built = network.build(3)
    nn.init.ones_(built.get_parameter("backbone.mask_token"))
    assert not torch.equal(built(images).logits, built(images, hide_tokens=first).logits)
    network.encoder = EncoderConfig(name="resnet18", weights="none", width=8)
    assert not network.hides_tokens
    with pytest.raises(InputError, match=r"has no mask token, .* model.encoder.name=dinov2_vitb14"):
        network.build(3)(images, hide_tokens=first)


@both
def test_weights_without_a_mask_token_still_load(kind: Kind, tmp_path: Path) -> None:
    network = kind("tiny", TINY)
    assert network.mask_token.abs().max() == 0
    older = {name: t for name, t in tiny(kind).state_dict().items() if name != "mask_token"}
    network.load_state_dict(older)
    assert torch.equal(network.cls_token, older["cls_token"])
    nn.init.ones_(network.mask_token)
    network.load(saved(older, tmp_path))
    assert network.mask_token.min() == 1
    nested = nn.ModuleDict({"backbone": network})
    nested.load_state_dict({f"backbone.{name}": tensor for name, tensor in older.items()})


@both
def test_the_width_is_that_of_a_head(kind: Kind) -> None:
    network = encoder("dinov2_vits14" if kind is DinoV2 else "dinov3_vits16", width=8)
    assert isinstance(network, kind)
    assert network.size == VitSize(channels=48, blocks=12, heads=6)
    assert network(images_of(network, 2, 3))[0].shape == (1, 48, 2, 3)


@both
def test_layers_are_every_parameter_once(kind: Kind) -> None:
    network = tiny(kind)
    names = {id(p): name for name, p in network.named_parameters()}
    layers = [[names[id(p)] for p in layer] for layer in network.layers()]
    assert len(layers) == 1 + 4
    assert sorted(name for layer in layers for name in layer) == sorted(names.values())
    assert {"cls_token", "patch_embed.proj.weight"} <= set(layers[0])
    assert all(name.startswith("blocks.1.") for name in layers[2])
    assert layers[4][-2:] == ["norm.weight", "norm.bias"]


def published(network: VisionTransformer) -> dict[str, Tensor]:
    """The entries of the file of its authors."""
    state = {n: recipe_weight(n, t) for n, t in network.state_dict().items()}
    width = network.size.channels
    if isinstance(network, DinoV3):
        # As they are in the files: rounded to bfloat16.
        state["rope_embed.periods"] = network.rope_embed.periods.bfloat16()
        mask = torch.cat((torch.ones(width), torch.zeros(width), torch.ones(width)))
        for number in range(network.size.blocks):
            state[f"blocks.{number}.attn.qkv.bias_mask"] = mask
    return state


def saved(content: Mapping[str, object], folder: Path) -> EncoderConfig:
    torch.save(content, folder / "file.pth")
    return EncoderConfig(name="tiny", weights=str(folder / "file.pth"))


@both
@pytest.mark.parametrize("prefix", ["", "module.backbone."])
def test_files_of_the_authors_fill_the_network(kind: Kind, prefix: str, tmp_path: Path) -> None:
    state = published(kind("tiny", TINY))
    content = {"model": {prefix + name: value for name, value in state.items()}, "epoch": 3}
    network = kind("tiny", TINY).eval()
    network.load(saved(content if prefix else state, tmp_path))
    assert network.provenance.startswith("file file.pth sha256:")
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name].float()), name


def test_a_path_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(InputError, match="not a file; allowed: none, or the path of a DINOv2"):
        DinoV2("tiny", TINY).load(EncoderConfig(weights="nowhere"))


def test_a_mask_of_another_network_is_refused(tmp_path: Path) -> None:
    """The bias of keys would count in that network, and does not in this one."""
    state = published(DinoV3("tiny", TINY))
    state["blocks.2.attn.qkv.bias_mask"] = torch.ones(96)
    with pytest.raises(
        InputError, match=r"tiny: .* 1 \(blocks.2.attn.qkv.bias_mask\b.* unexpected"
    ):
        DinoV3("tiny", TINY).load(saved(state, tmp_path))


def shapes_of(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        return published(encoder(name))


@pytest.mark.parametrize(
    "name", ["dinov2_vits14", "dinov2_vitl14", "dinov2_vitb14_reg", "dinov3_vits16"]
)
def test_a_file_says_which_network_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_vit.recipe_weight", lambda name, like: like)
    state = shapes_of(name)
    assert vit_in(state) == name
    assert vit_in({"pos_embed": 3, **tiny(DinoV2).state_dict()}) is None
    with pytest.raises(InputError, match=f"holds the weights of {name}, .*encoder.name={name}"):
        tiny(DinoV2).entries(state)


@pytest.mark.parametrize(
    ("model", "ours", "side"),
    [
        ("Dinov2", DinoV2("tiny", TINY), 518),  # the one size that is not resized
        ("Dinov2WithRegisters", DinoV2("tiny", TINY, registers=4), 518),
        ("DINOv3ViT", DinoV3("tiny", TINY), 64),
    ],
)
def test_files_of_transformers_fill_the_network(
    model: str, ours: VisionTransformer, side: int, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    settings = getattr(transformers, f"{model}Config")(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=128,
        num_register_tokens=4,
        image_size=518,
        patch_size=ours.patch,
    )
    torch.manual_seed(0)
    theirs = getattr(transformers, f"{model}Model")(settings).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    ours.load(saved(theirs.state_dict(), tmp_path))
    images = images_of(ours, side // ours.patch, side // ours.patch)
    with torch.no_grad():
        wanted = theirs(pixel_values=images).last_hidden_state
        found = ours.eval().norm(ours.hidden(images)[-1])
    assert torch.allclose(found, wanted, atol=1e-4)


def test_older_names_of_transformers_are_known() -> None:
    """As in the files of its version 4."""
    state = tiny(DinoV2).state_dict()
    block = "blocks.3.attn."
    query, key, value = state[f"{block}qkv.weight"].chunk(3)
    place = "encoder.layer.3.attention."
    old = {
        "embeddings.cls_token": state["cls_token"],
        f"{place}attention.query.weight": query,
        f"{place}attention.key.weight": key,
        f"{place}attention.value.weight": value,
        f"{place}output.dense.bias": state[f"{block}proj.bias"],
    }
    renamed = with_original_names(old)
    assert renamed.keys() == {"cls_token", f"{block}qkv.weight", f"{block}proj.bias"}
    assert all(torch.equal(state[name], tensor) for name, tensor in renamed.items())  # type: ignore[arg-type]
    assert with_original_names(state) == state


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weights": "imagenet"}, "not trained on .*, such as dinov2_vits14_reg4_pretrain.pth"),
        ({"output_stride": 16}, "dinov2_vits14_reg has no such setting"),
        ({"patch_norm_eps": 1e-5}, "patch_norm_eps"),
        ({"width": 6}, "width is 6; allowed with dinov2_vits14_reg: multiples of 4"),
        ({"name": "dinov2_vitg14"}, "allowed: .*dinov2_vits14, .*dinov3_vitl16"),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict[str, Any], says: str) -> None:
    config = replace(EncoderConfig(name="dinov2_vits14_reg", weights="none"), **changes)
    with pytest.raises(InputError, match=says):
        build_encoder(config)


def test_images_that_patches_do_not_divide_are_padded_and_cut() -> None:
    torch.manual_seed(0)
    network = EncoderDecoderConfig(
        encoder=EncoderConfig(name="dinov3_vits16", weights="none"), decoder=LinearConfig()
    ).build(3)
    assert network.divisor == 16
    image = recipe_image(40, 50)
    with torch.no_grad():
        logits = network.eval()(image).logits
        padding = torch.tensor(IMAGENET.mean).view(1, 3, 1, 1).expand(1, 3, 48, 64).clone()
        padding[..., :40, :50] = image
        whole = network(padding).logits
    assert logits.shape == (1, 3, 40, 50)
    assert torch.allclose(logits, whole[..., :40, :50], atol=1e-5)


def assigned(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert unexpected == ["mask_token"]
    assert set(missing) <= {"head.weight", "head.bias"}


def test_dinov2_is_timms_on_the_same_weights() -> None:
    """timm resizes positions to the size of the grid, with antialiasing, as files with registers
    want it; the network without registers was trained with other positions."""
    timm = pytest.importorskip("timm")
    ours = tiny(DinoV2)
    assert isinstance(ours, DinoV2)
    theirs = timm.create_model(
        "vit_small_patch14_dinov2",
        pretrained=False,
        img_size=(70, 98),
        embed_dim=32,
        depth=4,
        num_heads=2,
        num_classes=0,
    ).eval()
    state = ours.state_dict()
    first = state["pos_embed"][:, :1]
    state["pos_embed"] = torch.cat((first, ours.positions(5, 7)), dim=1)
    assigned(theirs, state)
    images = images_of(ours, 5, 7)
    with torch.no_grad():
        maps = theirs.forward_intermediates(images, indices=4, norm=True, intermediates_only=True)
        for wanted, found in zip(maps, ours(images), strict=True):
            assert torch.allclose(wanted, found, atol=1e-5)
        own = timm.layers.resample_abs_pos_embed(
            ours.pos_embed, new_size=[5, 7], old_size=[37, 37], num_prefix_tokens=1
        )
        assert (own - state["pos_embed"]).abs().max() > 0.01
        with_registers = tiny(DinoV2, registers=4)
        assert isinstance(with_registers, DinoV2)
        assert torch.allclose(own[:, 1:], with_registers.positions(5, 7), atol=1e-5)


def test_dinov3_is_timms_on_the_same_weights() -> None:
    timm = pytest.importorskip("timm")
    ours = tiny(DinoV3)
    theirs = timm.create_model(
        "vit_small_patch16_dinov3_qkvb",
        pretrained=False,
        embed_dim=32,
        depth=4,
        num_heads=2,
        num_classes=0,
    ).eval()
    state = {n: t for n, t in ours.state_dict().items() if not n.startswith("rope_embed")}
    names = {"storage_tokens": "reg_token", "ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2"}
    for old, new in names.items():
        state = {name.replace(old, new): tensor for name, tensor in state.items()}
    for number in range(4):
        query, _, value = state.pop(f"blocks.{number}.attn.qkv.bias").chunk(3)
        state |= {f"blocks.{number}.attn.q_bias": query, f"blocks.{number}.attn.v_bias": value}
    assigned(theirs, state)
    images = images_of(ours, 3, 5)
    with torch.no_grad():
        maps = theirs.forward_intermediates(images, indices=4, norm=True, intermediates_only=True)
        for wanted, found in zip(maps, ours(images), strict=True):
            assert torch.allclose(wanted, found, atol=1e-5)
