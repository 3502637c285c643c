"""Batch norm over the batch of all processes."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from uda.distributed import sum_with_gradient, world_size
from uda.errors import require


def synchronize_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """`network`, whose batch norm takes its statistics over all processes while it trains; as it is
    where there is one process. Raises InputError when its batch norm is of another kind.
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
            layer.__class__ = _SyncBatchNorm2d  # type: ignore[assignment]  # state stays as it is
    return network


class _SyncBatchNorm2d(_BatchNorm):
    """What torch.nn.SyncBatchNorm does, which needs a GPU; like it no BatchNorm2d, as one image per
    process is enough for it."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        values = input.float()
        count = values.numel() // values.shape[1] * world_size()
        mean = sum_with_gradient(values.sum(dim=(0, 2, 3))) / count
        centered = values - mean.view(1, -1, 1, 1)
        variance = sum_with_gradient(centered.square().sum(dim=(0, 2, 3))) / count
        self._follow(mean.detach(), variance.detach() * count / max(count - 1, 1))
        normalized = centered * (variance + self.eps).rsqrt().view(1, -1, 1, 1)
        if self.affine:
            normalized = normalized * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return normalized.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None, "it comes with running statistics"
        self.num_batches_tracked += 1
        share = self.momentum
        if share is None:
            share = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(unbiased_variance, share)
