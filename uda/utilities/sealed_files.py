"""Archives of torch.save with the SHA-256 of the whole file at their end.

The digest is the archive's comment: every reader of archives, and torch, skips it. In contrast to
the checksums of the entries it covers every byte.
"""

import hashlib
import io
import struct
from typing import Any, BinaryIO

_END = struct.Struct("<4s4H2LH")  # the last record of an archive; then its comment
_END_MARK = b"PK\x05\x06"
_SEAL = b"uda sha256 "
_LENGTH = len(_SEAL) + 64
_BLOCK = 2**20  # bytes


class DamagedFileError(ValueError):
    """A file is not whole, or not what torch.save writes. The message says why, after "it"."""


class Sealing(io.RawIOBase, BinaryIO):  # torch wants the second
    """A file for torch.save to write an archive to; `seal` ends it with the digest of all of it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._digest = hashlib.sha256()
        self._held = b""  # of the end: it says how long the comment is, and that is known last

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:  # noqa: ANN401 - any buffer
        given = memoryview(content).cast("B")
        if len(given) >= _END.size:
            self._put(self._held)
            self._put(given[: -_END.size])
            self._held = bytes(given[-_END.size :])
        else:
            end = self._held + bytes(given)
            self._put(end[: -_END.size])  # nothing of a shorter one
            self._held = end[-_END.size :]
        return len(given)

    def seal(self) -> None:
        """Ends the file. Raises ValueError when what was written is no archive."""
        mark, *numbers, comment = _END.unpack(self._held)
        if mark != _END_MARK or comment:
            raise ValueError("only archives without a comment can be sealed")
        self._put(_END.pack(mark, *numbers, _LENGTH))
        self._file.write(_SEAL + self._digest.hexdigest().encode())

    def _put(self, content: bytes | memoryview) -> None:
        self._digest.update(content)
        self._file.write(content)


def is_seal(comment: bytes) -> bool:
    """Whether the comment of an archive is a digest."""
    return len(comment) == _LENGTH and comment.startswith(_SEAL)


def check_seal(file: BinaryIO, length: int) -> bool:
    """Compares the digest at the end of a file of `length` bytes with its content; False for a file
    that has none. Raises DamagedFileError when they differ, or when half of a digest is there."""
    file.seek(max(length - _LENGTH - 4 * _END.size, 0))
    tail = file.read()
    sealed = is_seal(tail[-_LENGTH:])
    if not sealed:
        place = tail.rfind(_END_MARK)
        whole = 0 <= place <= len(tail) - _END.size
        if whole and _END.unpack_from(tail, place)[-1] == _LENGTH:
            raise DamagedFileError("its digest is not as this library writes it")
        return False
    file.seek(0)
    found, left = hashlib.sha256(), length - _LENGTH
    while left:
        block = file.read(min(_BLOCK, left))
        if not block:
            raise DamagedFileError("it has become shorter while it was read")
        found.update(block)
        left -= len(block)
    if found.hexdigest().encode() != tail[-_LENGTH + len(_SEAL) :]:
        raise DamagedFileError("its content does not match the digest at its end")
    return True
