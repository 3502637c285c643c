"""Memory: what the C library keeps of it, and when there is not enough."""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from uda.utilities.errors import InputError

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from glibc's malloc.h


def keep_freed_memory() -> bool:
    """Sets the C library's allocator to keep freed memory; returns whether it could (glibc only).

    By default glibc maps memory for every tensor above 32 MiB and unmaps it when it is freed, and
    the kernel fills each new mapping with zeros, page by page. A training step at 640x360 makes
    hundreds of such tensors and spends a third of its time there. Keeping the memory adds about a
    tenth to the peak.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # The trim threshold has to grow with it: free memory above it is returned to the system.
    return bool(mallopt(_MMAP_THRESHOLD, 2**30)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def give_back_freed_memory() -> None:
    """Returns the freed memory that the C library keeps to the system (glibc only).

    A process born with it shares it, and the first write to each of its pages copies the page,
    though nobody reads it: for 0.4 GiB that takes a tenth of a second more than new pages do.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def is_out_of_memory(error: Exception) -> bool:
    """Whether it says that a tensor found no room, on a GPU or in this machine's memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@contextmanager
def saying_what_to_lower(what: Callable[[], str]) -> Iterator[None]:
    """Where a tensor finds no room inside, raises InputError with what did not fit and what to
    lower: `what` is called then only."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_out_of_memory(error):
            raise
    else:
        return
    # Outside of the handler: what the error holds, such as a graph, is free by now.
    raise InputError(what())
