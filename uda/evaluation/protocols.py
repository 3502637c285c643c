"""Protocols of evaluation by name: what a network sees of an image, and what is compared.

Published numbers differ by points because these settings do; here they stand side by side.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal

from uda.data.config import MAX_SCALE
from uda.data.transforms import fitted_size
from uda.utilities.config_tree import suggest
from uda.utilities.errors import InputError, require, require_size

Size = tuple[int, int]  # (height, width)


@dataclass(kw_only=True, slots=True)
class Protocol:
    """How a network is scored. The defaults are the protocol `native`: everything as stored."""

    input_size: Size | None = None  # images are resized to this; none: as stored
    # They keep their shape: `input_size` is a box, upright or lying as the image is, into which
    # each is made to fit.
    keep_ratio: bool = False
    scales: tuple[float, ...] = (1.0,)  # of the input size; probabilities are averaged over them
    flip: bool = False  # average over each image and its mirror image, too
    # "fused": main + 0.5 * auxiliary logits, as in Seg-Uncertainty.
    heads: Literal["main", "fused"] = "main"
    # What reaches the labels' size, and how: logits by way of the input's size, as in training; or,
    # straight from the network's own stride, logits (AdaptSegNet) or probabilities
    # (Seg-Uncertainty).
    upsample: Literal["via_input", "logits", "probabilities"] = "via_input"
    align_corners: bool = False  # of the last resizing, the one to the labels' size
    pad_to: Size | None = None  # the resized image gets black rows below, columns to the right
    window: Size | None = None  # the network sees windows of this size; overlaps are averaged
    overlap: float = 0.0  # share of a window that its neighbor sees, too
    label_size: Size | None = None  # labels are resized to this by nearest; none: as stored

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        require(
            min(self.scales, default=0) > 0 and max(self.scales) <= MAX_SCALE,
            f"{path}.scales is {self.scales}; one or more, above 0 and up to {MAX_SCALE}",
        )
        for name in ("input_size", "pad_to", "window", "label_size"):
            size: Size | None = getattr(self, name)
            if size is not None:
                require_size(f"{path}.{name}", size)
        require(
            self.input_size is not None or not self.keep_ratio,
            f"{path}.keep_ratio is set, but there is no {path}.input_size to fit images into: give "
            "one, or leave it false",
        )
        side = min(self.input_size or (1,)) * min(self.scales)
        require(
            self.input_size is None or round(side) > 0,
            f"{path}.scales {self.scales} of {self.input_size} leave no pixel; use larger scales",
        )
        require(
            0 <= self.overlap < 1,
            f"{path}.overlap is {self.overlap}; allowed: 0 up to, not including, 1",
        )
        require(
            self.window is not None or self.overlap == 0,
            f"{path}.overlap is {self.overlap}, but there is no {path}.window to overlap: give "
            "one, or leave it 0",
        )
        require(
            self.upsample == "via_input" or (self.window is None and self.pad_to is None),
            f"{path}.upsample is {self.upsample!r}, which knows no window and no padding; allowed "
            "with them: 'via_input', as in the protocols native, half_input and segmentron",
        )


_HALF = (512, 1024)  # Cityscapes at half its size

PROTOCOLS = {
    "native": Protocol(),
    # What the presets of this library for Cityscapes are scored by.
    "half_input": Protocol(input_size=_HALF),
    # wasidennis/AdaptSegNet: one view, the main head.
    "adaptsegnet": Protocol(input_size=_HALF, upsample="logits", align_corners=True),
    # layumi/Seg-Uncertainty: four views and both heads.
    "mrnet": Protocol(
        input_size=_HALF,
        scales=(1.0, 1.25),
        flip=True,
        heads="fused",
        upsample="probabilities",
        align_corners=True,
    ),
    # The experiment log's networks with one head.
    "single": Protocol(input_size=_HALF, upsample="probabilities", align_corners=True),
    # vikolss/DACS: labels at half their size, which flatters by two to three points.
    "dacs": Protocol(input_size=_HALF, upsample="logits", align_corners=True, label_size=_HALF),
    # mberkay0/clothing-segmentation: images and masks of 256x256, whatever their shape was.
    "clothing_segmentation": Protocol(input_size=(256, 256), label_size=(256, 256)),
    # LikeLy-Journey/SegmenTron, on images of 1024x2048. Its pixAcc is of logits cut to whole
    # numbers, and its classes that are nowhere count as 0: neither is repeated.
    "segmentron": Protocol(pad_to=(1025, 2049)),
    # open-mmlab/mmsegmentation on ADE20K and what is configured after it: whole images.
    "mmsegmentation": Protocol(input_size=(512, 2048), keep_ratio=True),
}


def protocol_named(name: str) -> Protocol:
    """The protocol called `name`; InputError with the nearest name when there is none."""
    if name not in PROTOCOLS:
        raise InputError(f"there is no protocol {name!r}; {suggest(name, PROTOCOLS)}")
    return PROTOCOLS[name]


def protocol_name(protocol: Protocol) -> str:
    """What a protocol with all of these settings is called, or "own settings"."""
    settings = protocol_fields(protocol)
    return next((n for n, p in PROTOCOLS.items() if protocol_fields(p) == settings), "own settings")


def protocol_fields(protocol: Protocol) -> dict[str, Any]:
    """The settings of a protocol, or of a class that adds others to them, by name."""
    return {field.name: getattr(protocol, field.name) for field in fields(Protocol)}


def input_size_of(stored: Size, protocol: Protocol) -> Size:
    """What an image of size `stored` is resized to, before any of the scales."""
    if protocol.input_size is None:
        return stored
    return fitted_size(stored, protocol.input_size) if protocol.keep_ratio else protocol.input_size


def input_line(protocol: Protocol) -> str:
    """What a network sees of an image, in words."""
    parts = [
        f"input {_size(protocol.input_size)}" + (", shape kept" if protocol.keep_ratio else ""),
        "scale " + ", ".join(f"{scale:g}" for scale in protocol.scales),
        "flip" if protocol.flip else "no flip",
    ]
    if protocol.pad_to is not None:
        parts.append(f"padded to {_size(protocol.pad_to)}")
    if protocol.window is not None:
        parts.append(f"windows of {_size(protocol.window)} with overlap {protocol.overlap:g}")
    if protocol.heads == "fused":
        parts.append("both heads")
    if protocol.upsample != "via_input":
        parts.append(f"{protocol.upsample} upsampled")
    if protocol.align_corners:
        parts.append("corners aligned")
    return "; ".join(parts)


def labels_line(protocol: Protocol) -> str:
    """What predictions are compared with, in words."""
    size = "stored resolution" if protocol.label_size is None else _size(protocol.label_size)
    return f"labels at {size}"


def _size(size: Size | None) -> str:
    return "as stored" if size is None else f"{size[1]}x{size[0]}"
