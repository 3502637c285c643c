"""Generators from files: ours, and those of pytorch-CycleGAN-and-pix2pix (latest_net_G_A.pth)."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from uda.checkpoints.stored import load_weights
from uda.translation.generator_files import generator_from, is_generator_file
from uda.translation.generators import GeneratorConfig, ResnetGenerator
from uda.translation.strips import check_strip, translated_in_strips
from uda.translation.translators import Partners
from uda.utilities.errors import InputError, require
from uda.utilities.host_memory import saying_what_to_lower
from uda.utilities.weight_files import is_array, read_weights, sha256, unwrapped

_EXPECTED = (
    "a generator: translation_STEP.pth of uda train-translation, or latest_net_G_A.pth of "
    "pytorch-CycleGAN-and-pix2pix"
)
_FIRST = "model.1.weight"
_FIRST_BLOCK = 10  # its place in `model`
# Instance norm had these, unused, in files from before mid-2018.
_UNUSED = ("running_mean", "running_var", "num_batches_tracked")
_SECOND = re.compile(r"model\.(\d+)\.conv_block\.(5|6)\.weight")  # convolution of a block


class GeneratorTranslator:
    """A trained generator; see `Translator`."""

    partners: Partners | None = None

    def __init__(self, network: ResnetGenerator, *, method: str, facts: Mapping[str, str],
                 width: int | None, tile: int | None) -> None:  # fmt: skip
        self.method = method
        self.width = width  # of the images that it was trained on, where that is known
        self.tile = tile
        self._network = network
        self._facts = dict(facts)

    def __call__(self, image: Tensor, partner: Tensor | None) -> Tensor:
        """Raises InputError when the image, as a whole, does not fit into memory."""
        if self.tile is not None and image.shape[1] > self.tile:
            return translated_in_strips(self._network, image[None], self.tile)[0].clamp(0, 1)
        advice = (
            f"an image of {image.shape[2]}x{image.shape[1]} pixels does not fit into memory as a "
            "whole: add --tile 128, or a smaller --width"
        )
        with saying_what_to_lower(lambda: advice), torch.no_grad():
            made: Tensor = self._network(image[None])[0]
        return made.clamp(0, 1)

    def facts(self) -> dict[str, str]:
        return self._facts | ({} if self.tile is None else {"tile": str(self.tile)})


def open_generator(
    path: Path, device: torch.device, *, tile: int | None = None
) -> GeneratorTranslator:
    """The generator in a file, on the device. No code of the file is run.

    tile: images of more rows are computed so many rows at a time; see `strips.py`

    Raises InputError when it is missing, damaged, or no generator.
    """
    if tile is not None:
        check_strip("--tile", tile)
    content = read_weights(path, expected=_EXPECTED, instead=f"give {_EXPECTED}")
    known = {"network_sha256": sha256(path)}
    if is_generator_file(content):
        assert isinstance(content, dict)
        file = generator_from(content, path)
        width = file.translation["data"]["source"]["size"][1]
        known |= {"preset": file.preset, "step": str(file.step), "supervision": file.supervision}
        network = file.build().to(device)
        method = file.translation["method"].get("type", "CycleGanConfig").removesuffix("Config")
        return GeneratorTranslator(
            network, method=method.lower(), facts=known, width=width, tile=tile
        )
    network = foreign_generator(unwrapped(content), path).to(device)
    known["supervision"] = "not declared"
    return GeneratorTranslator(network, method="cyclegan", facts=known, width=None, tile=tile)


def foreign_generator(entries: Mapping[str, object], path: Path) -> ResnetGenerator:
    """The residual generator whose parameters these are, to translate with.

    Its depth, width and dropout are told by names and shapes. Raises InputError when the names are
    not those of such a generator, with some that are not.
    """
    state = {name: value for name, value in entries.items() if not name.endswith(_UNUSED)}
    first = state.get(_FIRST)
    found = [match for name in state if (match := _SECOND.fullmatch(name))]
    require(
        is_array(first, 4) and first.shape[1:] == (3, 7, 7) and bool(found),
        f"{path} holds no residual generator of CycleGAN (it has no {_FIRST} of 7x7 and no "
        f"conv_block): give {_EXPECTED}",
    )
    assert isinstance(first, Tensor)
    places = {int(match[1]) for match in found}
    require(
        min(places) == _FIRST_BLOCK,
        f"{path} has its first residual block at model.{min(places)}, where CycleGAN's generators "
        f"have it at model.{_FIRST_BLOCK}: files of other layers, such as CUT's antialiased ones, "
        "are not read; train such a one with uda train-translation --preset cut_gta5_cityscapes",
    )
    dropout = {match[2] for match in found}
    require(len(dropout) == 1, f"{path} mixes blocks with and without dropout: use another copy")
    config = GeneratorConfig(blocks=len(found), width=len(first), dropout=dropout == {"6"})
    try:
        config.check("its generator")
        with torch.device("meta"):  # a file may ask for a network that no memory holds
            wanted = sum(value.numel() for value in config.build().state_dict().values())
        held = sum(value.numel() for value in state.values() if isinstance(value, Tensor))
        require(wanted <= 2 * held, f"it needs {wanted} numbers, and {held} are there")
        network = config.build()
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        load_weights(network, tensors, origin=str(path))
    except InputError as error:
        raise InputError(f"{path} is not a generator that can be built: {error}") from None
    return network.eval().requires_grad_(False)
