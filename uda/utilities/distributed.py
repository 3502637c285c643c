"""Several processes as one: what a rank has to know about the others.

torchrun starts the processes. Without it there is one, and nothing here does anything.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from uda.utilities.errors import InputError, require

T = TypeVar("T")

_TIMEOUT = timedelta(minutes=30)  # rank 0 may be writing a snapshot to a slow disk


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the process that prints and writes."""
    return rank() == 0


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Joins the processes that torchrun started, if there are any; yields this one's device.

    Only the first rank prints. Raises InputError when another process ends before the work is done.
    """
    if "LOCAL_RANK" not in os.environ:
        yield device
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        try:
            with redirect_stdout(sys.stdout if is_main() else nowhere):
                yield device
        except RuntimeError as error:
            if not _is_of_the_group(error):
                raise
            raise InputError(
                f"rank {rank()} lost the others ({' '.join(str(error).split())[:100]}): another "
                "process of this job has ended, and its own message says why; resume from the last "
                "resume.pth with the same command and --resume"
            ) from error
    # Not after an error: the others may be waiting for a message that is never sent.
    leave_group()


def default_device() -> str:
    """The name of the device to compute on where none is given."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_named(name: str | None) -> torch.device:
    """The device called `name`, by default `default_device`, or this process's own GPU where
    torchrun started several.

    Raises InputError when torch does not know it or it is not there.
    """
    name = local_device(default_device() if name is None else name)
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()  # "meta" has no numbers
        torch.autocast(device.type, torch.bfloat16)  # some kinds cannot be trained on
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"--device {name}: {reason}; allowed: cpu, cuda, cuda:N") from None
    return device


def local_device(name: str) -> str:
    """`name`; for "cuda" in a process of torchrun's, the name of its own GPU.

    Raises InputError when several processes would share a GPU.
    """
    local = os.environ.get("LOCAL_RANK")
    if local is None or not name.startswith("cuda"):
        return name
    count = torch.cuda.device_count()
    require(
        name == "cuda" and int(local) < count,
        f"--device {name}: {os.environ['LOCAL_WORLD_SIZE']} processes on this machine need one GPU "
        f"each, and there are {count}; use as many (torchrun --nproc-per-node) and --device cuda",
    )
    return f"cuda:{local}"


def _is_of_the_group(error: RuntimeError) -> bool:
    """Whether the connection to other processes failed: gloo raises plain RuntimeErrors."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or "gloo" in text or "connection" in text


def own_share(items: Sequence[T]) -> Sequence[T]:
    """Every world_size-th of `items`, this rank's own: together the ranks have each item once."""
    return items[rank() :: world_size()]


def own_batch(batch_size: int) -> range:
    """The positions in a global batch that this rank computes; all ranks have equally many."""
    size = batch_size // world_size()
    return range(rank() * size, (rank() + 1) * size)


def check_batch_size(batch_size: int) -> None:
    """Raises InputError unless every rank gets equally many samples of a step."""
    require(
        batch_size % world_size() == 0,
        f"train.batch_size is {batch_size}, the batch of all processes together, but there are "
        f"{world_size()}: use a multiple, e.g. --set train.batch_size={world_size()}",
    )


@torch.no_grad()
def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of each rank's `value`, the same on all; without gradient."""
    if world_size() == 1:
        return value
    total = value.detach().clone().float()
    dist.all_reduce(total)
    return total / world_size()


@torch.no_grad()
def sum_over_ranks(counts: Tensor) -> Tensor:
    """The sum of each rank's `counts`, of any numbers, the same on all."""
    if world_size() == 1:
        return counts
    on_gpus = dist.get_backend() == "nccl"  # which cannot read the host's memory
    total = counts.to("cuda" if on_gpus else "cpu", copy=True)
    dist.all_reduce(total)
    return total.to(counts.device)


@torch.no_grad()
def of_all_ranks(values: Tensor) -> Tensor:
    """The values (n,) of each rank, of equally many, one after the other: (world_size * n,)."""
    if world_size() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


@torch.no_grad()
def in_dealt_order(rows: Tensor) -> Tensor:
    """The rows (n, ...) of all ranks, in the order of the items that `own_share` distributed; the
    same on all."""
    if world_size() == 1:
        return rows
    total = int(sum_over_ranks(torch.tensor(len(rows))))
    longest = -(-total // world_size())
    padded = torch.cat([rows, rows.new_zeros(longest - len(rows), *rows.shape[1:])])
    on_gpus = dist.get_backend() == "nccl"
    gathered = of_all_ranks(padded.to("cuda") if on_gpus else padded).to(rows.device)
    return gathered.unflatten(0, (world_size(), longest)).transpose(0, 1).flatten(0, 1)[:total]


def wait_for_all() -> None:
    """Returns when every rank has called it."""
    if world_size() > 1:
        dist.barrier()


def any_of(text: str) -> str:
    """The first text of any rank that is not empty, the same on all; "" if all are."""
    if world_size() == 1:
        return text
    texts: list[str] = [""] * world_size()
    dist.all_gather_object(texts, text)
    return next(filter(None, texts), "")


def joined(items: Sequence[T]) -> list[T]:
    """The items of each rank, one rank after the other, the same on all."""
    if world_size() == 1:
        return list(items)
    parts: list[Sequence[T]] = [()] * world_size()
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


class HostVote:
    """A vote of all ranks through the hosts' memory, without waiting for a GPU."""

    def __init__(self) -> None:
        """Must be called on all ranks."""
        self._group: Any = dist.new_group(backend="gloo") if world_size() > 1 else None

    def any(self, vote: bool) -> bool:
        """Whether any rank votes yes, the same on all; must be called on all ranks."""
        if self._group is None:
            return vote
        votes = torch.tensor([float(vote)])
        dist.all_reduce(votes, group=self._group)
        return votes.item() > 0


def leave_group() -> None:
    """Leaves the process group, if there is one; for ranks that have all reached the same end."""
    if dist.is_initialized():
        dist.destroy_process_group()


class GradientExchange:
    """Averages over the ranks the gradients that a step has added up in several backward passes.

    DistributedDataParallel exchanges the gradients that one backward pass through it reaches. Here
    this is an extra pass at the end of the step, which adds zeros and reaches every parameter: also
    those that only an earlier view used, such as an auxiliary head's.
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        """Every rank's networks get the weights of the first rank's."""
        networks = nn.ModuleList(networks)
        self._parameters = [p for p in networks.parameters() if p.requires_grad]
        # Parameters only: buffers are a function of them and of the batch of all ranks.
        self._all = DistributedDataParallel(_Reach(nn.ParameterList(self._parameters)))

    def __call__(self) -> None:
        """Must be called on all ranks after the last backward pass of a step."""
        unused = [parameter for parameter in self._parameters if parameter.grad is None]
        self._all().backward()
        for parameter in unused:  # no rank has used them: no optimizer may change them
            parameter.grad = None


class _Reach(nn.Module):
    """A zero that depends on each of some parameters."""

    def __init__(self, reached: nn.ParameterList) -> None:
        super().__init__()
        self.reached = reached

    def forward(self) -> Tensor:
        zero: Tensor = _Zero.apply(*self.reached)
        return zero


class _Zero(torch.autograd.Function):
    """0, with a gradient of zeros for every input."""

    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(*parameters)
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        return tuple(torch.zeros_like(parameter) for parameter in ctx.saved_tensors)
