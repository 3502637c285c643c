"""HRDA: one network on the downscaled image and on full-resolution details, fused by an attention
for each class.

Source: Hoyer et al., "HRDA", ECCV 2022, arXiv 2204.13132, section 3.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.models.decoders.base import DecoderConfig, decoder_name
from uda.models.decoders.daformer import DAFormerConfig
from uda.models.decoders.heads import resized
from uda.models.encoders.base import Encoder, FeatureMaps, FeatureShapes
from uda.models.segmenter import SegmentationOutput
from uda.utilities.errors import InputError, require

_CONTEXT = 2  # the image is downscaled by this for the context


def _attention() -> DAFormerConfig:
    return DAFormerConfig(fusion="conv1")


@dataclass(kw_only=True, slots=True)
class HrdaConfig:
    """Settings of `Hrda`: --set model.hrda=default."""

    crop: int = 512  # side of a detail in pixels of the image; half of the training crop's
    attention: DecoderConfig = field(default_factory=_attention)  # from the context's maps

    def build(
        self, decoder: DecoderConfig, encoder: Encoder, *, num_classes: int, dropout: float
    ) -> "Hrda":
        """For the logits of such a decoder on the encoder's maps.

        Raises InputError when the decoder's stride is not whole, details cannot have the size, or
        the attention's decoder cannot read the maps.
        """
        stride = _stride_of(decoder, encoder.shapes, num_classes)
        unit = _CONTEXT * math.lcm(stride, encoder.divisor)
        require(
            self.crop >= unit and self.crop % unit == 0,
            f"model.hrda.crop is {self.crop}; allowed with {encoder.title} and this decoder, whose "
            f"logits have stride {stride}: multiples of {unit}",
        )
        try:
            self.attention.check(encoder.shapes)
        except InputError as error:
            name = f"model.hrda.attention.name={decoder_name(self.attention)}"
            said = str(error).replace("model.decoder", "model.hrda.attention")
            raise InputError(f"{name} cannot read the maps of {encoder.title}: {said}") from None
        attention = self.attention.build(encoder.shapes, num_classes=num_classes, dropout=dropout)
        return Hrda(attention, crop=self.crop, stride=stride, unit=unit)


def _stride_of(decoder: DecoderConfig, maps: FeatureShapes, num_classes: int) -> int:
    """Pixels of the image on a side of a pixel of the decoder's logits."""
    side = 4 * math.lcm(*maps.strides)
    with torch.device("meta"):  # sizes alone
        head = decoder.build(maps, num_classes=num_classes, dropout=0.0).eval()
        images = tuple(
            torch.empty(1, channels, side // stride, side // stride)
            for channels, stride in zip(*maps, strict=True)
        )
    rows = head(images).shape[2]
    require(
        rows and side % rows == 0,
        f"model.hrda needs a decoder whose logits have a whole stride; those of this one have "
        f"{rows} rows for an image of {side}: choose another decoder, or --set model.hrda=none",
    )
    return int(side // rows)


class Box(NamedTuple):
    """A part of an image, in pixels of it."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def of(self, values: Tensor) -> Tensor:
        """That part of (..., H, W)."""
        return values[..., self.top : self.bottom, self.left : self.right]

    def divided(self, by: int) -> "Box":
        """The same part of an image that is smaller by that factor, which divides it."""
        return Box(*(side // by for side in self))


class Hrda(nn.Module):
    """Places of details, and the fusion of their logits with those of the context.

    Images are padded on the right and at the bottom to multiples of `unit`, so that every box is
    whole cells of all logits.
    """

    def __init__(self, attention: nn.Module, *, crop: int, stride: int, unit: int) -> None:
        super().__init__()
        self.attention = attention
        self.crop = crop
        self.stride = stride
        self.unit = unit

    def forward(
        self,
        images: Tensor,
        encode: Callable[[Tensor], FeatureMaps],
        decode: Callable[[FeatureMaps], SegmentationOutput],
        head: Callable[[FeatureMaps], Tensor],
        *,
        box: Box | None = None,
    ) -> SegmentationOutput:
        """The output on the context, with the fused logits at the stride of the details: for
        learning those of one random detail (or of `box`), which are in the output, too; otherwise
        those of details everywhere. Logits of padded images are at stride 1.

        images: (N, 3, H, W) float, normalized; `head` gives the main logits of `decode`
        """
        height, width = images.shape[-2:]
        padded = self.padded(images)
        size = (padded.shape[2], padded.shape[3])
        below, right = size[0] - height, size[1] - width
        features = encode(self.context(padded))
        output = decode(features)
        weights = self.attention(features).float().sigmoid()
        learned = None
        if box is None and self.training and torch.is_grad_enabled():
            box = self.random_box(*size)
        if box is None:
            box = Box(0, size[0], 0, size[1])
            detail = self.averaged(padded, lambda parts: head(encode(parts)))
        else:
            detail = learned = head(encode(box.of(padded)))
        output = output.replace(logits=self.fused(output.logits, weights, detail, box))
        if below or right:
            names = ("logits", "auxiliary_logits")
            output = output.replace(
                **{
                    name: _enlarged(logits, size)[..., :height, :width]
                    for name, logits in output.tensors().items()
                    if name in names
                }
            )
        if learned is None:
            return output
        inside = Box(box.top, min(box.bottom, height), box.left, min(box.right, width))
        if inside != box:
            learned = _enlarged(learned, box.size)[..., : inside.size[0], : inside.size[1]]
        return output.replace(detail_logits=learned, detail_box=torch.tensor(inside))

    def padded(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) with the height and width of whole units."""
        height, width = images.shape[-2:]
        below, right = -height % self.unit, -width % self.unit
        return F.pad(images, (0, right, 0, below)) if below or right else images

    def context(self, images: Tensor) -> Tensor:
        """The downscaled images, padded before."""
        padded = self.padded(images)
        return F.interpolate(padded, scale_factor=1 / _CONTEXT, mode="bilinear")

    def random_box(self, height: int, width: int) -> Box:
        """A place of the detail in images of that size, from torch's generator on the CPU.

        As in the authors' code, the last one on the right and at the bottom is never drawn.
        """
        box = []
        for side, share in zip((height, width), torch.rand(2, device="cpu").tolist(), strict=True):
            crop = min(self.crop, side)
            places = (side - crop + 1) // (_CONTEXT * self.stride)
            first = int(share * places) * _CONTEXT * self.stride
            box += [first, first + crop]
        return Box(*box)

    def windows(self, height: int, width: int) -> list[Box]:
        """Details that cover images of that size, each half over its neighbor."""
        sides = []
        for side in (height, width):
            crop = min(self.crop, side)
            step = self.crop // 2
            count = (max(side - crop + step - 1, 0)) // step + 1
            firsts = [min(place * step, side - crop) for place in range(count)]
            sides.append([(first, first + crop) for first in firsts])
        return [Box(*rows, *columns) for rows in sides[0] for columns in sides[1]]

    def averaged(self, images: Tensor, logits_of: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits (N, C, H / stride, W / stride) of all details, averaged where they overlap.

        logits_of: from details (M, 3, h, w) to their logits; called once, with those of all images
        """
        boxes = self.windows(*images.shape[-2:])
        found = logits_of(torch.cat([box.of(images) for box in boxes])).float()
        height, width = (side // self.stride for side in images.shape[-2:])
        total = found.new_zeros(images.shape[0], found.shape[1], height, width)
        count = found.new_zeros(height, width)
        for box, logits in zip(boxes, found.unflatten(0, (len(boxes), -1)), strict=True):
            cells = box.divided(self.stride)
            cells.of(total).add_(logits)
            cells.of(count).add_(1)
        return total / count

    def fused(self, context: Tensor, weights: Tensor, detail: Tensor, box: Box) -> Tensor:
        """Logits of whole images, (N, C, H / stride, W / stride) float32.

        context: logits of the downscaled images, (N, C, h, w), half that size.
        weights: (N, C, h, w) in 0 to 1, how much each class trusts the detail; outside the box, the
            context counts alone.
        detail: logits of the box.

        The context is weighted before it is upsampled, section 3.2.
        """
        cells = box.divided(_CONTEXT * self.stride)
        trusted = _placed(cells.of(resized(weights, like=context)), cells, like=context)
        whole = _doubled((1 - trusted) * context.float())
        placed = _placed(detail.float(), box.divided(self.stride), like=whole)
        return _doubled(trusted) * placed + whole


def _placed(part: Tensor, box: Box, *, like: Tensor) -> Tensor:
    """The part at its place in zeros of that height and width."""
    height, width = like.shape[-2:]
    return F.pad(part, (box.left, width - box.right, box.top, height - box.bottom))


def _doubled(logits: Tensor) -> Tensor:
    return F.interpolate(logits, scale_factor=_CONTEXT, mode="bilinear")


def _enlarged(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits.float(), size, mode="bilinear")
