"""One image through a network -> the classes of its pixels, strip by strip.

Probabilities of 19 classes for 1024x2048 pixels take 160 MB, and averaging views takes several such
maps. So only the network's own output, at its stride, is kept; everything that follows (resizing,
averaging, the most probable class) is linear in the rows or works on single pixels, and is done for
a few rows at a time.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from uda.evaluation.ensembles import Ensemble, Network, members_of
from uda.evaluation.lazy_maps import (
    Cropped,
    Map,
    Mean,
    Mirrored,
    Pasted,
    Probabilities,
    Rows,
    resized,
)
from uda.evaluation.passes import outputs_of, padded_size, windows
from uda.evaluation.protocols import Protocol, Size, protocol_name
from uda.evaluation.soft_scores import soft_sums
from uda.models.segmenter import Segmenter
from uda.utilities.errors import require

_STRIP_VALUES = 2**22  # numbers in a strip, all classes together: 16 MiB


class Prediction(NamedTuple):
    """What a network predicts for one image."""

    labels: Tensor  # (H, W) int64, the most probable class
    confidence: Tensor | None  # (H, W) float32, its probability, if requested
    # (H, W) int64 for each requested group of classes: the position of the most probable one in it.
    among: tuple[Tensor, ...]
    # (3C + 2) float64: what the image adds to scores of probabilities (see soft_scores.py), if
    # labels were given.
    soft_sums: Tensor | None = None


@torch.no_grad()
def predict(
    network: Network,
    images: Sequence[Tensor],
    *,
    size: Size,
    protocol: Protocol,
    confidence: bool = False,
    among: Sequence[Sequence[int]] = (),
    mirrored: Sequence[int] | None = None,
    soft_labels: Tensor | None = None,
    num_classes: int | None = None,
    divisors: Tensor | None = None,
    outputs: Sequence[Iterator[Tensor]] | None = None,
) -> Prediction:
    """The classes of one image's pixels at `size` (H, W).

    images: (3, h, w) uint8 RGB, the image at each scale of the protocol. `among`: groups of classes
    whose most probable one is wanted, too, as if there were no other classes. `mirrored`: the class
    that each class becomes in a mirror image; see `LabelSpace.mirrored`. `soft_labels`: (H, W)
    train ids to sum up probabilities by. `divisors`: (C,) of the classes' probabilities; labels and
    confidence, which must be requested, are then those of the highest quotient. Of an ensemble,
    each network sees every view of the image. `outputs`: what each network makes of several
     images, of which this is the next (see `outputs_of`); by default, of this one alone.
    Raises InputError when the network has not `num_classes` classes, or lacks a head of the
    protocol.
    """
    views = _views(network, images, size, protocol, mirrored, outputs)
    require(
        num_classes in (None, views[0].classes),
        f"the network has {views[0].classes} classes, but the data set has {num_classes}: choose a "
        "data set with the network's classes",
    )
    if len(views) == 1 and not (confidence or among or soft_labels is not None):
        # The order of a single view's logits is that of its probabilities.
        strips = [views[0].highest(first, last) for first, last in _strip_rows(views[0])]
        return Prediction(torch.cat(strips), None, ())
    sums: Tensor | None = None
    first_row = 0
    labels, confidences = [], []
    restricted: list[list[Tensor]] = [[] for _ in among]
    # Logits tell classes apart whose probabilities are rounded to the same number.
    are_logits = len(views) == 1 and _views_are_logits(protocol) and divisors is None
    for strip in _strips(views, protocol, probabilities=confidence and not are_logits):
        if divisors is not None:
            strip = strip / divisors.to(strip)[:, None, None]
        highest, classes = strip.max(dim=1)  # many times faster than argmax over this dimension
        labels.append(classes[0])
        if confidence:
            share = strip.softmax(dim=1).amax(dim=1) if are_logits else highest
            confidences.append(share[0])
        for group, found in zip(among, restricted, strict=True):
            found.append(strip[:, list(group)].max(dim=1).indices[0])
        if soft_labels is not None:
            # Only now, so that the predicted classes do not depend on what else is requested.
            probabilities = strip.softmax(dim=1) if are_logits else strip
            rows = slice(first_row, first_row := first_row + strip.shape[2])
            added = soft_sums(probabilities[0], soft_labels[rows].to(strip.device))
            sums = added if sums is None else sums + added
    return Prediction(
        torch.cat(labels),
        torch.cat(confidences) if confidence else None,
        tuple(torch.cat(found) for found in restricted),
        sums,
    )


@torch.no_grad()
def probability_strips(
    network: Network,
    images: Sequence[Tensor],
    *,
    size: Size,
    protocol: Protocol,
    mirrored: Sequence[int] | None = None,
) -> Iterator[Tensor]:
    """Class probabilities of one image, from top to bottom in strips (C, rows, W) float32 that
    together are (C, H, W); averaged over scales and, if the protocol says so, mirror images.

    network, images, mirrored: as in `predict`
    """
    views = _views(network, images, size, protocol, mirrored)
    for strip in _strips(views, protocol, probabilities=True):
        yield strip[0]


def _strips(views: Sequence[Rows], protocol: Protocol, *, probabilities: bool) -> Iterator[Tensor]:
    """(1, C, rows, W) of every pixel: the mean probability over all views. Of a single view logits
    will do unless probabilities are requested: their order is the same."""
    are_logits = _views_are_logits(protocol)
    for first, last in _strip_rows(views[0]):
        total: Tensor | None = None
        for view in views:
            rows = view.rows(first, last)
            if are_logits and (probabilities or len(views) > 1):
                rows = rows.softmax(dim=1)
            total = rows if total is None else total + rows
        assert total is not None, "a protocol has at least one scale"
        yield total if len(views) == 1 else total / len(views)


def _strip_rows(view: Rows) -> Iterator[tuple[int, int]]:
    """The first row of each strip, and the one after its last."""
    height, width = view.size
    step = max(1, _STRIP_VALUES // (view.classes * width))
    for first in range(0, height, step):
        yield first, min(first + step, height)


def _views_are_logits(protocol: Protocol) -> bool:
    averaged = protocol.window is not None and protocol.window_average == "probabilities"
    return protocol.upsample != "probabilities" and not averaged


def _views(
    network: Network,
    images: Sequence[Tensor],
    size: Size,
    protocol: Protocol,
    mirrored_classes: Sequence[int] | None,
    outputs: Sequence[Iterator[Tensor]] | None = None,
) -> list[Rows]:
    """What is averaged: the output at `size` for each scale and, if wanted, its mirror image, of
    each network unless an ensemble averages logits."""
    members = members_of(network)
    if outputs is None:
        outputs = [outputs_of(segmenter, [images], protocol) for segmenter in members]
    found = [
        _views_of_one(segmenter, own, images, size, protocol, mirrored_classes)
        for segmenter, own in zip(members, outputs, strict=True)
    ]
    classes = {rows.classes for views in found for rows in views}
    require(
        len(classes) == 1,
        f"the networks have {' and '.join(map(str, sorted(classes)))} classes; allowed: as many",
    )
    if isinstance(network, Ensemble) and network.average == "logits":
        check_average(network, protocol)
        return [Mean(of_members) for of_members in zip(*found, strict=True)]
    return [rows for views in found for rows in views]


def _views_of_one(
    segmenter: Segmenter,
    outputs: Iterator[Tensor],
    images: Sequence[Tensor],
    size: Size,
    protocol: Protocol,
    mirrored_classes: Sequence[int] | None,
) -> list[Rows]:
    views = []
    for image in images:
        for mirrored in (False, True) if protocol.flip else (False,):
            seen = (image.shape[1], image.shape[2])
            rows = _output_rows(outputs, seen, protocol, align_corners=segmenter.align_corners)
            rows = Mirrored(rows, mirrored_classes) if mirrored else rows
            views.append(resized(rows, size, align_corners=protocol.align_corners))
    return views


def _output_rows(
    outputs: Iterator[Tensor], seen: Size, protocol: Protocol, *, align_corners: bool
) -> Rows:
    """The network's output for an image of size `seen`: at that size, or at the network's own
    stride where the protocol resizes from there. `outputs`: from those of the image's first part
    on; `align_corners`: the network's."""
    if protocol.upsample != "via_input":
        coarse = next(outputs)
        return Map(coarse if protocol.upsample == "logits" else coarse.softmax(dim=1))
    padded = padded_size(seen, protocol)
    parts: list[tuple[int, int, Rows]] = []
    for top, left, size in windows(padded, protocol):
        rows = resized(Map(next(outputs)), size, align_corners=align_corners)
        parts.append((top, left, rows if _views_are_logits(protocol) else Probabilities(rows)))
    whole = Pasted(parts, padded) if len(parts) > 1 else parts[0][2]
    return whole if padded == seen else Cropped(whole, seen)


def check_average(network: Ensemble, protocol: Protocol) -> None:
    """Raises InputError when the protocol leaves an ensemble no logits to average."""
    require(
        network.average == "probabilities" or _views_are_logits(protocol),
        f"protocol {protocol_name(protocol)} resizes or averages probabilities, so there are no "
        "logits to average: use --average probabilities, or another --protocol, such as native",
    )
