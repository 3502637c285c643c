"""Batch-norm statistics re-estimated on unlabeled images, without touching a weight.

Source: Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation", 2016,
arXiv 1603.04779 (AdaBN).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from uda.errors import InputError
from uda.models.segmenter import Segmenter


def disable_dropout(network: nn.Module) -> None:
    """Dropout layers pass everything, whatever mode the rest of the network is in."""
    for layer in network.modules():
        if isinstance(layer, _DropoutNd):
            layer.eval()


@torch.no_grad()
def reestimate_batch_norm(segmenter: Segmenter, batches: Iterable[Tensor]) -> None:
    """Running means and variances become the plain average over `batches`, each (N, 3, H, W) float
    RGB in [0, 1]; the network ends in evaluation mode.

    Raises InputError when the network has no batch norm: there is nothing to re-estimate.
    """
    layers = [layer for layer in segmenter.modules() if isinstance(layer, _BatchNorm)]
    if not layers:
        raise InputError("this network has no batch norm, so there is nothing to re-estimate")
    segmenter.eval()
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average instead of a moving one
        layer.train()
    for images in batches:
        segmenter(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    segmenter.eval()
