"""DINOv2's and DINOv3's backbones, as initial weights."""

from uda.checkpoints.formats.base import BackboneFile, Entries
from uda.models.encoders.vit import VisionTransformer, vit_in
from uda.utilities.weight_files import unwrapped


def _use(entries: Entries) -> str | None:
    name = vit_in(unwrapped(entries, VisionTransformer.prefixes))
    return name and (
        f"the encoder {name} alone, which can be used as initial weights: "
        f"--set model.encoder.name={name} --set model.encoder.weights={{file}}"
    )


VISION_TRANSFORMERS = BackboneFile(use=_use)
