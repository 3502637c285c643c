"""Evaluation protocols by name: the network's input, and what its output is compared with.

Published numbers differ by points because these settings do.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from uda.data.config import MAX_SCALE
from uda.data.transforms import Interpolation, fitted_size
from uda.utilities.config_tree import suggest
from uda.utilities.errors import InputError, require, require_size

Size = tuple[int, int]  # (height, width)
_COMPUTED = ("precision", "batch")
Precision = Literal["float32", "bfloat16"]


@dataclass(kw_only=True, slots=True)
class Protocol:
    """How a network is scored. The defaults are the protocol `native`: everything as stored."""

    input_size: Size | None = None  # images are resized to this; none: as stored
    # Images keep their aspect ratio: each is resized to fit into a box of `input_size`, which is
    # turned to portrait or landscape as the image is.
    keep_ratio: bool = False
    # Of images, see `uda.data.transforms.Interpolation`.
    interpolation: Interpolation = "bicubic"
    scales: tuple[float, ...] = (1.0,)  # of the input size; probabilities are averaged over them
    flip: bool = False  # average over each image and its mirror image
    # "fused": main + 0.5 * auxiliary logits, as in Seg-Uncertainty.
    heads: Literal["main", "fused"] = "main"
    # What is resized to the labels' size: logits that were first resized to the input's size, as in
    # training; or, directly from the network's own stride, logits (AdaptSegNet) or probabilities
    # (Seg-Uncertainty).
    upsample: Literal["via_input", "logits", "probabilities"] = "via_input"
    align_corners: bool = False  # of the last resizing, the one to the labels' size
    # The resized image is padded below and to the right with what the network normalizes to 0.
    pad_to: Size | None = None
    window: Size | None = None  # the network reads windows of this size; overlaps are averaged
    overlap: float = 0.0  # share of a window that the next one covers, too
    window_average: Literal["logits", "probabilities"] = "logits"  # where windows overlap
    label_size: Size | None = None  # labels are resized to this by nearest; none: as stored
    # Of the network's forward pass, by autocast; what follows is float32. Of no named protocol.
    precision: Precision = "float32"
    # Parts of one size (images, their windows, their mirror images) that share a forward pass. Of
    # no named protocol, either.
    batch: int = 1

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
            f"{path}.keep_ratio is set, but there is no {path}.input_size to fit images into: set "
            f"{path}.input_size=HEIGHT,WIDTH or {path}.keep_ratio=false",
        )
        side = min(self.input_size or (1,)) * min(self.scales)
        require(
            self.input_size is None or round(side) > 0,
            f"{path}.scales {self.scales} of {self.input_size} leave no pixel; use larger scales",
        )
        require(self.batch > 0, f"{path}.batch is {self.batch}; allowed: 1 or more")
        allowed = get_args(Precision)
        require(
            self.precision in allowed,
            f"{path}.precision is {self.precision!r}; allowed: {', '.join(allowed)}",
        )
        require(
            0 <= self.overlap < 1,
            f"{path}.overlap is {self.overlap}; allowed: 0 up to, not including, 1",
        )
        require(
            self.interpolation == "bicubic" or "interpolation" not in self.idle(),
            f"{path}.interpolation is {self.interpolation!r}, but images are read as stored: set "
            f"{path}.input_size=HEIGHT,WIDTH or {path}.interpolation=bicubic",
        )
        require(
            self.window is not None or self.window_average == "logits",
            f"{path}.window_average is {self.window_average!r}, but there is no {path}.window: set "
            f"{path}.window=HEIGHT,WIDTH or {path}.window_average=logits",
        )
        require(
            self.window is not None or self.overlap == 0,
            f"{path}.overlap is {self.overlap}, but there is no {path}.window to overlap: set "
            f"{path}.window=HEIGHT,WIDTH or {path}.overlap=0",
        )
        require(
            self.upsample == "via_input" or (self.window is None and self.pad_to is None),
            f"{path}.upsample is {self.upsample!r}, which supports neither a window nor padding; "
            "allowed with them: 'via_input', as in the protocols native, half_input and segmentron",
        )

    def idle(self) -> dict[str, str]:
        """The fields that change nothing, each with the reason."""
        found = {}
        if self.input_size is None:
            found["keep_ratio"] = "there is no input_size to fit images into"
        if self.input_size is None and self.scales == (1.0,):
            found["interpolation"] = "images are read as stored"
        if self.window is None:
            found |= dict.fromkeys(("overlap", "window_average"), "there is no window")
        return found


_HALF = (512, 1024)  # half of 1024x2048
_INTERPOLATIONS = {
    "bicubic": "",
    "bilinear": ", bilinear",
    "bilinear_no_antialias": ", bilinear without antialiasing",
    "nearest": ", nearest",
}

PROTOCOLS = {
    "native": Protocol(),
    # The protocol of this library's presets for street scenes.
    "half_input": Protocol(input_size=_HALF),
    # wasidennis/AdaptSegNet: one view, the main head.
    "adaptsegnet": Protocol(input_size=_HALF, upsample="logits", align_corners=True),
    # YanchaoYang/FDA: an image larger than in training; its networks' probabilities are averaged
    # at their own stride.
    "fda": Protocol(input_size=(576, 1344), upsample="probabilities", align_corners=True),
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
    # vikolss/DACS: labels at half their size, which raises scores by two to three points.
    "dacs": Protocol(
        input_size=_HALF,
        interpolation="bilinear",
        upsample="logits",
        align_corners=True,
        label_size=_HALF,
    ),
    # lhoyer/DAFormer on Cityscapes: a whole image at half its size, resized twice.
    "daformer": Protocol(input_size=_HALF, keep_ratio=True, interpolation="bilinear_no_antialias"),
    # lhoyer/HRDA, lhoyer/MIC: 3 windows of an image of Cityscapes, 6 of one of ACDC.
    "hrda": Protocol(window=(1024, 1024), overlap=0.5),
    # NVlabs/SegFormer and mmsegmentation's SegFormer on Cityscapes: windows that share a quarter.
    "segformer": Protocol(window=(1024, 1024), overlap=0.25),
    # tue-mps/vfm-uda: a short side of 1024, as the box is eight times as long.
    "vfm_uda": Protocol(
        input_size=(1024, 8192),
        keep_ratio=True,
        interpolation="bilinear",
        window=(1024, 1024),
        overlap=0.5,
        window_average="probabilities",
    ),
    # mberkay0/clothing-segmentation: images and masks of 256x256, whatever their aspect ratio.
    "clothing_segmentation": Protocol(
        input_size=(256, 256), interpolation="nearest", label_size=(256, 256)
    ),
    # LikeLy-Journey/SegmenTron, on images of 1024x2048. Not repeated here: its pixAcc is computed
    # from logits truncated to integers, and absent classes count as 0.
    "segmentron": Protocol(pad_to=(1025, 2049)),
    # open-mmlab/mmsegmentation on ADE20K and configurations like it: whole images.
    "mmsegmentation": Protocol(
        input_size=(512, 2048), keep_ratio=True, interpolation="bilinear_no_antialias"
    ),
}


def protocol_named(name: str) -> Protocol:
    """The protocol called `name`; InputError with the nearest name when there is none."""
    if name not in PROTOCOLS:
        raise InputError(f"there is no protocol {name!r}; {suggest(name, PROTOCOLS)}")
    return PROTOCOLS[name]


def protocol_name(protocol: Protocol) -> str:
    """The name of the protocol with exactly these settings, or "own settings"."""
    settings = protocol_fields(protocol)
    return next((n for n, p in PROTOCOLS.items() if protocol_fields(p) == settings), "own settings")


def protocol_fields(protocol: Protocol) -> dict[str, Any]:
    """The settings of a protocol by name, without what says how they are computed, and those
    that a subclass adds."""
    names = (field.name for field in fields(Protocol))
    return {name: getattr(protocol, name) for name in names if name not in _COMPUTED}


def input_size_of(stored: Size, protocol: Protocol) -> Size:
    """The size that an image of size `stored` is resized to, before any of the scales."""
    if protocol.input_size is None:
        return stored
    return fitted_size(stored, protocol.input_size) if protocol.keep_ratio else protocol.input_size


def input_line(protocol: Protocol) -> str:
    """The network's input, in words."""
    how = "" if "interpolation" in protocol.idle() else _INTERPOLATIONS[protocol.interpolation]
    parts = [
        f"input {_size(protocol.input_size)}"
        + (", shape kept" if protocol.keep_ratio else "")
        + how,
        "scale " + ", ".join(f"{scale:g}" for scale in protocol.scales),
        "flip" if protocol.flip else "no flip",
    ]
    if protocol.pad_to is not None:
        parts.append(f"padded with the mean color to {_size(protocol.pad_to)}")
    if protocol.window is not None:
        averaged = " of probabilities" if protocol.window_average == "probabilities" else ""
        parts.append(
            f"windows{averaged} of {_size(protocol.window)} with overlap {protocol.overlap:g}"
        )
    if protocol.heads == "fused":
        parts.append("both heads")
    if protocol.upsample != "via_input":
        parts.append(f"{protocol.upsample} upsampled")
    if protocol.align_corners:
        parts.append("corners aligned")
    if protocol.precision != "float32":
        parts.append(f"network in {protocol.precision}")
    if protocol.batch > 1:
        parts.append(f"batches of {protocol.batch}")
    return "; ".join(parts)


def labels_line(protocol: Protocol) -> str:
    """What predictions are compared with, in words."""
    size = "stored resolution" if protocol.label_size is None else _size(protocol.label_size)
    return f"labels at {size}"


def _size(size: Size | None) -> str:
    return "as stored" if size is None else f"{size[1]}x{size[0]}"
