"""Batch norm over the batches of all processes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from uda.utilities.distributed import of_all_ranks, sum_over_ranks, world_size
from uda.utilities.errors import require


def synchronize_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """`network` with batch norm that computes its statistics over all processes in training;
    unchanged if there is one process. Raises InputError when it has a subclass of batch norm.
    """
    if world_size() == 1:
        return network
    for layer in network.modules():
        require(
            not isinstance(layer, nn.BatchNorm2d) or type(layer) is nn.BatchNorm2d,
            f"{type(layer).__name__} imitates several devices in one process and cannot be spread "
            "over several: use --set model.batch_norm_parts=1",
        )
    if device.type == "cuda":
        synchronized: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return synchronized
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.__class__ = _SyncBatchNorm2d  # type: ignore[assignment]  # keeps the state
    return network


class _SyncBatchNorm2d(_BatchNorm):
    """torch.nn.SyncBatchNorm without a GPU. Like it, it is not a BatchNorm2d: one image per process
    is enough."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        values = input.float()
        mean, variance = _statistics_of_all(values)
        count = values.numel() // values.shape[1] * world_size()
        self._follow(mean, variance * (count / max(count - 1, 1)))
        normalized: Tensor = _Normalize.apply(
            values, mean, variance, self.weight, self.bias, self.eps
        )
        return normalized.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        assert self.num_batches_tracked is not None, "our networks' batch norm keeps statistics"
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked += 1
        share = self.momentum
        if share is None:
            share = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(unbiased_variance, share)


@torch.no_grad()
def _statistics_of_all(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) of (N, C, H, W) of all processes, which have equal sizes."""
    variance, mean = torch.var_mean(values, dim=(0, 2, 3), correction=0)
    parts = of_all_ranks(torch.cat([mean, variance])).view(world_size(), 2, -1)
    mean = parts[:, 0].mean(0)
    return mean, (parts[:, 1] + (parts[:, 0] - mean).square()).mean(0)


class _Normalize(torch.autograd.Function):
    """Batch normalization by the statistics of all processes, with the gradient through them."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        values: Tensor,
        mean: Tensor,
        variance: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(values, mean, (variance + eps).rsqrt(), weight)
        return F.batch_norm(values, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (gradient,) = gradients
        values, mean, scale, weight = ctx.saved_tensors
        total = gradient.sum(dim=(0, 2, 3))
        along = (gradient * (values - mean.view(1, -1, 1, 1))).sum(dim=(0, 2, 3))
        count = values.numel() // values.shape[1] * world_size()
        mean_total, mean_along = (sum_over_ranks(torch.cat([total, along])) / count).chunk(2)
        # scale * weight * (gradient - its mean - (values - mean) * scale^2 * mean_along), sorted.
        own = (weight * scale).view(1, -1, 1, 1)
        pull = -own * (scale.square() * mean_along).view(1, -1, 1, 1)
        shift = -own * mean_total.view(1, -1, 1, 1) - pull * mean.view(1, -1, 1, 1)
        through = torch.addcmul(torch.addcmul(shift, gradient, own), values, pull)
        return through, None, None, along * scale, total, None
