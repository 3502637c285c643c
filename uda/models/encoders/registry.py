"""The encoders by name: families of them in the files of this folder."""

import uda.models.encoders
from uda.models.encoders.base import Encoder, EncoderConfig, EncoderFamily
from uda.utilities.discovery import instances_of
from uda.utilities.errors import InputError, require, shown


def hides_tokens(name: str) -> bool:
    """Whether the encoder of that name has a mask token; False when there is no such encoder."""
    families = instances_of(uda.models.encoders, EncoderFamily)
    return any(family.hides_tokens for family in families if family.includes(name))


def build_encoder(config: EncoderConfig) -> Encoder:
    """The encoder of these settings.

    Raises InputError when there is none of that name, or it cannot be built so.
    """
    require(
        config.output_stride in (None, 8, 16, 32),
        f"{config.option('output_stride')} is {config.output_stride!r}; allowed: 8, 16, 32",
    )
    drop_path = config.drop_path
    require(
        drop_path is None or 0 <= drop_path < 1,
        f"{config.option('drop_path')} is {drop_path}; allowed: 0 up to, not including, 1, or none "
        "for the encoder's own",
    )
    families = instances_of(uda.models.encoders, EncoderFamily)
    for family in families:
        if family.includes(config.name):
            encoder = family.build(config)
            encoder.checkpointing = config.checkpointing
            return encoder
    known = ", or ".join(family.names for family in families)
    raise InputError(f"{config.option('name')} is {shown(config.name)}; allowed: {known}")
