"""Loader processes: images are read ahead, in order, without using the global generator."""

import os
import signal
import threading
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset


def read_ahead(
    dataset: Dataset[Any],
    batches: Iterable[list[int]] | None = None,
    *,
    workers: int,
    collate: Callable[[list[Any]], Any],
    pin_memory: bool = False,
) -> "DataLoader[Any]":
    """The result of `collate` for the samples of `dataset` with the indices in `batches`, in order;
    without `batches`, for each sample alone. `workers`: loader processes, 0 for none."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=leave_signals_to_the_main_process,
        generator=torch.Generator(),  # otherwise the loader would use the global one
    )


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
