"""Mix Transformers: the original's maps for reproducible weights, and every part by itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recipes import double_limit, recipe_image, recipe_weight
from uda.models.encoders.base import IMAGENET, EncoderConfig
from uda.models.encoders.drop_path import DropPath
from uda.models.encoders.mit import SIZES, MixTransformer, build
from uda.optim.teacher import disable_dropout
from uda.utilities.errors import InputError

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
TINY = EncoderConfig(name="mit_b0", weights="none", drop_path=0.0)
IMAGES = torch.rand(2, 3, 64, 96)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def distinct(encoder: nn.Module) -> dict[str, Tensor]:
    """Weights of which none is like another, so that exchanged ones are noticed."""
    return {name: recipe_weight(name, tensor) for name, tensor in encoder.state_dict().items()}


@pytest.mark.slow
def test_maps_of_b5_are_the_originals() -> None:
    """The float64 maps tell the two epsilons apart, which those in float32 do not."""
    encoder = build(replace(TINY, name="mit_b5")).eval()
    encoder.load_state_dict(distinct(encoder))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET.mean, IMAGENET.std))
    image = (recipe_image(64, 96) - mean) / std
    golden = np.load(GOLDEN / "mit_b5_imagenet.npz")
    with torch.no_grad():
        maps = encoder(image)
        doubles = encoder.double()(image.double())
    for name in golden.files:
        stage = int(name.partition("stage")[2][0])
        ours = (doubles if "double" in name else maps)[stage - 1]
        step = 4 if stage == 1 else 2 if stage == 2 else 1
        difference = np.abs(ours[0, ::2, ::step, ::step].numpy() - golden[name]).max()
        limit = double_limit(64, 96) if "double" in name else 1e-5
        assert difference / np.abs(golden[name]).max() < limit, name
    assert len(golden.files) == 6


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("mit_b0", 3.32),
        ("mit_b1", 13.15),
        ("mit_b2", 24.20),
        ("mit_b3", 44.07),
        ("mit_b4", 60.84),
        ("mit_b5", 81.44),
    ],
)
def test_parameters(name: str, millions: float) -> None:
    with torch.device("meta"):
        encoder = build(replace(TINY, name=name))
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
    groups = encoder.layers()
    assert len(groups) == 1 + sum(SIZES[name].depths)
    grouped = [id(p) for group in groups for p in group]
    assert sorted(grouped) == sorted(id(p) for p in encoder.parameters())
    names = {id(p): n for n, p in encoder.named_parameters()}
    first, last = ([names[id(p)] for p in group] for group in (groups[0], groups[-1]))
    assert {n.split(".")[0] for n in first} == {"patch_embed1"}
    assert {"block4", "norm4"} == {n.split(".")[0] for n in last}


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        ((64, 96), [(16, 24), (8, 12), (4, 6), (2, 3)]),
        ((65, 97), [(17, 25), (9, 13), (5, 7), (3, 4)]),  # keys drop the rest of a cell
        ((29, 30), [(8, 8), (4, 4), (2, 2), (1, 1)]),
    ],
)
def test_sizes_of_maps(size: tuple[int, int], sizes: list[tuple[int, int]]) -> None:
    encoder = build(TINY)
    maps = encoder(torch.rand(2, 3, *size))
    expected = [(2, c, *s) for c, s in zip((32, 64, 160, 256), sizes, strict=True)]
    assert [m.shape for m in maps] == expected
    assert encoder.shapes == ((32, 64, 160, 256), (4, 8, 16, 32))


def test_smaller_images_are_refused() -> None:
    with pytest.raises(InputError, match=r"MiT-B0 was given 28x64 pixels; allowed: .* 29"):
        build(TINY)(torch.rand(1, 3, 28, 64))


def test_epsilons() -> None:
    def epsilons(encoder: MixTransformer) -> dict[bool, set[float]]:
        """By whether the norm is in a patch embedding or in the reduced attention."""
        found: dict[bool, set[float]] = {False: set(), True: set()}
        for name, module in encoder.named_modules():
            if isinstance(module, nn.LayerNorm):
                found["patch_embed" in name or "attn" in name].add(module.eps)
        return found

    assert epsilons(build(TINY)) == {False: {1e-6}, True: {1e-5}}
    assert epsilons(build(replace(TINY, patch_norm_eps=1e-6))) == {False: {1e-6}, True: {1e-6}}


def test_initialization() -> None:
    encoder = build(replace(TINY, name="mit_b1"))
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias"):
            assert parameter.eq(0).all(), name
        elif "norm" in name:
            assert parameter.eq(1).all(), name
        elif parameter.ndim == 2:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name
    of = encoder.get_parameter
    assert of("patch_embed1.proj.weight").std().item() == pytest.approx(
        (2 / (49 * 64)) ** 0.5, rel=0.05
    )
    depthwise = of("block1.0.mlp.dwconv.dwconv.weight")  # fan_out of one channel
    assert depthwise.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)


def test_drop_path_grows_linearly_over_all_blocks() -> None:
    def rates(config: EncoderConfig) -> list[float]:
        with torch.device("meta"):
            return [m.rate for m in build(config).modules() if isinstance(m, DropPath)]

    found = rates(replace(TINY, name="mit_b5", drop_path=None))
    assert len(found) == 52
    assert [found[i] for i in (0, 1, 9, 51)] == pytest.approx(
        [0, 0.00196078, 0.0176471, 0.1], rel=1e-5
    )
    assert rates(replace(TINY, drop_path=0.7)) == pytest.approx([0.1 * i for i in range(8)])
    assert rates(TINY) == [0] * 8


def test_drop_path_draws_once_for_each_sample() -> None:
    drop = DropPath(0.25)
    dropped = drop(torch.ones(1000, 3, 5))
    each = dropped[:, 0, 0]
    torch.testing.assert_close(dropped, each[:, None, None].expand(-1, 3, 5))
    assert each.unique().tolist() == pytest.approx([0, 4 / 3])
    assert each.mean().item() == pytest.approx(1, abs=0.05)
    assert drop.eval()(dropped) is dropped
    assert DropPath(0.0)(dropped) is dropped


def test_drop_path_of_an_encoder() -> None:
    """Each of a block's two branches has its own draw; the teacher and evaluation have none."""
    encoder = build(replace(TINY, drop_path=0.9))
    seen: list[Tensor] = []
    last = [m for m in encoder.modules() if isinstance(m, DropPath)][-1]
    last.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    images = torch.rand(24, 3, 32, 32)
    with torch.no_grad():
        encoder(images)
        attention, perceptron = ((branch != 0).flatten(1).any(1) for branch in seen)
        assert 0 < attention.sum() < 24
        assert 0 < perceptron.sum() < 24
        assert not torch.equal(attention, perceptron)
        disable_dropout(encoder)
        teacher = encoder(images)
        torch.testing.assert_close(teacher, encoder.eval()(images))


def test_gradients_reach_every_parameter() -> None:
    encoder = build(TINY)
    sum(m.square().mean() for m in encoder(IMAGES)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_checkpointing_changes_no_bit() -> None:
    """Drop path included: a stage that is computed again draws the same branches."""
    encoder = build(replace(TINY, drop_path=0.5))

    def gradients() -> list[Tensor]:
        encoder.zero_grad()
        torch.manual_seed(1)
        sum(m.square().mean() for m in encoder(IMAGES)).backward()
        return [p.grad.clone() for p in encoder.parameters() if p.grad is not None]

    plain = gradients()
    encoder.checkpointing = True
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients(), strict=True))


def test_bfloat16_and_channels_last() -> None:
    encoder = build(TINY)
    encoder.load_state_dict(distinct(encoder))
    expected = encoder(IMAGES)
    turned = IMAGES.contiguous(memory_format=torch.channels_last)
    encoder.to(memory_format=torch.channels_last)
    torch.testing.assert_close(encoder(turned), expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        maps = encoder(turned)
    sum(m.float().square().mean() for m in maps).backward()
    for ours, exact in zip(maps, expected, strict=True):
        assert (ours - exact).abs().max() < 0.1 * exact.abs().max()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"width": 32}, r"model.encoder.width is 32, but mit_b0 has no such setting"),
        ({"output_stride": 16}, r"output_stride is 16, .* 4, 8, 16, 32: use --set .*=none"),
        ({"patch_norm_eps": 0.0}, r"patch_norm_eps is 0.0; allowed: above 0"),
        ({"weights": "nowhere.pth"}, r"model.encoder.weights is 'nowhere.pth', .* not a file"),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        build(replace(TINY, **changes))  # type: ignore[arg-type]
