"""Optimizers by name, with a multiple of the learning rate per group of parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import torch
from torch import nn

from uda.errors import InputError


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """An optimizer and its figures; the schedule scales `lr` from step to step."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 2.5e-4
    momentum: float = 0.9  # sgd only
    nesterov: bool = False  # sgd only
    betas: tuple[float, float] = (0.9, 0.999)  # adam and adamw only
    weight_decay: float = 0.0


class ParameterGroup(TypedDict):
    """Parameters that share a multiple of the base learning rate."""

    params: list[nn.Parameter]
    lr_factor: float


def build_optimizer(
    config: OptimizerConfig, groups: Sequence[ParameterGroup]
) -> torch.optim.Optimizer:
    """The optimizer over `groups`, each at its own multiple of `config.lr`.

    Raises InputError when a figure is out of its range.
    """
    if config.lr <= 0:
        raise InputError(f"{config}: lr must be above 0")
    try:
        return _build(config, groups)
    except ValueError as error:  # torch names the figure that it does not accept
        raise InputError(f"{config}: {error}") from error


def _build(config: OptimizerConfig, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
    settings = [{**group, "lr": config.lr * group["lr_factor"]} for group in groups]
    match config.name:
        case "sgd":
            return torch.optim.SGD(
                settings,
                momentum=config.momentum,
                nesterov=config.nesterov,
                weight_decay=config.weight_decay,
            )
        case "adam":
            return torch.optim.Adam(settings, betas=config.betas, weight_decay=config.weight_decay)
        case "adamw":
            return torch.optim.AdamW(settings, betas=config.betas, weight_decay=config.weight_decay)


def _check(config: OptimizerConfig) -> None:
    default = OptimizerConfig()
    unused = ("betas",) if config.name == "sgd" else ("momentum", "nesterov")
    for field in unused:
        if getattr(config, field) != getattr(default, field):
            raise InputError(f"optimizer {config.name} has no {field}; leave it as it is")
    if config.nesterov and config.momentum <= 0:
        raise InputError("optimizer sgd: nesterov needs momentum above 0")


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Every group of `optimizer` moves to its multiple of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
