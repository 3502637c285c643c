"""The classifier of any network: its last layers with weights, which give the classes' scores."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from uda.models.segmenter import Segmenter

_SIDE = 64  # of the image that is looked at, in pixels


def _own(layer: nn.Module) -> list[nn.Parameter]:
    """The parameters of the layer itself, without those of layers inside."""
    return list(layer.parameters(recurse=False))


@torch.enable_grad()
def classifier_parameters(segmenter: Segmenter) -> list[nn.Parameter]:
    """The weights and biases of the layers from which no further layer leads to the logits, each
    once: those of an auxiliary head, too, and with HRDA of its attention, which weighs scores.

    They are found by following the gradient of a prediction back to the first matrices, so that no
    network has to name them. Parameters without gradient are not among them.
    """
    modes = [(module, module.training) for module in segmenter.modules()]
    seen = segmenter.levels_seen
    segmenter.eval()
    try:
        image = next(segmenter.parameters()).new_full((1, 3, _SIDE, _SIDE), 0.5)
        output = segmenter(image)
    finally:
        segmenter.levels_seen = seen
        for module, mode in modes:
            module.training = mode
    scores = (output.logits, output.auxiliary_logits)
    last = {id(p) for logits in scores if logits is not None for p in _last(logits)}
    layers = (m for m in segmenter.modules() if any(id(p) in last for p in _own(m)))
    return [p for layer in layers for p in _own(layer) if p.requires_grad]


def _last(logits: Tensor) -> Iterator[nn.Parameter]:
    """The matrices that are met first on every way back from `logits`."""
    waiting: list[Node | None] = [logits.grad_fn]
    seen: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        following = [below for below, _ in node.next_functions if below is not None]
        matrices = [leaf for leaf in map(_leaf, following) if leaf is not None and leaf.ndim > 1]
        yield from matrices
        waiting += [] if matrices else following


def _leaf(node: Node) -> nn.Parameter | None:
    """The parameter that a node of the graph stands for, transposed or not."""
    if node.name().startswith(("TBackward", "TransposeBackward")):
        ((below, _),) = node.next_functions
        return None if below is None else _leaf(below)
    found = getattr(node, "variable", None)
    return found if isinstance(found, nn.Parameter) else None
