"""The encoders by name: families of them in the files of this folder."""

import uda.models.encoders
from uda.models.encoders.base import Encoder, EncoderFamily
from uda.utilities.discovery import instances_of
from uda.utilities.errors import InputError, require, shown


def encoder_named(name: str, *, width: int, output_stride: int, weights: str) -> Encoder:
    """The encoder that `model.backbone` names; see `BuildEncoder`.

    Raises InputError when there is none of that name, or it cannot be built so.
    """
    require(
        output_stride in (8, 16, 32),
        f"model.output_stride is {output_stride!r}; allowed: 8, 16, 32",
    )
    families = instances_of(uda.models.encoders, EncoderFamily)
    for family in families:
        if family.includes(name):
            return family.build(name, width=width, output_stride=output_stride, weights=weights)
    known = ", or ".join(family.names for family in families)
    raise InputError(f"model.backbone is {shown(name)}; allowed: {known}")
