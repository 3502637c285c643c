"""Generators from files: their layers written out, what opens, and what they write."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from shells import Shell
from small_translations import small
from tiny_runs import CPU
from uda.data.registry import list_dataset
from uda.translation.generators import GeneratorConfig, ResnetGenerator
from uda.translation.trained import open_generator
from uda.translation.trainer import train_translation
from uda.utilities.errors import InputError

State = dict[str, Tensor]


def foreign_file(config: GeneratorConfig, *, old: bool = False) -> State:
    """A file of pytorch-CycleGAN-and-pix2pix; `old`: from before mid-2018."""
    torch.manual_seed(0)
    network = config.build()
    state = {n: v + 0.05 * torch.randn_like(v) for n, v in network.state_dict().items()}
    if old:
        for place in (2, 5, 8):
            state |= {f"model.{place}.running_{kind}": torch.rand(16) for kind in ("mean", "var")}
    return state


def written_out(state: State, image: Tensor, *, blocks: int, second: int = 5) -> Tensor:
    """The generator by the facts' list of layers, without a module."""

    def conv(
        values: Tensor, name: str, pad: int, stride: int = 1, *, reflect: bool = True
    ) -> Tensor:
        if reflect:
            values, pad = F.pad(values, (pad,) * 4, mode="reflect"), 0
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.conv2d(values, weight, bias, stride=stride, padding=pad)

    def norm(values: Tensor) -> Tensor:
        mean = values.mean((2, 3), keepdim=True)
        variance = values.var((2, 3), correction=0, keepdim=True)
        return (values - mean) / (variance + 1e-5).sqrt()

    values = norm(conv(image[None] * 2 - 1, "model.1", 3)).relu()
    for place in (4, 7):
        values = norm(conv(values, f"model.{place}", 1, 2, reflect=False)).relu()
    for block in range(10, 10 + blocks):
        inner = norm(conv(values, f"model.{block}.conv_block.1", 1)).relu()
        values = values + norm(conv(inner, f"model.{block}.conv_block.{second}", 1))
    for place in (10 + blocks, 13 + blocks):
        weight, bias = state[f"model.{place}.weight"], state[f"model.{place}.bias"]
        values = F.conv_transpose2d(values, weight, bias, stride=2, padding=1, output_padding=1)
        values = norm(values).relu()
    made = conv(values, f"model.{17 + blocks}", 3).tanh()[0]
    return (made + 1) / 2


@pytest.mark.parametrize(
    ("config", "old"),
    [
        (GeneratorConfig(blocks=9, width=16), False),
        (GeneratorConfig(blocks=6, width=16), True),
        (GeneratorConfig(blocks=6, width=16, dropout=True), False),
    ],
)
def test_files_of_cyclegan_give_the_logits_of_their_layers(
    config: GeneratorConfig, old: bool, tmp_path: Path
) -> None:
    state = foreign_file(config, old=old)
    torch.save(state, tmp_path / "latest_net_G_A.pth")
    translator = open_generator(tmp_path / "latest_net_G_A.pth", CPU)
    image = torch.rand(3, 32, 48)
    second = 6 if config.dropout else 5
    expected = written_out(state, image, blocks=config.blocks, second=second)
    torch.testing.assert_close(translator(image, None), expected, rtol=0, atol=1e-5)
    assert translator.facts()["supervision"] == "not declared"
    assert len(translator.facts()["network_sha256"]) == 64


def test_what_is_no_generator_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latest_net_G_A.pth"
    state = foreign_file(GeneratorConfig(blocks=6, width=16))
    for broken, message in (
        ({"weight": torch.rand(3)}, "holds no residual generator"),
        (state | {"model.99.weight": torch.rand(2)}, "not a generator that can be built"),
        ({n: v for n, v in state.items() if n != "model.16.bias"}, "model.16.bias"),
        (foreign_file(GeneratorConfig(blocks=6, width=16, antialias=True)),
         r"first residual block at model\.12, .* such as CUT's antialiased ones, are not read"),
    ):  # fmt: skip
        torch.save(broken, path)
        with pytest.raises(InputError, match=message):
            open_generator(path, CPU)
    with pytest.raises(InputError, match="does not exist"):
        open_generator(tmp_path / "none.pth", CPU)


def test_a_trained_generator_writes_a_data_set(toy_root: Path, shell: Shell) -> None:
    """From training to a folder that is read as CycleGTA5: the pictures are the network's."""
    file = train_translation(
        small("toy_cyclegan", toy_root), shell.cwd / "run", preset="small", device=CPU
    )
    status, said = shell.ended(
        "uda", "translate", "--restore-from", str(file), "--dataset", "gta5", "--data-root",
        str(toy_root), "--output", "new/CycleGTA5", "--workers", "0",
    )  # fmt: skip
    assert status == 0
    assert "cyclegan" in said
    translated = list_dataset(shell.cwd / "new", "cyclegta5", "train", labeled=True)
    originals = list_dataset(toy_root, "gta5", "train", labeled=True)
    assert [s.stem for s in translated] == [s.stem for s in originals]
    generator = open_generator(file, CPU)
    image = torch.from_numpy(np.array(Image.open(originals[0].image))).permute(2, 0, 1) / 255
    expected = (generator(image, None) * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.abs(np.array(Image.open(translated[0].image)).astype(int) - expected).max() <= 1
    tiled = open_generator(file, CPU, tile=32)
    torch.testing.assert_close(tiled(image, None), generator(image, None), rtol=0, atol=1e-5)
    command = ("uda", "translate", "--restore-from", str(file), "--dataset", "gta5", "--data-root",
               str(toy_root), "--output", "new/CycleGTA5", "--workers", "0", "--tile")  # fmt: skip
    assert "translated with other values of tile" in shell.refused(*command, "32")
    assert "--tile 15: allowed are 16 or more" in shell.refused(*command, "15")
    refused = shell.refused(
        "uda", "translate", "--restore-from", "none.pth", "--dataset", "gta5", "--data-root",
        str(toy_root), "--output", "other/CycleGTA5",
    )  # fmt: skip
    assert "does not exist" in refused


def test_an_image_that_does_not_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(foreign_file(GeneratorConfig(blocks=1, width=16)), tmp_path / "net.pth")

    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ResnetGenerator, "forward", refuse)
    with pytest.raises(InputError, match=r"40x24 pixels does not fit into memory .* --tile 128"):
        open_generator(tmp_path / "net.pth", CPU)(torch.rand(3, 24, 40), None)
    open_generator(tmp_path / "net.pth", CPU, tile=16)(torch.rand(3, 24, 40), None)


def test_tensors_that_no_network_has_are_refused(tmp_path: Path) -> None:
    """Copying a sparse tensor into a network is torch's own error."""
    state = foreign_file(GeneratorConfig(blocks=1, width=16))
    state["model.1.bias"] = state["model.1.bias"].to_sparse()
    torch.save(state, tmp_path / "latest_net_G_A.pth")
    with pytest.raises(InputError, match=r"tensors do not fit .*, e.g. model.1.bias"):
        open_generator(tmp_path / "latest_net_G_A.pth", CPU)
