"""Loader processes: images are read ahead, in order, without using the global generator."""

import os
import signal
import threading
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from uda.utilities.errors import InputError


def read_ahead(
    dataset: Dataset[Any],
    batches: Iterable[list[int]] | None = None,
    *,
    workers: int,
    collate: Callable[[list[Any]], Any],
    pin_memory: bool = False,
) -> "DataLoader[Any]":
    """The result of `collate` for the samples of `dataset` with the indices in `batches`, in order;
    without `batches`, for each sample alone. `workers`: loader processes, 0 for none. Where these
    have no shared memory to hand a result over in, it is the InputError that says so."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_Handover(collate),
        pin_memory=pin_memory,
        worker_init_fn=leave_signals_to_the_main_process,
        generator=torch.Generator(),  # otherwise the loader would use the global one
    )


class _Handover:
    """`collate`, whose tensors a loader process puts into shared memory at once.

    Else a thread of its queue would do so, whose error reaches nobody: the main process would wait
    for ever.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: list[Any]) -> Any:  # noqa: ANN401  # what `collate` makes of them
        found = self.collate(samples)
        if get_worker_info() is None:
            return found
        try:
            _share(found)
        except (RuntimeError, OSError) as error:
            text = " ".join(str(error).split())
            return InputError(
                f"a loader process cannot hand over what it has read ({text}): shared memory, "
                "/dev/shm, is too small; give it more, in a container with --shm-size=8g, or use "
                "no loader processes, with --set data.workers=0 or --workers 0"
            )
        return found


def _share(found: object) -> None:
    """Moves the tensors in `found`, a plain container or dataclass, into shared memory."""
    if isinstance(found, torch.Tensor):
        if found.numel():
            found.share_memory_()
    elif isinstance(found, tuple | list):
        for part in found:
            _share(part)
    elif is_dataclass(found):
        for field in fields(found):
            _share(getattr(found, field.name))


def leave_signals_to_the_main_process(worker: int = 0) -> None:
    """Makes loader process number `worker` ignore the signals that a terminal or a scheduler sends
    to all processes.

    SIGTERM from the main process itself still ends it: that is how Python ends the loaders that are
    left over when the main process exits, and it waits for them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS does not say who sent a signal
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(
        target=_end_when_the_main_process_asks, args=(os.getppid(),), daemon=True
    ).start()


def _end_when_the_main_process_asks(main_process: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != main_process:
        pass
    os._exit(0)
