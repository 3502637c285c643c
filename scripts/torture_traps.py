"""Traps for `torture.py`: a process kills itself right before or after its n-th file-system
operation below a folder, or that operation fails as a broken, full or read-only disk has it fail.
"""

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Act = Literal["kill before", "kill after", "EIO", "ENOSPC", "EACCES"]
ACTS: tuple[Act, ...] = ("kill before", "kill after", "EIO", "ENOSPC", "EACCES")
# What takes room, and so fails on a full disk; and stays so, as the disk stays full.
_TAKES_ROOM = ("open", "write", "fsync", "mkdir")
_OF_NAMES = ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "link", "symlink")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass
class Trap:
    """Counts the operations below a folder, and acts at one of them."""

    below: Path
    act: Act
    at: int  # from 0; a large one only counts
    seen: list[str] = field(default_factory=list)
    process: int = field(default_factory=os.getpid)

    def around(self, name: str, place: object, call: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Makes the operation `name` at `place`, a path or an open file."""
        if os.getpid() != self.process or not self._is_ours(place):
            return call()
        number = len(self.seen)
        self.seen.append(name)
        if self.act == "ENOSPC" and number >= self.at and name in _TAKES_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
        if number != self.at:
            return call()
        if self.act == "kill before":
            os.kill(self.process, signal.SIGKILL)
        if self.act in ("EIO", "EACCES"):
            code = getattr(errno, self.act)
            raise OSError(code, os.strerror(code), str(place))
        found = call()
        if self.act == "kill after":
            os.kill(self.process, signal.SIGKILL)
        return found

    def _is_ours(self, place: object) -> bool:
        if isinstance(place, int):
            place = os.readlink(f"/proc/self/fd/{place}")  # noqa: PTH115
        if not isinstance(place, str | os.PathLike):
            return False
        path = os.path.abspath(os.fspath(place))  # noqa: PTH100
        return path.startswith(str(self.below))


class _File(io.FileIO):
    """A file each of whose writes may be the one that is waited for."""

    trap: Trap
    place: str

    def write(self, content: Any) -> int:  # noqa: ANN401
        written: int = self.trap.around("write", self.place, lambda: io.FileIO.write(self, content))
        return written


def install(trap: Trap) -> None:
    """Has every operation of this process go through the trap; for good."""
    for name in _OF_NAMES:
        setattr(os, name, _wrapped(trap, name, getattr(os, name)))
    fsync = os.fsync

    def synced(file: Any) -> None:  # noqa: ANN401
        number = file if isinstance(file, int) else file.fileno()
        trap.around("fsync", number, lambda: fsync(file))

    setattr(os, "fsync", synced)  # noqa: B010  # its parameter has another name
    os_open = os.open

    def low_level(path: Any, flags: int, *rest: Any, **named: Any) -> int:  # noqa: ANN401
        def call() -> int:
            return os_open(path, flags, *rest, **named)

        found: int = trap.around("open", path, call) if flags & _WRITING else call()
        return found

    os.open = low_level
    real = io.open

    def opened(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:  # noqa: ANN401
        if not set(mode) & set("wax+") or isinstance(file, int):
            return real(file, mode, *rest, **named)
        if "b" not in mode or "+" in mode or not trap._is_ours(file):
            return trap.around("open", file, lambda: real(file, mode, *rest, **named))

        def call() -> io.BufferedWriter:
            raw = _File(file, mode.replace("b", ""))
            raw.trap, raw.place = trap, os.fspath(file)
            return io.BufferedWriter(raw)

        return trap.around("open", file, call)

    builtins.open = io.open = opened


def _wrapped(trap: Trap, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(path: Any, *rest: Any, **named: Any) -> Any:  # noqa: ANN401
        place = rest[0] if name in ("link", "symlink", "replace", "rename") else path
        return trap.around(name, place, lambda: real(path, *rest, **named))

    return wrapper
