"""Which feature maps of timm's networks are used, and which sizes of images they read."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from uda.models.encoders.timm_sizes import OtherSizes, on_meta
from uda.utilities.errors import InputError

_LOW_STRIDE = 4
_QUARTERS = 4  # maps of a network whose blocks all have one stride
_ODD_SIZE = (65, 97)  # pixels; no stride divides it
_WINDOWS = (7, 8)  # cells along a side of the windows that attention is in
# What makes networks read other sizes than the one they were trained on.
_ANY_SIZE: tuple[Mapping[str, object], ...] = (
    {},
    {"dynamic_img_size": True},
    {"strict_img_size": False},
)


class Taken(NamedTuple):
    """Which feature maps of a network are used."""

    options: Mapping[str, object]  # what `create_model` needs for them
    positions: tuple[int, ...]  # in timm's list of maps
    strides: tuple[int, ...]
    divisor: int = 1  # of the sides of images
    # (H, W) of the images that the network is made for, if it has to be made anew for others.
    made_for: tuple[int, int] | None = None


def channels_second(network: nn.Module, features: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """(N, D, h, w) from the feature maps of a network that `features_only` made: some of timm's
    networks have the channels last."""
    if getattr(getattr(network, "output_fmt", None), "value", "NCHW") == "NHWC":
        return tuple(feature.permute(0, 3, 1, 2) for feature in features)
    return tuple(features)


def taken_to_stride(timm: ModuleType, name: str, output_stride: int, *, option: str) -> Taken:
    """The last map of each stride from 4 to the output stride; of the output stride also the map
    before it, if that has the same stride.

    Raises InputError when they are not there; `option` is the field that names the network.
    """
    described: object = "none that can be used"
    for options in ({"output_stride": output_stride}, {}):
        try:
            info = _describe(timm, name, **options)
        except Exception:  # each network raises its own kind for unknown options
            continue
        described = strides = info.strides
        if _LOW_STRIDE not in strides or output_stride not in strides[1:]:
            continue
        if not options and output_stride == 8:
            continue  # shallow features only, which no published network is built on
        places = {_last(strides, s) for s in strides if _LOW_STRIDE <= s <= output_stride}
        deep = _last(strides, output_stride)
        if strides[deep - 1] == output_stride:
            places.add(deep - 1)
        used = sorted(places)
        return Taken(
            options, tuple(info.positions[p] for p in used), tuple(strides[p] for p in used)
        )
    stride_option = option.replace("backbone", "output_stride").replace(".name", ".output_stride")
    raise InputError(
        f"{option} timm/{name} has feature maps at strides {described}; needed: {_LOW_STRIDE} and "
        f"{output_stride}: choose another network, or {stride_option}=16"
    )


@cache
def own_pyramid(timm: ModuleType, name: str, *, option: str) -> Taken:
    """The maps of stride 4 and more, or all where there are none; of a network whose blocks all
    have one stride, those after each quarter. With the divisor of the sizes that it reads.

    Raises InputError when it has no maps, or reads images of one size only.
    """
    try:
        info = _describe(timm, name)
    except Exception as error:  # each network raises its own kind
        raise InputError(
            f"{option} timm/{name} offers no feature maps: choose another network"
        ) from error
    if len(set(info.strides)) == 1 and info.total % _QUARTERS == 0:
        step = info.total // _QUARTERS
        positions = tuple(range(step - 1, info.total, step))
    else:
        low = min(_LOW_STRIDE, max(info.strides))
        pairs = zip(info.positions, info.strides, strict=True)
        positions = tuple(position for position, stride in pairs if stride >= low)
    size = timm.get_pretrained_cfg(name).input_size[-1]
    for options in _ANY_SIZE:
        try:
            network = on_meta(timm, name, out_indices=positions, **options)
        except Exception:  # each network raises its own kind for unknown options
            continue
        channels, strides = network.feature_info.channels(), network.feature_info.reduction()
        deepest = max(strides)
        windows = [deepest * cells for cells in (1, 2, *_WINDOWS)]
        run = partial(_run, network)
        for divisor in (1, *sorted({*windows, size})):
            if reads(run, channels, strides, divisor=divisor, device="meta"):
                return Taken(options, positions, tuple(strides), divisor)
        pad(network)
        if reads(run, channels, strides, device="meta"):
            return Taken(options, positions, tuple(strides))
    return _at_other_sizes(timm, name, positions, size, option=option)


def _at_other_sizes(
    timm: ModuleType, name: str, positions: tuple[int, ...], size: int, *, option: str
) -> Taken:
    """The maps of a network that has to be made anew for every size of images."""
    network = on_meta(timm, name, out_indices=positions)
    channels, strides = network.feature_info.channels(), network.feature_info.reduction()
    others = OtherSizes(name, (size, size), out_indices=positions)
    divisor = max(strides)
    try:
        fits = others.fits(network, (2 * divisor, 3 * divisor))
    except Exception:  # each network raises its own kind for sizes that it cannot read
        fits = False
    run = partial(others.run, network)
    if fits and reads(run, channels, strides, divisor=divisor, device="meta"):
        return Taken({}, positions, tuple(strides), divisor, made_for=(size, size))
    raise InputError(
        f"{option} timm/{name} does not make feature maps at its strides of images of other sizes "
        f"than {size}x{size} pixels: choose another network, such as timm/convnext_tiny or "
        "timm/swin_tiny_patch4_window7_224"
    )


class _Described(NamedTuple):
    positions: tuple[int, ...]  # of maps that timm returns unless told otherwise
    strides: Sequence[int]  # theirs
    total: int  # number of all maps


def _describe(timm: ModuleType, name: str, **options: object) -> _Described:
    info = on_meta(timm, name, **options).feature_info
    return _Described(info.out_indices, info.reduction(), len(info.info))


def _last(strides: Sequence[int], stride: int) -> int:
    return len(strides) - 1 - list(reversed(strides)).index(stride)


def _run(network: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    return channels_second(network, network(images))


@torch.no_grad()
def reads(
    run: Callable[[Tensor], Iterable[Tensor]],
    channels: Sequence[int],
    strides: Sequence[int],
    *,
    divisor: int = 1,
    device: str | torch.device,
) -> bool:
    """Whether images whose sides are multiples of `divisor` give maps with these channels, each
    side of a map the image's, divided by the stride and rounded.
    """
    # No square, and no multiples of more than the divisor.
    count = math.ceil(min(_ODD_SIZE) / divisor)
    sizes = [(divisor * count, divisor * (count + 1)), (divisor * (count + 2), divisor * count)]
    try:
        return all(
            map_.shape[1] == width and _is_rounded(map_.shape[2:], size, stride)
            for size in ([_ODD_SIZE] if divisor == 1 else sizes)
            for map_, width, stride in zip(
                run(torch.zeros(1, 3, *size, device=device)), channels, strides, strict=True
            )
        )
    except Exception:  # each network raises its own kind for sizes that it cannot read
        return False


def _is_rounded(found: torch.Size, size: tuple[int, int], stride: int) -> bool:
    """Whether a map of that size is one of an image of `size`, rounded either way."""
    exact = [side / stride for side in size]
    return all(side in (math.floor(e), math.ceil(e)) for side, e in zip(found, exact, strict=True))


def pad(network: nn.Module) -> None:
    """Pads overlapping convolutions and pooling that have no padding, so that no edge is lost.

    timm's other kinds of layers have their own padding and are not changed.
    """
    for layer in network.modules():
        if type(layer) is nn.Conv2d and layer.padding == (0, 0):
            (height, width), (down, right) = layer.kernel_size, layer.dilation
            if height > layer.stride[0] or width > layer.stride[1]:
                layer.padding = (down * (height // 2), right * (width // 2))
        elif type(layer) is nn.MaxPool2d and (layer.kernel_size, layer.padding) == (3, 0):
            layer.padding = 0 if layer.ceil_mode else 1
