"""One process at a time writes into the folder of a run."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

from uda.utilities.atomic_files import clear_write_errors
from uda.utilities.errors import InputError

LOCK = ".lock"


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Holds the lock of `folder`. The system takes it back however the process ends, so it is never
    left behind; the file that it is on stays. Raises InputError when another process holds it.

    A record lock, not flock: loader processes, which may outlive a killed run by seconds, do not
    inherit it.
    """
    path = folder / LOCK
    with clear_write_errors(path):
        file = path.open("a+")
    with file:
        _lock(file, folder)
        yield


def _lock(file: TextIO, folder: Path) -> None:
    """Takes the lock, and notes for others who has it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        raise InputError(
            f"{folder} is being written by another run ({file.read().strip() or 'unknown'}): wait "
            "until it ends, stop it, or choose another folder with --run NAME"
        ) from None
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    with clear_write_errors(folder / LOCK):
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n")
        file.flush()
