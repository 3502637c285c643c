"""Loader processes: images are read ahead, in order, without using the global generator.

Whatever happens to a loader process, the main one ends with a message; and no loader process lives
longer than the main one, however that ends.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from uda.utilities.errors import InputError
from uda.utilities.host_memory import give_back_freed_memory
from uda.utilities.interrupts import SIGNALS, name_of

_PATIENCE = 5.0  # seconds that processes and threads are given to end
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG of Linux's prctl
_PER_CORE = 32  # processes; more would only wait for each other
_FEWER = "--set data.workers=N or --workers N"
_waits = False  # whether the main thread waits for a loader process


class LoaderLostError(InputError):
    """A loader process has ended before its work was done. `cause` says how."""

    def __init__(self, cause: str, advice: str = "start the command again") -> None:
        super().__init__(f"{cause}; {advice}")
        self.cause = cause


def is_waiting() -> bool:
    """Whether the main thread is waiting for a loader process: nothing is half done, and what a
    signal's handler raises now does no harm."""
    return _waits


def read_ahead(
    dataset: Dataset[Any],
    batches: Iterable[list[int]] | None = None,
    *,
    workers: int,
    collate: Callable[[list[Any]], Any],
    pin_memory: bool = False,
) -> Iterator[Any]:
    """The result of `collate` for the samples of `dataset` with the indices in `batches`, in order;
    without `batches`, for each sample alone. `workers`: loader processes, 0 for none. Where these
    have no shared memory to hand a result over in, it is the InputError that says so. There are no
    more processes than results, nor than a machine can take. Raises
    LoaderLostError when one of them has ended, InputError when they cannot be started."""
    results: Any = dataset if batches is None else batches
    workers = min(workers, len(results), _PER_CORE * (os.cpu_count() or 1))
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_Handover(collate),
        pin_memory=pin_memory,
        worker_init_fn=_beginning(),
        generator=torch.Generator(),  # otherwise the loader would use the global one
    )
    if not workers:
        yield from loader
        return
    running = _Loaders(loader)
    try:
        for _ in range(len(loader)):
            yield running.next()
    finally:
        running.close()


class _Loaders:
    """The processes of a loader, from their birth to their end."""

    def __init__(self, loader: "DataLoader[Any]") -> None:
        others = set(multiprocessing.active_children())
        self._processes: list[Any] = []
        self._batches: Any = None
        try:
            give_back_freed_memory()
            with _no_signals():
                self._batches = iter(loader)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"{loader.num_workers} loader processes cannot be started "
                f"({' '.join(str(error).split())}): use fewer, {_FEWER}"
            ) from None
        finally:
            self._processes = [p for p in multiprocessing.active_children() if p not in others]
            if self._batches is None:
                self.close()

    def next(self) -> Any:  # noqa: ANN401  # what `collate` makes
        """The next batch. Raises LoaderLostError when a process has ended."""
        with self._watched():
            try:
                return next(self._batches)
            except (RuntimeError, OSError, EOFError):
                # The connections of a process are closed before it can be seen to have ended.
                for _ in range(100):
                    self._refuse_losses()
                    time.sleep(0.01)
                raise

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Within it, a process that ends raises LoaderLostError at once: what it was writing may
        never be complete, and waiting for that would have no end."""
        global _waits
        if threading.current_thread() is not threading.main_thread():
            self._refuse_losses()
            yield  # here the loader itself looks every few seconds
            return
        before = signal.signal(signal.SIGCHLD, self._hear_of_child)
        _waits = True
        try:
            self._refuse_losses()
            yield
        finally:
            _waits = False
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)

    def _hear_of_child(self, number: int, frame: FrameType | None) -> None:
        if _waits:
            self._refuse_losses()

    def _refuse_losses(self) -> None:
        for process in self._processes:
            if (status := process.exitcode) is not None:
                raise LoaderLostError(f"loader process {process.pid} {_ending(status)}") from None

    def close(self) -> None:
        """Ends all processes, also those that are stopped or hold a lock."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join(_PATIENCE)
        # In a thread: a process may have had a lock that is now never released.
        shutdown = getattr(self._batches, "_shutdown_workers", None)
        if shutdown is not None and not sys.is_finalizing():  # no thread starts when Python ends
            thread = threading.Thread(target=shutdown, daemon=True)
            thread.start()
            thread.join(_PATIENCE)


def _ending(status: int) -> str:
    if status >= 0:
        return f"has ended by itself, with status {status}"
    how = f"was killed by {name_of(-status)}"
    if -status == signal.SIGKILL:
        return f"{how}, as a system does that runs out of memory: fewer need less, {_FEWER}"
    if -status == signal.SIGBUS:
        return f"{how}: shared memory, /dev/shm, is too small; give it more, or use {_FEWER}"
    return how


@contextmanager
def _no_signals() -> Iterator[None]:
    """Within it, a process is born that no signal but SIGKILL can reach before it is ready: it
    would act on it as its parent. Nor is it to change how the parent hears of ended children."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        # The loader's own handler would raise in the middle of a training step.
        if signal.getsignal(signal.SIGCHLD) is not before:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _beginning() -> Callable[[int], None]:
    """What a loader process of this process has to do first."""
    return partial(
        leave_signals_to_the_main_process,
        main_process=os.getpid(),
        # Linux means the end of the thread that has started it.
        end_with_thread=threading.current_thread() is threading.main_thread(),
        is_child=multiprocessing.get_start_method() != "forkserver",
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


def leave_signals_to_the_main_process(
    worker: int = 0,
    *,
    main_process: int = 0,
    end_with_thread: bool = False,
    is_child: bool = True,
) -> None:
    """Makes loader process number `worker` ignore the signals that a terminal or a scheduler sends
    to all processes, and end when `main_process`, by default its parent, does; `is_child`: whether
    that is its parent.

    SIGTERM from the main process itself still ends it: that is how Python ends the loaders that are
    left over when the main process exits, and it waits for them.
    """
    main_process = main_process or os.getppid()
    if end_with_thread and is_child and sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)
    lives = partial(_is_parent, main_process) if is_child else _has_parent
    if not lives():  # it has ended before it could be asked for
        os._exit(1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN if number != signal.SIGTERM else signal.SIG_DFL)
    for number in (signal.SIGBUS, signal.SIGSEGV):  # the main process says it
        signal.signal(number, signal.SIG_DFL)
    waits = hasattr(signal, "sigtimedwait")  # macOS does not say who sent a signal
    how = signal.SIG_BLOCK if waits else signal.SIG_UNBLOCK
    signal.pthread_sigmask(how, {signal.SIGTERM})
    watch = partial(_end_when_asked, main_process) if waits else partial(time.sleep, 1)
    threading.Thread(target=_end_with, args=(lives, watch), daemon=True).start()


def _is_parent(process: int) -> bool:
    return os.getppid() == process


def _has_parent() -> bool:
    parent = multiprocessing.parent_process()
    return parent is None or parent.is_alive()


def _end_with(lives: Callable[[], bool], watch: Callable[[], None]) -> None:
    while lives():
        watch()
    os._exit(1)


def _end_when_asked(main_process: int) -> None:
    """Waits for a second at most."""
    heard = signal.sigtimedwait({signal.SIGTERM}, 1)
    if heard is not None and heard.si_pid == main_process:
        os._exit(0)
