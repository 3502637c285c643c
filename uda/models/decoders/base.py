"""The contract between a decoder and everything else."""

from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from torch import nn

import uda.models.decoders
from uda.models.encoders.base import FeatureShapes
from uda.utilities.discovery import classes_of
from uda.utilities.errors import InputError, require
from uda.utilities.slots import rebind_super

HeadNorm = Literal["batch", "group"]


@dataclass(kw_only=True, slots=True)
class DecoderConfig:
    """Settings of a decoder. A subclass in a file of this folder adds the decoder's fields and
    `build`; the file's name is the decoder's: --set model.decoder.name=NAME. An auxiliary head is a
    decoder of one map: --set model.auxiliary.name=NAME.
    """

    def __init_subclass__(cls) -> None:
        rebind_super(cls)

    def check(self, maps: FeatureShapes) -> None:
        """Raises InputError when the decoder cannot read such feature maps; most read any."""

    def build(self, maps: FeatureShapes, *, num_classes: int, dropout: float) -> nn.Module:
        """A module from feature maps, a tuple of one (N, D, h, w) tensor for each of
        `maps.channels`, finest first, to logits (N, num_classes, h, w) of any size.

        It is randomly initialized from torch's generator. `dropout` is the share of channels or
        values that a training step drops.
        """
        raise NotImplementedError


@cache
def decoder_configs() -> dict[str, type[DecoderConfig]]:
    """The settings of each decoder by the name of its file, such as "linear"."""
    return classes_of(uda.models.decoders, DecoderConfig)


def decoder_name(config: DecoderConfig) -> str:
    """What the decoder is called in overrides; the name of a user's class for a user's decoder."""
    names = {cls: name for name, cls in decoder_configs().items()}
    return names.get(type(config), type(config).__name__.removesuffix("Config"))


def fitting_decoders(maps: FeatureShapes) -> list[str]:
    """The names of the decoders that, with default settings, can read such feature maps."""

    def fits(config: DecoderConfig) -> bool:
        try:
            config.check(maps)
        except InputError:
            return False
        return True

    return [name for name, cls in decoder_configs().items() if fits(cls())]


def check_norm(norm: str) -> None:
    """Raises InputError when a decoder's field `norm` is none of HeadNorm."""
    allowed = get_args(HeadNorm)
    require(norm in allowed, f"model.decoder.norm is {norm!r}; allowed: {', '.join(allowed)}")


def check_channels(**channels: int) -> None:
    """Raises InputError when one of these fields of a decoder is below 2: one channel, normalized
    over itself, is constant."""
    for name, value in channels.items():
        require(value >= 2, f"model.decoder.{name} is {value}; allowed: 2 or more")


def check_rates(rates: tuple[int, ...]) -> None:
    """Raises InputError when a decoder's field `rates` has a dilation below 1."""
    require(
        all(rate >= 1 for rate in rates),
        f"model.decoder.rates is {rates}; allowed: dilations of 1 or more, or nothing for the "
        "defaults",
    )
