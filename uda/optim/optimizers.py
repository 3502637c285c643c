"""Optimizers by name, with a multiple of the learning rate per group of parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NotRequired, TypedDict

import torch
from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer

from uda.utilities.distributed import is_main
from uda.utilities.errors import InputError, require, shown


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """An optimizer and its settings; the schedule scales `lr` from step to step."""

    name: Literal["sgd", "adam", "adamw", "radam"] = "sgd"
    lr: float = 2.5e-4
    momentum: float = 0.9  # sgd only
    nesterov: bool = False  # sgd only
    betas: tuple[float, float] = (0.9, 0.999)  # all but sgd
    weight_decay: float = 0.0

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        require(self.lr > 0, f"{path}.lr is {self.lr}; it must be above 0")
        require(
            self.weight_decay >= 0,
            f"{path}.weight_decay is {self.weight_decay}; allowed: 0 or more",
        )
        require(
            all(0 <= value < 1 for value in (self.momentum, *self.betas)),
            f"{path}.momentum is {self.momentum}, its betas are {self.betas}; allowed: 0 up to, "
            "not including, 1",
        )

    def idle(self) -> dict[str, str]:
        """The fields that change nothing as the others are set, each with the reason."""
        if self.name != "sgd":
            return {name: f"{self.name} has no {name}" for name in ("momentum", "nesterov")}
        found = {"betas": "sgd has no betas"}
        return found if self.momentum else found | {"nesterov": "nesterov needs a momentum above 0"}


# Defaults of adam and radam: torch's; of adamw: SegFormer's, arXiv 2105.15203.
_BY_NAME = {
    "sgd": OptimizerConfig(),
    "adam": OptimizerConfig(name="adam", lr=1e-3),
    "adamw": OptimizerConfig(name="adamw", lr=6e-5, weight_decay=0.01),
    "radam": OptimizerConfig(name="radam", lr=1e-3),
}


def optimizer_named(name: str, default: object = None) -> OptimizerConfig:
    """The optimizer `name` with its default settings, or `default` if this has the same name.

    Raises InputError, with the known names, when there is no such optimizer.
    """
    if isinstance(default, OptimizerConfig) and default.name == name:
        return default
    if name not in _BY_NAME:
        raise InputError(f"{shown(name)} is not an optimizer; known: {', '.join(_BY_NAME)}")
    return replace(_BY_NAME[name])


class ParameterGroup(TypedDict):
    """Parameters that share a multiple of the base learning rate."""

    params: list[nn.Parameter]
    lr_factor: float
    weight_decay: NotRequired[float]  # instead of the optimizer's


def build_optimizer(
    config: OptimizerConfig, groups: Sequence[ParameterGroup], *, sharded: bool = False
) -> torch.optim.Optimizer:
    """The optimizer of `groups`, each with its own multiple of `config.lr`.

    sharded: each process keeps what the optimizer remembers of its own share of the parameters
        only, updates these, and sends them to the others (ZeRO's first stage, arXiv 1910.02054)
    """
    settings = [{**group, "lr": config.lr * group["lr_factor"]} for group in groups]
    kind = _KINDS[config.name]
    options: dict[str, Any] = {"weight_decay": config.weight_decay}
    if config.name == "sgd":
        options |= {"momentum": config.momentum, "nesterov": config.nesterov}
    else:
        options |= {"betas": config.betas}
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    fused = devices == {"cpu"} and config.name in _FUSED
    if fused:
        options["fused"] = True
    made = (
        ZeroRedundancyOptimizer(settings, kind, **options) if sharded else kind(settings, **options)
    )
    if fused:
        updating = made.optim if isinstance(made, ZeroRedundancyOptimizer) else made
        updating.register_step_pre_hook(_unify_layouts)
    optimizer: torch.optim.Optimizer = made
    return optimizer


# RAdam: Liu et al., ICLR 2020, arXiv 1908.03265; with Adam's weight decay, torch's default.
_KINDS: dict[str, Any] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "radam": torch.optim.RAdam,
}


# One pass over memory instead of several: SGD's same values in 0.4 of the time.
_FUSED = ("sgd", "adam", "adamw")


def _unify_layouts(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Gives gradients and state the order in memory that their parameter has. A fused update
    goes by places in memory, and would silently mix up others."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            if parameter.grad.stride() != parameter.stride():
                parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)
            state = optimizer.state[parameter]
            for name, kept in state.items():
                if kept is not None and kept.dim() and kept.stride() != parameter.stride():
                    state[name] = torch.empty_like(parameter).copy_(kept)


# The state of each per parameter: tensors of its shape, or a count of steps.
_KEPT = {
    torch.optim.SGD: {"momentum_buffer"},
    torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.RAdam: {"step", "exp_avg", "exp_avg_sq"},
}


def state_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What `load_state` restores; of a sharded optimizer on the first rank only, from all of them:
    must be called on all ranks."""
    if not isinstance(optimizer, ZeroRedundancyOptimizer):
        return optimizer.state_dict()
    optimizer.consolidate_state_dict(to=0)
    return optimizer.state_dict() if is_main() else {}


def load_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], *, origin: str) -> None:
    """Restores what `state_dict` of such an optimizer returned in another process.

    Raises InputError, naming `origin`, when it belongs to another optimizer. torch would notice
    this in the next update, if at all.
    """
    inner = optimizer.optim if isinstance(optimizer, ZeroRedundancyOptimizer) else optimizer
    own = torch.optim.Optimizer.state_dict(optimizer)["param_groups"]
    groups = state["param_groups"]
    require(
        len(own) == len(groups) and all(map(_same_settings, own, groups)),
        f"{origin}: the parameters or settings of its optimizer are not those of this run; {_FIX}",
    )
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    kept = _KEPT[type(inner)]
    for index, entries in state["state"].items():
        fitting = index < len(parameters) and entries.keys() == kept
        require(
            fitting and all(_fits(entries[n], parameters[index], n) for n in kept),
            f"{origin}: its optimizer's state of parameter {index} does not fit; {_FIX}",
        )
    # A sharded one forgets, in what it is given, what is not its own.
    ways = [{name: group.get(name) for name in _WAYS if name in group} for group in own]
    groups = [{**group, **way} for group, way in zip(groups, ways, strict=True)]
    optimizer.load_state_dict({"state": dict(state["state"]), "param_groups": groups})


_FIX = "use the file that this run wrote"
_WAYS = ("fused", "foreach")  # how an update is computed, by the machine


def _same_settings(own: Mapping[str, object], theirs: Mapping[str, object]) -> bool:
    """Without the learning rate, which every step sets. Only settings that both versions of torch
    know are compared."""
    known = (own.keys() & theirs.keys()) - {"lr", *_WAYS}
    return {"params", "lr_factor"} <= known and all(own[name] == theirs[name] for name in known)


def _fits(kept: Tensor | None, parameter: Tensor, name: str) -> bool:
    if kept is None:
        return name == "momentum_buffer"  # SGD without momentum
    return kept.is_floating_point() and kept.shape == (() if name == "step" else parameter.shape)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets every group of `optimizer` to its multiple of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
